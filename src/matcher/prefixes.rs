//! Prefixes of keys, looked for only at places from which a run of key characters goes on.
//!
//! The run finder has looked at four bytes of each place already ([`Firsts`]). Of what it lets pass
//! (one place in sixty of random text), three bytes are hashed into a bitmap; what that lets pass
//! (one in some hundreds) is asked of the aho-corasick automaton, anchored there.

use super::runs::{FIRST, Firsts, SETS};
use crate::rule::is_wide_byte;
use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};

const BITS: usize = 1 << 16;

/// What can follow in a run.
fn member() -> impl Iterator<Item = u8> {
    (0..=255).filter(|byte| is_wide_byte(*byte))
}

/// The set of the first bytes of all prefixes, as a bitmap: yes may be wrong, no never is.
struct Gate {
    bits: Box<[u64; BITS / 64]>,
    /// What is set in each byte before it is hashed: the bit of the case, where it does not matter.
    fold: u32,
    /// How far these are shifted, up to the last one that counts.
    shift: u32,
}

impl Gate {
    fn new(prefixes: &[String], any_case: bool) -> Self {
        let fold = if any_case { 0x2020_2020 } else { 0 };
        // The fourth byte counts where all have one.
        let all_have = prefixes.iter().all(|prefix| prefix.len() > 3);
        let shift = if all_have { 0 } else { u8::BITS };
        let mut gate = Self { bits: Box::new([0; BITS / 64]), fold, shift };
        for prefix in prefixes {
            match *prefix.as_bytes() {
                [] => {}
                [a] => member().for_each(|b| member().for_each(|c| gate.add([a, b, c, 0]))),
                [a, b] => member().for_each(|c| gate.add([a, b, c, 0])),
                [a, b, c] => gate.add([a, b, c, 0]),
                [a, b, c, d, ..] => gate.add([a, b, c, d]),
            }
        }
        gate
    }

    fn add(&mut self, bytes: [u8; 4]) {
        let slot = self.slot(bytes);
        if let Some(word) = self.bits.get_mut(slot >> 6) {
            *word |= 1 << (slot & 63);
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the innermost loop")]
    fn slot(&self, bytes: [u8; 4]) -> usize {
        let gram = (u32::from_le_bytes(bytes) | self.fold) << self.shift;
        (gram.wrapping_mul(0x9e37_79b1) >> 16) as usize
    }

    #[inline]
    fn passes(&self, text: &[u8], at: usize) -> bool {
        let rest = text.get(at..).unwrap_or_default();
        let bytes = rest.first_chunk::<4>().copied().unwrap_or_else(|| {
            let mut bytes = [0; 4];
            bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            bytes
        });
        let slot = self.slot(bytes);
        self.bits.get(slot >> 6).is_some_and(|word| word >> (slot & 63) & 1 == 1)
    }
}

/// By position: which low halves a set of prefixes has there, and which high halves.
type Set = [(u16, u16); FIRST];

/// How many of the key characters pass each position, and so, multiplied, how much of random text.
fn passing(halves: &Set, alphabet: &[u16; 8]) -> u32 {
    let share = |(lows, highs): &(u16, u16)| -> u32 {
        let rows = alphabet.iter().enumerate().filter(|(high, _)| highs >> high & 1 == 1);
        rows.map(|(_, row)| (row & lows).count_ones()).sum()
    };
    halves.iter().map(share).product()
}

/// Divides prefixes into sets, each next one to where it lets the fewest places more pass, among
/// those that are given with it.
fn firsts(prefixes: &[(&str, Range<usize>)], any_case: bool) -> Firsts {
    // By high half: the low halves of key characters.
    let alphabet: [u16; 8] = std::array::from_fn(|high| {
        (0..16)
            .filter(|low| u8::try_from(high << 4 | low).is_ok_and(is_wide_byte))
            .fold(0, |lows, low| lows | 1 << low)
    });
    let with = |mut halves: Set, first: &[u8]| {
        for (at, (lows, highs)) in halves.iter_mut().enumerate() {
            match first.get(at) {
                Some(byte) => {
                    *lows |= 1 << (byte & 15);
                    *highs |= 1 << (byte >> 4);
                    if any_case && byte.is_ascii_alphabetic() {
                        *highs |= 1 << ((byte ^ 0x20) >> 4);
                    }
                }
                None => (*lows, *highs) = (u16::MAX, 0xff),
            }
        }
        halves
    };
    let first = |(text, among): &(&str, Range<usize>)| {
        (among.start, among.end, text.bytes().take(FIRST).collect::<Vec<u8>>())
    };
    let mut beginnings: Vec<_> = prefixes.iter().map(first).collect();
    beginnings.sort_unstable();
    beginnings.dedup();
    let mut sets = [(Set::default(), 0); 2 * SETS];
    for (start, end, first) in beginnings {
        let grown = sets.get_mut(start..end).into_iter().flatten().map(|set| {
            let halves = with(set.0, &first);
            let cost = passing(&halves, &alphabet);
            (cost - set.1, (halves, cost), set)
        });
        if let Some((_, grown, set)) = grown.min_by_key(|(more, ..)| *more) {
            *set = grown;
        }
    }
    let mut firsts = Firsts::new();
    for (table, sets) in firsts.tables.iter_mut().zip(sets.as_chunks::<SETS>().0) {
        for (bit, (set, _)) in sets.iter().enumerate() {
            for (position, (lows, highs)) in table.iter_mut().zip(set) {
                for (entries, halves) in [(&mut position.low, lows), (&mut position.high, highs)] {
                    let entries = entries.iter_mut().enumerate();
                    for (_, entry) in entries.filter(|(half, _)| halves >> half & 1 == 1) {
                        *entry |= 1 << bit;
                    }
                }
            }
        }
    }
    firsts
}

/// The beginning of keys.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    pub(super) text: String,
    /// Whether it counts in the middle of a word, for any of its rules.
    pub(super) anywhere: bool,
}

/// Texts that are looked for together.
pub(super) struct Prefixes {
    /// For the run finder.
    pub(super) firsts: Firsts,
    gate: Gate,
    prefixes: Vec<String>,
    any_case: bool,
    longest: usize,
    /// Made when first asked: most files have nothing that gets here. `None`: too large to make.
    automaton: OnceLock<Option<AhoCorasick>>,
}

impl Prefixes {
    /// For [`super::runs::each`]. The index of a prefix is that in `prefixes`.
    pub(super) fn of_keys(prefixes: Vec<Prefix>) -> Self {
        let sets = |anywhere| if anywhere { 0..SETS } else { SETS..2 * SETS };
        let all: Vec<_> = prefixes.iter().map(|p| (&*p.text, sets(p.anywhere))).collect();
        let firsts = firsts(&all, false);
        Self::new(firsts, prefixes.into_iter().map(|prefix| prefix.text).collect(), false)
    }

    /// For [`super::runs::each_first`]. `any_case`: capitals and small letters alike.
    pub(super) fn of_words(words: Vec<String>, any_case: bool) -> Self {
        let all: Vec<_> = words.iter().map(|word| (&**word, 0..2 * SETS)).collect();
        Self::new(firsts(&all, any_case), words, any_case)
    }

    fn new(firsts: Firsts, prefixes: Vec<String>, any_case: bool) -> Self {
        Self {
            firsts,
            gate: Gate::new(&prefixes, any_case),
            longest: prefixes.iter().map(String::len).max().unwrap_or_default(),
            prefixes,
            any_case,
            automaton: OnceLock::new(),
        }
    }

    /// The index of the longest prefix at the beginning of a text.
    fn longest_at(&self, text: &[u8]) -> Option<usize> {
        let text = text.get(..self.longest.min(text.len()))?;
        let automaton = self.automaton.get_or_init(|| {
            AhoCorasick::builder()
                // Built in no time; it is asked too rarely for a faster one to show.
                .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::LeftmostLongest)
                .prefilter(false)
                .ascii_case_insensitive(self.any_case)
                .build(&self.prefixes)
                .ok()
        });
        match automaton {
            Some(automaton) => {
                let found = automaton.find(Input::new(text).anchored(Anchored::Yes));
                found.map(|hit| hit.pattern().as_usize())
            }
            None => self.longest_slowly(text),
        }
    }

    fn longest_slowly(&self, text: &[u8]) -> Option<usize> {
        let stands = |prefix: &str| match text.get(..prefix.len()) {
            Some(here) if self.any_case => here.eq_ignore_ascii_case(prefix.as_bytes()),
            here => here == Some(prefix.as_bytes()),
        };
        let standing = self.prefixes.iter().enumerate().filter(|(_, prefix)| stands(prefix));
        standing.max_by_key(|(_, prefix)| prefix.len()).map(|(index, _)| index)
    }

    /// Of the places `bits` of the 64 from `at` on, calls with those at which a prefix stands, and
    /// the index of the longest one.
    pub(super) fn each(
        &self,
        text: &[u8],
        at: usize,
        bits: u64,
        found: &mut dyn FnMut(usize, usize),
    ) {
        let mut rest = bits;
        while rest != 0 {
            let place = at + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if !self.gate.passes(text, place) {
                continue;
            }
            if let Some(prefix) = self.longest_at(text.get(place..).unwrap_or_default()) {
                found(place, prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// The gate lets nothing through that aho-corasick alone would find.
        #[test]
        fn the_same_as_aho_corasick_alone(text in "[a-d]{0,200}", bits: u64) {
            // Prefixes stand in runs, with more of the run behind them.
            let text = format!("{text}xx");
            let bits = if text.len() < 64 { bits & ((1 << (text.len() - 2)) - 1) } else { bits };
            let prefixes = ["ab", "abca", "bdd", "dddda", "c"].map(str::to_owned);
            let mut found = Vec::new();
            let ours = Prefixes::of_words(prefixes.to_vec(), false);
            ours.each(text.as_bytes(), 0, bits, &mut |at, index| found.push((at, index)));
            let naive = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .start_kind(StartKind::Both)
                .build(&prefixes)
                .unwrap();
            let expected: Vec<(usize, usize)> = (0..64.min(text.len()))
                .filter(|at| bits >> at & 1 == 1)
                .filter_map(|at| {
                    let input = Input::new(&text).range(at..).anchored(Anchored::Yes);
                    naive.find(input).map(|hit| (at, hit.pattern().as_usize()))
                })
                .collect();
            for (at, index) in &expected {
                let rest = &text.as_bytes()[*at..];
                proptest::prop_assert_eq!(ours.longest_slowly(rest), Some(*index));
            }
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
