//! Texts that are looked for wherever they stand: few, long literals, and words that announce keys.
//! Of each, the four bytes that are rarest in other text are given to the run finder, which looks at
//! every place for them; the rest is compared where they stand.

use super::divided;
use super::runs::{FIRST, NEEDLE_TABLES, Sets};
use super::sought::{Needle, Wanted};
use crate::rule::Text;

/// All of them.
pub(super) struct Needles {
    /// For the run finder.
    pub(super) tables: [Sets; NEEDLE_TABLES],
    /// In order of their buckets.
    needles: Vec<Looked>,
    /// By hash of the first bytes that are looked for: where in the list its bucket begins. Those of
    /// fewer bytes than are hashed stand in the first bucket.
    buckets: [usize; BUCKETS + 2],
}

/// A text with the bytes of it that are looked for, as a number: which bits count of those that
/// stand at a place, once the bits of `fold` are set in them.
struct Looked {
    gram: u32,
    mask: u32,
    fold: u32,
    /// Where in the text these bytes begin.
    offset: usize,
    /// How many of the bytes that are looked for stand before the text.
    before: usize,
    text: Text,
    any_case: bool,
    what: Needle,
}

const BUCKETS: usize = 256;
/// The bytes that are hashed, and in them the bit of the case.
const HASHED: u32 = 0x00ff_ffff;
const CASE: u32 = 0x0020_2020;

/// The bucket of the bytes at a place.
fn bucket_of(bytes: u32) -> usize {
    1 + (((bytes & HASHED | CASE).wrapping_mul(0x9e37_79b1)) >> 24) as usize
}

impl Needles {
    pub(super) fn new(wanted: Vec<Wanted>) -> Self {
        let (offsets, tables) = divided::needles(&wanted);
        let mut needles: Vec<Looked> =
            wanted.into_iter().zip(offsets).map(|(one, offset)| Looked::new(one, offset)).collect();
        needles.sort_unstable_by(|one, other| one.place().cmp(&other.place()));
        // How many there are of each bucket, then of those before it.
        let mut buckets = [0; BUCKETS + 2];
        for needle in &needles {
            if let Some(count) = buckets.get_mut(needle.bucket() + 1) {
                *count += 1;
            }
        }
        let mut before = 0;
        for bucket in &mut buckets {
            before += *bucket;
            *bucket = before;
        }
        Self { tables, needles, buckets }
    }

    /// Calls with what stands at a place that the run finder let pass, and where it begins.
    #[inline]
    pub(super) fn each(&self, text: &[u8], place: usize, found: &mut dyn FnMut(Needle, usize)) {
        let rest = text.get(place..).unwrap_or_default();
        let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut bytes = [0; FIRST];
            bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            bytes
        });
        let here = u32::from_le_bytes(bytes);
        for bucket in [0, bucket_of(here)] {
            let Some([from, to]) = self.buckets.get(bucket..).and_then(|rest| rest.first_chunk())
            else {
                continue;
            };
            for needle in self.needles.get(*from..*to).unwrap_or_default() {
                if (here | needle.fold) & needle.mask == needle.gram
                    && let Some(start) = needle.stands(text, place)
                {
                    found(needle.what, start);
                }
            }
        }
    }
}

impl Looked {
    fn new(wanted: Wanted, offset: usize) -> Self {
        let Wanted { text, any_case, what, before: (before, _), .. } = wanted;
        let bytes = text.as_bytes().get(offset..).unwrap_or_default();
        let (mut gram, mut mask, mut fold) = ([0; FIRST], [0; FIRST], [0; FIRST]);
        let places = gram.iter_mut().zip(&mut mask).zip(&mut fold).skip(before);
        for (((gram, mask), fold), byte) in places.zip(bytes) {
            (*gram, *mask) = (*byte, u8::MAX);
            *fold = if any_case && byte.is_ascii_alphabetic() { 0x20 } else { 0 };
        }
        let [gram, mask, fold] = [gram, mask, fold].map(u32::from_le_bytes);
        Self { gram, mask, fold, offset, before, text, any_case, what }
    }

    /// Where in the list it is.
    fn place(&self) -> (usize, Needle, &Text) {
        (self.bucket(), self.what, &self.text)
    }

    fn bucket(&self) -> usize {
        if self.mask & HASHED == HASHED { bucket_of(self.gram) } else { 0 }
    }

    /// Where it begins, if it stands at a place at which its bytes do that are looked for.
    fn stands(&self, text: &[u8], place: usize) -> Option<usize> {
        let start = (place + self.before).checked_sub(self.offset)?;
        let own = self.text.as_bytes();
        let there = text.get(start..)?.get(..own.len())?;
        let same = if self.any_case { there.eq_ignore_ascii_case(own) } else { there == own };
        same.then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles() -> (Vec<Wanted>, Needles) {
        let texts = ["-----begin rsa", "-----begin ", ":aa", "@", "secret key", "AC0", "akia"];
        let wanted = |(index, text): (usize, &&str)| Wanted {
            text: (*text).to_owned().into(),
            any_case: **text == text.to_lowercase() && index % 2 == 0,
            what: Needle::Word(index),
            before: if *text == "@" { (2, u128::MAX) } else { (0, 0) },
            behind: u128::MAX,
        };
        let wanted: Vec<Wanted> = texts.iter().enumerate().map(wanted).collect();
        (wanted.clone(), Needles::new(wanted))
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_there_is_found(
            parts in proptest::collection::vec("-----begin |RSA|:[aA]{2}|@|secret key|SECRET|AC[01]|[aA]kia|[ -~]{0,6}", 0..12)
        ) {
            let text = parts.concat();
            let text = text.as_bytes();
            let (wanted, needles) = needles();
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            for place in 0..text.len() {
                needles.each(text, place, &mut |what, start| found.push((start, what)));
                for one in &wanted {
                    let there = text.get(place..place + one.text.len()).unwrap_or_default();
                    if place < one.before.0 {
                        continue;
                    }
                    let own = one.text.as_bytes();
                    if there == own || one.any_case && there.eq_ignore_ascii_case(own) {
                        expected.push((place, one.what));
                    }
                }
            }
            found.sort_unstable();
            expected.sort_unstable();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
