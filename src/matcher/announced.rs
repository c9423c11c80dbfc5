//! Keys without a prefix that a word or an id near them announces. What is rare is asked first: a
//! stretch of the pattern's alphabet that is as long as a match, with a digit in it and nothing
//! glued to it; then whether any word at all stands near it, by the means by which prefixes are
//! found; the pattern last.

use std::ops::Range;

use super::prefixes::Prefixes;
use super::runs::{self, Width};
use crate::rule::{Rule, RuleSet, Within, ends_in_escape};

/// Alphabets that are told apart at one look; what more there are is looked at one by one.
const GROUPS_MAX: usize = 63;
/// Joins that lengths are looked at for; rules with others are looked for in every run.
const JOINS_MAX: usize = 8;
/// Letters and digits of an escape.
const ESCAPE_MAX: usize = 5;
/// Characters that pad base64.
const PADDING_MAX: usize = 2;

/// Rules whose matches lie in runs of one class.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    /// By what else than letters and digits belongs to an alphabet: the alphabets that there are. A
    /// match is made of whole words, and what joins them.
    joins: Vec<u8>,
    /// By byte: a bit for each group whose alphabet holds it; the last stands for all beyond.
    members: Vec<u64>,
    /// A bit for each length of a match of any rule.
    any_length: u128,
    /// Their runs are narrow: `_`, `-` and `.` alone stand between words.
    narrow: bool,
}

/// Rules with the same alphabet.
pub(super) struct Group {
    /// A bit for each ASCII character.
    alphabet: u128,
    /// The same, by byte.
    holds: Vec<bool>,
    /// Which of the joins.
    join: usize,
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
    lines: usize,
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    rule: usize,
    /// The literal of another rule, where capitals count: in small letters, hex digits are full of
    /// some of them.
    literal: Option<String>,
}

/// Stretches that are as long as a match, with the rules' alphabet.
pub(super) type Stretches<'a> = Vec<(Range<usize>, &'a Group)>;

impl Announced {
    /// Takes the rules without a literal out of a set.
    pub(super) fn new(set: &RuleSet) -> Self {
        let (mut narrow, mut wide) =
            (Groups { narrow: true, ..Groups::default() }, Groups::default());
        let mut words: Vec<(String, Owner)> = Vec::new();
        for (index, rule) in set.rules().iter().enumerate().filter(|(_, rule)| rule.is_announced())
        {
            match rule.facts.within {
                Within::Runs => narrow.add(index, rule),
                Within::WideRuns | Within::Anything => wide.add(index, rule),
            }
            let own = rule.keywords.iter().map(|word| (word.to_string(), None));
            let beside = set.rules().iter().filter(|other| rule.beside.contains(&other.id));
            let ids = beside.flat_map(|other| other.prefixes.iter());
            let ids = ids.map(|id| (id.to_ascii_lowercase(), Some(id.to_string())));
            let owner = |literal| Owner { rule: index, literal };
            words.extend(own.chain(ids).map(|(word, literal)| (word, owner(literal))));
        }
        words.sort_unstable();
        let words: Vec<(&str, Owner)> =
            words.iter().map(|(word, owner)| (word.as_str(), owner.clone())).collect();
        let (texts, owners) = super::grouped(&words);
        Self { narrow, wide, words: Prefixes::new(texts, true), owners }
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

    /// Calls with each place in the run at which a match may begin, and the rule. `stretches`: room
    /// to be used again.
    pub(super) fn each<'a>(
        &'a self,
        text: &[u8],
        width: Width,
        run: Range<usize>,
        stretches: &mut Stretches<'a>,
        found: &mut dyn FnMut(usize, usize),
    ) {
        stretches.clear();
        self.groups(width).each(text, run, &mut |group, stretch| stretches.push((stretch, group)));
        // Several alphabets may see the same.
        for same in stretches.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((stretch, _)) = same.first() else { continue };
            let members = || {
                let all = same.iter().flat_map(|(_, group)| &group.rules);
                all.filter(|member| has(member.lengths, stretch.len()))
            };
            self.near(text, stretch, &members, &mut |rule| found(stretch.start, rule));
        }
    }

    /// Calls with those of the rules one of whose words stands near; maybe more than once.
    fn near<'a, M: Iterator<Item = &'a Member>>(
        &self,
        text: &[u8],
        stretch: &Range<usize>,
        members: &dyn Fn() -> M,
        found: &mut dyn FnMut(usize),
    ) {
        let before = members().map(|member| member.before).max().unwrap_or_default();
        let after = members().map(|member| member.after).max().unwrap_or_default();
        let sides = [
            stretch.start.saturating_sub(before)..stretch.start,
            stretch.end..text.len().min(stretch.end + after),
        ];
        // No further than the rules look: over so many line breaks at most.
        let lines = members().map(|member| member.lines).max().unwrap_or_default();
        let [before, after] = sides.clone().map(|side| text.get(side).unwrap_or_default());
        let first = memchr::memrchr_iter(b'\n', before).nth(lines).unwrap_or_default();
        let last = memchr::memchr_iter(b'\n', after).nth(lines).unwrap_or(after.len());
        let [before, after] = sides;
        let sides = [before.start + first..before.end, after.start..after.start + last];
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
    fn add(&mut self, index: usize, rule: &Rule) {
        let facts = rule.facts;
        // What is given a value by a `=` is no part of it, so padding is left out of stretches.
        let padding = if facts.alphabet >> b'=' & 1 == 1 { PADDING_MAX } else { 0 };
        let alphabet = facts.alphabet & !(1 << b'=');
        let shortest = facts.match_min.saturating_sub(padding);
        let lengths = (shortest..=facts.match_max.min(127)).fold(0, |all, len| all | 1 << len);
        let member = Member {
            rule: index,
            lengths,
            before: rule.before,
            after: rule.after,
            lines: rule.lines,
        };
        self.any_length |= lengths;
        if let Some(group) = self.groups.iter_mut().find(|group| group.alphabet == alphabet) {
            group.shortest = group.shortest.min(shortest);
            group.lengths |= lengths;
            group.rules.push(member);
            return;
        }
        let joining = (0..128u8).filter(|byte| alphabet >> byte & 1 == 1);
        let joining = joining.fold(0, |joining, byte| joining | separator(byte));
        let join = self.joins.iter().position(|known| *known == joining).unwrap_or_else(|| {
            self.joins.push(joining);
            self.joins.len() - 1
        });
        let holds: Vec<bool> =
            (0..=255u8).map(|byte| byte < 128 && alphabet >> byte & 1 == 1).collect();
        self.members.resize(256, 1 << GROUPS_MAX);
        if self.groups.len() < GROUPS_MAX {
            for (members, holds) in self.members.iter_mut().zip(&holds) {
                *members |= u64::from(*holds) << self.groups.len();
            }
        }
        let rules = vec![member];
        self.groups.push(Group { alphabet, holds, join, shortest, lengths, rules });
    }

    /// Calls with each maximal stretch of a group's alphabet that is as long as one of its matches.
    fn each<'a>(
        &'a self,
        text: &[u8],
        run: Range<usize>,
        found: &mut dyn FnMut(&'a Group, Range<usize>),
    ) {
        let bytes = text.get(run.clone()).unwrap_or_default();
        if self.is_word(bytes) && !after_escape(text, run.start) {
            if has(self.any_length, run.len()) && !is_glued(text, run.clone()) {
                let of = |byte: &u8| self.members.get(usize::from(*byte)).copied();
                let holding = bytes.iter().fold(u64::MAX, |all, b| all & of(b).unwrap_or(0));
                let fits = |(index, group): &(usize, &Group)| {
                    holding >> (*index).min(GROUPS_MAX) & 1 == 1 && has(group.lengths, run.len())
                };
                let groups = self.groups.iter().enumerate().filter(fits);
                groups.for_each(|(_, group)| found(group, run.clone()));
            }
            return;
        }
        // Names in source text are nearly all without.
        if !bytes.iter().fold(false, |digit, byte| digit | byte.is_ascii_digit()) {
            return;
        }
        let lengths = self.lengths(text, run.clone());
        let fits = |group: &&Group| {
            lengths.get(group.join).is_none_or(|lengths| lengths & group.lengths != 0)
        };
        for group in self.groups.iter().filter(fits) {
            group.each(text, run.clone(), found);
        }
    }

    /// Whether a run, as most are, is of one word for all groups: a match is all of it, or nothing.
    fn is_word(&self, run: &[u8]) -> bool {
        let joined = |byte: u8| self.joins.iter().all(|join| join & separator(byte) != 0);
        memchr::memchr3(b'_', b'-', b'.', run).is_none()
            && (self.narrow || memchr::memchr2(b'=', b'~', run).is_none())
            && (self.narrow
                || (joined(b'+') && joined(b'/'))
                || memchr::memchr2(b'+', b'/', run).is_none())
    }

    /// By join: a bit for each length of joined words.
    fn lengths(&self, text: &[u8], run: Range<usize>) -> [u128; JOINS_MAX] {
        let (mut lengths, mut begun) = ([0; JOINS_MAX], [run.start; JOINS_MAX]);
        let mut ends = |at: usize, separator: u8| {
            for ((join, lengths), begun) in self.joins.iter().zip(&mut lengths).zip(&mut begun) {
                if join & separator == 0 {
                    *lengths |= 1 << (at - *begun).min(127);
                    *begun = at + 1;
                }
            }
        };
        let bytes = text.get(run.clone()).unwrap_or_default();
        for (at, byte) in bytes.iter().enumerate() {
            let separator = separator(*byte);
            if separator != 0 {
                ends(run.start + at, separator);
            }
        }
        ends(run.end, 0);
        if after_escape(text, run.start) {
            for lengths in &mut lengths {
                *lengths = (0..=ESCAPE_MAX).fold(0, |all, less| all | *lengths >> less);
            }
        }
        lengths
    }
}

impl Group {
    fn each<'a>(
        &'a self,
        text: &[u8],
        run: Range<usize>,
        found: &mut dyn FnMut(&'a Self, Range<usize>),
    ) {
        let outside = |at: &usize| {
            let byte = text.get(*at).copied().unwrap_or_default();
            !self.holds.get(usize::from(byte)).copied().unwrap_or_default()
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

/// What stands between words: a bit for each, none for letters and digits.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static SEPARATORS: [u8; 256] = {
    let mut table = [128; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'_' => 1,
            b'-' => 2,
            b'.' => 4,
            b'+' => 8,
            b'/' => 16,
            b'=' => 32,
            b'~' => 64,
            _ if byte.is_ascii_alphanumeric() => 0,
            _ => 128,
        };
        byte += 1;
    }
    table
};

fn separator(byte: u8) -> u8 {
    SEPARATORS.get(usize::from(byte)).copied().unwrap_or_default()
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

/// Whether a stretch is a part of a longer word, or of base64, or without a digit. The rule's own
/// check is narrower; this one is asked first.
fn is_glued(text: &[u8], stretch: Range<usize>) -> bool {
    let before = stretch.start.checked_sub(1).and_then(|at| text.get(at)).copied();
    let after = text.get(stretch.end).copied().unwrap_or_default();
    let base64 = |byte| matches!(byte, b'+' | b'/');
    let bytes = text.get(stretch).unwrap_or_default();
    after.is_ascii_alphanumeric()
        || !bytes.iter().any(u8::is_ascii_digit)
        || before.is_some_and(|before| base64(before) && (base64(after) || after == b'='))
}
