//! What is wrong with a rule that only matching tells.

use super::steps::{Memory, Steps};
use super::{Rule, RuleSet, example};

/// Most bytes that a regex may look at for one byte of text: all of a match, from every literal on.
/// Each takes it some 2 ns.
const LOOKS_MAX: usize = 24;
/// Most steps that may be tried for one byte of text where groups are repeated, at up to 4 ns each.
const TRIES_MAX: usize = 12;

impl Rule {
    /// What is wrong with a pattern that may cost too much, as all of it may be tried from each place at
    /// which a literal stands.
    pub(super) fn cost_fault(&self) -> Option<String> {
        let apart = |most: usize| most * self.period() / self.offsets.len().max(1);
        match Steps::of(&self.pattern).map(|steps| steps.tries()) {
            None => (self.facts.match_max > apart(LOOKS_MAX)).then(|| {
                format!(
                    "pattern: where a repetition may have to give back characters, matches of so \
                     short a literal are at most {} bytes long; bound them closer, or let other \
                     characters follow each repetition",
                    apart(LOOKS_MAX)
                )
            }),
            Some(tries) => (tries > apart(TRIES_MAX)).then(|| {
                format!(
                    "pattern: of so short a literal at most {} parts may be tried, repeated ones as \
                     often as they are; here {tries} are: repeat groups less often",
                    apart(TRIES_MAX)
                )
            }),
        }
    }

    /// What is wrong with the rule's examples.
    pub fn try_examples(&self, set: &RuleSet) -> Vec<String> {
        if let Err(error) = self.compile() {
            return vec![format!("pattern: {error}")];
        }
        let mut faults = Vec::new();
        let templates = self.examples.iter().map(|template| (template, true));
        for (template, wanted) in
            templates.chain(self.negative_examples.iter().map(|template| (template, false)))
        {
            match example::expand(template, (&self.prefixes, &self.offsets), self.checksum) {
                Err(why) => faults.push(why),
                Ok(text) => {
                    let found = set.find_naively(self, &text);
                    let mut memory = Memory::default();
                    let assess = |span| self.assess(&text, span, &mut memory);
                    let best = found.iter().map(assess).max();
                    match (best, wanted) {
                        (None, true) => {
                            faults.push(format!("not found in its example `{template}`"));
                        }
                        (Some(_), false) => {
                            faults.push(format!("found in its negative example `{template}`"));
                        }
                        (Some(best), true) if best < self.confidence => {
                            faults.push(format!("only {best} in its example `{template}`"));
                        }
                        _ => {}
                    }
                }
            }
        }
        faults
    }
}
