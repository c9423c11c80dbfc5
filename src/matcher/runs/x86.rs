//! The tables of the run finder in vector registers: AVX-512, AVX2, SSSE3.
#![expect(unsafe_code, reason = "vector loads take pointers")]

mod edges;

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8,
    _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_srli_epi16, _mm256_adds_epu8,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256,
    _mm256_movemask_epi8, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16,
    _mm512_and_si512, _mm512_cmpeq_epi8_mask, _mm512_loadu_si512, _mm512_maskz_permutex2var_epi8,
    _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_set1_epi8, _mm512_set1_epi64,
    _mm512_shrdv_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_test_epi8_mask,
    _mm512_test_epi64_mask, _mm512_testn_epi8_mask,
};
use std::ops::Range;

use super::blocks::{BATCH, Kernels, Row, slots};
use super::sets::{Halves, Sets};
use super::{
    BLOCK, Classes, DIGIT, FIRST, Firsts, Found, LETTER, Lengths, Letters, Look, NARROW, Passing,
    TABLES, Tables, WIDE, Which, Window, Windows, blocks,
};
use edges::{windows128, windows256, windows512};

fn load(half: &[u8; 16]) -> __m128i {
    // SAFETY: an unaligned load of the 16 bytes of the array; SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(half.as_ptr().cast()) }
}

/// A table of 128 bytes in two registers, by the low seven bits of each byte.
#[derive(Clone, Copy)]
struct Table512(__m512i, __m512i);

impl Table512 {
    #[target_feature(enable = "avx512bw,avx512vbmi")]
    #[inline]
    fn of(table: &[u8; 128]) -> Self {
        // SAFETY: two unaligned loads of 64 bytes each, from the 128 bytes of the array.
        unsafe {
            let at = table.as_ptr();
            Self(_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(BLOCK).cast()))
        }
    }

    /// What the table says of each byte; of bytes of 0x80 or more, of another one.
    #[target_feature(enable = "avx512bw,avx512vbmi")]
    #[inline]
    fn get(&self, bytes: __m512i) -> __m512i {
        _mm512_permutex2var_epi8(self.0, bytes, self.1)
    }

    /// The same; of bytes of 0x80 or more, 0.
    #[target_feature(enable = "avx512bw,avx512vbmi")]
    #[inline]
    fn get_ascii(&self, bytes: __m512i) -> __m512i {
        let ascii = _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(i8::MIN));
        _mm512_maskz_permutex2var_epi8(ascii, self.0, bytes, self.1)
    }
}

#[target_feature(enable = "avx512bw")]
#[inline]
fn load512(block: &[u8; BLOCK]) -> __m512i {
    // SAFETY: an unaligned load of the 64 bytes of the block.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

/// The places of a window's block that lie in such sets; each needs `FIRST` bytes.
#[target_feature(enable = "avx512bw,avx512vbmi")]
#[inline]
fn sets512(window: &Window, tables: &[Table512; FIRST]) -> __m512i {
    let at = window.as_ptr();
    // SAFETY: 64 bytes each from the bytes 0 to 3 of the 67 bytes of the window.
    let (a, b, c, d) = unsafe {
        (
            _mm512_loadu_si512(at.cast()),
            _mm512_loadu_si512(at.add(1).cast()),
            _mm512_loadu_si512(at.add(2).cast()),
            _mm512_loadu_si512(at.add(3).cast()),
        )
    };
    // A byte of 0x80 or more counts as another one: yes may be wrong.
    let [by_a, by_b, by_c, by_d] = tables;
    let (one, other) =
        (_mm512_and_si512(by_a.get(a), by_b.get(b)), _mm512_and_si512(by_c.get(c), by_d.get(d)));
    _mm512_and_si512(one, other)
}

/// [`Firsts`] in registers.
struct Firsts512 {
    tables: [[Table512; FIRST]; TABLES],
    /// By table: the sets that count anywhere, and the others.
    masks: [[__m512i; 2]; TABLES],
}

impl Firsts512 {
    #[target_feature(enable = "avx512bw,avx512vbmi")]
    #[inline]
    fn of(firsts: &Firsts) -> Self {
        let bits = |bits: u8| _mm512_set1_epi8(bits.cast_signed());
        Self {
            tables: firsts.tables.each_ref().map(|sets| tables512(sets)),
            masks: firsts.anywhere.map(|sets| [bits(sets), bits(!sets)]),
        }
    }

    #[target_feature(enable = "avx512bw,avx512vbmi")]
    #[inline]
    fn pass(&self, window: &Window, which: Which) -> Passing {
        let both = |sets, [anywhere, others]: [__m512i; 2]| {
            [_mm512_test_epi8_mask(sets, anywhere), _mm512_test_epi8_mask(sets, others)]
        };
        let ([short, long, others], [of_short, of_long, of_others]) = (&self.tables, self.masks);
        match which {
            Which::Short => both(sets512(window, short), of_short),
            Which::Long => {
                let [any, begun] = both(sets512(window, long), of_long);
                let [also_any, also_begun] = both(sets512(window, others), of_others);
                [any | also_any, begun | also_begun]
            }
        }
    }
}

#[target_feature(enable = "avx512bw,avx512vbmi")]
#[inline]
fn tables512(sets: &Sets) -> [Table512; FIRST] {
    sets.exact.each_ref().map(|table| Table512::of(table))
}

#[target_feature(enable = "avx512bw,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,popcnt")]
pub(super) fn each_avx512<F: Found>(
    text: &[u8],
    places: Range<usize>,
    tables: Tables<'_>,
    wanted: Lengths,
    found: &mut F,
) -> u64 {
    let of_class = Table512::of(&tables.classes.whole);
    let of_words = Table512::of(&tables.firsts.words.whole);
    let [some, others] = tables.needles;
    let (of_needles, of_others) = (tables512(some), tables512(others));
    let firsts = Firsts512::of(tables.firsts);
    let [narrow, wide, letter, digit] =
        [NARROW, WIDE, LETTER, DIGIT].map(|bit| _mm512_set1_epi8(bit.cast_signed()));
    let newline = _mm512_set1_epi8(b'\n'.cast_signed());
    let look = |window: &Window| {
        // SAFETY: an unaligned load of the first 64 of the 67 bytes of the window.
        let bytes = unsafe { _mm512_loadu_si512(window.as_ptr().cast()) };
        let class = of_class.get_ascii(bytes);
        let needles = _mm512_or_si512(sets512(window, &of_needles), sets512(window, &of_others));
        Look {
            narrow: _mm512_test_epi8_mask(class, narrow),
            wide: _mm512_test_epi8_mask(class, wide),
            needles: _mm512_test_epi8_mask(needles, needles),
            newlines: _mm512_cmpeq_epi8_mask(bytes, newline),
        }
    };
    let kernels = Kernels {
        look,
        rows: |row: Row, bits: &_, rows: &mut _, long: Option<&mut _>| {
            rows512(row, bits, rows, long);
        },
        slots: |words: &_| slots512(words),
        letters: |block: &_| {
            let class = of_class.get_ascii(load512(block));
            [_mm512_test_epi8_mask(class, letter), _mm512_test_epi8_mask(class, digit)]
        },
        windows: |windows: Windows<'_>, slots, place: (&_, _), eight: &mut _, found: &mut F| {
            windows512(windows, slots, place, eight, found);
        },
        words: |block: &_| {
            let class = of_words.get_ascii(load512(block));
            [_mm512_test_epi8_mask(class, narrow), _mm512_test_epi8_mask(class, wide)]
        },
        pass: |window: &_, which| firsts.pass(window, which),
    };
    blocks(text, places, (tables.classes, tables.windows, wanted), &kernels, found)
}

/// [`Row::look`], eight bitmaps at once.
#[target_feature(enable = "avx512bw,avx512vbmi2")]
#[inline]
fn rows512(
    row: Row,
    bits: &[u64; BATCH + 1],
    rows: &mut [u64; BATCH],
    long: Option<&mut [u64; BATCH]>,
) {
    let mut long = long.into_iter().flat_map(|long| long.as_chunks_mut::<8>().0);
    let by = row.steps.map(|shift| _mm512_set1_epi64(shift.into()));
    // A bitmap and the next one are shifted as one.
    let and = |[now, next]: [__m512i; 2], by| {
        let shifted = [_mm512_shrdv_epi64(now, next, by), _mm512_srlv_epi64(next, by)];
        [_mm512_and_si512(now, shifted[0]), _mm512_and_si512(next, shifted[1])]
    };
    let later = bits.get(1..).unwrap_or_default().as_chunks::<8>().0;
    let pairs = bits.as_chunks::<8>().0.iter().zip(later);
    for (place, (now, next)) in rows.as_chunks_mut::<8>().0.iter_mut().zip(pairs) {
        // SAFETY: unaligned loads of the 64 bytes of each array.
        let mut pair = unsafe {
            [_mm512_loadu_si512(now.as_ptr().cast()), _mm512_loadu_si512(next.as_ptr().cast())]
        };
        for by in by {
            pair = and(pair, by);
        }
        // SAFETY: an unaligned store into the 64 bytes of the array.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), pair[0]) };
        if let Some(place) = long.next() {
            for shift in row.more.into_iter().take_while(|shift| *shift != 0) {
                pair = and(pair, _mm512_set1_epi64(shift.into()));
            }
            // SAFETY: an unaligned store into the 64 bytes of the array.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), pair[0]) };
        }
    }
}

/// [`slots`], eight words at once.
#[target_feature(enable = "avx512f")]
#[inline]
fn slots512(words: &[u64; BATCH]) -> u64 {
    let mut slots = 0;
    for eight in words.as_chunks::<8>().0.iter().rev() {
        // SAFETY: an unaligned load of the 64 bytes of the array.
        let eight = unsafe { _mm512_loadu_si512(eight.as_ptr().cast()) };
        slots = slots << 8 | u64::from(_mm512_test_epi64_mask(eight, eight));
    }
    slots
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn each_avx2<F: Found>(
    text: &[u8],
    places: Range<usize>,
    tables: Tables<'_>,
    wanted: Lengths,
    found: &mut F,
) -> u64 {
    let of_class = Classes256::of(tables.classes);
    let of_words = Classes256::of(&tables.firsts.words);
    let firsts = Firsts256::of(tables.firsts);
    let [some, others] = tables.needles;
    let (of_needles, of_others) = (halves256(some), halves256(others));
    let newline = _mm256_set1_epi8(b'\n'.cast_signed());
    let look = |window: &Window| {
        let block = window.first_chunk().unwrap_or(&[0; BLOCK]);
        let [narrow, wide] = of_class.bitmaps(block);
        Look {
            narrow,
            wide,
            needles: bits256(sets256_of(window, &of_needles))
                | bits256(sets256_of(window, &of_others)),
            newlines: bits256(load256(block).map(|bytes| _mm256_cmpeq_epi8(bytes, newline))),
        }
    };
    let kernels = Kernels {
        look,
        rows: Row::look,
        slots,
        letters: |block: &_| of_class.letters(block),
        windows: |windows: Windows<'_>, slots, place: (&_, _), eight: &mut _, found: &mut F| {
            windows256(windows, slots, place, eight, found);
        },
        words: |block: &_| of_words.bitmaps(block),
        pass: |window: &_, which| firsts.pass(window, which),
    };
    blocks(text, places, (tables.classes, tables.windows, wanted), &kernels, found)
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
    fn letters(&self, block: &[u8; BLOCK]) -> Letters {
        let shared = self.shared(block);
        let [letters, digits] = [self.letters, self.digits]
            .map(|groups| bits256(shared.map(|shared| _mm256_and_si256(shared, groups))));
        [letters, digits]
    }

    /// The groups of each byte.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn shared(&self, block: &[u8; BLOCK]) -> [__m256i; 2] {
        load256(block).map(|bytes| by_halves256((self.low, self.high), bytes))
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load256(block: &[u8; BLOCK]) -> [__m256i; 2] {
    let at = block.as_ptr().cast::<__m256i>();
    // SAFETY: two unaligned loads of 32 bytes each, from the 64 bytes of the block.
    unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
}

/// What the tables of both halves of each byte say. The low index needs no mask: with its top bit
/// set the byte is no member anyway, and the answer is 0 then.
#[target_feature(enable = "avx2")]
#[inline]
fn by_halves256((low, high): (__m256i, __m256i), bytes: __m256i) -> __m256i {
    let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15));
    _mm256_and_si256(_mm256_shuffle_epi8(low, bytes), _mm256_shuffle_epi8(high, upper))
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

/// [`Sets`] by halves of bytes, each table twice in a register.
type Halves256 = [(__m256i, __m256i); FIRST];

#[target_feature(enable = "avx2")]
#[inline]
fn halves256(sets: &Sets) -> Halves256 {
    sets.halves.map(|Halves { low, high }| {
        (_mm256_broadcastsi128_si256(load(&low)), _mm256_broadcastsi128_si256(load(&high)))
    })
}

/// The sets of the 32 places of a window from `from` (0 or 32) on.
#[target_feature(enable = "avx2")]
#[inline]
fn sets256(window: &Window, from: usize, tables: &Halves256) -> __m256i {
    let mut sets = _mm256_set1_epi8(-1);
    for (position, table) in tables.iter().enumerate() {
        // SAFETY: 32 bytes from the byte `from` (0 or 32) + `position` (0 to 3) of the 67 bytes of
        // the window.
        let bytes =
            unsafe { _mm256_loadu_si256(window.as_ptr().add(from + position).cast::<__m256i>()) };
        let bytes = _mm256_and_si256(bytes, _mm256_set1_epi8(0x7f));
        sets = _mm256_and_si256(sets, by_halves256(*table, bytes));
    }
    sets
}

/// The same of all places of its block.
#[target_feature(enable = "avx2")]
#[inline]
fn sets256_of(window: &Window, tables: &Halves256) -> [__m256i; 2] {
    [sets256(window, 0, tables), sets256(window, 32, tables)]
}

/// [`Firsts`] in registers.
struct Firsts256 {
    tables: [Halves256; TABLES],
    /// By table: the sets that count anywhere, and the others.
    masks: [[__m256i; 2]; TABLES],
}

impl Firsts256 {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(firsts: &Firsts) -> Self {
        let bits = |bits: u8| _mm256_set1_epi8(bits.cast_signed());
        Self {
            tables: firsts.tables.each_ref().map(|sets| halves256(sets)),
            masks: firsts.anywhere.map(|sets| [bits(sets), bits(!sets)]),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn pass(&self, window: &Window, which: Which) -> Passing {
        let mut passing = Passing::default();
        let tables = which.of(&self.tables).iter().zip(which.of(&self.masks));
        for (table, masks) in tables {
            let sets = sets256_of(window, table);
            for (passing, mask) in passing.iter_mut().zip(masks) {
                *passing |= bits256(sets.map(|sets| _mm256_and_si256(sets, *mask)));
            }
        }
        passing
    }
}

/// What the tables of both halves of each byte say.
#[target_feature(enable = "ssse3")]
#[inline]
fn by_halves128((low, high): (__m128i, __m128i), bytes: __m128i) -> __m128i {
    let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
    _mm_and_si128(_mm_shuffle_epi8(low, bytes), _mm_shuffle_epi8(high, upper))
}

/// A bit for each byte that is not 0.
#[target_feature(enable = "ssse3")]
#[inline]
fn bits128(bytes: __m128i) -> u64 {
    let others = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128()));
    u64::from(!others.cast_unsigned() & 0xffff)
}

/// [`Sets`] by halves of bytes.
type Halves128 = [(__m128i, __m128i); FIRST];

fn halves128(sets: &Sets) -> Halves128 {
    sets.halves.map(|Halves { low, high }| (load(&low), load(&high)))
}

/// The places of a window's block that lie in some of the sets, for each of two choices of them.
#[target_feature(enable = "ssse3")]
#[inline]
fn sets128(window: &Window, tables: &Halves128, choices: [u8; 2]) -> [u64; 2] {
    let choices = choices.map(|choice| _mm_set1_epi8(choice.cast_signed()));
    (0..BLOCK).step_by(16).rev().fold([0, 0], |all, from| {
        let mut sets = _mm_set1_epi8(-1);
        for (position, table) in tables.iter().enumerate() {
            // SAFETY: 16 bytes from the byte `from` (at most 48) + `position` (0 to 3) of the 67
            // bytes of the window.
            let bytes =
                unsafe { _mm_loadu_si128(window.as_ptr().add(from + position).cast::<__m128i>()) };
            let bytes = _mm_and_si128(bytes, _mm_set1_epi8(0x7f));
            sets = _mm_and_si128(sets, by_halves128(*table, bytes));
        }
        let [one, other] = choices.map(|choice| bits128(_mm_and_si128(sets, choice)));
        let [ones, others] = all;
        [ones << 16 | one, others << 16 | other]
    })
}

/// A bit for each byte of a block.
fn quarters(block: &[u8; BLOCK], look: &dyn Fn(&[u8; 16]) -> u64) -> u64 {
    block.as_chunks::<16>().0.iter().rev().fold(0, |all, part| all << 16 | look(part))
}

#[target_feature(enable = "ssse3")]
pub(super) fn each_ssse3<F: Found>(
    text: &[u8],
    places: Range<usize>,
    tables: Tables<'_>,
    wanted: Lengths,
    found: &mut F,
) -> u64 {
    // The bitmap of some of the groups, and that of others.
    let bitmaps = |classes: &Classes, choices: [u8; 2]| {
        let both = (load(&classes.low), load(&classes.high));
        let choices = choices.map(|choice| _mm_set1_epi8(choice.cast_signed()));
        move |block: &[u8; BLOCK]| {
            choices.map(|choice| {
                quarters(block, &|part| {
                    bits128(_mm_and_si128(by_halves128(both, load(part)), choice))
                })
            })
        }
    };
    let of_class = bitmaps(tables.classes, [tables.classes.narrow, u8::MAX]);
    let letters = bitmaps(tables.classes, [tables.classes.letters, tables.classes.digits]);
    let of_needles = tables.needles.each_ref().map(halves128);
    let newline = _mm_set1_epi8(b'\n'.cast_signed());
    let of_firsts = tables.firsts.tables.each_ref().map(halves128);
    let look = |window: &Window| {
        let block = window.first_chunk().unwrap_or(&[0; BLOCK]);
        let [narrow, wide] = of_class(block);
        Look {
            narrow,
            wide,
            needles: of_needles
                .iter()
                .fold(0, |all, table| all | sets128(window, table, [u8::MAX, 0])[0]),
            newlines: quarters(block, &|part| bits128(_mm_cmpeq_epi8(load(part), newline))),
        }
    };
    let pass = |window: &Window, which: Which| {
        let mut passing = Passing::default();
        let tables = which.of(&of_firsts).iter().zip(which.of(&tables.firsts.anywhere));
        for (table, anywhere) in tables {
            let sets = sets128(window, table, [*anywhere, !*anywhere]);
            passing.iter_mut().zip(sets).for_each(|(passing, bits)| *passing |= bits);
        }
        passing
    };
    let kernels = Kernels {
        look,
        rows: Row::look,
        slots,
        letters,
        windows: |windows: Windows<'_>, slots, place: (&_, _), eight: &mut _, found: &mut F| {
            windows128(windows, slots, place, eight, found);
        },
        words: bitmaps(&tables.firsts.words, [tables.firsts.words.narrow, u8::MAX]),
        pass,
    };
    blocks(text, places, (tables.classes, tables.windows, wanted), &kernels, found)
}
