//! How beginnings are divided into sets: of the built-in rules, the build script has found it out, with
//! more care than a start has time for.

use super::sets::{Beginning, divide, mark};

// `static DIVIDED: &[(u128, &[u8])]`: by mark, the set of each beginning.
include!(concat!(env!("OUT_DIR"), "/divided.rs"));

/// How often beginnings are put into better sets than they are in, where it has to be found out.
const ROUNDS: usize = 2;

/// The set of each of some beginnings.
pub(in crate::matcher) fn divided(beginnings: &[Beginning], sets: usize) -> Vec<usize> {
    match known(beginnings, sets) {
        Some(known) => known.iter().copied().map(usize::from).collect(),
        None => divide(beginnings, sets, &[], ROUNDS),
    }
}

/// The same, if they are of the built-in rules.
pub(in crate::matcher) fn known(beginnings: &[Beginning], sets: usize) -> Option<&'static [u8]> {
    let mark = mark(beginnings, sets);
    let known =
        DIVIDED.iter().find(|(other, sets)| *other == mark && sets.len() == beginnings.len());
    known.map(|(_, sets)| *sets)
}
