//! Keys and identities in the database.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::audit::Entry;
use super::key::{Key, KeyKind, LeakAction, State, kind_prefix};
use super::{RegistryError, Result, Tx};
use crate::clock::{from_millis, to_millis};
use crate::rule::Checksum;
use crate::secret::{Digest, Secret, random_text};
use crate::shape::{EXPORT_MIN_BITS, Shape, strength_bits};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE64URL: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-";

/// Whom a key stands for.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Its mail address.
    pub email: String,
    /// Whether it is an administrator of the account.
    pub is_admin: bool,
}

/// What is known of a key that comes into the registry.
pub enum Material {
    /// The key itself.
    Plain(Secret),
    /// Only its SHA-256, with the shape that its owner declares.
    Sha256([u8; 32], Shape),
}

/// A key that comes into the registry.
pub struct NewKey<'a> {
    /// Not unique.
    pub name: &'a str,
    /// Free text.
    pub description: &'a str,
    /// Mail address; its identity is made when unknown.
    pub owner: &'a str,
    /// Whom it stands for.
    pub kind: KeyKind,
    /// What happens when it leaks.
    pub leak_action: LeakAction,
    /// Whether it starts locked.
    pub locked: bool,
    /// Invalid from then on.
    pub expires_at: Option<Timestamp>,
    /// Globs of places where it is meant to be.
    pub homes: &'a [String],
    /// created, registered, import.
    pub source: &'a str,
    /// What people may see of it.
    pub hint: &'a str,
}

/// Whether a change changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It took effect now.
    Done,
    /// It was so already.
    Already,
}

/// A key in our own format: `<prefix>_<kind>_<30 base62><6 check digits>`, with its public prefix.
pub fn generate_own(prefix: &str, kind: KeyKind) -> Result<(Secret, String)> {
    let public = format!("{prefix}_{}_", kind_prefix(kind));
    let body = random_text(BASE62, 30)?;
    let mut key = Vec::with_capacity(public.len() + 36);
    key.extend_from_slice(public.as_bytes());
    key.extend_from_slice(body.expose());
    let digits = Checksum::Leakwarden.digits(&key);
    key.extend(digits);
    Ok((Secret::new(key), public))
}

/// 44 characters base64url without a prefix, as IBM Cloud makes them.
pub fn generate_ibm_like() -> Result<Secret> {
    Ok(random_text(BASE64URL, 44)?)
}

const KEY_COLUMNS: &str = "k.id, k.name, k.description, k.kind, k.class, k.identity_id, i.email, \
    k.state, k.locked, k.leak_action, k.hint, k.expires_at, k.created_at, k.created_by, \
    k.modified_at, k.modified_by, k.leaked_at, k.source, \
    (SELECT json_group_array(glob) FROM homes h WHERE h.key_id = k.id)";

fn key_from(row: &Row<'_>) -> rusqlite::Result<Key> {
    let homes: String = row.get(18)?;
    Ok(Key {
        id: row.get(0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        kind: row.get(3)?,
        class: row.get(4)?,
        identity_id: row.get(5)?,
        owner: row.get(6)?,
        state: row.get(7)?,
        locked: row.get(8)?,
        leak_action: row.get(9)?,
        hint: row.get(10)?,
        expires_at: row.get::<_, Option<i64>>(11)?.map(from_millis),
        created_at: from_millis(row.get(12)?),
        created_by: row.get(13)?,
        modified_at: from_millis(row.get(14)?),
        modified_by: row.get(15)?,
        leaked_at: row.get::<_, Option<i64>>(16)?.map(from_millis),
        source: row.get(17)?,
        homes: serde_json::from_str(&homes).unwrap_or_default(),
    })
}

/// Refuses words about a key that hold the key: they are stored as they are.
fn refuse_if_told(new: &NewKey<'_>, key: &[u8]) -> Result<()> {
    let words = [new.name, new.description, new.owner, new.hint];
    let mut all = words.into_iter().chain(new.homes.iter().map(String::as_str));
    if all.clone().any(|word| word.contains(char::is_control)) {
        let why =
            "the name, the description or another word about the key holds a control character";
        return Err(RegistryError::Refused(why.to_owned()));
    }
    if all.any(|word| memchr::memmem::find(word.as_bytes(), key).is_some()) {
        let why = "the name, the description or another word about the key holds the key itself";
        return Err(RegistryError::Refused(why.to_owned()));
    }
    Ok(())
}

impl Tx<'_> {
    /// The prefix of our own keys.
    pub fn key_prefix(&self) -> Result<String> {
        Ok(self.sql().query_row("SELECT key_prefix FROM accounts", [], |row| row.get(0))?)
    }

    /// Id of the account (there is one so far).
    fn account(&self) -> Result<(String, i64)> {
        let sql = "SELECT id, max_keys_per_identity FROM accounts";
        Ok(self.sql().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// The identity with this mail address; made when there is none.
    pub fn identity(&self, email: &str, actor: &str, now: Timestamp) -> Result<Identity> {
        let email = email.trim();
        let fit = email.is_ascii() && email.parse::<lettre::Address>().is_ok();
        if !fit {
            let shown = crate::text::clean(email.as_bytes());
            return Err(RegistryError::Refused(format!("`{shown}` is not a mail address")));
        }
        let sql = "SELECT id, email, is_admin FROM identities WHERE email = ?1";
        let read = |row: &Row<'_>| {
            Ok(Identity { id: row.get(0)?, email: row.get(1)?, is_admin: row.get(2)? })
        };
        if let Some(known) = self.sql().query_row(sql, [email], read).optional()? {
            return Ok(known);
        }
        let id = format!("user-{}", uuid::Uuid::new_v4());
        let (account, _) = self.account()?;
        self.sql().execute(
            "INSERT INTO identities (id, account_id, kind, email, name, created_at)
             VALUES (?1, ?2, 'user', ?3, ?3, ?4)",
            (&id, &account, email, to_millis(now)),
        )?;
        let action = "identity create";
        self.audit(&Entry { actor, action, target: &id, after: email, ..Entry::at(now) })?;
        Ok(Identity { id, email: email.to_owned(), is_admin: false })
    }

    /// Mail addresses of the account's administrators.
    pub fn admins(&self) -> Result<Vec<String>> {
        let mut statement = self
            .sql()
            .prepare_cached("SELECT email FROM identities WHERE is_admin = 1 ORDER BY email")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Puts a key into the registry. A second one with the same digest is refused.
    pub fn add_key(
        &self,
        new: &NewKey<'_>,
        material: &Material,
        actor: &str,
        now: Timestamp,
    ) -> Result<Key> {
        let (digest, tags, shape) = match material {
            Material::Plain(key) => {
                let bytes = key.expose();
                let tags = (self.keyring().tag(bytes), self.export_tag(bytes, new.hint));
                (self.keyring().digest(bytes), Some(tags), Shape::of(bytes)?)
            }
            Material::Sha256(hash, shape) => (self.keyring().digest_of_sha256(hash), None, *shape),
        };
        if let Some(known) = self.key_by_digest(&digest)? {
            return Err(RegistryError::Refused(format!(
                "this key is registered already, as {} ({})",
                known.name, known.id
            )));
        }
        if new.name.trim().is_empty() {
            return Err(RegistryError::Refused("a key needs a name".to_owned()));
        }
        if let Material::Plain(key) = material {
            refuse_if_told(new, key.expose())?;
        }
        let identity = self.identity(new.owner, actor, now)?;
        let (account, max_keys) = self.account()?;
        if new.source == "created" {
            self.check_quota(&identity, max_keys)?;
        }
        let id = format!("ApiKey-{}", uuid::Uuid::new_v4());
        let as_stored = |tag: u64| i64::from_le_bytes(tag.to_le_bytes());
        let at = to_millis(now);
        self.sql()
            .prepare_cached(
                "INSERT INTO keys (id, account_id, identity_id, kind, name, description, locked,
                     leak_action, hint, digest, tag, export_tag, alphabet, length, source,
                     expires_at, created_at, created_by, modified_at, modified_by)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                     ?17, ?18, ?17, ?18)",
            )?
            .execute(rusqlite::params![
                id,
                account,
                identity.id,
                new.kind,
                new.name.trim(),
                new.description,
                new.locked,
                new.leak_action,
                new.hint,
                digest.as_bytes(),
                tags.map(|(tag, _)| as_stored(tag)),
                tags.and_then(|(_, export)| export).map(as_stored),
                shape.alphabet.as_str(),
                i64::try_from(shape.len).unwrap_or(i64::MAX),
                new.source,
                new.expires_at.map(to_millis),
                at,
                actor,
            ])?;
        self.add_shape(shape, tags.is_none())?;
        self.add_homes(&id, new.homes, actor, now)?;
        let action = match new.source {
            "created" => "key create",
            "registered" => "key register",
            _ => "key import",
        };
        let after =
            format!("name={} owner={} leak_action={}", new.name, new.owner, new.leak_action);
        self.audit(&Entry { actor, action, target: &id, after: &after, ..Entry::at(now) })?;
        self.key(&id)
    }

    /// The tag for filters that leave the host; none for a key that might be guessed by it. What is
    /// public of the key, the beginning of its hint, does not count.
    fn export_tag(&self, key: &[u8], hint: &str) -> Option<u64> {
        let public = hint.split('…').next().unwrap_or_default();
        let hidden = key.strip_prefix(public.as_bytes()).unwrap_or(key);
        let strong = strength_bits(hidden) >= EXPORT_MIN_BITS;
        strong.then(|| self.keyring().export_key().tag(key))
    }

    fn add_shape(&self, shape: Shape, untagged: bool) -> Result<()> {
        let len = i64::try_from(shape.len).unwrap_or(i64::MAX);
        self.sql()
            .prepare_cached("INSERT OR IGNORE INTO shapes VALUES (?1, ?2, ?3)")?
            .execute((shape.alphabet.as_str(), len, untagged))?;
        Ok(())
    }

    fn add_homes(&self, key: &str, globs: &[String], actor: &str, now: Timestamp) -> Result<()> {
        for glob in globs {
            if let Err(error) = globset::Glob::new(glob) {
                return Err(RegistryError::Refused(format!("home: {error}")));
            }
            if !glob.starts_with('/') && !glob.starts_with("**") {
                let why = format!("home: `{glob}` begins neither with `/` nor with `**`");
                return Err(RegistryError::Refused(why));
            }
            self.sql().execute(
                "INSERT OR IGNORE INTO homes (key_id, glob, created_at, created_by)
                 VALUES (?1, ?2, ?3, ?4)",
                (key, glob, to_millis(now), actor),
            )?;
        }
        Ok(())
    }

    fn check_quota(&self, identity: &Identity, max_keys: i64) -> Result<()> {
        let count: i64 = self.sql().query_row(
            "SELECT count(*) FROM keys WHERE identity_id = ?1 AND state <> 'deleted'",
            [&identity.id],
            |row| row.get(0),
        )?;
        if count < max_keys {
            return Ok(());
        }
        Err(RegistryError::Refused(format!(
            "{} has {count} keys, and {max_keys} is the limit of the account; delete one first",
            identity.email
        )))
    }

    /// The key with this id.
    pub fn key(&self, id: &str) -> Result<Key> {
        self.one_key("k.id = ?1", id)?
            .ok_or_else(|| RegistryError::NotFound(format!("no key with id {id}")))
    }

    /// The key whose digest this is, in whatever state.
    pub fn key_by_digest(&self, digest: &Digest) -> Result<Option<Key>> {
        let sql = "SELECT id, digest FROM keys WHERE digest = ?1";
        let found: Option<(String, Vec<u8>)> = self
            .sql()
            .prepare_cached(sql)?
            .query_row([digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((id, stored)) if digest.matches(&stored) => Ok(Some(self.key(&id)?)),
            _ => Ok(None),
        }
    }

    fn one_key(&self, condition: &str, value: &str) -> Result<Option<Key>> {
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM keys k JOIN identities i ON i.id = k.identity_id
             WHERE {condition}"
        );
        Ok(self.sql().prepare_cached(&sql)?.query_row([value], key_from).optional()?)
    }

    /// Every key, by name; tombstones only when asked for.
    pub fn keys(&self, with_deleted: bool) -> Result<Vec<Key>> {
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM keys k JOIN identities i ON i.id = k.identity_id
             WHERE k.state <> 'deleted' OR ?1 ORDER BY k.name, k.seq"
        );
        let mut statement = self.sql().prepare(&sql)?;
        let rows = statement.query_map([with_deleted], key_from)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The key that a user means: by id, by its UUID, or by a name that only one live key has.
    pub fn find_key(&self, name_or_id: &str) -> Result<Key> {
        let id = match name_or_id.strip_prefix("ApiKey-") {
            Some(_) => name_or_id.to_owned(),
            None => format!("ApiKey-{name_or_id}"),
        };
        if let Some(key) = self.one_key("k.id = ?1", &id)? {
            return Ok(key);
        }
        let mut statement = self.sql().prepare(
            "SELECT id, state FROM keys WHERE name = ?1 ORDER BY state = 'deleted', seq",
        )?;
        let rows = statement.query_map([name_or_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(String, State)> = rows.collect::<rusqlite::Result<_>>()?;
        let live = found.iter().filter(|(_, state)| *state != State::Deleted).count();
        match found.as_slice() {
            [] => {
                let shown = crate::text::clean(name_or_id.as_bytes());
                Err(RegistryError::NotFound(format!("no key named `{shown}`; see `key list`")))
            }
            [(id, _), ..] if found.len() == 1 || live == 1 => self.key(id),
            _ => {
                let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
                let ids = ids.join(", ");
                Err(RegistryError::Refused(format!(
                    "several keys have that name; give the id: {ids}"
                )))
            }
        }
    }

    /// Sets the state of a key. Deleting is for good; a locked key is not deleted. Nothing here
    /// ever unlocks a key.
    pub fn set_state(
        &self,
        key: &Key,
        state: State,
        actor: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Change> {
        let current = self.key(&key.id)?;
        match (current.state, state) {
            (from, to) if from == to => return Ok(Change::Already),
            (State::Deleted, State::Disabled) => return Ok(Change::Already),
            (State::Deleted, _) => {
                let why = format!("{} is deleted, and that is for good", current.name);
                return Err(RegistryError::Refused(why));
            }
            (_, State::Deleted) if current.locked => {
                return Err(RegistryError::Refused(format!(
                    "{0} is locked; a locked key is not deleted (`key unlock {0}` first)",
                    current.name
                )));
            }
            _ => {}
        }
        self.update(&current, "state", state.as_str(), actor, now)?;
        let action = match state {
            State::Active => "key enable",
            State::Disabled => "key disable",
            State::Deleted => "key delete",
        };
        self.audit(&Entry {
            actor,
            action,
            target: &current.id,
            before: current.state.as_str(),
            after: state.as_str(),
            reason,
            ..Entry::at(now)
        })?;
        Ok(Change::Done)
    }

    /// Locks or unlocks a key.
    pub fn set_locked(
        &self,
        key: &Key,
        locked: bool,
        actor: &str,
        now: Timestamp,
    ) -> Result<Change> {
        if key.locked == locked {
            return Ok(Change::Already);
        }
        self.update(key, "locked", locked, actor, now)?;
        let action = if locked { "key lock" } else { "key unlock" };
        self.audit(&Entry { actor, action, target: &key.id, ..Entry::at(now) })?;
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

    fn update(
        &self,
        key: &Key,
        column: &'static str,
        value: impl rusqlite::ToSql,
        actor: &str,
        now: Timestamp,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE keys SET {column} = ?2, modified_at = ?3, modified_by = ?4,
                 version = version + 1 WHERE id = ?1"
        );
        self.sql().prepare_cached(&sql)?.execute(rusqlite::params![
            key.id,
            value,
            to_millis(now),
            actor
        ])?;
        Ok(())
    }
}
