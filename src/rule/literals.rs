//! How close literals may stand to each other, and what it takes where they stand in part only: what a
//! text costs that is made of them.

use std::collections::BTreeMap;

use super::file::{Entry, LITERAL_MAX, Left, Text};

/// Found instead of the longer literals that hold it: one short needle is faster to look for.
pub const SHARED_NEEDLE: &str = "://";
/// First bytes of a literal, which are seen at one look.
const GRAM: usize = 4;
/// As how many texts one counts that is compared where the shared needle stands: by its rule.
const SHARED: usize = 2;
/// What each place takes at which a literal is followed, as so many bytes of it.
const FOLLOWED: usize = 3;

/// Whether one of some texts may begin with this.
pub(super) fn begins(rest: &[u8], texts: &[Text]) -> bool {
    texts
        .iter()
        .map(|next| next.as_bytes())
        .any(|next| rest.starts_with(next) || next.starts_with(rest))
}

/// How many bytes apart texts can stand at least that may overlap each other.
pub(super) fn period(texts: &[Text]) -> usize {
    let apart = |text: &Text| {
        let bytes = text.as_bytes();
        let next = |at: &usize| begins(bytes.get(*at..).unwrap_or_default(), texts);
        (1..bytes.len()).find(next).unwrap_or(bytes.len())
    };
    texts.iter().map(apart).min().unwrap_or(1).max(1)
}

/// How many letters and digits a text has from the end of an escape that it may begin with: of `\n`, of
/// `%3D`, `\x3d` and `\u003d`, of `ESC[32m`.
fn escape_ends(text: &[u8]) -> impl Iterator<Item = usize> {
    let hex = |from: usize, to: usize| {
        text.iter().take(to).skip(from).all(|byte| byte.is_ascii_hexdigit())
    };
    let first = text.first().copied().unwrap_or_default();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let code = text.get(digits).is_none_or(|byte| *byte == b'm').then_some(digits + 1);
    let ends = [
        matches!(first, b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'0').then_some(1),
        hex(0, 2).then_some(2),
        (first == b'x' && hex(1, 3)).then_some(3),
        (first == b'u' && hex(1, 5)).then_some(5),
        code.filter(|_| digits > 0),
    ];
    ends.into_iter().flatten()
}

/// How many bytes of texts are looked at in vain for each byte of a text, where they are looked for byte
/// by byte: more than none if one begins with what repeats, or if the end of one is the beginning of
/// another.
pub(super) fn walked(texts: &[Text]) -> usize {
    let shared =
        |one: &[u8], other: &[u8]| one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let within = |text: &Text, other: &Text| {
        let (text, other) = (text.as_bytes(), other.as_bytes());
        let rests = (1..text.len()).filter_map(|at| text.get(at..));
        rests.map(|rest| shared(rest, other)).max().unwrap_or_default()
    };
    let others = texts.iter().enumerate().flat_map(|(index, text)| {
        let others = texts.iter().enumerate().filter(move |(other, _)| *other != index);
        others.map(move |(_, other)| within(text, other))
    });
    let others = others.max().filter(|shared| *shared > GRAM);
    others.map_or(0, |shared| shared + FOLLOWED).saturating_add(repeated(texts))
}

/// How many texts are compared in vain for each byte of a text, where they are looked for by a few of
/// their bytes, whichever: as many as have some in common.
pub(super) fn compared(texts: &[Text]) -> usize {
    let mut grams: BTreeMap<&[u8], usize> = BTreeMap::new();
    for text in texts {
        let mut all: Vec<&[u8]> = text.as_bytes().windows(GRAM).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().for_each(|gram| *grams.entry(gram).or_default() += 1);
        if text.contains(SHARED_NEEDLE) {
            *grams.entry(SHARED_NEEDLE.as_bytes()).or_default() += SHARED;
        }
    }
    let close = |gram: &[u8]| {
        let fits = |at: &usize| gram.get(*at..).is_some_and(|rest| gram.starts_with(rest));
        (1..gram.len()).find(fits).unwrap_or(gram.len())
    };
    let most = grams.into_iter().map(|(gram, count)| count / close(gram)).max();
    most.unwrap_or_default().saturating_add(repeated(texts))
}

/// How often texts may begin within their own beginnings.
fn repeated(texts: &[Text]) -> usize {
    let of = |literal: &[u8]| {
        let repeats = |length: &usize| {
            let beginning = literal.get(..*length).unwrap_or_default();
            let fits = |at: &usize| beginning.get(*at..).is_some_and(|r| beginning.starts_with(r));
            length / (1..*length).find(fits).unwrap_or(*length)
        };
        // What is longer repeats no more often than what is refused.
        let lengths = 1..=literal.len().min(LITERAL_MAX);
        lengths.map(|length| repeats(&length) - 1).max().unwrap_or_default()
    };
    texts.iter().map(|text| of(text.as_bytes())).fold(0, usize::saturating_add)
}

impl Entry {
    /// How many bytes apart literals that count can stand at least: less than the length of one whose
    /// end is the beginning of itself or of another.
    #[must_use]
    pub fn period(&self) -> usize {
        let is_word = |literal: &Text| literal.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if self.left == Left::Boundary
            && self.offsets.iter().all(|offset| *offset == 0)
            && self.prefixes.iter().all(is_word)
        {
            // Something else stands between, or an escape whose end one begins with.
            let shortest = self.prefixes.iter().map(|literal| literal.len()).min();
            let apart = 1 + shortest.unwrap_or_default();
            let escapes = self.prefixes.iter().flat_map(|one| {
                let one = one.as_bytes();
                let begins =
                    |end: &usize| begins(one.get(*end..).unwrap_or_default(), &self.prefixes);
                escape_ends(one).filter(begins)
            });
            let halves = escapes.map(|end| (apart + end) / 2);
            let closest = halves.min().unwrap_or(apart).min(apart);
            return closest.max(period(&self.prefixes));
        }
        period(&self.prefixes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::RuleSet;
    use super::*;

    #[test]
    fn literals_that_overlap_themselves_stand_close() {
        let period = |literals: &[&str], left| {
            let literals = literals.iter().map(|literal| literal.to_string().into()).collect();
            let rules = RuleSet::builtin();
            let rule = rules.rules().find(|rule| rule.id == "github-pat-classic").unwrap();
            Entry { prefixes: literals, left, ..rule.entry.clone() }.period()
        };
        let one = |literal| period(&[literal], Left::Any);
        assert_eq!(["acme_", "zzzz", "zyz_zyz", "zy"].map(one), [5, 1, 4, 2]);
        // The end of one is the beginning of the other.
        assert_eq!(period(&["acme_", "me_a"], Left::Any), 2);
        assert_eq!(period(&["zzzz"], Left::Boundary), 5);
        // Behind an escape, whose end one may be: `%12`, `\\n`, `ESC[1m`.
        let escaped = |literals: &[&str]| period(literals, Left::Boundary);
        assert_eq!([&["1212"], &["abcd"], &["acme"]].map(|one| escaped(one)), [3, 5, 5]);
        assert_eq!(escaped(&["nacme", "acme"]), 3);
        assert_eq!(escaped(&["1macme", "acme"]), 3);
    }
}
