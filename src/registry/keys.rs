//! Keys in the database: finding, listing, verifying.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::access::{Act, Caller, Denied};
use super::key::{Class, Home, Key, KeyKind, LeakAction, State, Status, words};
use super::{RegistryError, Result, Tx};
use crate::clock::{from_millis, to_millis};
use crate::secret::Digest;

words! {
    /// Which keys a list shows.
    View {
        /// Those of the caller, and of the IDs that they manage.
        Mine = "mine",
        /// Those of users and functional IDs.
        User = "user",
        /// Those of service IDs.
        ServiceId = "service-id",
        /// Those of the classic infrastructure.
        Classic = "classic",
    }
}

/// Narrows a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Also tombstones.
    pub with_deleted: bool,
    /// A part of all keys.
    pub view: Option<View>,
    /// In this state now.
    pub status: Option<Status>,
    /// Of the identity with this id.
    pub identity: Option<String>,
    /// Of this class.
    pub class: Option<Class>,
    /// With this leak action.
    pub leak_action: Option<LeakAction>,
    /// Leaked at some time.
    pub leaked: bool,
    /// Still valid, but not from then on.
    pub expires_before: Option<Timestamp>,
    /// Of this import source.
    pub origin: Option<String>,
}

const KEY_COLUMNS: &str = "k.id, k.account_id, k.name, k.description, k.kind, k.class, \
    k.identity_id, i.name, coalesce(i.email, i.contact, m.email), i.manager_id, k.service, \
    k.state, k.locked, k.leak_action, k.executor, k.hint, k.expires_at, k.created_at, \
    k.created_by, k.modified_at, k.modified_by, k.leaked_at, k.last_used_at, k.use_count, \
    k.source, k.origin, k.remote_id, k.replaces, k.version, \
    (SELECT json_group_array(json_object('host', h.host, 'glob', h.glob)) FROM homes h \
     WHERE h.key_id = k.id OR h.identity_id = k.identity_id \
        OR (h.account_id = k.account_id AND coalesce(h.key_id, '') = '' \
            AND coalesce(h.identity_id, '') = ''))";

const KEY_TABLES: &str = "keys k JOIN identities i ON i.id = k.identity_id \
    LEFT JOIN identities m ON m.id = i.manager_id";

fn key_from(row: &Row<'_>) -> rusqlite::Result<Key> {
    let identity: String = row.get(7)?;
    let contact: Option<String> = row.get(8)?;
    let time = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(from_millis));
    let homes: String = row.get(29)?;
    let homes: Vec<Home> = serde_json::from_str(&homes).unwrap_or_default();
    Ok(Key {
        id: row.get(0)?,
        account_id: row.get(1)?,
        name: row.get(2)?,
        description: row.get(3)?,
        kind: row.get(4)?,
        class: row.get(5)?,
        identity_id: row.get(6)?,
        owner: contact.clone().unwrap_or_else(|| identity.clone()),
        identity,
        contact,
        manager_id: row.get(9)?,
        service: row.get(10)?,
        state: row.get(11)?,
        locked: row.get(12)?,
        leak_action: row.get(13)?,
        executor: row.get(14)?,
        hint: row.get(15)?,
        expires_at: time(16)?,
        created_at: from_millis(row.get(17)?),
        created_by: row.get(18)?,
        modified_at: from_millis(row.get(19)?),
        modified_by: row.get(20)?,
        leaked_at: time(21)?,
        last_used_at: time(22)?,
        use_count: row.get::<_, i64>(23)?.unsigned_abs(),
        arrival: row.get(24)?,
        origin: row.get(25)?,
        remote_id: row.get(26)?,
        replaces: row.get(27)?,
        version: row.get(28)?,
        homes,
    })
}

impl Filter {
    /// Whether the list shows that key to that caller: only what they may see, ever.
    #[must_use]
    pub fn shows(&self, key: &Key, caller: &Caller, now: Timestamp) -> bool {
        let own = |id: &str| caller.identity.as_deref() == Some(id);
        let in_view = match self.view {
            None => true,
            Some(View::Mine) => own(&key.identity_id) || key.manager_id.as_deref().is_some_and(own),
            Some(View::User) => key.kind == KeyKind::User,
            Some(View::ServiceId) => {
                matches!(key.kind, KeyKind::ServiceId | KeyKind::ServiceSpecific)
            }
            Some(View::Classic) => key.kind == KeyKind::Classic,
        };
        let status = key.status(now);
        in_view
            && self.status.is_none_or(|wanted| wanted == status)
            && self.identity.as_ref().is_none_or(|wanted| *wanted == key.identity_id)
            && self.class.is_none_or(|wanted| wanted == key.class)
            && self.leak_action.is_none_or(|wanted| wanted == key.leak_action)
            && (!self.leaked || key.leaked_at.is_some())
            && self.origin.as_ref().is_none_or(|wanted| *wanted == key.origin)
            && self.expires_before.is_none_or(|end| {
                matches!(status, Status::Active | Status::Disabled)
                    && key.expires_at.is_some_and(|expires| expires <= end)
            })
            && caller.may(Act::View, &key.whose()).is_ok()
    }
}

impl Tx<'_> {
    /// The key with this id.
    pub fn key(&self, id: &str) -> Result<Key> {
        self.one_key("k.id = ?1", &id)?
            .ok_or_else(|| RegistryError::NotFound(format!("no key with id {id}")))
    }

    /// The key whose digest this is, in whatever state.
    pub fn key_by_digest(&self, digest: &Digest) -> Result<Option<Key>> {
        let sql = format!("SELECT {KEY_COLUMNS}, k.digest FROM {KEY_TABLES} WHERE k.digest = ?1");
        let found: Option<(Key, Vec<u8>)> = self
            .sql()
            .prepare_cached(&sql)?
            .query_row([digest.as_bytes()], |row| Ok((key_from(row)?, row.get("digest")?)))
            .optional()?;
        Ok(found.filter(|(_, stored)| digest.matches(stored)).map(|(key, _)| key))
    }

    /// Whether there is such a key: asked at each start, so with as little to prepare as can be.
    pub(super) fn is_key(&self, digest: &Digest) -> Result<bool> {
        let mut statement =
            self.sql().prepare_cached("SELECT digest FROM keys WHERE digest = ?1")?;
        let found: Option<Vec<u8>> =
            statement.query_row([digest.as_bytes()], |row| row.get(0)).optional()?;
        Ok(found.is_some_and(|stored| digest.matches(&stored)))
    }

    /// The live key that an import source calls so.
    pub fn key_by_remote_id(&self, account: &str, origin: &str, id: &str) -> Result<Option<Key>> {
        let sql = "SELECT id FROM keys
             WHERE account_id = ?1 AND origin = ?2 AND remote_id = ?3 AND state <> 'deleted'";
        let mut statement = self.sql().prepare_cached(sql)?;
        let found: Option<String> =
            statement.query_row((account, origin, id), |row| row.get(0)).optional()?;
        found.map(|id| self.key(&id)).transpose()
    }

    fn one_key(&self, condition: &str, value: &dyn rusqlite::ToSql) -> Result<Option<Key>> {
        let sql = format!("SELECT {KEY_COLUMNS} FROM {KEY_TABLES} WHERE {condition}");
        Ok(self.sql().prepare_cached(&sql)?.query_row([value], key_from).optional()?)
    }

    /// Shows the keys of a list one after the other, by name.
    pub fn each_key(
        &self,
        filter: &Filter,
        caller: &Caller,
        now: Timestamp,
        show: &mut dyn FnMut(&Key) -> ControlFlow<()>,
    ) -> Result<()> {
        // What most lists narrow by is asked of the indexes; the filter decides all the same.
        let wanted = match filter {
            Filter { identity: Some(_), .. } => "k.identity_id = ?3",
            _ => "?3 IS NULL",
        };
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM {KEY_TABLES}
             WHERE (k.state <> 'deleted' OR ?1) AND (?2 IS NULL OR k.account_id = ?2) AND {wanted}
             ORDER BY k.name, k.seq"
        );
        let with_deleted = filter.with_deleted || filter.status == Some(Status::Deleted);
        let mut statement = self.sql().prepare(&sql)?;
        let mut rows = statement.query((with_deleted, &caller.account, &filter.identity))?;
        while let Some(row) = rows.next()? {
            let key = key_from(row)?;
            if filter.shows(&key, caller, now) && show(&key).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The key that somebody means: by id, by its UUID, or by a name that only one live key has.
    /// What they may not see is not there.
    pub fn find_key(&self, name_or_id: &str, caller: &Caller) -> Result<Key> {
        let id = match name_or_id.strip_prefix("ApiKey-") {
            Some(_) => name_or_id.to_owned(),
            None => format!("ApiKey-{name_or_id}"),
        };
        let seen = |key: &Key| caller.may(Act::View, &key.whose()).is_ok();
        if let Some(key) = self.one_key("k.id = ?1", &id)?.filter(seen) {
            return Ok(key);
        }
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM {KEY_TABLES} WHERE k.name = ?1
             ORDER BY k.state = 'deleted', k.seq"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([name_or_id], key_from)?;
        let mut found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        found.retain(seen);
        let live = found.iter().filter(|key| key.state != State::Deleted).count();
        match found.as_slice() {
            [] => {
                let shown = crate::text::clean(name_or_id.as_bytes());
                Err(RegistryError::NotFound(format!("no key named `{shown}`; see `key list`")))
            }
            [key, ..] if found.len() == 1 || live == 1 => Ok(key.clone()),
            _ => {
                let ids: Vec<&str> = found.iter().map(|key| key.id.as_str()).collect();
                let ids = ids.join(", ");
                Err(RegistryError::Refused(format!(
                    "several keys have that name; give the id: {ids}"
                )))
            }
        }
    }

    /// Refuses what the caller may not do with a key.
    pub fn must(&self, caller: &Caller, act: Act, key: &Key) -> Result<()> {
        match caller.may(act, &key.whose()) {
            Ok(()) => Ok(()),
            Err(Denied::Unseen) => Err(RegistryError::NotFound(format!("no key {}", key.id))),
            Err(Denied::Forbidden | Denied::ForOthers | Denied::Restricted) => {
                let (actor, name, owner) = (&caller.actor, &key.name, &key.identity);
                let why = format!("{actor} may not {act} {name}, a key of {owner}");
                Err(RegistryError::Refused(why))
            }
        }
    }

    /// Notes that keys were found valid.
    pub fn count_uses(&self, ids: &[String], now: Timestamp) -> Result<()> {
        let mut statement = self.sql().prepare_cached(
            "UPDATE keys SET use_count = use_count + 1, last_used_at = max(?2,
                 coalesce(last_used_at, ?2)) WHERE id = ?1",
        )?;
        for id in ids {
            statement.execute((id, to_millis(now)))?;
        }
        Ok(())
    }
}
