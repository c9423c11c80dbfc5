//! The audit log: append-only, each row's hash covers the row before it.
//!
//! A changed, missing or reordered row shows in the hashes of the rows themselves. A log whose end
//! was cut off, or that was written anew, shows only beside a [`Head`] that was kept elsewhere.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::access::Caller;
use super::{Result, Tx};
use crate::clock::{from_millis, to_millis};
use crate::secret::{identity_hash, to_hex};

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

/// The end of the log at some time: number and hash of its last row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the row.
    pub seq: i64,
    /// Its hash, in hex.
    pub hash: String,
}

/// How a head is introduced wherever it is written.
const HEAD_WORDS: &str = "audit head ";

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{HEAD_WORDS}{}:{}", self.seq, self.hash)
    }
}

impl Head {
    /// The head in a line of some log, as its `Display` writes it.
    #[must_use]
    pub fn find(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(HEAD_WORDS)?;
        let (seq, rest) = rest.split_once(':')?;
        let hash: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        (hash.len() == 64).then_some(())?;
        Some(Self { seq: seq.parse().ok()?, hash })
    }
}

/// What is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Rows are missing before this one.
    Missing {
        /// The number that should have come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// The row is not what was written, or not where it was written.
    Changed(i64),
    /// Nothing is left of it.
    Emptied,
    /// The log ends before a head that was kept elsewhere.
    CutOff(Head),
    /// At the place of a head that was kept elsewhere stands another row.
    Rewritten(Head),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { expected, found } => {
                write!(f, "audit log: row {expected} is missing; {found} comes in its place")
            }
            Self::Changed(seq) => {
                write!(f, "audit log: row {seq} was changed or moved, or the row before it was")
            }
            Self::Emptied => f.write_str(
                "audit log: emptied; its first row was written when the registry was made",
            ),
            Self::CutOff(head) => {
                write!(f, "audit log: cut off; there was a row {}, and it is gone", head.seq)
            }
            Self::Rewritten(head) => {
                write!(f, "audit log: written anew; row {} is not the one it was", head.seq)
            }
        }
    }
}

/// What a check of the log found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Rows that were read.
    pub rows: u64,
    /// Heads that were compared.
    pub heads: u64,
    /// Its end now.
    pub head: Option<Head>,
    /// What is wrong; empty: nothing.
    pub faults: Vec<Fault>,
}

/// After so many faults the rest of the log says nothing more.
const FAULTS_MAX: usize = 20;

/// A row as it is shown.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To which id.
    pub target: String,
    /// What was so before.
    pub before: String,
    /// What is so since.
    pub after: String,
    /// Why.
    pub reason: String,
    hash: Vec<u8>,
}

impl AuditRow {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            at: from_millis(row.get(1)?),
            actor: row.get(2)?,
            action: row.get(3)?,
            target: row.get(4)?,
            before: row.get(5)?,
            after: row.get(6)?,
            reason: row.get(7)?,
            hash: row.get(8)?,
        })
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            at: self.at,
            actor: &self.actor,
            action: &self.action,
            target: &self.target,
            before: &self.before,
            after: &self.after,
            reason: &self.reason,
        }
    }

    fn head(&self) -> Head {
        Head { seq: self.seq, hash: to_hex(&self.hash) }
    }
}

const COLUMNS: &str = "seq, at, actor, action, target, before, after, reason, hash";

/// The hash of a row, over that of the row before it.
fn chained(previous: &[u8], seq: i64, entry: &Entry<'_>) -> [u8; 32] {
    identity_hash(&[
        previous,
        &seq.to_le_bytes(),
        &to_millis(entry.at).to_le_bytes(),
        entry.actor.as_bytes(),
        entry.action.as_bytes(),
        entry.target.as_bytes(),
        entry.before.as_bytes(),
        entry.after.as_bytes(),
        entry.reason.as_bytes(),
    ])
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
        let seq = seq + 1;
        self.sql()
            .prepare_cached(&format!(
                "INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            ))?
            .execute(rusqlite::params![
                seq,
                to_millis(entry.at),
                entry.actor,
                entry.action,
                entry.target,
                entry.before,
                entry.after,
                entry.reason,
                chained(&previous, seq, entry)
            ])?;
        Ok(())
    }

    /// The end of the log.
    pub fn audit_head(&self) -> Result<Option<Head>> {
        let sql = format!("SELECT {COLUMNS} FROM audit ORDER BY seq DESC LIMIT 1");
        let last = self.sql().query_row(&sql, [], AuditRow::from_row).optional()?;
        Ok(last.map(|row| row.head()))
    }

    /// Reads the whole log and compares it with itself, and with heads that were kept elsewhere.
    pub fn audit_verify(&self, heads: &[Head]) -> Result<Verified> {
        let mut verified = Verified { heads: heads.len() as u64, ..Verified::default() };
        let mut waiting: Vec<&Head> = heads.iter().collect();
        waiting.sort_by_key(|head| std::cmp::Reverse(head.seq));
        let mut last = None;
        let mut previous = Vec::new();
        let sql = format!("SELECT {COLUMNS} FROM audit ORDER BY seq");
        let mut statement = self.sql().prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row = AuditRow::from_row(row)?;
            let expected = last.map_or(1, |last: i64| last + 1);
            if row.seq != expected {
                verified.faults.push(Fault::Missing { expected, found: row.seq });
            } else if chained(&previous, row.seq, &row.entry()).as_slice() != row.hash {
                verified.faults.push(Fault::Changed(row.seq));
            }
            while let Some(head) = waiting.pop_if(|head| head.seq <= row.seq) {
                if row.head() != *head {
                    verified.faults.push(Fault::Rewritten(head.clone()));
                }
            }
            verified.rows += 1;
            last = Some(row.seq);
            verified.head = Some(row.head());
            previous = row.hash;
            if verified.faults.len() >= FAULTS_MAX {
                return Ok(verified);
            }
        }
        if verified.rows == 0 {
            verified.faults.push(Fault::Emptied);
        }
        verified.faults.extend(waiting.into_iter().rev().cloned().map(Fault::CutOff));
        Ok(verified)
    }

    /// The last rows of the log, oldest first, that a caller may see: about one target, or about
    /// everything of their account.
    pub fn audit_rows(
        &self,
        target: Option<&str>,
        limit: u32,
        caller: &Caller,
    ) -> Result<Vec<AuditRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM audit a WHERE (?1 IS NULL OR target = ?1) AND (?2 IS NULL
                 OR target = ?2
                 OR EXISTS (SELECT 1 FROM keys k WHERE k.id = a.target AND k.account_id = ?2)
                 OR EXISTS (SELECT 1 FROM identities i
                     WHERE i.id = a.target AND i.account_id = ?2)
                 OR EXISTS (SELECT 1 FROM incidents n JOIN keys k ON k.id = n.key_id
                     WHERE CAST(n.id AS TEXT) = a.target AND k.account_id = ?2))
             ORDER BY seq DESC LIMIT ?3"
        );
        let mut statement = self.sql().prepare(&sql)?;
        let rows = statement.query_map((target, &caller.account, limit), AuditRow::from_row)?;
        let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        rows.reverse();
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_in_a_line_of_a_log() {
        let head = Head { seq: 42, hash: "0123456789abcdef".repeat(4) };
        assert_eq!(Head::find(&format!("Nov 21 web1 leakwarden: {head}\"}}")), Some(head.clone()));
        assert_eq!(Head::find(&format!("{head}")), Some(head));
        assert_eq!(Head::find("audit head 42:abc"), None);
        assert_eq!(Head::find("no head"), None);
    }
}
