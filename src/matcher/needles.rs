//! Texts that are looked for wherever they stand: few, long literals, and words that announce keys.
//! Of each, the four bytes that are rarest in other text are given to the run finder, which looks at
//! every place for them; the rest is compared where they stand.

use super::runs::{FIRST, NEEDLE_TABLES, SETS, Sets, beginning, divide, frequency};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) text: Vec<u8>,
    /// Capitals and small letters alike; the text is in small ones.
    pub(super) any_case: bool,
    pub(super) what: Needle,
}

/// What stands there, if it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needle {
    /// The literal of that rule.
    Literal(usize),
    /// A byte of [`super::Automata::before`].
    Byte(usize),
    /// A word of [`super::announced::Announced`].
    Word(usize),
}

/// All of them.
pub(super) struct Needles {
    /// For the run finder.
    pub(super) tables: [Sets; NEEDLE_TABLES],
    by_set: [[InSet; SETS]; NEEDLE_TABLES],
}

/// Those of one set: the four bytes that are looked for, as a number each, and which bits of those
/// that stand there count; the bits of `folds` are set in them first.
#[derive(Default)]
struct InSet {
    grams: Vec<u32>,
    masks: Vec<u32>,
    folds: Vec<u32>,
    needles: Vec<(Wanted, usize)>,
}

impl Needles {
    pub(super) fn new(wanted: Vec<Wanted>) -> Self {
        let all: Vec<(Wanted, usize)> = wanted
            .into_iter()
            .map(|wanted| {
                let offset = rarest(&wanted);
                (wanted, offset)
            })
            .collect();
        let bytes = |(wanted, offset): &(Wanted, usize)| {
            beginning(wanted.text.get(*offset..).unwrap_or_default(), wanted.any_case)
        };
        let mut beginnings: Vec<_> = all.iter().map(bytes).collect();
        beginnings.sort_unstable();
        beginnings.dedup();
        let chosen = divide(&beginnings, 0..NEEDLE_TABLES * SETS);
        let mut made = Self { tables: Default::default(), by_set: Default::default() };
        for (beginning, set) in beginnings.iter().zip(&chosen) {
            if let Some(table) = made.tables.get_mut(set / SETS) {
                table.add(set % SETS, beginning);
            }
        }
        for needle in all {
            let place = beginnings.binary_search(&bytes(&needle)).ok();
            let set = place.and_then(|place| chosen.get(place)).copied().unwrap_or_default();
            let by_set = made.by_set.get_mut(set / SETS);
            if let Some(set) = by_set.and_then(|table| table.get_mut(set % SETS)) {
                set.add(needle);
            }
        }
        made
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
        for (table, by_set) in self.tables.iter().zip(&self.by_set) {
            let mut sets = table.of(&bytes);
            while sets != 0 {
                let set = by_set.get(sets.trailing_zeros() as usize);
                sets &= sets - 1;
                set.into_iter().for_each(|set| set.each(text, place, bytes, found));
            }
        }
    }
}

impl InSet {
    fn add(&mut self, (wanted, offset): (Wanted, usize)) {
        let bytes = wanted.text.get(offset..).unwrap_or_default().iter().take(FIRST);
        let (mut gram, mut mask, mut fold) = ([0; FIRST], [0; FIRST], [0; FIRST]);
        for (((gram, mask), fold), byte) in gram.iter_mut().zip(&mut mask).zip(&mut fold).zip(bytes)
        {
            (*gram, *mask) = (*byte, u8::MAX);
            *fold = if wanted.any_case && byte.is_ascii_alphabetic() { 0x20 } else { 0 };
        }
        self.grams.push(u32::from_le_bytes(gram));
        self.masks.push(u32::from_le_bytes(mask));
        self.folds.push(u32::from_le_bytes(fold));
        self.needles.push((wanted, offset));
    }

    fn each(
        &self,
        text: &[u8],
        place: usize,
        bytes: [u8; FIRST],
        found: &mut dyn FnMut(Needle, usize),
    ) {
        let here = u32::from_le_bytes(bytes);
        let all = self.grams.iter().zip(&self.masks).zip(&self.folds).zip(&self.needles);
        for (((gram, mask), fold), (wanted, offset)) in all {
            if (here | fold) & mask != *gram {
                continue;
            }
            let Some(start) = place.checked_sub(*offset) else { continue };
            let there = text.get(start..).and_then(|rest| rest.get(..wanted.text.len()));
            let same = there.is_some_and(|there| match wanted.any_case {
                true => there.eq_ignore_ascii_case(&wanted.text),
                false => *there == *wanted.text,
            });
            if same {
                found(wanted.what, start);
            }
        }
    }
}

/// Bytes that several texts hold and little else: the fewer are looked for, the less passes that is
/// none. The first one counts that a text holds.
const SHARED: [&[u8; FIRST]; 50] = [
    b"BEGI", b"cret", b"adog", b"ftla", b"mclo", b"m_cl", b"m-cl", b"luem", b"etli", b"astl", b"wili",
    b"sana", b"zure", b"dfla", b"snyk", b"vaul", b"ilgu", b"atso", b"pdom", b"iam.", b"shma", b"s_hm",
    b"okta", b"ssws", b"azdo", b"vsts", b"alst", b"ado_", b"azp_", b"vss_", b"cf_a", b"cf-a", b"cfap",
    b"cf_t", b"pi_k", b"pi-k", b"pike", b"pp_k", b"ppke", b"on_k", b"on-k", b"nt_k", b"nt-k", b"ntke",
    b"ge_k", b"ge-k", b"agek", b"s_ke", b"te_k", b"cord",
];

/// Where the four bytes of a text begin that are looked for: shared ones, or those that are met least
/// elsewhere.
fn rarest(wanted: &Wanted) -> usize {
    let shared = SHARED.iter().find_map(|bytes| memchr::memmem::find(&wanted.text, *bytes));
    let share = |byte: &u8| match wanted.any_case && byte.is_ascii_alphabetic() {
        true => frequency(*byte) + frequency(byte.to_ascii_uppercase()),
        false => frequency(*byte),
    };
    let windows = wanted.text.windows(FIRST).map(|bytes| bytes.iter().map(share).product::<u64>());
    shared.or_else(|| windows.zip(0..).min().map(|(_, offset)| offset)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles() -> (Vec<Wanted>, Needles) {
        let texts = ["-----begin rsa", "-----begin ", ":aa", "@", "secret key", "AC0", "akia"];
        let wanted = |(index, text): (usize, &&str)| Wanted {
            text: text.as_bytes().to_vec(),
            any_case: **text == text.to_lowercase() && index % 2 == 0,
            what: Needle::Word(index),
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
                    if there == one.text || one.any_case && there.eq_ignore_ascii_case(&one.text) {
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
