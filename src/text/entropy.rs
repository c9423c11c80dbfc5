//! Shannon entropy of bytes.

use std::ops::Range;
use std::sync::LazyLock;

/// Counts of one byte for which a table says what one more of it adds.
const STEPS: usize = 128;
/// Bytes that are taken away in less time than all counts are set to zero.
const SHORT: usize = 16;
/// Parts of a bit in which that is told: whole numbers, so that what was added can be taken away.
const BIT: f32 = (1u32 << 24) as f32;

/// How often each byte is met, and the sum of `n log2(n)` of these counts.
#[derive(Debug)]
struct Counts {
    counts: [u32; 256],
    sum: u64,
}

impl Counts {
    fn new() -> Self {
        Self { counts: [0; 256], sum: 0 }
    }

    #[inline]
    fn add(&mut self, bytes: &[u8], steps: &[u64; STEPS]) {
        for byte in bytes {
            if let Some(count) = self.counts.get_mut(usize::from(*byte)) {
                self.sum += step(*count, steps);
                *count += 1;
            }
        }
    }

    #[inline]
    fn take(&mut self, bytes: &[u8], steps: &[u64; STEPS]) {
        for byte in bytes {
            if let Some(count) = self.counts.get_mut(usize::from(*byte)) {
                *count -= 1;
                self.sum -= step(*count, steps);
            }
        }
    }

    /// Per byte of that many.
    #[expect(clippy::cast_precision_loss, reason = "seven digits are enough")]
    fn bits(&self, bytes: usize) -> f32 {
        let bytes = bytes.max(1) as f32;
        bytes.log2() - self.sum as f32 / BIT / bytes
    }
}

/// What one more of a byte that was met so often adds to the sum.
#[inline]
fn step(count: u32, steps: &[u64; STEPS]) -> u64 {
    usize::try_from(count)
        .ok()
        .and_then(|count| steps.get(count))
        .copied()
        .unwrap_or_else(|| computed(count))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "under 2^64 by far, and never negative"
)]
fn computed(count: u32) -> u64 {
    let weight = |count: f64| if count > 0.0 { count * count.log2() * f64::from(BIT) } else { 0.0 };
    (weight(f64::from(count) + 1.0) - weight(f64::from(count))).round() as u64
}

static TABLE: LazyLock<[u64; STEPS]> = LazyLock::new(|| {
    let mut table = [0; STEPS];
    table.iter_mut().zip(0..).for_each(|(entry, count)| *entry = computed(count));
    table
});

/// Shannon entropy in bits per byte of the text itself.
#[must_use]
pub fn entropy_bits(text: &[u8]) -> f32 {
    let mut counts = Counts::new();
    counts.add(text, &TABLE);
    counts.bits(text.len())
}

/// The same of parts of one text that are asked for one after the other: where the next one begins or
/// ends near the last one, only the bytes between are looked at.
#[derive(Debug, Default)]
pub struct Sliding {
    part: Range<usize>,
    /// Made when first asked.
    counts: Option<Box<Counts>>,
}

impl Sliding {
    /// Of a part of the text, which is always the same text.
    pub fn bits(&mut self, text: &[u8], part: Range<usize>) -> f32 {
        let of = |range: Range<usize>| text.get(range).unwrap_or_default();
        let steps = &*TABLE;
        let last = std::mem::replace(&mut self.part, part.clone());
        let near = part.start.abs_diff(last.start) + part.end.abs_diff(last.end);
        let counts = self.counts.get_or_insert_with(|| Box::new(Counts::new()));
        if near < part.len() {
            counts.add(of(part.start..last.start), steps);
            counts.add(of(last.end..part.end), steps);
            counts.take(of(last.start..part.start), steps);
            counts.take(of(part.end..last.end), steps);
        } else if last.len() <= SHORT {
            counts.take(of(last), steps);
            counts.add(of(part.clone()), steps);
        } else {
            **counts = Counts::new();
            counts.add(of(part.clone()), steps);
        }
        counts.bits(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_shannon() {
        assert!(entropy_bits(b"").abs() < 1e-6);
        assert!(entropy_bits(b"aaaa").abs() < 1e-6);
        assert!((entropy_bits(b"abcd") - 2.0).abs() < 1e-6);
    }

    proptest::proptest! {
        #[test]
        fn it_is_the_sum_of_all_shares(text in proptest::collection::vec(0u8..6, 1..2_000)) {
            let counts = (0..6).map(|byte| text.iter().filter(|other| **other == byte).count());
            let shares = counts.map(|count| count as f32 / text.len() as f32);
            let bits: f32 = shares.filter(|s| *s > 0.0).map(|share| -share * share.log2()).sum();
            proptest::prop_assert!((entropy_bits(&text) - bits).abs() < 1e-4);
        }

        #[test]
        fn parts_are_as_if_each_was_the_first(
            text in "[a-d]{300}",
            parts in proptest::collection::vec((0usize..200, 0usize..100), 1..30),
        ) {
            let (text, mut sliding) = (text.as_bytes(), Sliding::default());
            for (start, length) in parts {
                let part = start..start + length;
                let alone = entropy_bits(&text[part.clone()]);
                proptest::prop_assert_eq!(sliding.bits(text, part), alone);
            }
        }
    }
}
