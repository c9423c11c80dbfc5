//! Overlapping candidates: which of them stay.

use std::collections::VecDeque;
use std::ops::Range;

use super::Candidate;
use crate::rule::Confidence;
use crate::secret::Secret;

/// Overlapping hits that are weighed against each other; more are decided in parts.
const GROUP_MAX: usize = 64;
/// So many may wait: memory that is used again needs not be fetched.
const WAITING_MAX: usize = 4 * GROUP_MAX;

/// Candidates of one stream, in order of their starts, until it is clear with what they overlap.
/// Most of many never get a copy of their bytes.
#[derive(Debug)]
pub(super) struct Groups<S> {
    waiting: VecDeque<Candidate<S>>,
    /// What was kept of a group that is decided in parts, and may overlap with the next of them.
    kept: Vec<Kept>,
}

/// What later candidates of its group are weighed against.
#[derive(Debug)]
struct Kept {
    place: Range<u64>,
    confidence: Confidence,
    known: bool,
}

impl<S> Default for Groups<S> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), kept: Vec::new() }
    }
}

impl<S> Groups<S> {
    /// Takes the next one. Where many wait, those are emitted that can be.
    pub(super) fn push(&mut self, candidate: Candidate<S>, emit: &mut dyn FnMut(Candidate<S>)) {
        let decided = candidate.start;
        self.waiting.push_back(candidate);
        if self.waiting.len() > WAITING_MAX {
            self.flush(decided, emit);
        }
    }

    /// Emits the groups of overlapping candidates to which nothing can be added any more: those
    /// that end before `decided`.
    pub(super) fn flush(&mut self, decided: u64, emit: &mut dyn FnMut(Candidate<S>)) {
        while let Some(first) = self.waiting.front() {
            self.kept.retain(|one| one.place.end > first.start);
            let mut reach = first.end;
            let mut count = 0;
            for candidate in &self.waiting {
                if count == GROUP_MAX || (count > 0 && candidate.start >= reach) {
                    break;
                }
                reach = reach.max(candidate.end);
                count += 1;
            }
            if reach > decided && count < GROUP_MAX {
                return;
            }
            resolve(self.waiting.drain(..count).collect(), &mut self.kept, emit);
        }
    }
}

impl Groups<Option<Secret>> {
    /// The text, whose first byte is at `base`, goes away: those that wait take what is theirs.
    pub(super) fn keep(&mut self, text: &[u8], base: u64) {
        for candidate in &mut self.waiting {
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

impl Kept {
    fn beats<S>(&self, other: &Candidate<S>) -> bool {
        let place = other.start..other.end;
        if other.known {
            return self.known && self.place == place;
        }
        let overlaps = self.place.start < place.end && place.start < self.place.end;
        overlaps && (self.known || self.confidence >= other.confidence)
    }
}

/// Of overlapping candidates the best stay: registered ones all, then the surest, the first, the
/// longest. A registered key found by its shape takes over the rule that sees the same bytes.
fn resolve<S>(
    mut group: Vec<Candidate<S>>,
    kept: &mut Vec<Kept>,
    emit: &mut dyn FnMut(Candidate<S>),
) {
    group.sort_by_key(|c| {
        let rank = (!c.known, std::cmp::Reverse(c.confidence), c.start);
        (rank, std::cmp::Reverse(c.end), c.rule.is_none())
    });
    group.retain(|candidate| {
        let stays = !kept.iter().any(|other| other.beats(candidate));
        if stays {
            let Candidate { start, end, confidence, known, .. } = *candidate;
            kept.push(Kept { place: start..end, confidence, known });
        }
        stays
    });
    group.sort_by_key(|candidate| (candidate.start, candidate.end));
    group.into_iter().for_each(emit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(place: Range<u64>, confidence: Confidence, known: bool) -> Candidate<()> {
        let Range { start, end } = place;
        let (line, column, rule, secret) = (1, start + 1, Some(0), ());
        Candidate { start, end, line, column, rule, confidence, known, secret }
    }

    fn kept(all: &[(Range<u64>, Confidence, bool)], push: bool) -> Vec<Range<u64>> {
        let (mut groups, mut kept) = (Groups::default(), Vec::new());
        let mut emit = |candidate: Candidate<()>| kept.push(candidate.start..candidate.end);
        for (place, confidence, known) in all {
            let candidate = candidate(place.clone(), *confidence, *known);
            if push {
                groups.push(candidate, &mut emit);
            } else {
                groups.waiting.push_back(candidate);
            }
        }
        groups.flush(u64::MAX, &mut emit);
        kept
    }

    #[test]
    fn many_that_overlap_are_one() {
        let mut all: Vec<_> =
            (0..1_000).map(|start| (start..start + 1_500, Confidence::Medium, false)).collect();
        assert_eq!(kept(&all, true), vec![0..1_500; 1]);
        // But for those that are better.
        all[700] = (700..710, Confidence::High, false);
        all[720] = (720..730, Confidence::Low, true);
        all[721] = (721..2_000, Confidence::Low, false);
        all.push((1_600..1_700, Confidence::Medium, false));
        for push in [true, false] {
            assert_eq!(kept(&all, push), [0..1_500, 700..710, 720..730, 1_600..1_700]);
        }
    }
}
