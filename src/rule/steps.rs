//! Patterns that need no regex: literals, repeated classes, and groups of such, one after the other,
//! where the next bytes tell which of them they belong to, but for one class before a literal that may
//! have to give back bytes. Nearly all keys are such. They are matched in one go; and where the matches
//! of a long class overlap, each byte is looked at once.

mod ahead;
mod cost;
mod tail;

use regex_syntax::hir::{Class, Hir, HirKind};

use super::assess::{Entropies, ExampleWords, Needs};
use ahead::unclear;
use tail::{Joined, Tail};

/// A set of bytes, a bit each.
type Bytes = [u64; 4];

/// Alternatives that a pattern may have when they are written out.
const SEQUENCES_MAX: usize = 32;
/// Bytes of a literal by which it is seen how much a step has to give back.
const GIVING_MIN: usize = 4;
/// Bytes that are compared as a number.
const HEAD: usize = 8;
/// Alternatives that a group may have, and groups that may stand within each other.
const CHOICES_MAX: usize = 64;
const DEPTH_MAX: usize = 3;
/// Repetitions over this are worth being remembered.
const SHORT: usize = 16;
/// Stretches that are remembered at a time.
const REMEMBERED: usize = 16;

/// A pattern, as sequences of which the first that matches counts.
#[derive(Debug)]
pub(super) struct Steps(Vec<Sequence>);

/// What it begins with, which is seen at one look; what stands before the end; and that.
#[derive(Debug)]
struct Sequence {
    literal: Literal,
    parts: Vec<Part>,
    giving: Option<Giving>,
    tail: Tail,
}

/// Bytes that are always the same.
#[derive(Debug)]
struct Literal {
    bytes: Vec<u8>,
    /// The first of them, and which bits of these count.
    head: u64,
    mask: u64,
}

/// A step that may have to give back bytes, and the literal behind it by which it is seen how many.
#[derive(Debug)]
struct Giving {
    step: Step,
    literal: Literal,
    /// How many bytes it gives back at most.
    most: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Step(Step),
    Group(Group),
}

/// Bytes of a class, so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    bytes: Bytes,
    least: usize,
    most: usize,
}

/// So often one after the other: of these, the first that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    choices: Vec<Vec<Part>>,
    least: usize,
    most: usize,
}

/// What was seen of one text, for matches that begin one after the other and overlap.
#[derive(Debug, Default)]
pub struct Memory {
    /// Up to where bytes of a class go on, as far as was looked.
    stretches: Vec<Stretch>,
    /// Which of them was made last, once there are enough.
    next: usize,
    joined: Joined,
    pub(super) words: ExampleWords,
    pub(super) entropies: Entropies,
    pub(super) needs: Needs,
}

#[derive(Clone, Debug)]
struct Stretch {
    bytes: Bytes,
    start: usize,
    end: usize,
    /// Whether the byte at the end is none of them.
    ended: bool,
}

impl Steps {
    /// `None`: it takes a regex. `shortens`: whether a match may end wherever no letter or digit
    /// stands behind it.
    pub(super) fn of(pattern: &str, shortens: bool) -> Option<Self> {
        let hir = super::hir::parse(pattern).ok()?;
        let all = sequences(&hir)?;
        let made = all.iter().map(|one| Sequence::of(one, shortens));
        let made: Vec<Sequence> = made.collect::<Option<_>>()?;
        // What two have in common must not give back for the first what the other could take.
        let begins_alike = |(one, made): (&Vec<Part>, &Sequence)| {
            let behind = |giving: &Giving| giving.literal.bytes.len() + made.tail.parts.len();
            let common = one.len() - made.giving.as_ref().map_or(0, behind);
            let alike = all.iter().filter(|other| other.get(..common) == one.get(..common));
            made.giving.is_some() && alike.count() > 1
        };
        (!all.iter().zip(&made).any(begins_alike)).then_some(Self(made))
    }

    /// An end that fits of the match that begins at `start`. The first is asked for that a regex would
    /// answer: every part takes all it can.
    pub(super) fn end(
        &self,
        text: &[u8],
        start: usize,
        memory: &mut Memory,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let rest = text.get(start..)?;
        let here = head(rest);
        let mut begun = self.0.iter().filter(|sequence| sequence.literal.begins(rest, here));
        begun.find_map(|sequence| {
            let at = start + sequence.literal.bytes.len();
            let at = end_of(&sequence.parts, text, at, memory)?;
            match &sequence.giving {
                Some(giving) => giving.end(&sequence.tail, text, at, memory, &fits),
                None => sequence.tail.end(text, at, memory, &fits),
            }
        })
    }

    /// Whether an end that fits is found if there is one.
    pub(super) fn are_exact(&self) -> bool {
        self.0.iter().all(|sequence| sequence.tail.is_exact)
    }
}

impl Literal {
    /// Of parts, those with which they begin that are always the same byte; and the others.
    fn of(parts: &[Part]) -> (Self, &[Part]) {
        let bytes: Vec<u8> = parts.iter().map_while(Part::literal).collect();
        let rest = parts.get(bytes.len()..).unwrap_or_default();
        let mask = head(&vec![u8::MAX; bytes.len()]);
        (Self { head: head(&bytes), mask, bytes }, rest)
    }

    /// Whether a text, of which the first bytes are these, begins with it.
    fn begins(&self, text: &[u8], here: u64) -> bool {
        (here ^ self.head) & self.mask == 0
            && (self.bytes.len() <= HEAD || text.starts_with(&self.bytes))
    }
}

/// How many groups stand within each other.
fn depth(parts: &[Part]) -> usize {
    let depths = parts.iter().map(|part| match part {
        Part::Step(_) => 0,
        Part::Group(group) => 1 + group.choices.iter().map(|parts| depth(parts)).max().unwrap_or(0),
    });
    depths.max().unwrap_or(0)
}

fn end_of(parts: &[Part], text: &[u8], start: usize, memory: &mut Memory) -> Option<usize> {
    parts.iter().try_fold(start, |at, part| match part {
        Part::Step(step) => step.end(text, at, memory),
        Part::Group(group) => group.end(text, at, memory),
    })
}

/// The first bytes of a text as a number; zeros where it is shorter.
fn head(bytes: &[u8]) -> u64 {
    let first = bytes.first_chunk().copied().unwrap_or_else(|| {
        let mut first = [0; HEAD];
        first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        first
    });
    u64::from_le_bytes(first)
}

impl Sequence {
    /// `None`: more than one part may have to give back bytes, or one that is a group.
    fn of(parts: &[Part], shortens: bool) -> Option<Self> {
        let mut unclear = unclear(parts);
        let (first, more) = (unclear.next(), unclear.next());
        if more.is_some() || depth(parts) > DEPTH_MAX {
            return None;
        }
        let Some(index) = first else {
            let (literal, parts) = Literal::of(parts);
            let tail = Tail::of(parts, shortens);
            return Some(Self { literal, parts: Vec::new(), giving: None, tail });
        };
        let (before, rest) = parts.split_at_checked(index)?;
        let [Part::Step(step), behind @ ..] = rest else { return None };
        let (literal, parts) = Literal::of(before);
        let (found_by, rest) = Literal::of(behind);
        let giving = Some(Giving::of(step, found_by)?);
        Some(Self { literal, parts: parts.to_vec(), giving, tail: Tail::of(rest, shortens) })
    }
}

impl Giving {
    fn of(step: &Step, literal: Literal) -> Option<Self> {
        if literal.bytes.len() < GIVING_MIN {
            return None;
        }
        // Of its bytes, the first that the step does not take stands where the step ends, or behind that.
        let taken = literal.bytes.iter().take_while(|byte| step.has(**byte)).count();
        let spread = step.most - step.least;
        let most = if taken < literal.bytes.len() { spread.min(taken) } else { spread };
        Some(Self { step: *step, literal, most })
    }

    /// Where a match ends: the step takes as much as leaves one for what stands behind it.
    fn end(
        &self,
        tail: &Tail,
        text: &[u8],
        start: usize,
        memory: &mut Memory,
        fits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let last = self.step.end(text, start, memory)?;
        let least = last.saturating_sub(self.most).max(start + self.step.least);
        (least..=last).rev().find_map(|at| {
            let rest = text.get(at..)?;
            if !self.literal.begins(rest, head(rest)) {
                return None;
            }
            tail.end(text, at + self.literal.bytes.len(), memory, fits)
        })
    }
}

impl Part {
    /// Its byte, if it takes just one.
    fn literal(&self) -> Option<u8> {
        let Self::Step(Step { bytes, least: 1, most: 1 }) = self else { return None };
        let words = || bytes.iter().zip((0..=u8::MAX).step_by(64));
        let is_one = words().map(|(word, _)| word.count_ones()).sum::<u32>() == 1;
        let (word, first) = words().find(|(word, _)| **word != 0)?;
        let nth = u8::try_from(word.trailing_zeros()).ok()?;
        is_one.then_some(first + nth)
    }
}

impl Step {
    fn has(&self, byte: u8) -> bool {
        has(&self.bytes, byte)
    }

    fn end(&self, text: &[u8], at: usize, memory: &mut Memory) -> Option<usize> {
        let end = if self.most > SHORT {
            memory.end(text, at, self)
        } else {
            let rest = text.get(at..)?.iter().take(self.most);
            at + rest.take_while(|byte| self.has(**byte)).count()
        };
        (end - at >= self.least).then_some(end)
    }
}

impl Group {
    fn end(&self, text: &[u8], start: usize, memory: &mut Memory) -> Option<usize> {
        let (mut at, mut count) = (start, 0);
        while count < self.most {
            let mut ends = self.choices.iter().map(|parts| end_of(parts, text, at, memory));
            let Some(end) = ends.find_map(|end| end) else { break };
            (at, count) = (end, count + 1);
        }
        (count >= self.least).then_some(at)
    }
}

impl Memory {
    /// One past the last byte, from `at` on, that a step takes.
    fn end(&mut self, text: &[u8], at: usize, step: &Step) -> usize {
        if !text.get(at).is_some_and(|byte| step.has(*byte)) {
            return at;
        }
        // A pattern may ask for one class at several places.
        let holds =
            |known: &Stretch| known.bytes == step.bytes && (known.start..=known.end).contains(&at);
        let index = self.stretches.iter().position(holds).unwrap_or_else(|| {
            let new = Stretch { bytes: step.bytes, start: at, end: at, ended: false };
            if self.stretches.len() < REMEMBERED {
                self.stretches.push(new);
                return self.stretches.len() - 1;
            }
            // Instead of one that lies behind, or of the oldest.
            let behind = self.stretches.iter().position(|known| known.end < at);
            self.next = behind.unwrap_or((self.next + 1) % REMEMBERED);
            self.stretches.get_mut(self.next).into_iter().for_each(|old| *old = new.clone());
            self.next
        });
        let Some(known) = self.stretches.get_mut(index) else { return at };
        let limit = text.len().min(at + step.most);
        if !known.ended && known.end < limit {
            let rest = text.get(known.end..limit).unwrap_or_default();
            let more = rest.iter().take_while(|byte| step.has(**byte)).count();
            known.end += more;
            known.ended = more < rest.len();
        }
        known.end.min(limit)
    }
}

/// All alternatives written out, in the order in which a regex would try them; what is too many or
/// repeated becomes a group.
fn sequences(hir: &Hir) -> Option<Vec<Vec<Part>>> {
    let all = match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Look(_) => return None,
        HirKind::Literal(literal) => {
            vec![literal.0.iter().map(|byte| once(one(*byte))).collect()]
        }
        HirKind::Class(class) => vec![vec![once(members(class)?)]],
        HirKind::Capture(capture) => sequences(&capture.sub)?,
        HirKind::Repetition(repetition) => {
            let most = repetition.max.filter(|_| repetition.greedy)?;
            let (least, most) = (to_usize(repetition.min)?, to_usize(most)?);
            let inner = sequences(&repetition.sub)?;
            match inner.as_slice() {
                [parts]
                    if let [Part::Step(step @ Step { least: 1, most: 1, .. })] =
                        parts.as_slice() =>
                {
                    vec![vec![Part::Step(Step { least, most, ..*step })]]
                }
                _ if (least, most) == (0, 1) => inner.into_iter().chain([Vec::new()]).collect(),
                [parts] if least == most && least <= SHORT => {
                    vec![vec![parts.as_slice(); least].concat()]
                }
                _ => vec![vec![Part::Group(Group { choices: inner, least, most })]],
            }
        }
        HirKind::Alternation(parts) => {
            let parts: Vec<_> = parts.iter().map(sequences).collect::<Option<_>>()?;
            parts.concat()
        }
        HirKind::Concat(parts) => parts.iter().try_fold(vec![Vec::new()], |before, part| {
            let after = within_bounds(sequences(part)?, SEQUENCES_MAX / before.len())?;
            let joined = before.iter().flat_map(|before| {
                after.iter().map(move |after| [before.as_slice(), after].concat())
            });
            Some(joined.collect())
        })?,
    };
    within_bounds(all, SEQUENCES_MAX)
}

/// As one sequence, if there are more than so many.
fn within_bounds(all: Vec<Vec<Part>>, most: usize) -> Option<Vec<Vec<Part>>> {
    match all.len() {
        count if count <= most => Some(all),
        ..=CHOICES_MAX => Some(vec![vec![Part::Group(Group::of(all))]]),
        _ => None,
    }
}

impl Group {
    /// One of these; none at all, if that comes last.
    fn of(mut choices: Vec<Vec<Part>>) -> Self {
        let least = usize::from(choices.pop_if(|last| last.is_empty()).is_none());
        Self { choices, least, most: 1 }
    }
}

fn to_usize(count: u32) -> Option<usize> {
    usize::try_from(count).ok()
}

fn once(bytes: Bytes) -> Part {
    Part::Step(Step { bytes, least: 1, most: 1 })
}

fn one(byte: u8) -> Bytes {
    std::array::from_fn(|word| if usize::from(byte >> 6) == word { 1 << (byte & 63) } else { 0 })
}

fn has(bytes: &Bytes, byte: u8) -> bool {
    bytes.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
}

fn members(class: &Class) -> Option<Bytes> {
    let Class::Bytes(class) = class else { return None };
    let mut all = [0; 4];
    for byte in class.iter().flat_map(|range| range.start()..=range.end()) {
        all.iter_mut().zip(one(byte)).for_each(|(all, one)| *all |= one);
    }
    Some(all)
}

#[cfg(test)]
pub(super) mod tests;
