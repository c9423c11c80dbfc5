//! What is looked for, as the run finder wants it. Of the built-in rules, the build script has made it,
//! with more care than a start has time for.

use super::runs::{Beginning, Halves, NEEDLE_TABLES, Sets, TABLES, divide};
use super::sought::{self, Prefix, Wanted};

// `static FIRSTS: (u128, [Sets; TABLES])`: a mark, and what is made of such prefixes.
// `static NEEDLES: (u128, &[usize], [Sets; NEEDLE_TABLES])`: the same of what is looked for anywhere.
include!(concat!(env!("OUT_DIR"), "/divided.rs"));

/// How often beginnings are put into better sets than they are in, where it has to be found out.
const ROUNDS: usize = 2;

fn at_start(beginnings: &[Beginning], sets: usize) -> Vec<usize> {
    divide(beginnings, sets, &[], ROUNDS)
}

/// [`sought::firsts`].
pub(super) fn firsts(prefixes: &[Prefix]) -> [Sets; TABLES] {
    let (mark, known) = &FIRSTS;
    match sought::mark_of_prefixes(prefixes) == *mark {
        true => known.clone(),
        false => sought::firsts(prefixes, &at_start),
    }
}

/// [`sought::needles`].
pub(super) fn needles(wanted: &[Wanted]) -> (Vec<usize>, [Sets; NEEDLE_TABLES]) {
    let (mark, offsets, known) = &NEEDLES;
    match sought::mark_of_wanted(wanted) == *mark {
        true => (offsets.to_vec(), known.clone()),
        false => sought::needles(wanted, &at_start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSet;

    #[test]
    fn the_build_script_has_made_all_that_is_built_in() {
        let rules = RuleSet::builtin();
        let read: Vec<sought::Read<'_>> =
            rules.rules().iter().map(|rule| (&***rule, &rule.facts)).collect();
        let (prefixes, _) = sought::prefixes(&read);
        assert_eq!(FIRSTS.0, sought::mark_of_prefixes(&prefixes));
        let wanted = sought::wanted(&read, &sought::announcing(&read));
        assert_eq!(NEEDLES.0, sought::mark_of_wanted(&wanted));
    }

    #[test]
    fn what_a_table_looks_at_is_in_its_mark() {
        let prefix = Prefix { text: "abc".into(), anywhere: true, is_long: true, behind: 1 };
        let others = [
            Prefix { text: "abd".into(), ..prefix.clone() },
            Prefix { text: "ab".into(), ..prefix.clone() },
            Prefix { text: "abc\0".into(), ..prefix.clone() },
            Prefix { anywhere: false, ..prefix.clone() },
            Prefix { is_long: false, ..prefix.clone() },
            Prefix { behind: 2, ..prefix.clone() },
        ];
        let mark = sought::mark_of_prefixes(&[prefix]);
        assert!(
            others
                .iter()
                .all(|other| sought::mark_of_prefixes(std::slice::from_ref(other)) != mark)
        );
    }
}
