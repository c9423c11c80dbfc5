//! Where matches end: at the first end that the pattern gives, if what stands behind it may stand there,
//! or else at another one.

use std::cell::Cell;
use std::sync::OnceLock;

use regex::bytes::Regex;

use super::steps::{Memory, Steps};
use super::{Right, Rule};

const REGEX_SIZE_LIMIT_BYTES: usize = 1 << 20;

/// A pattern, ready to be looked for.
#[derive(Debug)]
pub(super) struct Pattern {
    first: First,
    /// Made where the first end does not fit; of most patterns never.
    other: OnceLock<Option<Other>>,
}

/// What gives the first end, that which a regex prefers.
#[derive(Debug)]
enum First {
    Steps(Steps),
    /// Anchored at the start of what it is given.
    Regex(Regex),
}

/// The pattern, and behind it one byte that may stand there, or the end of the text.
#[derive(Debug)]
struct Other {
    apart: Regex,
    at_end: Regex,
}

impl Rule {
    /// What needs no regex, of the pattern.
    pub(super) fn steps(&self) -> Option<Steps> {
        // Of what stands alone nothing is left out: it would stand behind.
        Steps::of(&self.pattern, self.right == Right::Boundary && !self.is_announced())
    }

    /// The pattern as a regex, anchored at the start of what it is given.
    pub fn compile(&self) -> Result<Regex, regex::Error> {
        regex(&format!("^(?:{})", self.pattern))
    }

    /// The pattern, and behind it a byte that may stand behind a match. `None`: any may.
    pub(super) fn apart(&self) -> Option<String> {
        if self.right == Right::Any && !self.is_announced() {
            return None;
        }
        let held = (0..128).filter(|byte| self.is_announced() && self.may_hold(*byte));
        let held: String = held.map(|byte: u8| format!("\\x{byte:02x}")).collect();
        Some(format!("(?:{})[^0-9A-Za-z{held}]", self.pattern))
    }

    /// An end of the match that begins at `start` that fits, if there is one: the first one if that
    /// does.
    pub(super) fn end_at(
        &self,
        text: &[u8],
        start: usize,
        memory: &mut Memory,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let compile = || {
            let first = match self.steps() {
                Some(steps) => First::Steps(steps),
                None => First::Regex(self.compile().ok()?),
            };
            Some(Pattern { first, other: OnceLock::new() })
        };
        // Nothing but a rule that did not pass its checks has no pattern.
        let pattern = self.compiled.get_or_init(compile).as_ref()?;
        match &pattern.first {
            First::Steps(steps) if steps.are_exact() => steps.end(text, start, memory, fits),
            First::Steps(steps) => {
                let matches = Cell::new(false);
                let end = steps.end(text, start, memory, |end| {
                    matches.set(true);
                    fits(end)
                });
                let other = || self.other_end(pattern, text, start, &fits);
                end.or_else(|| if matches.get() { other() } else { None })
            }
            First::Regex(regex) => {
                let end = start + regex.find(self.window(text, start)?)?.end();
                let other = || self.other_end(pattern, text, start, &fits);
                if fits(end) { Some(end) } else { other() }
            }
        }
    }

    /// All that a match from `start` on can take, and the byte behind it.
    fn window<'t>(&self, text: &'t [u8], start: usize) -> Option<&'t [u8]> {
        text.get(start..text.len().min(start + self.facts.match_max + 1))
    }

    fn other_end(
        &self,
        pattern: &Pattern,
        text: &[u8],
        start: usize,
        fits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let compile = || {
            let apart = self.apart().unwrap_or_else(|| format!("(?:{})(?s:.)", self.pattern));
            let apart = regex(&format!("^{apart}")).ok()?;
            Some(Other { apart, at_end: regex(&format!("^(?:{})\\z", self.pattern)).ok()? })
        };
        let other = pattern.other.get_or_init(compile).as_ref()?;
        let window = self.window(text, start)?;
        let apart = other.apart.find(window).map(|found| start + found.end() - 1);
        let at_end = || {
            let reaches = start + window.len() == text.len() && other.at_end.is_match(window);
            reaches.then_some(text.len())
        };
        apart.filter(|end| fits(*end)).or_else(|| at_end().filter(|end| fits(*end)))
    }
}

fn regex(pattern: &str) -> Result<Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_SIZE_LIMIT_BYTES)
        .build()
}

#[cfg(test)]
mod tests;
