//! Every built-in rule finds its examples and leaves its negative examples alone.

use std::sync::Arc;

use leakwarden::matcher::{Hit, Matcher};
use leakwarden::rule::{Confidence, Rule, RuleSet, example};
use leakwarden::shape::{NoKeys, ShapeSet};

fn hits(matcher: &Matcher, text: &[u8]) -> Vec<Hit> {
    let mut hits = Vec::new();
    matcher.find(text, 0..text.len(), &NoKeys, &mut hits);
    hits
}

fn found(matcher: &Matcher, index: usize, rule: &Rule, template: &str) -> Option<Confidence> {
    let text = example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum).unwrap();
    hits(matcher, &text).into_iter().find(|hit| hit.rule == Some(index)).map(|hit| hit.confidence)
}

#[test]
fn examples_and_negative_examples() {
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default());
    let rules = matcher.rules().rules();
    assert!(rules.len() >= 190);
    let mut faults = Vec::new();
    for (index, rule) in rules.enumerate() {
        assert!(rule.compile().is_ok(), "{}: the pattern does not compile", rule.id);
        for template in rule.examples.iter() {
            match found(&matcher, index, rule, template) {
                None => faults.push(format!("{}: not found in {template}", rule.id)),
                Some(confidence) if confidence < rule.confidence => {
                    faults.push(format!("{}: only {confidence} in {template}", rule.id));
                }
                Some(_) => {}
            }
        }
        for template in rule.negative_examples.iter() {
            if found(&matcher, index, rule, template).is_some() {
                faults.push(format!("{}: found in {template}", rule.id));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_wrong_checksum_makes_a_finding_doubtful() {
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default());
    let right = super::world::github_token();
    let wrong = right.replace("0a1B", "0a1C");
    assert_eq!(hits(&matcher, right.as_bytes())[0].confidence, Confidence::High);
    assert_eq!(hits(&matcher, wrong.as_bytes())[0].confidence, Confidence::Low);
    // What is the beginning of such a key has the form of an older one.
    let old = example::expand("glpat-<base62:20>", (&[], &[]), None).unwrap();
    let wrong =
        example::expand("glpat-<base62:20>-<base62:12>.01.150000000", (&[], &[]), None).unwrap();
    let sure = |text: &[u8]| hits(&matcher, text).iter().map(|hit| hit.confidence).max();
    assert_eq!((sure(&old), sure(&wrong)), (Some(Confidence::High), Some(Confidence::Low)));
}

#[test]
fn placeholders_are_doubtful() {
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default());
    let url = |password: &str| format!("DATABASE_URL=postgres://u:{password}@h.io/d");
    let passwords = [
        "%(password)s",
        "%DB_PASSWORD%",
        "__DB_PASS__",
        "REDACTED",
        "--------",
        "........",
        "######",
        "00000000",
        "ab******",
        "p@ssw0rd",
    ];
    let tokens = [
        format!("glpat-YOUR_TOKEN_{}", "HERE_REPL"),
        format!("glpat-{}", "1234567890".repeat(2)),
        format!("gsk_INSERTYOURKEYHERE{}", "aB3".repeat(12)).chars().take(56).collect(),
        format!("ops_eyJ{}", "a".repeat(260)),
        format!("eyJrIjoi{}==", "a".repeat(84)),
        format!("ico-{}", "0123456789abcdef".repeat(2)),
        format!("ico-{}", "1a2b3c4d5e6f7a8b".repeat(2)),
        format!("ico-{:x<32}", "thisisafakekey123"),
    ];
    for text in passwords.map(url).iter().chain(&tokens) {
        let hits = hits(&matcher, text.as_bytes());
        let sure = hits.iter().map(|hit| hit.confidence).max();
        assert_eq!(sure, Some(Confidence::Low), "{text}");
    }
    let real = example::expand(&url("<base62:20>"), (&[], &[]), None).unwrap();
    assert_eq!(hits(&matcher, &real)[0].confidence, Confidence::Medium);
}

/// Keys from the tests of microsoft/security-utilities, as they are met.
#[test]
fn azure_keys_are_known_by_their_check_digits() {
    let matcher = Matcher::new(Arc::new(RuleSet::builtin()), ShapeSet::default());
    let keys = [
        ("a".repeat(76) + "+ASt5mnCaw", "=="),
        ("a".repeat(76) + "ACDbOpqrYA", "=="),
        ("a".repeat(33) + "+ASbHpHeAI", "="),
        ("a".repeat(42) + "AzSeCjhzCu", ""),
        ("d".repeat(44) + "AzFu182vhA", "=="),
    ];
    let sure = |text: &str| {
        let hits = hits(&matcher, text.as_bytes());
        let sure = hits.iter().filter(|hit| hit.confidence == Confidence::High);
        sure.map(|hit| matcher.rules().rule(hit.rule.unwrap()).unwrap().id.to_string()).collect()
    };
    for (key, padding) in keys {
        let escaped = padding.replace('=', "%3D");
        for text in [
            format!("key = \"{key}{padding}\""),
            format!("Endpoint=sb://a.example/;SharedAccessKey={key}{padding};EntityPath=x"),
            format!("?code={key}{escaped}&a=1"),
            format!("code={key}"),
        ] {
            let found: Vec<String> = sure(&text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            let wrong: Vec<String> = sure(&text.replacen("aa", "ab", 1).replacen("dd", "de", 1));
            assert!(wrong.is_empty(), "{text}: {wrong:?}");
        }
    }
}

#[test]
fn the_rules_in_the_documentation_are_accepted() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let files: Vec<&str> = blocks.filter(|block| block.starts_with("rules:")).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        RuleSet::with_files([("docs/rules.md".to_owned(), file.to_owned())]).unwrap();
    }
}
