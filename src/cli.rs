//! What the user can say. No logic: commands give it meaning.

mod hook;
mod key;
mod late;
mod people;
mod upkeep;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use key::{Create, Described, Expiry, Key, KeyArg, Like, Listed, Made, Update};
pub use late::Late;
pub use people::{Access, Account, AccountChange, Home, Identity, IdentityDescribed, Restricted};
pub use upkeep::{Audit, Registry};

pub use hook::{Hook, HookName, Install, Server};

/// Finds leaked API keys, knows whose they are, and acts.
#[derive(Debug, Parser)]
#[command(name = "leakwarden", version, about, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 all read, no leak; 1 leak found; 2 usage, configuration or \
registry error; 3 no leak found, but something could not be read.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Scan files, folders, standard input, a diff or a git repository for keys
    Scan(Scan),
    /// Git hooks: refuse commits and pushes that hold keys
    Hook(Late<Hook>),
    /// Watch folders, logs, repositories, the journal and pipes, act on leaked keys, tell people (the
    /// daemon)
    Watch(Watch),
    /// Ask the daemon how it does; exit code 1: none runs, 3: something is not read
    Status {
        /// Where the registry is that the daemon works on
        #[command(flatten)]
        registry: RegistryArg,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Check a configuration file
    Config(Late<Config>),
    /// Show the whole way in a temporary folder: issue, leak, catch, act, mail
    Demo,
    /// Make a registry, its pepper and a configuration
    Init(Init),
    /// Issue, register and manage keys
    Key(Late<Key>),
    /// Whom keys stand for: users, functional IDs, service IDs
    Identity(Late<Identity>),
    /// Accounts and their settings
    Account(Late<Account>),
    /// Who may do what
    Access(Late<Access>),
    /// Files where keys are meant to be
    Home(Late<Home>),
    /// Say who you are to the registry, and what you may do
    Whoami {
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Look at the audit log, and check it
    Audit(Late<Audit>),
    /// Back up and check the registry, rotate its pepper
    Registry(Late<Registry>),
    /// Review leaks: what was seen, what was done, what waits
    Leak(Late<Leak>),
    /// Look at rules, check rule files, try rules on their examples or on a text
    Rule(Late<Rule>),
}

/// Where the registry is.
#[derive(Clone, Debug, Args)]
pub struct RegistryArg {
    /// Folder of the registry, as made by `leakwarden init`
    #[arg(long, value_name = "DIR", env = "LEAKWARDEN_REGISTRY")]
    pub registry: Option<PathBuf>,
}

/// Where the registry is, and who asks.
#[derive(Clone, Debug, Args)]
pub struct Scope {
    /// Where
    #[command(flatten)]
    pub registry: RegistryArg,
    /// Act as this identity (name, mail address or id), with its rights
    #[arg(long = "as", value_name = "ID")]
    pub acts_as: Option<String>,
    /// Which account, if there are several
    #[arg(long, value_name = "NAME", env = "LEAKWARDEN_ACCOUNT")]
    pub account: Option<String>,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people
    #[default]
    Text,
    /// One document
    Json,
}

/// `--format` of lists.
#[derive(Clone, Copy, Debug, Args)]
pub struct FormatArg {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}

/// How scans are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// One document
    Json,
    /// One object per line, the summary last
    Jsonl,
}

/// Which findings a scan reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MinConfidence {
    /// Everything
    Low,
    /// What is probably a key
    #[default]
    Medium,
    /// What is surely of a key's form
    High,
}

/// Narrows a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Keys of the registry only
    Registered,
}

/// Options of scans and hooks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub struct Report {
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    pub format: ReportFormat,
    /// Write the report to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the registry is
    #[command(flatten)]
    pub registry: RegistryArg,
    /// Use rules only, whatever LEAKWARDEN_REGISTRY says
    #[arg(long)]
    pub no_registry: bool,
    /// Where no registry can be read: a filter that `leakwarden registry export-filter` made
    #[arg(long, value_name = "FILE", env = "LEAKWARDEN_FILTER")]
    pub filter: Option<PathBuf>,
    /// Report only a part of the findings
    #[arg(long, value_enum)]
    pub only: Option<Only>,
    /// Add rules from the .yaml files of a folder
    #[arg(long, value_name = "DIR")]
    pub rules: Vec<PathBuf>,
    /// Report findings from this confidence on; registered keys are always reported
    #[arg(long, value_enum, default_value_t)]
    pub min_confidence: MinConfidence,
    /// Print findings only
    #[arg(long, short)]
    pub quiet: bool,
}

/// `scan`.
#[derive(Debug, Args)]
pub struct Scan {
    /// Files and folders (default: the current folder)
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Read standard input
    #[arg(long, conflicts_with_all = ["paths", "diff"])]
    pub stdin: bool,
    /// Name of standard input in the report
    #[arg(long, value_name = "PATH", default_value = "<stdin>", requires = "stdin")]
    pub name: PathBuf,
    /// Read a unified diff from standard input: added lines only
    #[arg(long, conflicts_with = "paths")]
    pub diff: bool,
    /// Leave out files and folders that match a glob
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Read also what .gitignore names
    #[arg(long)]
    pub no_ignore: bool,
    /// Find registered keys also where letters or digits touch them on both sides; slower
    #[arg(long)]
    pub deep: bool,
    /// Files, or parts of a long file, that are read at once (default: one per core)
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// What to read of git
    #[command(flatten)]
    pub history: History,
    /// What to do about what is found
    #[command(flatten)]
    pub respond: Respond,
    /// How to report
    #[command(flatten)]
    pub report: Report,
}

/// What a scan does about registered keys.
#[derive(Debug, Args)]
#[command(next_help_heading = "Responding")]
pub struct Respond {
    /// Record leaks of registered keys, carry out their leak actions, and tell people
    #[arg(long, conflicts_with = "no_registry")]
    pub respond: bool,
    /// By which configuration (default: the one that `leakwarden watch` had last, or else config.yaml in
    /// the registry's folder)
    #[arg(long, value_name = "FILE", requires = "respond")]
    pub config: Option<PathBuf>,
}

/// Which repository is scanned, and what of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Git")]
pub struct History {
    /// Read every object of a repository, each once: all versions of all files, messages, names,
    /// notes, stashes, reflogs, and what no branch leads to (default: the current folder)
    #[arg(long, value_name = "REPO", num_args = 0..=1, default_missing_value = ".")]
    #[arg(conflicts_with_all = ["paths", "stdin", "diff"])]
    pub git: Option<PathBuf>,
    /// Only what HEAD, or --branch, has and REV has not
    #[arg(long, value_name = "REV", requires = "git", conflicts_with = "range")]
    pub since: Option<String>,
    /// Only what B has and A has not
    #[arg(long, value_name = "A..B", requires = "git", conflicts_with = "branch")]
    pub range: Option<String>,
    /// Only what a branch, a tag or a commit has
    #[arg(long, value_name = "B", requires = "git")]
    pub branch: Option<String>,
    /// Only the lines that are staged for the next commit
    #[arg(long, requires = "git", conflicts_with_all = ["since", "range", "branch"])]
    pub staged: bool,
    /// Do not count as unread what a shallow or partial clone left out
    #[arg(long, requires = "git")]
    pub allow_shallow: bool,
    /// Memory for objects and indexes, in MB; git reads what does not fit
    #[arg(long, value_name = "MB", requires = "git", default_value_t = 512)]
    #[arg(value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    pub memory: u64,
    /// End, as incomplete, once objects unpack to more MB [default: 65536, or 5000 times the packs
    /// if that is more]
    #[arg(long, value_name = "MB", requires = "git")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_099_511_627_776))]
    pub max_unpacked: Option<u64>,
}

/// `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Watch standard input as well, to its end
    #[arg(long)]
    pub stdin: bool,
    /// How to write the log to standard error
    #[arg(long, value_enum, default_value_t)]
    pub log_format: ListFormat,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a configuration file: fields, globs, rules
    Check {
        /// The file
        file: PathBuf,
    },
}

/// `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Folder to make
    #[arg(long, value_name = "DIR", default_value = "./leakwarden")]
    pub dir: PathBuf,
    /// Mail address of the first administrator (default: you on this host)
    #[arg(long, value_name = "EMAIL")]
    pub admin: Option<String>,
    /// Name of the account
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub account: String,
}

/// `leak`.
#[derive(Debug, Subcommand)]
pub enum Leak {
    /// List leaks that are not resolved
    List {
        /// Also resolved ones
        #[arg(long)]
        all: bool,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show everything about one leak
    Show {
        /// Its number
        #[arg(value_name = "LEAK")]
        leak: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Release actions that are held
    Approve {
        /// Their numbers
        #[arg(value_name = "LEAK", required_unless_present = "all")]
        leaks: Vec<String>,
        /// Release everything that is held
        #[arg(long, conflicts_with = "leaks")]
        all: bool,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "approved on the command line")]
        reason: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
    },
    /// Say where the key on standard input was ever seen; exit code 1: it was
    Check {
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Close a leak
    Resolve {
        /// Its number
        #[arg(value_name = "LEAK")]
        leak: String,
        /// How it ended; `rotated` is refused while the key is valid
        #[arg(long = "as", value_name = "HOW", value_parser = ["rotated", "false-positive", "accepted"])]
        how: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Act as this identity, with its rights (`--as` says how it ended here)
        #[arg(long, value_name = "ID")]
        by: Option<String>,
        /// Which account, if there are several
        #[arg(long, value_name = "NAME", env = "LEAKWARDEN_ACCOUNT")]
        account: Option<String>,
        /// Where
        #[command(flatten)]
        registry: RegistryArg,
    },
}

/// Own rules beside the built-in ones.
#[derive(Debug, Args)]
pub struct RulesArg {
    /// Add rules from the .yaml files of a folder
    #[arg(long, value_name = "DIR")]
    pub rules: Vec<PathBuf>,
}

/// `rule`.
#[derive(Debug, Subcommand)]
pub enum Rule {
    /// List the rules
    List {
        /// Only rules with this word in their id, provider or name; of several words, with all
        #[arg(value_name = "WORD")]
        words: Vec<String>,
        /// Only rules that do not come with leakwarden
        #[arg(long)]
        own: bool,
        /// Which
        #[command(flatten)]
        rules: RulesArg,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show everything about one rule
    Show {
        /// Its id
        id: String,
        /// Which
        #[command(flatten)]
        rules: RulesArg,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Check rule files and try their examples; exit code 2: a fault
    Check {
        /// Rule files, or folders of them (default: the built-in rules)
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Try rules on their examples, or on a text
    #[command(after_help = "Exit codes: 0 every example is right, or a rule matches the text; \
    1 an example is wrong, or no rule matches; 2 usage error, or a fault in a rule file.")]
    Test(RuleTest),
}

/// `rule test`.
#[derive(Debug, Args)]
pub struct RuleTest {
    /// Rule files, or folders of them, beside the built-in rules
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which
    #[command(flatten)]
    pub rules: RulesArg,
    /// Try one rule only
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Instead of the examples, say what the rules see in standard input, and why they doubt it
    #[arg(long)]
    pub stdin: bool,
}

/// Reads a word of a list, whatever its case: IBM Cloud writes `DISABLE` as well.
fn word<T>(text: &str, parse: impl Fn(&str) -> Option<T>, words: &[&str]) -> Result<T, String> {
    parse(&text.to_lowercase()).ok_or_else(|| format!("expected {}", words.join(", ")))
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    crate::clock::parse(text)
        .ok_or_else(|| "expected a date (2027-01-31) or a time (2027-01-31T12:00:00Z)".to_owned())
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    crate::clock::parse_span(text)
        .ok_or_else(|| "expected a span such as 30d, 12h or 0s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
