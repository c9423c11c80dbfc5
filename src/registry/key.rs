//! Keys and what may become of them. Pure.

use jiff::Timestamp;

/// Makes an enum of words that stand in the database, on the command line and in reports.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// A registered key, without anything of the key itself but its hint.
#[derive(Clone, Debug)]
pub struct Key {
    /// `ApiKey-<uuid>`.
    pub id: String,
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
    /// Mail address of its identity.
    pub owner: String,
    /// Stored state.
    pub state: State,
    /// Cannot be updated or deleted.
    pub locked: bool,
    /// What happens when it leaks.
    pub leak_action: LeakAction,
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
    /// created, registered or import.
    pub source: String,
    /// Where it is meant to be, as globs.
    pub homes: Vec<String>,
}

impl Key {
    /// Whether it is valid now, and if not, why.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        match self.state {
            State::Deleted => Status::Deleted,
            State::Disabled => Status::Disabled,
            State::Active if self.expires_at.is_some_and(|end| end <= now) => Status::Expired,
            State::Active => Status::Active,
        }
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
        let mut key = Key {
            id: "ApiKey-1".into(),
            name: "k".into(),
            description: String::new(),
            kind: KeyKind::User,
            class: Class::Live,
            identity_id: "u".into(),
            owner: "a@b".into(),
            state: State::Active,
            locked: false,
            leak_action: LeakAction::Disable,
            hint: String::new(),
            expires_at: Some(from_millis(1_000)),
            created_at: from_millis(0),
            created_by: String::new(),
            modified_at: from_millis(0),
            modified_by: String::new(),
            leaked_at: None,
            source: "created".into(),
            homes: Vec::new(),
        };
        assert_eq!(key.status(from_millis(999)), Status::Active);
        assert_eq!(key.status(from_millis(1_000)), Status::Expired);
        key.state = State::Deleted;
        assert_eq!(key.status(from_millis(999)), Status::Deleted);
        assert_eq!(LeakAction::parse("delete"), Some(LeakAction::Delete));
    }
}
