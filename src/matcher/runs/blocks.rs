//! The loop over blocks: bitmaps of a batch first, then from which bits runs go on, then the few
//! blocks that hold such a place.

use std::ops::Range;

use super::{BLOCK, Classes, Found, LENGTH_MAX, Lengths, Marks, Width, Window, word_starts};

/// Blocks that are looked at together: in loops without a branch, for which of them hold a run is
/// hard to predict.
pub(super) const BATCH: usize = 64;

/// The kernels are inlined into the loop: bitmaps of a block by class, [`Row::look`], letters and
/// digits of a block, its bitmaps by [`super::Firsts::words`], and the places at which a prefix may stand.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
pub(super) fn blocks<F: Found>(
    text: &[u8],
    places: Range<usize>,
    classes: &Classes,
    wanted: Lengths,
    (bitmaps, in_row, letters, words, pass): (
        impl Fn(&[u8; BLOCK]) -> [u64; 2],
        impl Fn(Row, &[u64; BATCH + 1], &mut [u64; BATCH]),
        impl Fn(&[u8; BLOCK]) -> [u64; 2],
        impl Fn(&[u8; BLOCK]) -> [u64; 2],
        impl Fn(&Window) -> [u64; 2],
    ),
    found: &mut F,
) {
    let rest = text.get(places.start..).unwrap_or_default();
    let count = places.len().div_ceil(BLOCK);
    let (whole, tail) = rest.as_chunks::<BLOCK>();
    let last = padded(tail);
    let rows = wanted.map(|length| length.map(Row::of));
    let mut batch = Batch::default();
    batch.put(0, whole.first().or(Some(&last)).map(&bitmaps).unwrap_or_default());
    for first in (0..count).step_by(BATCH) {
        let size = BATCH.min(count - first);
        match whole.get(first + 1..=first + size) {
            Some(blocks) => {
                blocks.iter().zip(1..).for_each(|(block, slot)| batch.put(slot, bitmaps(block)));
            }
            None => (1..=size).for_each(|slot| {
                let index = first + slot;
                let block = whole.get(index).or((index == whole.len()).then_some(&last));
                batch.put(slot, block.map(&bitmaps).unwrap_or_default());
            }),
        }
        let (kept, kept_count) = batch.look(rows, size, &in_row);
        let kept = kept.get(..kept_count).unwrap_or_default();
        let at = |slot: &u8| places.start + (first + usize::from(*slot)) * BLOCK;
        let mut passing = [(0, 0); BATCH];
        let mut passed = 0;
        for slot in kept {
            let bits = prefixes(text, at(slot), &words, &pass) & batch.starts(*slot);
            if let Some(place) = passing.get_mut(passed) {
                *place = (at(slot), bits);
            }
            passed += usize::from(bits != 0);
        }
        for (at, bits) in passing.iter().take(passed) {
            found.starts(*at, *bits);
        }
        let whole = match (kept.first(), kept.last()) {
            (Some(one), Some(last)) => {
                let end = batch.reach(*last, at(last), text.len());
                found.whole(at(one)..end, kept.len())
            }
            _ => [None; 2],
        };
        if whole != [None; 2] {
            for slot in kept {
                let letters = |at: usize| {
                    let rest = text.get(at..).unwrap_or_default();
                    rest.first_chunk().map_or_else(|| letters(&padded(rest)), &letters)
                };
                let text = (text, at(slot), places.start);
                batch.runs(*slot, text, (classes, wanted, whole), letters, found);
            }
        }
        batch.put(0, batch.bits(size));
    }
}

/// The places of the block at `at` at which a prefix may stand, whatever the runs are.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn prefixes(
    text: &[u8],
    at: usize,
    words: &impl Fn(&[u8; BLOCK]) -> [u64; 2],
    pass: &impl Fn(&Window) -> [u64; 2],
) -> u64 {
    let (before, rest) = text.split_at_checked(at).unwrap_or_default();
    let [anywhere, begun] = rest.first_chunk().map_or_else(|| pass(&padded(rest)), pass);
    let now = rest.first_chunk().map_or_else(|| words(&padded(rest)), words);
    let before = before.last_chunk().map_or_else(|| words(&padded_left(before)), words);
    anywhere | begun & word_starts([before, now])
}

/// So many bytes in a row: five steps AND a bitmap with itself, each shifted by as many as are known
/// to be in a row already.
#[derive(Clone, Copy)]
pub(super) struct Row(pub(super) [u32; 5]);

impl Row {
    /// 1 to [`LENGTH_MAX`].
    fn of(length: usize) -> Self {
        let length = length.clamp(1, LENGTH_MAX);
        let mut known = 1;
        Self([(); 5].map(|()| {
            let shift = (length - known).min(known);
            known += shift;
            u32::try_from(shift).unwrap_or_default()
        }))
    }

    /// From which bits of each bitmap so many ones go on, into the next bitmap if need be.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    pub(super) fn look(self, bits: &[u64; BATCH + 1], rows: &mut [u64; BATCH]) {
        for (row, pair) in rows.iter_mut().zip(bits.array_windows()) {
            let [now, next] = *pair;
            // At most half a bitmap is in the bitmap, or in the bits from its middle on.
            let middle = now >> 32 | next << 32;
            let [here, over] = [now, middle]
                .map(|bits| self.0.iter().fold(bits, |bits, shift| bits & (bits >> shift)));
            *row = here | over << 32;
        }
    }
}

/// Blocks one after the other, and the one behind them.
struct Batch {
    /// By class: what is a member.
    bits: [[u64; BATCH + 1]; 2],
    /// By class: from where runs go on.
    rows: [[u64; BATCH]; 2],
}

impl Default for Batch {
    fn default() -> Self {
        Self { bits: [[0; BATCH + 1]; 2], rows: [[0; BATCH]; 2] }
    }
}

impl Batch {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn put(&mut self, slot: usize, bits: [u64; 2]) {
        for (lane, bits) in self.bits.iter_mut().zip(bits) {
            if let Some(place) = lane.get_mut(slot) {
                *place = bits;
            }
        }
    }

    fn bits(&self, slot: usize) -> [u64; 2] {
        [0, 1].map(|class: usize| of(&self.bits, class, slot))
    }

    /// From where in a block runs of either class go on.
    fn starts(&self, slot: u8) -> u64 {
        of(&self.rows, 0, usize::from(slot)) | of(&self.rows, 1, usize::from(slot))
    }

    /// Up to where runs go that begin in a block or before it.
    fn reach(&self, slot: u8, at: usize, end: usize) -> usize {
        let next = self.bits(usize::from(slot) + 1);
        let is_all = next.contains(&u64::MAX);
        if is_all { end } else { end.min(at + 2 * BLOCK) }
    }

    /// The first of so many blocks, in order, from which runs go on; and how many these are.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    fn look(
        &mut self,
        rows: [Option<Row>; 2],
        size: usize,
        in_row: &impl Fn(Row, &[u64; BATCH + 1], &mut [u64; BATCH]),
    ) -> ([u8; BATCH], usize) {
        for (row, (bits, rows)) in rows.into_iter().zip(self.bits.iter().zip(&mut self.rows)) {
            if let Some(row) = row {
                in_row(row, bits, rows);
            }
        }
        let mut kept = [0; BATCH];
        let mut count = 0;
        let [narrow, wide] = &self.rows;
        for ((slot, narrow), wide) in (0..).zip(narrow).zip(wide).take(size) {
            if let Some(place) = kept.get_mut(count) {
                *place = slot;
            }
            count += usize::from(narrow | wide != 0);
        }
        (kept, count)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
    /// Tells the runs that begin in a block, which is at a place of a text; one that begins before
    /// `from` is taken to begin there.
    fn runs<F: Found>(
        &self,
        slot: u8,
        (text, at, from): (&[u8], usize, usize),
        (classes, lengths, whole): (&Classes, Lengths, Lengths),
        letters: impl Fn(usize) -> [u64; 2],
        found: &mut F,
    ) {
        let slot = usize::from(slot);
        for (class, width) in [Width::Narrow, Width::Wide].into_iter().enumerate() {
            let [length, whole] = [lengths, whole].map(|of| of.get(class).copied().flatten());
            let (Some(length), Some(shortest)) = (length, whole) else { continue };
            let starts = of(&self.rows, class, slot);
            let [now, next] = [slot, slot + 1].map(|slot| of(&self.bits, class, slot));
            let before = text.get(from..at).and_then(|before| before.last());
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
                let mut end = at + (start + shown) as usize;
                if start + shown == u128::BITS {
                    let after = text.get(end..).unwrap_or_default();
                    end += after.iter().take_while(|byte| classes.holds(width, **byte)).count();
                }
                let run = at + start as usize..end;
                if run.len() >= shortest {
                    found.run(width, run.clone(), marks(run, &letters));
                }
            }
        }
    }
}

/// What is seen of a run, if it is short enough for that; `letters`, and digits, are those of the 64
/// bytes from a place on.
#[inline(always)]
#[expect(clippy::inline_always, reason = "must be compiled with the features of its caller")]
fn marks(run: Range<usize>, letters: &impl Fn(usize) -> [u64; 2]) -> Option<Marks> {
    let within = u128::MAX >> u128::BITS.checked_sub(u32::try_from(run.len()).ok()?)?;
    let more = if run.len() > BLOCK { letters(run.start + BLOCK) } else { [0; 2] };
    let [letters, digits] = letters(run.start);
    let both = |more: u64, first: u64| (u128::from(more) << BLOCK | u128::from(first)) & within;
    let [more_letters, more_digits] = more;
    Some(Marks {
        joints: !both(more_letters, letters) & within,
        has_digit: both(more_digits, digits) != 0,
    })
}

fn of<const N: usize>(lanes: &[[u64; N]; 2], class: usize, slot: usize) -> u64 {
    lanes.get(class).and_then(|lane| lane.get(slot)).copied().unwrap_or_default()
}

pub(super) fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    padded
}

/// The last bytes, at the end.
fn padded_left<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    padded
}
