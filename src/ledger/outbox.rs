//! The outbox: what is due, and what became of it.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::OUTCOME_WAIT;
use crate::clock::{from_millis, to_millis};
use crate::incident::{ActionKind, NoticeKind, Role};
use crate::registry::{Result, Tx};

/// An action to be carried out now.
#[derive(Clone, Debug)]
pub struct DueAction {
    /// Its row.
    pub id: i64,
    /// Its incident.
    pub incident: i64,
    /// The key.
    pub key_id: String,
    /// What to do.
    pub kind: ActionKind,
    /// Attempts before this one.
    pub attempts: u32,
    /// Since when it could be done: the first sighting, or a later time that was waited for, by an
    /// approval or by a grace period.
    pub since: Timestamp,
}

/// A notice to be sent now.
#[derive(Clone, Debug)]
pub struct DueNotice {
    /// Its row.
    pub id: i64,
    /// Its incident.
    pub incident: i64,
    /// What it is about.
    pub kind: NoticeKind,
    /// Mail address.
    pub recipient: String,
    /// Why they are told.
    pub role: Role,
    /// The same in every attempt.
    pub message_id: String,
    /// Attempts before this one.
    pub attempts: u32,
    /// Attempts that may have delivered it.
    pub in_doubt: u32,
    /// When it was written.
    pub created_at: Timestamp,
}

/// What became of an attempt to send a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// The server took it.
    Sent,
    /// Surely not delivered; try again at that time.
    Retry {
        /// Why.
        why: String,
        /// When.
        at: Timestamp,
    },
    /// Perhaps delivered: the connection broke after the last byte.
    Unknown {
        /// Why.
        why: String,
        /// When to try again, if at all.
        at: Timestamp,
    },
    /// Will never be delivered.
    Failed {
        /// Why.
        why: String,
    },
}

/// A mail that may have been delivered twice is not sent again.
const IN_DOUBT_MAX: u32 = 2;

impl Tx<'_> {
    /// Actions that are due, oldest first; the deletion of a key waits for its disabling.
    pub fn due_actions(&self, now: Timestamp, limit: u32) -> Result<Vec<DueAction>> {
        let mut statement = self.sql().prepare_cached(
            "SELECT a.id, a.incident_id, n.key_id, a.kind, a.attempts,
                 CASE WHEN a.attempts = 0 AND a.due_at > a.created_at THEN a.due_at
                 ELSE coalesce((SELECT s.seen_at FROM sightings s
                     WHERE s.incident_id = n.id ORDER BY s.rowid LIMIT 1), a.created_at) END
             FROM actions a JOIN incidents n ON n.id = a.incident_id
             WHERE a.state = 'due' AND a.due_at <= ?1
               AND NOT (a.kind = 'delete' AND EXISTS (SELECT 1 FROM actions b
                   WHERE b.incident_id = a.incident_id AND b.kind = 'disable' AND b.state = 'due'))
             ORDER BY a.due_at, a.id LIMIT ?2",
        )?;
        let rows = statement.query_map((to_millis(now), limit), |row| {
            Ok(DueAction {
                id: row.get(0)?,
                incident: row.get(1)?,
                key_id: row.get(2)?,
                kind: row.get(3)?,
                attempts: row.get(4)?,
                since: from_millis(row.get(5)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether an action is still to be carried out: the leak may have been closed, or its key been
    /// enabled, since it was taken from the outbox.
    pub fn is_wanted(&self, action: &DueAction) -> Result<bool> {
        let sql = "SELECT 1 FROM actions WHERE id = ?1 AND state = 'due'";
        Ok(self.sql().prepare_cached(sql)?.query_row([action.id], |_| Ok(())).optional()?.is_some())
    }

    /// Records that an action took effect; once, however often it is told.
    pub fn action_done(&self, action: &DueAction, outcome: &str, now: Timestamp) -> Result<()> {
        if !self.finish_action(action, "done", outcome, now)? {
            return Ok(());
        }
        self.note(action.incident, &format!("{}: {outcome}", action.kind), now)
    }

    /// Records that an action cannot be carried out; admins are told.
    pub fn action_failed(&self, action: &DueAction, why: &str, now: Timestamp) -> Result<()> {
        if !self.finish_action(action, "failed", why, now)? {
            return Ok(());
        }
        self.note(action.incident, &format!("{} failed: {why}", action.kind), now)?;
        let key = self.key(&action.key_id)?;
        self.add_notices(action.incident, &key, Role::Admin, NoticeKind::Failed, now)
    }

    /// Puts an action off.
    pub fn action_retry(&self, action: &DueAction, why: &str, at: Timestamp) -> Result<()> {
        self.sql().execute(
            "UPDATE actions SET attempts = attempts + 1, why = ?2, due_at = ?3
             WHERE id = ?1 AND state = 'due'",
            (action.id, why, to_millis(at)),
        )?;
        Ok(())
    }

    /// `false`: it was not due any more.
    fn finish_action(
        &self,
        action: &DueAction,
        state: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let changed = self.sql().execute(
            "UPDATE actions SET state = ?2, why = ?3, attempts = attempts + 1, finished_at = ?4
             WHERE id = ?1 AND state = 'due'",
            (action.id, state, why, to_millis(now)),
        )?;
        Ok(changed > 0)
    }

    /// Notices that are due. One whose incident still has an action on its way waits for the
    /// outcome, but not for ever.
    pub fn due_notices(&self, now: Timestamp, limit: u32) -> Result<Vec<DueNotice>> {
        let mut statement = self.sql().prepare_cached(
            "SELECT id, incident_id, kind, recipient, role, message_id, attempts, in_doubt,
                 created_at FROM notices
             WHERE state = 'due' AND due_at <= ?1
               AND (created_at <= ?2 OR NOT EXISTS (SELECT 1 FROM actions a
                   WHERE a.incident_id = notices.incident_id AND a.state = 'due'
                     AND a.due_at <= ?1))
             ORDER BY due_at, id LIMIT ?3",
        )?;
        let patience = to_millis(now.checked_sub(OUTCOME_WAIT).unwrap_or(Timestamp::MIN));
        let rows = statement.query_map((to_millis(now), patience, limit), |row| {
            Ok(DueNotice {
                id: row.get(0)?,
                incident: row.get(1)?,
                kind: row.get(2)?,
                recipient: row.get(3)?,
                role: row.get(4)?,
                message_id: row.get(5)?,
                attempts: row.get(6)?,
                in_doubt: row.get(7)?,
                created_at: from_millis(row.get(8)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// To be committed before the last byte of a mail goes out: from here on it may have been
    /// delivered, whatever becomes of us.
    pub fn notice_in_doubt(&self, notice: &DueNotice) -> Result<()> {
        self.sql()
            .execute("UPDATE notices SET in_doubt = in_doubt + 1 WHERE id = ?1", [notice.id])?;
        Ok(())
    }

    /// Records what became of an attempt. `doubted`: whether [`Self::notice_in_doubt`] was called.
    pub fn notice_outcome(
        &self,
        notice: &DueNotice,
        outcome: &NoticeOutcome,
        doubted: bool,
        now: Timestamp,
    ) -> Result<()> {
        let certain = doubted && !matches!(outcome, NoticeOutcome::Unknown { .. });
        self.sql().execute(
            "UPDATE notices SET attempts = attempts + 1, in_doubt = in_doubt - ?2 WHERE id = ?1",
            (notice.id, certain),
        )?;
        match outcome {
            NoticeOutcome::Sent => self.finish_notice(notice, "sent", "", now),
            NoticeOutcome::Failed { why } => self.finish_notice(notice, "failed", why, now),
            NoticeOutcome::Retry { why, at } => self.put_off(notice, why, *at),
            NoticeOutcome::Unknown { why, at } => {
                let in_doubt: u32 = self.sql().query_row(
                    "SELECT in_doubt FROM notices WHERE id = ?1",
                    [notice.id],
                    |row| row.get(0),
                )?;
                if in_doubt >= IN_DOUBT_MAX {
                    return self.give_up_in_doubt(notice, now);
                }
                self.put_off(notice, why, *at)
            }
        }
    }

    /// Whether a mail may have been delivered as often as it may be; if so it is given up.
    pub fn notice_exhausted(&self, notice: &DueNotice, now: Timestamp) -> Result<bool> {
        if notice.in_doubt < IN_DOUBT_MAX {
            return Ok(false);
        }
        self.give_up_in_doubt(notice, now)?;
        Ok(true)
    }

    fn give_up_in_doubt(&self, notice: &DueNotice, now: Timestamp) -> Result<()> {
        let why = "perhaps delivered twice already: the server never confirmed; not sent again";
        self.finish_notice(notice, "failed", why, now)
    }

    fn put_off(&self, notice: &DueNotice, why: &str, at: Timestamp) -> Result<()> {
        self.sql().execute(
            "UPDATE notices SET why = ?2, due_at = ?3 WHERE id = ?1",
            (notice.id, why, to_millis(at)),
        )?;
        Ok(())
    }

    fn finish_notice(
        &self,
        notice: &DueNotice,
        state: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.sql().execute(
            "UPDATE notices SET state = ?2, why = ?3, finished_at = ?4 WHERE id = ?1",
            (notice.id, state, why, to_millis(now)),
        )?;
        let told = match state {
            "sent" => format!("{} told by mail: {}", notice.role, notice.recipient),
            _ => format!("mail to {} given up: {why}", notice.recipient),
        };
        self.note(notice.incident, &told, now)
    }
}
