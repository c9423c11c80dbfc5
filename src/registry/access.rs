//! Who may do what. Pure; [`Caller`] is filled from the database by [`Tx::caller`](super::Tx::caller).
//!
//! The operating system is the boundary: whoever can read the registry's folder could change
//! everything in it. These rights guide those who act as an identity, and are what the audit log
//! can be held against.

use std::collections::HashSet;

use super::key::{KeyKind, words};
use super::{RegistryError, Result};

words! {
    /// What an identity may do beyond managing its own keys.
    Grant {
        /// Manages all keys, identities and settings of the account.
        Administrator = "administrator",
        /// Makes keys for others.
        Issue = "issue",
        /// Makes keys of its own while that is restricted.
        Create = "create",
    }
}

words! {
    /// What somebody wants to do with a key.
    Act {
        /// See it.
        View = "view",
        /// Change, lock, unlock, disable or enable it.
        Update = "update",
        /// Remove it.
        Delete = "delete",
    }
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Under which name changes are recorded.
    pub actor: String,
    /// The identity; `None`: the user of the operating system who runs the registry, or leakwarden.
    pub identity: Option<String>,
    /// The account they see; `None`: every one.
    pub account: Option<String>,
    /// Whether the account is theirs.
    pub owns_account: bool,
    /// What was granted to them.
    pub grants: Vec<Grant>,
    /// Users below them in the classic hierarchy.
    pub below: HashSet<String>,
}

/// Whose key it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// Its account.
    pub account: &'a str,
    /// Its identity.
    pub identity: &'a str,
    /// Who manages that identity, if it is a functional or service ID.
    pub manager: Option<&'a str>,
    /// Its kind.
    pub kind: KeyKind,
}

/// What is asked of those who make keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restrictions {
    /// Keys of users need a grant.
    pub user_keys: bool,
    /// Keys of service IDs need a grant.
    pub service_keys: bool,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// They do not even see it: the answer is that of a thing that is not there.
    Unseen,
    /// They see it, but may not do that.
    Forbidden,
    /// Making keys is restricted, and they have no grant.
    Restricted,
    /// Making keys for others needs a grant.
    ForOthers,
}

impl Caller {
    /// leakwarden itself, or the user who runs the registry.
    #[must_use]
    pub fn operator(actor: &str) -> Self {
        Self { actor: actor.to_owned(), ..Self::default() }
    }

    /// Whether they run the registry.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.identity.is_none()
    }

    /// Whether they manage the whole account: the account owner is an administrator.
    #[must_use]
    pub fn administers(&self) -> bool {
        self.is_operator() || self.owns_account || self.grants.contains(&Grant::Administrator)
    }

    /// Refuses everybody else.
    pub fn must_administer(&self, what: &str) -> Result<()> {
        if self.administers() {
            return Ok(());
        }
        let actor = &self.actor;
        Err(RegistryError::Refused(format!("{actor} may not {what}: that takes an administrator")))
    }

    /// Refuses everybody who acts as an identity.
    pub fn must_operate(&self, what: &str) -> Result<()> {
        if self.is_operator() {
            return Ok(());
        }
        let actor = &self.actor;
        let why = format!("{actor} may not {what}: that is for whoever runs the registry");
        Err(RegistryError::Refused(why))
    }

    /// Whether they see that account at all.
    #[must_use]
    pub fn sees_account(&self, account: &str) -> bool {
        self.account.as_deref().is_none_or(|own| own == account)
    }

    fn is(&self, identity: &str) -> bool {
        self.identity.as_deref() == Some(identity)
    }

    /// Whether it is them, or a functional or service ID that they look after.
    #[must_use]
    pub fn manages(&self, identity: &super::identity::Identity) -> bool {
        self.is(&identity.id) || identity.manager_id.as_deref().is_some_and(|id| self.is(id))
    }

    /// Administrators see all identities of their account, others themselves and what they look after.
    #[must_use]
    pub fn sees(&self, identity: &super::identity::Identity) -> bool {
        self.sees_account(&identity.account_id) && (self.administers() || self.manages(identity))
    }

    fn owns(&self, whose: &Whose<'_>) -> bool {
        self.is(whose.identity) || whose.manager.is_some_and(|manager| self.is(manager))
    }

    /// Whether they may do that with a key.
    pub fn may(&self, act: Act, whose: &Whose<'_>) -> std::result::Result<(), Denied> {
        if !self.sees_account(whose.account) {
            return Err(Denied::Unseen);
        }
        if self.administers() || self.owns(whose) {
            return Ok(());
        }
        let ancestor = whose.kind == KeyKind::Classic && self.below.contains(whose.identity);
        match (ancestor, act) {
            (true, Act::View | Act::Delete) => Ok(()),
            (true, Act::Update) => Err(Denied::Forbidden),
            (false, _) => Err(Denied::Unseen),
        }
    }

    /// Whether they may make such a key for that identity.
    pub fn may_create(
        &self,
        whose: &Whose<'_>,
        restrictions: Restrictions,
    ) -> std::result::Result<(), Denied> {
        if !self.sees_account(whose.account) {
            return Err(Denied::Unseen);
        }
        let restricted = match whose.kind {
            KeyKind::User | KeyKind::Classic => restrictions.user_keys,
            KeyKind::ServiceId | KeyKind::ServiceSpecific => restrictions.service_keys,
        };
        let issues = self.grants.contains(&Grant::Issue);
        if restricted && !issues && !self.grants.contains(&Grant::Create) {
            return Err(Denied::Restricted);
        }
        if self.is_operator() || self.owns(whose) || issues {
            return Ok(());
        }
        Err(Denied::ForOthers)
    }
}
