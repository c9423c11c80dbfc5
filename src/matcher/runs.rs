//! Finds runs of key characters: the hot loop of the crate, and its only `unsafe`.
//!
//! A block of 64 bytes becomes two bitmaps (a bit a byte: member or not, of a narrow and of a wide
//! class), by two table look-ups a byte that AVX-512, AVX2 or SSSE3 do for 64, 32 or 16 bytes at
//! once: one by the low half of a byte, one by the high half; the bits that both answers share say to which
//! class it belongs. Where a run is long enough is then read off the bitmaps without a loop: a
//! bitmap ANDed with itself, shifted. From the places that are left, those are told at which some
//! prefix may stand, by such look-ups of four bytes ([`Firsts`]). Which code runs is chosen at run
//! time; all are tested against a naive one.

use std::ops::Range;

const BLOCK: usize = 64;

/// Longest run that [`Wanted`] can ask for: wherever in a block it starts, it lies in that block or
/// in the 64 bytes from its middle on.
pub(super) const LENGTH_MAX: usize = BLOCK / 2;

/// Two sets of ASCII bytes (0x20 to 0x7f), one within the other, prepared for look-up.
pub(super) struct Classes {
    /// By low half of a byte: the bits of the groups of members that have it.
    low: [u8; 16],
    /// By high half: the bits of the groups that it belongs to.
    high: [u8; 16],
    /// Bits of the groups that belong to the narrow class.
    narrow: u8,
    /// By whole byte: bit 0 for the narrow class, bit 1 for the wide one.
    whole: [u8; 256],
}

/// Which of the two classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Narrow,
    Wide,
}

impl Classes {
    /// The wide class is the union of both sets. High halves with the same low halves share one of
    /// eight bits: enough for the classes that are used (a test looks at every byte).
    pub(super) fn new(narrow: fn(u8) -> bool, wide: fn(u8) -> bool) -> Self {
        let mut classes = Self { low: [0; 16], high: [0; 16], narrow: 0, whole: [0; 256] };
        let mut groups: Vec<(bool, u16)> = Vec::new();
        for is_narrow in [true, false] {
            for high in 2..8u8 {
                let lows = (0..16u8)
                    .filter(|low| {
                        let byte = high << 4 | low;
                        if is_narrow { narrow(byte) } else { wide(byte) && !narrow(byte) }
                    })
                    .fold(0u16, |lows, low| lows | 1 << low);
                if lows == 0 {
                    continue;
                }
                let known = groups.iter().position(|group| *group == (is_narrow, lows));
                let index = known.unwrap_or_else(|| {
                    groups.push((is_narrow, lows));
                    groups.len() - 1
                });
                classes.group(1 << index, is_narrow, high, lows);
            }
        }
        classes
    }

    fn group(&mut self, bit: u8, is_narrow: bool, high: u8, lows: u16) {
        if is_narrow {
            self.narrow |= bit;
        }
        for (entry, _) in self.high.iter_mut().zip(0u8..).filter(|(_, at)| *at == high) {
            *entry |= bit;
        }
        for (entry, _) in self.low.iter_mut().zip(0..).filter(|(_, at)| lows >> at & 1 == 1) {
            *entry |= bit;
        }
        for (entry, byte) in self.whole.iter_mut().zip(0u8..=255) {
            if byte >> 4 == high && lows >> (byte & 15) & 1 == 1 {
                *entry |= if is_narrow { 3 } else { 2 };
            }
        }
    }

    #[inline]
    fn bits(&self, byte: u8) -> u8 {
        self.whole.get(usize::from(byte)).copied().unwrap_or_default()
    }

    fn holds(&self, width: Width, byte: u8) -> bool {
        let bit = if width == Width::Narrow { 1 } else { 2 };
        self.bits(byte) & bit != 0
    }
}

/// Bytes at the start of a prefix that are looked at.
pub(super) const FIRST: usize = 4;
/// Sets that prefixes are divided into: a bit each.
pub(super) const SETS: usize = 8;

/// The first bytes of prefixes, in eight sets: a place passes if, for one of the sets, each of its
/// four bytes has a low half and a high half that a prefix of the set has there.
pub(super) struct Firsts {
    /// By position and low half of the byte: the sets.
    pub(super) low: [[u8; 16]; FIRST],
    /// By position and high half.
    pub(super) high: [[u8; 16]; FIRST],
}

/// The bytes of a block, and those that its last place needs.
type Window = [u8; BLOCK + FIRST - 1];

/// The places of a block that pass.
fn portable_firsts(window: &Window, firsts: &Firsts) -> u64 {
    window.array_windows::<FIRST>().rev().fold(0, |bits, bytes| {
        let sets = bytes.iter().zip(firsts.low.iter().zip(&firsts.high)).fold(
            u8::MAX,
            |sets, (byte, (low, high))| {
                let half = |table: &[u8; 16], half: u8| {
                    table.get(usize::from(half)).copied().unwrap_or_default()
                };
                sets & half(low, byte & 15) & half(high, byte >> 4)
            },
        );
        bits << 1 | u64::from(sets != 0)
    })
}

/// What is asked for, of each class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// Runs of so many bytes (1 to [`LENGTH_MAX`]) or more; `None`: none.
    pub(super) length: Option<usize>,
    /// Runs of so many bytes or more are to be told as a whole, beside the places in them; at least
    /// `length`.
    pub(super) whole: Option<usize>,
}

/// Takes what is found, block after block.
pub(super) trait Found {
    /// A bit for each of the 64 bytes from `at` on from which a run of the wanted length goes on to
    /// the right, whatever its class, and which pass [`Firsts`]; never 0.
    fn starts(&mut self, at: usize, bits: u64);
    /// A maximal run that is long enough to be told as a whole.
    fn run(&mut self, width: Width, run: Range<usize>);
}

/// Looks at `text[from..]`; a run that begins before `from` begins at it. Nothing that begins
/// behind `upto` needs to be found.
pub(super) fn each<F: Found>(
    text: &[u8],
    places: Range<usize>,
    tables: (&Classes, &Firsts),
    wanted: [Wanted; 2],
    found: &mut F,
) {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx2() && std::arch::is_x86_feature_detected!("avx512bw") {
            #[expect(unsafe_code, reason = "the features were detected")]
            // SAFETY: the processor has AVX-512 BW, AVX2, BMI1 and BMI2, as was just asked.
            unsafe {
                return x86::each_avx512(text, places, tables, wanted, found);
            }
        }
        if has_avx2() {
            #[expect(unsafe_code, reason = "the features were detected")]
            // SAFETY: the processor has AVX2, BMI1 and BMI2, as was just asked.
            unsafe {
                return x86::each_avx2(text, places, tables, wanted, found);
            }
        }
        if std::arch::is_x86_feature_detected!("ssse3") {
            #[expect(unsafe_code, reason = "the feature was detected")]
            // SAFETY: the processor has SSSE3, as was just asked.
            unsafe {
                return x86::each_ssse3(text, places, tables, wanted, found);
            }
        }
    }
    portable_blocks(text, places, tables, wanted, found);
}

fn portable_blocks<F: Found>(
    text: &[u8],
    places: Range<usize>,
    (classes, firsts): (&Classes, &Firsts),
    wanted: [Wanted; 2],
    found: &mut F,
) {
    let rows = Rows::of(wanted);
    let kernels = (
        |b: &_| portable(b, classes),
        |bits| rows.portable(bits),
        |w: &_| portable_firsts(w, firsts),
    );
    blocks(text, places, classes, wanted, kernels, found);
}

/// AVX2, and the shifts that came with it.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
}

/// The bitmaps of a block, a byte at a time.
fn portable(block: &[u8; BLOCK], classes: &Classes) -> [u64; 2] {
    block.iter().rev().fold([0, 0], |[narrow, wide], &byte| {
        let bits = u64::from(classes.bits(byte));
        [narrow << 1 | bits & 1, wide << 1 | bits >> 1]
    })
}

/// The loop over blocks; `bitmaps` is inlined into it.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn blocks<F: Found>(
    text: &[u8],
    places: Range<usize>,
    classes: &Classes,
    wanted: [Wanted; 2],
    (bitmaps, in_row, pass): (
        impl Fn(&[u8; BLOCK]) -> [u64; 2],
        impl Fn([u64; 4]) -> ([u64; 4], bool),
        impl Fn(&Window) -> u64,
    ),
    found: &mut F,
) {
    let rest = text.get(places.start..).unwrap_or_default();
    let count = places.len().div_ceil(BLOCK);
    let (whole, tail) = rest.as_chunks::<BLOCK>();
    let last = padded(tail);
    let mut later = whole.iter().chain([&last]);
    let mut now = later.next().map(&bitmaps).unwrap_or_default();
    // Whether a block holds a run is hard to predict, so there is no branch on it: every block is
    // put down, and the next one over it if it was not worth keeping.
    let mut kept = [Block::default(); BATCH];
    let mut size = 0;
    for index in 0..count {
        let next = later.next().map(&bitmaps).unwrap_or_default();
        // A run of at most half a block is in the block, or in the bytes from its middle on.
        let middle = |class: usize| now[class] >> 32 | next[class] << 32;
        let (rows, any) = in_row([now[0], middle(0), now[1], middle(1)]);
        if let Some(block) = kept.get_mut(size) {
            *block = Block { at: places.start + index * BLOCK, rows };
        }
        size += usize::from(any);
        if size == BATCH || index + 1 == count {
            let blocks = kept.get(..size).unwrap_or_default();
            let mut passing = [(0, 0); BATCH];
            let mut passed = 0;
            for block in blocks {
                let rest = text.get(block.at..).unwrap_or_default();
                let bits = match rest.first_chunk() {
                    Some(window) => pass(window),
                    None => pass(&padded(rest)),
                } & block.starts();
                if let Some(place) = passing.get_mut(passed) {
                    *place = (block.at, bits);
                }
                passed += usize::from(bits != 0);
            }
            for (at, bits) in passing.iter().take(passed) {
                found.starts(*at, *bits);
            }
            if wanted[0].whole.is_some() || wanted[1].whole.is_some() {
                for block in blocks {
                    let here = |at: usize| {
                        let rest = text.get(at..).unwrap_or_default();
                        rest.first_chunk().map_or_else(|| bitmaps(&padded(rest)), &bitmaps)
                    };
                    let bits = [here(block.at), here(block.at + BLOCK)];
                    block.runs(text, places.start, bits, (classes, wanted), found);
                }
            }
            size = 0;
        }
        now = next;
    }
}

/// Blocks that are put down before they are looked into.
const BATCH: usize = 64;

/// A block from whose bytes runs go on.
#[derive(Clone, Copy, Default)]
struct Block {
    at: usize,
    /// What [`Rows`] says of the block and of the bytes from its middle on, for both classes.
    rows: [u64; 4],
}

impl Block {
    fn of_class(&self) -> [u64; 2] {
        let [narrow, narrow_middle, wide, wide_middle] = self.rows;
        [narrow | narrow_middle << 32, wide | wide_middle << 32]
    }

    fn starts(&self) -> u64 {
        let [narrow, wide] = self.of_class();
        narrow | wide
    }

    /// Tells the runs that begin in the block; `bitmaps` are those of the block and of the next.
    fn runs<F: Found>(
        &self,
        text: &[u8],
        from: usize,
        [now, next]: [[u64; 2]; 2],
        (classes, wanted): (&Classes, [Wanted; 2]),
        found: &mut F,
    ) {
        let [narrow, wide] = self.of_class();
        for (width, starts, class) in [(Width::Narrow, narrow, 0), (Width::Wide, wide, 1)] {
            let Wanted { length: Some(length), whole: Some(shortest) } = wanted[class] else {
                continue;
            };
            let before = text.get(from..self.at).and_then(|before| before.last());
            let carry = u64::from(before.is_some_and(|byte| classes.holds(width, *byte)));
            let mut first = starts & !(now[class] << 1 | carry);
            // A run that is twice as long goes on from as far behind its start; of the last places
            // this block does not say.
            let twice = (shortest - length.min(shortest)).min(length);
            first &= starts >> twice | !(u64::MAX >> twice);
            let bits = u128::from(next[class]) << 64 | u128::from(now[class]);
            while first != 0 {
                let start = first.trailing_zeros();
                first &= first - 1;
                let shown = (bits >> start).trailing_ones();
                let mut end = self.at + (start + shown) as usize;
                if start + shown == 2 * u64::BITS {
                    let after = text.get(end..).unwrap_or_default();
                    end += after.iter().take_while(|byte| classes.holds(width, **byte)).count();
                }
                let run = self.at + start as usize..end;
                if run.len() >= shortest {
                    found.run(width, run);
                }
            }
        }
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    padded
}

/// Says of four bitmaps (two of the narrow class, two of the wide one) from which bits so many ones
/// in a row (1 to [`LENGTH_MAX`]) go on: each of five steps ANDs a bitmap with itself, shifted by
/// as many as are known to be in a row already.
struct Rows {
    shifts: [[u64; 4]; 5],
    /// All ones, or none where nothing is wanted.
    masks: [u64; 4],
}

impl Rows {
    fn of(wanted: [Wanted; 2]) -> Self {
        let lanes = [wanted[0], wanted[0], wanted[1], wanted[1]].map(|wanted| wanted.length);
        let mut known = [1; 4];
        let shifts = [(); 5].map(|()| {
            let mut step = [0; 4];
            for (shift, (known, length)) in step.iter_mut().zip(known.iter_mut().zip(lanes)) {
                let length = length.map_or(1, |length| length.clamp(1, LENGTH_MAX) as u64);
                *shift = length.saturating_sub(*known).min(*known);
                *known += *shift;
            }
            step
        });
        Self { shifts, masks: lanes.map(|length| if length.is_some() { u64::MAX } else { 0 }) }
    }

    /// And whether from any at all.
    fn portable(&self, bits: [u64; 4]) -> ([u64; 4], bool) {
        let mut rows = bits;
        for step in &self.shifts {
            for (row, shift) in rows.iter_mut().zip(step) {
                *row &= *row >> shift;
            }
        }
        rows.iter_mut().zip(self.masks).for_each(|(row, mask)| *row &= mask);
        (rows, rows != [0; 4])
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_srli_epi16, _mm256_adds_epu8,
        _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_movemask_epi8,
        _mm256_set_epi64x, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16,
        _mm256_srlv_epi64, _mm256_storeu_si256, _mm256_testz_si256, _mm512_and_si512,
        _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_set1_epi8, _mm512_shuffle_epi8,
        _mm512_srli_epi16, _mm512_test_epi8_mask,
    };
    use std::ops::Range;

    use super::{BLOCK, Classes, Firsts, Found, Rows, Wanted, Window, blocks};

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
            let (first, second) =
                unsafe { (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))) };
            let (first, second) = (half(first), half(second));
            [first[0] | second[0] << 32, first[1] | second[1] << 32]
        };
        let lows = firsts.low.map(|table| _mm256_broadcastsi128_si256(load(&table)));
        let highs = firsts.high.map(|table| _mm256_broadcastsi128_si256(load(&table)));
        let pass = |window: &Window| {
            let half = |from: usize| -> u64 {
                let mut sets = _mm256_set1_epi8(-1);
                for (position, (low, high)) in lows.iter().zip(&highs).enumerate() {
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
        };
        let rows = InRow::of(wanted);
        blocks(text, places, classes, wanted, (bitmaps, |bits| rows.look(bits), pass), found);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{is_run_byte, is_wide_byte};

    /// Places from which a run goes on, and runs: what [`Found`] is told.
    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        starts: Vec<usize>,
        narrow: Vec<Range<usize>>,
        wide: Vec<Range<usize>>,
    }

    impl Found for Seen {
        fn starts(&mut self, at: usize, bits: u64) {
            assert_ne!(bits, 0);
            self.starts.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| at + bit));
        }
        fn run(&mut self, width: Width, run: Range<usize>) {
            let runs = if width == Width::Narrow { &mut self.narrow } else { &mut self.wide };
            runs.push(run);
        }
    }

    /// `ab`, `abc_`, `k+` and `xyz.` in three sets.
    fn firsts() -> Firsts {
        let mut firsts = Firsts { low: [[0; 16]; FIRST], high: [[0; 16]; FIRST] };
        for (set, prefix) in [(0, "ab"), (0, "abc_"), (3, "k+"), (7, "xyz.")] {
            for at in 0..FIRST {
                let bytes = match prefix.as_bytes().get(at) {
                    Some(byte) => *byte..=*byte,
                    None => 0..=127,
                };
                for byte in bytes {
                    firsts.low[at][usize::from(byte & 15)] |= 1 << set;
                    firsts.high[at][usize::from(byte >> 4)] |= 1 << set;
                }
            }
        }
        firsts
    }

    /// A byte at a time.
    fn naive(text: &[u8], places: Range<usize>, firsts: &Firsts, wanted: [Wanted; 2]) -> Seen {
        let mut seen = Seen::default();
        let classes: [fn(u8) -> bool; 2] = [is_run_byte, is_wide_byte];
        let after =
            |at: usize, class: usize| text[at..].iter().take_while(|b| classes[class](**b)).count();
        let passes = |at: usize| {
            let sets = (0..FIRST).map(|position| {
                let byte = text.get(at + position).copied().unwrap_or_default();
                firsts.low[position][usize::from(byte & 15)]
                    & firsts.high[position][usize::from(byte >> 4)]
            });
            sets.fold(u8::MAX, |all, sets| all & sets) != 0
        };
        // Whole blocks are looked at: up to 63 places more may be told.
        let last = (places.start + places.len().div_ceil(BLOCK) * BLOCK).min(text.len());
        for at in places.start..last {
            let long = |class: usize| {
                wanted[class].length.is_some_and(|length| after(at, class) >= length)
            };
            if (long(0) || long(1)) && passes(at) {
                seen.starts.push(at);
            }
            for class in 0..2 {
                let begins = at == places.start || !classes[class](text[at - 1]);
                let told = wanted[class].whole.is_some_and(|whole| after(at, class) >= whole);
                if told && long(class) && begins {
                    let runs = if class == 0 { &mut seen.narrow } else { &mut seen.wide };
                    runs.push(at..at + after(at, class));
                }
            }
        }
        seen
    }

    type Each = fn(&[u8], Range<usize>, (&Classes, &Firsts), [Wanted; 2], &mut Seen);

    /// Every implementation this machine can run.
    fn all() -> Vec<(&'static str, Each)> {
        let mut all: Vec<(&'static str, Each)> =
            vec![("portable", portable_blocks), ("chosen", each)];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("ssse3") {
                #[expect(unsafe_code, reason = "the feature was detected")]
                all.push(("ssse3", |text, places, tables, wanted, seen| {
                    // SAFETY: the processor has SSSE3, as was just asked.
                    unsafe { x86::each_ssse3(text, places, tables, wanted, seen) }
                }));
            }
            if has_avx2() && std::arch::is_x86_feature_detected!("avx512bw") {
                #[expect(unsafe_code, reason = "the features were detected")]
                all.push(("avx512", |text, places, tables, wanted, seen| {
                    // SAFETY: the processor has AVX-512 BW, AVX2, BMI1 and BMI2, as was just asked.
                    unsafe { x86::each_avx512(text, places, tables, wanted, seen) }
                }));
            }
            if has_avx2() {
                #[expect(unsafe_code, reason = "the features were detected")]
                all.push(("avx2", |text, places, tables, wanted, seen| {
                    // SAFETY: the processor has AVX2, BMI1 and BMI2, as was just asked.
                    unsafe { x86::each_avx2(text, places, tables, wanted, seen) }
                }));
            }
        }
        all
    }

    fn check(text: &[u8], places: Range<usize>, wanted: [Wanted; 2]) {
        let classes = Classes::new(is_run_byte, is_wide_byte);
        // Some prefixes, and any.
        let ascii = std::array::from_fn(|half| u8::from(half < 8));
        for firsts in [firsts(), Firsts { low: [[1; 16]; FIRST], high: [ascii; FIRST] }] {
            let expected = naive(text, places.clone(), &firsts, wanted);
            for (name, each) in all() {
                let mut seen = Seen::default();
                each(text, places.clone(), (&classes, &firsts), wanted, &mut seen);
                assert_eq!(seen, expected, "{name}, {} bytes, {places:?}, {wanted:?}", text.len());
            }
        }
    }

    fn both(length: usize) -> [Wanted; 2] {
        [Wanted { length: Some(length), whole: Some(length) }; 2]
    }

    #[test]
    fn every_byte_is_classed_as_it_should() {
        for byte in 0..=u8::MAX {
            check(&[byte], 0..1, both(1));
            check(&[byte; 200], 0..200, both(17));
        }
        let classes = Classes::new(|b| b.is_ascii_graphic(), |b| b.is_ascii_graphic());
        for byte in 0..=u8::MAX {
            assert_eq!(classes.bits(byte), if byte.is_ascii_graphic() { 3 } else { 0 });
        }
    }

    #[test]
    fn every_length_and_every_alignment() {
        let text: Vec<u8> = (0..400u32)
            .map(|at| {
                if at % 53 == 52 {
                    b' '
                } else if at % 31 == 30 {
                    b'/'
                } else {
                    b'k'
                }
            })
            .collect();
        for length in 0..=320 {
            for start in 0..64.min(length + 1) {
                check(&text[..length], start..length, both(20));
            }
        }
        for wanted in 1..=LENGTH_MAX {
            check(&text, 0..text.len(), both(wanted));
            check(&[b'k'; 300], 7..300, both(wanted));
            let wide = Wanted { length: Some(wanted), whole: Some(wanted + 9) };
            check(&text, 0..text.len(), [Wanted::default(), wide]);
        }
    }

    proptest::proptest! {
        #[test]
        fn the_same_as_looking_at_every_byte(
            parts in proptest::collection::vec(("[abckxyz_.+]{0,90}", "[ =\\n\u{e9}]{0,3}"), 0..12),
            from in 0usize..20,
            upto in 0usize..400,
            lengths in (1usize..=LENGTH_MAX, 1usize..=LENGTH_MAX),
            whole in proptest::option::of(0usize..90),
        ) {
            let text: String = parts.iter().map(|(run, gap)| format!("{run}{gap}")).collect();
            let upto = upto.min(text.len());
            let wanted = [lengths.0, lengths.1].map(|l| Wanted { length: Some(l), whole: whole.map(|w| w.max(l)) });
            check(text.as_bytes(), from.min(upto)..upto, wanted);
        }

        #[test]
        fn on_random_bytes(bytes in proptest::collection::vec(0u8..=255, 0..400), length in 1usize..8) {
            check(&bytes, 0..bytes.len(), both(length));
        }
    }
}
