//! One stream by several threads: each takes the next piece, with as much text around it as its
//! hits depend on; what they find is put together in the order of the stream. So the findings are
//! those of one thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use super::groups::Groups;
use super::scanner::{Place, each_placed};
use crate::matcher::{Candidate, Hit, Matcher, SPAN_MAX};
use crate::secret::Secret;
use crate::shape::Known;
use crate::source::CONTEXT_MAX;

/// Bytes of a piece: it fits the cache of a core, and what is read twice at its ends is little.
const PIECE_BYTES: u64 = 512 * 1024;
const PAGE_BYTES: u64 = 4_096;
/// Pieces that may wait for one before them, for each thread; and hits in all of them.
const WAITING_MAX: u64 = 8;
const HITS_MAX: usize = 100_000;

/// A stream that can be read at any place: fills the buffer from that offset on, as far as there is
/// text.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<usize> + Sync + 'a;

/// What one thread found in a piece.
#[derive(Default)]
struct Piece {
    /// The text around it; its first byte is at `base`.
    buffer: Buffer,
    base: u64,
    /// Where in the text the piece begins.
    start: usize,
    hits: Vec<Hit>,
    /// Its length; less than was asked for where the stream was cut short since.
    bytes: u64,
    newlines: u64,
    /// Offset behind the last newline.
    line_start: Option<u64>,
    end: u64,
}

/// Where the pieces come together.
struct Join<'a> {
    next: u64,
    waiting: BTreeMap<u64, Piece>,
    /// Hits of those that wait.
    hits: usize,
    /// Pieces of which nothing is needed any more but their memory.
    spare: Vec<Piece>,
    bytes: u64,
    lines: u64,
    line_start: u64,
    groups: Groups<Option<Secret>>,
    emit: &'a mut (dyn FnMut(Candidate) + Send),
    error: Option<io::Error>,
}

impl Join<'_> {
    /// Whether a piece has to wait until those before it are there.
    fn is_full(&self, number: u64, waiting_max: u64) -> bool {
        let much_waits = number >= self.next + waiting_max || self.hits > HITS_MAX;
        number > self.next && much_waits && self.error.is_none()
    }

    fn add(&mut self, number: u64, piece: Piece) {
        self.hits += piece.hits.len();
        self.waiting.insert(number, piece);
        while let Some(mut piece) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.hits -= piece.hits.len();
            self.decide(&mut piece);
            self.spare.push(piece);
        }
    }

    fn decide(&mut self, piece: &mut Piece) {
        let (text, base) = (piece.buffer.text(), piece.base);
        let (start, line) = (piece.start, self.line_start);
        let place = Place { lines: self.lines, counted: start, line, seen: start };
        let mut emit = |candidate: Candidate<_>| (self.emit)(candidate.whole(text, base));
        each_placed((text, base), place, &mut piece.hits, &mut |candidate| {
            self.groups.push(candidate, &mut emit);
        });
        self.groups.flush(piece.end, &mut emit);
        self.groups.keep(text, base);
        self.bytes += piece.bytes;
        self.lines += piece.newlines;
        self.line_start = piece.line_start.unwrap_or(self.line_start);
    }
}

/// Scans the first `size` bytes of a stream with so many threads. Answers how many bytes there were:
/// fewer where it was cut short since its size was asked for.
pub fn scan(
    matcher: &Matcher,
    known: &(dyn Known + Sync),
    (size, threads): (u64, usize),
    read: &ReadAt<'_>,
    emit: &mut (dyn FnMut(Candidate) + Send),
) -> io::Result<u64> {
    let join = Mutex::new(Join {
        next: 0,
        waiting: BTreeMap::new(),
        hits: 0,
        spare: Vec::new(),
        bytes: 0,
        lines: 0,
        line_start: 0,
        groups: Groups::default(),
        emit,
        error: None,
    });
    let (moved, taken) = (Condvar::new(), AtomicU64::new(0));
    let waiting_max = WAITING_MAX * threads.max(1) as u64;
    let work = || {
        let mut room = Piece::default();
        loop {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            let start = number * PIECE_BYTES;
            if start >= size {
                return;
            }
            let end = size.min(start + PIECE_BYTES);
            let piece = look(matcher, known, (start, end), size, read, room);
            let mut join = lock(&join);
            while join.is_full(number, waiting_max) {
                join = moved.wait(join).unwrap_or_else(PoisonError::into_inner);
            }
            match piece {
                Ok(piece) if join.error.is_none() => join.add(number, piece),
                Ok(_) => return,
                Err(error) => join.error = Some(error),
            }
            room = join.spare.pop().unwrap_or_default();
            moved.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut join = join.into_inner().unwrap_or_else(PoisonError::into_inner);
    join.groups.flush(u64::MAX, &mut |candidate| (join.emit)(candidate.whole(&[], 0)));
    join.error.map_or(Ok(join.bytes), Err)
}

fn lock<'a, 'b>(join: &'a Mutex<Join<'b>>) -> MutexGuard<'a, Join<'b>> {
    join.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds what starts in one piece. `room`: memory to be used again.
fn look(
    matcher: &Matcher,
    known: &dyn Known,
    (start, end): (u64, u64),
    size: u64,
    read: &ReadAt<'_>,
    room: Piece,
) -> io::Result<Piece> {
    let Piece { mut buffer, mut hits, .. } = room;
    // Pages are read as a whole.
    let from = start.saturating_sub(CONTEXT_MAX as u64) & !(PAGE_BYTES - 1);
    let upto = size.min(end + SPAN_MAX as u64 + 1);
    let length = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
    let (before, wanted) = (length(start - from)?, length(upto - from)?);
    buffer.clear();
    while buffer.len() < wanted {
        let filled = buffer.len();
        match read(from + filled as u64, buffer.space(wanted - filled)) {
            // Cut short since its size was asked for.
            Ok(0) => break,
            Ok(count) => buffer.filled(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = buffer.text();
    let starts = before.min(text.len())..length(end - from)?.min(text.len());
    let newlines = matcher.find(text, starts.clone(), known, &mut hits);
    let own = text.get(starts.clone()).unwrap_or_default();
    let bytes = own.len() as u64;
    let line_start = memchr::memrchr(b'\n', own).map(|at| start + at as u64 + 1);
    Ok(Piece { base: from, start: starts.start, hits, bytes, newlines, line_start, end, buffer })
}
