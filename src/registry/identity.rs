//! Identities: whom keys stand for, and what was granted to them.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::access::{Caller, Grant};
use super::account::check_name;
use super::audit::Entry;
use super::key::words;
use super::{RegistryError, Result, Tx};
use crate::clock::{from_millis, to_millis};
use crate::text::clean;

words! {
    /// What an identity is.
    IdentityKind {
        /// A person.
        User = "user",
        /// A user that stands for a program.
        FunctionalId = "functional-id",
        /// A program.
        ServiceId = "service-id",
    }
}

/// Whom a key stands for.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// What it is.
    pub kind: IdentityKind,
    /// Unique in its account.
    pub name: String,
    /// Mail address.
    pub email: Option<String>,
    /// Mail address of those who look after it.
    pub contact: Option<String>,
    /// Free text.
    pub description: String,
    /// Signs in elsewhere.
    pub federated: bool,
    /// Id of the identity that manages it.
    pub manager_id: Option<String>,
    /// Id of the user above it, in the classic hierarchy.
    pub parent_id: Option<String>,
    /// The user of the operating system who may act as it.
    pub os_user: Option<String>,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// What was granted to it.
    pub grants: Vec<Grant>,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Last change.
    pub modified_at: Timestamp,
    /// By whom.
    pub modified_by: String,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Grows with each change.
    pub version: i64,
}

/// An identity that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewIdentity<'a> {
    /// Unique in its account.
    pub name: &'a str,
    /// What it is.
    pub kind: IdentityKind,
    /// Mail address.
    pub email: Option<&'a str>,
    /// Mail address of those who look after it.
    pub contact: Option<&'a str>,
    /// Free text.
    pub description: &'a str,
    /// Signs in elsewhere.
    pub federated: bool,
    /// Who manages it: name, address or id.
    pub manager: Option<&'a str>,
    /// The user above it: name, address or id.
    pub parent: Option<&'a str>,
    /// The user of the operating system who may act as it.
    pub os_user: Option<&'a str>,
    /// Groups it is in.
    pub groups: &'a [String],
}

impl<'a> NewIdentity<'a> {
    /// With a name and nothing else.
    #[must_use]
    pub fn new(name: &'a str, kind: IdentityKind) -> Self {
        Self {
            name,
            kind,
            email: None,
            contact: None,
            description: "",
            federated: false,
            manager: None,
            parent: None,
            os_user: None,
            groups: &[],
        }
    }
}

/// What is changed about an identity: `None` stays, an empty text clears.
#[derive(Clone, Debug, Default)]
pub struct IdentityUpdate {
    /// Its name.
    pub name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Mail address of those who look after it.
    pub contact: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Signs in elsewhere.
    pub federated: Option<bool>,
    /// Who manages it.
    pub manager: Option<String>,
    /// The user above it.
    pub parent: Option<String>,
    /// The user of the operating system who may act as it.
    pub os_user: Option<String>,
    /// Groups it is in, all of them.
    pub groups: Option<Vec<String>>,
}

const COLUMNS: &str =
    "SELECT i.id, i.account_id, i.kind, i.name, i.email, i.contact, i.description,
    i.federated, i.manager_id, i.parent_id, i.os_user, i.created_at, i.created_by, i.modified_at,
    i.modified_by, i.deleted_at, i.version,
    (SELECT json_group_array(g.name) FROM identity_groups g WHERE g.identity_id = i.id),
    (SELECT json_group_array(r.word) FROM grants r WHERE r.identity_id = i.id) FROM identities i";

fn identity_from(row: &Row<'_>) -> rusqlite::Result<Identity> {
    let list = |index| -> rusqlite::Result<Vec<String>> {
        Ok(serde_json::from_str(&row.get::<_, String>(index)?).unwrap_or_default())
    };
    Ok(Identity {
        id: row.get(0)?,
        account_id: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        email: row.get(4)?,
        contact: row.get(5)?,
        description: row.get(6)?,
        federated: row.get(7)?,
        manager_id: row.get(8)?,
        parent_id: row.get(9)?,
        os_user: row.get(10)?,
        created_at: from_millis(row.get(11)?),
        created_by: row.get(12)?,
        modified_at: from_millis(row.get(13)?),
        modified_by: row.get(14)?,
        deleted_at: row.get::<_, Option<i64>>(15)?.map(from_millis),
        version: row.get(16)?,
        groups: list(17)?,
        grants: list(18)?.iter().filter_map(|word| Grant::parse(word)).collect(),
    })
}

/// The address, if it is one that mail can go to.
pub(super) fn address(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_ascii() && text.parse::<lettre::Address>().is_ok() {
        return Ok(text.to_owned());
    }
    let shown = clean(text.as_bytes());
    Err(RegistryError::Refused(format!("`{shown}` is not a mail address")))
}

fn no_identity(text: &str) -> RegistryError {
    let shown = clean(text.as_bytes());
    RegistryError::NotFound(format!("no identity `{shown}`; see `identity list`"))
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl Tx<'_> {
    pub(super) fn select(
        &self,
        condition: &str,
        value: &dyn rusqlite::ToSql,
    ) -> Result<Vec<Identity>> {
        let sql = format!("{COLUMNS} WHERE {condition} ORDER BY i.name, i.id");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([value], identity_from)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Every identity of an account that was not deleted, by name.
    pub fn identities(&self, account: &str) -> Result<Vec<Identity>> {
        self.select("i.account_id = ?1 AND i.deleted_at IS NULL", &account)
    }

    /// The identity with this id.
    pub fn identity(&self, id: &str) -> Result<Identity> {
        let found = self.select("i.id = ?1", &id)?.into_iter().next();
        found.ok_or_else(|| RegistryError::NotFound(format!("no identity with id {id}")))
    }

    /// The identity with this id, address or name, if there is one.
    pub fn identity_named(&self, account: &str, text: &str) -> Result<Option<Identity>> {
        // One part for each index: SQLite would look through the whole account for an OR, and for
        // several ids, were the account not kept from its indexes by a `+`.
        let sql = "SELECT id FROM identities
                 WHERE id IN (?2, 'user-' || ?2, 'func-' || ?2, 'ServiceId-' || ?2)
                     AND +account_id = ?1 AND deleted_at IS NULL
             UNION ALL SELECT id FROM identities
                 WHERE account_id = ?1 AND email = ?2 AND deleted_at IS NULL
             UNION ALL SELECT id FROM identities
                 WHERE account_id = ?1 AND name = ?2 AND deleted_at IS NULL
             LIMIT 1";
        let mut statement = self.sql().prepare_cached(sql)?;
        let id: Option<String> =
            statement.query_row((account, text.trim()), |row| row.get(0)).optional()?;
        id.map(|id| self.identity(&id)).transpose()
    }

    /// The same; it is an error if there is none that the caller may see.
    pub fn visible_identity(&self, account: &str, text: &str, caller: &Caller) -> Result<Identity> {
        self.identity_named(account, text)?
            .filter(|identity| caller.sees(identity))
            .ok_or_else(|| no_identity(text))
    }

    /// The same; it is an error if there is none.
    pub fn find_identity(&self, account: &str, text: &str) -> Result<Identity> {
        self.identity_named(account, text)?.ok_or_else(|| no_identity(text))
    }

    /// The user with this mail address; made when there is none.
    pub fn user(
        &self,
        account: &str,
        email: &str,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Identity> {
        if let Some(known) = self.identity_named(account, email)? {
            return Ok(known);
        }
        let email = address(email)?;
        let new =
            NewIdentity { email: Some(&email), ..NewIdentity::new(&email, IdentityKind::User) };
        self.create_identity(account, &new, caller, now)
    }

    /// Makes an identity.
    pub fn create_identity(
        &self,
        account: &str,
        new: &NewIdentity<'_>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Identity> {
        let word = match new.kind {
            IdentityKind::User => "user",
            IdentityKind::FunctionalId => "func",
            IdentityKind::ServiceId => "ServiceId",
        };
        let id = format!("{word}-{}", uuid::Uuid::new_v4());
        self.sql()
            .prepare_cached(
                "INSERT INTO identities (id, account_id, kind, name, created_at, created_by,
                     modified_at, modified_by) VALUES (?1, ?2, ?3, ?1, ?4, ?5, ?4, ?5)",
            )?
            .execute((&id, account, new.kind, to_millis(now), &caller.actor))?;
        let text = |text: Option<&str>| text.map(str::to_owned);
        let update = IdentityUpdate {
            name: Some(new.name.to_owned()),
            email: text(new.email),
            contact: text(new.contact),
            description: text(filled(new.description)),
            federated: new.federated.then_some(true),
            manager: text(new.manager),
            parent: text(new.parent),
            os_user: text(new.os_user),
            groups: Some(new.groups.to_vec()),
        };
        let made = self.changed(&self.identity(&id)?, &update)?;
        self.store(&made, caller, now)?;
        self.audit(&Entry {
            actor: &caller.actor,
            action: "identity create",
            target: &id,
            after: &made.described(),
            ..Entry::at(now)
        })?;
        self.identity(&id)
    }

    /// Changes an identity.
    pub fn update_identity(
        &self,
        identity: &Identity,
        update: &IdentityUpdate,
        if_version: Option<i64>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Identity> {
        caller.must_administer("change identities")?;
        super::check_version("identity", identity.version, if_version)?;
        let next = self.changed(identity, update)?;
        let (before, after) = (identity.described(), next.described());
        if before == after {
            return Ok(next);
        }
        self.store(&next, caller, now)?;
        self.audit(&Entry {
            actor: &caller.actor,
            action: "identity update",
            target: &identity.id,
            before: &before,
            after: &after,
            ..Entry::at(now)
        })?;
        self.identity(&identity.id)
    }

    /// The identity as it would be.
    fn changed(&self, identity: &Identity, update: &IdentityUpdate) -> Result<Identity> {
        let mut next = identity.clone();
        let other = |text: &str| self.find_identity(&identity.account_id, text);
        if let Some(name) = &update.name {
            check_name("the name of the identity", name)?;
            next.name.clone_from(name);
        }
        if let Some(email) = &update.email {
            next.email = filled(email).map(address).transpose()?;
        }
        if let Some(contact) = &update.contact {
            next.contact = filled(contact).map(address).transpose()?;
        }
        if let Some(text) = &update.description {
            next.description = clean(text.as_bytes());
        }
        if let Some(manager) = &update.manager {
            next.manager_id = filled(manager).map(other).transpose()?.map(|i| i.id);
        }
        if let Some(parent) = &update.parent {
            let parent = filled(parent).map(other).transpose()?;
            if let Some(parent) = &parent {
                check_parent(identity, parent, &self.below(&identity.id)?)?;
            }
            next.parent_id = parent.map(|i| i.id);
        }
        if let Some(os_user) = &update.os_user {
            next.os_user = filled(os_user).map(|text| clean(text.as_bytes()));
        }
        if let Some(groups) = &update.groups {
            groups.iter().try_for_each(|group| check_name("the name of a group", group))?;
            next.groups.clone_from(groups);
            next.groups.sort();
            next.groups.dedup();
        }
        next.federated = update.federated.unwrap_or(next.federated);
        next.check()?;
        for (text, what) in [(Some(&next.name), "name"), (next.email.as_ref(), "address")] {
            let same = text.map(|text| self.identity_named(&next.account_id, text)).transpose()?;
            if let Some(same) = same.flatten().filter(|same| same.id != next.id) {
                let why = format!("{} ({}) has that {what} already", same.name, same.id);
                return Err(RegistryError::Refused(why));
            }
        }
        Ok(next)
    }

    fn store(&self, next: &Identity, caller: &Caller, now: Timestamp) -> Result<()> {
        let mut statement = self.sql().prepare_cached(
            "UPDATE identities SET name = ?2, email = ?3, contact = ?4, description = ?5,
                 federated = ?6, manager_id = ?7, parent_id = ?8, os_user = ?9, modified_at = ?10,
                 modified_by = ?11, version = version + 1 WHERE id = ?1",
        )?;
        statement.execute(rusqlite::params![
            next.id,
            next.name,
            next.email,
            next.contact,
            next.description,
            next.federated,
            next.manager_id,
            next.parent_id,
            next.os_user,
            to_millis(now),
            caller.actor,
        ])?;
        let sql = "DELETE FROM identity_groups WHERE identity_id = ?1";
        self.sql().prepare_cached(sql)?.execute([&next.id])?;
        for group in &next.groups {
            self.sql().execute(
                "INSERT OR IGNORE INTO identity_groups (identity_id, name) VALUES (?1, ?2)",
                (&next.id, group),
            )?;
        }
        Ok(())
    }
}

/// The classic hierarchy is one of users, and a tree.
fn check_parent(identity: &Identity, parent: &Identity, below: &HashSet<String>) -> Result<()> {
    let why = if identity.kind != IdentityKind::User || parent.kind != IdentityKind::User {
        "the classic hierarchy is one of users"
    } else if parent.id == identity.id || below.contains(&parent.id) {
        "nobody is above themselves in the classic hierarchy"
    } else {
        return Ok(());
    };
    Err(RegistryError::Refused(why.to_owned()))
}

impl Identity {
    pub(super) fn is_called(&self, text: &str) -> bool {
        let same = |own: &str| own.eq_ignore_ascii_case(text.trim());
        self.id == text || same(&self.name) || self.email.as_deref().is_some_and(same)
    }

    /// What must hold for each kind.
    fn check(&self) -> Result<()> {
        let why = match self.kind {
            IdentityKind::User if self.email.is_none() => "a user needs a mail address (--email)",
            IdentityKind::User if self.manager_id.is_some() => {
                "a user is managed by nobody; only functional and service IDs are (--manager)"
            }
            IdentityKind::User => return Ok(()),
            _ if self.federated => "only users are federated",
            _ if self.contact.is_none() && self.email.is_none() => {
                "a functional or service ID needs a contact: who is told when a key of it leaks \
                 (--contact)"
            }
            _ => return Ok(()),
        };
        Err(RegistryError::Refused(why.to_owned()))
    }

    /// For the audit log.
    fn described(&self) -> String {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        format!(
            "name={} kind={} email={} contact={} description={} federated={} manager={} parent={} \
             os_user={} groups={}",
            self.name,
            self.kind,
            or_none(&self.email),
            or_none(&self.contact),
            self.description,
            self.federated,
            or_none(&self.manager_id),
            or_none(&self.parent_id),
            or_none(&self.os_user),
            self.groups.join("+"),
        )
    }
}
