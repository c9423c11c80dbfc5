//! [`Windows::each`] in vector registers; never inlined into the loop over batches, which has none to
//! spare.

use std::arch::x86_64::{
    __m512i, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_set1_epi8, _mm256_shuffle_epi8,
    _mm256_srli_epi16, _mm512_and_si512, _mm512_andnot_si512, _mm512_loadu_si512, _mm512_set1_epi8,
    _mm512_set1_epi64, _mm512_shrdv_epi64, _mm512_srlv_epi64, _mm512_storeu_si512,
    _mm512_test_epi8_mask, _mm512_test_epi64_mask,
};

use super::super::blocks::Slots;
use super::super::edges::{Eight, HIGH_BITS, KINDS_BY_LOW, Lanes, Words};
use super::super::{Found, Windows};
use super::{Table512, bits128, bits256, by_halves128, load, load256, load512, quarters};
use crate::shape::KINDS;

/// [`Windows::each`].
#[target_feature(enable = "avx512bw,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,popcnt")]
#[inline(never)]
pub(super) fn windows512<F: Found>(
    windows: Windows<'_>,
    slots: (usize, Option<Slots>),
    place: (&[u8], usize),
    eight: &mut Eight,
    found: &mut F,
) {
    let table = Table512::of(&KINDS);
    let all: [_; 8] = std::array::from_fn(|kind| _mm512_set1_epi8(1 << kind));
    let kinds = |block: &_| {
        let bits = table.get_ascii(load512(block));
        all.map(|kind| _mm512_test_epi8_mask(bits, kind))
    };
    windows.each::<Words512, F>(slots, place, (eight, kinds), found);
}

/// The same.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
#[inline(never)]
pub(super) fn windows256<F: Found>(
    windows: Windows<'_>,
    slots: (usize, Option<Slots>),
    place: (&[u8], usize),
    eight: &mut Eight,
    found: &mut F,
) {
    let twice = |table: &_| _mm256_broadcastsi128_si256(load(table));
    let (lows, high) = (KINDS_BY_LOW.each_ref().map(twice), twice(&HIGH_BITS));
    let kinds = |block: &_| {
        let halves = load256(block).map(|bytes| {
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15));
            (bytes, _mm256_shuffle_epi8(high, upper))
        });
        // The low index needs no mask: with its top bit set the byte is of no kind, and the answer 0.
        lows.map(|low| {
            bits256(
                halves.map(|(bytes, high)| _mm256_and_si256(_mm256_shuffle_epi8(low, bytes), high)),
            )
        })
    };
    windows.each::<Lanes, F>(slots, place, (eight, kinds), found);
}

/// The same.
#[target_feature(enable = "ssse3")]
#[inline(never)]
pub(super) fn windows128<F: Found>(
    windows: Windows<'_>,
    slots: (usize, Option<Slots>),
    place: (&[u8], usize),
    eight: &mut Eight,
    found: &mut F,
) {
    let (lows, high) = (KINDS_BY_LOW.each_ref().map(load), load(&HIGH_BITS));
    let kinds = |block: &_| {
        lows.map(|low| quarters(block, &|part| bits128(by_halves128((low, high), load(part)))))
    };
    windows.each::<Lanes, F>(slots, place, (eight, kinds), found);
}

/// [`Lanes`] in a register. Nobody but [`windows512`] has any, so the processor has AVX-512 F and VBMI2
/// wherever something is done to one.
#[derive(Clone, Copy)]
struct Words512(__m512i);

#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
impl Words for Words512 {
    #[inline(always)]
    fn of(lanes: &Lanes) -> Self {
        // SAFETY: as above; an unaligned load of the 64 bytes of the array.
        Self(unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) })
    }

    #[inline(always)]
    fn lanes(self) -> Lanes {
        let mut lanes = Lanes::default();
        // SAFETY: as above; an unaligned store into the 64 bytes of the array.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), self.0) };
        lanes
    }

    #[inline(always)]
    fn any(self) -> u8 {
        // SAFETY: as above.
        unsafe { _mm512_test_epi64_mask(self.0, self.0) }
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn and_not(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_andnot_si512(other.0, self.0) })
    }

    #[inline(always)]
    fn from(self, by: u32, next: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_shrdv_epi64(self.0, next.0, _mm512_set1_epi64(by.into())) })
    }

    #[inline(always)]
    fn last(self, by: u32) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_srlv_epi64(self.0, _mm512_set1_epi64(by.into())) })
    }
}
