//! A text that is made from another one, of which all hits are known: only around what is new in it
//! hits are looked for.
//!
//! It rests on the matcher's invariant: a hit in a part that both have in common is one in both, as
//! long as everything that it can depend on lies in that part too.

use std::ops::Range;

use super::{Hit, Matcher, SPAN_MAX};
use crate::rule::Confidence;
use crate::shape::Known;
use crate::source::{CONTEXT_MAX, Copied, Made, Mark};

const LEVELS: [Confidence; 3] = [Confidence::Low, Confidence::Medium, Confidence::High];

/// What is remembered of a hit.
pub(super) fn mark(hit: &Hit) -> Mark {
    let rule = hit.rule.map_or(0, |rule| rule as u64 + 1);
    let level = LEVELS.iter().position(|level| *level == hit.confidence).unwrap_or_default();
    let note = rule << 3 | u64::from(hit.known) << 2 | level as u64;
    Mark { span: hit.span.clone(), note }
}

fn hit(mark: &Mark, span: Range<usize>) -> Hit {
    let level = usize::try_from(mark.note & 3).unwrap_or_default();
    Hit {
        span,
        rule: (mark.note >> 3).checked_sub(1).and_then(|rule| usize::try_from(rule).ok()),
        confidence: LEVELS.get(level).copied().unwrap_or(Confidence::Low),
        known: mark.note >> 2 & 1 == 1,
    }
}

/// Where in the new text a hit may start that the other text decides.
fn decided(part: &Copied, length: usize, from: &Made<'_>) -> Range<usize> {
    let (end, end_before) = (part.to + part.length, part.from + part.length);
    let begins = part.to == 0 && part.from == 0;
    let ends = end == length && end_before == from.length;
    let first = if begins { 0 } else { part.to + CONTEXT_MAX };
    let last = if ends { length } else { end.saturating_sub(SPAN_MAX + 1) };
    first..last
}

/// Appends every hit of a text, in no particular order.
pub(super) fn find(
    text: &[u8],
    from: Made<'_>,
    matcher: &Matcher,
    known: &dyn Known,
    out: &mut Vec<Hit>,
) {
    let mut done = 0;
    for part in from.copied {
        let same = decided(part, text.len(), &from);
        if same.start < done || same.is_empty() {
            continue;
        }
        around(text, done..same.start, matcher, known, out);
        for mark in from.marks {
            let start = (mark.span.start + part.to).checked_sub(part.from);
            if let Some(start) = start.filter(|start| same.contains(start)) {
                out.push(hit(mark, start..start + mark.span.len()));
            }
        }
        done = same.end;
    }
    around(text, done..text.len(), matcher, known, out);
}

/// Looks for hits that start in a part of a text, with no more of it than they can depend on.
fn around(
    text: &[u8],
    starts: Range<usize>,
    matcher: &Matcher,
    known: &dyn Known,
    out: &mut Vec<Hit>,
) {
    if starts.is_empty() {
        return;
    }
    let first = starts.start.saturating_sub(CONTEXT_MAX);
    let last = text.len().min(starts.end + SPAN_MAX + 1);
    let before = out.len();
    let part = text.get(first..last).unwrap_or_default();
    matcher.find(part, starts.start - first..starts.end - first, known, out);
    for hit in out.iter_mut().skip(before) {
        hit.span = hit.span.start + first..hit.span.end + first;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rule::RuleSet;
    use crate::shape::{NoKeys, ShapeSet};

    /// Whatever is cut, copied and put in: the hits are those of the text itself.
    #[test]
    fn nothing_is_lost_or_invented() {
        let rules = Arc::new(RuleSet::with_files(Vec::new()).unwrap());
        let matcher = Matcher::new(rules, ShapeSet::default());
        let key = |n: usize| format!("{}{}{:04}", "ghp_", "0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P", n);
        let mut base = String::new();
        for n in 0..900 {
            base.push_str(&format!("line {n} of some text, api_key = nothing here\n"));
            if n % 97 == 0 {
                base.push_str(&format!("token = \"{}\"\n", key(n)));
            }
        }
        let all = |text: &[u8]| {
            let mut hits = Vec::new();
            matcher.find(text, 0..text.len(), &NoKeys, &mut hits);
            hits.sort_unstable_by_key(|hit| (hit.span.start, hit.span.end, hit.rule));
            hits
        };
        let base_hits = all(base.as_bytes());
        assert!(base_hits.len() >= 10);
        let marks: Vec<Mark> = base_hits.iter().map(mark).collect();
        for cut in (0..base.len()).step_by(1_237) {
            for new in [String::new(), key(5), format!("{}ghp_", key(7)), "x".repeat(3)] {
                let skipped = (cut + 31).min(base.len());
                let text = [&base.as_bytes()[..cut], new.as_bytes(), &base.as_bytes()[skipped..]];
                let text = text.concat();
                let to = cut + new.len();
                let copied = [
                    Copied { from: 0, to: 0, length: cut },
                    Copied { from: skipped, to, length: base.len() - skipped },
                ];
                let from = Made { copied: &copied, marks: &marks, length: base.len() };
                let mut hits = Vec::new();
                find(&text, from, &matcher, &NoKeys, &mut hits);
                hits.sort_unstable_by_key(|hit| (hit.span.start, hit.span.end, hit.rule));
                assert_eq!(hits, all(&text), "cut at {cut}, put in {new:?}");
            }
        }
    }
}
