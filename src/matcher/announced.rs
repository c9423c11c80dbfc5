//! Keys without a prefix that a word or an id near them announces. What is rare is asked first: a
//! stretch of the pattern's alphabet that is as long as a match, with a digit in it and nothing
//! glued to it; then whether any word at all stands near it, by the means by which prefixes are
//! found; the pattern last.

use std::ops::Range;
use std::sync::OnceLock;

use super::prefixes::Prefixes;
use super::runs::{self, Marks, Width, beginning};
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
    /// In order of the words.
    words: Vec<(String, Owner)>,
    /// How far before a key its words may begin, and behind it, at most.
    reach: (usize, usize),
    /// All of them; made when first asked.
    any: OnceLock<Look>,
    ids: Vec<Id>,
    /// By length of a stretch; made when first asked.
    looks: [OnceLock<Look>; LOOKS],
}

/// Where in one text words and ids stand, as far as was looked.
#[derive(Default)]
pub(super) struct WordsSeen {
    to: usize,
    /// One past the place of the last one.
    last: usize,
}

/// What an id begins with, a bit for each ASCII character that it consists of, and its least length.
type Id = (String, u128, usize);

/// Lengths of stretches.
const LOOKS: usize = u128::BITS as usize;

/// A rule that a word announces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    rule: usize,
    /// The literal of another rule, where capitals count: in small letters, hex digits are full of
    /// some of them.
    literal: Option<String>,
}

/// What is looked for near stretches.
struct Look {
    before: usize,
    after: usize,
    words: Prefixes,
    /// By word: what it announces.
    owners: Vec<Vec<Owner>>,
}

/// A run, and what was seen of it (`None`: it is too long).
pub(super) struct Run {
    pub(super) span: Range<usize>,
    pub(super) marks: Option<Marks>,
}

/// Stretches that are as long as a match, with the rules' alphabet.
pub(super) type Stretches<'a> = Vec<(Range<usize>, &'a Group)>;

impl Announced {
    /// Takes the rules without a literal out of a set.
    pub(super) fn new(set: &RuleSet) -> Self {
        let (mut narrow, mut wide) = (Groups::default(), Groups::default());
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
        let announced = || set.rules().iter().filter(|rule| rule.is_announced());
        let before = announced().map(|rule| rule.before).max().unwrap_or_default();
        let after = announced().map(|rule| rule.after).max().unwrap_or_default();
        let looks = std::array::from_fn(|_| OnceLock::new());
        let is_id = |id: &&Rule| announced().any(|rule| rule.beside.contains(&id.id));
        let ids = set.rules().iter().filter(is_id).flat_map(|id| {
            let (alphabet, length) = (id.facts.alphabet, id.facts.match_min);
            id.prefixes.iter().map(move |prefix| (prefix.to_string(), alphabet, length))
        });
        let ids = ids.collect();
        Self { narrow, wide, words, reach: (before, after), any: OnceLock::new(), ids, looks }
    }

    /// Whether a word may announce a key that lies in these places. They begin where those of the
    /// last call began, or further on.
    pub(super) fn is_near(&self, text: &[u8], places: Range<usize>, seen: &mut WordsSeen) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let from = places.start.saturating_sub(self.reach.0);
        let to = text.len().min(places.end + self.reach.1);
        let unseen = seen.to.max(from)..to;
        if !unseen.is_empty() {
            seen.to = to;
            let all = self.any.get_or_init(|| self.look_for(|_| true));
            runs::each_first(text, unseen, &all.words.firsts, &mut |at, bits| {
                all.words.each(text, at, bits, &mut |place, word| {
                    let here = text.get(place..).unwrap_or_default();
                    let counts = |o: &Owner| o.literal.is_none() || self.may_be_id(here);
                    if all.owners.get(word).into_iter().flatten().any(counts) {
                        seen.last = seen.last.max(place + 1);
                    }
                });
            });
        }
        seen.last > from
    }

    /// Whether there is anything in a run that may be announced: names in source text are nearly all
    /// without a digit.
    pub(super) fn may_hold(&self, width: Width, run: &Run) -> bool {
        self.shortest(width).is_some_and(|shortest| shortest <= run.span.len())
            && run.marks.is_none_or(|marks| marks.has_digit)
    }

    fn may_be_id(&self, text: &[u8]) -> bool {
        let holds = |alphabet: u128, byte: u8| byte < 128 && alphabet >> byte & 1 == 1;
        self.ids.iter().any(|(literal, alphabet, length)| {
            text.starts_with(literal.as_bytes())
                && text.get(..*length).is_some_and(|id| id.iter().all(|b| holds(*alphabet, *b)))
        })
    }

    /// What is looked for near stretches of one length.
    fn look(&self, length: usize) -> Option<&Look> {
        let make = || self.look_for(|member| has(member.lengths, length));
        Some(self.looks.get(length)?.get_or_init(make))
    }

    /// The words of some rules.
    fn look_for(&self, counts: impl Fn(&Member) -> bool) -> Look {
        let all = [&self.narrow, &self.wide].into_iter().flat_map(|groups| &groups.groups);
        let members = all.flat_map(|group| &group.rules);
        let members: Vec<&Member> = members.filter(|member| counts(member)).collect();
        let wanted = |owner: &Owner| members.iter().any(|member| member.rule == owner.rule);
        let words = self.words.iter().filter(|(_, owner)| wanted(owner));
        let words: Vec<(&str, Owner)> =
            words.map(|(word, owner)| (word.as_str(), owner.clone())).collect();
        let mut beginnings = [Vec::new(), Vec::new()];
        let [any_case, exact] = &mut beginnings;
        for (word, owner) in &words {
            match &owner.literal {
                Some(literal) => exact.push(beginning(literal.as_bytes(), false)),
                None => any_case.push(beginning(word.as_bytes(), true)),
            }
        }
        let (texts, owners) = super::grouped(&words);
        Look {
            before: members.iter().map(|member| member.before).max().unwrap_or_default(),
            after: members.iter().map(|member| member.after).max().unwrap_or_default(),
            words: Prefixes::of_words(texts, beginnings),
            owners,
        }
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
        run: &Run,
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
        let Some(look) = self.look(stretch.len()) else { return };
        let sides = [
            stretch.start.saturating_sub(look.before)..stretch.start,
            stretch.end..text.len().min(stretch.end + look.after),
        ];
        for side in sides.into_iter().filter(|side| !side.is_empty()) {
            let near = text.get(..side.end).unwrap_or_default();
            runs::each_first(near, side, &look.words.firsts, &mut |at, bits| {
                look.words.each(near, at, bits, &mut |place, word| {
                    let between = place.min(stretch.end)..place.max(stretch.start);
                    let breaks = || newlines(text.get(between.clone()).unwrap_or_default());
                    let here = near.get(place..).unwrap_or_default();
                    for owner in look.owners.get(word).into_iter().flatten() {
                        let literal = owner.literal.as_deref().unwrap_or_default();
                        let is_near = |m: &Member| m.rule == owner.rule && breaks() <= m.lines;
                        if here.starts_with(literal.as_bytes()) && members().any(is_near) {
                            found(owner.rule);
                        }
                    }
                });
            });
        }
    }
}

fn newlines(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
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
