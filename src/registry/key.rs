//! Keys and what may become of them. Pure.

use jiff::Timestamp;

use super::access::Whose;

/// Makes an enum of words that stand in the database, on the command line and in reports.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every word.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The other way.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(rusqlite::types::ToSqlOutput::from(self.as_str()))
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(
                value: rusqlite::types::ValueRef<'_>,
            ) -> rusqlite::types::FromSqlResult<Self> {
                Self::parse(value.as_str()?).ok_or(rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What its owner wants done when a key leaks.
    LeakAction {
        /// Only tell.
        None = "none",
        /// Make it unusable; can be undone.
        Disable = "disable",
        /// Remove it for good.
        Delete = "delete",
    }
}

words! {
    /// Where a key is in its life. `expired` is derived, see [`Key::status`].
    State {
        /// Usable, unless expired.
        Active = "active",
        /// Not usable; can be enabled.
        Disabled = "disabled",
        /// A tombstone: the digest stays, so that a later sighting is recognised.
        Deleted = "deleted",
    }
}

words! {
    /// Whom a key stands for.
    KeyKind {
        /// A person or a functional ID.
        User = "user",
        /// A program.
        ServiceId = "service-id",
        /// Made by a service, tied to a service ID.
        ServiceSpecific = "service-specific",
        /// One per user; no lock, no disable, no expiry.
        Classic = "classic-infrastructure",
    }
}

words! {
    /// How much a key matters.
    Class {
        /// Acted upon.
        Live = "live",
        /// Recorded, never acted upon.
        Test = "test",
        /// Public by design: only recorded.
        Publishable = "publishable",
    }
}

words! {
    /// What `verify` answers.
    Status {
        /// Valid now.
        Active = "active",
        /// Switched off.
        Disabled = "disabled",
        /// Past its expiry.
        Expired = "expired",
        /// Removed.
        Deleted = "deleted",
    }
}

words! {
    /// How a key came into the registry.
    Arrival {
        /// Made here.
        Created = "created",
        /// Made elsewhere, registered by hand.
        Registered = "registered",
        /// Made elsewhere, imported with others.
        Imported = "import",
    }
}

/// A place where a key is meant to be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Home {
    /// Name of the host; empty: every host.
    pub host: String,
    /// Matches the absolute path of a file.
    pub glob: String,
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.as_str() {
            "" => f.write_str(&self.glob),
            host => write!(f, "{} on {host}", self.glob),
        }
    }
}

/// A registered key, without anything of the key itself but its hint.
#[derive(Clone, Debug)]
pub struct Key {
    /// `ApiKey-<uuid>`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whom it stands for.
    pub kind: KeyKind,
    /// How much it matters.
    pub class: Class,
    /// Id of its identity.
    pub identity_id: String,
    /// Name of its identity.
    pub identity: String,
    /// Mail address of its identity, or what comes nearest: a contact, a name.
    pub owner: String,
    /// Who is told when it leaks; `None`: nobody but the administrators can be.
    pub contact: Option<String>,
    /// Id of whoever manages its identity.
    pub manager_id: Option<String>,
    /// The service that made it, if it is service-specific.
    pub service: String,
    /// Stored state.
    pub state: State,
    /// Cannot be updated or deleted.
    pub locked: bool,
    /// What happens when it leaks.
    pub leak_action: LeakAction,
    /// What carries that out.
    pub executor: String,
    /// What people may see of it.
    pub hint: String,
    /// Invalid from this moment.
    pub expires_at: Option<Timestamp>,
    /// When it came into the registry.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Last change.
    pub modified_at: Timestamp,
    /// By whom.
    pub modified_by: String,
    /// First leak.
    pub leaked_at: Option<Timestamp>,
    /// Last time that it was found valid by `verify`.
    pub last_used_at: Option<Timestamp>,
    /// How often.
    pub use_count: u64,
    /// How it came here.
    pub arrival: Arrival,
    /// The source that its import named.
    pub origin: String,
    /// Its id there.
    pub remote_id: Option<String>,
    /// Id of the key that it succeeds.
    pub replaces: Option<String>,
    /// Where it is meant to be.
    pub homes: Vec<Home>,
    /// Grows with each change.
    pub version: i64,
}

impl Key {
    /// The executor of keys whose state here is the truth.
    pub const OWN_EXECUTOR: &str = "registry";

    /// Whose it is, for questions of rights.
    #[must_use]
    pub fn whose(&self) -> Whose<'_> {
        Whose {
            account: &self.account_id,
            identity: &self.identity_id,
            manager: self.manager_id.as_deref(),
            kind: self.kind,
        }
    }

    /// Whether it is valid now, and if not, why.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        status_of(self.state, self.expires_at, now)
    }
}

fn status_of(state: State, expires_at: Option<Timestamp>, now: Timestamp) -> Status {
    match state {
        State::Deleted => Status::Deleted,
        State::Disabled => Status::Disabled,
        State::Active if expires_at.is_some_and(|end| end <= now) => Status::Expired,
        State::Active => Status::Active,
    }
}

/// The kind's part of the prefix of our own keys: `lw_user_…`.
#[must_use]
pub fn kind_prefix(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::User => "user",
        KeyKind::ServiceId => "svc",
        KeyKind::ServiceSpecific => "spec",
        KeyKind::Classic => "classic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    #[test]
    fn a_key_is_invalid_from_the_moment_it_expires() {
        let status = |state, at| status_of(state, Some(from_millis(1_000)), from_millis(at));
        assert_eq!(status(State::Active, 999), Status::Active);
        assert_eq!(status(State::Active, 1_000), Status::Expired);
        assert_eq!(status(State::Disabled, 1_000), Status::Disabled);
        assert_eq!(status(State::Deleted, 999), Status::Deleted);
        assert_eq!(LeakAction::parse("delete"), Some(LeakAction::Delete));
    }
}
