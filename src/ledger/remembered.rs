//! Candidates that nobody owned when they were seen: remembered by their keyed digests, so that a
//! key that is registered later raises its incident at once.
//!
//! Bounded: of too many the oldest are forgotten, and counted; those with right check digits go last.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Row;

use super::homes::Known;
use super::{Sighting, SightingRow, as_stored, from_stored};
use crate::clock::{from_millis, to_millis};
use crate::incident::{Brake, LockedPolicy, Mode, Policy};
use crate::registry::access::{Act, Caller};
use crate::registry::key::{Arrival, Key};
use crate::registry::{Added, Registry, Result, Tx};
use crate::secret::Digest;
use crate::source::Kind;

/// Places that are remembered at once, of all candidates together.
const REMEMBERED_MAX: i64 = 100_000;
/// Places that are shown or raised of one candidate.
const PLACES_MAX: u32 = 100;
/// Under these names the policy of the last daemon is kept, and where its configuration stands.
const POLICY: &str = "policy";
const CONFIG: &str = "config";

/// Nothing is acted upon.
const OBSERVING: Policy = Policy {
    mode: Mode::Observe,
    brake: Brake::DEFAULT,
    delete_grace: Duration::ZERO,
    locked: LockedPolicy::Disable,
};

/// One place where something was seen.
#[derive(Clone, Debug)]
pub struct SeenAt {
    /// Where and when.
    pub place: SightingRow,
    /// Its incident; `None`: nobody owned it then.
    pub incident: Option<i64>,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Places that are remembered now.
    pub kept: u64,
    /// Places that had to be forgotten.
    pub evicted: u64,
}

/// A file in which a key was seen: perhaps its home.
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// Name of the key.
    pub key: String,
    /// Its id.
    pub key_id: String,
    /// The file.
    pub path: String,
    /// Name of the host.
    pub host: String,
    /// How often it was seen there.
    pub count: u64,
    /// The incident.
    pub incident: i64,
}

/// Keeps the policy of the daemon: what is found out beside it follows the same one.
pub fn keep_policy(registry: &mut Registry, policy: &Policy) -> Result<()> {
    keep(registry, POLICY, &serde_json::to_vec(policy).unwrap_or_default())
}

/// Keeps which configuration the daemon has, for a scan that responds.
pub fn keep_config(registry: &mut Registry, file: &Path) -> Result<()> {
    keep(registry, CONFIG, file.as_os_str().as_bytes())
}

fn keep(registry: &mut Registry, name: &str, text: &[u8]) -> Result<()> {
    registry.write(|tx| match tx.setting(name)? {
        Some(kept) if kept == text => Ok(()),
        _ => tx.set_setting(name, text),
    })
}

/// The policy and the configuration file of the last daemon, if there was one.
pub fn kept(registry: &mut Registry) -> Result<(Option<Policy>, Option<PathBuf>)> {
    registry.read(|tx| {
        let file = tx.setting(CONFIG)?.map(|path| PathBuf::from(OsString::from_vec(path)));
        Ok((tx.policy()?, file))
    })
}

impl Tx<'_> {
    /// The policy of the last daemon, if there was one. By one that cannot be read nothing is acted upon.
    pub(super) fn policy(&self) -> Result<Option<Policy>> {
        let kept = self.setting(POLICY)?;
        Ok(kept.map(|text| serde_json::from_slice(&text).unwrap_or(OBSERVING)))
    }

    /// The same; before there was a daemon, nothing is acted upon.
    fn kept_policy(&self) -> Result<Policy> {
        Ok(self.policy()?.unwrap_or(OBSERVING))
    }

    /// Remembers a candidate that nobody owns.
    pub(super) fn remember(&self, sighting: &Sighting, homes: &Known) -> Result<()> {
        if homes.hold(sighting) {
            return Ok(());
        }
        self.sql()
            .prepare_cached(
                "INSERT OR IGNORE INTO remembered (identity, digest, checked, source, stream, path,
                     line, \"column\", offset, host, seen_at, world_readable, \"commit\")
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(rusqlite::params![
                sighting.identity(&sighting.stream, sighting.digest.as_bytes()),
                sighting.digest.as_bytes(),
                sighting.checked,
                sighting.source,
                sighting.stream,
                sighting.path,
                as_stored(sighting.line),
                as_stored(sighting.column),
                as_stored(sighting.offset),
                sighting.host,
                to_millis(sighting.seen_at),
                sighting.world_readable,
                sighting.commit,
            ])?;
        Ok(())
    }

    /// Forgets what is too much, and counts it with what was `forgotten` before it came here.
    pub(super) fn bound_memory(&self, forgotten: u64) -> Result<()> {
        let kept = i64::try_from(self.memory()?.kept).unwrap_or(i64::MAX);
        let over = kept.saturating_sub(REMEMBERED_MAX).max(0);
        if over > 0 {
            self.sql().execute(
                "DELETE FROM remembered WHERE id IN
                     (SELECT id FROM remembered ORDER BY checked, id LIMIT ?1)",
                [over],
            )?;
        }
        let evicted = as_stored(forgotten).saturating_add(over);
        if evicted > 0 {
            self.sql().execute("UPDATE memory SET evicted = evicted + ?1", [evicted])?;
        }
        Ok(())
    }

    /// How much is remembered.
    pub fn memory(&self) -> Result<Memory> {
        let sql = "SELECT kept, evicted FROM memory";
        Ok(self.sql().prepare_cached(sql)?.query_row([], |row| {
            Ok(Memory {
                kept: row.get::<_, i64>(0)?.unsigned_abs(),
                evicted: row.get::<_, i64>(1)?.unsigned_abs(),
            })
        })?)
    }

    /// A key came into the registry: where it was seen before, when nobody owned it, becomes its
    /// incident; answers whether there is one now. After an import that is held.
    pub fn raise_remembered(&self, added: &Added, now: Timestamp) -> Result<bool> {
        let digest = &added.digest;
        // A limit that is bound has SQLite plan the query anew for each key of an import.
        let sql = format!(
            "SELECT checked, source, stream, path, line, \"column\", offset, host, seen_at,
             world_readable, \"commit\" FROM remembered WHERE digest = ?1 ORDER BY id LIMIT {PLACES_MAX}"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([digest.as_bytes()], |row| sighting_from(row, *digest))?;
        let seen = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        if seen.is_empty() {
            return Ok(false);
        }
        let key = &self.key(&added.id)?;
        // What was seen at homes of the configuration was never remembered.
        let (policy, homes) = (self.kept_policy()?, Known::default());
        let mut opened = 0;
        for sighting in &seen {
            opened += self.raise(key, sighting, (&policy, &homes), hold(key), now)?.0;
        }
        let sql = "DELETE FROM remembered WHERE digest = ?1";
        self.sql().prepare_cached(sql)?.execute([digest.as_bytes()])?;
        Ok(opened > 0)
    }

    /// Where something was seen, as a key's or before it was anybody's; newest first.
    pub fn places_of(&self, key: Option<&Key>, digest: &Digest) -> Result<Vec<SeenAt>> {
        let mut places = Vec::new();
        if let Some(key) = key {
            let mut statement = self.sql().prepare(
                "SELECT s.source, s.path, s.line, s.\"column\", s.host, s.\"commit\", s.seen_at,
                     s.incident_id FROM sightings s JOIN incidents n ON n.id = s.incident_id
                 WHERE n.key_id = ?1 ORDER BY s.id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map((&key.id, PLACES_MAX), seen_at)?;
            places.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        let mut statement = self.sql().prepare(
            "SELECT source, path, line, \"column\", host, \"commit\", seen_at, NULL
             FROM remembered WHERE digest = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let rows = statement.query_map((digest.as_bytes(), PLACES_MAX), seen_at)?;
        places.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        Ok(places)
    }

    /// Files in which keys were seen, of open incidents.
    pub fn home_suggestions(&self, key: Option<&Key>, caller: &Caller) -> Result<Vec<Suggestion>> {
        let mut statement = self.sql().prepare(
            "SELECT k.name, k.id, s.path, s.host, count(*), n.id FROM sightings s
             JOIN incidents n ON n.id = s.incident_id JOIN keys k ON k.id = n.key_id
             WHERE n.state = 'open' AND s.source = 'file' AND (?1 IS NULL OR k.id = ?1)
             GROUP BY k.id, s.path, s.host ORDER BY k.name, k.id, s.path",
        )?;
        let rows = statement.query_map([key.map(|key| &key.id)], |row| {
            Ok(Suggestion {
                key: row.get(0)?,
                key_id: row.get(1)?,
                path: row.get(2)?,
                host: row.get(3)?,
                count: row.get::<_, i64>(4)?.unsigned_abs(),
                incident: row.get(5)?,
            })
        })?;
        let mut seen = Vec::new();
        for suggestion in rows.collect::<rusqlite::Result<Vec<_>>>()? {
            if caller.may(Act::View, &self.key(&suggestion.key_id)?.whose()).is_ok() {
                seen.push(suggestion);
            }
        }
        Ok(seen)
    }
}

/// Why nothing is done at once about a key that was seen before it was known: a wrong line in a file
/// must not disable keys.
pub(super) fn hold(key: &Key) -> Option<&'static str> {
    (key.arrival == Arrival::Imported)
        .then_some("seen before an import made it known; nobody has looked at that import yet")
}

fn seen_at(row: &Row<'_>) -> rusqlite::Result<SeenAt> {
    Ok(SeenAt { place: SightingRow::from_row(row)?, incident: row.get(7)? })
}

fn sighting_from(row: &Row<'_>, digest: Digest) -> rusqlite::Result<Sighting> {
    let (source, path): (String, String) = (row.get(1)?, row.get(3)?);
    // A path that holds a key is stored redacted, and matches no home: it leaked all the same.
    let place = PathBuf::from(&path);
    let real = (source == Kind::File.as_str())
        .then(|| std::fs::canonicalize(&place).unwrap_or_else(|_| place.clone()));
    Ok(Sighting {
        digest,
        checked: row.get(0)?,
        source,
        stream: row.get(2)?,
        place,
        real,
        other_stream: None,
        path,
        commit: row.get(10)?,
        line: from_stored(row.get(4)?),
        column: from_stored(row.get(5)?),
        offset: from_stored(row.get(6)?),
        host: row.get(7)?,
        seen_at: from_millis(row.get(8)?),
        world_readable: row.get(9)?,
        again: true,
    })
}
