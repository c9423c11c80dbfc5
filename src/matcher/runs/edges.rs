//! Windows of registered lengths with an edge, by bitmaps: of eight blocks at once.

use super::blocks::{Slots, block_at};
use super::{BLOCK, Found, Lengths};
use crate::shape::{self, Alphabet, KINDS, Length, STRONG, ShapeSet, Stretch};

/// Longest window that is looked for here, in bytes: wherever in a block it begins, it ends in the one
/// behind it.
pub(in crate::matcher) const WINDOW_MAX: usize = BLOCK;

/// An alphabet, and the lengths, ascending, that are asked for.
type Group = (Alphabet, Vec<Length>);

fn is_short((_, lengths): &Group) -> bool {
    lengths.first().is_some_and(|length| length.bytes <= WINDOW_MAX)
}

/// Windows that are to be told.
#[derive(Clone, Copy)]
pub(in crate::matcher) struct Windows<'a> {
    /// By class, which holds all of each alphabet.
    groups: [&'a [Group]; 2],
    /// Also those without an edge.
    deep: bool,
}

impl<'a> Windows<'a> {
    pub(in crate::matcher) const NONE: Self = Self { groups: [&[]; 2], deep: false };

    /// By class, those in a kind of stretch.
    pub(in crate::matcher) fn of(
        shapes: &'a ShapeSet,
        stretches: [Option<Stretch>; 2],
        deep: bool,
    ) -> Self {
        let groups = |stretch: Option<Stretch>| stretch.map(|stretch| shapes.groups(stretch));
        Self { groups: stretches.map(|stretch| groups(stretch).unwrap_or_default()), deep }
    }

    fn of_class(&self, class: usize) -> &'a [Group] {
        self.groups.get(class).copied().unwrap_or_default()
    }

    /// By class, the shortest, if there is one that is short enough.
    pub(super) fn shortest(&self) -> Lengths {
        self.groups.map(|groups| {
            let short = groups.iter().filter(|group| is_short(group));
            short.flat_map(|(_, lengths)| lengths.first()).map(|length| length.bytes).min()
        })
    }

    /// Tells those of a class that begin in some blocks of a batch, the first of which is at a place
    /// of a text, once there are eight. `slots`: `None` for those that are left at the end.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    pub(super) fn each<V: Words, F: Found>(
        &self,
        (class, slots): (usize, Option<Slots>),
        (text, first): (&[u8], usize),
        (eight, kinds): (&mut Eight, impl Fn(&[u8; BLOCK]) -> Kinds),
        found: &mut F,
    ) {
        let mut rest = slots.unwrap_or_default();
        loop {
            for slot in rest.by_ref().take(LANES - eight.count) {
                eight.take(text, first + slot * BLOCK, &kinds);
            }
            if eight.count == 0 || slots.is_some() && eight.count < LANES {
                break;
            }
            for (alphabet, lengths) in self.of_class(class).iter().filter(|group| is_short(group)) {
                eight.windows::<V, F>((*alphabet, lengths), self.deep, found);
            }
            eight.count = 0;
        }
    }
}

/// Bitmaps of a block, by bit of [`KINDS`].
pub(super) type Kinds = [u64; KINDS_LEN];
const KINDS_LEN: usize = u8::BITS as usize;

/// [`KINDS`] by halves of a byte: by bit and low half, a bit for each high half that makes a byte of
/// that kind with it.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
pub(super) static KINDS_BY_LOW: [[u8; 16]; KINDS_LEN] = {
    let mut tables = [[0; 16]; KINDS_LEN];
    let mut byte = 0;
    while byte < KINDS.len() {
        let mut kind = 0;
        while kind < KINDS_LEN {
            tables[kind][byte & 15] |= (KINDS[byte] >> kind & 1) << (byte >> 4);
            kind += 1;
        }
        byte += 1;
    }
    tables
};

/// By high half: its bit there; of a byte of 0x80 or more, none.
pub(super) static HIGH_BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// Blocks that are looked into together.
const LANES: usize = 8;
/// A word for each.
pub(super) type Lanes = [u64; LANES];

/// [`Lanes`] by the means of the processor.
pub(super) trait Words: Copy {
    fn of(lanes: &Lanes) -> Self;
    fn lanes(self) -> Lanes;
    /// A bit for each that is not 0.
    fn any(self) -> u8;
    fn and(self, other: Self) -> Self;
    fn and_not(self, other: Self) -> Self;
    /// The bits from so many (0 to 63) on, those of `next` behind them.
    fn from(self, by: u32, next: Self) -> Self;
    /// The same as if zeros were behind.
    fn last(self, by: u32) -> Self;
}

impl Words for Lanes {
    fn of(lanes: &Lanes) -> Self {
        *lanes
    }

    fn lanes(self) -> Lanes {
        self
    }

    fn any(self) -> u8 {
        self.iter().rev().fold(0, |any, word| any << 1 | u8::from(*word != 0))
    }

    fn and(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
        self
    }

    fn and_not(mut self, other: Self) -> Self {
        self.iter_mut().zip(other).for_each(|(word, other)| *word &= !other);
        self
    }

    fn from(mut self, by: u32, next: Self) -> Self {
        // In two steps, as none can be by all bits.
        let behind = |next: u64| next << 1 << (u64::BITS - 1 - by);
        self.iter_mut().zip(next).for_each(|(word, next)| *word = *word >> by | behind(next));
        self
    }

    fn last(mut self, by: u32) -> Self {
        self.iter_mut().for_each(|word| *word >>= by);
        self
    }
}

/// Bitmaps of blocks, and of those behind them.
#[derive(Clone, Copy, Default)]
struct Pair<V> {
    now: V,
    next: V,
}

impl<V: Words> Pair<V> {
    /// The bits that have another one so many bits (1 to 63) behind them.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn and_behind(self, by: u32) -> Self {
        let Self { now, next } = self;
        Self { now: now.and(now.from(by, next)), next: next.and(next.last(by)) }
    }
}

/// So many lengths of an alphabet are looked for together: a byte of an answer for each.
const LENGTHS: usize = size_of::<u32>();
/// With so many bytes in a row it is asked whether there are any.
const ASKED_AT: u32 = 16;

/// Blocks in which windows may begin.
#[derive(Default)]
pub(super) struct Eight {
    count: usize,
    /// Where those behind them begin.
    places: [usize; LANES],
    /// By kind of byte.
    kinds: [Pair<Lanes>; KINDS_LEN],
    /// Kinds of the byte before each.
    before: Lanes,
}

impl Eight {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes one more, and what is behind it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn take(&mut self, text: &[u8], at: usize, kinds: &impl Fn(&[u8; BLOCK]) -> Kinds) {
        let lane = self.count;
        // In random text most blocks follow one another.
        let last = (lane + LANES - 1) % LANES;
        let is_next = at > 0 && self.places.get(last).is_some_and(|place| *place == at);
        let next = kinds(&block_at(text, at + BLOCK));
        for (pair, next) in self.kinds.iter_mut().zip(next) {
            let known = pair.next.get(last).copied().unwrap_or_default();
            if let Some(place) = pair.now.get_mut(lane) {
                *place = known;
            }
            if let Some(place) = pair.next.get_mut(lane) {
                *place = next;
            }
        }
        if !is_next {
            let now = kinds(&block_at(text, at));
            for (pair, now) in self.kinds.iter_mut().zip(now) {
                if let Some(place) = pair.now.get_mut(lane) {
                    *place = now;
                }
            }
        }
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        if let Some((place, kinds)) = self.places.get_mut(lane).zip(self.before.get_mut(lane)) {
            (*place, *kinds) = (at + BLOCK, before.map_or(0, |byte| shape::kinds(*byte).into()));
        }
        self.count += 1;
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn of<V: Words>(&self, kind: usize) -> Pair<V> {
        let Pair { now, next } = self.kinds.get(kind).copied().unwrap_or_default();
        Pair { now: V::of(&now), next: V::of(&next) }
    }

    /// Tells those of one alphabet.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn windows<V: Words, F: Found>(
        &self,
        (alphabet, lengths): (Alphabet, &[Length]),
        deep: bool,
        found: &mut F,
    ) {
        let mut all = [[0; LANES]; LENGTHS];
        for lengths in lengths.chunks(LENGTHS) {
            // Found first, told then: calls would take the registers.
            let (any, is_all) = self.find::<V>((alphabet, lengths), deep, &mut all);
            if any != 0 {
                for ((windows, any), length) in all.iter().zip(&any.to_le_bytes()).zip(lengths) {
                    if *any != 0 {
                        self.tell((*any, windows), (alphabet, *length), found);
                    }
                }
            }
            if is_all {
                break;
            }
        }
    }

    /// By length (ascending), from where windows go on. Answers a byte of a word for each length, a bit
    /// for each lane that has any; and whether no longer ones need be looked for.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn find<V: Words>(
        &self,
        (alphabet, lengths): (Alphabet, &[Length]),
        deep: bool,
        all: &mut [Lanes; LENGTHS],
    ) -> (u32, bool) {
        let letters = self.of::<V>(alphabet.letters() as usize);
        let before = V::of(&self.behind(alphabet.letters()));
        let is_narrow = alphabet.letters() == alphabet;
        // From where so many bytes of the alphabet go on, and so many of a narrower one.
        let mut known = 1;
        let mut row = self.of::<V>(alphabet as usize);
        let mut narrower = self.of::<V>(alphabet.narrower().unwrap_or(alphabet) as usize);
        let (asked, mut any) = (u8::MAX >> (LANES - self.count), 0);
        for ((out, length), index) in all.iter_mut().zip(lengths).zip(0..) {
            let bytes = u32::try_from(length.bytes).unwrap_or(u32::MAX);
            if bytes > u64::BITS || index > 0 && row.now.any() == 0 {
                return (any, true);
            }
            while known < bytes {
                let by = known.min(bytes - known);
                row = row.and_behind(by);
                if !is_narrow {
                    narrower = narrower.and_behind(by);
                }
                known += by;
                // Asked once, as the answer is hard to predict: most alphabets are not there at all.
                if known == ASKED_AT && row.now.any() == 0 {
                    return (any, true);
                }
            }
            let mut windows = row.now;
            if !is_narrow {
                windows = windows.and_not(narrower.now);
            }
            if !deep {
                // Letters or digits on both sides: no edge.
                let behind = match bytes {
                    u64::BITS => letters.next,
                    _ => letters.now.from(bytes, letters.next),
                };
                windows = windows.and_not(behind.and(before));
            }
            any |= u32::from(windows.any() & asked) << (index * u8::BITS);
            *out = windows.lanes();
        }
        (any, false)
    }

    /// The places behind one of these letters and digits.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn behind(&self, letters: Alphabet) -> Lanes {
        let mut behind = self.of::<Lanes>(letters as usize).now;
        for (behind, before) in behind.iter_mut().zip(self.before) {
            *behind = *behind << 1 | before >> letters as u8 & 1;
        }
        behind
    }

    /// Tells the windows of one length that are strong enough, and not of a narrower alphabet. `any`: a
    /// bit for each word that is not 0.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn tell<F: Found>(
        &self,
        (mut any, windows): (u8, &Lanes),
        (alphabet, length): (Alphabet, Length),
        found: &mut F,
    ) {
        let Pair { now, next } = self.of::<Lanes>(STRONG.ilog2() as usize);
        // Of other alphabets, in which this is common, `find` sees it.
        let narrower = alphabet.narrower().filter(|_| alphabet.letters() == alphabet);
        let narrower = narrower.map(|narrower| self.of::<Lanes>(narrower as usize));
        let narrower = narrower.unwrap_or_default();
        let within = u128::from(u64::MAX >> (WINDOW_MAX - length.bytes.clamp(1, WINDOW_MAX)));
        while any != 0 {
            let lane = any.trailing_zeros() as usize;
            any &= any - 1;
            let word = |words: &Lanes| words.get(lane).copied().unwrap_or_default();
            let behind = self.places.get(lane).copied().unwrap_or_default();
            let both = |now, next| u128::from(word(next)) << u64::BITS | u128::from(word(now));
            let (strong, narrower) = (both(&now, &next), both(&narrower.now, &narrower.next));
            // Names in source text have few.
            if strong.count_ones() < length.strong {
                continue;
            }
            let mut rest = word(windows);
            while rest != 0 {
                let start = rest.trailing_zeros();
                rest &= rest - 1;
                let [strong, narrower] = [strong, narrower].map(|bits| bits >> start & within);
                if strong.count_ones() >= length.strong && narrower != within {
                    let start = behind + start as usize - BLOCK;
                    found.window(alphabet, start..start + length.bytes);
                }
            }
        }
    }
}
