//! What becomes of keys: changed, locked, disabled, deleted, handed on.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::access::{Act, Caller};
use super::audit::Entry;
use super::identity::{Identity, IdentityKind};
use super::issue::{check_executor, check_kind};
use super::key::{Class, Key, KeyKind, LeakAction, State, Status};
use super::{RegistryError, Result, Tx, check_version};
use crate::clock::{rfc3339, to_millis};
use crate::secret::Digest;

/// Under this name leakwarden itself changes keys.
pub const OWN_ACTOR: &str = "leakwarden";

/// Whether a change changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It took effect now.
    Done,
    /// It was so already.
    Already,
}

/// What is changed about a key; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct KeyUpdate {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// From when on it is invalid; `Some(None)`: never.
    pub expires_at: Option<Option<Timestamp>>,
    /// What happens when it leaks.
    pub leak_action: Option<LeakAction>,
    /// How much it matters.
    pub class: Option<Class>,
    /// Its own homes, all of them.
    pub homes: Option<Vec<String>>,
    /// What carries its leak action out.
    pub executor: Option<String>,
    /// Its id in the system that issued it; an empty text clears.
    pub remote_id: Option<String>,
}

/// What happens to the keys of an identity that is deleted.
#[derive(Clone, Copy, Debug)]
pub enum KeysOf<'a> {
    /// There are none.
    Nobody,
    /// Another identity takes them over.
    Reassigned(&'a Identity),
    /// They are disabled.
    Disabled,
}

fn refused<T>(why: String) -> Result<T> {
    Err(RegistryError::Refused(why))
}

/// Refuses to change a tombstone or a locked key. Nothing here ever unlocks one.
pub(super) fn must_be_open(key: &Key, what: &str) -> Result<()> {
    let name = &key.name;
    if key.state == State::Deleted {
        return refused(format!("{name} is deleted, and that is for good"));
    }
    if key.locked {
        let why =
            format!("{name} is locked; a locked key is not {what} (`key unlock {name}` first)");
        return refused(why);
    }
    Ok(())
}

/// What undoes the end that a leak brought takes an administrator, who says why.
fn must_justify(key: &Key, what: &str, (caller, reason): (&Caller, &str)) -> Result<()> {
    caller.must_administer(what)?;
    if reason.is_empty() {
        return refused(format!("{} leaked; say why it is made valid again (--reason)", key.name));
    }
    Ok(())
}

impl Tx<'_> {
    /// Changes what is said of a key.
    pub fn update_key(
        &self,
        key: &Key,
        update: &KeyUpdate,
        if_version: Option<i64>,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<Change> {
        let (caller, reason) = why;
        let key = self.key(&key.id)?;
        self.must(caller, Act::Update, &key)?;
        must_be_open(&key, "updated")?;
        check_version("key", key.version, if_version)?;
        self.refuse_words(&[reason])?;
        let next = self.changed_key(&key, update, why, now)?;
        let mut changes = Changes::of(&key, &next);
        if let Some(homes) = &update.homes {
            let before = self.own_homes(&key.id)?;
            changes.note("homes", &before.join(" "), &homes.join(" "));
            if before != *homes {
                self.sql().execute("DELETE FROM homes WHERE key_id = ?1", [&key.id])?;
                self.add_homes(&key.account_id, &key.id, homes, caller, now)?;
            }
        }
        if changes.before.is_empty() {
            return Ok(Change::Already);
        }
        self.sql().execute(
            "UPDATE keys SET name = ?2, description = ?3, expires_at = ?4, leak_action = ?5,
                 class = ?6, executor = ?7, remote_id = ?8 WHERE id = ?1",
            rusqlite::params![
                key.id,
                next.name,
                next.description,
                next.expires_at.map(to_millis),
                next.leak_action,
                next.class,
                next.executor,
                next.remote_id,
            ],
        )?;
        self.touch(&key, caller, now)?;
        let (before, after) = (changes.before.join(" "), changes.after.join(" "));
        self.audit(&Entry {
            actor: &caller.actor,
            action: "key update",
            target: &key.id,
            before: &before,
            after: &after,
            reason,
            ..Entry::at(now)
        })?;
        Ok(Change::Done)
    }

    /// The key as it would be.
    fn changed_key(
        &self,
        key: &Key,
        update: &KeyUpdate,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<Key> {
        let mut next = key.clone();
        if let Some(name) = &update.name {
            if name.trim().is_empty() {
                return refused("a key needs a name".to_owned());
            }
            next.name = name.trim().to_owned();
        }
        if let Some(description) = &update.description {
            next.description.clone_from(description);
        }
        if let Some(expires_at) = update.expires_at {
            next.expires_at = expires_at;
            let revived = key.status(now) == Status::Expired && next.status(now) == Status::Active;
            if revived && key.leaked_at.is_some() {
                must_justify(key, "let a key live on that leaked and expired", why)?;
            }
        }
        next.leak_action = update.leak_action.unwrap_or(next.leak_action);
        next.class = update.class.unwrap_or(next.class);
        check_kind(next.kind, next.locked, next.expires_at.is_some(), next.leak_action)?;
        if let Some(executor) = &update.executor {
            check_executor(executor)?;
            next.executor.clone_from(executor);
        }
        if let Some(id) = &update.remote_id {
            next.remote_id = Some(id.clone()).filter(|id| !id.is_empty());
        }
        if let Some(id) = next.remote_id.as_ref().filter(|_| next.remote_id != key.remote_id) {
            self.refuse_remote_id(&key.account_id, &key.origin, id, Some(&key.id))?;
        }
        let remote_id = next.remote_id.as_deref().unwrap_or_default();
        self.refuse_words(&[&next.name, &next.description, remote_id])?;
        Ok(next)
    }

    /// Refuses an id that another live key of the same source has there.
    pub(super) fn refuse_remote_id(
        &self,
        account: &str,
        origin: &str,
        id: &str,
        of: Option<&str>,
    ) -> Result<()> {
        match self.key_by_remote_id(account, origin, id)? {
            Some(other) if of != Some(&other.id) => {
                refused(format!("{} ({}) has that remote id", other.name, other.id))
            }
            _ => Ok(()),
        }
    }

    /// Sets the state of a key. Deleting is for good; a locked key is not deleted. What a leak
    /// disabled is enabled by an administrator, who says why.
    pub fn set_state(
        &self,
        key: &Key,
        state: State,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<Change> {
        let (caller, reason) = why;
        let current = self.key(&key.id)?;
        let act = if state == State::Deleted { Act::Delete } else { Act::Update };
        self.must(caller, act, &current)?;
        match (current.state, state) {
            (from, to) if from == to => return Ok(Change::Already),
            (State::Deleted, State::Disabled) => return Ok(Change::Already),
            (State::Deleted, _) => must_be_open(&current, "enabled")?,
            (_, State::Deleted) => must_be_open(&current, "deleted")?,
            (_, State::Disabled) if current.kind == KeyKind::Classic => {
                return refused("a classic infrastructure key cannot be disabled".to_owned());
            }
            (_, State::Active) if self.disabled_by_leak(&current)? => {
                must_justify(&current, "enable a key that a leak disabled", why)?;
            }
            _ => {}
        }
        self.set(&current, "state", state.as_str(), caller, now)?;
        let action = match state {
            State::Active => "key enable",
            State::Disabled => "key disable",
            State::Deleted => "key delete",
        };
        self.audit(&Entry {
            actor: &caller.actor,
            action,
            target: &current.id,
            before: current.state.as_str(),
            after: state.as_str(),
            reason,
            ..Entry::at(now)
        })?;
        Ok(Change::Done)
    }

    fn disabled_by_leak(&self, key: &Key) -> Result<bool> {
        let sql = "SELECT actor FROM audit WHERE target = ?1 AND action = 'key disable'
             ORDER BY seq DESC LIMIT 1";
        let actor: Option<String> =
            self.sql().query_row(sql, [&key.id], |row| row.get(0)).optional()?;
        Ok(actor.as_deref() == Some(OWN_ACTOR))
    }

    /// Locks or unlocks a key.
    pub fn set_locked(
        &self,
        key: &Key,
        locked: bool,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<Change> {
        let (caller, reason) = why;
        let key = self.key(&key.id)?;
        self.must(caller, Act::Update, &key)?;
        if key.state == State::Deleted {
            must_be_open(&key, "locked")?;
        }
        if key.locked == locked {
            return Ok(Change::Already);
        }
        check_kind(key.kind, locked, false, LeakAction::None)?;
        self.set(&key, "locked", locked, caller, now)?;
        let action = if locked { "key lock" } else { "key unlock" };
        let [before, after] = [!locked, locked].map(|locked| format!("locked={locked}"));
        self.audit(&Entry {
            actor: &caller.actor,
            action,
            target: &key.id,
            before: &before,
            after: &after,
            reason,
            ..Entry::at(now)
        })?;
        Ok(Change::Done)
    }

    /// Notes the first leak of a key.
    pub fn note_leak(&self, key: &Key, now: Timestamp) -> Result<()> {
        self.sql().execute(
            "UPDATE keys SET leaked_at = coalesce(leaked_at, ?2) WHERE id = ?1",
            (&key.id, to_millis(now)),
        )?;
        Ok(())
    }

    /// Notes that an import named a key again.
    pub fn note_import(&self, key: &Key, import: Option<i64>) -> Result<()> {
        self.sql()
            .prepare_cached("UPDATE keys SET import_id = ?2 WHERE id = ?1")?
            .execute((&key.id, import))?;
        Ok(())
    }

    /// Whether a digest is the one of that key.
    pub fn is_digest_of(&self, digest: &Digest, key: &Key) -> Result<bool> {
        let sql = "SELECT digest FROM keys WHERE id = ?1";
        let stored: Vec<u8> =
            self.sql().prepare_cached(sql)?.query_row([&key.id], |row| row.get(0))?;
        Ok(digest.matches(&stored))
    }

    /// Deletes an identity. One with keys is not deleted before it is said what becomes of them.
    pub fn delete_identity(
        &self,
        identity: &Identity,
        keys: KeysOf<'_>,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<u64> {
        let (caller, reason) = why;
        caller.must_administer("delete identities")?;
        let identity = &self.find_identity(&identity.account_id, &identity.id)?;
        let name = &identity.name;
        if self.account(&identity.account_id)?.owner_id.as_ref() == Some(&identity.id) {
            let why = format!("{name} owns the account; make another its owner first");
            return refused(format!("{why} (`account update --owner`)"));
        }
        let live = self.live_keys_of(identity)?;
        for key in &live {
            match keys {
                KeysOf::Nobody => {
                    let count = crate::text::plural(live.len() as u64, "live key");
                    return refused(format!(
                        "{name} has {count}; say what becomes of them: --reassign TO or \
                         --disable-keys"
                    ));
                }
                KeysOf::Reassigned(to) => self.reassign(key, to, why, now)?,
                KeysOf::Disabled => {
                    self.set_state(key, State::Disabled, why, now)?;
                }
            }
        }
        let orphans = "UPDATE identities SET manager_id = NULL WHERE manager_id = ?1";
        self.sql().execute(orphans, [&identity.id])?;
        let children = "UPDATE identities SET parent_id = ?2 WHERE parent_id = ?1";
        self.sql().execute(children, (&identity.id, &identity.parent_id))?;
        self.sql().execute("DELETE FROM grants WHERE identity_id = ?1", [&identity.id])?;
        self.sql().execute(
            "UPDATE identities SET deleted_at = ?2, os_user = NULL, version = version + 1
             WHERE id = ?1",
            (&identity.id, to_millis(now)),
        )?;
        let count = live.len();
        let after = match keys {
            _ if live.is_empty() => "deleted".to_owned(),
            KeysOf::Reassigned(to) => format!("deleted keys_reassigned={count} to={}", to.name),
            _ => format!("deleted keys_disabled={count}"),
        };
        self.audit(&Entry {
            actor: &caller.actor,
            action: "identity delete",
            target: &identity.id,
            before: name,
            after: &after,
            reason,
            ..Entry::at(now)
        })?;
        Ok(live.len() as u64)
    }

    fn live_keys_of(&self, identity: &Identity) -> Result<Vec<Key>> {
        let sql = "SELECT id FROM keys WHERE identity_id = ?1 AND state <> 'deleted'";
        let mut statement = self.sql().prepare(sql)?;
        let ids = statement.query_map([&identity.id], |row| row.get::<_, String>(0))?;
        ids.collect::<rusqlite::Result<Vec<_>>>()?.iter().map(|id| self.key(id)).collect()
    }

    fn reassign(
        &self,
        key: &Key,
        to: &Identity,
        why: (&Caller, &str),
        now: Timestamp,
    ) -> Result<()> {
        let (caller, reason) = why;
        must_be_open(key, "handed on")?;
        let of_service = matches!(key.kind, KeyKind::ServiceId | KeyKind::ServiceSpecific);
        if to.id == key.identity_id {
            return refused(format!("{} cannot take over its own keys", to.name));
        }
        if of_service != (to.kind == IdentityKind::ServiceId) {
            let why = format!("{} ({}) cannot take over {}", to.name, to.kind, key.name);
            return refused(format!("{why}, a key of the kind {}", key.kind));
        }
        if key.kind == KeyKind::Classic && self.key_count_of(to, Some(key.kind))? > 0 {
            return refused(format!("{} has a classic infrastructure key already", to.name));
        }
        self.set(key, "identity_id", &to.id, caller, now)?;
        self.audit(&Entry {
            actor: &caller.actor,
            action: "key reassign",
            target: &key.id,
            before: &key.identity,
            after: &to.name,
            reason,
            ..Entry::at(now)
        })
    }

    fn set(
        &self,
        key: &Key,
        column: &'static str,
        value: impl rusqlite::ToSql,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<()> {
        let sql = format!("UPDATE keys SET {column} = ?2 WHERE id = ?1");
        self.sql().prepare_cached(&sql)?.execute((&key.id, value))?;
        self.touch(key, caller, now)
    }

    /// A key is another version of itself.
    pub(super) fn touch(&self, key: &Key, caller: &Caller, now: Timestamp) -> Result<()> {
        self.sql()
            .prepare_cached(
                "UPDATE keys SET modified_at = ?2, modified_by = ?3, version = version + 1
                 WHERE id = ?1",
            )?
            .execute((&key.id, to_millis(now), &caller.actor))?;
        Ok(())
    }
}

/// What is told to the audit log: only what changed.
#[derive(Default)]
struct Changes {
    before: Vec<String>,
    after: Vec<String>,
}

impl Changes {
    fn of(key: &Key, next: &Key) -> Self {
        let time = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), rfc3339);
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let mut changes = Self::default();
        changes.note("name", &key.name, &next.name);
        changes.note("description", &key.description, &next.description);
        changes.note("expires_at", &time(key.expires_at), &time(next.expires_at));
        changes.note("leak_action", key.leak_action.as_str(), next.leak_action.as_str());
        changes.note("class", key.class.as_str(), next.class.as_str());
        changes.note("executor", &key.executor, &next.executor);
        changes.note("remote_id", &or_none(&key.remote_id), &or_none(&next.remote_id));
        changes
    }

    fn note(&mut self, field: &str, before: &str, after: &str) {
        if before != after {
            self.before.push(format!("{field}={before}"));
            self.after.push(format!("{field}={after}"));
        }
    }
}
