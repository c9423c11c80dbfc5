//! What it may take to match a pattern, whatever the text.

use super::tail::Tail;
use super::{Giving, Group, Part, REMEMBERED, SHORT, Sequence, Step, Steps};

/// What steps take, in nanoseconds: one that looks at its bytes itself, one that asks what is
/// remembered; and how many bytes are looked at in one.
const SHORT_NS: usize = 3;
const LONG_NS: usize = 14;
const BYTES_IN_NS: usize = 2;
/// What it takes to see whether a literal stands at a place, as so many bytes.
const LOOKED: usize = 4;
/// What it takes to see whether one of several alternatives begins.
const SEQUENCE_NS: usize = 2;

impl Steps {
    /// What it takes at most to try it at one place of a text, in nanoseconds: all sequences whose
    /// literals begin alike. What is remembered is so for all of them.
    pub(in crate::rule) fn cost(&self) -> usize {
        let alike = |one: &Sequence, other: &Sequence| {
            (one.literal.head ^ other.literal.head) & one.literal.mask & other.literal.mask == 0
        };
        let all = self.0.iter().map(Sequence::cost).fold(Cost::default(), Cost::and);
        let nanoseconds = self.0.iter().map(|one| {
            let together = self.0.iter().filter(|other| alike(one, other));
            let together = together.map(Sequence::cost);
            together.fold(Cost::default(), Cost::and).nanoseconds(all.long > REMEMBERED)
        });
        nanoseconds.max().unwrap_or_default().saturating_add(self.0.len() * SEQUENCE_NS)
    }
}

/// What steps take, if all are tried.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Those that look at their bytes themselves: how many, and how many bytes.
    short: usize,
    bytes: usize,
    /// Those that ask what is remembered: how many, and the bytes that they look at where it is not.
    long: usize,
    forgotten: usize,
}

impl Cost {
    fn of(parts: &[Part]) -> Self {
        parts.iter().map(Part::cost).fold(Self::default(), Self::and)
    }

    fn and(self, other: Self) -> Self {
        Self {
            short: self.short.saturating_add(other.short),
            bytes: self.bytes.saturating_add(other.bytes),
            long: self.long.saturating_add(other.long),
            forgotten: self.forgotten.saturating_add(other.forgotten),
        }
    }

    fn times(self, count: usize) -> Self {
        Self {
            short: self.short.saturating_mul(count),
            bytes: self.bytes.saturating_mul(count),
            long: self.long.saturating_mul(count),
            forgotten: self.forgotten.saturating_mul(count),
        }
    }

    /// `forgets`: whether there is more than is remembered.
    fn nanoseconds(self, forgets: bool) -> usize {
        let looked = if forgets { self.forgotten } else { 0 };
        let asked = self.long.saturating_mul(LONG_NS);
        self.short
            .saturating_mul(SHORT_NS)
            .saturating_add(asked)
            .saturating_add(self.bytes.saturating_add(looked) / BYTES_IN_NS)
    }
}

impl Sequence {
    fn cost(&self) -> Cost {
        let literal = Cost { bytes: self.literal.bytes.len() / 2, ..Cost::default() };
        let tail = match &self.giving {
            Some(giving) => giving.cost(self.tail.cost()),
            None => self.tail.cost(),
        };
        Cost::of(&self.parts).and(tail).and(literal)
    }
}

impl Tail {
    /// Where the first end does not fit, another one is looked for.
    fn cost(&self) -> Cost {
        let asked = match self.spread() {
            bytes @ ..=SHORT => Cost { bytes, ..Cost::default() },
            forgotten => Cost { long: 1, forgotten, ..Cost::default() },
        };
        Cost::of(&self.parts).and(if self.shortens { asked } else { Cost::default() })
    }
}

impl Giving {
    /// What stands behind is tried as often as its literal can stand in what may be given back.
    fn cost(&self, tail: Cost) -> Cost {
        let literal = &self.literal.bytes;
        let fits = |at: &usize| literal.get(*at..).is_some_and(|rest| literal.starts_with(rest));
        let apart = (1..literal.len()).find(fits).unwrap_or(literal.len()).max(1);
        // All of one that repeats is compared at each place.
        let compared = if apart < literal.len() { literal.len() / 2 } else { 0 };
        let looked = Cost { bytes: (LOOKED + compared) * (self.most + 1), ..Cost::default() };
        let step = Cost { short: 2, bytes: literal.len() / 2, ..Cost::default() };
        let rest = tail.and(step).times(self.most / apart + 1);
        Part::Step(self.step).cost().and(looked).and(rest)
    }
}

impl Part {
    fn cost(&self) -> Cost {
        match self {
            Self::Step(Step { most: most @ ..=SHORT, .. }) => {
                Cost { short: 1, bytes: *most, ..Cost::default() }
            }
            Self::Step(Step { most, .. }) => Cost { long: 1, forgotten: *most, ..Cost::default() },
            Self::Group(Group { choices, most, .. }) => {
                let one =
                    choices.iter().map(|parts| Cost::of(parts)).fold(Cost::default(), Cost::and);
                one.and(Cost { short: 1, ..Cost::default() }).times(*most)
            }
        }
    }
}
