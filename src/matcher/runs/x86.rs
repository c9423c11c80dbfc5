//! The tables of the run finder in vector registers: AVX-512, AVX2, SSSE3.
#![expect(unsafe_code, reason = "vector loads take pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8,
    _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_srli_epi16, _mm256_adds_epu8,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_movemask_epi8,
    _mm256_set_epi64x, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_srlv_epi64,
    _mm256_storeu_si256, _mm256_testz_si256, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_loadu_si512, _mm512_set1_epi8, _mm512_shuffle_epi8, _mm512_srli_epi16,
    _mm512_test_epi8_mask,
};
use std::ops::Range;

use super::{BLOCK, Classes, FIRST, Firsts, Found, Rows, Wanted, Window, blocks};

fn load(half: &[u8; 16]) -> __m128i {
    // SAFETY: an unaligned load of the 16 bytes of the array; SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(half.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,bmi1,bmi2")]
pub(super) fn each_avx2<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: [Wanted; 2],
    found: &mut F,
) {
    let low = _mm256_broadcastsi128_si256(load(&classes.low));
    let high = _mm256_broadcastsi128_si256(load(&classes.high));
    let narrow = _mm256_set1_epi8(classes.narrow.cast_signed());
    let (nibble, most) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x7f));
    let half = |bytes: __m256i| -> [u64; 2] {
        // The low index needs no mask: with its top bit set the byte is no member anyway, and
        // the answer is 0 then.
        let by_low = _mm256_shuffle_epi8(low, bytes);
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
        let shared = _mm256_and_si256(by_low, _mm256_shuffle_epi8(high, upper));
        // Any bit at all sets the top one.
        [_mm256_and_si256(shared, narrow), shared].map(|shared| {
            u64::from(_mm256_movemask_epi8(_mm256_adds_epu8(shared, most)).cast_unsigned())
        })
    };
    let bitmaps = |block: &[u8; BLOCK]| {
        let at = block.as_ptr().cast::<__m256i>();
        // SAFETY: two unaligned loads of 32 bytes each, from the 64 bytes of the block.
        let (first, second) = unsafe { (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))) };
        let (first, second) = (half(first), half(second));
        [first[0] | second[0] << 32, first[1] | second[1] << 32]
    };
    let firsts = Firsts256::of(firsts);
    let pass = |window: &Window| firsts.pass(window);
    let rows = InRow::of(wanted);
    blocks(text, places, classes, wanted, (bitmaps, |bits| rows.look(bits), pass), found);
}

/// [`Firsts`], each table twice in a register.
struct Firsts256 {
    lows: [__m256i; FIRST],
    highs: [__m256i; FIRST],
}

impl Firsts256 {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(firsts: &Firsts) -> Self {
        Self {
            lows: firsts.low.map(|table| _mm256_broadcastsi128_si256(load(&table))),
            highs: firsts.high.map(|table| _mm256_broadcastsi128_si256(load(&table))),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn pass(&self, window: &Window) -> u64 {
        let (nibble, most) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x7f));
        let half = |from: usize| -> u64 {
            let mut sets = _mm256_set1_epi8(-1);
            for (position, (low, high)) in self.lows.iter().zip(&self.highs).enumerate() {
                // SAFETY: 32 bytes from the byte `from` (0 or 32) + `position` (0 to 3) of the
                // 67 bytes of the window.
                let bytes = unsafe {
                    _mm256_loadu_si256(window.as_ptr().add(from + position).cast::<__m256i>())
                };
                // A byte of 0x80 or more is in no prefix: 0, whatever its low half.
                let by_low = _mm256_shuffle_epi8(*low, bytes);
                let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
                let by_high = _mm256_shuffle_epi8(*high, upper);
                sets = _mm256_and_si256(sets, _mm256_and_si256(by_low, by_high));
            }
            u64::from(_mm256_movemask_epi8(_mm256_adds_epu8(sets, most)).cast_unsigned())
        };
        half(0) | half(32) << 32
    }
}

/// The places of one window that pass.
#[target_feature(enable = "avx2")]
pub(super) fn pass_avx2(window: &Window, firsts: &Firsts) -> u64 {
    Firsts256::of(firsts).pass(window)
}

/// [`Rows`] with the four bitmaps in one register.
struct InRow {
    shifts: [__m256i; 5],
    masks: __m256i,
}

impl InRow {
    #[target_feature(enable = "avx2")]
    fn of(wanted: [Wanted; 2]) -> Self {
        let rows = Rows::of(wanted);
        let lanes = |lanes: &[u64; 4]| -> __m256i {
            // SAFETY: an unaligned load of the 32 bytes of the array.
            unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
        };
        Self { shifts: rows.shifts.map(|step| lanes(&step)), masks: lanes(&rows.masks) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn look(&self, bits: [u64; 4]) -> ([u64; 4], bool) {
        let [a, b, c, d] = bits.map(u64::cast_signed);
        let bits = _mm256_set_epi64x(d, c, b, a);
        let rows = self
            .shifts
            .iter()
            .fold(bits, |rows, shift| _mm256_and_si256(rows, _mm256_srlv_epi64(rows, *shift)));
        let rows = _mm256_and_si256(rows, self.masks);
        let mut found = [0u64; 4];
        // SAFETY: an unaligned store into the 32 bytes of the array.
        unsafe { _mm256_storeu_si256(found.as_mut_ptr().cast(), rows) };
        (found, _mm256_testz_si256(rows, rows) == 0)
    }
}

#[target_feature(enable = "avx512bw,avx2,bmi1,bmi2")]
pub(super) fn each_avx512<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: [Wanted; 2],
    found: &mut F,
) {
    let table = |table: &[u8; 16]| _mm512_broadcast_i32x4(load(table));
    let (low, high) = (table(&classes.low), table(&classes.high));
    let narrow = _mm512_set1_epi8(classes.narrow.cast_signed());
    let nibble = _mm512_set1_epi8(15);
    let upper = |bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
    let bitmaps = |block: &[u8; BLOCK]| {
        // SAFETY: an unaligned load of the 64 bytes of the block.
        let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        let by_low = _mm512_shuffle_epi8(low, bytes);
        let shared = _mm512_and_si512(by_low, _mm512_shuffle_epi8(high, upper(bytes)));
        [_mm512_test_epi8_mask(shared, narrow), _mm512_test_epi8_mask(shared, shared)]
    };
    let (lows, highs) = (firsts.low.map(|t| table(&t)), firsts.high.map(|t| table(&t)));
    let pass = |window: &Window| {
        let mut sets = _mm512_set1_epi8(-1);
        for (position, (low, high)) in lows.iter().zip(&highs).enumerate() {
            // SAFETY: 64 bytes from the byte `position` (0 to 3) of the 67 bytes of the window.
            let bytes = unsafe { _mm512_loadu_si512(window.as_ptr().add(position).cast()) };
            let by_low = _mm512_shuffle_epi8(*low, bytes);
            let by_high = _mm512_shuffle_epi8(*high, upper(bytes));
            sets = _mm512_and_si512(sets, _mm512_and_si512(by_low, by_high));
        }
        _mm512_test_epi8_mask(sets, sets)
    };
    let rows = InRow::of(wanted);
    blocks(text, places, classes, wanted, (bitmaps, |bits| rows.look(bits), pass), found);
}

#[target_feature(enable = "ssse3")]
pub(super) fn each_ssse3<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: [Wanted; 2],
    found: &mut F,
) {
    let (low, high) = (load(&classes.low), load(&classes.high));
    let narrow = _mm_set1_epi8(classes.narrow.cast_signed());
    let (nibble, zero) = (_mm_set1_epi8(15), _mm_setzero_si128());
    let quarter = |bytes: __m128i| -> [u64; 2] {
        let by_low = _mm_shuffle_epi8(low, bytes);
        let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
        let shared = _mm_and_si128(by_low, _mm_shuffle_epi8(high, upper));
        let others = |shared| _mm_movemask_epi8(_mm_cmpeq_epi8(shared, zero));
        [_mm_and_si128(shared, narrow), shared]
            .map(|shared| u64::from(!others(shared).cast_unsigned() & 0xffff))
    };
    let bitmaps = |block: &[u8; BLOCK]| {
        let (quarters, _) = block.as_chunks::<16>();
        quarters.iter().rev().fold([0, 0], |[narrow, wide], part| {
            let bits = quarter(load(part));
            [narrow << 16 | bits[0], wide << 16 | bits[1]]
        })
    };
    let (lows, highs) = (firsts.low.map(|t| load(&t)), firsts.high.map(|t| load(&t)));
    let pass = |window: &Window| {
        (0..BLOCK).step_by(16).rev().fold(0, |bits, from| {
            let mut sets = _mm_set1_epi8(-1);
            for (position, (low, high)) in lows.iter().zip(&highs).enumerate() {
                // SAFETY: 16 bytes from the byte `from` (at most 48) + `position` (0 to 3) of
                // the 67 bytes of the window.
                let bytes = unsafe {
                    _mm_loadu_si128(window.as_ptr().add(from + position).cast::<__m128i>())
                };
                let by_low = _mm_shuffle_epi8(*low, bytes);
                let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
                let by_high = _mm_shuffle_epi8(*high, upper);
                sets = _mm_and_si128(sets, _mm_and_si128(by_low, by_high));
            }
            let none = _mm_movemask_epi8(_mm_cmpeq_epi8(sets, zero));
            bits << 16 | u64::from(!none.cast_unsigned() & 0xffff)
        })
    };
    let rows = Rows::of(wanted);
    let in_row = |bits| rows.portable(bits);
    blocks(text, places, classes, wanted, (bitmaps, in_row, pass), found);
}
