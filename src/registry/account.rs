//! Accounts: tenants that never see each other, with their settings.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::access::{Caller, Restrictions};
use super::audit::Entry;
use super::identity::{IdentityKind, NewIdentity};
use super::{RegistryError, Result, Tx};
use crate::clock::{from_millis, to_millis};
use crate::text::clean;

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    /// 32 hex digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// The identity that owns it.
    pub owner_id: Option<String>,
    /// That one's name.
    pub owner: Option<String>,
    /// The prefix of its keys.
    pub key_prefix: String,
    /// How many keys an identity may have when another is made.
    pub max_keys: i64,
    /// Who may make keys.
    pub restrictions: Restrictions,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with each change.
    pub version: i64,
}

/// What is changed about an account; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AccountUpdate {
    /// Its name.
    pub name: Option<String>,
    /// Its owner: name, address or id.
    pub owner: Option<String>,
    /// Keys of an identity, at most, when another is made.
    pub max_keys: Option<u32>,
    /// The prefix of its keys.
    pub key_prefix: Option<String>,
    /// Who may make keys.
    pub restrictions: Option<Restrictions>,
}

const COLUMNS: &str = "SELECT a.id, a.name, a.owner_id, i.name, a.key_prefix,
    a.max_keys_per_identity, a.restrict_user_keys, a.restrict_service_keys, a.created_at, a.version
    FROM accounts a LEFT JOIN identities i ON i.id = a.owner_id";

fn account_from(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        name: row.get(1)?,
        owner_id: row.get(2)?,
        owner: row.get(3)?,
        key_prefix: row.get(4)?,
        max_keys: row.get(5)?,
        restrictions: Restrictions { user_keys: row.get(6)?, service_keys: row.get(7)? },
        created_at: from_millis(row.get(8)?),
        version: row.get(9)?,
    })
}

/// Longest name or prefix, in bytes.
const NAME_MAX: usize = 200;
const PREFIX_MAX: usize = 12;

/// Refuses a name that is empty, too long, or cannot be shown in one line.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let why = match name {
        _ if name.trim().is_empty() => "is empty",
        _ if name.len() > NAME_MAX => "is longer than 200 bytes",
        _ if clean(name.as_bytes()) != name => "holds a control character",
        _ if name.trim() != name => "begins or ends with a space",
        _ => return Ok(()),
    };
    Err(RegistryError::Refused(format!("{what} {why}")))
}

impl Tx<'_> {
    /// Makes an account; its owner is an identity of it, made with it.
    pub fn create_account(
        &self,
        name: &str,
        owner: &str,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account> {
        caller.must_operate("make accounts")?;
        check_name("the name of the account", name)?;
        if self.account_named(name)?.is_some() {
            return Err(RegistryError::Refused(format!("there is an account named {name}")));
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.sql().execute(
            "INSERT INTO accounts (id, name, created_at) VALUES (?1, ?2, ?3)",
            (&id, name, to_millis(now)),
        )?;
        let actor = &caller.actor;
        self.audit(&Entry {
            actor,
            action: "account create",
            target: &id,
            after: name,
            ..Entry::at(now)
        })?;
        let new = NewIdentity { email: Some(owner), ..NewIdentity::new(owner, IdentityKind::User) };
        let owner = self.create_identity(&id, &new, caller, now)?;
        self.sql().execute("UPDATE accounts SET owner_id = ?2 WHERE id = ?1", (&id, &owner.id))?;
        self.grant(&owner, super::access::Grant::Administrator, caller, now)?;
        self.account(&id)
    }

    /// The account with this id.
    pub fn account(&self, id: &str) -> Result<Account> {
        let sql = format!("{COLUMNS} WHERE a.id = ?1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([id], account_from)?)
    }

    /// The account with this name or id.
    pub fn account_named(&self, text: &str) -> Result<Option<Account>> {
        let sql = format!("{COLUMNS} WHERE a.name = ?1 COLLATE NOCASE OR a.id = ?1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([text], account_from).optional()?)
    }

    /// The accounts that somebody sees.
    pub fn accounts(&self, caller: &Caller) -> Result<Vec<Account>> {
        let mut statement = self.sql().prepare_cached(&format!("{COLUMNS} ORDER BY a.name"))?;
        let rows = statement.query_map([], account_from)?;
        let mut all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        all.retain(|account| caller.sees_account(&account.id));
        Ok(all)
    }

    /// The one account that is meant; with several, it has to be said.
    pub fn one_account(&self, caller: &Caller) -> Result<Account> {
        if let Some(id) = &caller.account {
            return self.account(id);
        }
        let mut accounts = self.accounts(caller)?;
        match (accounts.len(), accounts.pop()) {
            (1, Some(only)) => Ok(only),
            (_, None) => Err(RegistryError::NotFound("there is no account".to_owned())),
            (count, Some(_)) => {
                let why = format!("there are {count} accounts; say which by --account NAME");
                Err(RegistryError::Refused(why))
            }
        }
    }

    /// Changes settings of an account.
    pub fn update_account(
        &self,
        account: &Account,
        update: &AccountUpdate,
        if_version: Option<i64>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Account> {
        caller.must_administer("change the settings of the account")?;
        super::check_version("account", account.version, if_version)?;
        let mut next = account.clone();
        if let Some(name) = &update.name {
            check_name("the name of the account", name)?;
            if self.account_named(name)?.is_some_and(|other| other.id != account.id) {
                return Err(RegistryError::Refused(format!("there is an account named {name}")));
            }
            next.name.clone_from(name);
        }
        if let Some(owner) = &update.owner {
            let owner = self.find_identity(&account.id, owner)?;
            (next.owner_id, next.owner) = (Some(owner.id), Some(owner.name));
        }
        if let Some(prefix) = &update.key_prefix {
            let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if !(2..=PREFIX_MAX).contains(&prefix.len()) || !prefix.chars().all(fit) {
                let why = "the prefix of keys is 2 to 12 lower-case letters and digits";
                return Err(RegistryError::Refused(why.to_owned()));
            }
            next.key_prefix.clone_from(prefix);
        }
        next.max_keys = update.max_keys.map_or(next.max_keys, i64::from);
        next.restrictions = update.restrictions.unwrap_or(next.restrictions);
        let (before, after) = (account.settings(), next.settings());
        if before == after {
            return Ok(next);
        }
        self.sql().execute(
            "UPDATE accounts SET name = ?2, owner_id = ?3, key_prefix = ?4,
                 max_keys_per_identity = ?5, restrict_user_keys = ?6, restrict_service_keys = ?7,
                 version = version + 1 WHERE id = ?1",
            rusqlite::params![
                next.id,
                next.name,
                next.owner_id,
                next.key_prefix,
                next.max_keys,
                next.restrictions.user_keys,
                next.restrictions.service_keys,
            ],
        )?;
        self.audit(&Entry {
            actor: &caller.actor,
            action: "account update",
            target: &account.id,
            before: &before,
            after: &after,
            ..Entry::at(now)
        })?;
        self.account(&account.id)
    }
}

impl Account {
    fn settings(&self) -> String {
        format!(
            "name={} owner={} key_prefix={} max_keys={} restrict_key_creation={}",
            self.name,
            self.owner.as_deref().unwrap_or("nobody"),
            self.key_prefix,
            self.max_keys,
            self.restricted().join("+")
        )
    }

    /// For which keys making is restricted, in words.
    #[must_use]
    pub fn restricted(&self) -> Vec<&'static str> {
        let Restrictions { user_keys, service_keys } = self.restrictions;
        let words = [(user_keys, "user"), (service_keys, "service-id")];
        words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect()
    }
}
