//! Finds maximal runs of bytes of one class.

use std::ops::Range;

/// Calls with each maximal run of at least `shortest` bytes of the class in `text[from..]`.
///
/// Only every `shortest`-th byte is looked at where nothing is near: a run of that length cannot
/// lie between two probes. Cost: one look per `shortest` bytes of other text, two per byte of runs.
pub(super) fn each(
    text: &[u8],
    from: usize,
    shortest: usize,
    class: impl Fn(u8) -> bool + Copy,
    found: &mut dyn FnMut(Range<usize>),
) {
    let mut table = [false; 256];
    for (byte, member) in (0..=u8::MAX).zip(table.iter_mut()) {
        *member = class(byte);
    }
    let shortest = shortest.max(1);
    let is_member = |byte: &u8| table.get(usize::from(*byte)).copied().unwrap_or_default();
    // `floor` is the first byte that may belong to the next run.
    let mut floor = from;
    let mut probe = from.saturating_add(shortest - 1);
    while let Some(byte) = text.get(probe) {
        if !is_member(byte) {
            floor = probe + 1;
            probe += shortest;
            continue;
        }
        let before = text.get(floor..probe).unwrap_or_default();
        let start = probe - before.iter().rev().take_while(|b| is_member(b)).count();
        let after = text.get(probe..).unwrap_or_default();
        // Cheap way out: a run too short to reach the next possible end is the common case.
        let length = after.iter().take_while(|b| is_member(b)).count();
        let end = probe + length;
        if end - start >= shortest {
            found(start..end);
        }
        floor = end + 1;
        probe = end + shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::is_run_byte;

    fn naive(text: &[u8], from: usize, shortest: usize) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        let mut start = None;
        for at in from..=text.len() {
            match (start, text.get(at).is_some_and(|&b| is_run_byte(b))) {
                (None, true) => start = Some(at),
                (Some(begin), false) => {
                    if at - begin >= shortest {
                        out.push(begin..at);
                    }
                    start = None;
                }
                _ => {}
            }
        }
        out
    }

    proptest::proptest! {
        #[test]
        fn the_same_as_looking_at_every_byte(
            text in "[a-c =\\n]{0,200}", from in 0usize..20, shortest in 1usize..12,
        ) {
            let mut runs = Vec::new();
            each(text.as_bytes(), from, shortest, is_run_byte, &mut |run| runs.push(run));
            proptest::prop_assert_eq!(runs, naive(text.as_bytes(), from, shortest));
        }
    }
}
