//! The tables of the run finder in vector registers: AVX-512, AVX2, SSSE3.
#![expect(unsafe_code, reason = "vector loads take pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_and_si128, _mm_cmpeq_epi8, _mm_cvtsi32_si128, _mm_loadu_si128,
    _mm_movemask_epi8, _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_srli_epi16,
    _mm256_adds_epu8, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_movemask_epi8, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16,
    _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cmpeq_epi8_mask, _mm512_loadu_si512,
    _mm512_or_si512, _mm512_set1_epi8, _mm512_shuffle_epi8, _mm512_slli_epi64, _mm512_srl_epi64,
    _mm512_srli_epi16, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_test_epi8_mask,
};
use std::ops::Range;

use super::blocks::{BATCH, Row};
use super::{BLOCK, Classes, FIRST, Firsts, Found, Halves, Lengths, Window, blocks, firsts_of};

fn load(half: &[u8; 16]) -> __m128i {
    // SAFETY: an unaligned load of the 16 bytes of the array; SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(half.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,bmi1,bmi2")]
pub(super) fn each_avx2<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: Lengths,
    found: &mut F,
) {
    let (of_class, of_words) = (Classes256::of(classes), Classes256::of(&firsts.words));
    let firsts = Firsts256::of(firsts);
    let kernels = (
        |block: &_| of_class.bitmaps(block),
        Row::look,
        |block: &_| of_class.letters(block),
        |block: &_| of_words.bitmaps(block),
        |window: &_| firsts.pass(window),
    );
    blocks(text, places, classes, wanted, kernels, found);
}

/// [`Classes`], each table twice in a register.
struct Classes256 {
    low: __m256i,
    high: __m256i,
    narrow: __m256i,
    letters: __m256i,
    digits: __m256i,
}

impl Classes256 {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(classes: &Classes) -> Self {
        Self {
            low: _mm256_broadcastsi128_si256(load(&classes.low)),
            high: _mm256_broadcastsi128_si256(load(&classes.high)),
            narrow: _mm256_set1_epi8(classes.narrow.cast_signed()),
            letters: _mm256_set1_epi8(classes.letters.cast_signed()),
            digits: _mm256_set1_epi8(classes.digits.cast_signed()),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn bitmaps(&self, block: &[u8; BLOCK]) -> [u64; 2] {
        let shared = self.shared(block);
        [bits256(shared.map(|shared| _mm256_and_si256(shared, self.narrow))), bits256(shared)]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn letters(&self, block: &[u8; BLOCK]) -> [u64; 2] {
        let shared = self.shared(block);
        [self.letters, self.digits]
            .map(|groups| bits256(shared.map(|shared| _mm256_and_si256(shared, groups))))
    }

    /// The groups of each byte.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn shared(&self, block: &[u8; BLOCK]) -> [__m256i; 2] {
        let nibble = _mm256_set1_epi8(15);
        let at = block.as_ptr().cast::<__m256i>();
        // SAFETY: two unaligned loads of 32 bytes each, from the 64 bytes of the block.
        let halves = unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] };
        halves.map(|bytes| {
            // The low index needs no mask: with its top bit set the byte is no member anyway, and
            // the answer is 0 then.
            let by_low = _mm256_shuffle_epi8(self.low, bytes);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            _mm256_and_si256(by_low, _mm256_shuffle_epi8(self.high, upper))
        })
    }
}

/// A bit for each byte that is not 0.
#[target_feature(enable = "avx2")]
#[inline]
fn bits256(halves: [__m256i; 2]) -> u64 {
    // Any bit at all sets the top one.
    let most = _mm256_set1_epi8(0x7f);
    let [first, second] = halves
        .map(|half| u64::from(_mm256_movemask_epi8(_mm256_adds_epu8(half, most)).cast_unsigned()));
    first | second << 32
}

/// [`Firsts`], each table twice in a register.
struct Firsts256([[(__m256i, __m256i); FIRST]; 2]);

impl Firsts256 {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(firsts: &Firsts) -> Self {
        let twice = |table: &[u8; 16]| _mm256_broadcastsi128_si256(load(table));
        Self(halves(firsts, twice))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn pass(&self, window: &Window) -> [u64; 2] {
        let nibble = _mm256_set1_epi8(15);
        let half = |from: usize| {
            let mut sets = [_mm256_set1_epi8(-1); 2];
            for position in 0..FIRST {
                // SAFETY: 32 bytes from the byte `from` (0 or 32) + `position` (0 to 3) of the
                // 67 bytes of the window.
                let bytes = unsafe {
                    _mm256_loadu_si256(window.as_ptr().add(from + position).cast::<__m256i>())
                };
                let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
                for (sets, tables) in sets.iter_mut().zip(&self.0) {
                    let Some((low, high)) = tables.get(position) else { continue };
                    // A byte of 0x80 or more is in no prefix: 0, whatever its low half.
                    let by_low = _mm256_shuffle_epi8(*low, bytes);
                    let by_high = _mm256_shuffle_epi8(*high, upper);
                    *sets = _mm256_and_si256(*sets, _mm256_and_si256(by_low, by_high));
                }
            }
            sets
        };
        let ([first, begun], [second, later]) = (half(0), half(32));
        [bits256([first, second]), bits256([begun, later])]
    }
}

/// Each table of [`Firsts`] as a register, low halves and high ones.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn halves<R>(firsts: &Firsts, register: impl Fn(&[u8; 16]) -> R) -> [[(R, R); FIRST]; 2] {
    let both = |Halves { low, high }: &Halves| (register(low), register(high));
    firsts.tables.each_ref().map(|table| table.each_ref().map(both))
}

/// [`super::each_first`].
#[target_feature(enable = "avx2")]
pub(super) fn each_first_avx2(
    text: &[u8],
    range: Range<usize>,
    firsts: &Firsts,
    found: &mut dyn FnMut(usize, u64),
) {
    let firsts = Firsts256::of(firsts);
    firsts_of(text, range, |window| firsts.pass(window), found);
}

/// [`super::each_first`].
#[target_feature(enable = "avx512bw,avx2")]
pub(super) fn each_first_avx512(
    text: &[u8],
    range: Range<usize>,
    firsts: &Firsts,
    found: &mut dyn FnMut(usize, u64),
) {
    let firsts = Firsts512::of(firsts);
    firsts_of(text, range, |window| firsts.pass(window), found);
}

/// [`Firsts`], each table four times in a register.
struct Firsts512([[(__m512i, __m512i); FIRST]; 2]);

impl Firsts512 {
    #[target_feature(enable = "avx512bw,avx2")]
    #[inline]
    fn of(firsts: &Firsts) -> Self {
        let four_times = |table: &[u8; 16]| _mm512_broadcast_i32x4(load(table));
        Self(halves(firsts, four_times))
    }

    #[target_feature(enable = "avx512bw,avx2")]
    #[inline]
    fn pass(&self, window: &Window) -> [u64; 2] {
        let nibble = _mm512_set1_epi8(15);
        let mut sets = [_mm512_set1_epi8(-1); 2];
        for position in 0..FIRST {
            // SAFETY: 64 bytes from the byte `position` (0 to 3) of the 67 bytes of the window.
            let bytes = unsafe { _mm512_loadu_si512(window.as_ptr().add(position).cast()) };
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
            for (sets, tables) in sets.iter_mut().zip(&self.0) {
                let Some((low, high)) = tables.get(position) else { continue };
                let by_low = _mm512_shuffle_epi8(*low, bytes);
                let by_high = _mm512_shuffle_epi8(*high, upper);
                *sets = _mm512_and_si512(*sets, _mm512_and_si512(by_low, by_high));
            }
        }
        sets.map(|sets| _mm512_test_epi8_mask(sets, sets))
    }
}

#[target_feature(enable = "avx512bw,avx2,bmi1,bmi2")]
pub(super) fn each_avx512<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: Lengths,
    found: &mut F,
) {
    let table = |table: &[u8; 16]| _mm512_broadcast_i32x4(load(table));
    let nibble = _mm512_set1_epi8(15);
    let upper = |bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
    let groups = |classes: &Classes| {
        let (low, high) = (table(&classes.low), table(&classes.high));
        move |block: &[u8; BLOCK]| {
            // SAFETY: an unaligned load of the 64 bytes of the block.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let by_low = _mm512_shuffle_epi8(low, bytes);
            _mm512_and_si512(by_low, _mm512_shuffle_epi8(high, upper(bytes)))
        }
    };
    let bitmaps = |classes: &Classes| {
        let narrow = _mm512_set1_epi8(classes.narrow.cast_signed());
        let groups = groups(classes);
        move |block: &[u8; BLOCK]| {
            let shared = groups(block);
            [_mm512_test_epi8_mask(shared, narrow), _mm512_test_epi8_mask(shared, shared)]
        }
    };
    let of_class = groups(classes);
    let [letter, digit] =
        [classes.letters, classes.digits].map(|groups| _mm512_set1_epi8(groups.cast_signed()));
    let letters = |block: &[u8; BLOCK]| {
        let groups = of_class(block);
        [_mm512_test_epi8_mask(groups, letter), _mm512_test_epi8_mask(groups, digit)]
    };
    let firsts_512 = Firsts512::of(firsts);
    let pass = |window: &Window| firsts_512.pass(window);
    let in_row = |row: Row, bits: &[u64; BATCH + 1], rows: &mut [u64; BATCH]| {
        let shifts = row.0.map(|shift| _mm_cvtsi32_si128(shift.cast_signed()));
        let so_many = |bits| {
            shifts.iter().fold(bits, |bits, by| _mm512_and_si512(bits, _mm512_srl_epi64(bits, *by)))
        };
        let (later, (rows, _)) = (bits.get(1..).unwrap_or_default(), rows.as_chunks_mut::<8>());
        let pairs = bits.as_chunks::<8>().0.iter().zip(later.as_chunks::<8>().0);
        for (row, (now, next)) in rows.iter_mut().zip(pairs) {
            // SAFETY: unaligned loads of the 64 bytes of each array.
            let (now, next) = unsafe {
                (_mm512_loadu_si512(now.as_ptr().cast()), _mm512_loadu_si512(next.as_ptr().cast()))
            };
            let (first, second) = (_mm512_srli_epi64::<32>(now), _mm512_slli_epi64::<32>(next));
            let over = _mm512_slli_epi64::<32>(so_many(_mm512_or_si512(first, second)));
            let all = _mm512_or_si512(so_many(now), over);
            // SAFETY: an unaligned store into the 64 bytes of the array.
            unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), all) };
        }
    };
    let kernels = (bitmaps(classes), in_row, letters, bitmaps(&firsts.words), pass);
    blocks(text, places, classes, wanted, kernels, found);
}

#[target_feature(enable = "avx512bw,popcnt")]
pub(super) fn newlines_avx512(text: &[u8]) -> u64 {
    let newline = _mm512_set1_epi8(b'\n'.cast_signed());
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let whole = blocks.iter().fold(0, |count, block| {
        // SAFETY: an unaligned load of the 64 bytes of the block.
        let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        count + u64::from(_mm512_cmpeq_epi8_mask(bytes, newline).count_ones())
    });
    whole + rest.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>()
}

#[target_feature(enable = "ssse3")]
pub(super) fn each_ssse3<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: Lengths,
    found: &mut F,
) {
    let (nibble, zero) = (_mm_set1_epi8(15), _mm_setzero_si128());
    let others = |shared: __m128i| -> u64 {
        let others = _mm_movemask_epi8(_mm_cmpeq_epi8(shared, zero));
        u64::from(!others.cast_unsigned() & 0xffff)
    };
    // The bitmap of some of the groups, and that of all.
    let bitmaps = |classes: &Classes, some: u8| {
        let (low, high) = (load(&classes.low), load(&classes.high));
        let some = _mm_set1_epi8(some.cast_signed());
        move |block: &[u8; BLOCK]| {
            let (quarters, _) = block.as_chunks::<16>();
            quarters.iter().rev().fold([0, 0], |[in_some, in_any], part| {
                let bytes = load(part);
                let by_low = _mm_shuffle_epi8(low, bytes);
                let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
                let shared = _mm_and_si128(by_low, _mm_shuffle_epi8(high, upper));
                let here = others(_mm_and_si128(shared, some));
                [in_some << 16 | here, in_any << 16 | others(shared)]
            })
        }
    };
    let (of_letters, of_digits) =
        (bitmaps(classes, classes.letters), bitmaps(classes, classes.digits));
    let letters = |block: &[u8; BLOCK]| [of_letters(block)[0], of_digits(block)[0]];
    let tables = halves(firsts, load);
    let pass = |window: &Window| {
        (0..BLOCK).step_by(16).rev().fold([0, 0], |[anywhere, begun], from| {
            let mut sets = [_mm_set1_epi8(-1); 2];
            for position in 0..FIRST {
                // SAFETY: 16 bytes from the byte `from` (at most 48) + `position` (0 to 3) of
                // the 67 bytes of the window.
                let bytes = unsafe {
                    _mm_loadu_si128(window.as_ptr().add(from + position).cast::<__m128i>())
                };
                let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble);
                for (sets, tables) in sets.iter_mut().zip(&tables) {
                    let Some((low, high)) = tables.get(position) else { continue };
                    let by_low = _mm_shuffle_epi8(*low, bytes);
                    let by_high = _mm_shuffle_epi8(*high, upper);
                    *sets = _mm_and_si128(*sets, _mm_and_si128(by_low, by_high));
                }
            }
            let [here, words] = sets.map(others);
            [anywhere << 16 | here, begun << 16 | words]
        })
    };
    let words = bitmaps(&firsts.words, firsts.words.narrow);
    let kernels = (bitmaps(classes, classes.narrow), Row::look, letters, words, pass);
    blocks(text, places, classes, wanted, kernels, found);
}
