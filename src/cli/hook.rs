//! `hook`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{FormatArg, RegistryArg, Report};

/// `hook`.
#[derive(Debug, Subcommand)]
pub enum Hook {
    /// Scan what is staged; called by git before a commit
    PreCommit {
        /// How to report
        #[command(flatten)]
        report: Report,
    },
    /// Scan what a push brings to the other side; called by git before a push
    PrePush {
        /// Name and URL of the remote, as git gives them
        #[arg(value_name = "REMOTE")]
        remote: Vec<String>,
        /// How to report
        #[command(flatten)]
        report: Report,
    },
    /// On a server: scan all that a push brings, before any ref changes
    PreReceive {
        /// What to answer when not all could be read
        #[command(flatten)]
        server: Server,
        /// How to report
        #[command(flatten)]
        report: Report,
    },
    /// On a server: scan what a push brings to one ref, before it changes
    Update {
        /// Ref, old id and new id, as git gives them
        #[arg(value_name = "REF OLD NEW")]
        change: Vec<String>,
        /// What to answer when not all could be read
        #[command(flatten)]
        server: Server,
        /// How to report
        #[command(flatten)]
        report: Report,
    },
    /// Install hooks; one that is there already is kept and called
    Install(Install),
    /// Take the hooks out again, and put back what was there before
    Uninstall {
        /// Those for all of your repositories
        #[arg(long)]
        global: bool,
    },
    /// Say which hooks are installed, and whether git runs them; exit code 1: none, or one is not run
    Status {
        /// Those for all of your repositories
        #[arg(long)]
        global: bool,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
}

/// Limits of hooks that somebody waits for at the other end of a line.
#[derive(Clone, Copy, Debug, Args)]
pub struct Server {
    /// Seconds that reading may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub budget: u64,
    /// Let the push in when not all of it could be read, or the registry cannot be used
    #[arg(long, conflicts_with = "fail_closed")]
    pub fail_open: bool,
    /// Refuse the push then (the default)
    #[arg(long)]
    pub fail_closed: bool,
}

/// A hook that can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HookName {
    /// Before a commit
    PreCommit,
    /// Before a push
    PrePush,
    /// On a server, before a push changes refs
    PreReceive,
    /// On a server, before a push changes one ref
    Update,
}

/// `hook install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Which (default: pre-commit; in a bare repository: pre-receive)
    #[arg(value_name = "HOOK")]
    pub hooks: Vec<HookName>,
    /// For all of your repositories, by `core.hooksPath`; hooks of their own are still called
    #[arg(long)]
    pub global: bool,
    /// Registry that the hook uses
    #[command(flatten)]
    pub registry: RegistryArg,
    /// Exported filter that the hook uses where it cannot read a registry
    #[arg(long, value_name = "FILE")]
    pub filter: Option<PathBuf>,
}
