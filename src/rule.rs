//! Rules: what keys of well-known issuers look like.
//!
//! A rule is data (`rules/*.yaml`): literals to find it by, a pattern that covers the whole key,
//! and checks that give a confidence. Invariant: a rule that got past [`RuleSet`] is bounded: its
//! longest match is at most [`MATCH_MAX`] bytes, so that matching needs no more than a window.

pub mod checksum;
pub mod example;

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use regex::bytes::Regex;
use regex_syntax::hir::Hir;
use serde::Deserialize;

pub use checksum::Checksum;

/// Longest match of any rule, in bytes.
pub const MATCH_MAX: usize = 3_000;
const LITERAL_MIN: usize = 2;
const REGEX_SIZE_LIMIT_BYTES: usize = 1 << 20;

/// The rule files that are compiled into the binary: name and text.
pub const BUILTIN: &[(&str, &str)] = &[
    ("rules/ai.yaml", include_str!("../rules/ai.yaml")),
    ("rules/cloud.yaml", include_str!("../rules/cloud.yaml")),
    ("rules/data.yaml", include_str!("../rules/data.yaml")),
    ("rules/developer.yaml", include_str!("../rules/developer.yaml")),
    ("rules/generic.yaml", include_str!("../rules/generic.yaml")),
    ("rules/infrastructure.yaml", include_str!("../rules/infrastructure.yaml")),
    ("rules/leakwarden.yaml", include_str!("../rules/leakwarden.yaml")),
    ("rules/messaging.yaml", include_str!("../rules/messaging.yaml")),
    ("rules/observability.yaml", include_str!("../rules/observability.yaml")),
    ("rules/packages.yaml", include_str!("../rules/packages.yaml")),
    ("rules/payment.yaml", include_str!("../rules/payment.yaml")),
    ("rules/source-hosting.yaml", include_str!("../rules/source-hosting.yaml")),
    ("rules/workspace.yaml", include_str!("../rules/workspace.yaml")),
];

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A wrong checksum, an example word, a weak shape.
    Low,
    /// Probably a key.
    Medium,
    /// A distinctive prefix and alphabet, or a right checksum.
    High,
}

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
        f.write_str(self.as_str())
    }
}

/// What may stand to the left of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Left {
    /// Anything: the prefix speaks for itself, and `\n` before a key in JSON ends in a letter.
    #[default]
    Any,
    /// No ASCII letter or digit.
    Boundary,
}

/// What a match is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A credential.
    #[default]
    Secret,
    /// The identifier half of a credential.
    Id,
    /// Public by design.
    Public,
}

/// One rule as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique name, `[a-z0-9-]+`.
    pub id: String,
    /// The issuer.
    pub provider: String,
    /// The kind of key, in the issuer's words.
    pub name: String,
    /// Literals, one of which every match holds at one of the offsets.
    pub prefixes: Vec<String>,
    /// How many bytes of the match stand before the literal.
    #[serde(default = "no_offset")]
    pub offsets: Vec<usize>,
    /// The whole key, anchored at its first byte.
    pub pattern: String,
    /// The issuer's check digits.
    pub checksum: Option<Checksum>,
    /// How sure a match is before checks.
    pub confidence: Confidence,
    /// What may stand before it.
    #[serde(default)]
    pub left: Left,
    /// Whether it is a secret at all.
    #[serde(default)]
    pub kind: Kind,
    /// Bits of Shannon entropy per character below which the confidence is low.
    #[serde(default)]
    pub min_entropy: f32,
    /// Texts in which the rule matches; see [`example::expand`].
    pub examples: Vec<String>,
    /// Texts in which it does not.
    pub negative_examples: Vec<String>,
    /// Where the facts come from.
    pub source: String,
    /// Compiled at the first hit of a literal; most rules never are.
    #[serde(skip)]
    regex: OnceLock<Option<Regex>>,
}

fn no_offset() -> Vec<usize> {
    vec![0]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    rules: Vec<Rule>,
}

/// All faults of the rule files, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", faults.join("\n"))]
pub struct RuleError {
    /// `file: rule: what is wrong and how to mend it`.
    pub faults: Vec<String>,
}

/// Rules that passed every check that needs no matching.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
}

/// Whether a byte belongs to the alphabet in which runs are looked for: `[A-Za-z0-9_.-]`.
#[must_use]
pub fn is_run_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Whether a byte belongs to the alphabet of wide runs: base64 and paths of URLs beside.
#[must_use]
pub fn is_wide_byte(byte: u8) -> bool {
    is_run_byte(byte) || matches!(byte, b'+' | b'/' | b'=' | b'~')
}

/// Shortest match for which wide runs are looked for: shorter ones are in every line of a log.
pub const WIDE_MIN: usize = 32;

/// In what every match of a rule lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// A run of `[A-Za-z0-9_.-]`.
    Runs,
    /// A run of `[A-Za-z0-9_.+/=~-]`, of at least [`WIDE_MIN`] bytes.
    WideRuns,
    /// Any text.
    Anything,
}

impl RuleSet {
    /// The rules that come with leakwarden.
    pub fn builtin() -> Result<Self, RuleError> {
        Self::from_files(
            BUILTIN.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
        )
    }

    /// Reads rule files given as `(name, text)` and tells all their faults at once.
    pub fn from_files(
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, RuleError> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut faults = Vec::new();
        let mut seen: HashMap<String, String> = HashMap::new();
        for (file, text) in files {
            match serde_yaml::from_str::<RuleFile>(&text) {
                Err(error) => faults.push(format!("{file}: {error}")),
                Ok(parsed) => {
                    for rule in parsed.rules {
                        if let Some(other) = seen.insert(rule.id.clone(), file.clone()) {
                            faults.push(format!(
                                "{file}: {}: the id stands in {other} already",
                                rule.id
                            ));
                        }
                        faults.extend(
                            rule.faults().into_iter().map(|f| format!("{file}: {}: {f}", rule.id)),
                        );
                        rules.push(rule);
                    }
                }
            }
        }
        if faults.is_empty() { Ok(Self { rules }) } else { Err(RuleError { faults }) }
    }

    /// The rules, in the order of their files.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The public prefix of a key, by the first rule that knows it: `ghp_`, or nothing.
    #[must_use]
    pub fn public_prefix(&self, key: &[u8]) -> &str {
        self.rules
            .iter()
            .filter_map(|rule| rule.prefix_of(key).filter(|_| rule.covers(key)))
            .max_by_key(|prefix| prefix.len())
            .unwrap_or("")
    }
}

impl Rule {
    /// The compiled pattern, anchored at the start of what it is given; `None` cannot happen for a
    /// rule that passed its checks.
    #[must_use]
    pub fn regex(&self) -> Option<&Regex> {
        self.regex
            .get_or_init(|| {
                regex::bytes::RegexBuilder::new(&format!("^(?:{})", self.pattern))
                    .unicode(false)
                    .size_limit(REGEX_SIZE_LIMIT_BYTES)
                    .build()
                    .ok()
            })
            .as_ref()
    }

    /// The literal with which this key begins.
    #[must_use]
    pub fn prefix_of(&self, key: &[u8]) -> Option<&str> {
        if !self.offsets.contains(&0) {
            return None;
        }
        self.prefixes.iter().map(String::as_str).find(|p| key.starts_with(p.as_bytes()))
    }

    fn covers(&self, key: &[u8]) -> bool {
        self.regex().and_then(|regex| regex.find(key)).is_some_and(|found| found.end() == key.len())
    }

    /// In what every match lies, so that it is enough to look there.
    #[must_use]
    pub fn within(&self) -> Within {
        let Ok(hir) = self.hir() else { return Within::Anything };
        if all_bytes(&hir, is_run_byte) {
            Within::Runs
        } else if all_bytes(&hir, is_wide_byte) && self.match_min() >= WIDE_MIN {
            Within::WideRuns
        } else {
            Within::Anything
        }
    }

    /// A byte that every match holds behind its literal, and that other text rarely does: asked for
    /// before the pattern is tried. `None` also where a match may hold a line break: the byte is
    /// looked for in one line only.
    #[must_use]
    pub fn required_byte(&self) -> Option<u8> {
        use regex_syntax::hir::HirKind;
        let hir = self.hir().ok().filter(|hir| all_bytes(hir, |byte| byte != b'\n'))?;
        let HirKind::Concat(parts) = hir.kind() else { return None };
        parts
            .iter()
            .skip(1)
            .filter_map(|part| match part.kind() {
                HirKind::Literal(literal) => literal.0.iter().copied().find(|b| !is_wide_byte(*b)),
                _ => None,
            })
            .find(|byte| !self.prefixes.iter().any(|prefix| prefix.as_bytes().contains(byte)))
    }

    /// The shortest match, in bytes.
    #[must_use]
    pub fn match_min(&self) -> usize {
        self.hir().ok().and_then(|hir| hir.properties().minimum_len()).unwrap_or(0)
    }

    /// The confidence of one match, in the order of the checks' price.
    #[must_use]
    pub fn assess(&self, matched: &[u8]) -> Confidence {
        match self.checksum.map(|checksum| checksum.verify(matched)) {
            Some(true) => return Confidence::High,
            Some(false) => return Confidence::Low,
            None => {}
        }
        let weak = self.kind == Kind::Public
            || is_example(matched)
            || (self.min_entropy > 0.0 && crate::text::entropy_bits(matched) < self.min_entropy);
        if weak { Confidence::Low } else { self.confidence }
    }

    fn hir(&self) -> Result<Hir, String> {
        regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(&self.pattern)
            .map_err(|error| format!("pattern: {error}"))
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let named = !self.id.is_empty()
            && self.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named {
            faults.push("id: write it in a-z, 0-9 and `-`".to_owned());
        }
        if self.prefixes.is_empty() || self.prefixes.iter().any(|p| p.len() < LITERAL_MIN) {
            faults.push(format!("prefixes: at least one, each of {LITERAL_MIN} bytes or more"));
        }
        if self.offsets.is_empty() || self.offsets.iter().any(|&o| o > MATCH_MAX) {
            faults.push(format!("offsets: at least one, none over {MATCH_MAX}"));
        }
        if self.examples.is_empty() || self.negative_examples.is_empty() {
            faults.push("examples and negative_examples: at least one each".to_owned());
        }
        match self.hir().map(|hir| hir.properties().maximum_len()) {
            Err(error) => faults.push(error),
            Ok(Some(longest)) if longest <= MATCH_MAX => {}
            Ok(_) => faults.push(format!(
                "pattern: its longest match must be at most {MATCH_MAX} bytes; bound each repetition"
            )),
        }
        faults
    }
}

fn all_bytes(hir: &Hir, wanted: fn(u8) -> bool) -> bool {
    use regex_syntax::hir::{Class, HirKind};
    match hir.kind() {
        HirKind::Empty => true,
        HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.iter().all(|&b| wanted(b)),
        HirKind::Class(Class::Bytes(class)) => {
            class.iter().all(|range| (range.start()..=range.end()).all(wanted))
        }
        HirKind::Class(Class::Unicode(class)) => class.iter().all(|range| {
            (u32::from(range.start())..=u32::from(range.end()))
                .all(|c| u8::try_from(c).is_ok_and(wanted))
        }),
        HirKind::Repetition(repetition) => all_bytes(&repetition.sub, wanted),
        HirKind::Capture(capture) => all_bytes(&capture.sub, wanted),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().all(|part| all_bytes(part, wanted))
        }
    }
}

/// Words that mark an example in documents.
fn is_example(matched: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] =
        [b"example", b"sample", b"dummy", b"changeme", b"xxxxxx", b"000000000000"];
    let lower = matched.to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&lower, word).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
rules:
  - id: acme-key
    provider: Acme
    name: API key
    prefixes: ["acme_"]
    pattern: 'acme_[0-9a-f]{32}'
    confidence: high
    examples: ["<x>"]
    negative_examples: ["acme_"]
    source: none
"#;

    fn read(text: &str) -> Result<RuleSet, RuleError> {
        RuleSet::from_files([("t.yaml".to_owned(), text.to_owned())])
    }

    #[test]
    fn every_rule_file_is_built_in() {
        let mut files: Vec<String> = std::fs::read_dir("rules")
            .unwrap()
            .map(|entry| format!("rules/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        files.sort();
        let mut builtin: Vec<_> = BUILTIN.iter().map(|(name, _)| (*name).to_owned()).collect();
        builtin.sort();
        assert_eq!(files, builtin);
        assert!(RuleSet::builtin().unwrap().rules().len() >= 40);
    }

    #[test]
    fn a_faulty_file_is_told_with_its_place() {
        let error = read(&GOOD.replace("confidence: high", "confidenze: high")).unwrap_err();
        assert!(error.to_string().contains("unknown field `confidenze`"), "{error}");
        assert!(error.to_string().contains("line 8"), "{error}");
        let error = read(&GOOD.replace("{32}", "{32,}")).unwrap_err();
        assert!(error.to_string().contains("bound each repetition"), "{error}");
        let error = read(&GOOD.replace("prefixes: [\"acme_\"]", "prefixes: []")).unwrap_err();
        assert!(error.to_string().contains("prefixes: at least one"), "{error}");
        let twice = RuleSet::from_files([
            ("a.yaml".to_owned(), GOOD.to_owned()),
            ("b.yaml".to_owned(), GOOD.to_owned()),
        ]);
        assert!(twice.unwrap_err().to_string().contains("stands in a.yaml already"));
    }

    #[test]
    fn the_alphabet_of_a_pattern_is_read_off_it() {
        assert_eq!(read(GOOD).unwrap().rules()[0].within(), Within::Runs);
        let wide = read(&GOOD.replace("[0-9a-f]", "[0-9a-f+/]")).unwrap();
        assert_eq!(wide.rules()[0].within(), Within::WideRuns);
        assert_eq!(wide.rules()[0].match_min(), 37);
    }
}
