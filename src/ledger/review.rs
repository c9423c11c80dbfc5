//! Incidents with everything that belongs to them, for those who read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::Row;

use super::from_stored;
use crate::clock::from_millis;
use crate::incident::{ActionKind, ActionState, NoticeKind, Role};
use crate::registry::access::{Act, Caller};
use crate::registry::key::Key;
use crate::registry::{RegistryError, Result, Tx};
use crate::secret::Digest;

/// An incident.
#[derive(Clone, Debug)]
pub struct Incident {
    /// Its number.
    pub id: i64,
    /// Its key.
    pub key: Key,
    /// Whether somebody still has to look at it.
    pub open: bool,
    /// Opened while only observing.
    pub observed: bool,
    /// First sighting.
    pub first_seen: Timestamp,
    /// Last sighting.
    pub last_seen: Timestamp,
    /// Sightings.
    pub count: u64,
    /// How it was resolved.
    pub resolution: Option<String>,
    /// Its actions.
    pub actions: Vec<ActionRow>,
    /// Its notices.
    pub notices: Vec<NoticeRow>,
    /// Its places, first seen first.
    pub sightings: Vec<SightingRow>,
    /// What happened.
    pub timeline: Vec<TimelineRow>,
}

/// An action of an incident.
#[derive(Clone, Debug)]
pub struct ActionRow {
    /// What.
    pub kind: ActionKind,
    /// Where it is.
    pub state: ActionState,
    /// Why held or failed, or the outcome.
    pub why: String,
    /// Not before.
    pub due_at: Timestamp,
    /// Done or failed.
    pub finished_at: Option<Timestamp>,
}

/// A notice of an incident.
#[derive(Clone, Debug)]
pub struct NoticeRow {
    /// About what.
    pub kind: NoticeKind,
    /// Mail address.
    pub recipient: String,
    /// Why they.
    pub role: Role,
    /// due, sent, failed.
    pub state: String,
    /// Last error.
    pub why: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Sent or given up.
    pub finished_at: Option<Timestamp>,
}

/// A place of an incident.
#[derive(Clone, Debug)]
pub struct SightingRow {
    /// The word of the source's kind.
    pub source: String,
    /// Cleaned and redacted.
    pub path: String,
    /// Counted from 1.
    pub line: u64,
    /// Counted from 1.
    pub column: u64,
    /// Name of the host.
    pub host: String,
    /// In git: the commit that brought it.
    pub commit: Option<String>,
    /// When.
    pub seen_at: Timestamp,
}

impl SightingRow {
    /// From source, path, line, column, host, commit and time.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            path: row.get(1)?,
            line: from_stored(row.get(2)?),
            column: from_stored(row.get(3)?),
            host: row.get(4)?,
            commit: row.get(5)?,
            seen_at: from_millis(row.get(6)?),
        })
    }

    /// Where, in words: `src/a.txt:3 (blob on web1, commit 0123456789ab)`. `place`: line, or line and
    /// column.
    #[must_use]
    pub fn described(&self, place: &str) -> String {
        let Self { path, source, host, .. } = self;
        let commit = self.commit.as_ref().and_then(|commit| commit.get(..COMMIT_SHOWN));
        let commit = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
        format!("{path}:{place} ({source} on {host}{commit})")
    }
}

/// Characters of a commit's name that are shown to people.
const COMMIT_SHOWN: usize = 12;

/// A line of an incident's timeline.
#[derive(Clone, Debug)]
pub struct TimelineRow {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub what: String,
}

impl Tx<'_> {
    /// Numbers of the incidents that somebody may see, newest first; resolved ones only when asked
    /// for.
    pub fn incident_ids(&self, with_resolved: bool, caller: &Caller) -> Result<Vec<i64>> {
        let mut statement = self.sql().prepare(
            "SELECT id, key_id FROM incidents WHERE state = 'open' OR ?1 ORDER BY id DESC",
        )?;
        let rows = statement.query_map([with_resolved], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut seen = Vec::new();
        for (id, key) in rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()? {
            let everything = caller.is_operator() && caller.account.is_none();
            if everything || caller.may(Act::View, &self.key(&key)?.whose()).is_ok() {
                seen.push(id);
            }
        }
        Ok(seen)
    }

    /// An incident with everything that belongs to it.
    pub fn incident(&self, id: i64) -> Result<Incident> {
        let key = self.key(&self.incident_key(id)?)?;
        let sql = "SELECT state = 'open', observed, first_seen, last_seen, count, resolution
             FROM incidents WHERE id = ?1";
        let mut incident = self.sql().prepare_cached(sql)?.query_row([id], |row| {
            Ok(Incident {
                id,
                key,
                open: row.get(0)?,
                observed: row.get(1)?,
                first_seen: from_millis(row.get(2)?),
                last_seen: from_millis(row.get(3)?),
                count: row.get::<_, i64>(4)?.unsigned_abs(),
                resolution: row.get(5)?,
                actions: Vec::new(),
                notices: Vec::new(),
                sightings: Vec::new(),
                timeline: Vec::new(),
            })
        })?;
        incident.actions = self.action_rows(id)?;
        incident.notices = self.notice_rows(id)?;
        incident.sightings = self.sighting_rows(id)?;
        incident.timeline = self.timeline_rows(id)?;
        Ok(incident)
    }

    /// Open incidents of keys, by their digests: each once, oldest first.
    pub fn incidents_of(&self, digests: &[Digest]) -> Result<Vec<Incident>> {
        let mut ids = BTreeSet::new();
        for digest in digests {
            if let Some(key) = self.key_by_digest(digest)? {
                ids.extend(self.open_incident(&key)?);
            }
        }
        ids.into_iter().map(|id| self.incident(id)).collect()
    }

    /// The incident a user means: `7` or `leak-7`. Those of keys that they may not see are not
    /// there.
    pub fn find_incident(&self, text: &str, caller: &Caller) -> Result<i64> {
        let id = text.strip_prefix("leak-").unwrap_or(text).parse().map_err(|_| {
            let shown = crate::text::clean(text.as_bytes());
            RegistryError::NotFound(format!("`{shown}` is no incident; see `leak list --all`"))
        })?;
        let key = self.key(&self.incident_key(id)?)?;
        caller.may(Act::View, &key.whose()).map_err(|_| {
            RegistryError::NotFound(format!("no incident {id}; see `leak list --all`"))
        })?;
        Ok(id)
    }

    fn action_rows(&self, id: i64) -> Result<Vec<ActionRow>> {
        let mut statement = self.sql().prepare_cached(
            "SELECT kind, state, why, due_at, finished_at FROM actions WHERE incident_id = ?1
             ORDER BY id",
        )?;
        let rows = statement.query_map([id], |row| {
            Ok(ActionRow {
                kind: row.get(0)?,
                state: row.get(1)?,
                why: row.get(2)?,
                due_at: from_millis(row.get(3)?),
                finished_at: row.get::<_, Option<i64>>(4)?.map(from_millis),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn notice_rows(&self, id: i64) -> Result<Vec<NoticeRow>> {
        let mut statement = self.sql().prepare_cached(
            "SELECT kind, recipient, role, state, why, attempts, finished_at FROM notices
             WHERE incident_id = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([id], |row| {
            Ok(NoticeRow {
                kind: row.get(0)?,
                recipient: row.get(1)?,
                role: row.get(2)?,
                state: row.get(3)?,
                why: row.get(4)?,
                attempts: row.get(5)?,
                finished_at: row.get::<_, Option<i64>>(6)?.map(from_millis),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn sighting_rows(&self, id: i64) -> Result<Vec<SightingRow>> {
        let mut statement = self.sql().prepare_cached(
            "SELECT source, path, line, \"column\", host, \"commit\", seen_at FROM sightings
             WHERE incident_id = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([id], SightingRow::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn timeline_rows(&self, id: i64) -> Result<Vec<TimelineRow>> {
        let mut statement = self
            .sql()
            .prepare_cached("SELECT at, what FROM timeline WHERE incident_id = ?1 ORDER BY id")?;
        let rows = statement.query_map([id], |row| {
            Ok(TimelineRow { at: from_millis(row.get(0)?), what: row.get(1)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
