//! The matcher against the naive search: no difference, whatever the text.

use std::sync::Arc;

use leakwarden::matcher::Matcher;
use leakwarden::rule::{RuleSet, example};
use leakwarden::shape::{NoKeys, ShapeSet, is_strong};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{fuzzing, naive};

fn builtin() -> Matcher {
    Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default())
}

/// All examples of the rules from `first` on, with and without a key in them.
fn examples(matcher: &Matcher, first: usize) -> Vec<Vec<u8>> {
    let rules = matcher.rules().rules().skip(first);
    rules
        .flat_map(|rule| {
            let templates = rule.examples.iter().chain(rule.negative_examples.iter());
            templates.map(|t| {
                example::expand(t, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap()
            })
        })
        .collect()
}

/// A piece of a text. Whole fragments, their beginnings and ends are chosen by index.
#[derive(Clone, Debug)]
enum Piece {
    Fragment(Index),
    Beginning(Index, Index),
    End(Index, Index),
    Bytes(Vec<u8>),
}

impl Piece {
    fn put(&self, fragments: &[Vec<u8>], out: &mut Vec<u8>) {
        match self {
            Self::Fragment(which) => {
                out.extend_from_slice(&fragments[which.index(fragments.len())]);
            }
            Self::Beginning(which, upto) => {
                let fragment = &fragments[which.index(fragments.len())];
                out.extend_from_slice(&fragment[..upto.index(fragment.len() + 1)]);
            }
            Self::End(which, from) => {
                let fragment = &fragments[which.index(fragments.len())];
                out.extend_from_slice(&fragment[from.index(fragment.len() + 1)..]);
            }
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// What stands between and around keys: separators, words, runs, base64, URLs, any bytes.
fn filler() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        4 => "",
        4 => "[ =:/\"'\\n_.@-]{1,3}",
        2 => "[a-zA-Z0-9]{1,8}",
        1 => "[a-f0-9-]{1,80}",
        1 => "[A-Za-z0-9+/=~]{1,120}",
        1 => "[a-z]{3,10}://[a-z]{2,9}:[!-~]{2,30}@[a-z.]{3,20}/",
        1 => "[!-~]{1,90}",
    ];
    prop_oneof![
        8 => text.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..20),
        1 => Just("é\u{feff}".as_bytes().to_vec()),
    ]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        3 => any::<Index>().prop_map(Piece::Fragment),
        1 => any::<(Index, Index)>().prop_map(|(which, upto)| Piece::Beginning(which, upto)),
        1 => any::<(Index, Index)>().prop_map(|(which, from)| Piece::End(which, from)),
        4 => filler().prop_map(Piece::Bytes),
    ];
    vec(piece, 1..8)
}

fn put(pieces: &[Piece], fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::new();
    pieces.iter().for_each(|piece| piece.put(fragments, &mut text));
    text
}

#[test]
fn every_example() {
    let matcher = builtin();
    for text in examples(&matcher, 0) {
        fuzzing::same_as_naive(&matcher, 0, &text, text.len() / 2);
    }
}

/// Rules that nobody built in: literals behind the start, one that begins another, ones that share
/// a needle, bytes that must be there, matches that are short, wide or of several lines, literals that
/// are not ASCII.
const OWN_RULES: &str = r#"
rules:
  - {id: own-begun, provider: A, name: n, prefixes: ["own"], pattern: 'own[_-]?[0-9a-f]{32}', examples: ["own<hex:32>", "own_<hex:32>"], negative_examples: ["own"], confidence: high, source: s}
  - {id: own-longer, provider: A, name: n, prefixes: ["own_"], pattern: 'own_[0-9a-f]{32}', examples: ["own_<hex:32>"], negative_examples: ["own"], confidence: high, source: s}
  - {id: own-behind, provider: A, name: n, prefixes: ["_AKEY-OF-USXYZW"], offsets: [5, 6], pattern: '[0-9]{5,6}_AKEY-OF-USXYZW[0-9A-Za-z]{20,22}', examples: ["<digits:6>_AKEY-OF-USXYZW<base62:21>"], negative_examples: ["_AKEY-OF-USXYZW"], confidence: medium, source: s}
  - {id: own-far, provider: A, name: n, prefixes: ["QzXyWvUtSrQpOnMl"], offsets: [40, 300], pattern: '(?:[a-z]{40}|[a-z]{300})QzXyWvUtSrQpOnMl[0-9a-z]{12}', examples: ["<lower:300>QzXyWvUtSrQpOnMl<base36:12>"], negative_examples: ["QzXyWvUtSrQpOnMl"], confidence: medium, source: s}
  - {id: own-after, provider: A, name: n, prefixes: ["Abcd"], offsets: [6], pattern: '[a-z]{5}:Abcd[0-9]{20}', examples: ["<lower:5>:Abcd<digits:20>"], negative_examples: ["Abcd"], confidence: high, source: s}
  - {id: own-url, provider: A, name: n, prefixes: ["own://", "ownssl://", "java-jdbc:own://"], pattern: '(?:java-jdbc:)?own(?:ssl)?://[a-z]{2,8}:[!-?A-~]{6,20}@[a-z]{2,20}', examples: ["ownssl://<lower:5>:<base62:9>@<lower:5>", "java-jdbc:own://<lower:5>:a:/<base62:9>@<lower:5>"], negative_examples: ["own://"], confidence: medium, source: s}
  - {id: own-any-url, provider: A, name: n, prefixes: ["oak://"], pattern: 'o[a-z]{2}://[0-9]{6}', examples: ["oak://<digits:6>"], negative_examples: ["own://<digits:6>"], confidence: medium, source: s}
  - {id: own-lines, provider: A, name: n, prefixes: ["-----BEGIN OWN-----"], pattern: '-----BEGIN OWN-----\s{1,4}[A-Za-z0-9+/]{10,90}@\s{0,2}-----END', examples: ["-----BEGIN OWN-----\n<base64:50>@\n-----END"], negative_examples: ["-----BEGIN "], confidence: high, source: s}
  - {id: own-line, provider: A, name: n, prefixes: ["-----BEGIN "], pattern: '-----BEGIN OWN-----\s{1,4}[A-Za-z0-9+/]{10,60}@', examples: ["-----BEGIN OWN-----\n<base64:50>@\n-----END"], negative_examples: ["-----BEGIN "], confidence: high, source: s}
  - {id: own-short, provider: A, name: n, prefixes: ["k9"], pattern: 'k9[0-9]{6}', left: boundary, examples: ["k9<digits:6>"], negative_examples: ["xk9<digits:6>"], confidence: low, source: s}
  - {id: own-wide, provider: A, name: n, prefixes: ["W/v/w/x/y/u/", "~=/+/=-_.-~/"], offsets: [0, 3], pattern: '(?:[a-z+]{3}~=/\+/=-_\.-~/|W/v/w/x/y/u/)[A-Za-z0-9+/=~]{40,44}', examples: ["W/v/w/x/y/u/<base64:44>", "<lower:3>~=/+/=-_.-~/<base64:42>"], negative_examples: ["W/v/w/x/y/u/"], confidence: medium, source: s}
  - {id: own-wider, provider: A, name: n, prefixes: ["W/v/w/x/y/u/+="], pattern: 'W/v/w/x/y/u/[A-Za-z0-9+/=~]{40,44}', examples: ["W/v/w/x/y/u/+=<base64:40>"], negative_examples: ["W/v/w/x/y/u/"], confidence: medium, source: s}
  - {id: own-byte, provider: A, name: n, prefixes: ["sig:"], pattern: 'sig:[a-z@]{0,30}@[a-z]{2,4}#[0-9]{8,20}', examples: ["sig:<lower:9>@<lower:3>#<digits:12>"], negative_examples: ["sig:#"], confidence: medium, source: s}
  - {id: own-umlaut, provider: A, name: n, prefixes: ["schlüssel:"], pattern: 'schl(?-u:\xc3\xbc)ssel:[0-9a-f]{8}', examples: ["schlüssel:<hex:8>"], negative_examples: ["schlussel:<hex:8>"], confidence: medium, source: s}
  - {id: own-word, provider: A, name: n, keywords: ["geheimnüsse"], pattern: '[0-9a-f]{31}', examples: ["geheimnüsse=<hex:31>"], negative_examples: ["geheimnusse=<hex:31>"], confidence: medium, source: s}
"#;

fn own() -> Result<Matcher, String> {
    let rules = RuleSet::with_files([("own.yaml".to_owned(), OWN_RULES.to_owned())])
        .map_err(|error| error.to_string())?;
    Ok(Matcher::new(Arc::new(rules), ShapeSet::default()))
}

/// Where nearly every block is full of runs, words are looked for before keys.
#[test]
fn keys_that_words_announce_in_the_middle_of_base64() {
    let matcher = builtin();
    let base64 = example::expand("<base64:3600>", (&[], &[]), None).unwrap();
    let lines: Vec<u8> = base64.chunks(76).collect::<Vec<_>>().join(&b'\n');
    let rules = matcher.rules().rules().filter(|rule| rule.is_announced());
    for (nth, rule) in rules.enumerate() {
        let (before, after) = lines.split_at(nth * 97 % lines.len());
        for template in rule.examples.iter().chain(rule.negative_examples.iter()) {
            let text =
                example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap();
            let text = [before, b"\n", &text, b"\n", after].concat();
            fuzzing::same_as_naive(&matcher, 0, &text, before.len());
        }
    }
}

#[test]
fn every_example_of_other_rules() {
    let (matcher, first) = (own().unwrap(), RuleSet::builtin().rules().len());
    for text in examples(&matcher, first) {
        fuzzing::same_as_naive(&matcher, first, &text, text.len() / 2);
    }
}

/// What is looked for of them is nearly what is looked for of the built-in rules alone.
#[test]
fn rules_with_prefixes_of_built_in_ones() {
    let rules = RuleSet::builtin();
    let short = rules.rules().flat_map(|rule| rule.prefixes.iter()).filter(|text| text.len() == 3);
    let mut short: Vec<&str> = short.map(|text| &**text).collect();
    short.dedup();
    assert!(short.len() > 8, "{short:?}");
    for pair in short.windows(2) {
        let [one, other] = [pair[0], pair[1]].map(|prefix| prefix.replace('.', "[.]"));
        let rule = format!(
            "rules: [{{id: own, provider: A, name: n, prefixes: ['{}', '{}'], pattern: \
             '(?:{one}|{other})[0-9a-z~]{{41}}', left: boundary, confidence: high, \
             examples: ['{}~<base36:40>'], negative_examples: ['x'], source: s}}]",
            pair[0], pair[1], pair[1]
        );
        let own = RuleSet::with_files([("own.yaml".to_owned(), rule)]).unwrap();
        let (first, matcher) = (rules.rules().len(), Matcher::new(own.into(), ShapeSet::default()));
        let text = examples(&matcher, first).remove(0);
        let mut hits = Vec::new();
        matcher.find(&text, 0..text.len(), &NoKeys, &mut hits);
        assert!(hits.iter().any(|hit| hit.rule == Some(first)), "{pair:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn texts_of_examples_and_keys(pieces in pieces(), cut: Index) {
        let matcher = builtin();
        let mut fragments = examples(&matcher, 0);
        // As many keys as examples, about: half the fragments are the one, half the other.
        let keys = fuzzing::keys();
        fragments.extend(keys.iter().cycle().take(fragments.len()).cloned().collect::<Vec<_>>());
        let text = put(&pieces, &fragments);
        fuzzing::same_as_naive(&matcher, 0, &text, cut.index(text.len() + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_runs(data in vec(prop_oneof![
        6 => prop::sample::select(b"abcdef0123ABCDEF".to_vec()),
        2 => prop::sample::select(b"gxyzGXYZ".to_vec()),
        2 => prop::sample::select(b"-_.+/=~".to_vec()),
        1 => any::<u8>(),
    ], 4..700)) {
        fuzzing::runs(&data);
    }

    #[test]
    fn texts_of_other_rules(pieces in pieces(), cut: Index) {
        static OWN: std::sync::LazyLock<Matcher> = std::sync::LazyLock::new(|| own().unwrap());
        let first = RuleSet::builtin().rules().len();
        let text = put(&pieces, &examples(&OWN, first));
        fuzzing::same_as_naive(&OWN, first, &text, cut.index(text.len() + 1));
    }
}

/// A long line of one class of bytes, with keys and tokens far from its ends.
#[test]
fn in_long_lines() {
    let matcher = builtin();
    let shapes = fuzzing::shapes(&fuzzing::keys());
    for unit in ["a", "0f", "x_", "+/", "a.b", "%7B", "=", " "] {
        let mut text = unit.repeat(700).into_bytes();
        for key in fuzzing::keys() {
            text.extend_from_slice(&key);
            text.extend_from_slice(unit.repeat(40).as_bytes());
        }
        let keys = fuzzing::keys();
        let known = |bytes: &[u8]| keys.iter().any(|key| key == bytes);
        let strong = |key: &Vec<u8>| key.iter().filter(|byte| is_strong(**byte)).count();
        let strong = keys.iter().map(|key| u32::try_from(strong(key)).unwrap());
        let strong = ShapeSet::of_strong(shapes.iter().copied().zip(strong));
        for (deep, shape_set) in [
            (false, ShapeSet::new(shapes.iter().copied())),
            (true, ShapeSet::new(shapes.iter().copied())),
            (false, strong.clone()),
            (true, strong),
        ] {
            let matcher = matcher.with_shapes(shape_set).with_deep(deep);
            let expected = naive::by_shapes(&shapes, deep, &text, &known);
            let mut found = naive::matched(&matcher, &text, 0..text.len(), &known);
            found.retain(|(_, _, rule, _, _)| rule.is_none());
            naive::assert_same(&matcher, &text, &expected, &found);
            assert!(!deep || found.len() >= keys.len(), "between {unit:?}: {}", found.len());
        }
    }
}

/// Letters on both sides leave no edge: such a key is found by looking at every window only.
#[test]
fn keys_between_letters_are_found_by_looking_deep() {
    let keys = fuzzing::keys();
    let known = |bytes: &[u8]| keys.iter().any(|key| key == bytes);
    let shapes = ShapeSet::new(fuzzing::shapes(&keys));
    let deep = builtin().with_shapes(shapes).with_deep(true);
    for key in &keys {
        for (before, after) in [("a", "f"), ("7", "7"), ("Word", "Word"), ("x", "0"), ("", "z")] {
            for far in [0, 1, 31, 64, 5_000] {
                let (before, after) = (before.repeat(far + 1), after.repeat(far + 1));
                let text = [before.as_bytes(), key, after.as_bytes()].concat();
                let wanted = before.len()..before.len() + key.len();
                let found = naive::matched(&deep, &text, 0..text.len(), &known);
                let seen = found.iter().any(|found| (found.0..found.1) == wanted && found.4);
                assert!(seen, "{} in {far} times {before:.9}…", key.escape_ascii());
            }
        }
    }
}
