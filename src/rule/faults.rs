//! What is wrong with a rule that only matching tells.

use super::steps::{Memory, Steps};
use super::{Rule, RuleSet, example, file};

/// Most bytes that a regex may look at for one byte of text: all of a match, from every literal on.
/// Each takes it some 2 ns, and where many ways to match may have to be followed at once, as many times.
const LOOKS_MAX: usize = 24;
const REGEX_STEPS_MAX: usize = 600;
/// Most steps that may be tried for one byte of text where no regex is needed, at up to 4 ns each.
const TRIES_MAX: usize = 12;
/// Longest match whose check digits are computed.
const CHECKED_MAX: usize = 512;

impl Rule {
    /// What is wrong with a rule that may cost too much, as all of its pattern may be tried from each
    /// place at which a literal stands.
    pub(super) fn cost_fault(&self) -> Option<String> {
        let apart = if self.is_announced() { file::ANNOUNCED_MIN } else { self.period() };
        let most = |each: usize| each * apart / self.offsets.len().max(1);
        let longest = self.facts.match_max;
        if self.checksum.is_some() && longest > CHECKED_MAX {
            return Some(format!("pattern: with check digits, at most {CHECKED_MAX} bytes long"));
        }
        match Steps::of(&self.pattern).map(|steps| steps.tries()) {
            None if longest > most(LOOKS_MAX) => Some(format!(
                "pattern: where a repetition may have to give back characters, matches are at most {} \
                 bytes long here; bound them closer, or let other characters follow each repetition",
                most(LOOKS_MAX)
            )),
            None if self.facts.steps > REGEX_STEPS_MAX => Some(format!(
                "pattern: a repetition may have to give back characters, in {} ways for a byte of text; \
                 {REGEX_STEPS_MAX} are possible: bound it closer, or let other characters follow it",
                self.facts.steps
            )),
            Some(tries) if tries > most(TRIES_MAX) => Some(format!(
                "pattern: at most {} parts may be tried here, repeated ones as often as they are; {tries} \
                 are: repeat groups less often",
                most(TRIES_MAX)
            )),
            _ => None,
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

#[cfg(test)]
mod tests {
    use super::super::RuleSet;
    use super::super::tests::{GOOD, read};

    #[test]
    fn what_could_cost_too_much_is_refused() {
        let told = |from: &str, to: &str, wanted: &str| {
            let error = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        };
        told("acme_[0-9a-f]{32}", "acme_(?:[a-z]{1,90}-?){1,20}", "repetitions within repetitions");
        told(
            "acme_[0-9a-f]{32}",
            "acme_[0-9a-f]{0,400}[0-9a-f]{0,400}[0-9a-f]{0,400}",
            "acme-key: pattern: repetitions of the same characters, one behind the other",
        );
        let many: Vec<String> = (10..43).map(|n| format!("\"a{n}\"")).collect();
        let many = format!("prefixes: [\"acme_\", {}]", many.join(", "));
        let short = GOOD.replace("{32}", "{8}").replace("<hex:32>", "<hex:8>");
        let error = read(&short.replace("prefixes: [\"acme_\"]", &many)).unwrap_err().to_string();
        assert!(error.contains("t.yaml:3: acme-key: prefixes: at most 32"), "{error}");
        told(
            "acme_[0-9a-f]{32}",
            "acme_[0-9a-f]{32,800}(?:0a|b1)",
            "acme-key: pattern: where a repetition may have to give back characters, matches are \
             at most 120 bytes long here",
        );
        told(
            "acme_[0-9a-f]{32}",
            "acme_(?:[0-9a-f]{1,16}_){1,31}-",
            "acme-key: pattern: at most 60 parts may be tried here",
        );
        told(
            "[\"acme_\"]\n    pattern",
            "[\"acme_\", \"acme_a\"]\n    pattern",
            "begins with `acme_`",
        );
        told("confidence", "checksum: crc32-base62\n    confidence", "only low in its example");
        told(
            "acme_[0-9a-f]{32}",
            "acme_[0-9a-f]{0,60}0[0-9a-f]{0,50}",
            "pattern: a repetition may have to give back characters, in ",
        );
    }

    #[test]
    fn only_so_many_faults_have_their_lines() {
        let rule = GOOD.lines().skip(2).map(|line| format!("{line}\n")).collect::<String>();
        let rules =
            (0..150).map(|n| rule.replace("acme-key", &format!("k{n}")).replace("<hex:32>", "x"));
        let error = read(&format!("rules:\n{}", rules.collect::<String>())).unwrap_err();
        let line = 2 + 99 * rule.lines().count();
        assert_eq!(error.faults.len(), 150, "{error}");
        assert!(error.faults[99].starts_with(&format!("t.yaml:{line}: k99: ")), "{error}");
        assert!(error.faults[0].starts_with("t.yaml:2: k0: "), "{error}");
        assert!(error.faults[149].starts_with("t.yaml: k149: "), "{error}");
    }

    #[test]
    fn no_built_in_rule_costs_too_much() {
        let rules = RuleSet::builtin();
        let costly = rules.rules().filter(|rule| rule.cost_fault().is_some());
        let costly: Vec<&str> = costly.map(|rule| &*rule.id).collect();
        // Over what is allowed to others, and measured instead: `cargo bench -- hostile`.
        let measured = [
            "openai-project-key",
            "pem-private-key",
            "pem-encrypted-private-key",
            "jdbc-url-password",
            "slack-user-token",
            "slack-webhook-url",
            "discord-webhook-url",
            "discord-bot-token",
            "gitlab-routable-token",
            "gitlab-routable-token-17",
        ];
        assert_eq!(costly, measured);
    }

    #[test]
    fn literals_that_overlap_themselves_stand_close() {
        let period = |literal: &str| {
            let set = read(&GOOD.replace("acme_", literal)).unwrap();
            set.rules().next_back().unwrap().period()
        };
        // The end of one is the beginning of the other.
        let two = GOOD.replace("[\"acme_\"]", "[\"acme_\", \"me_a\"]");
        assert_eq!(read(&two).unwrap().rules().next_back().unwrap().period(), 2);
        assert_eq!(["acme_", "zzzz", "zyz_zyz", "zy"].map(period), [5, 1, 4, 2]);
        let behind =
            GOOD.replace("acme_", "zzzz").replace("pattern", "left: boundary\n    pattern");
        assert_eq!(read(&behind).unwrap().rules().next_back().unwrap().period(), 5);
    }
}
