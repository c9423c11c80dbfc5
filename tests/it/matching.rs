//! Registered keys are found wherever they stand, and nothing else is; any split of a stream gives
//! the same findings.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use leakwarden::matcher::{Candidate, Matcher, Scanner};
use leakwarden::rule::RuleSet;
use leakwarden::shape::{Alphabet, Known, NoKeys, Shape, ShapeSet};
use proptest::prelude::*;

const PREFIXED: &str = "lw_user_0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T";
const IBM: &str = "-a1B2c3D4e5F6g7H8i9J_0k1L2m3N4o5P6q7R8s9T0u_";
const UUID: &str = "3f2b8c1d-9e4a-4f6b-8d7c-1a2b3c4d5e6f";
const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const BASE64: &str = "q2W+e4Rt/6Yu8Io0Pa3Sd5Fg7Hj9KlZxCvBn1mQw2Ee=";
const CUSTOM: &str = "my!own$key%with&odd*chars(2026)";
const KEYS: [&str; 6] = [PREFIXED, IBM, UUID, HEX, BASE64, CUSTOM];

fn matcher() -> Matcher {
    let shapes = ShapeSet::new(KEYS.iter().map(|key| Shape::of(key.as_bytes()).unwrap()));
    Matcher::new(Arc::new(RuleSet::builtin()), shapes)
}

/// Offsets and texts of registered keys, for a text given in these parts.
fn scan(matcher: &Matcher, parts: &[&[u8]]) -> Vec<(u64, u64, u64, String)> {
    let keys: HashSet<&[u8]> = KEYS.iter().map(|key| key.as_bytes()).collect();
    let known = |bytes: &[u8]| keys.contains(bytes);
    let mut found = Vec::new();
    let mut emit = |candidate: Candidate| {
        if candidate.known {
            let text = String::from_utf8(candidate.secret.expose().to_vec()).unwrap();
            found.push((candidate.start, candidate.line, candidate.column, text));
        }
    };
    let mut scanner = Scanner::new();
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let space = scanner.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            scanner.filled(count, matcher, &known, &mut emit);
            rest = &rest[count..];
        }
    }
    scanner.finish(matcher, &known, &mut emit);
    found
}

fn texts(matcher: &Matcher, text: &str) -> Vec<String> {
    scan(matcher, &[text.as_bytes()]).into_iter().map(|(_, _, _, text)| text).collect()
}

#[test]
fn whatever_stands_around_them() {
    let matcher = matcher();
    let around = [
        ("", ""),
        ("a,", ",b"),
        ("(", ")"),
        ("<", ">"),
        ("x_", ""),
        ("", "-y"),
        ("a.", ".b"),
        ("\u{feff}", "\n"),
        ("key=\"", "\""),
        ("\\n", "\\n"),
        ("/", "/"),
        ("'", "'"),
        ("=", "&"),
        ("%22", "%22"),
        ("\0", "\0"),
        ("é", "é"),
        ("-", "-"),
        ("_", "_"),
        ("Bearer ", "\r\n"),
    ];
    for key in KEYS {
        for (before, after) in around {
            // Glued to characters of their own alphabet on both sides the odd ones are words of
            // another length; that is what `--deep` is for.
            let text = format!("{before}{key}{after}");
            let found = texts(&matcher, &text);
            assert_eq!(found, [key], "in {text:?}");
        }
    }
}

#[test]
fn near_misses_are_not_reported() {
    let matcher = matcher();
    for key in KEYS {
        let mut misses = vec![key[1..].to_owned(), key[..key.len() - 1].to_owned()];
        misses.push(format!("{}{}", &key[..10], &key[11..]));
        misses.push(format!("{}{}{}", &key[..10], &key[9..10], &key[10..]));
        let swapped: String = key
            .chars()
            .map(|c| {
                if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
            })
            .collect();
        misses.push(swapped);
        misses.push(format!("{}…{}", &key[..4], &key[key.len() - 4..]));
        for miss in misses.iter().filter(|miss| *miss != key) {
            assert!(texts(&matcher, miss).is_empty(), "{miss:?} taken for {key:?}");
        }
    }
}

#[test]
fn places_are_right_far_into_a_stream() {
    let matcher = matcher();
    let mut text = "some words here\n".repeat(100_000);
    text.push_str("  token: ");
    let offset = text.len() as u64;
    text.push_str(IBM);
    text.push_str("\nend\n");
    assert_eq!(scan(&matcher, &[text.as_bytes()]), [(offset, 100_001, 10, IBM.to_owned())]);
}

#[test]
fn in_a_line_without_end() {
    let matcher = matcher();
    let filler = "a".repeat(3 << 20);
    let text = format!("{PREFIXED}.{filler}-{IBM}-{filler}.{HEX}");
    assert_eq!(texts(&matcher, &text), [PREFIXED, IBM, HEX]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random text with keys in it, cut anywhere, gives what it gives in one piece.
    #[test]
    fn any_split_gives_the_same(
        gaps in proptest::collection::vec("[a-z0-9_.=\\n \"-]{0,9000}", 7),
        mut cuts in proptest::collection::vec(0usize..60_000, 0..40),
    ) {
        let matcher = matcher();
        let mut text = String::new();
        for (gap, key) in gaps.iter().zip(KEYS.iter().chain([&""])) {
            text.push_str(gap);
            text.push(' ');
            text.push_str(key);
            text.push('"');
        }
        cuts.iter_mut().for_each(|cut| *cut %= text.len());
        cuts.sort_unstable();
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = 0;
        for cut in cuts {
            parts.push(&text.as_bytes()[at..cut]);
            at = cut;
        }
        parts.push(&text.as_bytes()[at..]);
        let whole = scan(&matcher, &[text.as_bytes()]);
        prop_assert!(KEYS.iter().all(|key| whole.iter().any(|(_, _, _, found)| found == key)));
        prop_assert_eq!(scan(&matcher, &parts), whole);
    }
}

/// A key at every offset around the border of the read buffer.
#[test]
fn at_every_offset_around_a_buffer_border() {
    let matcher = matcher();
    let border = 256 * 1024;
    for shift in (0..6_000).step_by(83) {
        let before = border - 5_000 + shift;
        let text = format!("{}\n{IBM}\n{}", "x".repeat(before), "y ".repeat(6_000));
        let found = scan(&matcher, &[text.as_bytes()]);
        assert_eq!(found, [(before as u64 + 1, 2, 1, IBM.to_owned())], "at {before}");
    }
}

/// Asked for windows of a text, says how many came at once.
struct Counting(std::cell::Cell<usize>, std::cell::Cell<usize>);

impl Known for Counting {
    fn knows(&self, _bytes: &[u8]) -> bool {
        false
    }

    fn which(&self, _text: &[u8], windows: &[Range<usize>], _found: &mut dyn FnMut(usize)) {
        self.0.set(self.0.get().max(windows.len()));
        self.1.set(self.1.get() + windows.len());
    }
}

/// What has to be remembered does not grow with the length of a run, nor with the number of shapes.
#[test]
fn windows_are_looked_up_before_they_are_many() {
    let lengths = 16..116;
    let shapes = lengths.clone().map(|len| (Shape { alphabet: Alphabet::Base64Url, len }, 2));
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::of_strong(shapes));
    let asked = |text: &[u8]| {
        let counting = Counting(Default::default(), Default::default());
        matcher.find(text, 0..text.len(), &counting, &mut Vec::new());
        (counting.0.get(), counting.1.get())
    };
    let (most, all) = asked(&b"A-1_".repeat(5_000));
    assert!(most <= 64 && all > 10_000 * lengths.len(), "{most} of {all}");
    // None of these can be a key, as long as the run may be.
    assert_eq!(asked(&b"a-b_".repeat(5_000)), (0, 0));
}

/// Of keys within keys each is found once, however many there are, and however many alphabets it could
/// be of.
#[test]
fn keys_within_keys_are_found_once() {
    let letters = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut state = 1u32;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(letters[(state >> 16) as usize % letters.len()])
    });
    let key: String = random.take(100).chain(['_']).collect();
    let keys: HashSet<&str> = (16..79).chain([101]).map(|end| &key[..end]).collect();
    let dotted = Shape { alphabet: Alphabet::Dotted, len: key.len() };
    let shapes = keys.iter().map(|key| Shape::of(key.as_bytes()).unwrap()).chain([dotted]);
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::new(shapes));
    let known = |bytes: &[u8]| str::from_utf8(bytes).is_ok_and(|text| keys.contains(text));
    let long =
        format!("{}.{}-{key}.x {}", " ".repeat(2_900), "a".repeat(1_300), "\n".repeat(16_000));
    for text in [format!("{key}.x\n"), long] {
        for size in [1, 4_096, 16_384] {
            let mut found = Vec::new();
            let mut emit = |candidate: Candidate| found.push((candidate.start, candidate.end));
            let mut scanner = Scanner::new();
            for part in text.as_bytes().chunks(size) {
                scanner.space()[..part.len()].copy_from_slice(part);
                scanner.filled(part.len(), &matcher, &known, &mut emit);
            }
            scanner.finish(&matcher, &known, &mut emit);
            let once: HashSet<(u64, u64)> = found.iter().copied().collect();
            assert_eq!((found.len(), once.len()), (64, 64), "{size} of {}", text.len());
        }
    }
}

/// A foreign string may be longer than what is read at once.
#[test]
fn keys_in_long_foreign_strings_are_hidden() {
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default());
    let token = super::world::github_token();
    for words in [0, 5_000, 50_000, 300_000] {
        let text = format!("{token} {}", "a word ".repeat(words));
        let redacted = matcher.redact(text.as_bytes(), &NoKeys);
        assert!(!redacted.contains(&token), "{words} words");
        assert!(redacted.starts_with("ghp_…"), "{words} words");
    }
}
