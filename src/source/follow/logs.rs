//! Logs: lines are appended, and only what is new is read.
//!
//! Which log a file holds is told by its content: how it begins, and what stands before the place up
//! to which the log was read. So it makes no difference whether a log was renamed, copied or
//! compressed, how often, or whether anybody watched. What nobody has read is read from its
//! beginning, under whatever name rotation has given it. Reading a line twice does no harm: its place
//! is the same in a log and in copies of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::again::new_stream_from;
use super::content::{self, head_of, holds};
use super::files::CLOCK_STEP_NS;
use super::{Follow, Followed, Known, LIVE_ONLY, Part, now_ns, packed, siblings};
use crate::source::{CONTEXT_MAX, Head, Kind, Position, Sink, Stat, Stop, marker, path_id, reader};

/// What may be a copy that is being made is looked at again after this time, and is none if nothing
/// is added to it for so long.
const COPYING: Duration = Duration::from_millis(500);
const COPYING_NS: i64 = 500_000_000;
const COPYING_MAX: Duration = Duration::from_secs(10);

/// Logs that all watches keep open.
static OPEN: AtomicU64 = AtomicU64::new(0);
/// At most so many: half of what the process may open.
static OPEN_MAX: LazyLock<u64> =
    LazyLock::new(|| getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 2));

/// A file that stays open.
pub(super) struct Kept(pub(super) File);

impl Kept {
    /// Keeps a file open; too many are not.
    fn new(file: File) -> Option<Self> {
        // Counts down again when it is dropped.
        let kept = Self(file);
        (OPEN.fetch_add(1, Ordering::Relaxed) < *OPEN_MAX).then_some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which log a file holds.
enum Content {
    /// One that was read up to there, in this file or another.
    Of(Followed),
    /// One that nobody has read.
    New,
    /// Perhaps the beginning of a copy that is being made.
    Copying,
}

impl Known {
    /// Whether the file at a path is not as it was when it was read.
    pub(super) fn has_changed(&self, path: &Path) -> bool {
        let now = std::fs::metadata(path).map(|meta| reader::stat_of(&meta));
        !now.is_ok_and(|now| now == self.followed.stat)
    }
}

impl Known {
    /// Whether its file has no name any more.
    pub(super) fn is_deleted(&self) -> bool {
        let meta = self.kept.as_ref().and_then(|kept| kept.0.metadata().ok());
        meta.is_some_and(|meta| meta.nlink() == 0)
    }
}

impl Followed {
    /// Nothing of it was ever read or seen.
    pub(super) fn is_blank(&self) -> bool {
        self.position.offset == 0 && self.head.length == 0
    }

    fn is_further_than(&self, other: &Self) -> bool {
        self.stream == other.stream && self.position.offset > other.position.offset
    }
}

impl Follow {
    pub(super) fn look_at_log(
        &mut self,
        path: &Path,
        now: Instant,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        let (file, stat) = self.open(path)?;
        if packed::is_name(path) {
            return self.look_at_packed(path, (&file, stat), now, sink, stop);
        }
        let Some(known) = self.known(path) else {
            if self.is_followed_elsewhere(path, &stat) {
                return Ok(());
            }
            return self.meet_log(path, (file, stat), now, sink, stop);
        };
        if known.stat == stat {
            return self.stays(path, file, stat, now);
        }
        // Nobody else has the inode of a file that is open.
        let is_open = self.files.get(path).is_some_and(|known| known.kept.is_some());
        let is_still = known.stat.is_same_file(&stat)
            && !self.is_outdated(&known)
            && if is_open { holds(&file, &known)? } else { content::is_copy(&file, &known)? };
        if !is_still {
            self.cast_off(path, Some(&stat), now, sink, stop);
            return self.meet_log(path, (file, stat), now, sink, stop);
        }
        let mut followed = known;
        if followed.position.offset == 0 {
            // Nothing was read of it: it may be a copy of another log.
            match self.content_of(path, &file, &stat)? {
                Content::Of(log) if log.position.offset > 0 => followed = log,
                Content::Copying if self.waits_for_copy(path, now) => return Ok(()),
                _ => {}
            }
        }
        self.go_on(path, (file, stat, followed), now, sink, stop)
    }

    /// A log at a path where none was, or another one.
    fn meet_log(
        &mut self,
        path: &Path,
        (file, stat): (File, Stat),
        now: Instant,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        let followed = match self.content_of(path, &file, &stat)? {
            Content::Of(followed) => followed,
            _ if !self.is_member(path) => return Ok(()),
            Content::Copying if self.waits_for_copy(path, now) => return Ok(()),
            Content::New | Content::Copying => {
                let (position, head) = self.where_to_begin(path, &file, &stat, stop)?;
                Followed { stream: new_stream_from(&position), stat, position, head }
            }
        };
        self.go_on(path, (file, stat, followed), now, sink, stop)
    }

    /// Which log a file holds, as far as its content tells.
    fn content_of(&self, path: &Path, file: &File, stat: &Stat) -> io::Result<Content> {
        let begins = reader::read_at(file, 0, CONTEXT_MAX)?;
        // Copies are made under the names of rotated logs; another log may begin like the last one.
        let is_fresh = (0..COPYING_NS).contains(&now_ns().saturating_sub(stat.changed_at()))
            && siblings::unrotated(path).is_some_and(|log| log != path);
        let (mut best, mut copying): (Option<&Followed>, bool) = (None, false);
        for followed in self.logs_like(path, stat) {
            let further = best.is_none_or(|best| best.position.offset < followed.position.offset);
            // One that was empty is known by its inode only.
            let may_be = !followed.is_blank()
                || (followed.stat.is_same_file(stat) && !self.is_outdated(followed));
            if !further || !may_be || !followed.head.is_of(&begins) {
                continue;
            }
            if content::is_copy(file, followed)? {
                best = Some(followed);
            } else {
                let is_short = stat.size < followed.position.offset;
                copying |= is_fresh && is_short && followed.head.length > 0;
            }
        }
        Ok(match best {
            Some(followed) => Content::Of(followed.clone()),
            None if copying => Content::Copying,
            None => Content::New,
        })
    }

    /// Whether a log that was empty has been read under another name since: its inode may be used by
    /// another one now.
    fn is_outdated(&self, followed: &Followed) -> bool {
        followed.is_blank() && self.logs().any(|log| log.is_further_than(followed))
    }

    /// All logs that are known; some are known at more than one place.
    fn logs(&self) -> impl Iterator<Item = &Followed> {
        let files = self.files.values().map(|known| &known.followed);
        files.chain(self.earlier.values()).chain(self.adrift.iter().map(|log| &log.followed))
    }

    /// Logs that a file may hold: those of related names or of unknown ones, and that of its inode.
    pub(super) fn logs_like(&self, path: &Path, stat: &Stat) -> impl Iterator<Item = &Followed> {
        let (unrotated, stat) = (siblings::unrotated(path), *stat);
        let of_name = unrotated.clone();
        let files = self.files.values().filter(move |known| {
            known.followed.stat.is_same_file(&stat) || known.unrotated == of_name
        });
        let adrift = self.adrift.iter().filter(move |log| {
            log.followed.stat.is_same_file(&stat)
                || log.unrotated.is_none()
                || log.unrotated == unrotated
        });
        let files = files.map(|known| &known.followed);
        files.chain(self.earlier.values()).chain(adrift.map(|log| &log.followed))
    }

    /// Waits for a copy that is being made, but not for ever. Answers whether it does.
    fn waits_for_copy(&mut self, path: &Path, now: Instant) -> bool {
        let since = *self.copying.entry(path.to_owned()).or_insert(now);
        if now.saturating_duration_since(since) >= COPYING_MAX {
            self.copying.remove(path);
            return false;
        }
        self.due.insert(path.to_owned(), now + COPYING);
        true
    }

    /// Where reading begins in a log that nobody has read.
    fn where_to_begin(
        &self,
        path: &Path,
        file: &File,
        stat: &Stat,
        stop: &Stop,
    ) -> io::Result<(Position, Head)> {
        let mut head = Head::default();
        // A log that came while nobody watched is read as one that comes now.
        if !self.is_old() {
            return Ok((Position::default(), head));
        }
        let position = match (self.wants(path), self.options.mode) {
            (true, LIVE_ONLY) => end_of(file, u64::MAX, &mut head, stop)?,
            (true, _) => Position::default(),
            // Nobody asked for what was rotated before.
            (false, _) => {
                let context = usize::try_from(stat.size).unwrap_or(CONTEXT_MAX).min(CONTEXT_MAX);
                let before = reader::read_at(file, stat.size - context as u64, context)?;
                Position { offset: stat.size, lines: 0, marker: marker(&before) }
            }
        };
        Ok((position, head))
    }

    /// Whether what is met now was there before anybody watched.
    pub(super) fn is_old(&self) -> bool {
        self.first_start && !self.started
    }

    /// Reads what is new.
    fn go_on(
        &mut self,
        path: &Path,
        (mut file, stat, mut followed): (File, Stat, Followed),
        now: Instant,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        self.copying.remove(path);
        followed.head = head_of(&file, followed.head)?;
        content::sum_up(&file, &mut followed)?;
        if followed.position.offset >= stat.size {
            followed.stat = stat;
            self.remember(path, followed, sink);
        } else {
            // Where it is is known before it is read.
            self.remember(path, Followed { stat: stat.unfinished(), ..followed.clone() }, sink);
            let part = Part { path, known_as: None, kind: Kind::Log, stat, from: followed };
            self.read_slice(&mut file, &part, sink, stop)?;
        }
        self.stays(path, file, stat, now)
    }

    /// Takes note of how far the log at a path is read.
    pub(super) fn remember(&mut self, path: &Path, followed: Followed, sink: &mut dyn Sink) {
        let known = self.files.get_mut(path);
        let as_it_was = known.as_ref().is_some_and(|known| {
            let known = &known.followed;
            (&known.stream, known.position) == (&followed.stream, followed.position)
                && known.stat.is_same_file(&followed.stat)
                && known.stat.is_unfinished() == followed.stat.is_unfinished()
        });
        if !as_it_was {
            sink.keep(path_id(path), &followed);
        }
        match known {
            Some(known) => known.followed = followed,
            None => {
                let known = Known::new(path, followed, self.wants(path));
                self.files.insert(path.to_owned(), known);
            }
        }
    }

    /// A log was looked at, and is where it was.
    fn stays(&mut self, path: &Path, file: File, stat: Stat, now: Instant) -> io::Result<()> {
        let Some(known) = self.files.get_mut(path) else { return Ok(()) };
        known.looked = Some(now);
        let age = now_ns().saturating_sub(stat.changed_at());
        if (0..CLOCK_STEP_NS).contains(&age) && !known.followed.stat.is_unfinished() {
            // A cut within the same step of the file system's clock would look the same.
            known.followed.stat.changed_ns = 0;
        }
        known.kept = match known.kept.take() {
            Some(kept) if stat.is_same_file(&reader::stat(&kept.0)?) => Some(kept),
            // One that was rotated a moment ago may be written to for a while.
            _ if known.wanted || self.started => Kept::new(file),
            _ => None,
        };
        Ok(())
    }

    /// Another name of a file that is followed already: a link.
    fn is_followed_elsewhere(&self, path: &Path, stat: &Stat) -> bool {
        self.files.iter().any(|(other, known)| {
            let there = || std::fs::metadata(other).map(|meta| reader::stat_of(&meta));
            known.followed.stat.is_same_file(stat)
                && other != path
                && there().is_ok_and(|there| there.is_same_file(stat))
        })
    }

    /// Whether a file is a log that is meant, or may be what one was rotated to.
    pub(super) fn is_member(&self, path: &Path) -> bool {
        self.wants(path)
            || (self.is_logs()
                && !self.options.exclude.is_match(path)
                && siblings::unrotated(path).is_some_and(|log| self.wants(&log)))
    }
}

pub(super) fn new_stream() -> String {
    format!("log:{}", uuid::Uuid::new_v4())
}

/// The end of the file or of so many bytes of it, with the number of its line: where "from now on"
/// begins. Sums what is before.
pub(super) fn end_of(
    mut file: &File,
    longest: u64,
    head: &mut Head,
    stop: &Stop,
) -> io::Result<Position> {
    file.seek(SeekFrom::Start(0))?;
    let mut file = file.take(longest);
    let mut buffer = vec![0; 256 * 1024];
    let (mut offset, mut lines, mut tail) = (0u64, 0u64, Vec::new());
    loop {
        if stop.is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = buffer.get(..count).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        content::add(head, part);
        offset += count as u64;
        lines += memchr::memchr_iter(b'\n', part).count() as u64;
        tail.extend_from_slice(part.get(count.saturating_sub(CONTEXT_MAX)..).unwrap_or_default());
        let surplus = tail.len().saturating_sub(CONTEXT_MAX);
        tail.drain(..surplus);
    }
    Ok(Position { offset, lines, marker: marker(&tail) })
}
