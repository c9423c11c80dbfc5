//! Streams: the same findings, with the same places, however the bytes come in.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use leakwarden::matcher::{Candidate, Matcher, SPAN_MAX, Scanner, pieces};
use leakwarden::rule::{RuleSet, example};
use leakwarden::shape::ShapeSet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::fuzzing;

/// How much a scanner reads at once; only to choose cuts near its borders.
const READ_BYTES: usize = 256 * 1024;

/// Start, end, line, column, rule, known, key.
type Finding = (u64, u64, u64, u64, Option<usize>, bool, Vec<u8>);

static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(fuzzing::keys);

static MATCHER: LazyLock<Matcher> = LazyLock::new(|| {
    let shapes = ShapeSet::new(fuzzing::shapes(&KEYS));
    Matcher::new(Arc::new(RuleSet::builtin()), shapes)
});

/// Keys, and what the rules find.
static TOKENS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let rules = MATCHER.rules().rules();
    let examples = rules.flat_map(|rule| {
        rule.examples
            .iter()
            .map(|t| example::expand(t, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap())
    });
    KEYS.iter().cloned().chain(examples).collect()
});

/// Feeds one stream, piece by piece.
struct Feed {
    scanner: Scanner,
    keys: HashSet<Vec<u8>>,
    found: Vec<Finding>,
}

impl Feed {
    fn new() -> Self {
        let keys = KEYS.iter().cloned().collect();
        Self { scanner: Scanner::new(), keys, found: Vec::new() }
    }

    fn put(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let space = self.scanner.space();
            let count = space.len().min(part.len());
            space[..count].copy_from_slice(&part[..count]);
            let (keys, found) = (&self.keys, &mut self.found);
            let known = |bytes: &[u8]| keys.contains(bytes);
            self.scanner.filled(count, &MATCHER, &known, &mut |c| found.push(finding(&c)));
            part = &part[count..];
        }
    }

    fn end(mut self) -> Vec<Finding> {
        let (keys, found) = (&self.keys, &mut self.found);
        let known = |bytes: &[u8]| keys.contains(bytes);
        self.scanner.finish(&MATCHER, &known, &mut |c| found.push(finding(&c)));
        self.found
    }
}

fn finding(c: &Candidate) -> Finding {
    (c.start, c.end, c.line, c.column, c.rule, c.known, c.secret.expose().to_vec())
}

fn scan<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Finding> {
    let mut feed = Feed::new();
    parts.into_iter().for_each(|part| feed.put(part));
    feed.end()
}

/// The same by several threads.
fn scan_in_pieces(text: &[u8], threads: usize) -> Vec<Finding> {
    let keys: HashSet<Vec<u8>> = KEYS.iter().cloned().collect();
    let known = |bytes: &[u8]| keys.contains(bytes);
    let read = |offset: u64, to: &mut [u8]| {
        let rest = &text[usize::try_from(offset).unwrap()..];
        let count = to.len().min(rest.len());
        to[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    };
    let mut found = Vec::new();
    let size = (text.len() as u64, threads);
    let mut emit = |candidate: Candidate| found.push(finding(&candidate));
    assert_eq!(pieces::scan(&MATCHER, &known, size, &read, &mut emit).unwrap(), size.0);
    found
}

/// The text between each two of the cuts.
fn parts<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

/// Lines and columns by counting; keys by comparing.
fn assert_right(text: &[u8], found: &[Finding]) {
    for (start, end, line, column, _, _, key) in found {
        let (start, end) = (usize::try_from(*start).unwrap(), usize::try_from(*end).unwrap());
        assert_eq!(&text[start..end], key);
        let before = &text[..start];
        let newlines = memchr::memchr_iter(b'\n', before).count() as u64;
        let begin = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        assert_eq!((*line, *column), (newlines + 1, (start - begin) as u64 + 1));
    }
}

/// What stands between tokens: short separators, and now and then very much of something.
fn gap() -> impl Strategy<Value = Vec<u8>> {
    let units = ["x", "some words\n", "a.b_", "+/", "=\"", " ", "\n", "0f", "é", "%7b"];
    let long = (prop::sample::select(units.to_vec()), 1usize..400_000)
        .prop_map(|(unit, len)| unit.bytes().cycle().take(len).collect());
    let short = "[ =:\"'\\n_.@a-f/-]{0,4}".prop_map(String::into_bytes);
    prop_oneof![4 => short, 1 => long]
}

/// A text of tokens and gaps.
fn text(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec((gap(), any::<Index>()), count).prop_map(|parts| {
        let mut text = Vec::new();
        for (gap, token) in parts {
            text.extend_from_slice(&gap);
            text.extend_from_slice(&TOKENS[token.index(TOKENS.len())]);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn short_streams(text in text(1..8), cuts in vec(any::<usize>(), 0..60)) {
        let whole = scan([&*text]);
        assert_right(&text, &whole);
        prop_assert_eq!(scan(parts(&text, &cuts)), whole);
    }

    /// Cuts around the places where buffers end and stretches are decided.
    #[test]
    fn cuts_near_the_borders(
        text in text(10..40),
        near in vec((0usize..12, 0usize..9_000, any::<bool>()), 1..20),
    ) {
        let whole = scan([&*text]);
        let cuts: Vec<usize> = near
            .into_iter()
            .map(|(border, off, before)| match before {
                true => (border * READ_BYTES).saturating_sub(off),
                false => border * READ_BYTES + off,
            })
            .collect();
        prop_assert_eq!(scan_in_pieces(&text, 2), whole.as_slice());
        prop_assert_eq!(scan(parts(&text, &cuts)), whole);
    }

    /// All pieces of one size, down to a byte.
    #[test]
    fn pieces_of_one_size(text in text(2..6), size in 1usize..3 * SPAN_MAX) {
        let whole = scan([&*text]);
        prop_assert_eq!(scan(text.chunks(size)), whole);
    }
}

/// Between one and three MiB, tokens everywhere.
#[test]
fn large_streams() {
    let mut text = Vec::new();
    for (index, token) in TOKENS.iter().cycle().enumerate() {
        text.extend_from_slice(token);
        match index % 5 {
            0 => text.push(b'\n'),
            1 => text.extend(b"filler, ".iter().cycle().take(index * 131 % 9_001)),
            2 => text.extend(b"q".iter().cycle().take(index * 37 % 5_003)),
            _ => text.extend_from_slice(b"\"; "),
        }
        if text.len() > 3 << 20 {
            break;
        }
    }
    for len in [1 << 20, (2 << 20) + 12_345, text.len()] {
        let text = &text[..len];
        let whole = scan([text]);
        assert_right(text, &whole);
        assert!(whole.len() > 300 && whole.iter().any(|found| found.5));
        for size in [1_000, SPAN_MAX, SPAN_MAX + 1, 65_537, READ_BYTES - 1, READ_BYTES + 1] {
            assert_eq!(scan(text.chunks(size)), whole, "in pieces of {size}");
        }
        assert_eq!(scan_in_pieces(text, 3), whole);
    }
}

/// More that overlap than are weighed against each other at once, over all borders.
#[test]
fn matches_within_matches() {
    let nested = |unit: &str, count: usize| unit.repeat(count);
    let web = [100, 450, 170].map(|count| format!("eyJ{}", nested("eyJ-", count))).join(".");
    let tokens =
        [web, format!("glpat-t0_{}.a1b2c3d4e-", nested("glpat-a", 40)), nested("npm_", 700)];
    for token in tokens {
        let all =
            [b"\n".as_slice(), b" ", &KEYS[0], b"_"].map(|end| [token.as_bytes(), end].concat());
        let text: Vec<u8> = all.concat().into_iter().cycle().take(1_300_000).collect();
        let whole = scan([&*text]);
        assert_right(&text, &whole);
        assert!(!whole.is_empty());
        assert_eq!(scan(text.chunks(8_191)), whole);
        assert_eq!(scan_in_pieces(&text, 2), whole);
    }
}

/// The border between what is decided and what waits for more text, at every place in a token.
#[test]
fn a_token_at_every_place_around_a_border() {
    let border = 4 * SPAN_MAX;
    // With so much read, the scanner decides up to the border.
    let read = border + SPAN_MAX + 1;
    let around = b"- ".repeat(border / 2);
    let mut count = 0;
    for token in TOKENS.iter().step_by(5).filter(|token| token.len() < 1_000) {
        for shift in 0..token.len() + 2 {
            let text = [&around[shift..], b" ", token, &around].concat();
            let whole = scan([&*text]);
            count += whole.len();
            assert_eq!(scan(parts(&text, &[read])), whole);
        }
    }
    assert!(count > TOKENS.len());
}

/// A line of 1 GiB without an end, made and read piece by piece: keys at its beginning, in its
/// middle and at its end. An eighth of it is one word; more of that takes the most time.
#[test]
fn in_a_line_of_a_gibibyte() {
    const LEN: usize = 1 << 30;
    let word = b"abcdefghijklmnop".repeat(1 << 14);
    let numbers = b"[1, 22, 333, 4]\t".repeat(1 << 14);
    let mut feed = Feed::new();
    let mut expected = Vec::new();
    let mut at = 0;
    let places = [0, LEN / 8, LEN / 2 + 77, LEN];
    for (place, key) in places.into_iter().zip([&KEYS[0], &KEYS[3], &KEYS[5], &KEYS[4]]) {
        while at < place {
            let filler = if at < LEN / 8 { &word } else { &numbers };
            let count = filler.len().min(place - at);
            feed.put(&filler[..count]);
            at += count;
        }
        let quoted = [b"\"", &**key, b"\""].concat();
        feed.put(&quoted);
        expected.push(((at + 1) as u64, 1, (at + 2) as u64, key.clone()));
        at += quoted.len();
    }
    assert!(at > LEN);
    let found: Vec<_> = feed
        .end()
        .into_iter()
        .filter(|found| found.5)
        .map(|(start, _, line, column, _, _, key)| (start, line, column, key))
        .collect();
    assert_eq!(found, expected);
}
