//! Goes through a text, 64 bytes at a time: the hot loop of the crate, and its only `unsafe`.
//!
//! A block of 64 bytes becomes bitmaps, a bit a byte: members of a narrow and of a wide class of key
//! characters, places at which one of a few texts may stand ([`Tables::needles`]), newlines. What a
//! byte is, a table says: AVX-512 looks up 64 bytes at once in one of 128 entries; AVX2 and SSSE3 look
//! up 32 and 16, by the low half of a byte and by its high half, and the bits that both answers share
//! count. Where a run is long enough is then read off the bitmaps without a loop: a bitmap ANDed with
//! itself, shifted. From the places that are left, those are told at which some prefix may stand, by
//! look-ups of four bytes ([`Firsts`]). Windows of registered lengths are found in the same way, of eight
//! blocks at once (`edges`). Which code runs is chosen at run time; all are tested against a naive one.

mod blocks;
mod edges;
mod sets;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::{Range, RangeInclusive};

use crate::shape::{Alphabet, kinds};

use blocks::{Kernels, Row, Slots, blocks, slots};
use edges::{Eight, Kinds, Lanes};

pub(super) use edges::{WINDOW_MAX, Windows};
pub(super) use sets::{
    Beginning, FIRST, Halves, LENGTH_MAX, NEEDLE_TABLES, SETS, Sets, TABLES, beginning, divide,
    frequency,
};

const BLOCK: usize = 64;

// Wherever in a block such a run starts, it lies in that block or in the 64 bytes from its middle on.
const _: () = assert!(LENGTH_MAX == BLOCK / 2);

/// Two sets of ASCII bytes (0x20 to 0x7f), one within the other, prepared for look-up.
pub(super) struct Classes {
    /// By low half of a byte: the bits of the groups of members that have it.
    low: [u8; 16],
    /// By high half: the bits of the groups that it belongs to.
    high: [u8; 16],
    /// Bits of the groups that belong to the narrow class.
    narrow: u8,
    /// Bits of the groups of letters and digits.
    letters: u8,
    /// Of these, those of digits alone.
    digits: u8,
    /// By whole byte: [`NARROW`], [`WIDE`], [`LETTER`], [`DIGIT`].
    whole: [u8; 128],
}

/// In [`Classes::whole`]: of the narrow class.
const NARROW: u8 = 1;
/// Of the wide class.
const WIDE: u8 = 2;
/// A letter or digit of either.
const LETTER: u8 = 4;
/// A digit of either.
const DIGIT: u8 = 8;

/// Whether bytes are of the narrow class, and whether they are letters or digits.
type Kind = (bool, bool);

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
        let mut classes =
            Self { low: [0; 16], high: [0; 16], narrow: 0, letters: 0, digits: 0, whole: [0; 128] };
        let mut groups: Vec<(Kind, u16)> = Vec::new();
        for kind in [(true, true), (true, false), (false, true), (false, false)] {
            for high in 2..8u8 {
                let lows = (0..16u8)
                    .filter(|low| {
                        let byte = high << 4 | low;
                        (narrow(byte) || wide(byte))
                            && (narrow(byte), byte.is_ascii_alphanumeric()) == kind
                    })
                    .fold(0u16, |lows, low| lows | 1 << low);
                if lows == 0 {
                    continue;
                }
                let known = groups.iter().position(|group| *group == (kind, lows));
                let index = known.unwrap_or_else(|| {
                    groups.push((kind, lows));
                    groups.len() - 1
                });
                classes.group(1 << index, kind, high, lows);
            }
        }
        classes
    }

    fn group(&mut self, bit: u8, (is_narrow, is_letters): Kind, high: u8, lows: u16) {
        if is_narrow {
            self.narrow |= bit;
        }
        if is_letters {
            self.letters |= bit;
        }
        if is_letters && high == b'0' >> 4 {
            self.digits |= bit;
        }
        for (entry, _) in self.high.iter_mut().zip(0u8..).filter(|(_, at)| *at == high) {
            *entry |= bit;
        }
        for (entry, _) in self.low.iter_mut().zip(0..).filter(|(_, at)| lows >> at & 1 == 1) {
            *entry |= bit;
        }
        let is_digit = is_letters && high == b'0' >> 4;
        let kinds = [(is_narrow, NARROW), (is_letters, LETTER), (is_digit, DIGIT)];
        let bits = kinds.iter().filter(|(is, _)| *is).fold(WIDE, |bits, (_, bit)| bits | bit);
        for (entry, byte) in self.whole.iter_mut().zip(0u8..) {
            if byte >> 4 == high && lows >> (byte & 15) & 1 == 1 {
                *entry |= bits;
            }
        }
    }

    #[inline]
    fn bits(&self, byte: u8) -> u8 {
        self.whole.get(usize::from(byte)).copied().unwrap_or_default()
    }

    fn holds(&self, width: Width, byte: u8) -> bool {
        let bit = if width == Width::Narrow { NARROW } else { WIDE };
        self.bits(byte) & bit != 0
    }
}

/// Which prefixes may stand at a place, by its first bytes: in the first table those that ask for less
/// than [`LENGTH_MAX`] bytes of a run, in the others those that ask for so many.
pub(super) struct Firsts {
    pub(super) tables: [Sets; TABLES],
    /// By table, the sets that count anywhere; the others count only where a word may begin.
    pub(super) anywhere: [u8; TABLES],
    /// See [`word_bytes`].
    words: Classes,
}

impl Firsts {
    pub(super) fn new(tables: [Sets; TABLES], anywhere: [u8; TABLES]) -> Self {
        let words =
            Classes::new(word_bytes, |byte| word_bytes(byte) || matches!(byte, b'\\' | b'%'));
        Self { tables, anywhere, words }
    }
}

/// What is looked for at once.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    /// Of runs.
    pub(super) classes: &'a Classes,
    /// In runs.
    pub(super) firsts: &'a Firsts,
    /// Wherever they stand.
    pub(super) needles: &'a [Sets; NEEDLE_TABLES],
    /// In runs of their class.
    pub(super) windows: Windows<'a>,
}

/// Letters and digits, behind which no word begins, but `m`: an escape that colours ends in it. The
/// other escapes, which may end in letters and digits too, begin with `\` or `%`.
fn word_bytes(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() && byte != b'm'
}

/// Lengths of escapes that begin with `\` or `%`: `\n`, `%3D`, `\u003d`.
const ESCAPES: RangeInclusive<u32> = 2..=6;

/// The places of a block at which a word may begin: behind no [`word_bytes`], or near behind the
/// beginning of an escape. Given are the bitmaps of [`Firsts::words`] for the 64 bytes before the
/// block, and for the block.
#[inline]
fn word_starts([before, now]: [[u64; 2]; 2]) -> u64 {
    let (earlier, escapes) = (before[1] & !before[0], now[1] & !now[0]);
    let near = ESCAPES.fold(0, |near, far| near | escapes << far | earlier >> (u64::BITS - far));
    !(now[0] << 1 | before[0] >> 63) | near
}

/// The bytes of a block, and those that its last place needs.
type Window = [u8; BLOCK + FIRST - 1];

/// What a window holds, a bit for each place of its block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    narrow: u64,
    wide: u64,
    /// Where one of [`Tables::needles`] may stand.
    needles: u64,
    newlines: u64,
}

/// The places that pass by a set of [`Firsts`] that counts anywhere, and by another.
type Passing = [u64; 2];

/// Some of the tables of [`Firsts`].
#[derive(Clone, Copy)]
enum Which {
    /// The first.
    Short,
    /// The others.
    Long,
}

impl Which {
    /// What belongs to them.
    #[inline]
    fn of<T>(self, tables: &[T; TABLES]) -> &[T] {
        let (short, long) = tables.split_at(1);
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

fn portable_firsts(window: &Window, firsts: &Firsts, which: Which) -> Passing {
    let mut passing = Passing::default();
    for (table, anywhere) in which.of(&firsts.tables).iter().zip(which.of(&firsts.anywhere)) {
        for (at, bytes) in window.array_windows::<FIRST>().enumerate() {
            let sets = table.of(bytes);
            for (passing, sets) in passing.iter_mut().zip([sets & anywhere, sets & !anywhere]) {
                *passing |= u64::from(sets != 0) << at;
            }
        }
    }
    passing
}

/// By class: runs of so many bytes (1 to [`LENGTH_MAX`]) or more; `None`: none.
pub(super) type Lengths = [Option<usize>; 2];

/// Takes what is found, batch after batch of blocks.
pub(super) trait Found {
    /// A bit for each of the 64 bytes from `at` on at which a needle may stand; never 0. Told in
    /// order.
    fn needles(&mut self, at: usize, bits: u64);
    /// A bit for each of the 64 bytes from `at` on from which a run of the wanted length goes on to
    /// the right, whatever its class, and which pass [`Firsts`]; never 0.
    fn starts(&mut self, at: usize, bits: u64);
    /// By class: runs of so many bytes or more, and of the wanted length at least, are to be told as a
    /// whole. Asked at the beginning.
    fn whole(&mut self) -> Lengths;
    /// A maximal run that is long enough to be told as a whole; its marks, if it has 128 bytes or less.
    fn run(&mut self, width: Width, run: Range<usize>, marks: Option<Marks>);
    /// One of [`Tables::windows`].
    fn window(&mut self, alphabet: Alphabet, window: Range<usize>);
}

/// What is seen of a short run at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// A bit for each of its bytes that is no letter or digit.
    pub(super) joints: u128,
    /// Whether any of its bytes is a digit.
    pub(super) has_digit: bool,
}

/// Looks at the blocks of 64 bytes that hold `places`; runs may go on behind them. A run that begins
/// before the first place is taken to begin there. Answers how many newlines these blocks hold.
pub(super) fn each<F: Found>(
    text: &[u8],
    places: Range<usize>,
    tables: Tables<'_>,
    wanted: Lengths,
    found: &mut F,
) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            #[expect(unsafe_code, reason = "the features were detected")]
            // SAFETY: the processor has AVX-512 BW, VBMI and VBMI2, AVX2, BMI1, BMI2 and POPCNT, as was
            // just asked.
            unsafe {
                return x86::each_avx512(text, places, tables, wanted, found);
            }
        }
        if has_avx2() {
            #[expect(unsafe_code, reason = "the features were detected")]
            // SAFETY: the processor has AVX2, BMI1, BMI2 and POPCNT, as was just asked.
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
    portable_blocks(text, places, tables, wanted, found)
}

/// Up to where [`each`] looks for these places.
pub(super) fn behind(places: Range<usize>) -> usize {
    places.start + places.len().next_multiple_of(BLOCK)
}

fn portable_blocks<F: Found>(
    text: &[u8],
    places: Range<usize>,
    tables: Tables<'_>,
    wanted: Lengths,
    found: &mut F,
) -> u64 {
    let kernels = Kernels {
        look: |window: &_| portable_look(window, tables),
        rows: Row::look,
        slots,
        letters: portable_letters,
        windows: portable_windows,
        words: |block: &_| portable(block, &tables.firsts.words),
        pass: |window: &_, which| portable_firsts(window, tables.firsts, which),
    };
    blocks(text, places, (tables.classes, tables.windows, wanted), &kernels, found)
}

/// AVX-512 with its table look-ups of 128 bytes and shifts of 128 bits, and what came before it.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vbmi")
        && std::arch::is_x86_feature_detected!("avx512vbmi2")
}

/// AVX2, and the shifts that came with it.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("popcnt")
}

/// The letters and digits of a block, and its digits.
type Letters = [u64; 2];

fn portable_letters(block: &[u8; BLOCK]) -> Letters {
    block.iter().rev().fold(Letters::default(), |[letters, digits], byte| {
        let [letter, digit] = [byte.is_ascii_alphanumeric(), byte.is_ascii_digit()].map(u64::from);
        [letters << 1 | letter, digits << 1 | digit]
    })
}

fn portable_kinds(block: &[u8; BLOCK]) -> Kinds {
    let mut all = Kinds::default();
    for byte in block.iter().rev() {
        let kinds = kinds(*byte);
        all.iter_mut()
            .zip(0..)
            .for_each(|(all, kind)| *all = *all << 1 | u64::from(kinds >> kind & 1));
    }
    all
}

fn portable_windows<F: Found>(
    windows: Windows<'_>,
    slots: (usize, Option<Slots>),
    place: (&[u8], usize),
    eight: &mut Eight,
    found: &mut F,
) {
    windows.each::<Lanes, F>(slots, place, (eight, portable_kinds), found);
}

/// The bitmaps of a block, a byte at a time.
fn portable(block: &[u8; BLOCK], classes: &Classes) -> [u64; 2] {
    block.iter().rev().fold([0, 0], |[narrow, wide], &byte| {
        let [n, w] = [NARROW, WIDE].map(|bit| u64::from(classes.bits(byte) & bit != 0));
        [narrow << 1 | n, wide << 1 | w]
    })
}

fn portable_look(window: &Window, tables: Tables<'_>) -> Look {
    window.array_windows::<FIRST>().rev().fold(Look::default(), |look, bytes| {
        let byte = bytes.first().copied().unwrap_or_default();
        let class = |bit| u64::from(tables.classes.bits(byte) & bit != 0);
        Look {
            narrow: look.narrow << 1 | class(NARROW),
            wide: look.wide << 1 | class(WIDE),
            needles: look.needles << 1 | u64::from(tables.needles.iter().any(|t| t.of(bytes) != 0)),
            newlines: look.newlines << 1 | u64::from(byte == b'\n'),
        }
    })
}
