//! Windows of registered lengths at the edges of a run.

use std::ops::Range;

use crate::shape::Alphabet;

/// Calls with each window of one of the lengths (ascending) that lies in a stretch of the alphabet
/// within `run` and has an edge: its left neighbour, or its right one, is no letter or digit, or
/// is outside the alphabet. `x_KEY`, `KEY.tar`, `(KEY)` and the first bytes of a text have one.
pub(super) fn each(
    text: &[u8],
    run: Range<usize>,
    alphabet: Alphabet,
    lengths: &[usize],
    found: &mut dyn FnMut(Range<usize>),
) {
    let Some(&shortest) = lengths.first() else { return };
    let mut at = run.start;
    while let Some(start) = find(text, at..run.end, |b| alphabet.holds(b)) {
        let end = find(text, start..run.end, |b| !alphabet.holds(b)).unwrap_or(run.end);
        if end - start >= shortest {
            in_stretch(text, start..end, lengths, found);
        }
        at = end;
    }
}

fn find(text: &[u8], range: Range<usize>, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let start = range.start;
    text.get(range)?.iter().position(|&b| wanted(b)).map(|at| start + at)
}

fn in_stretch(
    text: &[u8],
    stretch: Range<usize>,
    lengths: &[usize],
    found: &mut dyn FnMut(Range<usize>),
) {
    let size = stretch.end - stretch.start;
    let fitting = lengths.iter().take_while(|&&length| length <= size);
    let separates = |at: usize| text.get(at).is_some_and(|b| !b.is_ascii_alphanumeric());
    let is_start = |at: usize| at == stretch.start || separates(at - 1);
    // Edges first, windows from them: most stretches have two edges and fit few lengths.
    let bytes = text.get(stretch.clone()).unwrap_or_default();
    let separators =
        || bytes.iter().enumerate().filter(|(_, b)| !b.is_ascii_alphanumeric()).map(|(at, _)| at);
    for &length in fitting {
        let starts = separators().map(|at| stretch.start + at + 1);
        for start in std::iter::once(stretch.start).chain(starts) {
            if start + length <= stretch.end {
                found(start..start + length);
            }
        }
        let ends = separators().map(|at| stretch.start + at);
        for end in ends.chain(std::iter::once(stretch.end)) {
            // Those that begin at an edge too were there already.
            if end >= stretch.start + length && !is_start(end - length) {
                found(end - length..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, alphabet: Alphabet, lengths: &[usize]) -> Vec<String> {
        let mut out = Vec::new();
        each(text.as_bytes(), 0..text.len(), alphabet, lengths, &mut |span| {
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
}
