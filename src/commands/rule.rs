//! `leakwarden rule`: what is looked for, and whether own rules do what they should.

mod trial;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};

use super::{Exit, output, rule_file, rule_files, rules};
use crate::cli::{self, ListFormat};
use crate::matcher::Matcher;
use crate::rule::{Rule, RuleSet, Within};
use crate::shape::{NoKeys, ShapeSet};
use crate::text::{clean, plural};

/// Ids that are named where one is unknown.
const NEAREST: usize = 3;
/// Width of the labels in what `show` prints, and a line break followed by as much.
const LABEL: usize = 14;
const INDENT: &str = "\n              ";

pub(super) fn run(command: &cli::Rule) -> anyhow::Result<Exit> {
    match command {
        cli::Rule::List { words, own, rules: folders, format } => {
            list(&rules(&folders.rules)?, words, *own, format.format)
        }
        cli::Rule::Show { id, rules: folders, format } => {
            show(rules(&folders.rules)?, id, format.format)
        }
        cli::Rule::Check { paths } => check(paths),
        cli::Rule::Test(arguments) => trial::run(arguments),
    }
}

fn list(set: &RuleSet, words: &[String], own: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let asked: Vec<&Rule> = set
        .rules()
        .filter(|rule| !(own && rule.builtin))
        .filter(|rule| {
            let texts = [&rule.id, &rule.provider, &rule.name].map(|text| text.to_lowercase());
            words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
        })
        .collect();
    match format {
        ListFormat::Json => {
            let rules: Vec<Value> = asked.iter().map(|rule| summary_json(rule)).collect();
            output::json(&json!({ "rules": rules }))?;
        }
        ListFormat::Text => {
            output::print(&list_text(&asked))?;
            if asked.is_empty() {
                output::note(match own && set.rules().all(|rule| rule.builtin) {
                    true => "no own rules; `--rules DIR` adds those of a folder",
                    false => "no such rule; without words, `leakwarden rule list` lists all",
                });
            }
        }
    }
    Ok(Exit::Clean)
}

fn list_text(rules: &[&Rule]) -> String {
    let width = |text: fn(&Rule) -> String| {
        rules.iter().map(|rule| text(rule).chars().count()).max().unwrap_or_default()
    };
    let (ids, places) = (width(|rule| rule.id.to_string()), width(place));
    rules
        .iter()
        .map(|rule| {
            format!(
                "{:<ids$}  {:<6}  {:<6}  {:<places$}  {}: {}\n",
                rule.id,
                rule.confidence,
                rule.kind.as_str(),
                place(rule),
                clean(rule.provider.as_bytes()),
                clean(rule.name.as_bytes()),
            )
        })
        .collect()
}

/// Where a rule comes from, in a list.
fn place(rule: &Rule) -> String {
    if rule.builtin { "built-in".to_owned() } else { clean(rule.file.as_bytes()) }
}

fn summary_json(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "provider": rule.provider,
        "name": rule.name,
        "confidence": rule.confidence.as_str(),
        "kind": rule.kind.as_str(),
        "builtin": rule.builtin,
        "file": rule.file,
    })
}

fn show(set: RuleSet, id: &str, format: ListFormat) -> anyhow::Result<Exit> {
    let matcher = Matcher::new(Arc::new(set), ShapeSet::default());
    let (_, rule) = find(matcher.rules(), id)?;
    match format {
        ListFormat::Json => output::json(&show_json(&matcher, rule))?,
        ListFormat::Text => output::print(&show_text(&matcher, rule))?,
    }
    Ok(Exit::Clean)
}

fn show_json(matcher: &Matcher, rule: &Rule) -> Value {
    let templates = |texts: &[Cow<'_, str>]| -> Vec<String> {
        texts.iter().map(|text| shown(matcher, rule, text)).collect()
    };
    let mut answer = summary_json(rule);
    let more = json!({
        "prefixes": rule.prefixes,
        "keywords": rule.keywords,
        "beside": rule.beside,
        "before": rule.before,
        "after": rule.after,
        "lines": rule.lines,
        "offsets": rule.offsets,
        "pattern": rule.pattern,
        "checksum": rule.checksum.map(crate::rule::Checksum::as_str),
        "left": rule.left.as_str(),
        "right": rule.right.as_str(),
        "lone": rule.lone,
        "needs": rule.needs.iter().map(|need| need.as_str()).collect::<Vec<_>>(),
        // By its decimals: as a wider number, 3.7 would be 3.700000047683716.
        "min_entropy": rule.min_entropy.to_string().parse::<f64>().ok().filter(|bits| *bits > 0.0),
        "json_parts": Some(rule.json_parts).filter(|parts| *parts > 0),
        "match_min": rule.facts.match_min,
        "match_max": rule.facts.match_max,
        "within": match rule.facts.within {
            Within::Runs => "runs",
            Within::WideRuns => "wide-runs",
            Within::Anything => "text",
        },
        "examples": templates(&rule.examples),
        "negative_examples": templates(&rule.negative_examples),
        "source": rule.source,
    });
    if let (Some(fields), Value::Object(more)) = (answer.as_object_mut(), more) {
        fields.extend(more);
    }
    answer
}

fn show_text(matcher: &Matcher, rule: &Rule) -> String {
    let facts = rule.facts;
    let plain = |text: &str| clean(text.as_bytes());
    let words = |words: &[Cow<'_, str>]| {
        words.iter().map(|word| plain(word)).collect::<Vec<_>>().join("  ")
    };
    let templates = |texts: &[Cow<'_, str>]| {
        texts.iter().map(|text| plain(&shown(matcher, rule, text))).collect::<Vec<_>>().join(INDENT)
    };
    let mut rows = vec![
        ("provider", plain(&rule.provider)),
        ("name", plain(&rule.name)),
        ("kind", rule.kind.as_str().to_owned()),
        ("confidence", rule.confidence.to_string()),
    ];
    if let Some(checksum) = rule.checksum {
        let effect = "right check digits make a match high, wrong ones low";
        rows.push(("checksum", format!("{}: {effect}", checksum.as_str())));
    }
    if rule.min_entropy > 0.0 {
        let effect = format!("under {} bits per character a match is low", rule.min_entropy);
        rows.push(("min_entropy", effect));
    }
    if rule.json_parts > 0 {
        let effect = format!("the first {} between dots; else a match is low", rule.json_parts);
        rows.push(("json_parts", effect));
    }
    let lists =
        [("prefixes", &rule.prefixes), ("keywords", &rule.keywords), ("beside", &rule.beside)];
    rows.extend(
        lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(l, list)| (l, words(list))),
    );
    if rule.is_announced() {
        let (before, after) = (rule.before, rule.after);
        rows.push(("near", {
            let breaks = plural(rule.lines as u64, "line break");
            format!("{before} bytes before, {after} behind, {breaks} between at most")
        }));
    }
    if !rule.needs.is_empty() {
        rows.push(("needs", rule.needs.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ")));
    }
    if *rule.offsets != [0] {
        let offsets: Vec<String> = rule.offsets.iter().map(ToString::to_string).collect();
        rows.push(("offsets", offsets.join(", ")));
    }
    let length = match facts.match_min == facts.match_max {
        true => plural(facts.match_max as u64, "byte"),
        false => format!("{} to {} bytes", facts.match_min, facts.match_max),
    };
    let within = match facts.within {
        Within::Runs => "a run of [A-Za-z0-9_.-]",
        Within::WideRuns => "a run of [A-Za-z0-9_.+/=~-]",
        Within::Anything => "any text",
    };
    let built_in = if rule.builtin { " (built-in)" } else { "" };
    rows.extend([
        ("pattern", plain(&rule.pattern)),
        ("length", length),
        ("lies in", within.to_owned()),
        ("left", rule.left.as_str().to_owned()),
        ("right", rule.right.as_str().to_owned()),
        ("file", format!("{}{built_in}", plain(&rule.file))),
        ("source", plain(&rule.source)),
        ("found in", templates(&rule.examples)),
        ("not found in", templates(&rule.negative_examples)),
    ]);
    let rows = rows.into_iter().map(|(label, value)| format!("{label:<LABEL$}{value}\n"));
    format!("{}\n{}", rule.id, rows.collect::<String>())
}

/// A template of a rule as people may see it. Those of own rules may hold keys, against the advice.
fn shown(matcher: &Matcher, rule: &Rule, template: &str) -> String {
    let masked = if rule.builtin { None } else { masked(matcher, template) };
    masked.unwrap_or_else(|| template.to_owned())
}

/// A text without the keys in it, if it holds any. A match that goes over a placeholder is none.
fn masked(matcher: &Matcher, text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut hits = Vec::new();
    matcher.find(bytes, 0..bytes.len(), &NoKeys, &mut hits);
    let whole = |text: &[u8]| !text.contains(&b'<');
    let holds_key = hits.iter().any(|hit| bytes.get(hit.span.clone()).is_some_and(whole));
    holds_key.then(|| matcher.redact(bytes, &NoKeys))
}

fn check(paths: &[PathBuf]) -> anyhow::Result<Exit> {
    let files = files(paths)?;
    let read = files.len() as u64;
    let (faults, own) = match RuleSet::with_files(files.clone()) {
        Err(error) => (error.faults, 0),
        Ok(set) if paths.is_empty() => {
            let of = |rule: &Rule| -> Vec<String> {
                let faults = rule.try_examples(&set).into_iter();
                faults.map(|why| format!("{}: {}: {why}", rule.file, rule.id)).collect()
            };
            (set.rules().flat_map(of).collect(), set.rules().len())
        }
        Ok(set) => (Vec::new(), set.rules().filter(|rule| !rule.builtin).count()),
    };
    if !faults.is_empty() {
        let set = RuleSet::with_untried_files(files).unwrap_or_else(|_| RuleSet::builtin());
        let matcher = Matcher::new(Arc::new(set), ShapeSet::default());
        for fault in &faults {
            output::note(&masked(&matcher, fault).unwrap_or_else(|| fault.clone()));
        }
        bail!("{}", plural(faults.len() as u64, "fault"));
    }
    let rules = own as u64;
    output::print(&match paths.is_empty() {
        true => format!("{}: no fault\n", plural(rules, "built-in rule")),
        false => format!("{} in {}: no fault\n", plural(rules, "rule"), plural(read, "file")),
    })?;
    Ok(Exit::Clean)
}

/// The rule files among these, and in the folders among these; each once.
fn files<'a>(
    paths: impl IntoIterator<Item = &'a PathBuf>,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rule_files(path)?);
        } else {
            files.push((path.display().to_string(), rule_file(path)?));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The rule with this id, and its index.
fn find<'a>(set: &'a RuleSet, id: &str) -> anyhow::Result<(usize, &'a Rule)> {
    if let Some(found) = set.rules().enumerate().find(|(_, rule)| rule.id == id) {
        return Ok(found);
    }
    let id = clean(id.as_bytes());
    let mut ids: Vec<((usize, usize), &str)> =
        set.rules().map(|rule| (distance(&id, &rule.id), &*rule.id)).collect();
    ids.sort_unstable();
    let nearest: Vec<&str> = ids.into_iter().take(NEAREST).map(|(_, id)| id).collect();
    bail!(
        "there is no rule `{id}`; nearest: {} (`leakwarden rule list` lists all; `--rules DIR` adds \
         own ones)",
        nearest.join(", ")
    );
}

/// How many bytes are to be put in, left out or replaced to come from one text to the beginning of
/// the other, and to all of it.
fn distance(from: &str, to: &str) -> (usize, usize) {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, byte) in from.bytes().enumerate() {
        let mut left = index + 1;
        let mut next = vec![left];
        for (other, above) in to.bytes().zip(row.windows(2)) {
            let [diagonal, up] = above else { continue };
            left = (left + 1).min(up + 1).min(diagonal + usize::from(byte != other));
            next.push(left);
        }
        row = next;
    }
    (row.iter().min().copied().unwrap_or_default(), row.last().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_words() {
        assert_eq!(distance("", "abc"), (0, 3));
        assert_eq!(distance("kitten", "sitting"), (2, 3));
        assert_eq!(distance("gihub-pat", "github-pat-classic"), (1, 9));
    }
}
