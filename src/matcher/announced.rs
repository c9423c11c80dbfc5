//! Keys without a prefix that a word or an id near them announces. What is rare is asked first: a
//! stretch of the pattern's alphabet that is as long as a match, with a digit in it and nothing
//! glued to it; then whether any word at all stands near it, by the means by which prefixes are
//! found; the pattern last.

use std::ops::Range;

use aho_corasick::BuildError;

use super::prefixes::Prefixes;
use super::runs::{self, Width};
use crate::rule::{Rule, RuleSet, Within, ends_in_escape};

/// Letters and digits of an escape.
const ESCAPE_MAX: usize = 5;
/// Characters that pad base64.
const PADDING_MAX: usize = 2;

/// Rules whose matches lie in runs of one class.
struct Groups {
    groups: Vec<Group>,
    /// A bit for each length of a match of any rule.
    lengths: u128,
    /// Their runs are narrow: `_`, `-` and `.` alone stand between words.
    narrow: bool,
    /// `+` and `/` belong to the alphabets of all.
    slashed: bool,
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
    before: usize,
    after: usize,
}

/// All rules without a literal.
pub(super) struct Announced {
    narrow: Groups,
    wide: Groups,
    /// The words of all of them.
    words: Prefixes,
    /// By word: what it announces.
    owners: Vec<Vec<Owner>>,
}

/// A rule that a word announces.
struct Owner {
    rule: usize,
    /// The literal of another rule, where capitals count: in small letters, hex digits are full of
    /// some of them.
    literal: Option<String>,
}

impl Announced {
    /// Takes the rules without a literal out of a set.
    pub(super) fn new(set: &RuleSet) -> Result<Self, BuildError> {
        let (mut narrow, mut wide) = (Groups::new(true), Groups::new(false));
        let mut words: Vec<(String, usize, Option<String>)> = Vec::new();
        for (index, rule) in set.rules().iter().enumerate().filter(|(_, rule)| rule.is_announced())
        {
            match rule.facts.within {
                Within::Runs => narrow.add(index, rule),
                Within::WideRuns | Within::Anything => wide.add(index, rule),
            }
            let beside = set.rules().iter().filter(|other| rule.beside.contains(&other.id));
            let ids = beside.flat_map(|other| other.prefixes.iter());
            let ids = ids.map(|id| (id.to_ascii_lowercase(), index, Some(id.to_string())));
            words.extend(
                rule.keywords.iter().map(|word| (word.to_string(), index, None)).chain(ids),
            );
        }
        words.sort_unstable();
        let mut texts: Vec<String> = words.iter().map(|(word, ..)| word.clone()).collect();
        texts.dedup();
        let owners = texts
            .iter()
            .map(|text| {
                let own = words.iter().filter(|(word, ..)| text.starts_with(word.as_str()));
                own.map(|(_, rule, literal)| Owner { rule: *rule, literal: literal.clone() })
                    .collect()
            })
            .collect();
        Ok(Self { narrow, wide, words: Prefixes::new(&texts, true)?, owners })
    }

    fn groups(&self, width: Width) -> &Groups {
        match width {
            Width::Narrow => &self.narrow,
            Width::Wide => &self.wide,
        }
    }

    /// Shortest match of any rule: shorter runs need no look.
    pub(super) fn shortest(&self, width: Width) -> Option<usize> {
        self.groups(width).groups.iter().map(|group| group.shortest).min()
    }

    /// Calls with each place in the run at which a match may begin, and the rule.
    pub(super) fn each(
        &self,
        text: &[u8],
        width: Width,
        run: Range<usize>,
        found: &mut dyn FnMut(usize, usize),
    ) {
        self.groups(width).each(text, run, &mut |group, stretch| {
            let start = stretch.start;
            self.near(text, group, stretch, &mut |rule| found(start, rule));
        });
    }

    /// Calls with the rules of a group that have a match of that length, and one of whose words
    /// stands near; maybe more than once.
    fn near(
        &self,
        text: &[u8],
        group: &Group,
        stretch: Range<usize>,
        found: &mut dyn FnMut(usize),
    ) {
        let fits = |member: &&Member| member.lengths >> stretch.len() & 1 == 1;
        let members = || group.rules.iter().filter(fits);
        let before = members().map(|member| member.before).max().unwrap_or_default();
        let after = members().map(|member| member.after).max().unwrap_or_default();
        let sides = [
            stretch.start.saturating_sub(before)..stretch.start,
            stretch.end..text.len().min(stretch.end + after),
        ];
        for side in sides.into_iter().filter(|side| !side.is_empty()) {
            let near = text.get(..side.end).unwrap_or_default();
            runs::each_first(near, side, &self.words.firsts, &mut |at, bits| {
                self.words.each(near, at, bits, &mut |place, word| {
                    let here = near.get(place..).unwrap_or_default();
                    for owner in self.owners.get(word).into_iter().flatten() {
                        let literal = owner.literal.as_deref().unwrap_or_default();
                        let stands = here.starts_with(literal.as_bytes());
                        if stands && members().any(|member| member.rule == owner.rule) {
                            found(owner.rule);
                        }
                    }
                });
            });
        }
    }
}

impl Groups {
    fn new(narrow: bool) -> Self {
        Self { groups: Vec::new(), lengths: 0, narrow, slashed: true }
    }

    fn add(&mut self, index: usize, rule: &Rule) {
        let facts = rule.facts;
        // What is given a value by a `=` is no part of it, so padding is left out of stretches.
        let padding = if facts.alphabet >> b'=' & 1 == 1 { PADDING_MAX } else { 0 };
        let alphabet = facts.alphabet & !(1 << b'=');
        let shortest = facts.match_min.saturating_sub(padding);
        let lengths = (shortest..=facts.match_max.min(127)).fold(0, |all, len| all | 1 << len);
        let member = Member { rule: index, lengths, before: rule.before, after: rule.after };
        self.lengths |= lengths;
        let slashes = 1 << b'+' | 1 << b'/';
        self.slashed &= alphabet & slashes == slashes;
        match self.groups.iter_mut().find(|group| group.alphabet == alphabet) {
            Some(group) => {
                group.shortest = group.shortest.min(shortest);
                group.lengths |= lengths;
                group.rules.push(member);
            }
            None => self.groups.push(Group { alphabet, shortest, lengths, rules: vec![member] }),
        }
    }

    /// Whether a run is of one word: a match is then all of it, or nothing.
    fn is_word(&self, run: &[u8]) -> bool {
        memchr::memchr3(b'_', b'-', b'.', run).is_none()
            && (self.narrow || memchr::memchr2(b'=', b'~', run).is_none())
            && (self.narrow || self.slashed || memchr::memchr2(b'+', b'/', run).is_none())
    }

    /// Calls with each maximal stretch of a group's alphabet that is as long as one of its matches.
    fn each(&self, text: &[u8], run: Range<usize>, found: &mut dyn FnMut(&Group, Range<usize>)) {
        let bytes = text.get(run.clone()).unwrap_or_default();
        // Whatever is a match ends where words end, and most runs are one word.
        if self.is_word(bytes) && !after_escape(text, run.start) {
            if !has(self.lengths, run.len()) || is_glued(text, run.clone()) {
                return;
            }
            let seen = bytes.iter().fold(0, |seen, byte| seen | 1u128 << (byte & 127));
            let fit = |group: &&Group| seen & !group.alphabet == 0 && has(group.lengths, run.len());
            self.groups.iter().filter(fit).for_each(|group| found(group, run.clone()));
            return;
        }
        // Names in source text are nearly all without.
        if !bytes.iter().fold(false, |digit, byte| digit | byte.is_ascii_digit()) {
            return;
        }
        for group in &self.groups {
            group.each(text, run.clone(), found);
        }
    }
}

impl Group {
    fn each(&self, text: &[u8], run: Range<usize>, found: &mut dyn FnMut(&Self, Range<usize>)) {
        let [low, high] = [self.alphabet & u128::from(u64::MAX), self.alphabet >> 64]
            .map(|half| u64::try_from(half).unwrap_or_default());
        let outside = |at: &usize| {
            let byte = text.get(*at).copied().unwrap_or_default();
            let half = if byte < 64 { low } else { high };
            byte >= 128 || half >> (byte & 63) & 1 == 0
        };
        let mut start = run.start;
        while start + self.shortest <= run.end {
            // From the far end: where stretches are short, most bytes are never looked at.
            let near = (start..start + self.shortest).rev().find(outside);
            if let Some(at) = near {
                start = at + 1;
                continue;
            }
            let end = (start + self.shortest..run.end).find(outside).unwrap_or(run.end);
            for start in starts(text, start).filter(|start| *start < end) {
                if has(self.lengths, end - start) && !is_glued(text, start..end) {
                    found(self, start..end);
                }
            }
            start = end + 1;
        }
    }
}

fn has(lengths: u128, length: usize) -> bool {
    length < 128 && lengths >> length & 1 == 1
}

/// Whether what stands before may be the beginning of an escape.
fn after_escape(text: &[u8], start: usize) -> bool {
    let before = start.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or_default();
    matches!(before, b'\\' | b'%' | b'[' | b';')
}

/// Where a key at the beginning of a stretch may begin: the first letters may belong to an escape.
fn starts(text: &[u8], start: usize) -> impl Iterator<Item = usize> {
    let longest = if after_escape(text, start) { ESCAPE_MAX } else { 0 };
    let ends = move |skipped: usize| text.get(..start + skipped).is_some_and(ends_in_escape);
    (0..=longest)
        .filter(move |skipped| *skipped == 0 || ends(*skipped))
        .map(move |skipped| start + skipped)
}

/// Whether a stretch is a part of a longer word, or of base64. The pattern's own check is narrower;
/// this one is asked first.
fn is_glued(text: &[u8], stretch: Range<usize>) -> bool {
    let before = stretch.start.checked_sub(1).and_then(|at| text.get(at)).copied();
    let after = text.get(stretch.end).copied().unwrap_or_default();
    let base64 = |byte| matches!(byte, b'+' | b'/');
    after.is_ascii_alphanumeric()
        || before.is_some_and(|before| base64(before) && (base64(after) || after == b'='))
}
