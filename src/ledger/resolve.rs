//! How leaks end: approved, resolved, overtaken.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use crate::clock::to_millis;
use crate::incident::{ActionState, NoticeKind, Role};
use crate::registry::access::{Act, Caller};
use crate::registry::audit::Entry;
use crate::registry::key::{Key, Status};
use crate::registry::{RegistryError, Result, Tx};

impl Tx<'_> {
    /// Releases what is held; answers how many actions became due. Owner and admins are told.
    pub fn approve(
        &self,
        incident: i64,
        caller: &Caller,
        reason: &str,
        now: Timestamp,
    ) -> Result<u64> {
        caller.must_administer("approve held actions")?;
        let actor = &caller.actor;
        let key = self.key(&self.incident_key(incident)?)?;
        let released = self.sql().execute(
            "UPDATE actions SET state = 'due', approved = 1, why = '', due_at = max(due_at, ?2),
                 created_at = ?2
             WHERE incident_id = ?1 AND state = 'held'",
            (incident, to_millis(now)),
        )?;
        if released > 0 {
            self.note(incident, &format!("approved by {actor}: {reason}"), now)?;
            for role in [Role::Owner, Role::Admin] {
                self.add_notices(incident, &key, role, NoticeKind::Leak, now)?;
            }
            let target = incident.to_string();
            self.audit(&Entry {
                actor,
                action: "leak approve",
                target: &target,
                before: ActionState::Held.as_str(),
                after: ActionState::Due.as_str(),
                reason,
                ..Entry::at(now)
            })?;
        }
        Ok(released as u64)
    }

    /// When only observing: whatever was decided while acting waits for an approval.
    pub fn hold_unapproved(&self) -> Result<u64> {
        let held = self.sql().execute(
            "UPDATE actions SET state = 'held', why = 'observe mode'
             WHERE state = 'due' AND approved = 0",
            [],
        )?;
        Ok(held as u64)
    }

    /// Closes an incident, and stops what is still to be done about it.
    pub fn resolve(
        &self,
        incident: i64,
        resolution: &str,
        caller: &Caller,
        reason: &str,
        now: Timestamp,
    ) -> Result<()> {
        let actor = &caller.actor;
        let key = self.key(&self.incident_key(incident)?)?;
        self.must(caller, Act::Update, &key)?;
        if resolution == "rotated" && key.status(now) == Status::Active {
            return Err(RegistryError::Refused(format!(
                "{} is still valid, so it was not rotated; disable or delete it first",
                key.name
            )));
        }
        let changed = self.sql().execute(
            "UPDATE incidents SET state = 'resolved', resolved_at = ?2, resolution = ?3
             WHERE id = ?1 AND state = 'open'",
            (incident, to_millis(now), resolution),
        )?;
        if changed == 0 {
            return Err(RegistryError::Refused(format!("incident {incident} is resolved already")));
        }
        // A rotated key may still be deleted, when its grace is over, unless that is held.
        let all = resolution != "rotated";
        let stopped = self.sql().execute(
            "UPDATE actions SET state = 'failed', why = 'not done: the leak was resolved before',
                 finished_at = ?2
             WHERE incident_id = ?1 AND (state = 'held' OR (state = 'due' AND ?3))",
            (incident, to_millis(now), all),
        )?;
        // Nobody is told to see to a key about which there is nothing to do.
        self.sql().execute(
            "UPDATE notices SET state = 'failed', why = 'not sent: the leak was resolved before',
                 finished_at = ?2
             WHERE incident_id = ?1 AND state = 'due' AND ?3",
            (incident, to_millis(now), all),
        )?;
        self.note(incident, &format!("resolved as {resolution} by {actor}: {reason}"), now)?;
        if stopped > 0 {
            self.note(incident, "what was still to be done is not done", now)?;
        }
        let target = incident.to_string();
        self.audit(&Entry {
            actor,
            action: "leak resolve",
            target: &target,
            before: "open",
            after: resolution,
            reason,
            ..Entry::at(now)
        })
    }

    /// Somebody enabled a key on purpose: stops what is still to be done to it, and closes its
    /// incident, so that a new place is a new leak.
    pub fn close_enabled(&self, key: &Key, why: &str, now: Timestamp) -> Result<()> {
        let mut statement = self.sql().prepare(
            "UPDATE actions SET state = 'failed', why = ?2, finished_at = ?3
             WHERE state IN ('due', 'held')
               AND incident_id IN (SELECT id FROM incidents WHERE key_id = ?1)
             RETURNING incident_id",
        )?;
        let rows = statement.query_map((&key.id, why, to_millis(now)), |row| row.get(0))?;
        let incidents = rows.collect::<rusqlite::Result<std::collections::BTreeSet<i64>>>()?;
        incidents.into_iter().try_for_each(|incident| self.note(incident, why, now))?;
        self.sql().execute(
            "UPDATE incidents SET state = 'resolved', resolved_at = ?2, resolution = 'enabled'
             WHERE key_id = ?1 AND state = 'open'",
            (&key.id, to_millis(now)),
        )?;
        Ok(())
    }

    pub(super) fn incident_key(&self, incident: i64) -> Result<String> {
        let sql = "SELECT key_id FROM incidents WHERE id = ?1";
        self.sql().query_row(sql, [incident], |row| row.get(0)).optional()?.ok_or_else(|| {
            RegistryError::NotFound(format!("no incident {incident}; see `leak list --all`"))
        })
    }
}
