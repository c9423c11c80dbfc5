//! What is remembered: sightings, incidents, the outbox of actions and notices, offsets.
//!
//! Invariant: what one sighting leads to (incident, actions, notices, timeline) and the offset of
//! the stream it was found in are written in one transaction. The offset never goes first.

mod homes;
mod outbox;
mod remembered;
pub mod reread;
mod resolve;
mod review;
mod totals;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use crate::clock::to_millis;
use crate::incident::{self, Decision, NoticeKind, Place, Policy, Role, Usage};
use crate::registry::key::{Key, Status};
use crate::registry::{Registry, Result, Tx};
use crate::secret::{Digest, identity_hash};
use crate::source::follow::Followed;
use crate::source::{Head, PathId, Position, Stat};

pub use homes::Homes;
use homes::Known;
pub use outbox::{DueAction, DueNotice, NoticeOutcome};
pub use remembered::{Memory, SeenAt, Suggestion, keep_config, keep_policy, kept};
pub use review::{ActionRow, Incident, NoticeRow, SightingRow, TimelineRow};
pub use totals::{Total, totals};

/// One place where one key was seen.
#[derive(Debug)]
pub struct Sighting {
    /// Digest of what was seen.
    pub digest: Digest,
    /// Whether its check digits are right: such a candidate is remembered longest.
    pub checked: bool,
    /// The word of the source's kind.
    pub source: String,
    /// Identity of the stream.
    pub stream: String,
    /// Where, for the machine: matched with homes.
    pub place: PathBuf,
    /// The same where links lead, if that was asked for; a home by either name is a home.
    pub real: Option<PathBuf>,
    /// What identifies the stream too, where it has another name.
    pub other_stream: Option<String>,
    /// Where, for people: cleaned and redacted.
    pub path: String,
    /// In git: the commit that brought it.
    pub commit: Option<String>,
    /// Counted from 1.
    pub line: u64,
    /// In bytes, counted from 1.
    pub column: u64,
    /// Bytes from the start of the stream.
    pub offset: u64,
    /// Name of the host.
    pub host: String,
    /// When it was read.
    pub seen_at: Timestamp,
    /// Whether everybody on the host can read the file.
    pub world_readable: bool,
    /// Whether it was read before, when nobody owned it.
    pub again: bool,
}

/// How far a file of a watch is read.
#[derive(Clone, Debug)]
pub struct Offset {
    /// Name of the watch.
    pub watch: String,
    /// The file.
    pub file: PathId,
    /// What is remembered; `None`: forget it.
    pub followed: Option<Followed>,
}

/// Places of one incident that are kept; more are counted. A log may repeat one key for ever.
const SIGHTINGS_MAX: i64 = 1_000;

/// What a batch led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// New incidents.
    pub opened: u64,
    /// New places of open incidents.
    pub added: u64,
}

/// The settings that recording depends on.
#[derive(Debug)]
pub struct Options {
    /// How the installation responds.
    pub policy: Policy,
    /// Places where keys are meant to be, beside those of each key.
    pub homes: Homes,
}

/// What one transaction follows: the policy, and the homes by their names now.
type Terms<'a> = (&'a Policy, &'a Known);

/// What is written in one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// In the order in which they were seen.
    pub sightings: &'a [Sighting],
    /// How far was read with them.
    pub offsets: &'a [Offset],
    /// Watches that are ready for the first time.
    pub ready: &'a [String],
    /// Candidates that nobody owned, and that were too many to be remembered.
    pub forgotten: u64,
}

/// Records sightings and offsets in one transaction.
pub fn record(
    registry: &mut Registry,
    batch: &Batch<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<Recorded> {
    let homes = options.homes.now();
    registry.write(|tx| tx.record(batch, (&options.policy, &homes), now))
}

/// The same for who is not the daemon: where there was one, its policy counts, which may have changed.
pub fn record_beside(
    registry: &mut Registry,
    batch: &Batch<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<Recorded> {
    let homes = options.homes.now();
    registry.write(|tx| {
        let policy = tx.policy()?.unwrap_or(options.policy);
        tx.record(batch, (&policy, &homes), now)
    })
}

/// What earlier runs of a watch have read.
pub fn offsets(registry: &mut Registry, watch: &str) -> Result<HashMap<PathId, Followed>> {
    registry.read(|tx| tx.offsets(watch))
}

/// Whether a watch of that name was never ready before.
pub fn first_start(registry: &mut Registry, watch: &str) -> Result<bool> {
    registry.read(|tx| {
        let sql = "SELECT 1 FROM watches WHERE name = ?1";
        Ok(tx.sql().query_row(sql, [watch], |_| Ok(())).optional()?.is_none())
    })
}

impl Tx<'_> {
    fn record(&self, batch: &Batch<'_>, terms: Terms<'_>, now: Timestamp) -> Result<Recorded> {
        let mut recorded = Recorded::default();
        for sighting in batch.sightings {
            self.record_sighting(sighting, terms, &mut recorded, now)?;
        }
        for offset in batch.offsets {
            self.record_offset(offset)?;
        }
        for watch in batch.ready {
            let sql = "INSERT OR IGNORE INTO watches (name, started_at) VALUES (?1, ?2)";
            self.sql().execute(sql, (watch, to_millis(now)))?;
        }
        self.bound_memory(batch.forgotten)?;
        Ok(recorded)
    }

    fn record_sighting(
        &self,
        sighting: &Sighting,
        terms: Terms<'_>,
        recorded: &mut Recorded,
        now: Timestamp,
    ) -> Result<()> {
        let Some(key) = self.key_by_digest(&sighting.digest)? else {
            return self.remember(sighting, terms.1);
        };
        let hold = remembered::hold(&key).filter(|_| sighting.again);
        let (opened, added) = self.raise(&key, sighting, terms, hold, now)?;
        recorded.opened += opened;
        recorded.added += added;
        Ok(())
    }

    /// Takes in one place where a key was seen; answers how many incidents were opened, or became
    /// more than they were, and how many places were added. `hold`: why nothing is done at once.
    fn raise(
        &self,
        key: &Key,
        sighting: &Sighting,
        (policy, homes): Terms<'_>,
        hold: Option<&str>,
        now: Timestamp,
    ) -> Result<(u64, u64)> {
        // By the key's id: its digest changes with the pepper. Older rows have that one.
        let identity = sighting.identity(&sighting.stream, key.id.as_bytes());
        let older = sighting.identity(&sighting.stream, sighting.digest.as_bytes());
        let other = sighting.other_stream.as_deref();
        let other = other.map(|stream| sighting.identity(stream, key.id.as_bytes()));
        if self.seen_before((&identity, &older, other.as_ref()))? {
            return Ok((0, 0));
        }
        let place = homes.place_of(key, sighting);
        if place == Place::Home {
            return Ok((0, 0));
        }
        // What the brake counts is asked for only where something may follow.
        let decided = || -> Result<Decision> {
            let usage = self.usage(key, sighting, policy, now)?;
            let decision = incident::decide(key, place, policy, usage, now);
            Ok(match hold {
                Some(why) => decision.hold(why),
                None => decision,
            })
        };
        if let Some(incident) = self.open_incident(key)? {
            self.add_sighting(incident, &identity, sighting)?;
            let escalated = match place == Place::Leak && self.is_held_at_home(incident)? {
                true => self.escalate(incident, key, &decided()?, now)?,
                false => 0,
            };
            return Ok((escalated, 1));
        }
        let decision = decided()?;
        if !decision.opens {
            return Ok((0, 0));
        }
        let incident = self.open(key, &decision, policy, now)?;
        self.add_sighting(incident, &identity, sighting)?;
        Ok((1, 0))
    }

    fn seen_before(&self, identities: (&[u8; 32], &[u8; 32], Option<&[u8; 32]>)) -> Result<bool> {
        let sql = "SELECT 1 FROM sightings WHERE identity IN (?1, ?2, ?3)";
        let mut statement = self.sql().prepare_cached(sql)?;
        Ok(statement.query_row(identities, |_| Ok(())).optional()?.is_some())
    }

    fn open_incident(&self, key: &Key) -> Result<Option<i64>> {
        let sql = "SELECT id FROM incidents WHERE key_id = ?1 AND state = 'open'";
        Ok(self.sql().prepare_cached(sql)?.query_row([&key.id], |row| row.get(0)).optional()?)
    }

    fn open(&self, key: &Key, decision: &Decision, policy: &Policy, now: Timestamp) -> Result<i64> {
        let at = to_millis(now);
        self.sql().execute(
            "INSERT INTO incidents (key_id, state, observed, first_seen, last_seen)
             VALUES (?1, 'open', ?2, ?3, ?3)",
            (&key.id, policy.mode == incident::Mode::Observe, at),
        )?;
        let incident = self.sql().last_insert_rowid();
        self.note_leak(key, now)?;
        self.note(incident, &format!("opened: {}", decision.because), now)?;
        for action in &decision.actions {
            self.sql().execute(
                "INSERT INTO actions (incident_id, kind, state, why, due_at, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (incident, action.kind, action.state, &action.why, to_millis(action.due_at), at),
            )?;
        }
        for (role, kind) in &decision.notices {
            // A wave is one urgent notice, not one for each key that it holds.
            if decision.braked && self.told_of_brake(policy, now)? {
                self.note(incident, "admins were told of the brake already", now)?;
            } else {
                self.add_notices(incident, key, *role, *kind, now)?;
            }
        }
        Ok(incident)
    }

    fn is_held_at_home(&self, incident: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM actions WHERE incident_id = ?1 AND state = 'held' AND why LIKE ?2";
        let mut statement = self.sql().prepare_cached(sql)?;
        let held = statement.query_row((incident, held_at_home()), |_| Ok(()));
        Ok(held.optional()?.is_some())
    }

    /// A key that was held because it was seen at home only has leaked after all.
    fn escalate(
        &self,
        incident: i64,
        key: &Key,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<u64> {
        let mut changed = 0;
        for action in &decision.actions {
            changed += self.sql().execute(
                "UPDATE actions SET state = ?3, why = ?4, due_at = ?5, created_at = ?6
                 WHERE incident_id = ?1 AND kind = ?2 AND state = 'held' AND why LIKE ?7",
                rusqlite::params![
                    incident,
                    action.kind,
                    action.state,
                    action.why,
                    to_millis(action.due_at),
                    to_millis(now),
                    held_at_home(),
                ],
            )?;
        }
        if changed > 0 {
            self.note(incident, &format!("seen elsewhere: {}", decision.because), now)?;
            for (role, kind) in &decision.notices {
                self.add_notices(incident, key, *role, *kind, now)?;
            }
        }
        Ok(u64::from(changed > 0))
    }

    fn told_of_brake(&self, policy: &Policy, now: Timestamp) -> Result<bool> {
        let since = to_millis(now.checked_sub(policy.brake.window).unwrap_or(Timestamp::MIN));
        let sql = "SELECT 1 FROM notices n WHERE n.kind = 'held' AND n.created_at > ?1
             AND EXISTS (SELECT 1 FROM actions a
                 WHERE a.incident_id = n.incident_id AND a.why LIKE 'brake%')";
        Ok(self.sql().query_row(sql, [since], |_| Ok(())).optional()?.is_some())
    }

    /// One notice for each recipient of the role; whoever is told already is not told twice.
    fn add_notices(
        &self,
        incident: i64,
        key: &Key,
        role: Role,
        kind: NoticeKind,
        now: Timestamp,
    ) -> Result<()> {
        let recipients = match role {
            Role::Owner => key.contact.clone().into_iter().collect(),
            Role::Admin => self.admins(&key.account_id)?,
        };
        if recipients.is_empty() {
            self.note(incident, &format!("nobody to tell as {role}: no mail address"), now)?;
        }
        for recipient in recipients {
            let message_id = format!("{}.{kind}@leakwarden", uuid::Uuid::new_v4());
            self.sql().execute(
                "INSERT OR IGNORE INTO notices
                     (incident_id, kind, recipient, role, message_id, state, due_at, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'due', ?6, ?6)",
                (incident, kind, recipient, role, message_id, to_millis(now)),
            )?;
        }
        Ok(())
    }

    fn add_sighting(&self, incident: i64, identity: &[u8; 32], sighting: &Sighting) -> Result<()> {
        let seen_at = to_millis(sighting.seen_at);
        let sql = "SELECT count FROM incidents WHERE id = ?1";
        let count: i64 = self.sql().prepare_cached(sql)?.query_row([incident], |row| row.get(0))?;
        if count < SIGHTINGS_MAX {
            self.keep_sighting(incident, identity, sighting)?;
        }
        self.sql()
            .prepare_cached(
                "UPDATE incidents SET count = count + 1, last_seen = max(last_seen, ?2)
                 WHERE id = ?1",
            )?
            .execute((incident, seen_at))?;
        Ok(())
    }

    fn keep_sighting(&self, incident: i64, identity: &[u8; 32], sighting: &Sighting) -> Result<()> {
        self.sql()
            .prepare_cached(
                "INSERT INTO sightings (identity, incident_id, source, stream, path, line,
                     \"column\", host, seen_at, \"commit\")
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(rusqlite::params![
                identity,
                incident,
                sighting.source,
                sighting.stream,
                sighting.path,
                as_stored(sighting.line),
                as_stored(sighting.column),
                sighting.host,
                to_millis(sighting.seen_at),
                sighting.commit,
            ])?;
        Ok(())
    }

    /// How much of the brake is used up within the window.
    fn usage(
        &self,
        key: &Key,
        sighting: &Sighting,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Usage> {
        let window = policy.brake.window;
        let since = to_millis(now.checked_sub(window).unwrap_or(Timestamp::MIN));
        let count = |sql: &str, value: &str| -> Result<u32> {
            let mut statement = self.sql().prepare_cached(sql)?;
            Ok(statement.query_row((value, since), |row| row.get(0))?)
        };
        let acted = "SELECT count(DISTINCT a.incident_id) FROM actions a
             JOIN incidents n ON n.id = a.incident_id JOIN keys k ON k.id = n.key_id
             WHERE a.state IN ('due', 'done') AND a.created_at > ?2";
        Ok(Usage {
            installation: count(&format!("{acted} AND ?1 <> ''"), "*")?,
            owner: count(&format!("{acted} AND k.identity_id = ?1"), &key.identity_id)?,
            source: match key.status(now) {
                Status::Active => count(
                    // Keys that were valid when they were seen: there was something to do about
                    // them, or their owners want nothing done.
                    // More than holds the source need not be counted.
                    &format!(
                        "SELECT count(*) FROM (SELECT DISTINCT n.key_id FROM sightings s
                         JOIN incidents n ON n.id = s.incident_id JOIN keys k ON k.id = n.key_id
                         WHERE s.stream = ?1 AND s.seen_at > ?2 AND (k.leak_action = 'none'
                           OR EXISTS (SELECT 1 FROM actions a WHERE a.incident_id = n.id))
                         LIMIT {})",
                        policy.brake.per_source
                    ),
                    &sighting.stream,
                )?,
                _ => 0,
            },
        })
    }

    /// Adds a line to the timeline of an incident.
    pub(crate) fn note(&self, incident: i64, what: &str, now: Timestamp) -> Result<()> {
        self.sql()
            .prepare_cached("INSERT INTO timeline (incident_id, at, what) VALUES (?1, ?2, ?3)")?
            .execute((incident, to_millis(now), what))?;
        Ok(())
    }

    fn record_offset(&self, offset: &Offset) -> Result<()> {
        let Some(Followed { stream, stat, position, head }) = &offset.followed else {
            self.sql()
                .prepare_cached("DELETE FROM streams WHERE watch = ?1 AND file = ?2")?
                .execute((&offset.watch, offset.file))?;
            return Ok(());
        };
        self.sql()
            .prepare_cached(
                "INSERT OR REPLACE INTO streams (watch, file, stream, dev, ino, size, changed_ns,
                     world_readable, position, lines, marker, head_length, head, summed, sum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(rusqlite::params![
                offset.watch,
                offset.file,
                stream,
                as_stored(stat.dev),
                as_stored(stat.ino),
                as_stored(stat.size),
                stat.changed_ns,
                stat.world_readable,
                as_stored(position.offset),
                as_stored(position.lines),
                position.marker,
                head.length,
                head.hash,
                as_stored(head.summed),
                head.sum,
            ])?;
        Ok(())
    }

    fn offsets(&self, watch: &str) -> Result<HashMap<PathId, Followed>> {
        let mut statement = self.sql().prepare(
            "SELECT file, stream, dev, ino, size, changed_ns, world_readable, position, lines,
                 marker, head_length, head, summed, sum FROM streams WHERE watch = ?1",
        )?;
        let rows = statement.query_map([watch], |row| {
            let number = |index| row.get::<_, i64>(index).map(from_stored);
            let stat = Stat {
                dev: number(2)?,
                ino: number(3)?,
                size: number(4)?,
                changed_ns: row.get(5)?,
                world_readable: row.get(6)?,
            };
            let position = Position { offset: number(7)?, lines: number(8)?, marker: row.get(9)? };
            let (length, hash) = (row.get(10)?, row.get(11)?);
            let head = Head { length, hash, summed: number(12)?, sum: row.get(13)? };
            Ok((row.get(0)?, Followed { stream: row.get(1)?, stat, position, head }))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// How long an action may be on its way before notices go out without its outcome.
pub const OUTCOME_WAIT: Duration = Duration::from_secs(30);

impl Sighting {
    /// What tells one sighting from another: the place, and what was seen there.
    fn identity(&self, stream: &str, what: &[u8]) -> [u8; 32] {
        let host = self.host.as_bytes();
        identity_hash(&[host, stream.as_bytes(), &self.offset.to_le_bytes(), what])
    }
}

/// Why an action is held, as a pattern of SQL: the key was seen at home only.
fn held_at_home() -> String {
    format!("{}%", incident::AT_HOME)
}

fn as_stored(number: u64) -> i64 {
    i64::from_le_bytes(number.to_le_bytes())
}

fn from_stored(number: i64) -> u64 {
    u64::from_le_bytes(number.to_le_bytes())
}
