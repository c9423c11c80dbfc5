//! The matcher: bytes in, hits out. Pure; it knows neither files nor the registry.
//!
//! A key is a run of key characters, so runs are found first ([`runs`]) and prefixes are looked
//! for inside runs only, by one aho-corasick automaton. Rules whose keys hold other characters
//! have long literals and an automaton over the whole text. Keys without a prefix are windows at
//! the edges of runs, of the lengths and alphabets that the registry holds ([`windows`]).
//!
//! Invariant: whether a hit at `start` is one depends on at most [`CONTEXT_MAX`] bytes before it
//! and [`SPAN_MAX`] after it. [`Scanner`] rests on that to find the same in any split of a stream.

mod runs;
mod scanner;
mod windows;

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use crate::rule::{Confidence, Left, MATCH_MAX, Rule, RuleSet, is_run_byte};
use crate::shape::ShapeSet;
use crate::source::CONTEXT_MAX;

pub use scanner::{Candidate, Scanner};

/// How far to the right of its start a hit may depend on the text.
pub const SPAN_MAX: usize = 4_096;
const _: () = assert!(SPAN_MAX > MATCH_MAX && SPAN_MAX > crate::shape::KEY_MAX && CONTEXT_MAX > 0);

/// Shortest run that is looked into when no rule and no registered key asks for shorter ones.
const RUN_DEFAULT: usize = 24;

/// Answers whether these bytes are a registered key (by its tag, or exactly).
pub type Known<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// A place in the text, with what was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The bytes of the text.
    pub span: Range<usize>,
    /// Index of the rule; `None`: found by its shape.
    pub rule: Option<usize>,
    /// By the rule's checks.
    pub confidence: Confidence,
    /// Whether [`Known`] said yes.
    pub known: bool,
}

/// The automata of a rule set together with the shapes of a registry.
#[derive(Clone)]
pub struct Matcher {
    rules: Arc<RuleSet>,
    automata: Arc<Automata>,
    shapes: ShapeSet,
    run_min: usize,
}

struct Automata {
    within_runs: Automaton,
    anywhere: Automaton,
    run_min: usize,
}

/// Literals and the rules that want them. Every start gets its longest literal; `owners` holds the
/// rules of that literal and of its own prefixes.
struct Automaton {
    literals: Option<AhoCorasick>,
    owners: Vec<Vec<usize>>,
}

/// Rules that cannot be put into an automaton.
#[derive(Debug, thiserror::Error)]
#[error("cannot build the prefix automaton: {0}")]
pub struct MatcherError(#[from] aho_corasick::BuildError);

impl Matcher {
    /// Builds the automata; no pattern is compiled before its literal is seen.
    pub fn new(rules: Arc<RuleSet>, shapes: ShapeSet) -> Result<Self, MatcherError> {
        let (mut inside, mut anywhere) = (Vec::new(), Vec::new());
        let mut run_min = RUN_DEFAULT;
        for (index, rule) in rules.rules().iter().enumerate() {
            if rule.within_runs() {
                run_min = run_min.min(rule.match_min());
                inside.push((index, rule));
            } else {
                anywhere.push((index, rule));
            }
        }
        let automata = Automata {
            within_runs: Automaton::new(&inside)?,
            anywhere: Automaton::new(&anywhere)?,
            run_min: run_min.max(1),
        };
        Ok(Self { rules, automata: Arc::new(automata), shapes: ShapeSet::default(), run_min }
            .with_shapes(shapes))
    }

    /// The same rules with other shapes; the automata are shared.
    #[must_use]
    pub fn with_shapes(&self, shapes: ShapeSet) -> Self {
        let run_min =
            shapes.shortest(true).map_or(self.automata.run_min, |s| s.min(self.automata.run_min));
        Self { rules: self.rules.clone(), automata: self.automata.clone(), shapes, run_min }
    }

    /// The rules, to name what was found.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Appends every hit that starts within `starts`, in no particular order. What lies before
    /// `starts` is context, what lies behind is where hits may end.
    pub fn find(&self, text: &[u8], starts: Range<usize>, known: &Known<'_>, out: &mut Vec<Hit>) {
        if starts.is_empty() {
            return;
        }
        let mut search = Search { matcher: self, text, starts, known, out };
        let first = search.starts.start.saturating_sub(1);
        runs::each(text, first, self.run_min, is_run_byte, &mut |run| {
            search.rules_in_run(run.clone());
            search.shapes_in_run(run, true);
        });
        search.rules_anywhere();
        if let Some(shortest) = self.shapes.shortest(false) {
            runs::each(text, first, shortest, |b| b.is_ascii_graphic(), &mut |run| {
                search.shapes_in_run(run, false);
            });
        }
    }

    /// Replaces every key in a foreign string by its hint and cleans the rest.
    #[must_use]
    pub fn redact(&self, text: &[u8], known: &Known<'_>) -> String {
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
    fn new(rules: &[(usize, &Rule)]) -> Result<Self, MatcherError> {
        let mut literals: Vec<&str> =
            rules.iter().flat_map(|(_, rule)| rule.prefixes.iter().map(String::as_str)).collect();
        literals.sort_unstable();
        literals.dedup();
        let owners = literals
            .iter()
            .map(|literal| {
                let wants =
                    |rule: &Rule| rule.prefixes.iter().any(|p| literal.starts_with(p.as_str()));
                rules.iter().filter(|(_, rule)| wants(rule)).map(|(index, _)| *index).collect()
            })
            .collect();
        let automaton = if literals.is_empty() {
            None
        } else {
            Some(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&literals)?)
        };
        Ok(Self { literals: automaton, owners })
    }

    /// Calls with the place of a literal and each rule that may want it.
    fn each(&self, text: &[u8], range: Range<usize>, found: &mut dyn FnMut(usize, usize)) {
        let Some(literals) = &self.literals else { return };
        let mut at = range.start;
        while let Some(hit) = literals.find(Input::new(text).range(at..range.end)) {
            for &rule in self.owners.get(hit.pattern().as_usize()).into_iter().flatten() {
                found(hit.start(), rule);
            }
            at = hit.start() + 1;
        }
    }
}

/// One call of [`Matcher::find`].
struct Search<'a> {
    matcher: &'a Matcher,
    text: &'a [u8],
    starts: Range<usize>,
    known: &'a Known<'a>,
    out: &'a mut Vec<Hit>,
}

impl Search<'_> {
    fn rules_in_run(&mut self, run: Range<usize>) {
        let automata = self.matcher.automata.clone();
        automata.within_runs.each(self.text, run, &mut |at, rule| self.check(at, rule));
    }

    fn rules_anywhere(&mut self) {
        let automata = self.matcher.automata.clone();
        let range = self.starts.start..self.text.len();
        automata.anywhere.each(self.text, range, &mut |at, rule| self.check(at, rule));
    }

    /// Checks one rule at one literal.
    fn check(&mut self, literal: usize, index: usize) {
        let Some(rule) = self.matcher.rules.rules().get(index) else { return };
        for &offset in &rule.offsets {
            let Some(start) = literal.checked_sub(offset) else { continue };
            if !self.starts.contains(&start) || !self.left_allows(rule, start) {
                continue;
            }
            let window = start..self.text.len().min(start + SPAN_MAX);
            let window = self.text.get(window).unwrap_or_default();
            let Some(found) = rule.regex().and_then(|regex| regex.find(window)) else { continue };
            let end = start + found.end();
            if self.text.get(end).is_some_and(u8::is_ascii_alphanumeric) {
                continue;
            }
            self.out.push(Hit {
                span: start..end,
                rule: Some(index),
                confidence: rule.assess(found.as_bytes()),
                known: (self.known)(found.as_bytes()),
            });
            break;
        }
    }

    fn left_allows(&self, rule: &Rule, start: usize) -> bool {
        let before = start.checked_sub(1).and_then(|at| self.text.get(at));
        rule.left == Left::Any || !before.is_some_and(u8::is_ascii_alphanumeric)
    }

    /// Looks for registered keys without a prefix at the edges of a run.
    fn shapes_in_run(&mut self, run: Range<usize>, within_runs: bool) {
        for (alphabet, lengths) in self.matcher.shapes.groups() {
            if alphabet.within_runs() == within_runs {
                let (text, starts, known) = (self.text, &self.starts, self.known);
                windows::each(text, run.clone(), *alphabet, lengths, &mut |span| {
                    let bytes = text.get(span.clone()).unwrap_or_default();
                    if starts.contains(&span.start) && known(bytes) {
                        let confidence = Confidence::High;
                        self.out.push(Hit { span, rule: None, confidence, known: true });
                    }
                });
            }
        }
    }
}
