//! What is wrong with a rule that only matching tells.

use regex_automata::MatchKind;
use regex_automata::dfa::{StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, HirKind};

use super::file::{Text, WIDE_MIN, Within};
use super::hir::{may_hold, parse};
use super::literals::{begins, compared, period, walked};
use super::steps::Memory;
use super::{Checksum, Rule, RuleSet, example};

/// What a rule may cost at most in nanoseconds for a byte of text that was made to cost as much as it
/// can: less than 50 milliseconds for a mebibyte.
const COST_MAX: usize = 40;
/// What each place takes in nanoseconds at which a literal stands; each of the literals that is compared
/// there; each byte of one that stands there in part.
const PLACE_NS: usize = 35;
const LITERAL_NS: usize = 2;
const PARTLY_NS: usize = 3;
/// What each place takes at which a match may begin, with all that becomes of it but the pattern; where a
/// literal may stand at several offsets, matches do not follow each other in order.
const MATCH_NS: usize = 60;
const MATCH_OF_MANY_NS: usize = 130;
/// Most offsets: what is remembered for matches that overlap is looked at anew for each.
const OFFSETS_MAX: usize = 2;
/// What a regex takes to start, and for each byte it looks at.
const REGEX_NS: usize = 25;
const LOOK_NS: usize = 5;
/// What it takes to compute check digits, beside what each byte takes.
const CHECK_NS: usize = 60;
/// What the entropy of a match takes; and each part of it that is to be JSON.
const ENTROPY_NS: usize = 25;
const JSON_NS: usize = 40;
/// What a keyword takes where it stands; where it is looked for near a key, on one side; and each line
/// break between.
const WORD_NS: usize = 80;
/// What it takes to look for keys near them, for each byte.
const ANNOUNCED_NS: usize = 8;
const NEAR_NS: usize = 20;
const LINE_NS: usize = 5;
/// Bytes that the states of a regex may take, were all of them made: only so many that they stay in a
/// cache of the processor, and in the regex's own, without which each byte would be looked at
/// once for each way to match it.
const STATES_BYTES: usize = 256 << 10;
/// The same while they are made.
const MAKING_BYTES: usize = 1 << 20;

impl Rule {
    /// What is wrong with a rule that may cost too much, as all of its pattern may be tried from each
    /// place at which a literal stands.
    pub(super) fn cost_fault(&self, set: &RuleSet) -> Option<String> {
        let (longest, places) = (self.facts.match_max, self.offsets.len());
        if places > OFFSETS_MAX {
            return Some(format!("offsets: at most {OFFSETS_MAX}; divide the rule"));
        }
        let steps = self.steps();
        let is_regex = steps.is_none() && !has_few_states(&self.pattern);
        let looks_again = steps.is_none_or(|steps| !steps.are_exact());
        if is_regex || looks_again && self.apart().is_some_and(|pattern| !has_few_states(&pattern))
        {
            return Some(
                "pattern: repetitions of the same characters, one behind or within the other, make it too \
                 costly: bound them closer, or let other characters follow each"
                    .to_owned(),
            );
        }
        let checked = match self.checksum {
            None => 0,
            Some(Checksum::Bech32) => CHECK_NS + longest * 4,
            Some(Checksum::AzureIdentifiable) => CHECK_NS + longest * 4,
            // CRC32, for which processors have instructions.
            Some(_) => CHECK_NS + longest / 4,
        };
        let own = if places > 1 { MATCH_OF_MANY_NS } else { MATCH_NS };
        let entropy = if self.min_entropy > 0.0 { ENTROPY_NS } else { 0 };
        let own = own + checked + entropy + self.json_parts * JSON_NS;
        let matches = own.saturating_add(self.pattern_cost()).saturating_mul(places);
        let (apart, found, missed) = match self.is_announced() {
            true => (self.announced_period(), self.near_cost(), self.signs_cost(set)),
            false => {
                let found = PLACE_NS + self.prefixes.len() * LITERAL_NS;
                (self.period(), found, self.partly() * PARTLY_NS)
            }
        };
        let cost = (matches.saturating_add(found) / apart).saturating_add(missed);
        (cost > COST_MAX).then(|| {
            let how = match self.is_announced() {
                true => "take longer or fewer keywords, other or fewer rules `beside`, or fewer `lines`".to_owned(),
                false => format!(
                    "bound repetitions closer, or take longer literals that do not repeat themselves, or \
                     `left: boundary` (now one may begin every {apart} bytes{})",
                    if places > 1 { format!(", at {places} offsets") } else { String::new() }
                ),
            };
            format!(
                "pattern: hostile text could make it cost {cost} ns for a byte, {COST_MAX} are allowed: {how}"
            )
        })
    }

    /// What it takes to try the pattern at one place, in nanoseconds.
    fn pattern_cost(&self) -> usize {
        match self.steps() {
            Some(steps) if steps.are_exact() => steps.cost(),
            Some(steps) => steps.cost().saturating_add(self.again_cost()),
            None => self.regex_cost() + self.again_cost(),
        }
    }

    fn regex_cost(&self) -> usize {
        REGEX_NS + self.nested_max() * LOOK_NS
    }

    /// What it takes to look for another end where the first one does not fit: at whole matches only,
    /// of which those that do not overlap are as far apart as they are long.
    fn again_cost(&self) -> usize {
        if self.apart().is_none() {
            return 0;
        }
        let apart = if self.is_announced() { self.facts.match_min } else { self.period() }.max(1);
        let overlapping = self.nested_max().div_ceil(apart).saturating_mul(apart);
        let least = self.facts.match_min.max(1);
        self.regex_cost().saturating_mul(overlapping.min(least)) / least
    }

    /// What it takes to see whether a match is announced, in nanoseconds.
    fn near_cost(&self) -> usize {
        let sides = if self.after > 0 { 2 } else { 1 };
        let signs = self.keywords.len() + self.beside.len();
        sides * (signs * NEAR_NS + self.lines.saturating_mul(LINE_NS))
    }

    /// How many bytes of its literals a text can make be compared in vain, for each of its bytes.
    fn partly(&self) -> usize {
        let run =
            self.facts.match_min.saturating_sub(self.offsets.iter().copied().max().unwrap_or(0));
        match self.facts.within {
            Within::Anything => compared(&self.prefixes),
            Within::Runs | Within::WideRuns if run >= WIDE_MIN => walked(&self.prefixes),
            Within::Runs | Within::WideRuns => compared(&self.prefixes).max(walked(&self.prefixes)),
        }
    }

    /// How many bytes apart matches begin at least that are announced: something else stands between. Of
    /// what stands behind an escape, one may begin within it as well. A `=` at the end may be left out.
    fn announced_period(&self) -> usize {
        let (least, most) = (self.facts.match_min, self.facts.match_max);
        let least =
            if self.facts.alphabet >> b'=' & 1 == 1 { least.saturating_sub(2) } else { least };
        if least < most { (least + 2) / 2 } else { least + 1 }
    }

    /// What that takes which announces matches, in nanoseconds for a byte of text.
    fn signs_cost(&self, set: &RuleSet) -> usize {
        let words = match self.keywords.is_empty() {
            true => 0,
            false => WORD_NS / period(&self.keywords),
        };
        // Of ids that begin alike, all are tried.
        let alike = |one: &Rule, other: &Rule| {
            let begins = |text: &Text| begins(text.as_bytes(), &other.prefixes);
            one.prefixes.iter().any(begins)
        };
        let ids = set.rules().filter(|rule| self.beside.contains(&rule.id));
        let together = ids.clone().map(|one| {
            let all = ids.clone().filter(|other| alike(one, other));
            all.map(Self::id_cost).fold(0, usize::saturating_add)
        });
        let ids_cost = together.max().unwrap_or_default();
        let texts = ids.flat_map(|rule| rule.prefixes.iter()).chain(self.keywords.iter());
        let texts: Vec<Text> = texts.map(|text| text.to_ascii_lowercase().into()).collect();
        let partly = compared(&texts).max(walked(&self.keywords)) * PARTLY_NS;
        ids_cost.saturating_add(words + partly + ANNOUNCED_NS)
    }

    /// What it takes where matches announce others, in nanoseconds for a byte of text.
    fn id_cost(&self) -> usize {
        let each = self.pattern_cost().saturating_mul(self.offsets.len());
        (WORD_NS + self.prefixes.len() * LITERAL_NS).saturating_add(each) / self.period()
    }

    /// How far into a match another one may begin at most: for so many bytes a text can make several
    /// matches be looked for at once.
    fn nested_max(&self) -> usize {
        let longest = self.facts.match_max;
        let hir = parse(&self.pattern).ok().filter(|_| *self.offsets == [0]);
        let Some(HirKind::Concat(parts)) = hir.as_ref().map(Hir::kind) else { return longest };
        // A literal has no place behind the last part that may hold one of its bytes.
        let last = |byte| parts.iter().rposition(|part| may_hold(part, byte)).unwrap_or_default();
        let end = |byte| {
            let parts = parts.iter().take(last(byte) + 1);
            parts.filter_map(|part| part.properties().maximum_len()).sum()
        };
        let ends = self.prefixes.iter().filter_map(|literal| literal.bytes().map(end).min());
        ends.max().unwrap_or(longest)
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

/// Whether a regex has so few states that all of them could be made beforehand.
fn has_few_states(pattern: &str) -> bool {
    let config = dense::Config::new()
        .match_kind(MatchKind::LeftmostFirst)
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(STATES_BYTES))
        .determinize_size_limit(Some(MAKING_BYTES));
    dense::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MAKING_BYTES)))
        .build(pattern)
        .is_ok()
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
        let costly = |pattern: &str, wanted: &str| told("acme_[0-9a-f]{32}", pattern, wanted);
        let states = "acme-key: pattern: repetitions of the same characters, one behind or within";
        costly("acme_(?:[a-z]{1,90}-?){1,20}", states);
        costly("acme_[0-9a-f]{0,400}0[0-9a-f]{0,400}_", states);
        costly("acme_[ab]{0,20}a[ab]{0,16}c", states);
        costly(
            "acme_[_a-z]{1,120}_[0-9]{9}",
            "acme-key: pattern: hostile text could make it cost 279 ns for a byte, 40 are allowed: \
             bound repetitions closer, or take longer literals that do not repeat themselves, or \
             `left: boundary` (now one may begin every 5 bytes)",
        );
        costly("acme_(?:[0-9a-f]{1,16}_){1,31}-", "could make it cost");
        let classes: String = ('a'..='q').map(|c| format!("[{c}z]{{17,90}}_")).collect();
        costly(&format!("acme_{classes}"), "could make it cost");
        told("acme_", "zz", "could make it cost");
        told("acme_", "12", "could make it cost");
        let within = |more: &str| format!("{more}\n    confidence: high");
        told(
            "confidence: high",
            &within("left: boundary\n    json_parts: 4"),
            "json_parts: at most 3",
        );
        let announced = |keywords: &str, more: &str| {
            let from = "prefixes: [\"acme_\"]";
            let to = format!("keywords: [{keywords}]\n    {more}");
            let rule = GOOD.replace(from, &to).replace("'acme_[", "'[");
            read(&rule).unwrap_err().to_string()
        };
        let error = announced("\"acme_\"", "lines: 1000");
        assert!(error.contains("could make it cost"), "{error}");
        let error = announced(&format!("\"{}\"", "a1".repeat(33)), "lines: 1");
        assert!(error.contains("keywords: in lower case, of 3 to 64 bytes"), "{error}");
        let error = announced(&format!("\"{}b\"", "a".repeat(63)), "lines: 1");
        assert!(error.contains("could make it cost"), "{error}");
        // Each is the end of another one.
        let letters = ('a'..='z').cycle();
        let all: Vec<String> = (0..16)
            .map(|at| letters.clone().skip(at).take(24).collect())
            .map(|part: String| format!("\"{part}_\""))
            .collect();
        told("[\"acme_\"]", &format!("[\"acme_\", {}]", all.join(", ")), "could make it cost");
        told(
            "[\"acme_\"]\n    pattern",
            "[\"acme_\"]\n    offsets: [0, 1]\n    pattern",
            "5 bytes, at 2 offsets)",
        );
        let many = "[\"acme_\"]\n    offsets: [0, 1, 2]\n    pattern";
        told("[\"acme_\"]\n    pattern", many, "acme-key: offsets: at most 2; divide the rule");
        let many: Vec<String> = (10..43).map(|n| format!("\"a{n}\"")).collect();
        let many = format!("prefixes: [\"acme_\", {}]", many.join(", "));
        let short = GOOD.replace("{32}", "{8}").replace("<hex:32>", "<hex:8>");
        let error = read(&short.replace("prefixes: [\"acme_\"]", &many)).unwrap_err().to_string();
        assert!(error.contains("t.yaml:3: acme-key: prefixes: at most 32"), "{error}");
        told(
            "[\"acme_\"]\n    pattern",
            "[\"acme_\", \"acme_a\"]\n    pattern",
            "begins with `acme_`",
        );
        told("confidence", "checksum: crc32-base62\n    confidence", "only low in its example");
    }

    #[test]
    fn what_people_write_is_not_refused() {
        for (literal, pattern, example) in [
            ("acme_", "acme_[0-9A-Za-z]{36,251}", "acme_<base62:40>"),
            ("sig:", "sig:[a-z@]{0,30}@[a-z]{2,4}#[0-9]{8,20}", "sig:ab@ab#<digits:9>"),
            (
                "https://",
                r"https://[a-z0-9.-]{1,60}\.acme\.com/[A-Za-z0-9]{32}",
                "https://a.acme.com/<base62:32>",
            ),
            ("acme-", "acme-[a-z]{2,10}(?:-[0-9a-f]{4,8}){3}", "acme-ab-<hex:4>-<hex:8>-<hex:5>"),
            ("acm", "acm[0-9A-F]{30}", "acm<HEX:30>"),
        ] {
            let rule = GOOD
                .replace("[\"acme_\"]\n    p", &format!("[\"{literal}\"]\n    p"))
                .replace("acme_[0-9a-f]{32}", pattern)
                .replace("acme_<hex:32>", example);
            read(&rule).unwrap();
        }
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
    fn most_built_in_rules_keep_the_bound_of_others() {
        let rules = RuleSet::builtin();
        let costly = rules.rules().filter(|rule| rule.cost_fault(&rules).is_some());
        let costly: Vec<&str> = costly.map(|rule| &*rule.id).collect();
        // Those are measured instead: `cargo bench --bench hostile`.
        assert!(costly.len() * 3 < rules.rules().len(), "{} {costly:?}", costly.len());
    }
}
