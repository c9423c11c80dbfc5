//! Whether parts can be matched without going back: whether what may follow one, or stand instead of it,
//! begins with other bytes.

use super::{Bytes, Group, Part, Step};

/// So many bytes ahead are looked at.
const AHEAD: usize = 8;

/// What texts begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ahead {
    /// By place, the bytes that may stand there; as many places as all of them have, [`AHEAD`] at most.
    places: Vec<Bytes>,
    /// Whether nothing has to stand there at all, up to the end of the pattern.
    is_free: bool,
}

impl Ahead {
    /// Where the pattern ends.
    fn end() -> Self {
        Self { places: Vec::new(), is_free: true }
    }

    /// Where it is not said what follows.
    fn unknown() -> Self {
        Self::default()
    }

    /// What begins with either.
    fn or(mut self, other: &Self) -> Self {
        self.places.truncate(other.places.len());
        for (place, other) in self.places.iter_mut().zip(&other.places) {
            add(place, other);
        }
        self.is_free |= other.is_free;
        self
    }

    /// Whether nothing begins with both.
    fn excludes(&self, other: &Self) -> bool {
        self.places.iter().zip(&other.places).any(|(one, other)| !meet(one, other))
    }
}

fn meet(one: &Bytes, other: &Bytes) -> bool {
    one.iter().zip(other).any(|(one, other)| one & other != 0)
}

fn add(to: &mut Bytes, more: &Bytes) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to |= more);
}

impl Part {
    /// What begins with it and goes on with that.
    fn ahead(&self, rest: &Ahead) -> Ahead {
        match self {
            Self::Step(step) => step.ahead(rest),
            Self::Group(group) => group.ahead(rest),
        }
    }
}

impl Step {
    fn ahead(&self, rest: &Ahead) -> Ahead {
        let known = AHEAD.min(self.least + rest.places.len());
        let mut places = vec![[0; 4]; known];
        for (place, at) in places.iter_mut().zip(0..) {
            if at < self.most {
                add(place, &self.bytes);
            }
            // After `least` bytes of its own, or more of them.
            let behind = at.saturating_sub(self.most)..(at + 1).saturating_sub(self.least);
            for other in rest.places.get(behind).unwrap_or_default() {
                add(place, other);
            }
        }
        Ahead { places, is_free: self.least == 0 && rest.is_free }
    }
}

impl Group {
    /// Of one of the choices.
    fn choice_ahead(&self, rest: &Ahead) -> Ahead {
        let all = self.choices.iter().map(|parts| ahead(parts, rest));
        all.reduce(|all, choice| all.or(&choice)).unwrap_or_default()
    }

    fn ahead(&self, rest: &Ahead) -> Ahead {
        // Each choice has a byte at least: later ones lie further than is looked.
        let [least, most] = [self.least, self.most].map(|count| count.min(AHEAD));
        let mut all = rest.clone();
        for _ in least..most {
            let more = self.choice_ahead(&all).or(rest);
            if more == all {
                break;
            }
            all = more;
        }
        (0..least).fold(all, |all, _| self.choice_ahead(&all))
    }

    fn is_clear(&self, rest: &Ahead) -> bool {
        let local: Vec<Ahead> =
            self.choices.iter().map(|parts| ahead(parts, &Ahead::unknown())).collect();
        if local.iter().any(|choice| choice.places.is_empty()) {
            return false;
        }
        // After any number of choices, as if it could end there.
        let behind = Self { least: 0, most: AHEAD, choices: self.choices.clone() }.ahead(rest);
        // What cannot fail later need not be tried in another way.
        let is_free = rest.is_free && self.least <= 1;
        let behind = Ahead { is_free, ..behind };
        let whole: Vec<Ahead> = self.choices.iter().map(|parts| ahead(parts, &behind)).collect();
        // Where one of them stands, no later one leads to a match, and neither does it to stop.
        let is_only = |(choice, next): (&Ahead, usize)| {
            whole.iter().skip(next).all(|later| choice.excludes(later))
                && (self.least == self.most || choice.excludes(rest))
        };
        self.choices.iter().all(|parts| is_clear_before(parts, &behind))
            && (is_free || local.iter().zip(1..).all(is_only))
    }
}

fn ahead(parts: &[Part], rest: &Ahead) -> Ahead {
    parts.iter().rev().fold(rest.clone(), |rest, part| part.ahead(&rest))
}

/// Which parts of a pattern may have to give back what they took, the last one first.
pub(super) fn unclear(parts: &[Part]) -> impl Iterator<Item = usize> {
    unclear_before(parts, Ahead::end())
}

fn unclear_before(parts: &[Part], mut rest: Ahead) -> impl Iterator<Item = usize> {
    parts.iter().enumerate().rev().filter_map(move |(index, part)| {
        let is_clear = match part {
            Part::Step(Step { least, most, .. }) if least == most => true,
            Part::Step(step) => {
                rest.is_free || rest.places.first().is_some_and(|next| !meet(&step.bytes, next))
            }
            Part::Group(group) => group.is_clear(&rest),
        };
        rest = part.ahead(&rest);
        (!is_clear).then_some(index)
    })
}

fn is_clear_before(parts: &[Part], rest: &Ahead) -> bool {
    unclear_before(parts, rest.clone()).next().is_none()
}
