//! Streams: the same findings whatever the chunks.

use std::ops::Range;

use super::buffer::Buffer;
use super::groups::Groups;
use super::made;
use crate::matcher::{Hit, Matcher, SPAN_MAX};
use crate::rule::{Confidence, RuleSet};
use crate::secret::Secret;
use crate::shape::Known;
use crate::source::{CONTEXT_MAX, Made, Mark, Position, marker};

/// How much is read at once, in bytes: it fits the cache of a core.
const READ_BYTES: usize = 256 * 1024;
/// How much at first: most files are small, and memory that is not touched costs nothing.
const FIRST_BYTES: usize = 16 * 1024;
/// How many times as much is read next.
const GROWTH: usize = 8;

/// A hit, cut out of its stream.
#[derive(Debug)]
pub struct Candidate<S = Secret> {
    /// First byte, from the start of the stream.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Counted from 1.
    pub line: u64,
    /// In bytes, counted from 1.
    pub column: u64,
    /// Index of the rule; `None`: found by its shape.
    pub rule: Option<usize>,
    /// By the rule's checks.
    pub confidence: Confidence,
    /// Whether the registry seems to have it.
    pub known: bool,
    /// The key itself.
    pub secret: S,
}

impl Candidate {
    /// What people may see of it.
    #[must_use]
    pub fn hint(&self, rules: &RuleSet) -> String {
        let rule = self.rule.and_then(|index| rules.rule(index));
        let prefix = rule.and_then(|rule| rule.prefix_of(self.secret.expose())).unwrap_or("");
        self.secret.hint(prefix)
    }
}

/// Reads one stream through a sliding buffer. Every start of a hit falls into exactly one
/// *decided* stretch, and a hit is decided only once all the text it depends on is there.
pub struct Scanner {
    buffer: Buffer,
    /// Offset in the stream of the first byte of the buffer.
    base: u64,
    /// Starts before this place of the buffer are decided.
    decided: usize,
    /// Newlines before the buffer's byte `decided`.
    lines: u64,
    /// Offset in the stream at which the line of the buffer's first byte begins.
    line_start: u64,
    groups: Groups<Option<Secret>>,
    hits: Vec<Hit>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: Buffer::default(),
            base: 0,
            decided: 0,
            lines: 0,
            line_start: 0,
            groups: Groups::default(),
            hits: Vec::new(),
        }
    }

    /// Starts over at a position whose last `context` bytes are fed first.
    pub fn restart(&mut self, from: Position, context: usize) {
        self.buffer.clear();
        self.base = from.offset.saturating_sub(context as u64);
        self.decided = context;
        self.lines = from.lines;
        self.line_start = self.base;
        self.groups = Groups::default();
    }

    /// Where the next bytes are to be read to.
    pub fn space(&mut self) -> &mut [u8] {
        let next = (self.buffer.capacity() * GROWTH).clamp(FIRST_BYTES, READ_BYTES);
        self.buffer.space(next)
    }

    /// Puts bytes into the buffer that are not read from anywhere.
    pub(super) fn load(&mut self, text: &[u8]) {
        let mut rest = text;
        while !rest.is_empty() {
            let space = self.space();
            let (part, later) = rest.split_at(space.len().min(rest.len()));
            space.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.buffer.filled(part.len());
            rest = later;
        }
    }

    /// So many bytes were read: decides what can be decided.
    pub fn filled(
        &mut self,
        count: usize,
        matcher: &Matcher,
        known: &dyn Known,
        emit: &mut dyn FnMut(Candidate),
    ) {
        self.buffer.filled(count);
        let len = self.buffer.len();
        // Small reads are gathered: deciding re-reads a span, which must not happen per byte.
        if len < self.decided + 2 * SPAN_MAX {
            return;
        }
        let upto = len - SPAN_MAX - 1;
        self.decide(upto, matcher, known, emit);
        self.slide();
    }

    /// The stream has ended: decides the rest.
    pub fn finish(
        &mut self,
        matcher: &Matcher,
        known: &dyn Known,
        emit: &mut dyn FnMut(Candidate),
    ) {
        self.decide(self.buffer.len(), matcher, known, emit);
        let (text, base) = (self.buffer.text(), self.base);
        self.groups.flush(u64::MAX, &mut |candidate| emit(candidate.whole(text, base)));
    }

    /// Decides a text that is at hand as a whole, where it lies; its first byte is at `base`. What
    /// was found in a text that it is made from is not looked for again. Answers what others can be
    /// spared that are made from this one.
    pub fn whole(
        &mut self,
        (text, base): (&[u8], u64),
        from: Option<Made<'_>>,
        matcher: &Matcher,
        known: &dyn Known,
        emit: &mut dyn FnMut(Candidate),
    ) -> Vec<Mark> {
        let mut hits = std::mem::take(&mut self.hits);
        match from {
            Some(from) => made::find(text, from, matcher, known, &mut hits),
            None => {
                matcher.find(text, 0..text.len(), known, &mut hits);
            }
        }
        let marks = hits.iter().map(made::mark).collect();
        let place = Place { lines: 0, counted: 0, line: base, seen: 0 };
        let mut groups = Groups::default();
        each_placed((text, base), place, &mut hits, &mut |candidate| {
            groups.push(candidate, &mut |candidate| emit(candidate.whole(text, base)));
        });
        groups.flush(u64::MAX, &mut |candidate| emit(candidate.whole(text, base)));
        self.hits = hits;
        marks
    }

    /// The stream has no more for now. Emits what is to be seen as if it had ended; the position
    /// lies behind the last newline, so that a line that goes on later is read again as a whole
    /// (or as far back as a hit can reach).
    pub fn pause(
        &mut self,
        matcher: &Matcher,
        known: &dyn Known,
        emit: &mut dyn FnMut(Candidate),
    ) -> Position {
        let text = self.text();
        let line = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
        let reach = text.len().saturating_sub(SPAN_MAX + 1);
        let resume = line.max(reach).max(self.decided).min(text.len());
        let position = self.position(resume);
        self.finish(matcher, known, emit);
        position
    }

    /// Where reading stands at the end of what was fed.
    #[must_use]
    pub fn at_end(&self) -> Position {
        self.position(self.buffer.len())
    }

    fn text(&self) -> &[u8] {
        self.buffer.text()
    }

    /// Of a place that is not decided yet.
    fn lines_before(&self, at: usize) -> u64 {
        self.lines + newlines(self.text().get(self.decided..at).unwrap_or_default())
    }

    fn position(&self, at: usize) -> Position {
        let before = self.text().get(..at).unwrap_or_default();
        let context = before.get(at.saturating_sub(CONTEXT_MAX)..).unwrap_or_default();
        Position {
            offset: self.base + at as u64,
            lines: self.lines_before(at),
            marker: marker(context),
        }
    }

    fn decide(
        &mut self,
        upto: usize,
        matcher: &Matcher,
        known: &dyn Known,
        emit: &mut dyn FnMut(Candidate),
    ) {
        if upto <= self.decided {
            return;
        }
        let mut hits = std::mem::take(&mut self.hits);
        let starts = self.decided..upto;
        let newlines = matcher.find(self.text(), starts.clone(), known, &mut hits);
        let place =
            Place { lines: self.lines, counted: starts.start, line: self.line_start, seen: 0 };
        self.lines += newlines;
        let (text, base) = (self.buffer.text(), self.base);
        let groups = &mut self.groups;
        each_placed((text, base), place, &mut hits, &mut |candidate| {
            groups.push(candidate, &mut |candidate| emit(candidate.whole(text, base)));
        });
        self.hits = hits;
        self.decided = upto;
        groups.flush(base + upto as u64, &mut |candidate| emit(candidate.whole(text, base)));
        groups.keep(text, base);
    }

    /// Drops what no later hit can depend on.
    fn slide(&mut self) {
        let drop = self.decided.saturating_sub(CONTEXT_MAX);
        let dropped = self.text().get(..drop).unwrap_or_default();
        if let Some(last) = memchr::memrchr(b'\n', dropped) {
            self.line_start = self.base + last as u64 + 1;
        }
        self.buffer.drop_front(drop);
        self.base += drop as u64;
        self.decided -= drop;
    }
}

/// Tells where in the stream all hits of a text are, in order, and empties the list.
pub(super) fn each_placed(
    (text, base): (&[u8], u64),
    mut place: Place,
    hits: &mut Vec<Hit>,
    take: &mut dyn FnMut(Candidate<Option<Secret>>),
) {
    Hit::sort(hits);
    // What lies between two is looked at once.
    for hit in hits.drain(..) {
        let Range { start, end } = hit.span;
        place.move_to(text, start, base);
        let offset = base + start as u64;
        take(Candidate {
            start: offset,
            end: base + end as u64,
            line: place.lines + 1,
            column: offset - place.line + 1,
            rule: hit.rule,
            confidence: hit.confidence,
            known: hit.known,
            secret: None,
        });
    }
}

/// A place of the buffer, and the line it is in.
pub(super) struct Place {
    /// Newlines before it.
    pub(super) lines: u64,
    /// Up to where they are counted.
    pub(super) counted: usize,
    /// Offset in the stream at which its line begins.
    pub(super) line: u64,
    /// Up to where the text was searched for that.
    pub(super) seen: usize,
}

impl Place {
    /// Moves on, never back.
    fn move_to(&mut self, text: &[u8], to: usize, base: u64) {
        self.lines += newlines(text.get(self.counted..to).unwrap_or_default());
        self.counted = self.counted.max(to);
        let part = text.get(self.seen..to).unwrap_or_default();
        if let Some(at) = memchr::memrchr(b'\n', part) {
            self.line = base + (self.seen + at) as u64 + 1;
        }
        self.seen = to;
    }
}

fn newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}
