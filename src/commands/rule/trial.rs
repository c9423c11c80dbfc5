//! `leakwarden rule test`: rules on their examples, or on a text, through the matcher of scans.

use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use super::{Exit, files, find, output, shown};
use crate::cli::RuleTest;
use crate::matcher::{Hit, Matcher, Scanner};
use crate::rule::{Memory, Rule, RuleSet, example};
use crate::secret::Secret;
use crate::shape::{NoKeys, ShapeSet};
use crate::text::{clean, plural};

/// Longest text that is tried, in bytes.
const TEXT_MAX: usize = 1 << 20;

pub(super) fn run(arguments: &RuleTest) -> anyhow::Result<Exit> {
    let files = files(arguments.paths.iter().chain(&arguments.rules.rules))?;
    // Untried: that an example fails is an answer here, no error.
    let rules = RuleSet::with_untried_files(files).context("rules")?;
    let matcher = Matcher::new(Arc::new(rules), ShapeSet::default());
    let only = match &arguments.id {
        Some(id) => Some(find(matcher.rules(), id)?.0),
        None => None,
    };
    if arguments.stdin { try_text(&matcher, only) } else { try_examples(&matcher, only) }
}

/// Every match of every rule; those that lie over each other are all there.
fn hits(matcher: &Matcher, text: &[u8]) -> Vec<Hit> {
    let mut hits = Vec::new();
    matcher.find(text, 0..text.len(), &NoKeys, &mut hits);
    Hit::sort(&mut hits);
    hits
}

fn try_examples(matcher: &Matcher, only: Option<usize>) -> anyhow::Result<Exit> {
    let (mut text, mut rules, mut examples, mut wrong) = (String::new(), 0, 0, 0);
    for (index, rule) in matcher.rules().rules().enumerate() {
        if only.is_some_and(|only| only != index) {
            continue;
        }
        rules += 1;
        let wanted = rule.examples.iter().map(|template| (template, true));
        let unwanted = rule.negative_examples.iter().map(|template| (template, false));
        for (template, wanted) in wanted.chain(unwanted) {
            examples += 1;
            if let Some(why) = fault(matcher, (index, rule), template, wanted) {
                wrong += 1;
                let file = clean(rule.file.as_bytes());
                let template = clean(shown(matcher, rule, template).as_bytes());
                text.push_str(&format!("{file}: {}: {why}: {template}\n", rule.id));
            }
        }
    }
    let verdict = if wrong == 0 { "all right".to_owned() } else { format!("{wrong} wrong") };
    let (rules, examples) = (plural(rules, "rule"), plural(examples, "example"));
    output::print(&format!("{text}{rules}, {examples}: {verdict}\n"))?;
    Ok(if wrong == 0 { Exit::Clean } else { Exit::Found })
}

/// What is wrong with one example.
fn fault(
    matcher: &Matcher,
    (index, rule): (usize, &Rule),
    template: &str,
    wanted: bool,
) -> Option<String> {
    let text = match example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum) {
        Ok(text) => text,
        Err(why) => return Some(why),
    };
    let own = hits(matcher, &text).into_iter().filter(|hit| hit.rule == Some(index));
    match (own.max_by_key(|hit| hit.confidence), wanted) {
        (None, true) => Some(format!("not found in its example{}", missed(rule, &text))),
        (Some(_), false) => Some("found in its negative example".to_owned()),
        (Some(hit), true) if hit.confidence < rule.confidence => {
            let why = rule
                .doubt(&text, &hit.span, &mut Memory::default())
                .map(|doubt| format!(" ({doubt})"));
            let confidence = hit.confidence;
            Some(format!("only {confidence} in its example{}", why.unwrap_or_default()))
        }
        _ => None,
    }
}

/// The commonest reason why nothing is found.
fn missed(rule: &Rule, text: &[u8]) -> &'static str {
    let matches = (0..text.len()).any(|start| rule.match_at(text, start).is_some());
    match (matches, rule.is_announced()) {
        (false, _) => "",
        (true, false) => " (its pattern matches, but has none of the prefixes at an offset)",
        (true, true) => " (its pattern matches, but nothing near announces it)",
    }
}

fn try_text(matcher: &Matcher, only: Option<usize>) -> anyhow::Result<Exit> {
    let text = text_from_stdin()?;
    let reported = reported(matcher, &text)?;
    let mut out = String::new();
    for hit in hits(matcher, &text) {
        let Some(index) = hit.rule.filter(|rule| only.is_none_or(|only| only == *rule)) else {
            continue;
        };
        let Some(rule) = matcher.rules().rule(index) else { continue };
        out.push_str(&line(rule, &text, &hit));
        if !reported.contains(&(hit.span.start as u64, index)) {
            out.push_str("; a scan reports another match here");
        }
        out.push('\n');
    }
    if out.is_empty() {
        output::print(if only.is_some() {
            "the rule does not match\n"
        } else {
            "no rule matches\n"
        })?;
        return Ok(Exit::Found);
    }
    output::print(&out)?;
    Ok(Exit::Clean)
}

/// Why a match is low that has no fault itself.
const PART: &str = "it begins a longer match whose check digits are wrong";

/// One match, without what it matched.
fn line(rule: &Rule, text: &[u8], hit: &Hit) -> String {
    let before = text.get(..hit.span.start).unwrap_or_default();
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = hit.span.start - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
    let secret = Secret::copy_of(text.get(hit.span.clone()).unwrap_or_default());
    let hint = secret.hint(rule.prefix_of(secret.expose()).unwrap_or(""));
    let why = rule
        .doubt(text, &hit.span, &mut Memory::default())
        .map(|doubt| format!(": {doubt}"))
        .or_else(|| (hit.confidence < rule.confidence).then(|| format!(": {PART}")))
        .unwrap_or_default();
    let what = clean(format!("{}: {}", rule.provider, rule.name).as_bytes());
    format!("<stdin>:{line}:{column}: {} {hint}  {what} [{}]{why}", hit.confidence, rule.id)
}

/// The starts and rules of what a scan makes of the text: where matches lie over each other, it
/// reports the surest.
fn reported(matcher: &Matcher, text: &[u8]) -> anyhow::Result<Vec<(u64, usize)>> {
    let mut reported = Vec::new();
    let mut keep = |start: u64, rule: Option<usize>| {
        reported.extend(rule.map(|rule| (start, rule)));
    };
    let (mut scanner, mut rest) = (Scanner::new(), text);
    loop {
        let count = rest.read(scanner.space()).context("cannot read the text")?;
        if count == 0 {
            break;
        }
        scanner.filled(count, matcher, &NoKeys, &mut |c| keep(c.start, c.rule));
    }
    scanner.finish(matcher, &NoKeys, &mut |c| keep(c.start, c.rule));
    Ok(reported)
}

/// The text on standard input; room for all of it comes first, so that growing leaves no copies.
fn text_from_stdin() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_MAX + 1));
    std::io::stdin()
        .take(TEXT_MAX as u64 + 1)
        .read_to_end(&mut text)
        .context("cannot read standard input")?;
    if text.is_empty() {
        bail!("standard input is empty");
    }
    if text.len() > TEXT_MAX {
        bail!("the text is longer than 1 MiB; `leakwarden scan --stdin` reads any length");
    }
    Ok(text)
}
