//! Prefixes of keys, looked for only at places from which a run of key characters goes on.
//!
//! The run finder has looked at four bytes of each place already ([`Firsts`]). What it lets pass is
//! hashed into a bitmap; what that lets pass is asked of the aho-corasick automaton, anchored there.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};

use super::divided;
use super::runs::Firsts;
use super::sought::{Prefix, anywhere};
use crate::rule::{Text, is_wide_byte};

const BITS: usize = 1 << 16;

/// What can follow in a run.
fn member() -> impl Iterator<Item = u8> {
    (0..=255).filter(|byte| is_wide_byte(*byte))
}

/// The set of the first bytes of all prefixes, as a bitmap: yes may be wrong, no never is.
struct Gate {
    bits: Box<[u64; BITS / 64]>,
    /// How far these are shifted, up to the last one that counts.
    shift: u32,
}

impl Gate {
    fn new(prefixes: &[Text]) -> Self {
        // The fourth byte counts where all have one.
        let all_have = prefixes.iter().all(|prefix| prefix.len() > 3);
        let shift = if all_have { 0 } else { u8::BITS };
        let mut gate = Self { bits: Box::new([0; BITS / 64]), shift };
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
        let gram = u32::from_le_bytes(bytes) << self.shift;
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

/// Texts that are looked for together.
pub(super) struct Prefixes {
    /// For the run finder.
    pub(super) firsts: Firsts,
    gate: Gate,
    prefixes: Vec<Text>,
    longest: usize,
    /// Made when first asked: most files have nothing that gets here. `None`: too large to make.
    automaton: OnceLock<Option<AhoCorasick>>,
}

impl Prefixes {
    /// The index of a prefix is that in `prefixes`.
    pub(super) fn new(prefixes: Vec<Prefix>) -> Self {
        let firsts = Firsts::new(divided::firsts(&prefixes), anywhere());
        let prefixes: Vec<Text> = prefixes.into_iter().map(|prefix| prefix.text).collect();
        Self {
            firsts,
            gate: Gate::new(&prefixes),
            longest: prefixes.iter().map(|prefix| prefix.len()).max().unwrap_or_default(),
            prefixes,
            automaton: OnceLock::new(),
        }
    }

    /// The index of the longest prefix at the beginning of a text.
    fn longest_at(&self, text: &[u8]) -> Option<usize> {
        let text = text.get(..self.longest.min(text.len()))?;
        let automaton = self.automaton.get_or_init(|| {
            AhoCorasick::builder()
                // Built in no time; it is asked too rarely for a faster one to show.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::LeftmostLongest)
                .prefilter(false)
                .build(self.prefixes.iter().map(|prefix| prefix.as_bytes()))
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
        let stands = |prefix: &str| text.starts_with(prefix.as_bytes());
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
            let prefix = |text: &String| Prefix {
                text: text.clone().into(),
                anywhere: true,
                is_long: false,
                behind: u128::MAX,
            };
            let ours = Prefixes::new(prefixes.iter().map(prefix).collect());
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
