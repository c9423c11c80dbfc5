//! Finds runs of key characters: the hot loop of the crate, and its only `unsafe`.
//!
//! A block of 64 bytes becomes two bitmaps (a bit a byte: member or not, of a narrow and of a wide
//! class), by two table look-ups a byte that AVX-512, AVX2 or SSSE3 do for 64, 32 or 16 bytes at
//! once: one by the low half of a byte, one by the high half; the bits that both answers share say to which
//! class it belongs. Where a run is long enough is then read off the bitmaps without a loop: a
//! bitmap ANDed with itself, shifted. From the places that are left, those are told at which some
//! prefix may stand, by such look-ups of four bytes ([`Firsts`]). Which code runs is chosen at run
//! time; all are tested against a naive one.

#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

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

/// Looks at the blocks of 64 bytes that hold `places`; runs may go on behind them. A run that begins
/// before the first place is taken to begin there.
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

/// Calls with the places of `range` that pass, a bit each, 64 at a time; wherever they stand.
pub(super) fn each_first(
    text: &[u8],
    range: Range<usize>,
    firsts: &Firsts,
    found: &mut dyn FnMut(usize, u64),
) {
    for at in range.clone().step_by(BLOCK) {
        let rest = text.get(at..).unwrap_or_default();
        let passed = match rest.first_chunk() {
            Some(window) => passing(window, firsts),
            None => passing(&padded(rest), firsts),
        };
        let within = u64::MAX >> (BLOCK - (range.end - at).min(BLOCK));
        if passed & within != 0 {
            found(at, passed & within);
        }
    }
}

fn passing(window: &Window, firsts: &Firsts) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        #[expect(unsafe_code, reason = "the features were detected")]
        // SAFETY: the processor has AVX2, as was just asked.
        return unsafe { x86::pass_avx2(window, firsts) };
    }
    portable_firsts(window, firsts)
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
        let middle = |now: u64, next: u64| now >> 32 | next << 32;
        let (rows, any) =
            in_row([now[0], middle(now[0], next[0]), now[1], middle(now[1], next[1])]);
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
        let starts = self.of_class();
        let bits = now.into_iter().zip(next);
        let widths = [Width::Narrow, Width::Wide].into_iter().zip(wanted);
        for ((width, wanted), (starts, (now, next))) in widths.zip(starts.into_iter().zip(bits)) {
            let Wanted { length: Some(length), whole: Some(shortest) } = wanted else { continue };
            let before = text.get(from..self.at).and_then(|before| before.last());
            let carry = u64::from(before.is_some_and(|byte| classes.holds(width, *byte)));
            let mut first = starts & !(now << 1 | carry);
            // A run that is twice as long goes on from as far behind its start; of the last places
            // this block does not say.
            let twice = (shortest - length.min(shortest)).min(length);
            first &= starts >> twice | !(u64::MAX >> twice);
            let bits = u128::from(next) << 64 | u128::from(now);
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
