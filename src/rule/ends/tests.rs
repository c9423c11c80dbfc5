//! Ends of matches against all that there are.

use std::sync::LazyLock;

use proptest::prelude::{TestCaseError, any, prop_assert};
use proptest::sample::select;

use super::*;
use crate::rule::steps::tests::patterns_and_texts;
use crate::rule::tests::{GOOD, read};
use crate::rule::{file, hir};

/// A rule of this pattern, whatever it would be refused for.
fn rule(pattern: &str, is_announced: bool) -> Rule {
    let (mut entry, mut facts) = file::parse(GOOD).unwrap().pop().unwrap();
    let hir = hir::parse(pattern).unwrap();
    entry.pattern = pattern.to_owned().into();
    facts.match_max = hir.properties().maximum_len().unwrap();
    facts.alphabet =
        (0..128).filter(|byte| hir::may_hold(&hir, *byte)).fold(0, |all, byte| all | 1 << byte);
    if is_announced {
        entry.keywords = vec!["acme".into()].into();
    }
    Rule { file: "t.yaml".into(), builtin: false, facts, entry, compiled: OnceLock::new() }
}

/// What matches the pattern of a rule and nothing else.
fn whole(rule: &Rule) -> Regex {
    regex(&format!("^(?:{})\\z", rule.pattern)).unwrap()
}

/// Each match of the text is one that there is, and none is missed.
fn check(rule: &Rule, whole: &Regex, text: &[u8]) -> Result<(), TestCaseError> {
    let mut memory = Memory::default();
    for start in 0..=text.len() {
        let fits = |end: usize| {
            let joined = text.get(end).is_some_and(u8::is_ascii_alphanumeric);
            let stands = || rule.stands_alone(text, &(start..end));
            !joined && (!rule.is_announced() || stands())
        };
        let ends = (start..=text.len()).filter(|end| whole.is_match(&text[start..*end]));
        let ends: Vec<usize> = ends.filter(|end| fits(*end)).collect();
        for found in [
            rule.next_match_at(text, start, &mut memory),
            // As if it were the first place that is looked at.
            rule.match_at(text, start),
        ] {
            let is_right = match &found {
                Some(span) => span.start == start && ends.contains(&span.end),
                None => ends.is_empty(),
            };
            let text = String::from_utf8_lossy(text);
            prop_assert!(is_right, "{} in {text} at {start}: {found:?} of {ends:?}", rule.pattern);
        }
    }
    Ok(())
}

const PATTERNS: [&str; 16] = [
    "[a-c_]{1,9}",
    "[a-c_]{20,70}",
    "a[abc_]{1,60}b?_{0,3}[_a]{0,20}",
    "[ab_]{3}|[ab_]{6,90}|[ab_]{30,40}",
    "[a-c]{3}(?:_[a-c])?",
    "[a-c]{3,6}?",
    "[a-c_]{3,60}?",
    "a{2}|a{4}|a{3}",
    "[a-c_]{1,70}abab[bc_]{0,40}",
    "[a-c_]{1,70}abab_?",
    "a(?:_[ab]{1,3}){0,3}",
    "(?:a|ab|b_){0,4}",
    "(?:(?:_|ab){1,4}c{1,60}){0,3}",
    "[ab_]{1,30}b[ab_]{0,30}",
    "(?:[ab]{1,3}_|c){0,40}",
    "_[^a]{0,90}",
];

proptest::proptest! {
    #[test]
    fn an_end_that_fits_is_found(text in "(?:[abc_-]{0,9}|[bc]{60,90}|[abc_]{90}){0,5}") {
        static RULES: LazyLock<Vec<(Rule, Regex)>> = LazyLock::new(|| {
            let both = |pattern| [rule(pattern, false), rule(pattern, true)];
            let rules = PATTERNS.into_iter().flat_map(both);
            let with_whole = |rule| {
                let whole = whole(&rule);
                (rule, whole)
            };
            rules.map(with_whole).collect()
        });
        for (rule, whole) in RULES.iter() {
            check(rule, whole, text.as_bytes())?;
        }
    }

    #[test]
    fn an_end_that_fits_is_found_whatever_the_pattern(
        (pattern, texts) in patterns_and_texts(),
        lazy in select(vec!["}", "}?"]),
        is_announced in any::<bool>(),
    ) {
        let rule = rule(&pattern.replace('}', lazy), is_announced);
        let whole = whole(&rule);
        for text in texts {
            let more = text.replace('c', "-").replace('b', "7");
            check(&rule, &whole, [&text, "-", &more, &text].concat().as_bytes())?;
        }
    }
}

#[test]
fn a_key_ends_where_its_pattern_and_its_neighbour_say() {
    let found = |pattern: &str, text: &str| {
        let set = read(&GOOD.replace("acme_[0-9a-f]{32}", pattern)).unwrap();
        let rule = set.rules().next_back().unwrap();
        rule.match_at(text.as_bytes(), 0).map(|span| span.end)
    };
    let hex = "0123456789abcdef";
    let (short, long) = (format!("acme_{hex}"), format!("acme_{hex}{hex}"));
    for pattern in ["acme_[0-9a-f]{16}|acme_[0-9a-f]{32}", "acme_[0-9a-f]{16,40}?"] {
        assert_eq!(found(pattern, &short), Some(21), "{pattern}");
        assert_eq!(found(pattern, &format!("{long}.")), Some(37), "{pattern}");
        assert_eq!(found(pattern, &format!("{long}x")), None, "{pattern}");
    }
    let optional = "acme_[0-9a-f]{32}(?:-[0-9])?";
    assert_eq!(found(optional, &format!("{long}-2024")), Some(37));
    assert_eq!(found(optional, &format!("{long}-2 ")), Some(39));
    let wide = "acme_[0-9a-z_]{8,40}";
    assert_eq!(found(wide, &format!("{long}_production_key")), Some(37));
    assert_eq!(found(wide, &format!("acme_{}", "k".repeat(41))), None);
}
