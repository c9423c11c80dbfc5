//! The loop over blocks: bitmaps of a batch first, then from which bits runs go on, then the few
//! blocks that hold such a place.

use std::ops::Range;

use super::edges::Eight;
use super::{
    BLOCK, Classes, FIRST, Found, LENGTH_MAX, Lengths, Letters, Look, Marks, Passing, Which, Width,
    Window, Windows, word_starts,
};

/// Blocks that are looked at together: in loops without a branch, for which of them hold a run is
/// hard to predict.
pub(super) const BATCH: usize = 64;

/// What is done to a block by the means of the processor. Closures, so that they are inlined into
/// the loop and compiled with the features of its caller.
pub(super) struct Kernels<L, R, S, T, K, W, P> {
    pub(super) look: L,
    /// [`Row::look`].
    pub(super) rows: R,
    /// [`slots`].
    pub(super) slots: S,
    pub(super) letters: T,
    /// [`Windows::each`].
    pub(super) windows: K,
    /// The bitmaps of a block by [`super::Firsts::words`].
    pub(super) words: W,
    /// By some of the tables of [`super::Firsts`].
    pub(super) pass: P,
}

/// What of each batch is remembered by rows: narrow runs of the wanted length, wide ones, and long
/// narrow ones.
const ROWS: usize = 3;

#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
pub(super) fn blocks<F: Found, L, R, S, T, K, W, P>(
    text: &[u8],
    places: Range<usize>,
    (classes, windows, wanted): (&Classes, Windows<'_>, Lengths),
    kernels: &Kernels<L, R, S, T, K, W, P>,
    found: &mut F,
) -> u64
where
    L: Fn(&Window) -> Look,
    R: Fn(Row, &[u64; BATCH + 1], &mut [u64; BATCH], Option<&mut [u64; BATCH]>),
    S: Fn(&[u64; BATCH]) -> u64,
    T: Fn(&[u8; BLOCK]) -> Letters,
    K: Fn(Windows<'_>, (usize, Option<Slots>), (&[u8], usize), &mut Eight, &mut F),
    W: Fn(&[u8; BLOCK]) -> [u64; 2],
    P: Fn(&Window, Which) -> Passing,
{
    let count = places.len().div_ceil(BLOCK);
    let rest = text.get(places.start..).unwrap_or_default();
    let rows = wanted.map(|length| length.map(Row::of));
    let (whole, shortest) = (found.whole(), windows.shortest());
    let mut batch = Batch::default();
    let mut pending = [Eight::default(), Eight::default()];
    batch.fill(rest, 0, 0..1, &kernels.look);
    for first in (0..count).step_by(BATCH) {
        let size = BATCH.min(count - first);
        batch.fill(rest, first, 1..size + 1, &kernels.look);
        let at = |slot: usize| places.start + (first + slot) * BLOCK;
        for slot in batch.needles(size, &kernels.slots) {
            found.needles(at(slot), batch.needles_of(slot));
        }
        let [kept, long] = batch.kept(rows, size, kernels);
        let mut passing = [0; BATCH];
        for slot in kept {
            let [starts, _] = batch.starts(slot);
            let bits = prefixes(text, at(slot), starts, Which::Short, kernels);
            put(&mut passing, slot, bits);
        }
        for slot in long {
            let [_, starts] = batch.starts(slot);
            let bits = prefixes(text, at(slot), starts, Which::Long, kernels);
            put(&mut passing, slot, bits);
        }
        for slot in Slots((kernels.slots)(&passing)) {
            found.starts(at(slot), passing.get(slot).copied().unwrap_or_default());
        }
        let windowed = wanted.into_iter().zip(shortest).zip(&mut pending);
        for (class, ((length, shortest), eight)) in windowed.enumerate() {
            if let (Some(length), Some(shortest)) = (length, shortest) {
                let slots = batch.further(class, (length, shortest), &kernels.slots).first_of(size);
                (kernels.windows)(windows, (class, Some(slots)), (text, at(0)), eight, found);
            }
        }
        let told = wanted.into_iter().zip(whole).zip([Width::Narrow, Width::Wide]);
        for ((length, shortest), width) in told {
            if let (Some(length), Some(shortest)) = (length, shortest) {
                let place = (text, places.start + first * BLOCK);
                batch.runs(kept, place, (classes, width, length, shortest), kernels, found);
            }
        }
        batch.carry(size);
    }
    for (class, eight) in pending.iter_mut().enumerate().filter(|(_, eight)| !eight.is_empty()) {
        (kernels.windows)(windows, (class, None), (text, 0), eight, found);
    }
    batch.newlines
}

/// Slots of a batch, a bit each.
#[derive(Clone, Copy, Default)]
pub(super) struct Slots(pub(super) u64);

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let slot = self.first();
        self.0 &= self.0.wrapping_sub(1);
        slot
    }
}

impl Slots {
    /// Those of the first so many, 1 to [`BATCH`].
    fn first_of(self, size: usize) -> Self {
        Self(self.0 & u64::MAX >> (BATCH - size))
    }

    #[inline]
    fn first(self) -> Option<usize> {
        (self.0 != 0).then_some(self.0.trailing_zeros() as usize)
    }
}

/// The places of the block at `at` at which a prefix of some tables may stand, of those from which a
/// run goes on.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn prefixes<L, R, S, T, K, W, P>(
    text: &[u8],
    at: usize,
    starts: u64,
    which: Which,
    Kernels { words, pass, .. }: &Kernels<L, R, S, T, K, W, P>,
) -> u64
where
    W: Fn(&[u8; BLOCK]) -> [u64; 2],
    P: Fn(&Window, Which) -> Passing,
{
    let (before, rest) = text.split_at_checked(at).unwrap_or_default();
    let (last, first);
    let window = match rest.first_chunk() {
        Some(window) => window,
        None => {
            last = padded(rest);
            &last
        }
    };
    let [any, begun] = pass(window, which).map(|bits| bits & starts);
    if begun == 0 {
        return any;
    }
    let now = words(window.first_chunk().unwrap_or(&[0; BLOCK]));
    let before = words(match before.last_chunk() {
        Some(block) => block,
        None => {
            first = padded_left(before);
            &first
        }
    });
    any | begun & word_starts([before, now])
}

/// So many bytes in a row: steps AND a bitmap with itself, each shifted by as many as are known to be
/// in a row already.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) steps: [u32; STEPS],
    /// From there to [`LENGTH_MAX`] bytes in a row; behind the last step, zeros.
    pub(super) more: [u32; STEPS],
}

/// Each doubles what is known.
const STEPS: usize = LENGTH_MAX.ilog2() as usize;

impl Row {
    /// 1 to [`LENGTH_MAX`].
    fn of(length: usize) -> Self {
        let length = length.clamp(1, LENGTH_MAX);
        Self { steps: steps(1, length), more: steps(length, LENGTH_MAX) }
    }

    /// From which bits of each bitmap so many ones go on, into the next bitmap if need be; and from
    /// which [`LENGTH_MAX`] do.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    pub(super) fn look(
        self,
        bits: &[u64; BATCH + 1],
        rows: &mut [u64; BATCH],
        long: Option<&mut [u64; BATCH]>,
    ) {
        let by =
            |bits, steps: &[u32]| steps.iter().fold(bits, |bits, shift| bits & (bits >> shift));
        // At most half a bitmap is in the bitmap, or in the bits from its middle on.
        let middle = |[now, next]: [u64; 2]| now >> 32 | next << 32;
        for (row, pair) in rows.iter_mut().zip(bits.array_windows()) {
            *row = by(pair[0], &self.steps) | by(middle(*pair), &self.steps) << 32;
        }
        for (long, pair) in long.into_iter().flatten().zip(bits.array_windows()) {
            let all = |bits| by(by(bits, &self.steps), &self.more);
            *long = all(pair[0]) | all(middle(*pair)) << 32;
        }
    }
}

/// From so many in a row to so many: by how much bits are shifted, zeros behind.
fn steps(from: usize, to: usize) -> [u32; STEPS] {
    let mut known = from;
    [(); STEPS].map(|()| {
        let shift = (to - known).min(known);
        known += shift;
        u32::try_from(shift).unwrap_or_default()
    })
}

/// Blocks one after the other, and the one behind them.
struct Batch {
    /// By class: what is a member.
    bits: [[u64; BATCH + 1]; 2],
    needles: [u64; BATCH + 1],
    /// From where runs go on.
    rows: [[u64; BATCH]; ROWS],
    /// By class: what is a member in the block before the first one.
    before: [u64; 2],
    /// Of all blocks before the last one.
    newlines: u64,
    /// Of that one.
    newlines_behind: u64,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            bits: [[0; BATCH + 1]; 2],
            needles: [0; BATCH + 1],
            rows: [[0; BATCH]; ROWS],
            before: [0; 2],
            newlines: 0,
            newlines_behind: 0,
        }
    }
}

impl Batch {
    /// Looks at blocks of a text: those for the slots `to`, counted from the block `first`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn fill(
        &mut self,
        text: &[u8],
        first: usize,
        to: Range<usize>,
        look: &impl Fn(&Window) -> Look,
    ) {
        let start = (first + to.start) * BLOCK;
        let end = (first + to.end) * BLOCK + FIRST - 1;
        let mut last = self.newlines_behind;
        let mut lines = self.newlines;
        let mut put = |slot: usize, seen: Look| {
            lines += last;
            last = u64::from(seen.newlines.count_ones());
            let [narrow, wide] = &mut self.bits;
            if let Some(place) = narrow.get_mut(slot) {
                *place = seen.narrow;
            }
            if let Some(place) = wide.get_mut(slot) {
                *place = seen.wide;
            }
            if let Some(place) = self.needles.get_mut(slot) {
                *place = seen.needles;
            }
        };
        match text.get(start..end) {
            Some(blocks) => {
                let mut rest = blocks;
                for slot in to {
                    let Some(window) = rest.first_chunk() else { break };
                    put(slot, look(window));
                    rest = rest.get(BLOCK..).unwrap_or_default();
                }
            }
            None => {
                for slot in to {
                    let rest = text.get((first + slot) * BLOCK..).unwrap_or_default();
                    put(slot, look(&padded(rest)));
                }
            }
        }
        (self.newlines, self.newlines_behind) = (lines, last);
    }

    /// Takes the block behind this batch as the first of the next one.
    fn carry(&mut self, size: usize) {
        self.before = [of(&self.bits, 0, size - 1), of(&self.bits, 1, size - 1)];
        let [narrow, wide] = &mut self.bits;
        for lane in [narrow, wide, &mut self.needles] {
            let behind = lane.get(size).copied().unwrap_or_default();
            if let Some(first) = lane.first_mut() {
                *first = behind;
            }
        }
    }

    /// The first of so many blocks in which a needle may stand.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn needles(&self, size: usize, slots: &impl Fn(&[u64; BATCH]) -> u64) -> Slots {
        let (needles, _) = self.needles.split_first_chunk::<BATCH>().unwrap_or((&[0; BATCH], &[]));
        Slots(slots(needles)).first_of(size)
    }

    fn needles_of(&self, slot: usize) -> u64 {
        self.needles.get(slot).copied().unwrap_or_default()
    }

    /// From where in a block runs of the wanted lengths go on, and long ones.
    fn starts(&self, slot: usize) -> [u64; 2] {
        let [narrow, wide] = [of(&self.rows, 0, slot), of(&self.rows, 1, slot)];
        [narrow | wide, of(&self.rows, 2, slot) | wide]
    }

    /// The first of so many blocks from which runs go on, and those from which long ones do.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn kept<L, R, S, T, K, W, P>(
        &mut self,
        wanted: [Option<Row>; 2],
        size: usize,
        kernels: &Kernels<L, R, S, T, K, W, P>,
    ) -> [Slots; 2]
    where
        R: Fn(Row, &[u64; BATCH + 1], &mut [u64; BATCH], Option<&mut [u64; BATCH]>),
        S: Fn(&[u64; BATCH]) -> u64,
    {
        let [narrow, wide] = &self.bits;
        let [narrow_rows, wide_rows, long_rows] = &mut self.rows;
        if let [Some(row), _] = wanted {
            (kernels.rows)(row, narrow, narrow_rows, Some(long_rows));
        }
        if let [_, Some(row)] = wanted {
            (kernels.rows)(row, wide, wide_rows, None);
        }
        [narrow_rows, long_rows].map(|rows| {
            let mut either = *rows;
            either.iter_mut().zip(&*wide_rows).for_each(|(either, wide)| *either |= *wide);
            Slots((kernels.slots)(&either)).first_of(size)
        })
    }

    /// The blocks in which runs of so many bytes may go on, where runs of fewer are known, by class.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn further(
        &self,
        class: usize,
        (length, wanted): (usize, usize),
        slots: &impl Fn(&[u64; BATCH]) -> u64,
    ) -> Slots {
        let mut rows = self.rows.get(class).copied().unwrap_or([0; BATCH]);
        let by = wanted.saturating_sub(length).min(length);
        if by > 0 {
            let mut later = [u64::MAX; BATCH];
            later.iter_mut().zip(rows.iter().skip(1)).for_each(|(later, row)| *later = *row);
            for (row, later) in rows.iter_mut().zip(&later) {
                *row &= *row >> by | later << (BLOCK - by);
            }
        }
        Slots(slots(&rows))
    }

    /// Tells the runs of one class that begin in some of the blocks, the first of which is at a place
    /// of a text: of those that are as long as was wanted, those of the shortest length that is told.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn runs<F: Found, L, R, S, T, K, W, P>(
        &self,
        kept: Slots,
        (text, first): (&[u8], usize),
        (classes, width, length, shortest): (&Classes, Width, usize, usize),
        kernels: &Kernels<L, R, S, T, K, W, P>,
        found: &mut F,
    ) where
        T: Fn(&[u8; BLOCK]) -> Letters,
    {
        let letters = |at: usize| (kernels.letters)(&block_at(text, at));
        let class = width as usize;
        // A run that is twice as long goes on from as far behind its start; of the last places a block
        // does not say.
        let twice = (shortest - length.min(shortest)).min(length);
        let unsaid = !(u64::MAX >> twice);
        let mut begun = [(0, 0); BATCH];
        let mut count = 0;
        for slot in kept {
            let starts = of(&self.rows, class, slot);
            let before = match slot.checked_sub(1) {
                Some(before) => of(&self.bits, class, before),
                None => self.before.get(class).copied().unwrap_or_default(),
            };
            let begins = starts & !(of(&self.bits, class, slot) << 1 | before >> 63);
            let begins = begins & (starts >> twice | unsaid);
            if let Some(place) = begun.get_mut(count) {
                *place = (slot, begins);
            }
            count += usize::from(begins != 0);
        }
        for (slot, begins) in begun.iter().take(count) {
            let (at, mut rest) = (first + slot * BLOCK, *begins);
            let (now, next) = (of(&self.bits, class, *slot), of(&self.bits, class, slot + 1));
            let bits = u128::from(next) << 64 | u128::from(now);
            while rest != 0 {
                let start = rest.trailing_zeros();
                rest &= rest - 1;
                let shown = (bits >> start).trailing_ones();
                let mut end = at + (start + shown) as usize;
                if start + shown == u128::BITS {
                    let after = text.get(end..).unwrap_or_default();
                    end += after.iter().take_while(|byte| classes.holds(width, **byte)).count();
                }
                let run = at + start as usize..end;
                if run.len() >= shortest {
                    let marks = marks(run.clone(), &letters);
                    found.run(width, run, marks);
                }
            }
        }
    }
}

/// What is seen of a run, if it is short enough for that; `letters`, and digits, are those of the 64
/// bytes from a place on.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn marks(run: Range<usize>, letters: &impl Fn(usize) -> Letters) -> Option<Marks> {
    let within = u128::MAX >> u128::BITS.checked_sub(u32::try_from(run.len()).ok()?)?;
    let more = if run.len() > BLOCK { letters(run.start + BLOCK) } else { Letters::default() };
    let [letters, digits] = letters(run.start);
    let both = |more: u64, first: u64| (u128::from(more) << BLOCK | u128::from(first)) & within;
    let [more_letters, more_digits] = more;
    Some(Marks {
        joints: !both(more_letters, letters) & within,
        has_digit: both(more_digits, digits) != 0,
    })
}

/// A bit for each word that is not 0.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
pub(super) fn slots(words: &[u64; BATCH]) -> u64 {
    words.iter().rev().fold(0, |slots, word| slots << 1 | u64::from(*word != 0))
}

/// Adds bits to a word.
fn put(words: &mut [u64; BATCH], slot: usize, bits: u64) {
    if let Some(word) = words.get_mut(slot) {
        *word |= bits;
    }
}

fn of<const N: usize, const M: usize>(lanes: &[[u64; N]; M], class: usize, slot: usize) -> u64 {
    lanes.get(class).and_then(|lane| lane.get(slot)).copied().unwrap_or_default()
}

/// The block at a place of a text; where it ends, with zeros behind it.
#[inline]
pub(super) fn block_at(text: &[u8], at: usize) -> [u8; BLOCK] {
    let rest = text.get(at..).unwrap_or_default();
    rest.first_chunk().copied().unwrap_or_else(|| padded(rest))
}

/// The first bytes of a text; where there are fewer, with zeros behind them.
#[cold]
fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    padded
}

/// The last bytes of a text; where there are fewer, with zeros before them.
#[cold]
fn padded_left<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().rev().zip(text.iter().rev()).for_each(|(to, from)| *to = *from);
    padded
}
