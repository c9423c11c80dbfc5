//! `leakwarden key`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::{FormatArg, Scope, span, time, word};
use crate::registry::View;
use crate::registry::key::{Class, KeyKind, LeakAction, Status};

/// `key`.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key and show it, once
    Create(Create),
    /// Register a key that was issued elsewhere; it is read from standard input
    Register {
        /// The key
        #[command(flatten)]
        described: Described,
    },
    /// Register many keys from a JSONL or CSV file
    Import {
        /// The file; `-` is standard input
        file: PathBuf,
        /// Import nothing if one line has a fault
        #[arg(long)]
        all_or_nothing: bool,
        /// Name of the system that the keys come from: lines with a `remote_id` that came from it
        /// before update their keys
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Delete keys of that source that the file does not name; refused above 5 %
        #[arg(long, requires = "source")]
        prune: bool,
        /// Let --prune delete so many keys, although they are more than 5 %
        #[arg(long, value_name = "N", requires = "prune")]
        prune_max: Option<u64>,
        /// Do not ask before pruning
        #[arg(long, short)]
        force: bool,
        /// Read CSV (the default for files named .csv)
        #[arg(long)]
        csv: bool,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Write what is known of the keys as JSONL or CSV; never the keys, nor their digests
    Export {
        /// Which
        #[command(flatten)]
        list: Listed,
        /// Write CSV
        #[arg(long)]
        csv: bool,
    },
    /// Issue a successor and let the key expire
    Rotate {
        /// Name, id or UUID of the key
        #[arg(value_name = "NAME|ID")]
        key: String,
        /// For how long both are valid: 7d, 12h, 0s
        #[arg(long, value_name = "SPAN", value_parser = span, default_value = "7d")]
        overlap: Duration,
        /// How the successor is made
        #[command(flatten)]
        made: Made,
        /// Date or time from which the successor is invalid; "" means never [default: as long from
        /// now as the old key was made for]
        #[arg(long, value_name = "DATE", value_parser = time_or_never)]
        expires: Option<Expiry>,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// List keys
    List {
        /// Which
        #[command(flatten)]
        list: Listed,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show one key and its history
    Show(KeyArg),
    /// Change a key: name, description, expiry, leak action, class, homes
    Update(Update),
    /// Say whether the key on standard input is valid; exit code 0 only if it is
    Verify {
        /// Read many keys, one a line, and answer a line for each; exit code 0 only if all are
        /// valid
        #[arg(long)]
        many: bool,
        /// Do not count this as a use of the key
        #[arg(long)]
        no_count: bool,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lock a key: it cannot be changed or deleted until it is unlocked
    Lock(Switched),
    /// Unlock a key
    Unlock(Switched),
    /// Make a key unusable
    Disable(Switched),
    /// Make a disabled key usable again
    Enable(Switched),
    /// Delete a key for good
    Delete {
        /// Which
        #[command(flatten)]
        key: KeyArg,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
}

/// A key by name or id.
#[derive(Debug, Args)]
pub struct KeyArg {
    /// Name, id or UUID of the key
    #[arg(value_name = "NAME|ID")]
    pub key: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Where, and as whom
    #[command(flatten)]
    pub scope: Scope,
    /// How to print
    #[command(flatten)]
    pub format: FormatArg,
}

/// Which key is switched, by commands that can be taken back.
#[derive(Debug, Args)]
pub struct Switched {
    /// Which
    #[command(flatten)]
    pub key: KeyArg,
    /// Do not ask: nothing is asked anyway, as this can be taken back
    #[arg(long, short)]
    pub force: bool,
}

/// What `create` and `register` say of a key.
#[derive(Debug, Args)]
pub struct Described {
    /// Name of the key; need not be unique
    pub name: String,
    /// Description
    #[arg(long, short, default_value = "")]
    pub description: String,
    /// Its owner: mail address, name or id of an identity; an unknown address becomes a user
    /// (default: you)
    #[arg(long, value_name = "EMAIL|ID")]
    pub owner: Option<String>,
    /// Whom it stands for
    #[arg(long, value_parser = kind, default_value = "user")]
    pub kind: KeyKind,
    /// The service that made it, for keys of the kind service-specific
    #[arg(long, value_name = "NAME", default_value = "")]
    pub service: String,
    /// live: acted upon; test: told, never acted upon; publishable: only recorded
    #[arg(long, value_parser = class, default_value = "live")]
    pub class: Class,
    /// What to do when it leaks: none, disable or delete [default: disable; none for classic keys]
    #[arg(long, alias = "action-when-leaked", value_parser = leak_action)]
    pub action_if_leaked: Option<LeakAction>,
    /// Date or time (RFC 3339) from which it is invalid
    #[arg(long, value_name = "DATE", value_parser = time)]
    pub expires: Option<Timestamp>,
    /// Glob of files where it is meant to be; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub home: Vec<String>,
    /// What carries its leak action out: `registry`, or the name of a connector
    #[arg(long, value_name = "NAME", default_value = "registry")]
    pub executor: String,
    /// Its id in the system that issued it
    #[arg(long, value_name = "ID")]
    pub remote_id: Option<String>,
    /// Lock it
    #[arg(long)]
    pub lock: bool,
    /// Where, and as whom
    #[command(flatten)]
    pub scope: Scope,
    /// How to print
    #[command(flatten)]
    pub format: FormatArg,
}

/// Other issuers' key forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Like {
    /// 44 characters base64url without a prefix
    Ibm,
}

/// How a key is made, and where it goes.
#[derive(Debug, Args)]
pub struct Made {
    /// Make it in the form of another issuer
    #[arg(long, value_enum)]
    pub like: Option<Like>,
    /// Write the key to a new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `key create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The key
    #[command(flatten)]
    pub described: Described,
    /// How it is made
    #[command(flatten)]
    pub made: Made,
}

/// Which keys are listed.
#[derive(Debug, Args)]
pub struct Listed {
    /// Also deleted ones
    #[arg(long)]
    pub all: bool,
    /// A part of the keys: mine, user, service-id or classic
    #[arg(long, value_parser = view)]
    pub view: Option<View>,
    /// In this state: active, disabled, expired, deleted
    #[arg(long, value_parser = status)]
    pub state: Option<Status>,
    /// Of this identity
    #[arg(long, value_name = "EMAIL|ID")]
    pub owner: Option<String>,
    /// Of this class
    #[arg(long, value_parser = class)]
    pub class: Option<Class>,
    /// With this leak action
    #[arg(long, alias = "action-when-leaked", value_parser = leak_action)]
    pub action_if_leaked: Option<LeakAction>,
    /// That leaked at some time
    #[arg(long)]
    pub leaked: bool,
    /// That expire within this time: 30d, 12h
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub expires_within: Option<Duration>,
    /// That were imported from this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Where, and as whom
    #[command(flatten)]
    pub scope: Scope,
}

/// `key update`.
#[derive(Debug, Args)]
pub struct Update {
    /// Which
    #[command(flatten)]
    pub key: KeyArg,
    /// New name
    #[arg(long, short, value_name = "NAME")]
    pub name: Option<String>,
    /// New description; "" clears it
    #[arg(long, short, value_name = "TEXT")]
    pub description: Option<String>,
    /// Date or time from which it is invalid; "" means never
    #[arg(long, value_name = "DATE", value_parser = time_or_never)]
    pub expires: Option<Expiry>,
    /// What to do when it leaks
    #[arg(long, alias = "action-when-leaked", value_parser = leak_action)]
    pub action_if_leaked: Option<LeakAction>,
    /// Its class
    #[arg(long, value_parser = class)]
    pub class: Option<Class>,
    /// What carries its leak action out: `registry`, or the name of a connector
    #[arg(long, value_name = "NAME")]
    pub executor: Option<String>,
    /// Its id in the system that issued it; "" clears it
    #[arg(long, value_name = "ID")]
    pub remote_id: Option<String>,
    /// Its homes, all of them; may be given several times; "" removes them
    #[arg(long, value_name = "GLOB")]
    pub home: Vec<String>,
    /// Only if its version is still this one
    #[arg(long, alias = "if-match", value_name = "VERSION")]
    pub if_version: Option<i64>,
}

/// From when on a key is invalid.
#[derive(Clone, Copy, Debug)]
pub struct Expiry(pub Option<Timestamp>);

fn time_or_never(text: &str) -> Result<Expiry, String> {
    if text.is_empty() { Ok(Expiry(None)) } else { time(text).map(|at| Expiry(Some(at))) }
}

fn leak_action(text: &str) -> Result<LeakAction, String> {
    word(text, LeakAction::parse, LeakAction::WORDS)
}

fn kind(text: &str) -> Result<KeyKind, String> {
    word(text, KeyKind::parse, KeyKind::WORDS)
}

fn class(text: &str) -> Result<Class, String> {
    word(text, Class::parse, Class::WORDS)
}

fn view(text: &str) -> Result<View, String> {
    word(text, View::parse, View::WORDS)
}

fn status(text: &str) -> Result<Status, String> {
    word(text, Status::parse, Status::WORDS)
}
