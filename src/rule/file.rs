//! Rule files: reading them, and what can be told of a rule without matching. The build script
//! compiles this file too (it prepares the built-in rules), so it names nothing of this crate but `hir`.

use std::borrow::Cow;
use std::fmt;

use regex_syntax::hir::literal::{ExtractKind, Extractor, Literal};
use regex_syntax::hir::{Hir, HirKind};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::hir::{all_bytes, may_hold, parse as parse_pattern};

/// Longest match of any rule, in bytes.
pub const MATCH_MAX: usize = 3_000;
/// Shortest and longest literal.
const LITERAL_MIN: usize = 2;
pub(super) const LITERAL_MAX: usize = 256;
/// Most literals of a rule, and bytes of all; and its longest keyword in bytes.
const ALL_LITERALS_MAX: usize = 256;
const LITERAL_BYTES_MAX: usize = 4 << 10;
const KEYWORD_MAX: usize = 64;
/// Most examples of a rule.
const EXAMPLES_MAX: usize = 32;
/// Parts of a match that may be JSON.
const JSON_PARTS_MAX: usize = 3;
/// Most literals of a rule whose matches may be short or of any characters: each is compared wherever
/// one may stand.
const LITERALS_MAX: usize = 32;
/// Shortest and longest key that a keyword may announce.
const ANNOUNCED_MIN: usize = 16;
const ANNOUNCED_MAX: usize = 127;
/// How far from its key a keyword may stand: within what is kept of a stream before and behind.
pub(super) const NEAR_MAX: usize = 1_000;
/// Shortest match for which wide runs are looked for: shorter ones are in every line of a log.
pub const WIDE_MIN: usize = 32;
/// Bytes that lines of logs and of source rarely hold.
const RARE: &[u8] = b"@^|`";
/// Faults whose lines are told: the file is read for each.
pub(super) const TOLD_MAX: usize = 100;

/// Borrowed of the built-in rules, of which nothing is copied when leakwarden starts.
pub type Text = Cow<'static, str>;
/// The same of lists.
pub type List<T> = Cow<'static, [T]>;

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A wrong checksum, an example word, a weak shape.
    Low,
    /// Probably a key.
    Medium,
    /// A distinctive prefix and alphabet, or a right checksum.
    High,
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

/// What may stand to the right of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// No ASCII letter or digit: where a key is longer than the pattern, it is none.
    #[default]
    Boundary,
    /// Anything: the pattern covers the beginning of a key without a bound.
    Any,
}

/// Characters that nearly every key of a kind holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// `0-9`
    Digit,
    /// `A-Z`
    Upper,
    /// `a-z`
    Lower,
}

/// The kinds of check digits whose arithmetic is known and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Checksum {
    /// GitHub: the last six characters are the CRC32 of the body before them, base62, padded
    /// with `0` (GitHub's blog of 2021-04-05 on its token formats).
    #[serde(rename = "crc32-base62")]
    Crc32Base62,
    /// leakwarden's own keys: as GitHub's, over the 30 characters before.
    #[serde(rename = "leakwarden")]
    Leakwarden,
    /// Grafana: eight hex digits after the last `_`, the CRC32 of what stands before it, least
    /// significant byte first (grafana/grafana, pkg/components/satokengen).
    #[serde(rename = "crc32-le-hex")]
    Crc32LeHex,
    /// GitLab routable tokens: the last seven characters are the CRC32 of everything before them,
    /// base36, padded with `0` (gitlabhq, lib/authn/token_field/generator/routable_token.rb).
    #[serde(rename = "gitlab-routable")]
    GitlabRoutable,
    /// Azure's identifiable keys: base64, in which the last four bytes are the Marvin32 of those before
    /// them, under the seed of a kind of key (microsoft/security-utilities, IdentifiableSecrets.cs).
    #[serde(rename = "azure-identifiable")]
    AzureIdentifiable,
    /// age: bech32 over the lower-case prefix and the data (BIP-173), in upper case.
    #[serde(rename = "bech32")]
    Bech32,
}

/// One rule as the file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Unique name, `[a-z0-9-]+`.
    pub id: Text,
    /// The issuer.
    pub provider: Text,
    /// The kind of key, in the issuer's words.
    pub name: Text,
    /// Literals, one of which every match holds at one of the offsets.
    #[serde(default)]
    pub prefixes: List<Text>,
    /// Lower-case words, one of which stands near a match that has no literal.
    #[serde(default)]
    pub keywords: List<Text>,
    /// Or ids of other rules, one of which matches near it.
    #[serde(default)]
    pub beside: List<Text>,
    /// How far before a match that is looked for, in bytes.
    #[serde(default = "usual_before")]
    pub before: usize,
    /// How far behind it.
    #[serde(default)]
    pub after: usize,
    /// How many line breaks may stand between, on each side.
    #[serde(default)]
    pub lines: usize,
    /// How many bytes of the match stand before the literal.
    #[serde(default = "no_offset")]
    pub offsets: List<usize>,
    /// The whole key, anchored at its first byte.
    pub pattern: Text,
    /// The issuer's check digits.
    pub checksum: Option<Checksum>,
    /// How sure a match is before checks.
    pub confidence: Confidence,
    /// What may stand before it.
    #[serde(default)]
    pub left: Left,
    /// What may stand behind it.
    #[serde(default)]
    pub right: Right,
    /// In the midst of base64 the confidence is low.
    #[serde(default)]
    pub lone: bool,
    /// Without all of these the confidence is low.
    #[serde(default)]
    pub needs: List<Need>,
    /// Whether it is a secret at all.
    #[serde(default)]
    pub kind: Kind,
    /// Bits of Shannon entropy per character below which the confidence is low.
    #[serde(default)]
    pub min_entropy: f32,
    /// So many of the first parts between dots are JSON objects in base64url; else the confidence is
    /// low.
    #[serde(default)]
    pub json_parts: usize,
    /// Texts in which the rule matches; see the module `example`.
    pub examples: List<Text>,
    /// Texts in which it does not.
    pub negative_examples: List<Text>,
    /// Where the facts come from.
    pub source: Text,
}

fn usual_before() -> usize {
    60
}

fn no_offset() -> List<usize> {
    Cow::Borrowed(&[0])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    rules: Vec<Entry>,
}

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

/// What is read off a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// In what every match lies, so that it is enough to look there.
    pub within: Within,
    /// The shortest match, in bytes.
    pub match_min: usize,
    /// The longest.
    pub match_max: usize,
    /// The ASCII characters of which matches are made, a bit each.
    pub alphabet: u128,
    /// A byte that every match holds behind its literal, and that other text rarely does: looked
    /// for before the literal is. `None` also where a match may hold a line break: the byte
    /// is looked for in one line only.
    pub required_byte: Option<u8>,
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

/// What is wrong with a file: line (counted from 1; 0 where none can be told) and reason.
pub(super) type Fault = (usize, String);

fn line(error: &serde_yaml::Error) -> usize {
    error.location().map_or(0, |location| location.line())
}

/// Reads one file: each rule with its facts, or all its faults.
pub(super) fn parse(text: &str) -> Result<Vec<(Entry, Facts)>, Vec<Fault>> {
    let file: RuleFile =
        serde_yaml::from_str(text).map_err(|error| vec![fault_of(text, &error)])?;
    let (mut rules, mut faults) = (Vec::new(), Vec::new());
    for (index, entry) in file.rules.into_iter().enumerate() {
        match entry.check() {
            Ok(facts) => rules.push((entry, facts)),
            Err(wrong) => {
                let line = if faults.len() < TOLD_MAX { line_of(text, index) } else { 0 };
                faults.extend(wrong.into_iter().map(|f| (line, format!("{}: {f}", entry.id))));
            }
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// What is wrong with a file that cannot be read as one.
fn fault_of(text: &str, error: &serde_yaml::Error) -> Fault {
    // Only for this one is no place told.
    let mut documents = serde_yaml::Deserializer::from_str(text);
    if error.location().is_none()
        && documents.next().is_some()
        && let Some(second) = documents.next()
    {
        let here = Place::Rule.deserialize(second);
        let line = here.err().map_or(0, |error| line(&error));
        return (line, "a second YAML document: write one a file".to_owned());
    }
    (line(error), error.to_string())
}

/// In which line a rule of a file begins, counted from 1. The file is read anew.
pub(super) fn line_of(text: &str, index: usize) -> usize {
    let here = Place::File(index).deserialize(serde_yaml::Deserializer::from_str(text));
    here.err().map_or(0, |error| line(&error))
}

/// Refuses one of the rules of a file, for the place that is told with an error: there is no other way
/// to learn it.
#[derive(Clone, Copy)]
enum Place {
    File(usize),
    Rules(usize),
    Rule,
}

impl<'de> DeserializeSeed<'de> for Place {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Self::Rules(_) => deserializer.deserialize_seq(self),
            Self::File(_) | Self::Rule => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Place {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("rules")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self::File(index) = self else { return Err(A::Error::custom("here")) };
        while map.next_key::<IgnoredAny>()?.is_some() {
            // It has no other key than `rules`.
            map.next_value_seed(Self::Rules(index))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Self::Rules(index) = self {
            for _ in 0..index {
                list.next_element::<IgnoredAny>()?;
            }
            list.next_element_seed(Self::Rule)?;
        }
        Ok(())
    }
}

/// The first text that holds another one in a way, and that.
fn twice(texts: &[Text], holds: fn(&str, &str) -> bool) -> Option<(&str, &str)> {
    texts.iter().enumerate().find_map(|(index, text)| {
        let others = texts.iter().enumerate().filter(|(other, _)| *other != index);
        let mut held = others.filter(|(_, other)| holds(text, other));
        held.next().map(|(_, other)| (&**text, &**other))
    })
}

/// With what an alternative begins that begins with none of these. Of what is no alternation, one
/// beginning has to be right: the literals may say closer what a class does not.
fn never_begun(hir: &Hir, prefixes: &[Text]) -> Option<Vec<u8>> {
    let all = match hir.kind() {
        HirKind::Capture(capture) => return never_begun(&capture.sub, prefixes),
        HirKind::Alternation(parts) => {
            return parts.iter().find_map(|part| never_begun(part, prefixes));
        }
        HirKind::Concat(parts) => {
            let first = parts.first().filter(|first| {
                matches!(first.kind(), HirKind::Capture(_) | HirKind::Alternation(_))
            });
            if let Some(never) = first.and_then(|first| never_begun(first, prefixes)) {
                return Some(never);
            }
            Extractor::new().kind(ExtractKind::Prefix).extract(hir)
        }
        _ => Extractor::new().kind(ExtractKind::Prefix).extract(hir),
    };
    let all: Vec<&[u8]> = all.literals()?.iter().map(Literal::as_bytes).collect();
    let may_begin = |begin: &&[u8]| {
        let mut prefixes = prefixes.iter().map(|prefix| prefix.as_bytes());
        prefixes.any(|prefix| begin.starts_with(prefix) || prefix.starts_with(begin))
    };
    all.first().filter(|_| !all.iter().any(may_begin)).map(|begin| begin.to_vec())
}

impl Entry {
    /// Whether matches are recognised by what stands near them.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        !self.keywords.is_empty() || !self.beside.is_empty()
    }

    /// Every check that needs no matching.
    fn check(&self) -> Result<Facts, Vec<String>> {
        let mut faults = Vec::new();
        let named = !self.id.is_empty()
            && self.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named {
            faults.push("id: write it in a-z, 0-9 and `-`".to_owned());
        }
        if self.prefixes.is_empty() != self.is_announced() {
            faults.push("give either prefixes, or keywords or beside".to_owned());
        }
        faults.extend(self.text_faults());
        if self.before > NEAR_MAX || self.after > NEAR_MAX {
            faults.push(format!("before, after: at most {NEAR_MAX}"));
        }
        if self.json_parts > JSON_PARTS_MAX {
            faults.push(format!("json_parts: at most {JSON_PARTS_MAX}"));
        }
        if self.json_parts > 0 && self.left != Left::Boundary {
            faults.push("json_parts: with `left: boundary` only".to_owned());
        }
        if self.offsets.is_empty() || self.offsets.iter().any(|&o| o > MATCH_MAX) {
            faults.push(format!("offsets: at least one, none over {MATCH_MAX}"));
        }
        if self.examples.len().max(self.negative_examples.len()) > EXAMPLES_MAX {
            faults.push(format!("examples and negative_examples: at most {EXAMPLES_MAX} each"));
        }
        if self.examples.is_empty() || self.negative_examples.is_empty() {
            faults.push("examples and negative_examples: at least one each".to_owned());
        }
        if !(0.0..=8.0).contains(&self.min_entropy) {
            faults.push("min_entropy: from 0 to 8 bits".to_owned());
        }
        let hir = parse_pattern(&self.pattern).map_err(|error| format!("pattern: {error}"));
        let hir = hir.map_err(|fault| faults.push(fault)).ok();
        let facts = hir.as_ref().map(|hir| self.facts(hir).map_err(|fault| faults.push(fault)));
        let facts = facts.and_then(Result::ok);
        faults.extend(hir.and_then(|hir| self.never_found(&hir)));
        if let Some(facts) = facts.filter(|_| self.is_announced())
            && (facts.within == Within::Anything
                || facts.match_min < ANNOUNCED_MIN
                || facts.match_max > ANNOUNCED_MAX)
        {
            faults.push(format!(
                "pattern: with keywords, a match is {ANNOUNCED_MIN} to {ANNOUNCED_MAX} bytes of \
                 [A-Za-z0-9_.-], or at least {WIDE_MIN} of [A-Za-z0-9_.+/=~-]"
            ));
        }
        let is_in_run =
            |facts: Facts| facts.within != Within::Anything && facts.match_min >= WIDE_MIN;
        if self.prefixes.len() > LITERALS_MAX && !facts.is_some_and(is_in_run) {
            faults.push(format!(
                "prefixes: at most {LITERALS_MAX}, unless each match is {WIDE_MIN} bytes or more of \
                 [A-Za-z0-9_.+/=~-]; divide the rule"
            ));
        }
        match facts.filter(|_| faults.is_empty()) {
            Some(facts) => Ok(facts),
            None => Err(faults),
        }
    }

    /// What is wrong with the literals and the keywords.
    fn text_faults(&self) -> Vec<String> {
        let bytes: usize = self.prefixes.iter().map(|prefix| prefix.len()).sum();
        if self.prefixes.len() > ALL_LITERALS_MAX || bytes > LITERAL_BYTES_MAX {
            // What there is to say of each would take long.
            return vec![format!(
                "prefixes: at most {ALL_LITERALS_MAX}, and {LITERAL_BYTES_MAX} bytes together; divide the rule"
            )];
        }
        if self.keywords.len() > LITERALS_MAX {
            return vec![format!("keywords: at most {LITERALS_MAX}")];
        }
        let mut faults = Vec::new();
        if self.prefixes.iter().any(|p| p.len() < LITERAL_MIN) {
            faults.push(format!("prefixes: each of {LITERAL_MIN} bytes or more"));
        }
        if self.prefixes.iter().any(|p| p.len() > LITERAL_MAX) {
            faults.push(format!("prefixes: each of at most {LITERAL_MAX} bytes"));
        }
        if let Some((text, other)) = twice(&self.prefixes, |text, other| text.starts_with(other)) {
            faults.push(format!("prefixes: `{text}` begins with `{other}`: leave it out"));
        }
        if let Some((word, other)) = twice(&self.keywords, |word, other| word.contains(other)) {
            faults.push(format!("keywords: `{word}` holds `{other}`: leave it out"));
        }
        let is_word = |word: &Text| {
            (LITERAL_MIN + 1..=KEYWORD_MAX).contains(&word.len()) && word.to_lowercase() == **word
        };
        if !self.keywords.iter().all(is_word) {
            faults.push(format!("keywords: in lower case, of 3 to {KEYWORD_MAX} bytes"));
        }
        faults
    }

    /// What is wrong with a pattern of which an alternative begins with none of the literals.
    fn never_found(&self, hir: &Hir) -> Option<String> {
        if self.prefixes.is_empty() || *self.offsets != [0] {
            return None;
        }
        let never = never_begun(hir, &self.prefixes)?;
        Some(format!(
            "pattern: what begins with `{}` is never found, as none of the prefixes does: add the \
             prefix, or leave it out",
            never.escape_ascii()
        ))
    }

    /// Reads the pattern's syntax tree.
    fn facts(&self, hir: &Hir) -> Result<Facts, String> {
        if !hir.properties().look_set().is_empty() {
            return Err(
                "pattern: leave out `^`, `$`, `\\b` and their like: `left` and `right` say \
                        what may stand around a match"
                    .to_owned(),
            );
        }
        let bounds = (hir.properties().minimum_len(), hir.properties().maximum_len());
        let (Some(match_min), Some(match_max @ 0..=MATCH_MAX)) = bounds else {
            return Err(format!(
                "pattern: its longest match must be at most {MATCH_MAX} bytes; bound each repetition"
            ));
        };
        let within = if all_bytes(hir, is_run_byte) {
            Within::Runs
        } else if all_bytes(hir, is_wide_byte) && match_min >= WIDE_MIN {
            Within::WideRuns
        } else {
            Within::Anything
        };
        let alphabet = (0..128u8)
            .filter(|byte| may_hold(hir, *byte))
            .fold(0, |alphabet, byte| alphabet | 1 << byte);
        let required_byte = self.required_byte(hir);
        Ok(Facts { within, match_min, match_max, alphabet, required_byte })
    }

    fn required_byte(&self, hir: &Hir) -> Option<u8> {
        let HirKind::Concat(parts) = hir.kind() else { return None };
        // Where the literal is not at the beginning, the byte may stand before it.
        if self.offsets.iter().any(|&offset| offset > 0) {
            return None;
        }
        if !all_bytes(hir, |byte| byte.is_ascii() && byte != b'\n') {
            return None;
        }
        parts
            .iter()
            .skip(1)
            .filter_map(|part| match part.kind() {
                HirKind::Literal(literal) => {
                    literal.0.iter().copied().find(|byte| RARE.contains(byte))
                }
                _ => None,
            })
            .find(|byte| !self.prefixes.iter().any(|prefix| prefix.as_bytes().contains(byte)))
    }
}
