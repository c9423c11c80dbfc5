//! The end of a pattern. Where the first end of a match does not fit, as a letter or digit stands
//! behind it, another one may: before what the last parts took and could have left.

use std::ops::Range;

use super::{Bytes, Memory, Part, REMEMBERED, SHORT, Step, end_of};

/// Parts up to the end of the pattern.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) parts: Vec<Part>,
    /// The last part that a match cannot do without, and how many bytes of that.
    last: usize,
    least: usize,
    /// Whether a match may end within what it and those behind it took.
    pub(super) shortens: bool,
    /// Whether a match has no other ends than that.
    pub(super) is_exact: bool,
}

/// Stretches of letters and digits in one text, as far as was looked back.
#[derive(Debug, Default)]
pub(super) struct Joined {
    stretches: Vec<Stretch>,
    /// Which of them was made last, once there are enough.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: usize,
    end: usize,
    /// Whether the byte before it is no letter or digit.
    ended: bool,
}

impl Tail {
    pub(super) fn of(parts: &[Part], shortens: bool) -> Self {
        let needed = |part: &Part| match part {
            Part::Step(step) => step.least > 0,
            Part::Group(group) => group.least > 0,
        };
        let last = parts.iter().rposition(needed).unwrap_or_default();
        let behind = parts.get(last..).unwrap_or_default();
        let steps: Option<Vec<&Step>> = behind.iter().map(Part::step).collect();
        let is_exact = steps.is_some();
        let steps = steps.unwrap_or_default();
        // Of steps that end the pattern, each stops where it will.
        let varies = steps.iter().any(|step| step.least < step.most);
        let separates = steps.iter().any(|step| has_separator(&step.bytes));
        Self {
            parts: parts.to_vec(),
            last,
            least: steps.first().map_or(0, |step| step.least),
            shortens: shortens && varies && separates,
            is_exact,
        }
    }

    /// An end that fits: the first one, or else the last one before it behind which no letter or digit
    /// stands.
    pub(super) fn end(
        &self,
        text: &[u8],
        start: usize,
        memory: &mut Memory,
        fits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (before, last) = self.parts.split_at_checked(self.last)?;
        let at = end_of(before, text, start, memory)?;
        let end = end_of(last, text, at, memory).filter(|end| *end <= text.len())?;
        if fits(end) {
            return Some(end);
        }
        if !self.shortens {
            return None;
        }
        let part = at + self.least..end;
        let shorter = match part.len() {
            // What is short is looked at as quickly as what is remembered.
            ..=SHORT => last_separator(text, part),
            _ => memory.joined.last_separator(text, part),
        };
        shorter.filter(|end| fits(*end))
    }

    /// How many bytes may be looked at for another end.
    pub(super) fn spread(&self) -> usize {
        let behind = self.parts.get(self.last..).unwrap_or_default().iter();
        behind.filter_map(Part::step).fold(0, |sum, step| sum + step.most - step.least)
    }
}

impl Part {
    fn step(&self) -> Option<&Step> {
        match self {
            Self::Step(step) => Some(step),
            Self::Group(_) => None,
        }
    }
}

fn has_separator(bytes: &Bytes) -> bool {
    (0..=u8::MAX).any(|byte| super::has(bytes, byte) && is_separator(&byte))
}

fn is_separator(byte: &u8) -> bool {
    !byte.is_ascii_alphanumeric()
}

/// The last byte of a part of the text that is no letter or digit.
fn last_separator(text: &[u8], part: Range<usize>) -> Option<usize> {
    let at = text.get(part.clone())?.iter().rposition(is_separator)?;
    Some(part.start + at)
}

impl Joined {
    /// The same, by what is remembered.
    fn last_separator(&mut self, text: &[u8], part: Range<usize>) -> Option<usize> {
        let find = |part| last_separator(text, part);
        // The one in which the part ends, or that lies before its end.
        let here = |known: &&mut Stretch| known.start <= part.end && part.start <= known.end;
        let known = self.stretches.iter_mut().filter(here).max_by_key(|known| known.start);
        let Some(known) = known else {
            let at = find(part.clone());
            let start = at.map_or(part.start, |at| at + 1);
            // What is short is looked at again as quickly.
            if part.end - start > SHORT {
                self.add(Stretch { start, end: part.end, ended: at.is_some() }, part.start);
            }
            return at;
        };
        if known.end < part.end {
            if let Some(at) = find(known.end..part.end) {
                if part.end - at > SHORT {
                    let start = at + 1;
                    self.add(Stretch { start, end: part.end, ended: true }, part.start);
                }
                return Some(at);
            }
            known.end = part.end;
        }
        if !known.ended && part.start < known.start {
            let at = find(part.start..known.start);
            (known.start, known.ended) = (at.map_or(part.start, |at| at + 1), at.is_some());
        }
        known.start.checked_sub(1).filter(|at| known.ended && *at >= part.start)
    }

    /// Instead of one that lies behind, or of the oldest.
    fn add(&mut self, new: Stretch, from: usize) {
        if self.stretches.len() < REMEMBERED {
            return self.stretches.push(new);
        }
        let behind = self.stretches.iter().position(|known| known.end < from);
        self.next = behind.unwrap_or((self.next + 1) % REMEMBERED);
        self.stretches.get_mut(self.next).into_iter().for_each(|old| *old = new);
    }
}
