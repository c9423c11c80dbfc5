//! Steps against regexes.

use proptest::prelude::{
    Just, Strategy, TestCaseError, any, prop_assert, prop_assert_eq, prop_oneof,
};
use proptest::sample::Index;
use proptest::string::string_regex;

use super::*;
use crate::rule::{RuleSet, example};

fn regex(pattern: &str) -> regex::bytes::Regex {
    let mut builder = regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})"));
    builder.unicode(false).build().unwrap()
}

#[test]
fn most_rules_need_no_regex() {
    let rules = RuleSet::builtin();
    let mut plain = 0;
    for rule in rules.rules() {
        let Some(steps) = Steps::of(&rule.pattern, true) else { continue };
        plain += 1;
        let regex = rule.compile().unwrap();
        for template in rule.examples.iter().chain(rule.negative_examples.iter()) {
            let text =
                example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap();
            let text = [text.as_slice(), &text].concat();
            let mut memory = Memory::default();
            for start in 0..text.len() {
                let expected = regex.find(&text[start..]).map(|found| start + found.end());
                assert_eq!(steps.end(&text, start, &mut memory, |_| true), expected, "{}", rule.id);
            }
        }
    }
    assert!(plain + 4 > rules.rules().len(), "{plain} of {}", rules.rules().len());
}

#[test]
fn what_would_have_to_go_back_is_left_to_a_regex() {
    for pattern in [
        "a{1,3}a",
        "[a-z]{1,9}b",
        "[a-c]{2,30}abca(?:cb)?_",
        "c{2,4}(?:cccc|b{0,3})",
        "a{0,2}b{0,2}a",
        r"\bab",
        "a{1,2}?",
        "(?:ab){1,3}a",
        "(?:ab|a[bc]){2,3}c",
        "(?:b|bc){1,2}_",
        "(?:ab?){1,2}b",
        "(?:a?b?){0,2}c",
        "(?:ab{0,2}|cb){2}bc",
        "(?:a{1,3}b?|c){2,40}_",
    ] {
        assert!(Steps::of(pattern, true).is_none(), "{pattern}");
    }
}

const PATTERNS: [&str; 21] = [
    "[a-c]{1,9}aaaa",
    "a[a-c]{0,40}abca[ab]{1,50}",
    "(?:b|ac)[abc]{1,20}abab(?:ab|c_?){0,4}",
    "_?[a-c]{2,30}abcab{0,3}_",
    "ab{2,70}c",
    "ab{2,200}",
    "a[bc]{3}[bc]",
    "(?:a|ab|abc)c{0,2}",
    "a(?:b_)?[bc]{1,100}",
    "ab?c?",
    "(?:ac){2}b{0,99}c",
    "a[bc]{0,90}_b{1,66}",
    "[a-c]{70,80}_?",
    "(?:ab){1,3}",
    "(?:ab|a){0,4}",
    "a(?:bc?){0,3}_?",
    "(?:ab|c_){0,9}a[^b]",
    "(?:a{1,3}b|c){2,40}_",
    "(?:[ab]_|c{1,2}a){2}c",
    "(?:(?:_|ab){1,4}c{1,60}){0,3}",
    "a(?:b|c|_(?:ab|c){0,2}b){1,2}aa",
];

fn repeated(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let count = prop_oneof![Just((1, 1)), (0usize..3, 1usize..4).prop_map(|(n, m)| (n, n + m))];
    (inner, count).prop_map(|(inner, (least, most))| match (least, most) {
        (1, 1) => inner,
        _ => format!("(?:{inner}){{{least},{most}}}"),
    })
}

fn joined(
    inner: impl Strategy<Value = String>,
    most: usize,
    between: &'static str,
) -> impl Strategy<Value = String> {
    proptest::collection::vec(inner, 1..=most).prop_map(move |all| all.join(between))
}

/// Patterns with groups, some of which have to go back.
fn patterns() -> impl Strategy<Value = String> {
    let class = || proptest::sample::select(vec!["a", "b", "c", "_", "[ab]", "[c_]", "[bc_]"]);
    let step = move || repeated(class().prop_map(str::to_owned));
    let group = move || {
        let choices = joined(joined(step(), 3, ""), 3, "|");
        repeated(choices.prop_map(|choices| format!("(?:{choices})")))
    };
    let nested = move || {
        let choices = joined(joined(prop_oneof![step(), group()], 2, ""), 2, "|");
        repeated(choices.prop_map(|choices| format!("(?:{choices})")))
    };
    joined(prop_oneof![step(), step(), group(), nested()], 4, "")
}

/// A pattern, and texts that begin with matches of it, or nearly.
pub(in crate::rule) fn patterns_and_texts() -> impl Strategy<Value = (String, Vec<String>)> {
    patterns().prop_flat_map(|pattern| {
        let text = (string_regex(&pattern).unwrap(), "[abc_]{0,9}", any::<Index>());
        let text = text.prop_map(|(text, more, dropped)| {
            let (text, dropped) = (text + &more, dropped.index(16));
            let kept = |(at, _): &(usize, char)| *at != dropped;
            text.chars().enumerate().filter(kept).map(|(_, byte)| byte).collect()
        });
        (Just(pattern), proptest::collection::vec(text, 1..12))
    })
}

fn check(pattern: &str, text: &[u8]) -> Result<bool, TestCaseError> {
    let Some(steps) = Steps::of(pattern, true) else { return Ok(false) };
    let (regex, mut memory) = (regex(pattern), Memory::default());
    for start in 0..=text.len() {
        let expected = regex.find(&text[start..]).map(|found| start + found.end());
        let end = steps.end(text, start, &mut memory, |_| true);
        prop_assert_eq!(end, expected, "{} at {}", pattern, start);
    }
    Ok(true)
}

proptest::proptest! {
    #[test]
    fn the_same_as_a_regex(text in "(?:[abc_]{0,9}|b{60,90}|[bc]{90}){0,6}") {
        for pattern in PATTERNS {
            prop_assert!(check(pattern, text.as_bytes())?, "{}", pattern);
        }
    }

    #[test]
    fn the_same_as_a_regex_whatever_the_pattern(
        (pattern, texts) in patterns_and_texts(),
    ) {
        for text in texts {
            check(&pattern, text.as_bytes())?;
        }
    }
}
