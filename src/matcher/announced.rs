//! Keys without a prefix that a word or an id near them announces. What is rare is asked first: a
//! stretch of the pattern's alphabet that is as long as a match, with a digit in it and nothing
//! glued to it; then whether any word at all stands near it, by the means by which prefixes are
//! found; the pattern last.

use std::ops::Range;

use aho_corasick::BuildError;

use super::prefixes::Prefixes;
use super::runs::{self, Classes, Found, Wanted, Width};
use crate::rule::{Rule, RuleSet, Within, ends_in_escape};

/// Letters and digits of an escape.
const ESCAPE_MAX: usize = 5;
/// Characters that pad base64.
const PADDING_MAX: usize = 2;

/// Rules whose matches lie in runs of one class.
#[derive(Default)]
struct Groups(Vec<Group>);

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
    /// The words of all of them, folded.
    words: Prefixes,
    /// By word: the rules that it announces.
    owners: Vec<Vec<usize>>,
    any: Classes,
}

/// Letters without their case, by the one bit that makes it. What it does to other characters is
/// done to those of the words too.
fn fold(byte: u8) -> u8 {
    byte | 0x20
}

impl Announced {
    /// Takes the rules without a literal out of a set.
    pub(super) fn new(set: &RuleSet) -> Result<Self, BuildError> {
        let (mut narrow, mut wide) = (Groups::default(), Groups::default());
        let mut words: Vec<(String, usize)> = Vec::new();
        for (index, rule) in set.rules().iter().enumerate().filter(|(_, rule)| rule.is_announced())
        {
            match rule.facts.within {
                Within::Runs => narrow.add(index, rule),
                Within::WideRuns | Within::Anything => wide.add(index, rule),
            }
            let beside = set.rules().iter().filter(|other| rule.beside.contains(&other.id));
            let ids = beside.flat_map(|other| other.prefixes.iter());
            let folded = |word: &str| word.bytes().map(|byte| char::from(fold(byte))).collect();
            words.extend(rule.keywords.iter().chain(ids).map(|word| (folded(word), index)));
        }
        words.sort_unstable();
        let mut texts: Vec<String> = words.iter().map(|(word, _)| word.clone()).collect();
        texts.dedup();
        let owners = texts
            .iter()
            .map(|text| {
                let own = words.iter().filter(|(word, _)| text.starts_with(word.as_str()));
                own.map(|(_, rule)| *rule).collect()
            })
            .collect();
        let any = Classes::new(|byte| byte < 0x80, |byte| byte < 0x80);
        Ok(Self { narrow, wide, words: Prefixes::new(&texts)?, owners, any })
    }

    fn groups(&self, width: Width) -> &Groups {
        match width {
            Width::Narrow => &self.narrow,
            Width::Wide => &self.wide,
        }
    }

    /// Shortest match of any rule: shorter runs need no look.
    pub(super) fn shortest(&self, width: Width) -> Option<usize> {
        self.groups(width).0.iter().map(|group| group.shortest).min()
    }

    /// Calls with each place in the run at which a match may begin, and the rule.
    pub(super) fn each(
        &self,
        text: &[u8],
        width: Width,
        run: Range<usize>,
        found: &mut dyn FnMut(usize, usize),
    ) {
        let bytes = text.get(run.clone()).unwrap_or_default();
        // Names in source text are nearly all without.
        if !bytes.iter().fold(false, |digit, byte| digit | byte.is_ascii_digit()) {
            return;
        }
        self.groups(width).each(text, run, &mut |group, stretch| {
            for rule in self.near(text, group, &stretch) {
                found(stretch.start, rule);
            }
        });
    }

    /// The rules of a group that have a match of that length, and one of whose words stands near.
    fn near(&self, text: &[u8], group: &Group, stretch: &Range<usize>) -> Vec<usize> {
        let fits = |member: &&Member| member.lengths >> stretch.len() & 1 == 1;
        let members = || group.rules.iter().filter(fits);
        let before = members().map(|member| member.before).max().unwrap_or_default();
        let after = members().map(|member| member.after).max().unwrap_or_default();
        let mut announced = Announcing { words: self, text: Vec::new(), rules: Vec::new() };
        let sides = [
            stretch.start.saturating_sub(before)..stretch.start,
            stretch.end..text.len().min(stretch.end + after),
        ];
        for side in sides {
            let side = text.get(side).unwrap_or_default();
            announced.text.clear();
            announced.text.extend(side.iter().map(|byte| fold(*byte)));
            let wanted = [Wanted { length: Some(1), whole: None }, Wanted::default()];
            let folded = std::mem::take(&mut announced.text);
            let tables = (&self.any, &self.words.firsts);
            let mut seen = Seen { announced: &mut announced, text: &folded };
            runs::each(&folded, 0..folded.len(), tables, wanted, &mut seen);
            announced.text = folded;
        }
        announced.rules.retain(|rule| members().any(|member| member.rule == *rule));
        announced.rules.sort_unstable();
        announced.rules.dedup();
        announced.rules
    }
}

/// Collects the rules whose words are seen.
struct Announcing<'a> {
    words: &'a Announced,
    text: Vec<u8>,
    rules: Vec<usize>,
}

struct Seen<'a, 'b> {
    announced: &'a mut Announcing<'b>,
    text: &'a [u8],
}

impl Found for Seen<'_, '_> {
    fn starts(&mut self, at: usize, bits: u64) {
        let words = self.announced.words;
        words.words.each(self.text, at, bits, &mut |_, word| {
            self.announced.rules.extend(words.owners.get(word).into_iter().flatten());
        });
    }

    fn run(&mut self, _width: Width, _run: Range<usize>) {}
}

impl Groups {
    fn add(&mut self, index: usize, rule: &Rule) {
        let facts = rule.facts;
        // What is given a value by a `=` is no part of it, so padding is left out of stretches.
        let padding = if facts.alphabet >> b'=' & 1 == 1 { PADDING_MAX } else { 0 };
        let alphabet = facts.alphabet & !(1 << b'=');
        let shortest = facts.match_min.saturating_sub(padding);
        let lengths = (shortest..=facts.match_max.min(127)).fold(0, |all, len| all | 1 << len);
        let member = Member { rule: index, lengths, before: rule.before, after: rule.after };
        match self.0.iter_mut().find(|group| group.alphabet == alphabet) {
            Some(group) => {
                group.shortest = group.shortest.min(shortest);
                group.lengths |= lengths;
                group.rules.push(member);
            }
            None => self.0.push(Group { alphabet, shortest, lengths, rules: vec![member] }),
        }
    }

    /// Calls with each maximal stretch of a group's alphabet that is as long as one of its matches.
    fn each(&self, text: &[u8], run: Range<usize>, found: &mut dyn FnMut(&Group, Range<usize>)) {
        for group in &self.0 {
            let outside = |at: &usize| !text.get(*at).is_some_and(|byte| group.holds(*byte));
            let mut start = run.start;
            while start + group.shortest <= run.end {
                // From the far end: where stretches are short, most bytes are never looked at.
                let near = (start..start + group.shortest).rev().find(outside);
                if let Some(at) = near {
                    start = at + 1;
                    continue;
                }
                let end = (start + group.shortest..run.end).find(outside).unwrap_or(run.end);
                for start in starts(text, start).filter(|start| *start < end) {
                    if group.has(end - start) && !is_glued(text, start..end) {
                        found(group, start..end);
                    }
                }
                start = end + 1;
            }
        }
    }
}

impl Group {
    fn has(&self, length: usize) -> bool {
        length < 128 && self.lengths >> length & 1 == 1
    }

    fn holds(&self, byte: u8) -> bool {
        byte < 128 && self.alphabet >> byte & 1 == 1
    }
}

/// Where a key at the beginning of a stretch may begin: the first letters may belong to an escape.
fn starts(text: &[u8], start: usize) -> impl Iterator<Item = usize> {
    let before = start.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or_default();
    let longest = if matches!(before, b'\\' | b'%' | b'[' | b';') { ESCAPE_MAX } else { 0 };
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
