//! Near misses of registered keys: what differs from a key in one place is never taken for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use leakwarden::matcher::Matcher;
use leakwarden::rule::RuleSet;
use leakwarden::shape::{Alphabet, ShapeSet};
use sha2::{Digest as _, Sha256};

use super::{fuzzing, naive};

/// The keys that are reported as registered in a text.
struct Registry {
    keys: Vec<Vec<u8>>,
    matchers: [Matcher; 2],
}

impl Registry {
    fn new() -> Self {
        let keys = fuzzing::keys();
        // The shapes of near misses, too: what is looked at must still not be a key.
        let mut shapes = fuzzing::shapes(&keys);
        for index in 0..shapes.len() {
            for len in [shapes[index].len - 1, shapes[index].len + 1] {
                shapes.push(leakwarden::shape::Shape { len, ..shapes[index] });
            }
        }
        let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::new(shapes));
        Self { keys, matchers: [matcher.clone(), matcher.with_deep(true)] }
    }

    /// Whether some bytes of the text are reported as a registered key.
    fn reports(&self, text: &[u8]) -> bool {
        let known = |bytes: &[u8]| self.keys.iter().any(|key| key == bytes);
        self.matchers.iter().any(|matcher| {
            naive::matched(matcher, text, 0..text.len(), &known).iter().any(|found| found.4)
        })
    }

    #[track_caller]
    fn check(&self, key: &[u8], misses: impl IntoIterator<Item = Vec<u8>>) {
        let around = [("", ""), ("\"", "\"\n"), ("x_", ".y"), ("é=", "\u{feff}")];
        for miss in misses {
            // A neighbour that is doubled or swapped with itself leaves the key in the text.
            if memchr::memmem::find(&miss, key).is_some() {
                continue;
            }
            for (before, after) in around {
                let text = [before.as_bytes(), &miss, after.as_bytes()].concat();
                let shown = text.escape_ascii();
                assert!(!self.reports(&text), "{shown} taken for {}", key.escape_ascii());
            }
        }
    }
}

/// The bytes that are put in the place of another: one of each class, and neighbours.
fn others(byte: u8) -> impl Iterator<Item = u8> {
    let flipped = if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { byte ^ 1 };
    let all = [flipped, byte ^ 1, b'0', b'a', b'z', b'Z', b'-', b'_', b'.', b'+', b'/', b'=', b'!'];
    all.into_iter().chain([b' ', b'*', 0, 0xff]).filter(move |other| *other != byte)
}

#[test]
fn every_alphabet_has_a_key() {
    let shapes = fuzzing::shapes(&fuzzing::keys());
    let alphabets: BTreeSet<Alphabet> = shapes.iter().map(|shape| shape.alphabet).collect();
    assert!(alphabets.into_iter().eq(Alphabet::ALL));
    let registry = Registry::new();
    for key in &registry.keys {
        assert!(registry.reports(key), "{} itself is not found", key.escape_ascii());
    }
}

#[test]
fn one_character_changed() {
    let registry = Registry::new();
    for key in &registry.keys {
        let changed = (0..key.len()).flat_map(|at| {
            others(key[at]).map(move |other| {
                let mut miss = key.clone();
                miss[at] = other;
                miss
            })
        });
        registry.check(key, changed);
    }
}

#[test]
fn one_character_dropped_doubled_put_in_or_swapped() {
    let registry = Registry::new();
    for key in &registry.keys {
        for at in 0..key.len() {
            let (before, after) = key.split_at(at);
            let dropped = [before, &after[1..]].concat();
            // At the ends the key still stands there, next to a letter: that is no near miss.
            let inner =
                (at > 0 && at + 1 < key.len()).then(|| [before, &after[..1], after].concat());
            let put_in = (at > 0).then(|| [before, b"x", after].concat());
            let mut swapped = key.clone();
            swapped.swap(at, (at + 1) % key.len());
            let swapped = (swapped != *key).then_some(swapped);
            registry.check(key, [Some(dropped), inner, put_in, swapped].into_iter().flatten());
        }
    }
}

#[test]
fn upper_and_lower_case() {
    let registry = Registry::new();
    for key in &registry.keys {
        let flipped = key.iter().map(|byte| match byte.is_ascii_alphabetic() {
            true => byte ^ 0x20,
            false => *byte,
        });
        registry
            .check(key, [flipped.collect(), key.to_ascii_lowercase(), key.to_ascii_uppercase()]);
    }
}

#[test]
fn cut_short() {
    let registry = Registry::new();
    for key in &registry.keys {
        let ends = (0..key.len()).map(|at| key[..at].to_vec());
        registry.check(key, ends.chain((1..=key.len()).map(|at| key[at..].to_vec())));
        // Broken over two lines, or a string's two parts.
        let broken = (1..key.len()).flat_map(|at| {
            ["\n", "\" + \"", "\\\n", "\u{200b}"]
                .map(|gap| [&key[..at], gap.as_bytes(), &key[at..]].concat())
        });
        registry.check(key, broken);
    }
}

#[test]
fn hashed_and_masked() {
    let registry = Registry::new();
    for key in &registry.keys {
        let digest = Sha256::digest(key);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut misses =
            vec![hex.to_uppercase().into_bytes(), format!("sha256:{hex}").into_bytes()];
        misses.push(digest.to_vec());
        misses.push(key.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
        misses.push(key.iter().rev().copied().collect());
        for mask in ["****", "...", "…", "********************************", "xxxx", "[REDACTED]"]
        {
            for shown in [2, 4, 6, 8] {
                let (first, last) = (&key[..shown], &key[key.len() - shown..]);
                misses.push([first, mask.as_bytes(), last].concat());
                misses.push([first, mask.as_bytes()].concat());
                misses.push([mask.as_bytes(), last].concat());
            }
        }
        for filler in [b'*', b'x', b'X', b'0', b'.'] {
            // As long as the key, with its ends left.
            let mut masked = key.clone();
            let inner = 4..key.len() - 4;
            masked[inner].fill(filler);
            misses.push(masked);
        }
        registry.check(key, misses);
    }
}
