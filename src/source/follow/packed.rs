//! Rotated logs that are compressed: read like the log that they were, from where it was read.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use super::again::new_stream_unread;
use super::content::{add, context_before};
use super::logs::new_stream;
use super::{Follow, Followed, LIVE_ONLY, SLICE, now_ns, siblings};
use crate::source::{
    CONTEXT_MAX, End, Head, Item, Kind, Position, Sink, Stat, Stop, marker, reader,
};

/// A file that was written so short a time ago may not be compressed to its end.
const SETTLE: Duration = Duration::from_secs(2);
/// What was decompressed last, in bytes: enough to begin again at any position that a sink answers.
const TAIL: usize = 64 * 1024;

/// Whether it is compressed, by its name.
pub(super) fn is_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// A compressed file that is being read.
pub(super) struct Packed {
    path: PathBuf,
    stat: Stat,
    /// How it begins, compressed.
    head: Head,
    log: Log,
    open: Option<Open>,
}

/// Which log it holds.
enum Log {
    /// One of these, the least read first, or one that nobody has read; the best one up to now.
    OneOf(Vec<Followed>, Option<Followed>),
    /// This one.
    Is(Followed),
}

struct Open {
    text: MultiGzDecoder<BufReader<File>>,
    /// Bytes of text that were decompressed.
    at: u64,
    /// The last of them.
    tail: Vec<u8>,
    /// There is no more.
    ended: bool,
    /// What is summed of it, and the sums that are wanted on the way.
    head: Head,
    sums: Vec<(u64, Option<u32>)>,
}

impl Open {
    fn new(file: File) -> Self {
        let text = MultiGzDecoder::new(BufReader::new(file));
        let (head, sums) = (Head::default(), Vec::new());
        Self { text, at: 0, tail: Vec::new(), ended: false, head, sums }
    }

    /// Decompresses up to a place, a slice at most. Answers whether it is reached; `None`: the text
    /// ends before.
    fn skip_to(&mut self, to: u64) -> io::Result<Option<bool>> {
        let mut part = vec![0; TAIL];
        let end = to.min(self.at.saturating_add(SLICE));
        while self.at < end {
            let length = usize::try_from(end - self.at).unwrap_or(TAIL).min(TAIL);
            let space = part.get_mut(..length).unwrap_or_default();
            match self.text.read(space)? {
                0 => {
                    self.ended = true;
                    return Ok(None);
                }
                count => self.took(part.get(..count).unwrap_or_default()),
            }
        }
        Ok(Some(self.at == to))
    }

    /// Finds out which of some logs this is, the one that was read furthest. Answers whether that is
    /// known; if not, there is more to decompress first.
    fn choose(&mut self, logs: &mut Vec<Followed>, best: &mut Option<Followed>) -> bool {
        if self.at == 0 {
            self.sums = logs.iter().map(|log| (log.head.summed, None)).collect();
            self.sums.sort_unstable();
        }
        while !logs.is_empty() {
            let position = logs.first().map_or_else(Position::default, |log| log.position);
            match self.skip_to(position.offset) {
                Ok(Some(true)) => {
                    let log = logs.remove(0);
                    let before = self.since(position.offset - context_before(&position) as u64);
                    let is_marked =
                        position.offset == 0 || before.map(marker) == Some(position.marker);
                    if is_marked && self.has_sum_of(&log) {
                        *best = Some(log);
                    }
                }
                Ok(Some(false)) => return false,
                // It ends before, or is damaged: then it is read as far as it goes.
                Ok(None) | Err(_) => logs.clear(),
            }
        }
        true
    }

    fn has_sum_of(&self, log: &Followed) -> bool {
        let Head { summed, sum, .. } = log.head;
        summed == 0 || self.sums.contains(&(summed, Some(sum)))
    }

    /// Sums the next bytes, up to where that is wanted.
    fn sum(&mut self, mut bytes: &[u8]) {
        for (at, sum) in self.sums.iter_mut().filter(|(_, sum)| sum.is_none()) {
            let wanted = usize::try_from(at.saturating_sub(self.head.summed)).unwrap_or(usize::MAX);
            let (before, rest) = bytes.split_at(wanted.min(bytes.len()));
            add(&mut self.head, before);
            bytes = rest;
            if self.head.summed < *at {
                return;
            }
            *sum = Some(self.head.sum);
        }
    }

    fn took(&mut self, bytes: &[u8]) {
        self.sum(bytes);
        self.at += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL {
            let surplus = self.tail.len() - TAIL;
            self.tail.drain(..surplus);
        }
    }

    /// What was decompressed since a place, if it is remembered.
    fn since(&self, place: u64) -> Option<&[u8]> {
        let length = usize::try_from(self.at.checked_sub(place)?).ok()?;
        self.tail.get(self.tail.len().checked_sub(length)?..)
    }
}

/// Hands on what it reads, and remembers it.
struct Tee<'a> {
    open: &'a mut Open,
    left: u64,
}

impl Read for Tee<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(space.len()).min(space.len());
        let space = space.get_mut(..most).unwrap_or_default();
        if space.is_empty() {
            return Ok(0);
        }
        let count = self.open.text.read(space)?;
        self.open.took(space.get(..count).unwrap_or_default());
        self.left -= count as u64;
        self.open.ended = count == 0;
        Ok(count)
    }
}

impl Follow {
    /// A file that is compressed, by its name, and new or changed.
    pub(super) fn look_at_packed(
        &mut self,
        path: &Path,
        (file, stat): (&File, Stat),
        now: Instant,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        if self.is_unpacking(path) {
            return Ok(());
        }
        let begins = reader::read_at(file, 0, CONTEXT_MAX)?;
        let head = Head::of(&begins);
        let is_it = |known: &Followed| known.head.length > 0 && known.head.is_of(&begins);
        if let Some(known) = self.known(path) {
            if known.stat == stat {
                return Ok(());
            }
            if is_it(&known) {
                return self.go_on_unpacking(path, (stat, head), known, now, sink);
            }
            self.cast_off(path, Some(&stat), now, sink, stop);
        }
        let same = |known: &&Followed| is_it(known) && known.stat.size == stat.size;
        let known = self.logs_like(path, &stat).find(same).cloned();
        if let Some(known) = known {
            return self.go_on_unpacking(path, (stat, head), known, now, sink);
        }
        if !self.is_member(path) {
            return Ok(());
        }
        if self.is_old() && (self.options.mode == LIVE_ONLY || !self.wants(path)) {
            let (stream, position) = (new_stream_unread(), Position::default());
            self.remember(path, Followed { stream, stat, position, head }, sink);
            return Ok(());
        }
        if !self.waits_for_the_end(path, &stat, now) {
            let text = beginning(file);
            let may_be = |log: &&Followed| log.head.length > 0 && log.head.is_of(&text);
            let mut logs: Vec<_> = self.logs_like(path, &stat).filter(may_be).cloned().collect();
            logs.sort_by_key(|log| log.position.offset);
            self.begin_unpacking(path, (stat, head), Log::OneOf(logs, None));
        }
        Ok(())
    }

    /// A compressed file that was read, perhaps not to its end or under another name.
    fn go_on_unpacking(
        &mut self,
        path: &Path,
        (stat, head): (Stat, Head),
        known: Followed,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> io::Result<()> {
        let is_read = known.stat.size == stat.size && !known.stat.is_unfinished();
        if is_read {
            self.remember(path, Followed { stat, head, ..known }, sink);
        } else if !self.waits_for_the_end(path, &stat, now) {
            self.begin_unpacking(path, (stat, head), Log::Is(known));
        }
        Ok(())
    }

    fn begin_unpacking(&mut self, path: &Path, (stat, head): (Stat, Head), log: Log) {
        self.packed.push_back(Packed { path: path.to_owned(), stat, head, log, open: None });
    }

    /// A file that was written a moment ago may not be complete. Answers whether it is waited for.
    fn waits_for_the_end(&mut self, path: &Path, stat: &Stat, now: Instant) -> bool {
        let age = Duration::from_nanos(now_ns().abs_diff(stat.changed_at()));
        let (seen, since) = *self.packing.entry(path.to_owned()).or_insert((*stat, now));
        let waited = seen == *stat && now.saturating_duration_since(since) >= SETTLE;
        if age >= SETTLE || waited {
            self.packing.remove(path);
            return false;
        }
        if seen != *stat {
            self.packing.insert(path.to_owned(), (*stat, now));
        }
        self.due.insert(path.to_owned(), now + SETTLE);
        true
    }

    fn is_unpacking(&self, path: &Path) -> bool {
        self.packed.iter().any(|packed| packed.path == path)
    }

    /// Whether a file is being read, or is about to be, that may hold the log of a path.
    pub(super) fn is_unpacking_like(&self, path: &Path) -> bool {
        let mut others = self.packed.iter().map(|packed| &packed.path).chain(self.packing.keys());
        others.any(|other| path == self.options.include.root() || siblings::are(other, path))
    }

    /// Reads on in a compressed log.
    pub(super) fn unpack(&mut self, sink: &mut dyn Sink, stop: &Stop) {
        let Some(mut packed) = self.packed.pop_front() else { return };
        match self.unpack_part(&mut packed, sink, stop) {
            Ok(false) => self.packed.push_back(packed),
            Ok(true) => self.unpacked(packed, sink),
            Err(_) if stop.is_stopped() => {}
            Err(error) => {
                let why = match error.raw_os_error() {
                    Some(_) => error,
                    None => io::Error::new(error.kind(), "compressed, and cut short or damaged"),
                };
                self.complain(&packed.path, &why, sink);
                self.unpacked(packed, sink);
            }
        }
    }

    fn unpacked(&mut self, packed: Packed, sink: &mut dyn Sink) {
        let Packed { path, stat, head, log, .. } = packed;
        if let Log::Is(log) = log {
            self.remember(&path, Followed { stat, head, ..log }, sink);
        }
    }

    /// Reads a part. Answers whether the file is at its end.
    fn unpack_part(
        &mut self,
        packed: &mut Packed,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<bool> {
        let mut text = match packed.open.take() {
            Some(text) => text,
            None => Open::new(self.open(&packed.path)?.0),
        };
        let log = match &mut packed.log {
            Log::Is(log) => log.clone(),
            Log::OneOf(logs, best) => {
                if !text.choose(logs, best) {
                    packed.open = Some(text);
                    return Ok(false);
                }
                let (stream, position) = (new_stream(), Position::default());
                let (stat, head) = (packed.stat.unfinished(), packed.head);
                let new = || Followed { stream, stat, position, head };
                let log = Followed { stat, head, ..best.take().unwrap_or_else(new) };
                self.remember(&packed.path, log.clone(), sink);
                packed.log = Log::Is(log.clone());
                log
            }
        };
        let from = log.position;
        if text.at < from.offset && text.skip_to(from.offset)? != Some(true) {
            let is_shorter = text.ended;
            packed.open = Some(text);
            return Ok(is_shorter);
        }
        let context = context_before(&from);
        let start = from.offset - context as u64;
        let Some(again) = text.since(start).map(<[u8]>::to_vec) else {
            // Further back than is remembered: from the beginning of the file.
            return Ok(false);
        };
        let Followed { stream, .. } = log;
        let (stat, head) = (packed.stat.unfinished(), packed.head);
        let whole = Item::whole(Kind::Log, packed.path.clone());
        let item = Item { stream: Some(stream), from, context, stat, head, ..whole };
        let mut tee = Tee { open: &mut text, left: SLICE };
        let mut bytes = Cursor::new(again).chain(&mut tee);
        let read = self.read(&mut bytes, (item, End::Pause), sink, stop)?;
        let ended = text.ended;
        packed.open = Some(text);
        let ControlFlow::Continue(read) = read else { return Ok(false) };
        if let Some(known) = self.files.get_mut(&packed.path) {
            known.followed = read.clone();
        }
        packed.log = Log::Is(read);
        Ok(ended)
    }
}

/// The first bytes of what a compressed file holds.
fn beginning(file: &File) -> Vec<u8> {
    let compressed = reader::read_at(file, 0, 16 * 1024).unwrap_or_default();
    // What is cut off is not needed; what could be read until then counts.
    let mut bytes = Vec::new();
    let mut text = MultiGzDecoder::new(compressed.as_slice()).take(CONTEXT_MAX as u64);
    let _whole = text.read_to_end(&mut bytes).is_ok();
    bytes
}
