//! The bodies of the fuzz targets in `fuzz/`: each takes any bytes and panics if something is
//! wrong. The seeds run through them as ordinary tests (`seeds`).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock};

use leakwarden::matcher::Matcher;
use leakwarden::rule::{Left, Right, Rule, RuleSet, example};
use leakwarden::shape::{Alphabet, NoKeys, Shape, ShapeSet};

use super::naive;

/// Longer texts are cut: the naive search is slow.
const TEXT_MAX: usize = 2_048;

static BUILTIN: LazyLock<Matcher> =
    LazyLock::new(|| Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default()));

/// What a byte of 0x80 or more stands for in the texts of [`matcher`]: every example of every
/// built-in rule, keys of every alphabet, and bytes that no key holds.
static FRAGMENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut fragments: Vec<Vec<u8>> = Vec::new();
    for rule in BUILTIN.rules().rules() {
        for template in rule.examples.iter().chain(rule.negative_examples.iter()) {
            fragments.push(
                example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap(),
            );
        }
        fragments.extend(rule.prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()));
    }
    fragments.extend(keys());
    fragments
        .extend([&b"\xc3\xa9"[..], b"\xff", b"\xef\xbb\xbf", b"\0", b"://"].map(<[u8]>::to_vec));
    fragments
});

/// A key of every alphabet, without prefixes, and longer and shorter ones of two. They are put
/// together here, so that no file holds anything like a key.
pub fn keys() -> Vec<Vec<u8>> {
    let templates = [
        "<hex:64>",
        "<HEX:20>",
        "<base62:32>",
        "<base36:48>",
        "<uuid>",
        "-<base62:20>_<base62:21>_",
        "<base62:9>.<base62:16>-<base62:9>",
        "<base62:3>+<base62:18>/<base62:20>=",
        "<base62:2>!<base62:9>$<base62:4>%<base62:4>&<lower:4>*(<digits:4>)",
        "<base62:2>#<base62:100>",
    ];
    // Every expansion begins with the same random characters; what comes after some hundreds is
    // another key for each template.
    let after = |(skip, template): (usize, &&str)| {
        let text =
            example::expand(&format!("<digits:{skip}>{template}"), (&[], &[]), None).unwrap();
        text[skip..].to_vec()
    };
    (0..).step_by(128).zip(&templates).map(after).collect()
}

/// The registered lengths and alphabets of keys.
pub fn shapes(keys: &[Vec<u8>]) -> Vec<Shape> {
    keys.iter().map(|key| Shape::of(key).unwrap()).collect()
}

/// The run finder and the windows, seen through a matcher with shapes: the first three bytes
/// choose the shapes, the fourth which windows count as keys and whether to look at every one.
pub fn runs(data: &[u8]) {
    let Some((&[alphabets, length, step, salt], text)) = data.split_first_chunk() else { return };
    let text = &text[..text.len().min(TEXT_MAX)];
    let lengths = [length, length.wrapping_add(step)].map(|byte| usize::from(byte % 48) + 1);
    let shapes: Vec<Shape> = Alphabet::ALL
        .into_iter()
        .zip(0..)
        .filter(|(_, bit)| alphabets >> bit & 1 == 1)
        .flat_map(|(alphabet, _)| lengths.map(|len| Shape { alphabet, len }))
        .collect();
    let known = |key: &[u8]| {
        let mut hasher = DefaultHasher::new();
        (salt, key).hash(&mut hasher);
        let shape = Alphabet::of(key).map(|alphabet| Shape { alphabet, len: key.len() });
        shape.is_some_and(|shape| shapes.contains(&shape)) && hasher.finish() % 4 < 3
    };
    let deep = salt & 1 == 1;
    let matcher = BUILTIN.with_shapes(ShapeSet::new(shapes.iter().copied())).with_deep(deep);
    let expected = naive::by_shapes(&shapes, deep, text, &known);
    let only_shapes = |starts| {
        let mut found = naive::matched(&matcher, text, starts, &known);
        found.retain(|(_, _, rule, _, _)| rule.is_none());
        found
    };
    naive::assert_same(&matcher, text, &expected, &only_shapes(0..text.len()));
    let cut = usize::from(step) * 7 % (text.len() + 1);
    let mut divided = only_shapes(0..cut);
    divided.extend(only_shapes(cut..text.len()));
    naive::assert_same(&matcher, text, &expected, &divided);
}

/// The matcher against the naive search. Three bytes of which the first is 0x80 or more stand for
/// a fragment (which one, and how much of it).
pub fn matcher(data: &[u8]) {
    let mut text = Vec::new();
    let mut rest = data;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match after.split_first_chunk() {
            Some((&[second, share], after)) if !first.is_ascii() => {
                let index = usize::from(first & 0x7f) << 8 | usize::from(second);
                let fragment = &FRAGMENTS[index % FRAGMENTS.len()];
                let count = fragment.len() * (usize::from(share) + 1) / 256;
                // Odd shares keep the end, even ones the beginning; 255 is all of it.
                match share & 1 {
                    1 => text.extend_from_slice(&fragment[fragment.len() - count..]),
                    _ => text.extend_from_slice(&fragment[..count]),
                }
                rest = after;
            }
            _ => text.push(first),
        }
    }
    text.truncate(TEXT_MAX);
    same_as_naive(&BUILTIN, 0, &text, data.len() * 31 % (text.len() + 1));
}

/// The matcher with the rules from `first` on and [`keys`], in a text; with the starts divided at
/// `cut`, too.
pub fn same_as_naive(rules: &Matcher, first: usize, text: &[u8], cut: usize) {
    let keys = keys();
    let known = |bytes: &[u8]| keys.iter().any(|key| key == bytes);
    let shapes = shapes(&keys);
    let by_rules = naive::by_rules(rules.rules(), first, text, &known);
    for deep in [false, true] {
        let matcher = rules.with_shapes(ShapeSet::new(shapes.iter().copied())).with_deep(deep);
        let mut expected = naive::by_shapes(&shapes, deep, text, &known);
        expected.extend(by_rules.iter().copied());
        let matched = |starts| {
            let mut found = naive::matched(&matcher, text, starts, &known);
            found.retain(|(_, _, rule, _, _)| rule.is_none_or(|rule| rule >= first));
            found
        };
        naive::assert_same(&matcher, text, &expected, &matched(0..text.len()));
        let mut divided = matched(0..cut);
        divided.extend(matched(cut..text.len()));
        naive::assert_same(&matcher, text, &expected, &divided);
    }
}

/// The rule loader: refuses or accepts any text, and what it accepts compiles and comes to an end.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(rules) = RuleSet::with_files([("fuzz.yaml".to_owned(), text.to_owned())]) else {
        return;
    };
    let rules = Arc::new(rules);
    let matcher = Matcher::new(Arc::clone(&rules), ShapeSet::default());
    let data = &data[..data.len().min(TEXT_MAX)];
    for rule in rules.rules().skip(BUILTIN.rules().rules().len()) {
        same_as_regex(rule, data);
        for template in rule.examples.iter() {
            let text =
                example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap();
            assert!(!rules.find_naively(rule, &text).is_empty(), "{} is not found", rule.id);
            naive::matched(&matcher, &text, 0..text.len(), &NoKeys);
            same_as_regex(rule, &text);
        }
    }
    naive::matched(&matcher, data, 0..data.len(), &NoKeys);
}

/// A rule compiles, and where it matches, its pattern does as a regex, and as much.
fn same_as_regex(rule: &Rule, text: &[u8]) {
    let regex = rule.compile().unwrap_or_else(|error| panic!("{}: {error}", rule.id));
    let no_neighbours = rule.left == Left::Any && rule.right == Right::Any && !rule.is_announced();
    for start in 0..text.len() {
        let expected = regex.find(&text[start..]).map(|found| start + found.end());
        let end = rule.match_at(text, start).map(|span| span.end);
        if no_neighbours || end.is_some() {
            assert_eq!(end, expected, "{} at {start}", rule.id);
        }
    }
}
