//! Homes: files where keys are meant to be.

use super::access::{Act, Caller};
use super::audit::Entry;
use super::change::must_be_open;
use super::identity::Identity;
use super::key::{Home, Key};
use super::{RegistryError, Result, Tx};
use crate::clock::{from_millis, to_millis};
use crate::source::follow::is_everything;
use jiff::Timestamp;

/// For which keys a home is one.
#[derive(Clone, Copy, Debug)]
pub enum HomeOf<'a> {
    /// One key.
    Key(&'a Key),
    /// All keys of an identity.
    Identity(&'a Identity),
    /// All keys of the account with this id.
    Account(&'a str),
}

/// A home as it is listed.
#[derive(Clone, Debug)]
pub struct HomeRow {
    /// Its number.
    pub id: i64,
    /// Where.
    pub home: Home,
    /// Name and id of its key, if it is one key's.
    pub key: Option<(String, String)>,
    /// Name and id of the identity, if it is for all of its keys.
    pub identity: Option<(String, String)>,
    /// When it was set.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// Refuses a glob that matches nothing, or that is no place of its own.
fn check(glob: &str) -> Result<()> {
    if let Err(error) = globset::Glob::new(glob) {
        return Err(RegistryError::Refused(format!("home: {error}")));
    }
    if glob.contains(char::is_control) {
        return Err(RegistryError::Refused("home: it holds a control character".to_owned()));
    }
    if !glob.starts_with('/') && !glob.starts_with("**") {
        let why = format!("home: `{glob}` begins neither with `/` nor with `**`");
        return Err(RegistryError::Refused(why));
    }
    if is_everything(glob) {
        let why = "home: every file would be one, and no leak would ever be seen";
        return Err(RegistryError::Refused(why.to_owned()));
    }
    Ok(())
}

impl Tx<'_> {
    /// Globs of the homes that are one key's alone.
    pub(super) fn own_homes(&self, key: &str) -> Result<Vec<String>> {
        let sql = "SELECT glob FROM homes WHERE key_id = ?1 ORDER BY id";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map([key], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The homes that a new key comes with.
    pub(super) fn add_homes(
        &self,
        account: &str,
        key: &str,
        globs: &[String],
        caller: &Caller,
        now: Timestamp,
    ) -> Result<()> {
        for glob in globs {
            check(glob)?;
            self.sql().execute(
                "INSERT OR IGNORE INTO homes (account_id, key_id, glob, created_at, created_by)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (account, key, glob, to_millis(now), &caller.actor),
            )?;
        }
        Ok(())
    }

    /// Sets a home; `false`: it was one already.
    pub fn add_home(
        &self,
        of: HomeOf<'_>,
        home: &Home,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<bool> {
        let (caller, reason) = why;
        check(&home.glob)?;
        let (account, key, identity, target) = match of {
            HomeOf::Key(key) => {
                self.must(caller, Act::Update, key)?;
                must_be_open(key, "given a home")?;
                (&*key.account_id, Some(&key.id), None, key.id.as_str())
            }
            HomeOf::Identity(identity) => {
                if !caller.manages(identity) {
                    caller.must_administer("set homes for keys of others")?;
                }
                (&*identity.account_id, None, Some(&identity.id), identity.id.as_str())
            }
            HomeOf::Account(account) => {
                caller.must_administer("set homes for all keys")?;
                (account, None, None, account)
            }
        };
        let changed = self.sql().execute(
            "INSERT OR IGNORE INTO homes (account_id, key_id, identity_id, host, glob, created_at,
                 created_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            rusqlite::params![
                account,
                key,
                identity,
                home.host,
                home.glob,
                to_millis(now),
                caller.actor
            ],
        )?;
        if changed > 0 {
            if let HomeOf::Key(key) = of {
                self.touch(key, caller, now)?;
            }
            let (actor, after) = (&caller.actor, &home.to_string());
            let action = "home accept";
            self.audit(&Entry { actor, action, target, after, reason, ..Entry::at(now) })?;
        }
        Ok(changed > 0)
    }

    /// The homes that a caller may see, of one key or of all.
    pub fn homes(&self, key: Option<&Key>, caller: &Caller) -> Result<Vec<HomeRow>> {
        let mut statement = self.sql().prepare(
            "SELECT h.id, h.host, h.glob, k.name, k.id, i.name, i.id, h.created_at, h.created_by
             FROM homes h LEFT JOIN keys k ON k.id = h.key_id
             LEFT JOIN identities i ON i.id = h.identity_id
             WHERE (?1 IS NULL OR h.account_id = ?1) AND (?2 IS NULL OR h.key_id = ?2
                 OR h.identity_id = ?3 OR (h.key_id IS NULL AND h.identity_id IS NULL))
             ORDER BY h.id",
        )?;
        let account = key.map(|key| &key.account_id).or(caller.account.as_ref());
        let (id, identity) = (key.map(|key| &key.id), key.map(|key| &key.identity_id));
        let rows = statement.query_map((account, id, identity), |row| {
            let pair = |at| -> rusqlite::Result<Option<(String, String)>> {
                Ok(row.get::<_, Option<String>>(at)?.zip(row.get(at + 1)?))
            };
            Ok(HomeRow {
                id: row.get(0)?,
                home: Home { host: row.get(1)?, glob: row.get(2)? },
                key: pair(3)?,
                identity: pair(5)?,
                created_at: from_millis(row.get(7)?),
                created_by: row.get(8)?,
            })
        })?;
        let mut seen = Vec::new();
        for home in rows.collect::<rusqlite::Result<Vec<_>>>()? {
            let visible = match (&home.key, &home.identity) {
                _ if caller.administers() => true,
                (Some((_, id)), _) => caller.may(Act::View, &self.key(id)?.whose()).is_ok(),
                (None, Some((_, id))) => caller.manages(&self.identity(id)?),
                (None, None) => true,
            };
            if visible {
                seen.push(home);
            }
        }
        Ok(seen)
    }

    /// Takes a home away, by its number.
    pub fn remove_home(&self, id: i64, why: (&Caller, &str), now: Timestamp) -> Result<Home> {
        let (caller, reason) = why;
        let row = self.homes(None, caller)?.into_iter().find(|home| home.id == id);
        let Some(row) = row else {
            return Err(RegistryError::NotFound(format!("no home {id}; see `home list`")));
        };
        match (&row.key, &row.identity) {
            (Some((_, key)), _) => {
                let key = self.key(key)?;
                self.must(caller, Act::Update, &key)?;
                must_be_open(&key, "deprived of a home")?;
                self.touch(&key, caller, now)?;
            }
            (None, Some((_, id))) if caller.manages(&self.identity(id)?) => {}
            _ => caller.must_administer("remove homes of others")?,
        }
        let sql = "DELETE FROM homes WHERE id = ?1 RETURNING account_id";
        let account: String = self.sql().query_row(sql, [id], |row| row.get(0))?;
        let target = row.key.or(row.identity).map_or(account, |(_, id)| id);
        self.audit(&Entry {
            actor: &caller.actor,
            action: "home remove",
            target: &target,
            before: &row.home.to_string(),
            reason,
            ..Entry::at(now)
        })?;
        Ok(row.home)
    }
}
