//! Finds maximal runs of bytes of a class: the hot loop of the crate, and its only `unsafe`.
//!
//! A block of 64 bytes becomes a bitmap (a bit a byte: member or not), by two table look-ups a byte
//! that AVX2 or SSSE3 do for 32 or 16 bytes at once: one by the low half of a byte, one by the high
//! half, and a byte is a member if the two answers share a bit. Runs that are too short are seen from
//! the bitmap without a loop. Which code runs is chosen at run time; all are tested against a
//! naive one.

use std::ops::Range;

const BLOCK: usize = 64;

/// A set of ASCII bytes (0x20 to 0x7f), prepared for look-up.
#[derive(Clone, Copy)]
pub(super) struct Class {
    /// By low half of a byte: a bit for each high half (0x2 to 0x7) that makes it a member.
    low: [u8; 16],
    /// By high half: its bit.
    high: [u8; 16],
    /// By whole byte, for the ends of runs.
    whole: [bool; 256],
}

impl Class {
    pub(super) fn new(member: fn(u8) -> bool) -> Self {
        let mut class = Self { low: [0; 16], high: [0; 16], whole: [false; 256] };
        for byte in (0x20..0x80u8).filter(|byte| member(*byte)) {
            let bit = 1 << (byte >> 4);
            for (half, table) in [(byte & 15, &mut class.low), (byte >> 4, &mut class.high)] {
                if let Some(entry) = table.get_mut(usize::from(half)) {
                    *entry |= bit;
                }
            }
            if let Some(entry) = class.whole.get_mut(usize::from(byte)) {
                *entry = true;
            }
        }
        class
    }

    #[inline]
    fn holds(&self, byte: u8) -> bool {
        self.whole.get(usize::from(byte)).copied().unwrap_or_default()
    }
}

/// Calls with each maximal run of at least `shortest` members in `text[from..]`, in order.
pub(super) fn each(
    text: &[u8],
    from: usize,
    shortest: usize,
    class: &Class,
    found: &mut dyn FnMut(Range<usize>),
) {
    let shortest = shortest.max(1);
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") {
            #[expect(unsafe_code, reason = "the feature was detected")]
            // SAFETY: the processor has AVX2, as was just asked.
            unsafe {
                return x86::each_avx2(text, from, shortest, class, found);
            }
        }
        if std::arch::is_x86_feature_detected!("ssse3") {
            #[expect(unsafe_code, reason = "the feature was detected")]
            // SAFETY: the processor has SSSE3, as was just asked.
            unsafe {
                return x86::each_ssse3(text, from, shortest, class, found);
            }
        }
    }
    blocks(text, from, shortest, class, |block| portable(block, class), found);
}

/// The bitmap of a block, a byte at a time.
fn portable(block: &[u8; BLOCK], class: &Class) -> u64 {
    block.iter().rev().fold(0, |bits, &byte| bits << 1 | u64::from(class.holds(byte)))
}

/// The loop over blocks; `bitmap` is inlined into it.
///
/// A block is looked into only if it, or the bytes half in it and half in the block before, hold
/// as many ones in a row as a run needs (or 32): that is rare, so the processor predicts it.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn blocks(
    text: &[u8],
    from: usize,
    shortest: usize,
    class: &Class,
    bitmap: impl Fn(&[u8; BLOCK]) -> u64,
    found: &mut dyn FnMut(Range<usize>),
) {
    let rest = text.get(from..).unwrap_or_default();
    let (whole, tail) = rest.as_chunks::<BLOCK>();
    let mut runs = Runs { text, class, shortest, floor: from, found };
    let row = Row::of(shortest.min(32));
    let mut before = 0u64;
    for (index, block) in whole.iter().enumerate() {
        let bits = bitmap(block);
        if row.is_in(bits) || row.is_in(before >> 32 | bits << 32) {
            runs.block(bits, from + index * BLOCK);
        }
        before = bits;
    }
    let mut last = [0; BLOCK];
    last.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
    runs.block(bitmap(&last), from + whole.len() * BLOCK);
}

/// Answers whether a bitmap holds so many ones in a row (1 to 32): each of five steps ANDs it with
/// itself, shifted by as many as are known to be in a row already.
#[derive(Clone, Copy)]
struct Row([u32; 5]);

impl Row {
    fn of(wanted: usize) -> Self {
        let (mut shifts, mut known) = ([0; 5], 1);
        for shift in &mut shifts {
            *shift = known.min(u32::try_from(wanted).unwrap_or(32).saturating_sub(known));
            known += *shift;
        }
        Self(shifts)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn is_in(self, bits: u64) -> bool {
        self.0.iter().fold(bits, |bits, shift| bits & bits >> shift) != 0
    }
}

struct Runs<'a> {
    text: &'a [u8],
    class: &'a Class,
    shortest: usize,
    /// Runs that begin before this place are reported, or too short.
    floor: usize,
    found: &'a mut dyn FnMut(Range<usize>),
}

impl Runs<'_> {
    /// Reports the runs that have bytes in a block, wherever they begin and end.
    fn block(&mut self, mut bits: u64, base: usize) {
        while bits != 0 {
            // A run, as far as this block shows it.
            let first = bits.trailing_zeros() as usize;
            let last = first + (bits >> first).trailing_ones() as usize;
            bits &= bits.wrapping_add(1 << first);
            let whole = first > 0 && last < BLOCK;
            if base + last > self.floor && (!whole || last - first >= self.shortest) {
                self.run(base + first, base + last, whole);
            }
        }
    }

    fn run(&mut self, mut start: usize, mut end: usize, whole: bool) {
        if !whole {
            let before = self.text.get(self.floor..start).unwrap_or_default();
            start -= before.iter().rev().take_while(|b| self.class.holds(**b)).count();
            let after = self.text.get(end..).unwrap_or_default();
            end += after.iter().take_while(|b| self.class.holds(**b)).count();
            self.floor = end;
        }
        if end - start >= self.shortest {
            (self.found)(start..end);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_srli_epi16, _mm256_and_si256,
        _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
        _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16,
    };
    use std::ops::Range;

    use super::{BLOCK, Class, blocks};

    fn load(half: &[u8; 16]) -> __m128i {
        // SAFETY: an unaligned load of the 16 bytes of the array; SSE2 is part of x86-64.
        unsafe { _mm_loadu_si128(half.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn each_avx2(
        text: &[u8],
        from: usize,
        shortest: usize,
        class: &Class,
        found: &mut dyn FnMut(Range<usize>),
    ) {
        let low = _mm256_broadcastsi128_si256(load(&class.low));
        let high = _mm256_broadcastsi128_si256(load(&class.high));
        let nibble = _mm256_set1_epi8(15);
        let half = |bytes: __m256i| -> u32 {
            // A low index with its top bit set would answer 0, so both indices are masked.
            let by_low = _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, nibble));
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            let by_high = _mm256_shuffle_epi8(high, upper);
            let shared = _mm256_and_si256(by_low, by_high);
            let others = _mm256_cmpeq_epi8(shared, _mm256_setzero_si256());
            !_mm256_movemask_epi8(others).cast_unsigned()
        };
        let bitmap = |block: &[u8; BLOCK]| {
            let at = block.as_ptr().cast::<__m256i>();
            // SAFETY: two unaligned loads of 32 bytes each, from the 64 bytes of the block.
            let (first, second) =
                unsafe { (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))) };
            u64::from(half(first)) | u64::from(half(second)) << 32
        };
        blocks(text, from, shortest, class, bitmap, found);
    }

    #[target_feature(enable = "ssse3")]
    pub(super) fn each_ssse3(
        text: &[u8],
        from: usize,
        shortest: usize,
        class: &Class,
        found: &mut dyn FnMut(Range<usize>),
    ) {
        let (low, high) = (load(&class.low), load(&class.high));
        let nibble = _mm_set1_epi8(15);
        let quarter = |bytes: __m128i| -> u64 {
            let by_low = _mm_shuffle_epi8(low, _mm_and_si128(bytes, nibble));
            let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
            let by_high = _mm_shuffle_epi8(high, upper);
            let shared = _mm_and_si128(by_low, by_high);
            let others = _mm_cmpeq_epi8(shared, _mm_setzero_si128());
            u64::from(!_mm_movemask_epi8(others).cast_unsigned() & 0xffff)
        };
        let bitmap = |block: &[u8; BLOCK]| {
            let (quarters, _) = block.as_chunks::<16>();
            quarters.iter().rev().fold(0, |bits, part| bits << 16 | quarter(load(part)))
        };
        blocks(text, from, shortest, class, bitmap, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{is_run_byte, is_wide_byte};

    fn naive(
        text: &[u8],
        from: usize,
        shortest: usize,
        class: fn(u8) -> bool,
    ) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        let mut start = None;
        for at in from..=text.len() {
            match (start, text.get(at).is_some_and(|&b| class(b))) {
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

    type Each = fn(&[u8], usize, usize, &Class, &mut dyn FnMut(Range<usize>));

    /// Every implementation this machine can run.
    fn all() -> Vec<(&'static str, Each)> {
        let mut all: Vec<(&'static str, Each)> = vec![
            ("portable", |text, from, shortest, class, found| {
                blocks(text, from, shortest, class, |block| portable(block, class), found);
            }),
            ("chosen", each),
        ];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("ssse3") {
            #[expect(unsafe_code, reason = "the feature was detected")]
            all.push(("ssse3", |text, from, shortest, class, found| {
                // SAFETY: the processor has SSSE3, as was just asked.
                unsafe { x86::each_ssse3(text, from, shortest, class, found) }
            }));
        }
        all
    }

    fn check(text: &[u8], from: usize, shortest: usize) {
        for class in [is_run_byte as fn(u8) -> bool, is_wide_byte] {
            let expected = naive(text, from, shortest, class);
            for (name, each) in all() {
                let mut runs = Vec::new();
                each(text, from, shortest, &Class::new(class), &mut |run| runs.push(run));
                assert_eq!(runs, expected, "{name}");
            }
        }
    }

    #[test]
    fn every_byte_is_classed_as_it_should() {
        for byte in 0..=u8::MAX {
            check(&[byte], 0, 1);
            check(&[byte; 200], 0, 17);
        }
    }

    proptest::proptest! {
        #[test]
        fn the_same_as_looking_at_every_byte(
            parts in proptest::collection::vec(("[a-c_.+]{0,90}", "[ =\\n\u{e9}]{0,3}"), 0..12),
            from in 0usize..20,
            shortest in 1usize..90,
        ) {
            let text: String = parts.iter().map(|(run, gap)| format!("{run}{gap}")).collect();
            check(text.as_bytes(), from, shortest);
        }
    }
}
