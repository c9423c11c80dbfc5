//! What a match is worth, by its own bytes and its neighbours.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::steps::Memory;
use super::{Confidence, Kind, Need, Rule};
use crate::text::Sliding;

/// What makes a match doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Its check digits are wrong.
    Checksum,
    /// Such keys are public by design.
    Public,
    /// A word in it marks an example.
    Example,
    /// It is too regular to be random.
    Entropy,
    /// It holds no digit, no capital or no small letter, as nearly every key of its kind does.
    Needs,
    /// It is a part of longer base64.
    Base64,
    /// Parts of it are no JSON.
    Json,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Checksum => "its check digits are wrong",
            Self::Public => "such keys are public by design",
            Self::Example => "a word in it marks an example",
            Self::Entropy => "its entropy is under the rule's min_entropy",
            Self::Needs => "it lacks characters that the rule needs",
            Self::Base64 => "it is a part of longer base64",
            Self::Json => "its parts are no JSON objects in base64url",
        })
    }
}

impl Rule {
    /// The confidence of one match, in the order of the checks' price.
    #[must_use]
    pub fn assess(&self, text: &[u8], span: &Range<usize>, memory: &mut Memory) -> Confidence {
        match self.doubt(text, span, memory) {
            Some(_) => Confidence::Low,
            None if self.checksum.is_some() => Confidence::High,
            None => self.confidence,
        }
    }

    /// Why the confidence of one match is low whatever the rule's is, if it is.
    #[must_use]
    pub fn doubt(&self, text: &[u8], span: &Range<usize>, memory: &mut Memory) -> Option<Doubt> {
        let matched = text.get(span.clone()).unwrap_or_default();
        if let Some(checksum) = self.checksum {
            return (!checksum.verify(matched)).then_some(Doubt::Checksum);
        }
        if self.kind == Kind::Public {
            return Some(Doubt::Public);
        }
        if memory.words.is_in(text, span) {
            return Some(Doubt::Example);
        }
        let beginning = span.start..span.end.min(span.start + ENTROPY_MAX);
        if self.min_entropy > 0.0 && memory.entropies.bits(text, beginning) < self.min_entropy {
            return Some(Doubt::Entropy);
        }
        if !memory.needs.are_met(&self.needs, text, span) {
            return Some(Doubt::Needs);
        }
        if self.lone && is_in_base64(text, span) {
            return Some(Doubt::Base64);
        }
        (!are_json(matched, self.json_parts)).then_some(Doubt::Json)
    }
}

/// Entropies of what begins one after the other. A rule may see matches of different lengths at one
/// place: those of about the same share what was counted.
#[derive(Debug, Default)]
pub(super) struct Entropies([Sliding; 4]);

impl Entropies {
    fn bits(&mut self, text: &[u8], part: Range<usize>) -> f32 {
        let of_length = part.len() * self.0.len() / (ENTROPY_MAX + 1);
        self.0.get_mut(of_length).map_or(0.0, |sliding| sliding.bits(text, part))
    }
}

/// What the needs of rules ask for.
#[derive(Debug)]
pub(super) struct Needs {
    digit: Met,
    upper: Met,
    lower: Met,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            digit: Met::new(u8::is_ascii_digit),
            upper: Met::new(u8::is_ascii_uppercase),
            lower: Met::new(u8::is_ascii_lowercase),
        }
    }
}

impl Needs {
    fn are_met(&mut self, needs: &[Need], text: &[u8], span: &Range<usize>) -> bool {
        needs.iter().all(|need| {
            let met = match need {
                Need::Digit => &mut self.digit,
                Need::Upper => &mut self.upper,
                Need::Lower => &mut self.lower,
            };
            met.is_met(text, span)
        })
    }
}

/// Where in one text the next byte stands that a need asks for, as far as was looked: matches that
/// begin one after the other overlap.
#[derive(Debug)]
pub(super) struct Met {
    wanted: fn(&u8) -> bool,
    from: usize,
    to: usize,
    at: Option<usize>,
}

impl Met {
    fn new(wanted: fn(&u8) -> bool) -> Self {
        Self { wanted, from: 0, to: 0, at: None }
    }

    fn is_met(&mut self, text: &[u8], span: &Range<usize>) -> bool {
        let is_past = self.at.is_some_and(|at| at < span.start);
        let is_before = span.start < self.from && span.end >= self.from;
        if is_before {
            let part = text.get(span.start..self.from).unwrap_or_default();
            let at = part.iter().position(self.wanted).map(|at| span.start + at);
            (self.from, self.at) = (span.start, at.or(self.at));
        } else if is_past || !(self.from..=self.to).contains(&span.start) {
            (self.from, self.to, self.at) = (span.start, span.start, None);
        }
        if self.at.is_none() && self.to < span.end {
            let part = text.get(self.to..span.end).unwrap_or_default();
            self.at = part.iter().position(self.wanted).map(|at| self.to + at);
            self.to = span.end;
        }
        self.at.is_some_and(|at| at < span.end)
    }
}

/// Whether so many of the first parts between dots are JSON objects in base64url (RFC 7515). What is
/// none mostly shows by its beginning, and there may be many that overlap.
fn are_json(matched: &[u8], parts: usize) -> bool {
    if let Some(beginning) = matched.get(..JSON_BEGINNING).filter(|_| parts > 0)
        && !beginning.contains(&b'.')
        && !begins_json(beginning)
    {
        return false;
    }
    let ends = memchr::memchr_iter(b'.', matched).chain([matched.len()]);
    let starts = std::iter::once(0).chain(memchr::memchr_iter(b'.', matched).map(|dot| dot + 1));
    let all = starts.zip(ends).take(parts);
    all.map(|(start, end)| matched.get(start..end).unwrap_or_default()).all(is_json)
}

/// Whether base64url may be the beginning of a JSON object.
fn begins_json(beginning: &[u8]) -> bool {
    let mut text = Zeroizing::new([0; JSON_BEGINNING]);
    let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(beginning, text.as_mut());
    decoded.ok().and_then(|count| text.get(..count)).is_some_and(may_be_json)
}

/// Whether JSON is right as far as it goes.
fn may_be_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).map_or_else(|error| error.is_eof(), |_| true)
}

fn is_json(part: &[u8]) -> bool {
    let is_whole =
        |text: &[u8]| text.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok();
    if part.len() <= JSON_SHORT {
        let mut text = Zeroizing::new([0; JSON_SHORT]);
        let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(part, text.as_mut());
        return decoded.ok().and_then(|count| text.get(..count)).is_some_and(is_whole);
    }
    let decoded = |part| BASE64_URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).ok();
    let beginnings = std::iter::successors(Some(8 * JSON_BEGINNING), |count| Some(2 * count));
    let mut beginnings = beginnings.map_while(|count| part.get(..count));
    beginnings.all(|beginning| decoded(beginning).is_some_and(|text| may_be_json(&text)))
        && decoded(part).is_some_and(|text| is_whole(&text))
}

fn is_in_base64(text: &[u8], span: &Range<usize>) -> bool {
    let joins = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let before = text.get(..span.start).unwrap_or_default();
    (before.last().is_some_and(joins) && !ends_in_escape(before))
        || text.get(span.end).is_some_and(|byte| joins(byte) || *byte == b'=')
}

/// Whether a word may begin behind this text: no letter or digit stands there, or one that ends an
/// escape.
pub(super) fn is_boundary(before: &[u8]) -> bool {
    !before.last().is_some_and(u8::is_ascii_alphanumeric) || ends_in_escape(before)
}

/// Whether the text ends in an escape, so that its last letter is no part of a word: `\n`, `%3D`,
/// `\x3d`, `\u003d`, `ESC[32m`.
#[must_use]
pub fn ends_in_escape(before: &[u8]) -> bool {
    let tail = |count: usize| {
        before.len().checked_sub(count).and_then(|at| before.get(at..)).unwrap_or_default()
    };
    let hex = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    matches!(tail(2), [b'\\', b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'0'])
        || matches!(tail(3), [b'%', rest @ ..] if hex(rest))
        || matches!(tail(4), [b'\\', b'x', rest @ ..] if hex(rest))
        || matches!(tail(6), [b'\\', b'u', rest @ ..] if hex(rest))
        || before.strip_suffix(b"m").is_some_and(|rest| {
            let code = |byte: &&u8| byte.is_ascii_digit() || **byte == b';';
            let codes = rest.iter().rev().take(16).take_while(code).count();
            rest.get(..rest.len() - codes).is_some_and(|start| start.ends_with(b"\x1b["))
        })
}

/// How much of a match its entropy is taken of, in bytes: more says nothing new.
const ENTROPY_MAX: usize = 128;
/// How much of base64 is looked at first where JSON is expected, in characters: whole bytes.
const JSON_BEGINNING: usize = 16;
/// Up to how many it is decoded on the stack.
const JSON_SHORT: usize = 64;
/// How far into a match words that mark examples are looked for, in bytes.
const EXAMPLE_MAX: usize = 512;
/// Bytes of the longest of these words.
const WORD_MAX: usize = 15;

/// The words, in lower case. Those of letters and digits are so long that of a million random keys, of
/// any alphabet, few hold one. There is no run of `a`, `/` or `_`: base64 of zeros and of ones is such a
/// run, which keys of some issuers hold.
const EXAMPLE_WORDS: &[&[u8]] = &[
    b"example",
    b"sample",
    b"dummy",
    b"changeme",
    b"change_me",
    b"placeholder",
    b"redacted",
    b"replaceme",
    b"replace_me",
    b"thisisa",
    b"this_is_a",
    b"fakekey",
    b"fake_key",
    b"faketoken",
    b"fake_token",
    b"notareal",
    b"not_a_real",
    b"yourapi",
    b"your_api",
    b"your-api",
    b"yourkey",
    b"your_key",
    b"your-key",
    b"yourtoken",
    b"your_token",
    b"your-token",
    b"yoursecret",
    b"your_secret",
    b"your-secret",
    b"yourpass",
    b"your_pass",
    b"your-pass",
    b"keyhere",
    b"key_here",
    b"tokenhere",
    b"token_here",
    b"secrethere",
    b"secret_here",
    b"insertyour",
    b"insert_your",
    b"0123456789",
    b"1234567890",
    b"12345678-1234",
    b"1a2b3c4d",
    b"a1b2c3d4",
    b"abcdefgh",
    b"xxxxxx",
    // jwt.io's, in base64.
    b"ixmjm0nty3odkwi",
    // In URLs and connection strings.
    b":password",
    b":p@ss",
    b"password@",
    b"passwd@",
    b"pass@",
    b"secret@",
    b":postgres@",
    b":guest@",
    b":%(",
    b"=%(",
    b"password%",
    b"passwd%",
    b"pass%@",
    b"pwd%@",
    b"pw%@",
    b"secret%",
    b"token%",
    b"pass__",
    b"passwd__",
    b"password__",
    b"pwd__@",
    b"_pw__@",
    b"secret__",
    b"token__",
    b"***",
    b"######",
    // Runs.
    b"--------",
    b"........",
    b"00000000",
    b"11111111",
    b"22222222",
    b"33333333",
    b"44444444",
    b"55555555",
    b"66666666",
    b"77777777",
    b"88888888",
    b"99999999",
    b"bbbbbbbb",
    b"cccccccc",
    b"dddddddd",
    b"eeeeeeee",
    b"ffffffff",
    b"gggggggg",
    b"hhhhhhhh",
    b"iiiiiiii",
    b"jjjjjjjj",
    b"kkkkkkkk",
    b"llllllll",
    b"mmmmmmmm",
    b"nnnnnnnn",
    b"oooooooo",
    b"pppppppp",
    b"qqqqqqqq",
    b"rrrrrrrr",
    b"ssssssss",
    b"tttttttt",
    b"uuuuuuuu",
    b"vvvvvvvv",
    b"wwwwwwww",
    b"yyyyyyyy",
    b"zzzzzzzz",
];

/// Where in one text a word marks an example in documents, as far as was looked: matches that begin
/// one after the other overlap.
#[derive(Debug, Default)]
pub(super) struct ExampleWords {
    from: usize,
    to: usize,
    /// The first one there.
    word: Option<Range<usize>>,
}

impl ExampleWords {
    /// Whether one lies in the beginning of a match.
    fn is_in(&mut self, text: &[u8], span: &Range<usize>) -> bool {
        static EXAMPLES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
            let mut builder = AhoCorasick::builder();
            // Never slow, whatever the text is made to be.
            builder.kind(Some(AhoCorasickKind::DFA)).prefilter(false);
            builder.ascii_case_insensitive(true).build(EXAMPLE_WORDS).ok()
        });
        let start = span.start;
        let end = span.end.min(start + EXAMPLE_MAX);
        let is_past = self.word.as_ref().is_some_and(|word| word.start < start);
        let find = |part: Range<usize>| {
            let words = EXAMPLES.as_ref()?;
            let word = words.find(text.get(part.clone()).unwrap_or_default())?;
            Some(part.start + word.start()..part.start + word.end())
        };
        let mut goes_on = true;
        if start < self.from && end >= self.from {
            let word = find(start..text.len().min(self.from + WORD_MAX - 1));
            *self = Self { from: start, to: self.to, word: word.or(self.word.take()) };
        } else if is_past || !(self.from..=self.to).contains(&start) {
            *self = Self { from: start, to: start, word: None };
            goes_on = false;
        }
        if self.word.is_none() && self.to < end {
            // Where matches overlap, the next one will ask for more.
            let to = if goes_on { text.len().min(end + EXAMPLE_MAX) } else { end };
            let from = start.max(self.to.saturating_sub(WORD_MAX - 1));
            *self = Self { from: start, to, word: find(from..to) };
        }
        self.word.as_ref().is_some_and(|word| word.end <= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_may_begin_behind_an_escape() {
        for before in
            ["", " ", "=", r"\n", r"a\t", "%3D", r"\x3d", r"\u003d", "\u{1b}[32m", "\u{1b}[0;1m"]
        {
            assert!(is_boundary(before.as_bytes()), "{before:?}");
        }
        for before in ["n", "a3D", "x3d", "[32m", "%3g", r"\u003g"] {
            assert!(!is_boundary(before.as_bytes()), "{before:?}");
        }
    }

    #[test]
    fn placeholders_hold_words_and_keys_hold_none() {
        assert_eq!(EXAMPLE_WORDS.iter().map(|word| word.len()).max(), Some(WORD_MAX));
        let is_example =
            |text: &str| ExampleWords::default().is_in(text.as_bytes(), &(0..text.len()));
        let url = |password: &str| format!("postgres://u:{password}@h.io/d");
        for password in [
            "%(password)s",
            "%(pw)s",
            "%DB_PASSWORD%",
            "%PGPW%",
            "__DB_PASS__",
            "REDACTED",
            "--------",
            "........",
            "######",
            "00000000",
            "ab****",
            "p@ssw0rd",
        ] {
            assert!(is_example(&url(password)), "{password}");
        }
        for token in [
            "glpat-YOUR_TOKEN_HERE_REPL",
            "glpat-12345678901234567890",
            "gsk_INSERTYOURKEYHERE00",
            "x_your-api-key-goes-in",
            "acme_0123456789abcdef",
            "acme_1a2b3c4d5e6f",
            "THISISAFAKEKEY",
            "acme_INSERT_KEY_HERE",
            "12345678-1234-1234-1234-123456789012",
            "qqqqqqqq",
            "77777777",
        ] {
            assert!(is_example(token), "{token}");
        }
        for text in [
            url("tR7*y_Ezh-Q.W2"), url("your"), url("%2Fab%41"), url("a__b--c..d"), url("1234567"),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB"
                .to_owned(),
            "JQQJ99BCACAAAAAAAAAAAAAAAZDO".to_owned(),
            "_____wAAAAEAAAAA//////////8".to_owned(),
        ] {
            assert!(!is_example(&text), "{text}");
        }
    }

    #[test]
    fn words_are_seen_in_whichever_match_they_lie() {
        let mut words = ExampleWords::default();
        let text = b"key1-EXAMPLE-key2-key3-dummy";
        let mut is_in = |span: Range<usize>| words.is_in(text, &span);
        assert!(!is_in(0..11) && is_in(0..12) && is_in(5..12) && !is_in(6..20));
        assert!(!is_in(6..27) && is_in(6..28) && is_in(18..28) && !is_in(24..28));
        // Also in one that begins before what was looked at.
        assert!(is_in(0..28) && !is_in(0..11));
        // Back and forth, as literals of different lengths make matches begin.
        for (start, end) in [(14, 28), (6, 28), (18, 28), (10, 28), (24, 28), (6, 27), (6, 28)] {
            assert_eq!(is_in(start..end), start <= 23 && end == 28, "{start} {end}");
        }
        let long = [b'a'; EXAMPLE_MAX + 7];
        let text = [&long, b"example".as_slice()].concat();
        let mut words = ExampleWords::default();
        let found: Vec<usize> =
            (0..text.len()).filter(|start| words.is_in(&text, &(*start..text.len()))).collect();
        assert_eq!(found, (14..=long.len()).collect::<Vec<_>>());
    }

    #[test]
    fn needs_are_met_within_a_match() {
        let mut needs = Needs::default();
        let text = b"ab1-cd-EF2";
        let mut met = |all: &[Need], span: Range<usize>| needs.are_met(all, text, &span);
        assert!(met(&[Need::Digit], 0..3) && !met(&[Need::Digit], 0..2));
        assert!(!met(&[Need::Digit], 3..9) && met(&[Need::Digit, Need::Upper], 3..10));
        assert!(met(&[Need::Digit], 2..3) && !met(&[Need::Lower], 7..10) && met(&[], 7..7));
        let places = (0..9usize).flat_map(|start| [start + 1, start, start.saturating_sub(3)]);
        for (start, end) in places.flat_map(|start| (start..=10).map(move |end| (start, end))) {
            let has = text[start..end].iter().any(u8::is_ascii_digit);
            assert_eq!(met(&[Need::Digit], start..end), has, "{start} {end}");
        }
        assert!(met(&[Need::Lower, Need::Upper, Need::Digit], 5..10));
    }

    #[test]
    fn parts_are_json_or_not() {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let token =
            |parts: &[&str]| parts.iter().map(|text| part(text)).collect::<Vec<_>>().join(".");
        let whole = token(&[r#"{"alg":"HS256"}"#, r#"{"sub":"a b"}"#, "no json"]);
        assert!(are_json(whole.as_bytes(), 2) && !are_json(whole.as_bytes(), 3));
        let long = format!(
            r#"{{"k{}é":[-1.5e3,true,null,"\u00e9\n"],"n":{{"a":{{}}}}}}"#,
            "x".repeat(140)
        );
        for cut in 0..long.len() {
            let text = [&long.as_bytes()[..cut], b"   ", &long.as_bytes()[cut..]].concat();
            let is_one = cut > 0 && serde_json::from_slice::<IgnoredAny>(&text).is_ok();
            assert_eq!(is_json(BASE64_URL_SAFE_NO_PAD.encode(&text).as_bytes()), is_one, "{cut}");
            let cut_short = BASE64_URL_SAFE_NO_PAD.encode(&long.as_bytes()[..cut]);
            assert!(!is_json(cut_short.as_bytes()), "{cut}");
        }
        assert!(are_json(b"anything", 0) && !are_json(b"anything", 1));
        for wrong in [r#"{"alg":"HS256""#, r#"{"alg"}"#, "[1]", "\"{}\"", "{} {}"] {
            assert!(!are_json(token(&[wrong]).as_bytes(), 1), "{wrong}");
        }
        assert!(!are_json(b"eyJ!.x", 1) && !are_json(b"e30=", 1) && are_json(b"e30", 1));
    }

    #[test]
    fn a_part_of_base64_is_seen() {
        let is_in = |text: &str| is_in_base64(text.as_bytes(), &(4..8));
        assert!(is_in("abc/KEYSabc") && is_in("abc KEYS=") && is_in("abc KEYS+"));
        assert!(!is_in("abc KEYS ") && !is_in("abc=KEYS") && !is_in(r"ab\nKEYS"));
    }
}
