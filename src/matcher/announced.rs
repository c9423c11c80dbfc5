//! Keys without a prefix that a word or an id near them announces. The words are looked for
//! everywhere, as they are rare; near them, stretches of a pattern's alphabet that are as long as a
//! match, with a digit in them and nothing glued to them; the pattern is asked last.

use std::collections::BTreeMap;
use std::ops::Range;

use super::runs::{Marks, Width};
use super::sought::{self, Announces};
use crate::rule::{Rule, RuleSet, Within, ends_in_escape};

/// Alphabets that are told apart at one look; what more there are is looked at one by one.
const GROUPS_MAX: usize = 63;
/// Joins that lengths are looked at for; rules with others are looked for in every run.
const JOINS_MAX: usize = 8;
/// Letters and digits of an escape.
const ESCAPE_MAX: usize = 5;
/// Characters that pad base64.
const PADDING_MAX: usize = 2;
/// Longest stretch that may hold a match, with what may stand before and behind the match in it: the
/// length of one is a bit of 128.
pub(super) const STRETCH_MAX: usize = u128::BITS as usize + ESCAPE_MAX + PADDING_MAX;

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

/// A rule without a literal.
pub(super) struct Member {
    pub(super) rule: usize,
    lengths: u128,
    before: usize,
    after: usize,
    /// What announces it, in no order.
    signs: Vec<usize>,
}

/// All rules without a literal.
pub(super) struct Announced {
    narrow: Groups,
    wide: Groups,
    /// In the order of [`sought::announcing`]: what each says.
    words: Vec<Word>,
    /// By sign: how far it reaches.
    reaches: Vec<Reach>,
    /// How far before a key its signs may begin, and behind it, at most.
    pub(super) reach: Reach,
}

/// How far signs may be from a key: before its start they begin, and behind its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    pub(super) before: usize,
    pub(super) after: usize,
}

/// A text that announces keys.
pub(super) enum Word {
    /// A keyword of so many bytes, which is a sign itself.
    Keyword { sign: usize, length: usize },
    /// What ids of other rules begin with: the sign that an id of each is.
    Ids(Vec<(usize, usize)>),
}

/// A sign, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) sign: usize,
    pub(super) end: usize,
    pub(super) start: usize,
}

/// Where signs stand: those of one sign follow each other both by their starts and by their ends, as one
/// that holds another one of its kind says no more than that.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: Vec<Place>,
    /// By sign: which these are.
    of: Vec<Range<usize>>,
}

impl Places {
    /// In any order.
    pub(super) fn of(mut signs: Vec<Place>) -> Self {
        signs.sort_unstable();
        let mut all: Vec<Place> = Vec::with_capacity(signs.len());
        for place in signs {
            let last = || all.last().copied().filter(|last| last.sign == place.sign);
            if last().is_some_and(|last| last.start >= place.start) {
                continue;
            }
            if last().is_some_and(|last| last.end == place.end) {
                all.pop();
            }
            all.push(place);
        }
        let mut of = Vec::new();
        for (index, place) in all.iter().enumerate() {
            of.resize(of.len().max(place.sign + 1), 0..0);
            let Some(range) = of.get_mut(place.sign) else { continue };
            *range = if range.end == 0 { index..index + 1 } else { range.start..index + 1 };
        }
        Self { all, of }
    }

    pub(super) fn all(&self) -> &[Place] {
        &self.all
    }

    /// Whether one of these lies in a part of the text.
    fn lie_in(&self, sign: usize, part: &Range<usize>) -> bool {
        let own = self.of.get(sign).and_then(|range| self.all.get(range.clone()));
        let own = own.unwrap_or_default();
        let behind = own.partition_point(|place| place.end <= part.end);
        let last = behind.checked_sub(1).and_then(|last| own.get(last));
        last.is_some_and(|last| last.start >= part.start)
    }
}

/// A run, and what was seen of it (`None`: it is too long).
pub(super) struct Run {
    pub(super) span: Range<usize>,
    pub(super) marks: Option<Marks>,
}

/// Stretches that are as long as a match, with the rules' alphabet.
pub(super) type Stretches<'a> = Vec<(Range<usize>, &'a Group)>;

impl Announced {
    /// Takes the rules without a literal out of a set, and what announces them.
    pub(super) fn new(set: &RuleSet, words: BTreeMap<sought::Word<'_>, Announces>) -> Self {
        let mut all = Self {
            narrow: Groups::default(),
            wide: Groups::default(),
            words: Vec::with_capacity(words.len()),
            reaches: Vec::new(),
            reach: Reach::default(),
        };
        // By rule: its signs. Keywords come first, ids are signs by their rule.
        let mut signs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut ids: BTreeMap<usize, usize> = BTreeMap::new();
        for ((text, _), Announces { rules, ids: begun, .. }) in words {
            let mut new = || {
                all.reaches.push(Reach::default());
                all.reaches.len() - 1
            };
            all.words.push(match begun.is_empty() {
                true => {
                    let sign = new();
                    for rule in rules {
                        signs.entry(rule).or_default().push(sign);
                    }
                    Word::Keyword { sign, length: text.len() }
                }
                false => {
                    let sign = |(id, rule)| {
                        let sign = *ids.entry(id).or_insert_with(&mut new);
                        signs.entry(rule).or_default().push(sign);
                        (sign, id)
                    };
                    let mut ids: Vec<_> = begun.into_iter().map(sign).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    Word::Ids(ids)
                }
            });
        }
        for (index, mut signs) in signs {
            let Some(rule) = set.rule(index) else { continue };
            signs.sort_unstable();
            signs.dedup();
            for sign in &signs {
                all.reaches.get_mut(*sign).into_iter().for_each(|reach| reach.grow(rule));
            }
            all.reach.grow(rule);
            match rule.facts.within {
                Within::Runs => all.narrow.add((index, rule), signs),
                Within::WideRuns | Within::Anything => all.wide.add((index, rule), signs),
            }
        }
        all
    }

    /// What a word says.
    pub(super) fn word(&self, index: usize) -> Option<&Word> {
        self.words.get(index)
    }

    /// Where keys may start that a sign announces.
    pub(super) fn starts(&self, place: &Place) -> Range<usize> {
        let reach = self.reaches.get(place.sign).copied().unwrap_or_default();
        let back = if reach.after == 0 { 0 } else { reach.after + STRETCH_MAX };
        place.start.saturating_sub(back)..place.start + reach.before + 1
    }

    /// Whether there is anything in a run that may be announced: names in source text are nearly all
    /// without a digit.
    pub(super) fn may_hold(&self, width: Width, run: &Run) -> bool {
        self.shortest(width).is_some_and(|shortest| shortest <= run.span.len())
            && run.marks.is_none_or(|marks| marks.has_digit)
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

    /// Calls with each place in the run at which a match may begin, and the rule, where one of its
    /// signs seems near enough. `stretches`: room to be used again.
    pub(super) fn each<'a>(
        &'a self,
        text: &[u8],
        (width, run): (Width, &Run),
        places: &Places,
        stretches: &mut Stretches<'a>,
        found: &mut dyn FnMut(usize, &Member),
    ) {
        stretches.clear();
        self.groups(width).each(text, run, &mut |group, stretch| stretches.push((stretch, group)));
        for (stretch, group) in stretches {
            let Range { start, end } = *stretch;
            for member in group.rules.iter().filter(|member| has(member.lengths, end - start)) {
                let before = start.saturating_sub(member.before)..start;
                let after =
                    if member.after > 0 { start..end + PADDING_MAX + member.after } else { 0..0 };
                if member.is_near([before, after], places) {
                    found(start, member);
                }
            }
        }
    }
}

impl Member {
    /// Whether one of the signs stands in one of two parts of the text.
    pub(super) fn is_near(&self, near: [Range<usize>; 2], places: &Places) -> bool {
        let mut parts = near.into_iter().filter(|part| !part.is_empty());
        parts.any(|part| self.signs.iter().any(|sign| places.lie_in(*sign, &part)))
    }
}

impl Reach {
    fn grow(&mut self, rule: &Rule) {
        self.before = self.before.max(rule.before);
        self.after = self.after.max(rule.after);
    }
}

impl Groups {
    fn add(&mut self, (index, rule): (usize, &Rule), signs: Vec<usize>) {
        let facts = rule.facts;
        // What is given a value by a `=` is no part of it, so padding is left out of stretches.
        let padding = if facts.alphabet >> b'=' & 1 == 1 { PADDING_MAX } else { 0 };
        let alphabet = facts.alphabet & !(1 << b'=');
        let shortest = facts.match_min.saturating_sub(padding);
        let lengths = (shortest..=facts.match_max.min(127)).fold(0, |all, len| all | 1 << len);
        let member = Member { rule: index, lengths, before: rule.before, after: rule.after, signs };
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
    fn each<'a>(&'a self, text: &[u8], run: &Run, found: &mut dyn FnMut(&'a Group, Range<usize>)) {
        let span = run.span.clone();
        let escaped = after_escape(text, span.start);
        if run.marks.is_some_and(|marks| marks.joints == 0) && !escaped {
            if has(self.any_length, span.len()) {
                self.whole(text, span, found);
            }
            return;
        }
        let lengths = self.lengths(text, run, escaped);
        let fits = |group: &&Group| {
            lengths.get(group.join).is_none_or(|lengths| lengths & group.lengths != 0)
        };
        for group in self.groups.iter().filter(fits) {
            group.each(text, span.clone(), found);
        }
    }

    /// The same of a run of letters and digits alone, as most are, of a length of some match: one
    /// is all of it, or nothing.
    fn whole<'a>(
        &'a self,
        text: &[u8],
        run: Range<usize>,
        found: &mut dyn FnMut(&'a Group, Range<usize>),
    ) {
        if is_glued(text, run.clone()) {
            return;
        }
        let of = |byte: &u8| self.members.get(usize::from(*byte)).copied();
        let bytes = text.get(run.clone()).unwrap_or_default();
        let holding = bytes.iter().fold(u64::MAX, |all, b| all & of(b).unwrap_or(0));
        let fits = |(index, group): &(usize, &Group)| {
            holding >> (*index).min(GROUPS_MAX) & 1 == 1 && has(group.lengths, run.len())
        };
        let groups = self.groups.iter().enumerate().filter(fits);
        groups.for_each(|(_, group)| found(group, run.clone()));
    }

    /// By join: a bit for each length of joined words.
    fn lengths(&self, text: &[u8], run: &Run, escaped: bool) -> [u128; JOINS_MAX] {
        let Range { start, end } = run.span;
        let (mut lengths, mut begun) = ([0; JOINS_MAX], [start; JOINS_MAX]);
        let mut ends = |at: usize, separator: u8| {
            for ((join, lengths), begun) in self.joins.iter().zip(&mut lengths).zip(&mut begun) {
                if join & separator == 0 {
                    *lengths |= 1 << (at - *begun).min(127);
                    *begun = at + 1;
                }
            }
        };
        let of = |at: usize| separator(text.get(at).copied().unwrap_or_default());
        match run.marks {
            Some(Marks { mut joints, .. }) => {
                while joints != 0 {
                    let at = start + joints.trailing_zeros() as usize;
                    joints &= joints - 1;
                    ends(at, of(at));
                }
            }
            None => (start..end).filter(|at| of(*at) != 0).for_each(|at| ends(at, of(at))),
        }
        ends(end, 0);
        if escaped {
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn of_signs_within_each_other_none_is_missed(
            signs in proptest::collection::vec((0usize..3, 0usize..30, 1usize..20), 0..30),
            (sign, start, length) in (0usize..4, 0usize..40, 0usize..40),
        ) {
            let place = |(sign, start, length)| Place { sign, start, end: start + length };
            let signs: Vec<Place> = signs.into_iter().map(place).collect();
            let part = start..start + length;
            let lies = |place: &Place| {
                place.sign == sign && place.start >= part.start && place.end <= part.end
            };
            let lie = signs.iter().any(lies);
            proptest::prop_assert_eq!(Places::of(signs).lie_in(sign, &part), lie);
        }
    }
}
