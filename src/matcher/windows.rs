//! Windows of long registered lengths at the edges of a run, byte by byte.

use std::ops::Range;

use crate::shape::{Alphabet, Length, is_strong};

/// Calls with each window of one of the lengths (ascending) that lies in a stretch of the alphabet
/// within `run`, is as strong as some key, and has an edge: its left neighbour, or its right one, is
/// no letter or digit, or is outside the alphabet. `x_KEY`, `KEY.tar`, `(KEY)` and the first bytes of
/// a text have one. `deep`: every window, not only those with an edge.
pub(super) fn each(
    text: &[u8],
    run: Range<usize>,
    (alphabet, lengths): (Alphabet, &[Length]),
    deep: bool,
    mut found: impl FnMut(Range<usize>),
) {
    let Some(shortest) = lengths.first().map(|length| length.bytes) else { return };
    let outside = |at: &usize| !text.get(*at).is_some_and(|byte| alphabet.holds(*byte));
    let mut start = run.start;
    while start + shortest <= run.end {
        // From the far end: where stretches are short, most bytes are never looked at.
        match (start..start + shortest).rev().find(outside) {
            Some(at) => start = at + 1,
            None => {
                let end = (start + shortest..run.end).find(outside).unwrap_or(run.end);
                stretch(text, start..end, (alphabet, lengths), deep, &mut found);
                start = end + 1;
            }
        }
    }
}

/// The windows of one maximal stretch of the alphabet.
fn stretch(
    text: &[u8],
    stretch: Range<usize>,
    (alphabet, lengths): (Alphabet, &[Length]),
    deep: bool,
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
            if strong == 0 || sliding.of(window.clone()) >= strong {
                found(window);
            }
        };
        if deep {
            (start..=end - length).for_each(found);
        } else if alphabet.letters() == alphabet {
            // Nothing within it separates.
            found(start);
            if end - start > length {
                found(end - length);
            }
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
        each(text.as_bytes(), 0..text.len(), (alphabet, &lengths), false, |span| {
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
        fn what_is_too_weak_is_left_out(
            text in "[a-fA-F0-9_.+/-]{1,128}|[a-f_]{128}",
            length in 1usize..=128,
            more in 1usize..=20,
            strong in 0u32..20,
            deep: bool,
        ) {
            let all = [length, length + more];
            for alphabet in Alphabet::ALL {
                let found = |strong: u32| {
                    let (lengths, mut found) = (lengths(&all, strong), Vec::new());
                    let run = 0..text.len();
                    each(text.as_bytes(), run, (alphabet, &lengths), deep, |window| {
                        found.push((window.start, window.end));
                    });
                    found
                };
                let mut expected = found(0);
                expected.retain(|(start, end)| {
                    let window = text.as_bytes()[*start..*end].iter();
                    window.filter(|byte| is_strong(**byte)).count() >= strong as usize
                });
                proptest::prop_assert_eq!(found(strong), expected);
            }
        }
    }
}
