//! Rules: what keys of well-known issuers look like.
//!
//! A rule is data (`rules/*.yaml`): literals to find it by, a pattern that covers the whole key,
//! and checks that give a confidence. Invariant: a rule that got past [`RuleSet`] is bounded: its
//! longest match is at most [`MATCH_MAX`] bytes, so that matching needs no more than a window.

mod assess;
pub mod checksum;
mod ends;
pub mod example;
mod faults;

mod file;
mod hir;
mod literals;
mod steps;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

pub use assess::{Doubt, ends_in_escape};
pub use checksum::Checksum;
use ends::Pattern;
use file::NEAR_MAX;
pub use file::{
    Confidence, Entry, Facts, Kind, Left, List, MATCH_MAX, Need, Right, Text, WIDE_MIN, Within,
    is_run_byte, is_wide_byte,
};
pub use literals::SHARED_NEEDLE;
pub use steps::Memory;

// `static BUILTIN: [Rule; _]`, in the order of the files' names: read and checked by the build script.
// `static PREFIXES, KEYWORDS: &[&str]`: theirs, in order, without those that begin with another one.
include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

impl Confidence {
    /// The word in reports and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Kind {
    /// The word in rule files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Id => "id",
            Self::Public => "public",
        }
    }
}

impl Right {
    /// The word in rule files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boundary => "boundary",
            Self::Any => "any",
        }
    }
}

impl Need {
    /// The word in rule files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digit => "digit",
            Self::Upper => "upper",
            Self::Lower => "lower",
        }
    }
}

impl Left {
    /// The word in rule files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Boundary => "boundary",
        }
    }
}

/// One rule: what its file says, what was read off it, and its pattern.
#[derive(Debug)]
pub struct Rule {
    /// The file it comes from; built-in ones lie in `rules/`.
    pub file: Cow<'static, str>,
    /// Whether it comes with leakwarden.
    pub builtin: bool,
    /// What is read off the pattern.
    pub facts: Facts,
    entry: Entry,
    /// Made at the first hit of a literal; of most rules never.
    compiled: OnceLock<Option<Pattern>>,
}

impl Deref for Rule {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// All faults of the rule files, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", faults.join("\n"))]
pub struct RuleError {
    /// `file:line: rule: what is wrong and how to mend it`.
    pub faults: Vec<String>,
}

/// A rule of a set.
#[derive(Clone, Debug)]
enum Held {
    Builtin(&'static Rule),
    Own(Arc<Rule>),
}

impl Held {
    fn rule(&self) -> &Rule {
        match self {
            Self::Builtin(rule) => rule,
            Self::Own(rule) => rule,
        }
    }
}

/// Rules that passed every check.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Held>,
}

impl RuleSet {
    /// The rules that come with leakwarden.
    #[must_use]
    pub fn builtin() -> Self {
        Self { rules: BUILTIN.iter().map(Held::Builtin).collect() }
    }

    /// Whether a built-in rule's literal or keyword stands in a word at all: `false` is certain, and
    /// takes no automaton.
    #[must_use]
    pub fn may_concern(word: &[u8]) -> bool {
        let lower = word.to_ascii_lowercase();
        // No literal begins with another one, so of those up to a text in order none but the last can be
        // its beginning.
        let begins = |literals: &[&str], text: Option<&[u8]>| {
            let text = text.unwrap_or_default();
            let behind = literals.partition_point(|literal| literal.as_bytes() <= text);
            let nearest = behind.checked_sub(1).and_then(|at| literals.get(at));
            nearest.is_some_and(|literal| text.starts_with(literal.as_bytes()))
        };
        (0..word.len())
            .any(|at| begins(PREFIXES, word.get(at..)) || begins(KEYWORDS, lower.get(at..)))
    }

    /// The built-in rules and those of some files, given as `(name, text)`. All faults are told at
    /// once; the examples of the files' rules are tried.
    pub fn with_files(
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, RuleError> {
        Self::load(files, Rule::try_examples)
    }

    /// The same, with the examples left to the caller.
    pub fn with_untried_files(
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, RuleError> {
        Self::load(files, |_, _| Vec::new())
    }

    fn load(
        files: impl IntoIterator<Item = (String, String)>,
        try_examples: fn(&Rule, &Self) -> Vec<String>,
    ) -> Result<Self, RuleError> {
        let mut set = Self::builtin();
        let files: Vec<(String, String)> = files.into_iter().collect();
        if files.is_empty() {
            return Ok(set);
        }
        let (mut faults, mut places) = (Vec::new(), Vec::new());
        let own = set.rules.len();
        let mut seen: HashMap<String, String> = set
            .rules()
            .map(|rule| (rule.id.to_string(), "the built-in rules".to_owned()))
            .collect();
        for (file, text) in &files {
            let parsed = file::parse(text).unwrap_or_else(|wrong| {
                faults.extend(wrong.into_iter().map(|(line, why)| match line {
                    0 => format!("{file}: {why}"),
                    _ => format!("{file}:{line}: {why}"),
                }));
                Vec::new()
            });
            for (index, (entry, facts)) in parsed.into_iter().enumerate() {
                let id = entry.id.to_string();
                let place = move |told: usize| match told < file::TOLD_MAX {
                    true => format!("{file}:{}: {id}", file::line_of(text, index)),
                    false => format!("{file}: {id}"),
                };
                if let Some(other) = seen.insert(entry.id.to_string(), file.clone()) {
                    let here = place(faults.len());
                    faults.push(format!("{here}: the id stands in {other} already"));
                }
                places.push(place);
                let file = file.clone().into();
                let rule = Rule { file, builtin: false, facts, entry, compiled: OnceLock::new() };
                set.rules.push(Held::Own(Arc::new(rule)));
            }
        }
        for (rule, place) in set.rules().skip(own).zip(places) {
            let named = |id: &str| set.rules().find(|rule| rule.id == id);
            let fits = |rule: &Rule| !rule.prefixes.is_empty() && rule.facts.match_max <= NEAR_MAX;
            let unfit = rule.beside.iter().filter(|id| !named(id).is_some_and(fits));
            let unfit = unfit.map(|id| {
                format!(
                    "beside: no rule with prefixes, and matches of at most {NEAR_MAX} bytes, has \
                     the id {id}"
                )
            });
            let wrong = unfit.chain(rule.cost_fault(&set)).chain(try_examples(rule, &set));
            for why in wrong {
                faults.push(format!("{}: {why}", place(faults.len())));
            }
        }
        if faults.is_empty() { Ok(set) } else { Err(RuleError { faults }) }
    }

    /// Every match of a rule, found the slow and simple way: what the matcher's answers are held
    /// against.
    #[must_use]
    pub fn find_naively(&self, rule: &Rule, text: &[u8]) -> Vec<Range<usize>> {
        let matches = (0..text.len()).filter_map(|start| rule.match_at(text, start));
        matches
            .filter(|span| rule.has_literal(text, span.start) || self.announces(rule, text, span))
            .collect()
    }

    /// Whether one of the rule's keywords stands near a match, upper and lower case alike, or one
    /// of the rules that it names matches there.
    fn announces(&self, rule: &Rule, text: &[u8], span: &Range<usize>) -> bool {
        rule.near(text, span).into_iter().any(|near| {
            let lower = text.get(near.clone()).unwrap_or_default().to_ascii_lowercase();
            let holds = |word: &str| memchr::memmem::find(&lower, word.as_bytes()).is_some();
            rule.keywords.iter().any(|word| holds(word))
                || self.rules().filter(|other| rule.beside.contains(&other.id)).any(|other| {
                    let mut starts = near.clone().filter(|start| other.has_literal(text, *start));
                    starts.any(|start| {
                        other.match_at(text, start).is_some_and(|id| id.end <= near.end)
                    })
                })
        })
    }

    /// Keeps some of the rules, to measure what rules cost.
    pub fn retain(&mut self, keep: impl Fn(&Rule) -> bool) {
        self.rules.retain(|held| keep(held.rule()));
    }

    /// The rules, in the order of their files.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> + DoubleEndedIterator + Clone {
        self.rules.iter().map(Held::rule)
    }

    /// The rule of that index.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index).map(Held::rule)
    }

    /// The public prefix of a key, by the first rule that knows it: `ghp_`, or nothing.
    #[must_use]
    pub fn public_prefix(&self, key: &[u8]) -> &str {
        self.rules()
            .filter_map(|rule| rule.prefix_of(key).filter(|_| rule.covers(key)))
            .max_by_key(|prefix| prefix.len())
            .unwrap_or("")
    }
}

impl Rule {
    /// The literal with which this key begins.
    #[must_use]
    pub fn prefix_of(&self, key: &[u8]) -> Option<&str> {
        if !self.offsets.contains(&0) {
            return None;
        }
        self.prefixes.iter().map(|prefix| &**prefix).find(|p| key.starts_with(p.as_bytes()))
    }

    /// Whether one of the literals stands where one would in a match that begins at `start`.
    fn has_literal(&self, text: &[u8], start: usize) -> bool {
        self.offsets.iter().any(|offset| {
            let rest = text.get(start + offset..).unwrap_or_default();
            self.prefixes.iter().any(|literal| rest.starts_with(literal.as_bytes()))
        })
    }

    /// Where what announces a match has to lie: before it, and behind it.
    #[must_use]
    pub fn near(&self, text: &[u8], span: &Range<usize>) -> [Range<usize>; 2] {
        let (start, end) = (span.start.saturating_sub(self.before), span.end + self.after);
        let part = |range: Range<usize>| text.get(range).unwrap_or_default();
        let before = memchr::memrchr_iter(b'\n', part(start..span.start)).nth(self.lines);
        let end = end.min(text.len());
        let after = memchr::memchr_iter(b'\n', part(span.end..end)).nth(self.lines);
        [
            start + before.unwrap_or_default()..span.start,
            span.end..after.map_or(end, |newline| span.end + newline),
        ]
    }

    fn covers(&self, key: &[u8]) -> bool {
        self.end_at(key, 0, &mut Memory::default(), |end| end == key.len()).is_some()
    }

    /// The match that begins at `start`, if one does: neighbours and pattern. `text` is what is
    /// there, or at least [`MATCH_MAX`] + 1 bytes behind the start.
    #[must_use]
    pub fn match_at(&self, text: &[u8], start: usize) -> Option<Range<usize>> {
        self.next_match_at(text, start, &mut Memory::default())
    }

    /// The same, for one start after the other in the same text.
    #[must_use]
    pub fn next_match_at(
        &self,
        text: &[u8],
        start: usize,
        memory: &mut Memory,
    ) -> Option<Range<usize>> {
        if self.left == Left::Boundary && !assess::is_boundary(text.get(..start)?) {
            return None;
        }
        let fits = |end: usize| {
            let after = text.get(end).copied().unwrap_or_default();
            let ends = self.right == Right::Any || !after.is_ascii_alphanumeric();
            ends && (!self.is_announced() || self.stands_alone(text, &(start..end)))
        };
        Some(start..self.end_at(text, start, memory, fits)?)
    }

    fn may_hold(&self, byte: u8) -> bool {
        byte < 128 && self.facts.alphabet >> byte & 1 == 1
    }

    /// Whether a match without a literal holds a digit, and is no part of a longer word or of
    /// base64: names and other text must not become candidates.
    fn stands_alone(&self, text: &[u8], span: &Range<usize>) -> bool {
        let joins = |byte: u8| byte.is_ascii_alphanumeric() || self.may_hold(byte);
        let base64 = |byte| matches!(byte, b'+' | b'/');
        let matched = text.get(span.clone()).unwrap_or_default();
        let left = text.get(..span.start).unwrap_or_default();
        let before = left.last().copied().unwrap_or_default();
        let after = text.get(span.end).copied().unwrap_or_default();
        // What is given a value by a `=` is no part of it.
        let joined = joins(before) && before != b'=' && !ends_in_escape(left);
        let within = base64(before) && (base64(after) || after == b'=');
        !joined && !joins(after) && !within && matched.iter().any(u8::is_ascii_digit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const GOOD: &str = r#"
rules:
  - id: acme-key
    provider: Acme
    name: API key
    prefixes: ["acme_"]
    pattern: 'acme_[0-9a-f]{32}'
    confidence: high
    examples: ["acme_<hex:32>"]
    negative_examples: ["acme_"]
    source: none
"#;

    pub(super) fn read(text: &str) -> Result<RuleSet, RuleError> {
        RuleSet::with_files([("t.yaml".to_owned(), text.to_owned())])
    }

    fn facts(text: &str) -> Facts {
        read(text).unwrap().rules().next_back().unwrap().facts
    }

    #[test]
    fn a_faulty_file_is_told_with_its_place() {
        let fault = |from: &str, to: &str| read(&GOOD.replace(from, to)).unwrap_err().to_string();
        let told = |from: &str, to: &str, wanted: &str| {
            let error = fault(from, to);
            assert!(error.contains(wanted), "{error}");
        };
        told(
            "confidence: high",
            "confidenze: high",
            "t.yaml:8: rules[0]: unknown field `confidenze`",
        );
        told("{32}", "{32,}", "t.yaml:3: acme-key: pattern: its longest match must be at most");
        told("{32}", "{32", "t.yaml:3: acme-key: pattern: regex parse error");
        told("confidence: high", "confidence: high\n    min_entropy: .nan", "min_entropy: from 0");
        told("<hex:32>", "<hex:3000000000>", "`<hex:3000000000>`: under 10000 characters");
        told(
            "prefixes: [\"acme_\"]",
            "prefixes: []",
            "give either prefixes, or keywords or beside",
        );
        told("prefixes: [\"acme_\"]", "prefixes: [\"a\"]", "prefixes: each of 2 bytes or more");
        told(
            "<hex:32>",
            "<hex:31>",
            "t.yaml:3: acme-key: not found in its example `acme_<hex:31>`",
        );
        told(
            "[\"acme_\"]\n    source",
            "[\"acme_<hex:32>\"]\n    source",
            "found in its negative example",
        );
        told("acme-key", "github-pat-classic", "the id stands in the built-in rules already");
        let pattern = "acme_[0-9a-f]{32}";
        for more in [
            "acme_[0-9a-f]{32}|other_[0-9a-f]{32}",
            "(?:acme_[0-9]|(?:other_[a-f]|acme-))[0-9a-f]{31}",
        ] {
            told(pattern, more, "pattern: what begins with `other_");
        }
        for more in ["(?:^|_)acme_[0-9a-f]{32}", "acme_[0-9a-f]{32}$", r"(?m)acme_[0-9a-f]{32}\b"] {
            told(pattern, more, "pattern: leave out `^`, `$`, `\\b` and their like: `left`");
        }
        let twice = RuleSet::with_files([
            ("a.yaml".to_owned(), GOOD.to_owned()),
            ("b.yaml".to_owned(), GOOD.to_owned()),
        ]);
        assert!(
            twice.unwrap_err().to_string().contains("b.yaml:3: acme-key: the id stands in a.yaml")
        );
    }

    #[test]
    fn a_rule_has_its_line_however_it_is_written() {
        let flow = |id: &str, rest: &str| {
            format!(
                "{{provider: A, prefixes: [acme_], id: {id}, name: n, pattern: 'acme_[0-9]{{8}}', \
                 confidence: high, examples: ['{rest}'], negative_examples: [a], source: s}}"
            )
        };
        let text = [
            "# id: second",
            "rules:",
            &format!("  - &a {}", flow("first", "acme_<digits:8>")),
            "",
            &format!("  - {}", flow("\"second\"", "acme_<digits:9>")),
            "  - provider: |",
            "      id: fourth",
            "    \"id\": third",
            "    prefixes: [acme_]",
            "    name: n",
            "    pattern: 'acme_[0-9]{8}'",
            "    confidence: high",
            "    examples: ['acme_<digits:8>']",
            "    negative_examples: ['acme_<digits:8>']",
            "    source: s",
            &format!("  - {}", flow("fourth", "acme_")),
            &format!("  -\n    {}", flow("first", "acme_<digits:8>")),
        ]
        .join("\n");
        let faults = read(&text).unwrap_err().faults;
        let told: Vec<&str> = faults.iter().filter_map(|fault| fault.split(": ").next()).collect();
        assert_eq!(told, ["t.yaml:18", "t.yaml:5", "t.yaml:6", "t.yaml:16"], "{faults:#?}");
    }

    #[test]
    fn words_that_hold_a_literal_are_told_from_others() {
        let rules = RuleSet::builtin();
        for rule in rules.rules() {
            for literal in rule.prefixes.iter() {
                assert!(RuleSet::may_concern(format!("--x={literal}1").as_bytes()), "{literal}");
            }
            for word in rule.keywords.iter() {
                assert!(RuleSet::may_concern(word.to_uppercase().as_bytes()), "{word}");
            }
        }
        for word in ["", "--registry", "/var/lib/leakwarden", "ghx_0", "\u{ff}"] {
            assert!(!RuleSet::may_concern(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn what_is_read_off_a_pattern() {
        assert_eq!(facts(GOOD).within, Within::Runs);
        let wide = facts(&GOOD.replace("[0-9a-f]", "[0-9a-f+/]"));
        assert_eq!((wide.within, wide.match_min, wide.match_max), (Within::WideRuns, 37, 37));
        let text = facts(&GOOD.replace("[0-9a-f]{32}", "[0-9a-f]{32}(?:@x)?"));
        assert_eq!((text.within, text.required_byte), (Within::Anything, None));
        let text =
            facts(&GOOD.replace("acme_[0-9a-f]{32}", "acme_[0-9a-f]{32}(?-u:@)?[a-f@]{0,9}"));
        assert_eq!(text.required_byte, None);
    }

    #[test]
    fn a_keyword_announces_a_key_without_a_prefix() {
        let keyword = GOOD
            .replace("prefixes: [\"acme_\"]", "keywords: [acme]")
            .replace("acme_[0-9a-f]", "[0-9a-f]")
            .replace("acme_<hex:32>", "ACME_KEY='<hex:32>'")
            .replace("negative_examples: [\"acme_\"]", "negative_examples: [\"other <hex:32>\"]");
        assert_eq!(facts(&keyword).match_min, 32);
    }
}
