//! Windows of registered lengths at the edges of a run.

use std::ops::Range;

use crate::shape::{Alphabet, is_uuid};

/// How to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Every window, not only those with an edge.
    pub(super) deep: bool,
    /// The whole run is known to be of the alphabet.
    pub(super) within: bool,
    /// A bit for each byte of the run that is no letter or digit, if that is known.
    pub(super) joints: Option<u128>,
}

/// Calls with each window of one of the lengths (ascending) that lies in a stretch of the alphabet
/// within `run` and has an edge: its left neighbour, or its right one, is no letter or digit, or
/// is outside the alphabet. `x_KEY`, `KEY.tar`, `(KEY)` and the first bytes of a text have one.
pub(super) fn each(
    text: &[u8],
    run: Range<usize>,
    (alphabet, lengths): (Alphabet, &[usize]),
    options: Options,
    found: &mut dyn FnMut(Range<usize>),
) {
    let Some(&shortest) = lengths.first() else { return };
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
                let joints = options.joints.map(|joints| joints >> (start - run.start));
                let options = Options { joints, ..options };
                stretch(text, start..end, (alphabet, lengths), options, &mut uuids);
                start = end + 1;
            }
        }
    }
}

/// The windows of one maximal stretch of the alphabet.
fn stretch(
    text: &[u8],
    stretch: Range<usize>,
    (alphabet, lengths): (Alphabet, &[usize]),
    options: Options,
    found: &mut dyn FnMut(Range<usize>),
) {
    let Range { start, end } = stretch;
    for &length in lengths.iter().take_while(|&&length| length <= end - start) {
        if options.deep {
            (start..=end - length).for_each(|at| found(at..at + length));
        } else if matches!(alphabet, Alphabet::Hex | Alphabet::Alphanumeric) {
            // Nothing within it separates.
            found(start..start + length);
            if end - start > length {
                found(end - length..end);
            }
        } else if let Some(joints) = options.joints {
            at_joints(joints, start..end, length, found);
        } else {
            at_edges(text, start..end, length, found);
        }
    }
}

/// [`at_edges`], where the places that separate are known.
fn at_joints(
    joints: u128,
    stretch: Range<usize>,
    length: usize,
    found: &mut dyn FnMut(Range<usize>),
) {
    // A joint behind the first place of a window, or behind its last one, is an edge.
    let last = stretch.len() - length;
    let within = u128::MAX >> (u128::BITS as usize - 1 - last.min(127));
    let mut edges = (1 | joints << 1 | joints >> length | 1 << last) & within;
    while edges != 0 {
        let start = stretch.start + edges.trailing_zeros() as usize;
        edges &= edges - 1;
        found(start..start + length);
    }
}

fn at_edges(
    text: &[u8],
    stretch: Range<usize>,
    length: usize,
    found: &mut dyn FnMut(Range<usize>),
) {
    let separates = |at: usize| text.get(at).is_some_and(|byte| !byte.is_ascii_alphanumeric());
    let last = stretch.end - length;
    for start in stretch.start..=last {
        let at_start = start == stretch.start || separates(start - 1);
        if at_start || start == last || separates(start + length) {
            found(start..start + length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, alphabet: Alphabet, lengths: &[usize]) -> Vec<String> {
        let mut out = Vec::new();
        let options = Options { deep: false, within: false, joints: None };
        each(text.as_bytes(), 0..text.len(), (alphabet, lengths), options, &mut |span| {
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
        fn known_joints_make_no_difference(
            text in "[a-f0-9_.+/-]{1,128}",
            length in 1usize..40,
            more in 1usize..20,
        ) {
            let joints = text.bytes().rev().fold(0u128, |joints, byte| {
                joints << 1 | u128::from(!byte.is_ascii_alphanumeric())
            });
            for alphabet in Alphabet::ALL {
                let [with, without] = [Some(joints), None].map(|joints| {
                    let within = text.bytes().all(|byte| alphabet.holds(byte));
                    let options = Options { deep: false, within, joints };
                    let (mut found, lengths) = (Vec::new(), [length, length + more]);
                    let run = 0..text.len();
                    each(text.as_bytes(), run, (alphabet, &lengths), options, &mut |window| {
                        found.push((window.start, window.end));
                    });
                    found.sort_unstable();
                    found
                });
                proptest::prop_assert_eq!(with, without);
            }
        }
    }
}
