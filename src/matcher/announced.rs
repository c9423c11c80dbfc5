//! Keys without a prefix that a word or an id near them announces. What is rare is asked first: a
//! stretch of the pattern's alphabet that is as long as a match, with a digit in it; then the
//! pattern; the words last.

use std::ops::Range;

use crate::rule::Rule;

/// Characters that pad base64.
const PADDING_MAX: usize = 2;

/// Rules whose matches lie in runs of one class.
#[derive(Default)]
pub(super) struct Announced {
    groups: Vec<Group>,
}

/// Rules with the same alphabet.
struct Group {
    /// A bit for each ASCII character.
    alphabet: u128,
    shortest: usize,
    /// A bit for each length of a match, of any of the rules.
    lengths: u128,
    rules: Vec<Member>,
}

struct Member {
    rule: usize,
    lengths: u128,
}

impl Announced {
    pub(super) fn add(&mut self, index: usize, rule: &Rule) {
        let facts = rule.facts;
        // What is given a value by a `=` is no part of it, so padding is left out of stretches.
        let padding = if facts.alphabet >> b'=' & 1 == 1 { PADDING_MAX } else { 0 };
        let alphabet = facts.alphabet & !(1 << b'=');
        let shortest = facts.match_min.saturating_sub(padding);
        let lengths = (shortest..=facts.match_max.min(127)).fold(0, |all, len| all | 1 << len);
        let member = Member { rule: index, lengths };
        match self.groups.iter_mut().find(|group| group.alphabet == alphabet) {
            Some(group) => {
                group.shortest = group.shortest.min(shortest);
                group.lengths |= lengths;
                group.rules.push(member);
            }
            None => self.groups.push(Group { alphabet, shortest, lengths, rules: vec![member] }),
        }
    }

    /// Shortest match of any rule: shorter runs need no look.
    pub(super) fn shortest(&self) -> Option<usize> {
        self.groups.iter().map(|group| group.shortest).min()
    }

    /// Calls with each place in the run at which a match may begin, and the rule.
    pub(super) fn each(&self, text: &[u8], run: Range<usize>, found: &mut dyn FnMut(usize, usize)) {
        let bytes = text.get(run.clone()).unwrap_or_default();
        // Names in source text are nearly all without.
        if !bytes.iter().fold(false, |digit, byte| digit | byte.is_ascii_digit()) {
            return;
        }
        for group in &self.groups {
            let outside = |at: &usize| {
                let byte = text.get(*at).copied().unwrap_or_default();
                byte >= 128 || group.alphabet >> byte & 1 == 0
            };
            let mut start = run.start;
            while start + group.shortest <= run.end {
                // From the far end: where stretches are short, most bytes are never looked at.
                let near = (start..start + group.shortest).rev().find(outside);
                if let Some(at) = near {
                    start = at + 1;
                    continue;
                }
                let end = (start + group.shortest..run.end).find(outside).unwrap_or(run.end);
                group.stretch(start..end, found);
                start = end + 1;
            }
        }
    }
}

impl Group {
    fn stretch(&self, stretch: Range<usize>, found: &mut dyn FnMut(usize, usize)) {
        let length = stretch.len();
        if length < 128 && self.lengths >> length & 1 == 1 {
            for member in self.rules.iter().filter(|member| member.lengths >> length & 1 == 1) {
                found(stretch.start, member.rule);
            }
        }
    }
}
