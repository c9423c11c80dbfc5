//! The matcher: bytes in, hits out. Pure; it knows neither files nor the registry.
//!
//! A key is a run of key characters, so runs are found first (`runs`), and prefixes are looked for
//! only where a run goes on for as long as the shortest key (`prefixes`: by their first bytes, then
//! aho-corasick). Rules whose keys hold other characters have long literals, which are looked for
//! everywhere at the same go (`needles`). Keys without a prefix are windows with an edge, of the lengths
//! and alphabets that the registry holds (`runs` as well; long ones: `windows`), or words of the right
//! length near which a keyword stands (`announced`).
//!
//! Invariant: whether a hit at `start` is one depends on at most [`CONTEXT_MAX`] bytes before it
//! and [`SPAN_MAX`] after it. [`Scanner`] rests on that to find the same in any split of a stream.

mod announced;
mod buffer;
mod divided;
mod groups;
mod made;
mod memories;
mod needles;
pub mod pieces;
mod prefixes;
mod runs;
mod scanner;
mod search;
mod sought;
mod windows;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use crate::rule::{
    Confidence, MATCH_MAX, Rule, RuleSet, SHARED_NEEDLE, Text, is_run_byte, is_wide_byte,
};
use crate::shape::{Known, ShapeSet};
use crate::source::CONTEXT_MAX;
use announced::Announced;
use needles::Needles;
use prefixes::Prefixes;
use runs::Classes;
use search::Search;
use sought::{Lists, Read, Way, grouped, way};

pub use scanner::{Candidate, Scanner};

/// How far to the right of its start a hit may depend on the text.
pub const SPAN_MAX: usize = 4_096;
const _: () = assert!(SPAN_MAX > MATCH_MAX && SPAN_MAX > crate::shape::KEY_MAX && CONTEXT_MAX > 0);

/// A place in the text, with what was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The bytes of the text.
    pub span: Range<usize>,
    /// Index of the rule; `None`: found by its shape.
    pub rule: Option<usize>,
    /// By the rule's checks.
    pub confidence: Confidence,
    /// Whether it is a registered key.
    pub known: bool,
}

impl Hit {
    /// Puts hits in order. A registered key that was found once for each of several alphabets is there
    /// once.
    pub fn sort(hits: &mut Vec<Self>) {
        hits.sort_unstable_by_key(|hit| (hit.span.start, hit.span.end, hit.rule));
        hits.dedup_by(|next, hit| (&next.span, next.rule) == (&hit.span, hit.rule));
    }
}

/// The automata of a rule set together with the shapes of a registry.
#[derive(Clone)]
pub struct Matcher {
    rules: Arc<RuleSet>,
    automata: Arc<Automata>,
    shapes: ShapeSet,
    deep: bool,
}

struct Automata {
    /// Of run bytes, and of wide bytes.
    classes: Classes,
    /// Of visible bytes.
    words: Classes,
    /// Rules whose matches are runs, from the literal on at least as long as `narrow` or `wide`.
    prefixes: Prefixes,
    /// By prefix: the rules that want it.
    owners: Lists<usize>,
    narrow: Option<usize>,
    wide: Option<usize>,
    /// Rules without a literal, for whole stretches of runs.
    announced: Announced,
    /// Literals of all other rules, and what announces keys.
    needles: Needles,
    /// Rules whose matches all hold a byte that is rare elsewhere ([`crate::rule::Facts::required_byte`]): their
    /// literals are looked for in lines that hold it, before it.
    before: Vec<Before>,
    /// How far behind the start of a match its literal may stand.
    offset: usize,
}

/// Rules whose matches all hold a byte.
struct Before {
    byte: u8,
    /// A bit for each ASCII character that matches consist of.
    alphabet: u128,
    literals: Automaton,
    /// Bytes of the shortest needle for these.
    shortest: usize,
}

impl Before {
    fn new((byte, rules): (u8, Vec<(usize, &Rule)>)) -> Self {
        let alphabet = rules.iter().fold(0, |all, (_, rule)| all | rule.facts.alphabet);
        let literals = Automaton::new(&rules);
        let shortest = literals.needles.iter().map(|needle| needle.len()).min().unwrap_or(0);
        Self { byte, alphabet, literals, shortest }
    }

    /// Whether the byte may belong to a match where it stands behind this one: their literals come
    /// first, and all of a match is ASCII.
    fn counts_behind(&self, byte: u8) -> bool {
        byte.is_ascii() && self.alphabet >> byte & 1 == 1
    }
}

/// Literals that are looked for in a part of a text.
struct Automaton {
    needles: Vec<Text>,
    /// Made when first asked. `None`: there is too much in it to make one.
    automaton: OnceLock<Option<AhoCorasick>>,
    /// By needle: who wants it. One that begins with another answers for that too: every start gets
    /// its longest needle only.
    owners: Lists<Owner>,
}

/// A rule that wants a needle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    rule: usize,
    /// Where in the rule's literal the needle stands.
    offset: usize,
    /// First byte of that literal: most needles that are no literals end here.
    first: u8,
    /// Which of the rule's literals it is.
    prefix: usize,
}

impl Matcher {
    /// Prepares what is looked for; no automaton is built and no pattern compiled before the text
    /// gives reason to.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, shapes: ShapeSet) -> Self {
        let read: Vec<Read<'_>> = rules.rules().map(|rule| (&**rule, &rule.facts)).collect();
        let mut before: BTreeMap<u8, Vec<(usize, &Rule)>> = BTreeMap::new();
        let (mut narrow, mut wide) = (None::<usize>, None::<usize>);
        let least = |shortest: Option<usize>, run: usize| shortest.map_or(run, |one| one.min(run));
        for (index, rule) in rules.rules().enumerate() {
            match way((rule, &rule.facts)) {
                Way::Narrow(run) => narrow = Some(least(narrow, run)),
                Way::Wide(run) => wide = Some(least(wide, run)),
                Way::Before(byte) => before.entry(byte).or_default().push((index, rule)),
                Way::Anywhere | Way::Announced => {}
            }
        }
        let words = sought::announcing(&read);
        let wanted = sought::wanted(&read, &words);
        let (prefixes, owners) = sought::prefixes(&read);
        let automata = Automata {
            classes: Classes::new(is_run_byte, is_wide_byte),
            words: Classes::new(|byte| byte.is_ascii_graphic(), |byte| byte.is_ascii_graphic()),
            prefixes: Prefixes::new(prefixes),
            owners,
            narrow,
            wide,
            announced: Announced::new(&rules, words),
            needles: Needles::new(wanted),
            before: before.into_iter().map(Before::new).collect(),
            offset: rules.rules().flat_map(|r| r.offsets.iter().copied()).max().unwrap_or(0),
        };
        Self { rules, automata: Arc::new(automata), shapes, deep: false }
    }

    /// The same rules with other shapes; the automata are shared.
    #[must_use]
    pub fn with_shapes(&self, shapes: ShapeSet) -> Self {
        Self { shapes, ..self.clone() }
    }

    /// The same, with every window of a registered length looked up, not only those at an edge:
    /// keys glued to letters on both sides are found, for some ten times the work.
    #[must_use]
    pub fn with_deep(&self, deep: bool) -> Self {
        Self { deep, ..self.clone() }
    }

    /// The rules, to name what was found.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Appends every hit that starts within `starts`, in no particular order. What lies before
    /// `starts` is context, what lies behind is where hits may end. Answers how many newlines lie
    /// within `starts`.
    pub fn find(
        &self,
        text: &[u8],
        starts: Range<usize>,
        known: &dyn Known,
        out: &mut Vec<Hit>,
    ) -> u64 {
        if starts.is_empty() {
            return 0;
        }
        Search::new(self, text, starts, known, out).all()
    }

    /// Replaces every key in a foreign string by its hint and cleans the rest.
    #[must_use]
    pub fn redact(&self, text: &[u8], known: &dyn Known) -> String {
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        let mut scanner = Scanner::new();
        scanner.load(text);
        scanner.finish(self, known, &mut |candidate| {
            let (Ok(start), Ok(end)) =
                (usize::try_from(candidate.start), usize::try_from(candidate.end))
            else {
                return;
            };
            if start >= at {
                out.extend_from_slice(text.get(at..start).unwrap_or_default());
                out.extend_from_slice(candidate.hint(&self.rules).as_bytes());
                at = end;
            }
        });
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        crate::text::clean(&out)
    }
}

impl Automaton {
    fn new(rules: &[(usize, &Rule)]) -> Self {
        let shared = Text::from(SHARED_NEEDLE);
        let literals = rules
            .iter()
            .flat_map(|(rule, data)| data.prefixes.iter().enumerate().map(|own| (*rule, own)))
            .filter_map(|(rule, (prefix, text))| {
                let first = *text.as_bytes().first()?;
                Some(match text.find(SHARED_NEEDLE) {
                    Some(offset) => (&shared, Owner { rule, offset, first, prefix }),
                    None => (text, Owner { rule, offset: 0, first, prefix }),
                })
            });
        let mut wanted: Vec<(&Text, Owner)> = literals.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let (needles, owners) = grouped(&wanted);
        Self { needles, automaton: OnceLock::new(), owners }
    }

    /// The first needle of a part of the text that begins furthest left, the longest of several:
    /// where, and which.
    fn next(&self, text: &[u8], range: Range<usize>) -> Option<(usize, usize)> {
        let made = self.automaton.get_or_init(|| {
            let mut builder = AhoCorasick::builder();
            // Few needles are found by their own search, and only what that finds is asked of it.
            builder.kind(Some(AhoCorasickKind::ContiguousNFA));
            builder
                .match_kind(MatchKind::LeftmostLongest)
                .build(self.needles.iter().map(|n| n.as_bytes()))
                .ok()
        });
        match made {
            Some(automaton) => {
                let hit = automaton.find(Input::new(text).range(range))?;
                Some((hit.start(), hit.pattern().as_usize()))
            }
            None => self.next_slowly(text, range),
        }
    }

    fn next_slowly(&self, text: &[u8], range: Range<usize>) -> Option<(usize, usize)> {
        let part = text.get(range.clone())?;
        let places = self.needles.iter().enumerate().filter_map(|(index, needle)| {
            let at = memchr::memmem::find(part, needle.as_bytes())?;
            Some((range.start + at, std::cmp::Reverse(needle.len()), index))
        });
        places.min().map(|(at, _, index)| (at, index))
    }

    /// Calls with the place where a rule's literal should begin, the rule, and which literal.
    fn each(&self, text: &[u8], range: Range<usize>, found: &mut dyn FnMut(usize, usize, usize)) {
        let mut from = range.start;
        while let Some((start, needle)) = self.next(text, from..range.end) {
            for owner in self.owners.get(needle) {
                let literal = start.checked_sub(owner.offset);
                if let Some(literal) = literal.filter(|&at| text.get(at) == Some(&owner.first)) {
                    found(literal, owner.rule, owner.prefix);
                }
            }
            from = start + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn needles_are_found_with_and_without_the_automaton(
            text in "[ab:]{0,40}",
            needles in proptest::collection::btree_set("[ab:]{1,4}", 0..5),
            from in 0usize..40,
        ) {
            let needles: Vec<Text> = needles.into_iter().map(Text::from).collect();
            let automaton = Automaton { needles, automaton: OnceLock::new(), owners: Lists::default() };
            let (text, range) = (text.as_bytes(), from.min(text.len())..text.len());
            proptest::prop_assert_eq!(
                automaton.next(text, range.clone()),
                automaton.next_slowly(text, range)
            );
        }
    }
}
