//! Patterns that need no regex: literals and repeated classes, one after the other, where each byte
//! tells which of them it belongs to. Nearly all keys are such. They are matched in one go without
//! ever going back; and where the matches of a long class overlap, each byte is looked at once.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::assess::ExampleWords;
use crate::text::Sliding;

/// A set of bytes, a bit each.
type Bytes = [u64; 4];

/// Alternatives that a pattern may have when they are written out.
const SEQUENCES_MAX: usize = 16;
/// Repetitions over this are worth being remembered.
const SHORT: usize = 16;
/// Classes that are remembered at a time.
const REMEMBERED: usize = 8;

/// A pattern, as sequences of which the first that matches counts.
#[derive(Debug)]
pub(super) struct Steps(Vec<Sequence>);

/// What it begins with, which is seen at one look; and the rest.
#[derive(Debug)]
struct Sequence {
    literal: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    bytes: Bytes,
    least: usize,
    most: usize,
}

/// What was seen of one text, for matches that begin one after the other and overlap.
#[derive(Debug, Default)]
pub struct Memory {
    /// Up to where bytes of a class go on, as far as was looked.
    stretches: Vec<Stretch>,
    pub(super) words: ExampleWords,
    pub(super) entropy: Sliding,
}

#[derive(Debug)]
struct Stretch {
    bytes: Bytes,
    start: usize,
    end: usize,
    /// Whether the byte at the end is none of them.
    ended: bool,
}

impl Steps {
    /// `None`: it takes a regex.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let mut parser = regex_syntax::ParserBuilder::new();
        let hir = parser.unicode(false).utf8(false).build().parse(pattern).ok()?;
        let sequences = sequences(&hir)?;
        let is_clear = sequences.iter().all(|steps| is_clear(steps));
        is_clear.then(|| Self(sequences.iter().map(|steps| Sequence::of(steps)).collect()))
    }

    /// The end of the match that begins at `start`. What a regex would answer: every step takes
    /// all it can.
    pub(super) fn end(&self, text: &[u8], start: usize, memory: &mut Memory) -> Option<usize> {
        let rest = text.get(start..)?;
        let begins = |sequence: &&Sequence| rest.starts_with(&sequence.literal);
        self.0.iter().filter(begins).find_map(|Sequence { literal, steps }| {
            steps.iter().try_fold(start + literal.len(), |at, step| {
                let end = if step.most > SHORT {
                    memory.end(text, at, step)
                } else {
                    at + text
                        .get(at..)?
                        .iter()
                        .take(step.most)
                        .take_while(|b| step.has(**b))
                        .count()
                };
                (end - at >= step.least).then_some(end)
            })
        })
    }
}

impl Sequence {
    fn of(steps: &[Step]) -> Self {
        let literal: Vec<u8> = steps.iter().map_while(Step::literal).collect();
        let steps = steps.get(literal.len()..).unwrap_or_default().to_vec();
        Self { literal, steps }
    }
}

impl Step {
    /// Its byte, if it takes just one.
    fn literal(&self) -> Option<u8> {
        let bytes = || self.bytes.iter().zip((0..=u8::MAX).step_by(64));
        let is_one = bytes().map(|(word, _)| word.count_ones()).sum::<u32>() == 1;
        let (word, first) = bytes().find(|(word, _)| **word != 0)?;
        let nth = u8::try_from(word.trailing_zeros()).ok()?;
        (is_one && (self.least, self.most) == (1, 1)).then_some(first + nth)
    }

    fn has(&self, byte: u8) -> bool {
        has(&self.bytes, byte)
    }
}

impl Memory {
    /// One past the last byte, from `at` on, that a step takes.
    fn end(&mut self, text: &[u8], at: usize, step: &Step) -> usize {
        let known = self.stretches.iter().position(|known| known.bytes == step.bytes);
        let index = known.unwrap_or_else(|| {
            if self.stretches.len() == REMEMBERED {
                self.stretches.remove(0);
            }
            self.stretches.push(Stretch { bytes: step.bytes, start: at, end: at, ended: false });
            self.stretches.len() - 1
        });
        let Some(known) = self.stretches.get_mut(index) else { return at };
        if !(known.start..=known.end).contains(&at) {
            *known = Stretch { bytes: step.bytes, start: at, end: at, ended: false };
        }
        let limit = text.len().min(at + step.most);
        if !known.ended && known.end < limit {
            let rest = text.get(known.end..limit).unwrap_or_default();
            let more = rest.iter().take_while(|byte| step.has(**byte)).count();
            known.end += more;
            known.ended = more < rest.len();
        }
        known.end.min(limit)
    }
}

fn has(bytes: &Bytes, byte: u8) -> bool {
    bytes.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
}

/// All alternatives written out, in the order in which a regex would try them.
fn sequences(hir: &Hir) -> Option<Vec<Vec<Step>>> {
    let all = match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Look(_) => return None,
        HirKind::Literal(literal) => {
            vec![literal.0.iter().map(|byte| once(one(*byte))).collect()]
        }
        HirKind::Class(class) => vec![vec![once(members(class)?)]],
        HirKind::Capture(capture) => sequences(&capture.sub)?,
        HirKind::Repetition(repetition) => {
            let most = repetition.max.filter(|_| repetition.greedy)?;
            let (least, most) = (to_usize(repetition.min)?, to_usize(most)?);
            let inner = sequences(&repetition.sub)?;
            match inner.as_slice() {
                [steps]
                    if let [step] = steps.as_slice()
                        && (step.least, step.most) == (1, 1) =>
                {
                    vec![vec![Step { least, most, ..*step }]]
                }
                _ if (least, most) == (0, 1) => inner.into_iter().chain([Vec::new()]).collect(),
                [steps] if least == most && least <= SEQUENCES_MAX => vec![steps.repeat(least)],
                _ => return None,
            }
        }
        HirKind::Alternation(parts) => {
            let parts: Vec<_> = parts.iter().map(sequences).collect::<Option<_>>()?;
            parts.concat()
        }
        HirKind::Concat(parts) => parts.iter().try_fold(vec![Vec::new()], |before, part| {
            let after = sequences(part)?;
            let joined = before.iter().flat_map(|before| {
                after.iter().map(move |after| [before.as_slice(), after].concat())
            });
            Some(joined.take(SEQUENCES_MAX + 1).collect())
        })?,
    };
    (all.len() <= SEQUENCES_MAX).then_some(all)
}

fn to_usize(count: u32) -> Option<usize> {
    usize::try_from(count).ok()
}

fn once(bytes: Bytes) -> Step {
    Step { bytes, least: 1, most: 1 }
}

fn one(byte: u8) -> Bytes {
    std::array::from_fn(|word| if usize::from(byte >> 6) == word { 1 << (byte & 63) } else { 0 })
}

fn members(class: &Class) -> Option<Bytes> {
    let Class::Bytes(class) = class else { return None };
    let mut all = [0; 4];
    for byte in class.iter().flat_map(|range| range.start()..=range.end()) {
        all.iter_mut().zip(one(byte)).for_each(|(all, one)| *all |= one);
    }
    Some(all)
}

/// Whether a step never has to give back what it took: what may follow begins with other bytes.
fn is_clear(steps: &[Step]) -> bool {
    steps.iter().enumerate().all(|(at, step)| {
        let mut after = steps.iter().skip(at + 1);
        let last = after.clone().position(|next| next.least > 0);
        let count = last.map_or(usize::MAX, |last| last + 1);
        step.least == step.most
            || after
                .by_ref()
                .take(count)
                .all(|next| next.bytes.iter().zip(&step.bytes).all(|(next, own)| next & own == 0))
    })
}

#[cfg(test)]
mod tests {
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
            let Some(steps) = Steps::of(&rule.pattern) else { continue };
            plain += 1;
            let regex = rule.compile().unwrap();
            for template in rule.examples.iter().chain(rule.negative_examples.iter()) {
                let text =
                    example::expand(template, (&rule.prefixes, &rule.offsets), rule.checksum)
                        .unwrap();
                let text = [text.as_slice(), &text].concat();
                let mut memory = Memory::default();
                for start in 0..text.len() {
                    let expected = regex.find(&text[start..]).map(|found| start + found.end());
                    assert_eq!(steps.end(&text, start, &mut memory), expected, "{}", rule.id);
                }
            }
        }
        assert!(plain * 10 > rules.rules().len() * 8, "{plain} of {}", rules.rules().len());
    }

    #[test]
    fn what_would_have_to_go_back_is_left_to_a_regex() {
        for pattern in
            ["a{1,3}a", "[a-z]{1,9}b", "a{0,2}b{0,2}a", r"\bab", "(?:ab){1,3}", "a{1,2}?"]
        {
            assert!(Steps::of(pattern).is_none(), "{pattern}");
        }
    }

    const PATTERNS: [&str; 9] = [
        "ab{2,70}c",
        "ab{2,200}",
        "a[bc]{3}[bc]",
        "(?:a|ab|abc)c{0,2}",
        "a(?:b_)?[bc]{1,100}",
        "ab?c?",
        "(?:ac){2}b{0,99}c",
        "a[bc]{0,90}_b{1,66}",
        "[a-c]{70,80}_?",
    ];

    proptest::proptest! {
        #[test]
        fn the_same_as_a_regex(text in "(?:[abc_]{0,9}|b{60,90}|[bc]{90}){0,6}") {
            let text = text.as_bytes();
            for pattern in PATTERNS {
                let (steps, regex) = (Steps::of(pattern).unwrap(), regex(pattern));
                let mut memory = Memory::default();
                for start in 0..=text.len() {
                    let expected = regex.find(&text[start..]).map(|found| start + found.end());
                    let end = steps.end(text, start, &mut memory);
                    proptest::prop_assert_eq!(end, expected, "{} at {}", pattern, start);
                }
            }
        }
    }
}
