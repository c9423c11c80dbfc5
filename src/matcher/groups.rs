//! Overlapping candidates: which of them stay.

use std::collections::VecDeque;

use std::ops::Range;

use super::Candidate;
use crate::secret::Secret;

/// Overlapping hits that are weighed against each other; more are decided in parts.
const GROUP_MAX: usize = 64;

/// Candidates of one stream, in order of their starts, until it is clear with what they overlap.
/// Most of many never get a copy of their bytes.
#[derive(Debug)]
pub(super) struct Groups<S>(VecDeque<Candidate<S>>);

impl<S> Default for Groups<S> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<S> Groups<S> {
    pub(super) fn push(&mut self, candidate: Candidate<S>) {
        self.0.push_back(candidate);
    }

    /// Emits the groups of overlapping candidates to which nothing can be added any more: those
    /// that end before `decided`.
    pub(super) fn flush(&mut self, decided: u64, emit: &mut dyn FnMut(Candidate<S>)) {
        while let Some(first) = self.0.front() {
            let mut reach = first.end;
            let mut count = 0;
            for candidate in &self.0 {
                if count == GROUP_MAX || (count > 0 && candidate.start >= reach) {
                    break;
                }
                reach = reach.max(candidate.end);
                count += 1;
            }
            if reach > decided && count < GROUP_MAX {
                return;
            }
            resolve(self.0.drain(..count).collect(), emit);
        }
    }
}

impl Groups<Option<Secret>> {
    /// The text, whose first byte is at `base`, goes away: those that wait take what is theirs.
    pub(super) fn keep(&mut self, text: &[u8], base: u64) {
        for candidate in &mut self.0 {
            candidate.secret.get_or_insert_with(|| cut(text, base, candidate.start..candidate.end));
        }
    }
}

/// The bytes of a place of a stream, out of a part of it whose first byte is at `base`.
fn cut(text: &[u8], base: u64, place: Range<u64>) -> Secret {
    let at = |offset: u64| usize::try_from(offset.saturating_sub(base)).unwrap_or(usize::MAX);
    Secret::copy_of(text.get(at(place.start)..at(place.end)).unwrap_or_default())
}

impl Candidate<Option<Secret>> {
    /// With its bytes.
    pub(super) fn whole(self, text: &[u8], base: u64) -> Candidate {
        let Self { start, end, line, column, rule, confidence, known, secret } = self;
        let secret = secret.unwrap_or_else(|| cut(text, base, start..end));
        Candidate { start, end, line, column, rule, confidence, known, secret }
    }
}

/// Of overlapping candidates the best stay: registered ones all, then the surest, the first, the
/// longest. A registered key found by its shape takes over the rule that sees the same bytes.
fn resolve<S>(mut group: Vec<Candidate<S>>, emit: &mut dyn FnMut(Candidate<S>)) {
    group.sort_by_key(|c| {
        let rank = (!c.known, std::cmp::Reverse(c.confidence), c.start);
        (rank, std::cmp::Reverse(c.end), c.rule.is_none())
    });
    let mut kept: Vec<Candidate<S>> = Vec::new();
    for candidate in group {
        let overlaps =
            |other: &Candidate<S>| other.start < candidate.end && candidate.start < other.end;
        let same =
            |other: &Candidate<S>| other.start == candidate.start && other.end == candidate.end;
        let beaten =
            if candidate.known { kept.iter().any(same) } else { kept.iter().any(overlaps) };
        if !beaten {
            kept.push(candidate);
        }
    }
    kept.sort_by_key(|candidate| (candidate.start, candidate.end));
    kept.into_iter().for_each(emit);
}
