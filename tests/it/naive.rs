//! What the matcher ought to find, worked out from the definitions in `docs/rules.md`, the slow and
//! simple way: every start, every rule, every registered length. Fuzz targets include this file.

use std::collections::BTreeSet;

use leakwarden::matcher::{Hit, Matcher};
use leakwarden::rule::{Confidence, Memory, RuleSet};
use leakwarden::shape::{Alphabet, Known, Shape};

/// First byte, end, rule (`None`: by shape), confidence, and whether the key is known.
pub type Found = (usize, usize, Option<usize>, Confidence, bool);

/// All hits by rules; those before the rule `from` are left out.
pub fn by_rules(rules: &RuleSet, from: usize, text: &[u8], known: &dyn Known) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    for (index, rule) in rules.rules().enumerate().skip(from) {
        // A shortcut, not an assumption: without one of its literals no rule matches by definition.
        let stands = |prefix: &str| text.windows(prefix.len()).any(|at| at == prefix.as_bytes());
        if !rule.is_announced() && !rule.prefixes.iter().any(|prefix| stands(prefix)) {
            continue;
        }
        for span in rules.find_naively(rule, text) {
            let key = &text[span.clone()];
            let confidence = rule.assess(text, &span, &mut Memory::default());
            found.insert((span.start, span.end, Some(index), confidence, known.knows(key)));
        }
    }
    distrusted(rules, found)
}

/// Where the check digits of a match are wrong, what is a shorter one from the same place is of low
/// confidence too.
fn distrusted(rules: &RuleSet, found: BTreeSet<Found>) -> BTreeSet<Found> {
    let has_digits =
        |rule: Option<usize>| rule.is_some_and(|rule| rules.rule(rule).unwrap().checksum.is_some());
    let wrong: Vec<(usize, usize)> = found
        .iter()
        .filter(|(_, _, rule, confidence, _)| *confidence == Confidence::Low && has_digits(*rule))
        .map(|(start, end, ..)| (*start, *end))
        .collect();
    let lowered = |(start, end, rule, confidence, known): Found| {
        let is_part = wrong.iter().any(|(from, to)| *from == start && *to > end);
        let low = is_part && !has_digits(rule);
        (start, end, rule, if low { Confidence::Low } else { confidence }, known)
    };
    found.into_iter().map(lowered).collect()
}

/// All hits by shape: windows of a registered shape that are known and have an edge.
pub fn by_shapes(shapes: &[Shape], deep: bool, text: &[u8], known: &dyn Known) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    let lengths: BTreeSet<usize> = shapes.iter().map(|shape| shape.len).collect();
    for start in 0..text.len() {
        for len in lengths.iter().copied().filter(|len| start + len <= text.len()) {
            let end = start + len;
            let key = &text[start..end];
            let Some(alphabet) = Alphabet::of(key) else { break };
            let left = start.checked_sub(1).map(|at| text[at]);
            let edge = is_edge(alphabet, left) || is_edge(alphabet, text.get(end).copied());
            if (deep || edge) && shapes.contains(&Shape { alphabet, len }) && known.knows(key) {
                found.insert((start, end, None, Confidence::High, true));
            }
        }
    }
    found
}

/// Whether a neighbour (`None`: the text ends) cannot be a part of a longer word.
fn is_edge(alphabet: Alphabet, neighbour: Option<u8>) -> bool {
    neighbour.is_none_or(|byte| !byte.is_ascii_alphanumeric() || !alphabet.holds(byte))
}

/// What the matcher finds whose starts lie in `starts`.
pub fn matched(
    matcher: &Matcher,
    text: &[u8],
    starts: std::ops::Range<usize>,
    known: &dyn Known,
) -> BTreeSet<Found> {
    let mut hits: Vec<Hit> = Vec::new();
    matcher.find(text, starts, known, &mut hits);
    hits.into_iter()
        .map(|hit| (hit.span.start, hit.span.end, hit.rule, hit.confidence, hit.known))
        .collect()
}

/// Panics with the differences between what the matcher ought to find and what it did find.
pub fn assert_same(
    matcher: &Matcher,
    text: &[u8],
    expected: &BTreeSet<Found>,
    found: &BTreeSet<Found>,
) {
    if expected == found {
        return;
    }
    let told = |(start, end, rule, confidence, known): &Found| {
        let rule = rule.map(|index| matcher.rules().rule(index).unwrap().id.to_string());
        let key = text[*start..*end].escape_ascii();
        format!("{start}..{end} by {rule:?}, {confidence}, known {known}: {key}")
    };
    let missed: Vec<String> = expected.difference(found).map(told).collect();
    let added: Vec<String> = found.difference(expected).map(told).collect();
    panic!("in {:?}\nmissed: {missed:#?}\nadded: {added:#?}", text.escape_ascii().to_string());
}
