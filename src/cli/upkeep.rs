//! `leakwarden audit` and `registry`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{FormatArg, Scope};

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show the last rows of the audit log
    Show {
        /// About this key, identity or leak
        #[arg(value_name = "NAME|ID")]
        about: Option<String>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Find changed, missing and reordered rows; exit code 1: there are some
    Verify {
        /// A file with heads that were kept elsewhere, such as the log of the daemon; `-` is
        /// standard input
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
}

/// `registry`.
#[derive(Debug, Subcommand)]
pub enum Registry {
    /// Copy the database into a new file, and check the copy; the daemon may run
    Backup {
        /// The file
        file: PathBuf,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Check database, modes and audit log; exit code 1: something is wrong
    Check {
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Write a filter of the live keys, by which other machines recognise them without the registry
    ExportFilter {
        /// The file; replaced if it is there; `-` is standard output
        file: PathBuf,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Add a new pepper; no key is needed in plain for it, and no daemon may run
    RotatePepper {
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
}
