//! The set of tags of registered keys: 64 bits each, uniform (they are keyed hashes already).
//!
//! Nearly every question is answered "no" by three bits in one word of a bitmap (a Bloom filter with one
//! access to memory); what it lets pass, less than one in a hundred, is looked for in sorted lists. 8
//! bytes a key for the lists, 2 to 4 for the bitmap: a larger one lets less pass, but lies further
//! from the processor.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

/// Bits of the bitmap for each tag, at least; at most twice as many.
const BITS_PER_TAG: usize = 16;
const WORD_BITS: usize = 64;
const WORD_BYTES: usize = WORD_BITS / 8;
/// From this size on, a bitmap asks for pages of as much: small ones are many, and finding the page
/// costs more than the look into it.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// How many look-ups wait for memory at once.
const TOGETHER: usize = 64;
/// How often a guess at the place of a tag is made better.
const GUESSES: usize = 2;

/// Tags that can be added to, cheaply, without touching those who hold the set as it was.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    bitmap: Arc<Bitmap>,
    /// Sorted; each at least twice as long as the one behind it.
    lists: Vec<Arc<Vec<u64>>>,
}

impl Tags {
    /// Whether the tag is in the set.
    #[must_use]
    #[inline]
    pub fn contains(&self, tag: u64) -> bool {
        may_hold(self.word(tag), tag) && self.is_listed(tag)
    }

    /// Calls with the index of each tag that is in the set. Look-ups wait for memory together:
    /// alone, each would take twice as long where the set is larger than the caches.
    pub fn which(&self, tags: &[u64], found: &mut dyn FnMut(usize)) {
        for (part, first) in tags.chunks(TOGETHER).zip((0..).step_by(TOGETHER)) {
            let mut words = [0; TOGETHER];
            for (word, tag) in words.iter_mut().zip(part) {
                *word = self.word(*tag);
            }
            for ((tag, word), index) in part.iter().zip(words).zip(first..) {
                if may_hold(word, *tag) && self.is_listed(*tag) {
                    found(index);
                }
            }
        }
    }

    fn is_listed(&self, tag: u64) -> bool {
        self.lists.iter().any(|list| is_in(list, tag))
    }

    #[inline]
    fn word(&self, tag: u64) -> u64 {
        let at = place(tag, self.bitmap.len());
        let word = self.bitmap.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// The set with more tags in it.
    #[must_use]
    pub fn with(&self, mut added: Vec<u64>) -> Self {
        // An index gives them as signed numbers: two sorted parts, which the stable sort sees.
        added.sort();
        added.dedup();
        let mut lists = self.lists.clone();
        // Lists are merged as long as the last is not twice as long as what comes.
        while let Some(last) = lists.pop() {
            if last.len() >= 2 * added.len() {
                lists.push(last);
                break;
            }
            added = merged(&last, &added);
        }
        lists.push(Arc::new(added));
        let count: usize = lists.iter().map(|list| list.len()).sum();
        let words = (count * BITS_PER_TAG).div_ceil(WORD_BITS).next_power_of_two();
        let same = words * WORD_BYTES == self.bitmap.len();
        let mut bitmap = Bitmap::new(words * WORD_BYTES);
        if same {
            bitmap.copy_from_slice(&self.bitmap);
        }
        let fresh = if same { lists.last() } else { None };
        for list in fresh.map_or(lists.as_slice(), std::slice::from_ref) {
            for tag in list.iter() {
                let (at, bits) = (place(*tag, bitmap.len()), bits_of(*tag));
                let word = bitmap.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
                if let Some(word) = word {
                    *word = (u64::from_le_bytes(*word) | bits).to_le_bytes();
                }
            }
        }
        Self { bitmap: Arc::new(bitmap), lists }
    }
}

/// Words of 64 bits, as bytes.
#[derive(Debug)]
enum Bitmap {
    Small(Vec<u8>),
    Large(MmapMut),
}

impl Default for Bitmap {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Bitmap {
    /// Of so many bytes, without a bit set.
    fn new(len: usize) -> Self {
        let large = if len < HUGE_PAGE_BYTES { None } else { MmapMut::map_anon(len).ok() };
        let Some(large) = large else { return Self::Small(vec![0; len]) };
        // Where there are none, it is as slow as without.
        #[cfg(target_os = "linux")]
        let _advised = large.advise(Advice::HugePage);
        Self::Large(large)
    }
}

impl Deref for Bitmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }
}

impl DerefMut for Bitmap {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }
}

/// Where the word of a tag begins; the length is a power of two. The lists are sorted by the upper
/// bits, so lower ones are taken.
#[inline]
fn place(tag: u64, len: usize) -> usize {
    let within = len.wrapping_sub(WORD_BYTES) & !(WORD_BYTES - 1);
    usize::try_from(tag >> 30).unwrap_or_default() & within
}

/// The bits of a tag in its word, the lowest of the tag.
#[inline]
fn bits_of(tag: u64) -> u64 {
    [0, 6, 12].iter().fold(0, |bits, from| bits | 1 << (tag >> from & 63))
}

#[inline]
fn may_hold(word: u64, tag: u64) -> bool {
    let bits = bits_of(tag);
    word & bits == bits
}

/// Uniform tags stand about where they should, and how far a tag there is from the one that is looked
/// for says better where that is. What is left is little, or much of tags that are not uniform: the
/// steps from there double until they are past it.
fn is_in(list: &[u64], tag: u64) -> bool {
    let Some(last) = list.len().checked_sub(1) else { return false };
    let at = |at: usize| list.get(at).copied().unwrap_or(u64::MAX);
    let gap = u64::MAX / list.len() as u64;
    let places = |tags: u64| usize::try_from(tags / gap).unwrap_or(usize::MAX);
    let mut guess = places(tag).min(last);
    for _ in 0..GUESSES {
        let here = at(guess);
        guess = match tag.checked_sub(here) {
            Some(more) => guess.saturating_add(places(more)).min(last),
            None => guess.saturating_sub(places(here - tag)),
        };
    }
    let (mut from, mut to, mut step) = (guess, guess, 1);
    while from > 0 && at(from) > tag {
        from = from.saturating_sub(step);
        step *= 2;
    }
    while to < last && at(to) < tag {
        to = last.min(to + step);
        step *= 2;
    }
    list.get(from..=to).is_some_and(|near| near.binary_search(&tag).is_ok())
}

fn merged(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    out.extend_from_slice(a);
    out.extend_from_slice(b);
    // Two sorted parts: the stable sort sees and merges them.
    out.sort();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn holds_what_was_put_in_and_nothing_else(
            batches in proptest::collection::vec(proptest::collection::vec(0u64.., 0..300), 0..12),
            others in proptest::collection::vec(0u64.., 0..100),
            clustered in proptest::bool::ANY,
        ) {
            let mut tags = Tags::default();
            let mut model = std::collections::BTreeSet::new();
            for batch in batches {
                let batch: Vec<u64> = batch.into_iter().map(|t| if clustered { t % 1000 } else { t }).collect();
                model.extend(batch.iter().copied());
                tags = tags.with(batch);
            }
            let asked: Vec<u64> = model.iter().copied().chain(others).chain([0, 1, 999, u64::MAX]).collect();
            let mut found = Vec::new();
            tags.which(&asked, &mut |index| found.push(index));
            for (index, tag) in asked.into_iter().enumerate() {
                proptest::prop_assert_eq!(tags.contains(tag), model.contains(&tag));
                proptest::prop_assert_eq!(found.contains(&index), model.contains(&tag));
            }
        }
    }

    #[test]
    fn one_by_one_the_lists_stay_few() {
        let mut tags = Tags::default();
        for tag in 0..2_000u64 {
            tags = tags.with(vec![tag.wrapping_mul(0x9e37_79b9_7f4a_7c15)]);
        }
        assert_eq!(tags.lists.iter().map(|list| list.len()).sum::<usize>(), 2_000);
        assert!(tags.lists.len() <= 12, "{}", tags.lists.len());
    }
}
