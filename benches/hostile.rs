//! What text costs that was made to cost as much as it can. `cargo bench --bench hostile`.
//!
//! For each built-in rule, a mebibyte of each of some texts that are made from its pattern: its literal
//! again and again, matches that begin within matches, matches that fail at their last byte. Told is what
//! the rule costs alone, and what all rules cost at once. `-- FOLDER` adds the rules of a folder,
//! `-- --random 100` so many made-up rules that leakwarden accepts.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run should stop, and prints what it measured"
)]

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leakwarden::matcher::Matcher;
use leakwarden::rule::{Rule, RuleSet};
use leakwarden::shape::ShapeSet;
use regex_syntax::hir::{Class, Hir, HirKind};
use rustix::time::{ClockId, clock_gettime};
use shared::scan;

mod shared;

const TEXT_BYTES: usize = 1 << 20;
/// So many texts are shown, each at its fastest of so many times.
const DEAREST: usize = 12;
const TIMES: usize = 4;
/// What is put where a pattern leaves a choice, beside its literals.
const FILLS: [&[u8]; 5] = [b"a", b"0", b"aZ9", b"-", b"~"];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut rules, mut random) = (RuleSet::builtin(), 0);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--random" => random = arguments.next().unwrap().parse().unwrap(),
            folder => rules = RuleSet::with_files(files(Path::new(folder))).unwrap(),
        }
    }
    let (mut alone, mut all) = (Costs::default(), Costs::default());
    for rule in rules.rules() {
        let mut few = rules.clone();
        few.retain(|other| other.id == rule.id || rule.beside.contains(&other.id));
        alone.add(few, rule);
        all.add(rules.clone(), rule);
    }
    alone.tell("a rule alone");
    all.tell("all rules at once");
    if random > 0 {
        let (mut made_up, mut seed) = (Costs::default(), Seed(1));
        let files = std::iter::repeat_with(|| seed.rule_file());
        let accepted = files.filter_map(|text| RuleSet::with_files([("r.yaml".into(), text)]).ok());
        for rules in accepted.take(random) {
            made_up.add(rules.clone(), rules.rules().next_back().unwrap());
        }
        made_up.tell("made-up rules, with all others");
    }
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

#[derive(Default)]
struct Costs {
    texts: usize,
    dearest: Vec<(Duration, String)>,
}

impl Costs {
    /// Takes the time of texts made for a rule, with some rules.
    fn add(&mut self, rules: RuleSet, rule: &Rule) {
        let matcher = Matcher::new(Arc::new(rules), ShapeSet::default());
        for (name, unit) in units(matcher.rules(), rule) {
            let text: Vec<u8> = unit.iter().copied().cycle().take(TEXT_BYTES).collect();
            let time = || timed(|| scan(&matcher, &text));
            self.texts += 1;
            if self.dearest.get(DEAREST - 1).is_none_or(|(cost, _)| time() > *cost) {
                let cost = std::iter::repeat_with(time).take(TIMES).min().unwrap();
                let found = scan(&matcher, &text);
                let what = format!("{}: {name}; {found} found by {}", rule.id, rule.pattern);
                self.dearest.push((cost, what.chars().take(150).collect()));
                self.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
                self.dearest.truncate(DEAREST);
            }
        }
    }

    fn tell(&self, of: &str) {
        println!("{of}: the dearest of {} mebibytes", self.texts);
        for (cost, what) in &self.dearest {
            println!("{:7.1} ms  {what}", cost.as_secs_f64() * 1e3);
        }
    }
}

/// The processor's time alone: others may be at work.
fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let spent = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let begun = spent();
    black_box(work());
    spent() - begun
}

/// What hostile texts consist of, each with its name.
fn units(rules: &RuleSet, rule: &Rule) -> Vec<(String, Vec<u8>)> {
    let mut words: BTreeSet<Vec<u8>> = BTreeSet::new();
    for texts in [&rule.prefixes, &rule.keywords] {
        words.extend(texts.first().into_iter().chain(texts.last()).map(|w| w.as_bytes().to_vec()));
    }
    for other in rules.rules().filter(|other| rule.beside.contains(&other.id)) {
        words.insert(Pattern(parse(&other.pattern)).shortest(b"a1"));
    }
    let pattern = Pattern(parse(&rule.pattern));
    let mut all = Vec::new();
    for word in &words {
        let mut units: Vec<(String, Vec<u8>)> = ["", "a", ":", "\n"]
            .map(|end| (format!("and {end:?}"), joined(&[word, end.as_bytes()])))
            .into();
        units.extend(match rule.prefixes.is_empty() {
            true => announced(word, &pattern),
            false => nested(word, &pattern),
        });
        let word = String::from_utf8_lossy(word);
        all.extend(units.into_iter().map(|(name, unit)| (format!("{word:?} {name}"), unit)));
    }
    all
}

/// Keys of a rule without a literal, and what announces them.
fn announced(word: &[u8], pattern: &Pattern) -> Vec<(String, Vec<u8>)> {
    let keys = joined(&[&pattern.shortest(b"a1"), b","]);
    let words = joined(&[word, b","]).repeat(200);
    [
        ("before each key", joined(&[word, b" ", &keys])),
        ("before nine keys", joined(&[word, b" ", &keys.repeat(9)])),
        ("often before keys", joined(&[&words, &keys.repeat(40)])),
        ("often in the line before", joined(&[&words, b"\n", &keys.repeat(40)])),
        ("many lines before", joined(&[word, &b"\n".repeat(200), &keys.repeat(40)])),
    ]
    .map(|(name, unit)| (name.to_owned(), unit))
    .into()
}

/// Matches filled with what may be the beginning of another one, or of a part of it.
fn nested(word: &[u8], pattern: &Pattern) -> Vec<(String, Vec<u8>)> {
    let mut fills: BTreeSet<Vec<u8>> = FILLS.iter().map(|fill| fill.to_vec()).collect();
    literals(&pattern.0, &mut fills);
    fills.extend(["", "-", ".", "a"].map(|end| joined(&[word, end.as_bytes()])));
    let filled = |fill: Vec<u8>| {
        let shown = String::from_utf8_lossy(&fill).into_owned();
        let (longest, shortest) = (pattern.longest(&fill), pattern.shortest(&fill));
        let broken = longest.get(..longest.len() - 1).unwrap_or_default();
        [
            ("in lines", joined(&[&longest, b"\n"])),
            ("glued", joined(&[&longest, b"-"])),
            ("broken", joined(&[broken, b"\x01"])),
            ("short", joined(&[&shortest, b" "])),
        ]
        .map(|(name, unit)| (format!("with {shown:?}, {name}"), unit))
    };
    fills.into_iter().flat_map(filled).collect()
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn parse(pattern: &str) -> Hir {
    let mut builder = regex_syntax::ParserBuilder::new();
    builder.unicode(false).utf8(false).build().parse(pattern).unwrap()
}

struct Pattern(Hir);

impl Pattern {
    /// The longest match: what may be chosen is taken from the fill where it can be.
    fn longest(&self, fill: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&self.0, (fill, true), &mut out);
        out
    }

    fn shortest(&self, fill: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&self.0, (fill, false), &mut out);
        out
    }
}

fn write(hir: &Hir, (fill, longest): (&[u8], bool), out: &mut Vec<u8>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.extend(literal.0.iter()),
        HirKind::Class(class) => out.push(choose(class, fill.first().copied())),
        HirKind::Capture(capture) => write(&capture.sub, (fill, longest), out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, (fill, longest), out)),
        HirKind::Alternation(parts) => {
            let part = match longest {
                true => parts.iter().max_by_key(|part| part.properties().maximum_len()),
                false => parts.iter().min_by_key(|part| part.properties().minimum_len()),
            };
            write(part.unwrap(), (fill, longest), out);
        }
        HirKind::Repetition(repetition) => {
            let count = if longest { repetition.max.unwrap() } else { repetition.min };
            let mut fill = fill.to_vec();
            for _ in 0..count {
                write(&repetition.sub, (&fill, longest), out);
                fill.rotate_left(1);
            }
        }
    }
}

fn choose(class: &Class, wanted: Option<u8>) -> u8 {
    let Class::Bytes(class) = class else { return b'?' };
    let has = |byte: u8| class.iter().any(|range| (range.start()..=range.end()).contains(&byte));
    let mut bytes = wanted.into_iter().chain(*b"a0A-").chain(0..=u8::MAX);
    bytes.find(|byte| has(*byte)).unwrap()
}

/// The literals in a pattern.
fn literals(hir: &Hir, out: &mut BTreeSet<Vec<u8>>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => {}
        HirKind::Literal(literal) => out.extend([literal.0.to_vec()]),
        HirKind::Capture(capture) => literals(&capture.sub, out),
        HirKind::Repetition(repetition) => literals(&repetition.sub, out),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().for_each(|part| literals(part, out));
        }
    }
}

/// Made-up rules, always the same ones.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all.get(self.below(all.len())).copied().unwrap()
    }

    fn counts(&mut self, most: usize) -> String {
        let most = 1 + self.below(most);
        format!("{{{},{most}}}", self.below(most + 1))
    }

    fn part(&mut self, depth: usize) -> String {
        const CLASSES: [&str; 9] =
            ["[ab]", "[a-z]", "[a-z0-9_-]", "[b@]", "c", "-", "[0-9a-f]", "@", "[^~]"];
        if depth == 0 || self.below(4) > 0 {
            let most = self.pick(&[2, 4, 20, 60, 400]);
            return format!("{}{}", self.pick(&CLASSES), self.counts(most));
        }
        let choices: Vec<String> = (0..=self.below(3)).map(|_| self.parts(depth - 1)).collect();
        format!("(?:{}){}", choices.join("|"), self.counts(6))
    }

    fn parts(&mut self, depth: usize) -> String {
        (0..=self.below(4)).map(|_| self.part(depth)).collect()
    }

    /// A file with one rule, which may be accepted or not.
    fn rule_file(&mut self) -> String {
        const LITERALS: [&str; 9] =
            ["aa", "ab", "aab", "acme_", "a-b-", "key", "https://", "@@@", "zq_live_"];
        const MORE: [&str; 6] =
            ["", "", "left: boundary,", "right: any,", "needs: [digit],", "min_entropy: 3,"];
        let (literal, more) = (self.pick(&LITERALS), self.pick(&MORE));
        let pattern = format!("{literal}{}", self.parts(2));
        let example = String::from_utf8(Pattern(parse(&pattern)).shortest(b"a")).unwrap();
        format!(
            "rules: [{{id: own, provider: A, name: n, prefixes: [\"{literal}\"], pattern: '{pattern}', \
             confidence: low, {more} examples: [\"{example}\"], negative_examples: [\"x\"], source: s}}]"
        )
    }
}
