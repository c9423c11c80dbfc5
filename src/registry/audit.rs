//! The audit log: append-only, each row's hash covers the row before it.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Result, Tx};
use crate::clock::to_millis;
use crate::secret::identity_hash;

/// Who did what to whom, and why.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: &'a str,
    /// What.
    pub action: &'a str,
    /// To which id.
    pub target: &'a str,
    /// What was so before.
    pub before: &'a str,
    /// What is so now.
    pub after: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl Entry<'_> {
    /// An empty entry, to be filled.
    #[must_use]
    pub fn at(at: Timestamp) -> Self {
        Entry { at, actor: "", action: "", target: "", before: "", after: "", reason: "" }
    }
}

impl Tx<'_> {
    /// Appends a row.
    pub fn audit(&self, entry: &Entry<'_>) -> Result<()> {
        let last: Option<(i64, Vec<u8>)> = self
            .sql()
            .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (seq, previous) = last.unwrap_or_default();
        let (seq, at) = (seq + 1, to_millis(entry.at));
        let hash = identity_hash(&[
            &previous,
            &seq.to_le_bytes(),
            &at.to_le_bytes(),
            entry.actor.as_bytes(),
            entry.action.as_bytes(),
            entry.target.as_bytes(),
            entry.before.as_bytes(),
            entry.after.as_bytes(),
            entry.reason.as_bytes(),
        ]);
        self.sql()
            .prepare_cached(
                "INSERT INTO audit (seq, at, actor, action, target, before, after, reason, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(rusqlite::params![
                seq,
                at,
                entry.actor,
                entry.action,
                entry.target,
                entry.before,
                entry.after,
                entry.reason,
                hash
            ])?;
        Ok(())
    }
}
