//! One stream by several threads: each takes the next piece, with as much text around it as its
//! hits depend on; what they find is put together in the order of the stream. So the findings are
//! those of one thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use super::groups::Groups;
use crate::matcher::{Candidate, Hit, Matcher, SPAN_MAX};
use crate::secret::Secret;
use crate::shape::Known;
use crate::source::CONTEXT_MAX;

/// Bytes of a piece: it fits the cache of a core, and what is read twice at its ends is little.
const PIECE_BYTES: u64 = 512 * 1024;
const PAGE_BYTES: u64 = 4_096;
/// Pieces that may wait for one before them.
const WAITING_MAX: u64 = 64;

/// A stream that can be read at any place: fills the buffer from that offset on, as far as there is
/// text.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<usize> + Sync + 'a;

/// What one thread found in a piece.
#[derive(Default)]
struct Piece {
    /// Lines are counted from 0 in this piece; columns are offsets where the line began before it.
    candidates: Vec<Candidate>,
    /// How many of them stand in the piece's first line.
    in_first_line: usize,
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
    bytes: u64,
    lines: u64,
    line_start: u64,
    groups: Groups<Secret>,
    emit: &'a mut (dyn FnMut(Candidate) + Send),
    error: Option<io::Error>,
}

impl Join<'_> {
    fn add(&mut self, number: u64, piece: Piece) {
        self.waiting.insert(number, piece);
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.next += 1;
            for (index, mut candidate) in piece.candidates.into_iter().enumerate() {
                candidate.line += self.lines + 1;
                if index < piece.in_first_line {
                    candidate.column = candidate.start - self.line_start + 1;
                }
                self.groups.push(candidate);
            }
            self.bytes += piece.bytes;
            self.lines += piece.newlines;
            self.line_start = piece.line_start.unwrap_or(self.line_start);
            self.groups.flush(piece.end, self.emit);
        }
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
        bytes: 0,
        lines: 0,
        line_start: 0,
        groups: Groups::default(),
        emit,
        error: None,
    });
    let (moved, taken) = (Condvar::new(), AtomicU64::new(0));
    let work = || {
        let mut buffer = Buffer::default();
        loop {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            let start = number * PIECE_BYTES;
            if start >= size {
                return;
            }
            let end = size.min(start + PIECE_BYTES);
            let piece = look(matcher, known, (start, end), size, read, &mut buffer);
            let mut join = lock(&join);
            while number >= join.next + WAITING_MAX && join.error.is_none() {
                join = moved.wait(join).unwrap_or_else(PoisonError::into_inner);
            }
            match piece {
                Ok(piece) if join.error.is_none() => join.add(number, piece),
                Ok(_) => return,
                Err(error) => join.error = Some(error),
            }
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
    join.groups.flush(u64::MAX, join.emit);
    join.error.map_or(Ok(join.bytes), Err)
}

fn lock<'a, 'b>(join: &'a Mutex<Join<'b>>) -> MutexGuard<'a, Join<'b>> {
    join.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds what starts in one piece.
fn look(
    matcher: &Matcher,
    known: &dyn Known,
    (start, end): (u64, u64),
    size: u64,
    read: &ReadAt<'_>,
    buffer: &mut Buffer,
) -> io::Result<Piece> {
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
    let mut hits = Vec::new();
    let newlines = matcher.find(text, starts.clone(), known, &mut hits);
    Hit::sort(&mut hits);
    let own = text.get(starts.clone()).unwrap_or_default();
    let mut piece = Piece {
        bytes: own.len() as u64,
        newlines,
        line_start: memchr::memrchr(b'\n', own).map(|at| start + at as u64 + 1),
        end,
        ..Piece::default()
    };
    let (mut counted, mut lines, mut line_start) = (starts.start, 0, None);
    for Hit { span, rule, confidence, known } in hits {
        let part = text.get(counted..span.start).unwrap_or_default();
        lines += memchr::memchr_iter(b'\n', part).count() as u64;
        let last = memchr::memrchr(b'\n', part).map(|at| from + (counted + at) as u64 + 1);
        line_start = last.or(line_start);
        counted = span.start;
        let offset = from + span.start as u64;
        piece.in_first_line += usize::from(line_start.is_none());
        piece.candidates.push(Candidate {
            start: offset,
            end: from + span.end as u64,
            line: lines,
            column: line_start.map_or(0, |line_start| offset - line_start + 1),
            rule,
            confidence,
            known,
            secret: Secret::copy_of(text.get(span).unwrap_or_default()),
        });
    }
    Ok(piece)
}
