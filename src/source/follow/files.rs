//! Files that may change anywhere: read as a whole when they do.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::content::{head_of, holds};
use super::{Follow, Followed, Part, now_ns};
use crate::source::{Head, Kind, Position, Sink, Stat, Stop, path_id, reader};

/// How coarse the times of a file system may be, in nanoseconds: they come from the kernel's tick.
pub(super) const CLOCK_STEP_NS: i64 = 20_000_000;
/// A file that changed while it was read is read again after this long and, for each MiB it has,
/// [`SETTLE_PER_MIB`] more: re-reading a growing file must not become all that is done.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_PER_MIB: Duration = Duration::from_millis(20);
const SETTLE_MAX: Duration = Duration::from_secs(10);

impl Follow {
    pub(super) fn look_at_file(
        &mut self,
        path: &Path,
        now: Instant,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        let (mut file, stat) = self.open(path)?;
        let known = self.known(path);
        if known.as_ref().is_some_and(|known| known.stat == stat) {
            return Ok(());
        }
        let begun = match known {
            // Reading goes on where it was, also while the file changes: then it is read again.
            Some(known)
                if known.stat.is_unfinished()
                    && known.stat.is_same_file(&stat)
                    && holds(&file, &known)? =>
            {
                Some(known)
            }
            _ => None,
        };
        let until = self.settling.get(path).copied().filter(|until| *until > now);
        if let Some(until) = until.filter(|_| begun.is_none()) {
            self.due.insert(path.to_owned(), until);
            return Ok(());
        }
        let from = match begun {
            Some(known) => known,
            None => Followed {
                stream: stream_of(path),
                stat,
                position: Position::default(),
                head: head_of(&file, Head::default())?,
            },
        };
        let mut stat = from.stat;
        stat.changed_ns = stat.changed_at();
        let part = Part { path, known_as: None, kind: Kind::File, stat, from };
        if self.read_slice(&mut file, &part, sink, stop)? {
            let now_stat = reader::stat(&file)?;
            self.settle(path, (stat, now_stat), now);
        }
        Ok(())
    }

    /// A file was read to its end: whether, and when, it is looked at again.
    fn settle(&mut self, path: &Path, (read, now_stat): (Stat, Stat), now: Instant) {
        let mebibytes = u32::try_from(read.size >> 20).unwrap_or(u32::MAX);
        let rest = SETTLE_PER_MIB.saturating_mul(mebibytes).min(SETTLE_MAX);
        if mebibytes > 0 {
            self.settling.insert(path.to_owned(), now + rest);
        }
        let age = now_ns().saturating_sub(read.changed_at());
        let fresh = (0..CLOCK_STEP_NS).contains(&age);
        if fresh && let Some(known) = self.files.get_mut(path) {
            // Another change within the same step of the file system's clock would look the same.
            known.followed.stat.changed_ns = 0;
        }
        if fresh || now_stat != read {
            self.due.insert(path.to_owned(), now + SETTLE + rest);
        }
    }
}

/// What stands for a file that is read as a whole.
#[must_use]
pub fn stream_of(path: &Path) -> String {
    format!("file:{}", crate::secret::to_hex(&path_id(path)))
}
