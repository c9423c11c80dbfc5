//! What is looked for, as the run finder wants it. Of the built-in rules, the build script has made it,
//! with more care than a start has time for.

use super::runs::{Beginning, Halves, NEEDLE_TABLES, Sets, TABLES, divide};
use super::sought::{self, Prefix, Wanted};

// `static FIRSTS: (&[u64], [Sets; TABLES])`: what is seen of prefixes, and what is made of such.
// `static NEEDLES: (&[u64], &[usize], [Sets; NEEDLE_TABLES])`: the same of what is looked for anywhere.
include!(concat!(env!("OUT_DIR"), "/divided.rs"));

/// How often beginnings are put into better sets than they are in, where it has to be found out.
const ROUNDS: usize = 2;

fn at_start(beginnings: &[Beginning], sets: usize) -> Vec<usize> {
    divide(beginnings, sets, &[], ROUNDS)
}

/// [`sought::firsts`].
pub(super) fn firsts(prefixes: &[Prefix]) -> [Sets; TABLES] {
    let (seen, made) = &FIRSTS;
    match sought::seen_of_prefixes(prefixes).eq(seen.iter().copied()) {
        true => made.clone(),
        false => sought::firsts(prefixes, &at_start),
    }
}

/// [`sought::needles`].
pub(super) fn needles(wanted: &[Wanted]) -> (Vec<usize>, [Sets; NEEDLE_TABLES]) {
    let (seen, offsets, made) = &NEEDLES;
    match sought::seen_of_wanted(wanted).eq(seen.iter().copied()) {
        true => (offsets.to_vec(), made.clone()),
        false => sought::needles(wanted, &at_start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::runs::FIRST;
    use crate::rule::RuleSet;

    /// The first bytes of a text at a place, with some behind it.
    fn window(text: &[u8], at: usize) -> [u8; FIRST] {
        std::array::from_fn(|index| text.get(at + index).copied().unwrap_or(b'0'))
    }

    #[test]
    fn the_build_script_has_made_all_that_is_built_in() {
        let rules = RuleSet::builtin();
        let read: Vec<sought::Read<'_>> =
            rules.rules().map(|rule| (&**rule, &rule.facts)).collect();
        let (prefixes, _) = sought::prefixes(&read);
        assert!(sought::seen_of_prefixes(&prefixes).eq(FIRSTS.0.iter().copied()));
        for Prefix { text, .. } in prefixes {
            let bytes = window(text.as_bytes(), 0);
            assert!(FIRSTS.1.iter().any(|table| table.of(&bytes) != 0), "{text}");
        }
        let wanted = sought::wanted(&read, &sought::announcing(&read));
        assert!(sought::seen_of_wanted(&wanted).eq(NEEDLES.0.iter().copied()));
        for (Wanted { text, before, .. }, offset) in wanted.iter().zip(NEEDLES.1) {
            let bytes = [&vec![b'0'; before.0], text.as_bytes()].concat();
            let bytes = window(&bytes, *offset);
            assert!(NEEDLES.2.iter().any(|table| table.of(&bytes) != 0), "{text}");
        }
    }

    #[test]
    fn whatever_a_table_is_made_of_is_seen() {
        let prefix = Prefix { text: "abc".into(), anywhere: true, is_long: true, behind: 1 };
        let others = [
            Prefix { text: "abd".into(), ..prefix.clone() },
            Prefix { text: "ab".into(), ..prefix.clone() },
            Prefix { text: "abc\0".into(), ..prefix.clone() },
            Prefix { anywhere: false, ..prefix.clone() },
            Prefix { is_long: false, ..prefix.clone() },
            Prefix { behind: 2, ..prefix.clone() },
            Prefix { behind: 1 << 64, ..prefix.clone() },
        ];
        for other in others {
            let [one, other] = [&prefix, &other].map(std::slice::from_ref);
            assert!(
                !sought::seen_of_prefixes(one).eq(sought::seen_of_prefixes(other)),
                "{other:?}"
            );
        }
        let wanted = Wanted {
            text: "abcdefgh".into(),
            any_case: true,
            what: sought::Needle::Literal(1),
            before: (1, 1),
            behind: 1,
        };
        let others = [
            Wanted { text: "abcdefghi".into(), ..wanted.clone() },
            Wanted { text: "abcdefgi".into(), ..wanted.clone() },
            Wanted { any_case: false, ..wanted.clone() },
            Wanted { before: (2, 1), ..wanted.clone() },
            Wanted { before: (1, 2), ..wanted.clone() },
            Wanted { behind: 2, ..wanted.clone() },
        ];
        for other in others {
            let [one, other] = [&wanted, &other].map(std::slice::from_ref);
            assert!(!sought::seen_of_wanted(one).eq(sought::seen_of_wanted(other)), "{other:?}");
        }
    }
}
