//! Overlapping candidates: which of them stay.

use std::collections::VecDeque;

use super::Candidate;

/// Overlapping hits that are weighed against each other; more are decided in parts.
const GROUP_MAX: usize = 64;

/// Candidates of one stream, in order of their starts, until it is clear with what they overlap.
#[derive(Debug, Default)]
pub(super) struct Groups(VecDeque<Candidate>);

impl Groups {
    pub(super) fn push(&mut self, candidate: Candidate) {
        self.0.push_back(candidate);
    }

    /// Emits the groups of overlapping candidates to which nothing can be added any more: those
    /// that end before `decided`.
    pub(super) fn flush(&mut self, decided: u64, emit: &mut dyn FnMut(Candidate)) {
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

/// Of overlapping candidates the best stay: registered ones all, then the surest, the first, the
/// longest. A registered key found by its shape takes over the rule that sees the same bytes.
fn resolve(mut group: Vec<Candidate>, emit: &mut dyn FnMut(Candidate)) {
    group.sort_by_key(|c| {
        let rank = (!c.known, std::cmp::Reverse(c.confidence), c.start);
        (rank, std::cmp::Reverse(c.end), c.rule.is_none())
    });
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in group {
        let overlaps =
            |other: &Candidate| other.start < candidate.end && candidate.start < other.end;
        let same = |other: &Candidate| other.start == candidate.start && other.end == candidate.end;
        let beaten =
            if candidate.known { kept.iter().any(same) } else { kept.iter().any(overlaps) };
        if !beaten {
            kept.push(candidate);
        }
    }
    kept.sort_by_key(|candidate| (candidate.start, candidate.end));
    kept.into_iter().for_each(emit);
}
