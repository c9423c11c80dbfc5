//! Rule files: reading them, and what can be told of a rule without matching. The build script
//! compiles this file too (it prepares the built-in rules), so it names nothing of this crate.

use std::borrow::Cow;

use regex_syntax::hir::{Class, Hir, HirKind};
use serde::Deserialize;

/// Longest match of any rule, in bytes.
pub const MATCH_MAX: usize = 3_000;
/// Shortest literal.
const LITERAL_MIN: usize = 2;
/// Shortest and longest key that a keyword may announce.
const ANNOUNCED_MIN: usize = 16;
const ANNOUNCED_MAX: usize = 127;
/// How far from its key a keyword may stand: within what is kept of a stream before and behind.
const NEAR_MAX: usize = 1_000;
/// Shortest match for which wide runs are looked for: shorter ones are in every line of a log.
pub const WIDE_MIN: usize = 32;
/// Bytes that lines of logs and of source rarely hold.
const RARE: &[u8] = b"@^|`";
/// Most ways in which a pattern may count at once: a repetition in a repetition multiplies.
const NESTED_MAX: u32 = 256;
/// Most steps that searches may take for a byte of text: as many ways as one may follow at once, times
/// the bytes of the longest match, once for every offset of every place at which a literal can stand.
const STEPS_MAX: usize = 1 << 17;

/// Borrowed of the built-in rules, of which nothing is copied when leakwarden starts.
pub type Text = Cow<'static, str>;
/// The same of lists.
pub type List<T> = Cow<'static, [T]>;

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

/// Reads one file: each rule with its line and its facts, or all its faults.
pub(super) fn parse(text: &str) -> Result<Vec<(usize, Entry, Facts)>, Vec<Fault>> {
    let file: RuleFile = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        vec![(line, error.to_string())]
    })?;
    let mut lines: Vec<(usize, &str)> = text.lines().enumerate().collect();
    let (mut rules, mut faults) = (Vec::new(), Vec::new());
    for entry in file.rules {
        let line = lines.iter().position(|(_, line)| names(line, &entry.id)).map_or(0, |at| {
            // The same id again stands further down.
            lines.drain(..=at).next_back().map_or(0, |(line, _)| line + 1)
        });
        match entry.check() {
            Ok(facts) => rules.push((line, entry, facts)),
            Err(wrong) => {
                faults.extend(wrong.into_iter().map(|f| (line, format!("{}: {f}", entry.id))));
            }
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// Whether a line of YAML gives this id.
fn names(line: &str, id: &str) -> bool {
    let rest = line.trim_start().trim_start_matches('-').trim_start();
    rest.strip_prefix("id:").is_some_and(|value| {
        value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']) == id
    })
}

impl Entry {
    /// Whether matches are recognised by what stands near them.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        !self.keywords.is_empty() || !self.beside.is_empty()
    }

    /// How many bytes apart literals can stand at least: less than the length of one whose end is the
    /// beginning of itself or of another.
    #[must_use]
    pub fn period(&self) -> usize {
        let fits = |rest: &[u8], next: &[u8]| rest.starts_with(next) || next.starts_with(rest);
        let apart = |literal: &Text| {
            let bytes = literal.as_bytes();
            let next = |at: &usize| {
                let rest = bytes.get(*at..).unwrap_or_default();
                self.prefixes.iter().any(|next| fits(rest, next.as_bytes()))
            };
            (1..bytes.len()).find(next).unwrap_or(bytes.len())
        };
        self.prefixes.iter().map(apart).min().unwrap_or(1).max(1)
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
        if self.before > NEAR_MAX || self.after > NEAR_MAX {
            faults.push(format!("before, after: at most {NEAR_MAX}"));
        }
        if self.prefixes.iter().any(|p| p.len() < LITERAL_MIN) {
            faults.push(format!("prefixes: each of {LITERAL_MIN} bytes or more"));
        }
        let is_word = |word: &Text| word.len() > LITERAL_MIN && word.to_lowercase() == **word;
        if !self.keywords.iter().all(is_word) {
            faults.push("keywords: in lower case, of 3 bytes or more".to_owned());
        }
        if self.offsets.is_empty() || self.offsets.iter().any(|&o| o > MATCH_MAX) {
            faults.push(format!("offsets: at least one, none over {MATCH_MAX}"));
        }
        if self.examples.is_empty() || self.negative_examples.is_empty() {
            faults.push("examples and negative_examples: at least one each".to_owned());
        }
        if !(0.0..=8.0).contains(&self.min_entropy) {
            faults.push("min_entropy: from 0 to 8 bits".to_owned());
        }
        let facts = self.facts().map_err(|fault| faults.push(fault)).ok();
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
        match facts.filter(|_| faults.is_empty()) {
            Some(facts) => Ok(facts),
            None => Err(faults),
        }
    }

    /// Reads the pattern's syntax tree.
    fn facts(&self) -> Result<Facts, String> {
        let parser = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(&self.pattern);
        let hir = parser.map_err(|error| format!("pattern: {error}"))?;
        let bounds = (hir.properties().minimum_len(), hir.properties().maximum_len());
        let (Some(match_min), Some(match_max @ 0..=MATCH_MAX)) = bounds else {
            return Err(format!(
                "pattern: its longest match must be at most {MATCH_MAX} bytes; bound each repetition"
            ));
        };
        let ways = usize::try_from(ways(&hir)).unwrap_or(usize::MAX);
        let starts = self.offsets.len();
        if ways.saturating_mul(match_max).saturating_mul(starts) / self.period() > STEPS_MAX {
            return Err(format!(
                "pattern: repetitions of the same characters, one behind the other, make it too \
                 costly: {ways} ways to count, times {match_max} bytes; bound them closer"
            ));
        }
        if nested(&hir) > NESTED_MAX {
            return Err(
                "pattern: repetitions within repetitions make it too costly; write it flat"
                    .to_owned(),
            );
        }
        let within = if all_bytes(&hir, is_run_byte) {
            Within::Runs
        } else if all_bytes(&hir, is_wide_byte) && match_min >= WIDE_MIN {
            Within::WideRuns
        } else {
            Within::Anything
        };
        let alphabet = (0..128u8)
            .filter(|byte| may_hold(&hir, *byte))
            .fold(0, |alphabet, byte| alphabet | 1 << byte);
        let required_byte = self.required_byte(&hir);
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

/// The largest product of counts that stand within each other, where a text can be counted in more
/// than one way: so many states a search may have to follow at once.
fn nested(hir: &Hir) -> u32 {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Capture(capture) => nested(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(nested).max().unwrap_or(1)
        }
        HirKind::Repetition(repetition) => {
            let inner = nested(&repetition.sub);
            let properties = repetition.sub.properties();
            let (shortest, longest) = (properties.minimum_len(), properties.maximum_len());
            let once = repetition.max.is_some_and(|most| most <= 1);
            if once || shortest == longest || is_separated(&repetition.sub) {
                return inner;
            }
            let longest = longest.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(u32::MAX);
            repetition.max.unwrap_or(u32::MAX).saturating_mul(inner.max(longest))
        }
    }
}

/// About how many ways to match a text a search may have to follow at once: where a byte does not
/// tell whether a part of variable length goes on or the next one has begun, each length of it is one,
/// but not more than there are places behind it.
fn ways(hir: &Hir) -> u32 {
    let longest = |hir: &Hir| hir.properties().maximum_len().unwrap_or(usize::MAX);
    let spread =
        |hir: &Hir| longest(hir).saturating_sub(hir.properties().minimum_len().unwrap_or_default());
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Capture(capture) => ways(&capture.sub),
        HirKind::Repetition(repetition) => ways(&repetition.sub),
        HirKind::Alternation(parts) => {
            parts.iter().map(ways).fold(0, |all, part| all.saturating_add(part))
        }
        HirKind::Concat(parts) => {
            let mut rest = parts.as_slice();
            let (mut widest, mut unclear) = (1, 0u32);
            while let Some((part, after)) = rest.split_first() {
                widest = widest.max(ways(part));
                // What may follow: up to the first part that cannot be empty.
                let last = after.iter().position(|next| next.properties().minimum_len() > Some(0));
                let next = after.get(..last.map_or(after.len(), |last| last + 1));
                let follows =
                    |byte| next.unwrap_or_default().iter().any(|part| may_begin_with(part, byte));
                if (0..=u8::MAX).any(|byte| may_hold(part, byte) && follows(byte)) {
                    let behind = after.iter().map(longest).fold(0, usize::saturating_add);
                    let count = u32::try_from(spread(part).min(behind)).unwrap_or(u32::MAX);
                    unclear = unclear.saturating_add(count);
                }
                rest = after;
            }
            widest.saturating_add(unclear)
        }
    }
}

/// Whether a part of each repetition holds a byte that no other part can: it tells where one ends.
fn is_separated(hir: &Hir) -> bool {
    let parts = match hir.kind() {
        HirKind::Capture(capture) => return is_separated(&capture.sub),
        HirKind::Alternation(parts) => return is_code(parts),
        HirKind::Concat(parts) => parts,
        _ => return false,
    };
    parts.iter().enumerate().any(|(at, part)| {
        let others = || parts.iter().enumerate().filter(|(other, _)| *other != at);
        // One that repeats must have something else between its last and its next.
        let repeats = matches!(part.kind(), HirKind::Repetition(part) if part.max != Some(1));
        let between = others().any(|(_, other)| other.properties().minimum_len() > Some(0));
        (!repeats || between)
            && has_foreign(part, &|byte| others().any(|(_, other)| may_hold(other, byte)))
    })
}

/// Whether the first byte tells which of the alternatives it is, and so how long it is.
fn is_code(parts: &[Hir]) -> bool {
    let fixed = |part: &Hir| {
        let properties = part.properties();
        properties.minimum_len() > Some(0) && properties.minimum_len() == properties.maximum_len()
    };
    parts.iter().all(fixed)
        && (0..=u8::MAX)
            .all(|byte| parts.iter().filter(|part| may_begin_with(part, byte)).count() <= 1)
}

/// Whether some match begins with the byte; of what may be empty, no is not said.
fn may_begin_with(hir: &Hir, byte: u8) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.first() == Some(&byte),
        HirKind::Capture(capture) => may_begin_with(&capture.sub, byte),
        HirKind::Concat(parts) => parts.first().is_none_or(|part| may_begin_with(part, byte)),
        HirKind::Alternation(parts) => parts.iter().any(|part| may_begin_with(part, byte)),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            may_begin_with(&repetition.sub, byte)
        }
        HirKind::Class(_) => may_hold(hir, byte),
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => true,
    }
}

/// Whether every match holds a byte that is none of `known`.
fn has_foreign(hir: &Hir, known: &dyn Fn(u8) -> bool) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.iter().any(|byte| !known(*byte)),
        HirKind::Class(_) => (0..=u8::MAX).all(|byte| !may_hold(hir, byte) || !known(byte)),
        HirKind::Repetition(repetition) => {
            repetition.min > 0 && has_foreign(&repetition.sub, known)
        }
        HirKind::Capture(capture) => has_foreign(&capture.sub, known),
        HirKind::Concat(parts) => parts.iter().any(|part| has_foreign(part, known)),
        HirKind::Alternation(parts) => parts.iter().all(|part| has_foreign(part, known)),
    }
}

/// Whether some match holds the byte.
fn may_hold(hir: &Hir, byte: u8) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&byte),
        HirKind::Class(Class::Bytes(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&byte))
        }
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&char::from(byte)))
        }
        HirKind::Repetition(repetition) => may_hold(&repetition.sub, byte),
        HirKind::Capture(capture) => may_hold(&capture.sub, byte),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().any(|part| may_hold(part, byte))
        }
    }
}

/// Whether matches hold no other bytes.
fn all_bytes(hir: &Hir, wanted: fn(u8) -> bool) -> bool {
    hir.properties().look_set().is_empty()
        && (0..=u8::MAX).all(|byte| wanted(byte) || !may_hold(hir, byte))
}
