//! Windows of registered lengths at the edges of a run.

use std::ops::Range;

use super::runs::Marks;
use crate::shape::{Alphabet, Length, is_strong, is_uuid};

/// How to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Every window, not only those with an edge.
    pub(super) deep: bool,
    /// The whole run is known to be of the alphabet.
    pub(super) within: bool,
    /// What was seen of the run.
    pub(super) marks: Option<Marks>,
}

/// Calls with each window of one of the lengths (ascending) that lies in a stretch of the alphabet
/// within `run`, is as strong as some key, and has an edge: its left neighbour, or its right one, is
/// no letter or digit, or is outside the alphabet. `x_KEY`, `KEY.tar`, `(KEY)` and the first bytes of
/// a text have one.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
pub(super) fn each(
    text: &[u8],
    run: Range<usize>,
    (alphabet, lengths): (Alphabet, &[Length]),
    options: Options,
    mut found: impl FnMut(Range<usize>),
) {
    let Some(shortest) = lengths.first().map(|length| length.bytes) else { return };
    let mut uuids = |window: Range<usize>| {
        if alphabet != Alphabet::Uuid || is_uuid(text.get(window.clone()).unwrap_or_default()) {
            found(window);
        }
    };
    let outside = |at: &usize| !text.get(*at).is_some_and(|byte| alphabet.holds(*byte));
    if options.within {
        return stretch(text, run, (alphabet, lengths), options, &mut uuids);
    }
    let mut start = run.start;
    while start + shortest <= run.end {
        // From the far end: where stretches are short, most bytes are never looked at.
        match (start..start + shortest).rev().find(outside) {
            Some(at) => start = at + 1,
            None => {
                let end = (start + shortest..run.end).find(outside).unwrap_or(run.end);
                let marks = options.marks.map(|marks| marks.behind(start - run.start));
                let options = Options { marks, ..options };
                stretch(text, start..end, (alphabet, lengths), options, &mut uuids);
                start = end + 1;
            }
        }
    }
}

/// The windows of one maximal stretch of the alphabet.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn stretch(
    text: &[u8],
    stretch: Range<usize>,
    (alphabet, lengths): (Alphabet, &[Length]),
    Options { deep, marks, .. }: Options,
    found: &mut impl FnMut(Range<usize>),
) {
    let Range { start, end } = stretch;
    for &Length { bytes: length, strong } in lengths {
        if length > end - start {
            break;
        }
        let mut sliding = Strong { text, window: start..start, count: 0 };
        let mut found = |at: usize| {
            let window = at..at + length;
            let count = match marks {
                Some(marks) => marks.behind(at - start).strong_before(length),
                None if strong == 0 => 0,
                None => sliding.of(window.clone()),
            };
            if count >= strong {
                found(window);
            }
        };
        if deep {
            (start..=end - length).for_each(found);
        } else if matches!(alphabet, Alphabet::Hex | Alphabet::Alphanumeric) {
            // Nothing within it separates.
            found(start);
            if end - start > length {
                found(end - length);
            }
        } else if let Some(marks) = marks {
            at_joints(marks.joints, start..end, length, &mut found);
        } else {
            at_edges(text, start..end, length, &mut found);
        }
    }
}

/// Counts the strong bytes of windows that come in order; where they overlap, each byte is looked at
/// twice.
struct Strong<'a> {
    text: &'a [u8],
    window: Range<usize>,
    count: u32,
}

impl Strong<'_> {
    fn of(&mut self, window: Range<usize>) -> u32 {
        let within = |part: Range<usize>| {
            let bytes = self.text.get(part).unwrap_or_default().iter();
            bytes.fold(0, |count, byte| count + u32::from(is_strong(*byte)))
        };
        self.count = if window.start < self.window.end {
            let (gone, come) = (self.window.start..window.start, self.window.end..window.end);
            self.count + within(come) - within(gone)
        } else {
            within(window.clone())
        };
        self.window = window;
        self.count
    }
}

/// [`at_edges`], where the places that separate are known.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn at_joints(joints: u128, stretch: Range<usize>, length: usize, found: &mut impl FnMut(usize)) {
    // A joint behind the first place of a window, or behind its last one, is an edge.
    let last = stretch.len() - length;
    let within = u128::MAX >> (u128::BITS as usize - 1 - last.min(127));
    let behind = u32::try_from(length).ok().and_then(|length| joints.checked_shr(length));
    let mut edges = (1 | joints << 1 | behind.unwrap_or_default() | 1 << last) & within;
    while edges != 0 {
        let start = stretch.start + edges.trailing_zeros() as usize;
        edges &= edges - 1;
        found(start);
    }
}

fn at_edges(text: &[u8], stretch: Range<usize>, length: usize, found: &mut impl FnMut(usize)) {
    let separates = |at: usize| text.get(at).is_some_and(|byte| !byte.is_ascii_alphanumeric());
    let last = stretch.end - length;
    for start in stretch.start..=last {
        let at_start = start == stretch.start || separates(start - 1);
        if at_start || start == last || separates(start + length) {
            found(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(all: &[usize], strong: u32) -> Vec<Length> {
        all.iter().map(|bytes| Length { bytes: *bytes, strong }).collect()
    }

    fn words(text: &str, alphabet: Alphabet, all: &[usize]) -> Vec<String> {
        let (mut out, lengths) = (Vec::new(), lengths(all, 0));
        let options = Options { deep: false, within: false, marks: None };
        each(text.as_bytes(), 0..text.len(), (alphabet, &lengths), options, |span| {
            out.push(String::from_utf8_lossy(&text.as_bytes()[span]).into_owned());
        });
        out
    }

    #[test]
    fn edges_are_found() {
        assert_eq!(words("abcd", Alphabet::Base64Url, &[4]), ["abcd"]);
        assert_eq!(words("x_abcd", Alphabet::Base64Url, &[4]), ["x_ab", "abcd"]);
        assert_eq!(words("abcd.tar", Alphabet::Base64Url, &[4]), ["abcd"]);
        assert_eq!(words("abcd-1-x", Alphabet::Base64Url, &[4]), ["abcd", "cd-1", "-1-x"]);
        assert_eq!(words("zzabcdef0123zz", Alphabet::Hex, &[10]), ["abcdef0123"]);
    }

    #[test]
    fn the_middle_of_a_long_run_is_left_alone() {
        assert_eq!(words("abcdefgh", Alphabet::Alphanumeric, &[4]), ["abcd", "efgh"]);
    }

    proptest::proptest! {
        #[test]
        fn what_was_seen_makes_no_difference(
            text in "[a-fA-F0-9_.+/-]{1,128}|[a-f_]{128}",
            length in 1usize..=128,
            more in 1usize..=20,
            strong in 0u32..20,
            deep: bool,
        ) {
            let marks = |is: fn(&u8) -> bool| {
                text.bytes().rev().fold(0u128, |marks, byte| marks << 1 | u128::from(is(&byte)))
            };
            let marks = Marks {
                joints: marks(|byte| !byte.is_ascii_alphanumeric()),
                has_digit: true,
                strong: marks(|byte| is_strong(*byte)),
            };
            let all = [length, length + more];
            for alphabet in Alphabet::ALL {
                let found = |strong: u32, marks: Option<Marks>| {
                    let within = text.bytes().all(|byte| alphabet.holds(byte));
                    let (options, run) = (Options { deep, within, marks }, 0..text.len());
                    let (lengths, mut found) = (lengths(&all, strong), Vec::new());
                    each(text.as_bytes(), run, (alphabet, &lengths), options, |window| {
                        found.push((window.start, window.end));
                    });
                    found.sort_unstable();
                    found
                };
                let mut expected = found(0, None);
                expected.retain(|(start, end)| {
                    let window = text.as_bytes()[*start..*end].iter();
                    window.filter(|byte| is_strong(**byte)).count() >= strong as usize
                });
                proptest::prop_assert_eq!(found(strong, Some(marks)), expected.clone());
                proptest::prop_assert_eq!(found(strong, None), expected);
            }
        }
    }
}
