//! `leakwarden identity`, `account`, `access` and `home`.

use clap::{Args, Subcommand};

use super::{FormatArg, Scope, word};
use crate::registry::access::Grant;
use crate::registry::identity::IdentityKind;

/// `identity`.
#[derive(Debug, Subcommand)]
pub enum Identity {
    /// Make an identity
    Create {
        /// Its name, unique in its account
        name: String,
        /// What it is: user, functional-id or service-id
        #[arg(long, value_parser = kind, default_value = "user")]
        kind: IdentityKind,
        /// More about it
        #[command(flatten)]
        described: IdentityDescribed,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// List identities
    List {
        /// Of this kind
        #[arg(long, value_parser = kind)]
        kind: Option<IdentityKind>,
        /// In this group
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show one identity
    Show {
        /// Name, mail address or id
        #[arg(value_name = "NAME|EMAIL|ID")]
        identity: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Change an identity
    Update {
        /// Name, mail address or id
        #[arg(value_name = "NAME|EMAIL|ID")]
        identity: String,
        /// New name
        #[arg(long, short, value_name = "NAME")]
        name: Option<String>,
        /// More about it
        #[command(flatten)]
        described: IdentityDescribed,
        /// Only if its version is still this one
        #[arg(long, value_name = "VERSION")]
        if_version: Option<i64>,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Delete an identity; one with live keys only with one of the options
    Delete {
        /// Name, mail address or id
        #[arg(value_name = "NAME|EMAIL|ID")]
        identity: String,
        /// Give its keys to this identity
        #[arg(long, value_name = "NAME|EMAIL|ID", conflicts_with = "disable_keys")]
        reassign: Option<String>,
        /// Disable its keys
        #[arg(long)]
        disable_keys: bool,
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

/// What is said of an identity; "" clears.
#[derive(Debug, Args)]
pub struct IdentityDescribed {
    /// Its mail address
    #[arg(long)]
    pub email: Option<String>,
    /// Mail address of those who look after it, for functional and service IDs
    #[arg(long, value_name = "EMAIL")]
    pub contact: Option<String>,
    /// Description
    #[arg(long, short, value_name = "TEXT")]
    pub description: Option<String>,
    /// Whether it signs in elsewhere, for users
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub federated: Option<bool>,
    /// Who manages it and its keys, for functional and service IDs
    #[arg(long, value_name = "NAME|EMAIL|ID")]
    pub manager: Option<String>,
    /// The user above it in the hierarchy of the classic infrastructure
    #[arg(long, value_name = "NAME|EMAIL|ID")]
    pub parent: Option<String>,
    /// The user of this system who acts as it
    #[arg(long, value_name = "USER")]
    pub os_user: Option<String>,
    /// A group that it is in; may be given several times
    #[arg(long, value_name = "NAME")]
    pub group: Vec<String>,
}

/// For which keys making is restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Restricted {
    /// Keys of users
    User,
    /// Keys of service IDs
    ServiceId,
    /// None
    None,
}

/// `account`.
#[derive(Debug, Subcommand)]
pub enum Account {
    /// Make another account; accounts never see each other
    Create {
        /// Its name
        name: String,
        /// Mail address of its owner
        #[arg(long, value_name = "EMAIL")]
        owner: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// List accounts
    List {
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show the account and its settings
    Show {
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Change settings of the account
    Update {
        /// What
        #[command(flatten)]
        change: AccountChange,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
}

/// Settings of an account.
#[derive(Debug, Args)]
pub struct AccountChange {
    /// New name
    #[arg(long, short, value_name = "NAME")]
    pub name: Option<String>,
    /// The identity that owns it
    #[arg(long, value_name = "NAME|EMAIL|ID")]
    pub owner: Option<String>,
    /// Make somebody an administrator; may be given several times
    #[arg(long, value_name = "NAME|EMAIL|ID")]
    pub admin: Vec<String>,
    /// Nobody without a grant makes keys of users, or of service IDs; may be given for both
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub restrict_key_creation: Vec<Restricted>,
    /// How many keys an identity may have when another is made
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_keys: Option<u32>,
    /// The prefix of keys that are made here
    #[arg(long, value_name = "PREFIX")]
    pub key_prefix: Option<String>,
    /// Only if its version is still this one
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<i64>,
}

/// `access`.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Grant something to an identity
    Grant {
        /// administrator: manage everything in the account; issue: make keys for others;
        /// create: make own keys while that is restricted
        #[arg(value_parser = grant)]
        grant: Grant,
        /// Name, mail address or id
        #[arg(value_name = "NAME|EMAIL|ID")]
        identity: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Take a grant back
    Revoke {
        /// administrator, issue or create
        #[arg(value_parser = grant)]
        grant: Grant,
        /// Name, mail address or id
        #[arg(value_name = "NAME|EMAIL|ID")]
        identity: String,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// List who may do what
    List {
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
}

/// `home`.
#[derive(Debug, Subcommand)]
pub enum Home {
    /// List files in which keys were seen: perhaps they are meant to be there
    Suggest {
        /// Of this key only
        #[arg(value_name = "NAME|ID")]
        key: Option<String>,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Say that files are a home: of a key, of all keys of an identity, or of all keys
    Accept {
        /// Glob of the files
        #[arg(value_name = "GLOB")]
        glob: String,
        /// Of this key
        #[arg(long, value_name = "NAME|ID")]
        key: Option<String>,
        /// Of all keys of this identity
        #[arg(long, value_name = "NAME|EMAIL|ID", conflicts_with = "key")]
        owner: Option<String>,
        /// Of all keys of the account
        #[arg(long, conflicts_with_all = ["key", "owner"])]
        all_keys: bool,
        /// On this host only
        #[arg(long, value_name = "HOST", default_value = "")]
        host: String,
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
    /// List homes
    List {
        /// Of this key only
        #[arg(value_name = "NAME|ID")]
        key: Option<String>,
        /// Where, and as whom
        #[command(flatten)]
        scope: Scope,
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
    /// Take a home away
    Remove {
        /// Its number, as `home list` shows it
        #[arg(value_name = "NUMBER")]
        home: i64,
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
}

fn kind(text: &str) -> Result<IdentityKind, String> {
    word(text, IdentityKind::parse, IdentityKind::WORDS)
}

fn grant(text: &str) -> Result<Grant, String> {
    word(text, Grant::parse, Grant::WORDS)
}
