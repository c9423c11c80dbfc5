//! Few, long literals that are looked for wherever they stand: of each, the four bytes that are
//! rarest in other text are given to the run finder, which looks at every place for them; the rest
//! is compared where they stand.

use super::runs::{FIRST, SETS, Sets, beginning, divide, frequency};

/// What a rule wants to be looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    /// Its literal, and the rule.
    Literal(String, usize),
    /// A byte that all its matches hold.
    Byte(u8),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Where a literal stands, and whose it is.
    Literal(usize, usize),
    /// Such a byte.
    Byte(u8),
}

struct Needle {
    text: Vec<u8>,
    /// Where in it the bytes are that are looked for.
    offset: usize,
    /// Whose literal it is; of a byte, nobody's.
    rules: Vec<usize>,
}

/// All of them.
pub(super) struct Needles {
    /// For the run finder.
    pub(super) sets: Sets,
    /// By set.
    needles: [Vec<Needle>; SETS],
}

impl Needles {
    pub(super) fn new(mut wanted: Vec<Wanted>) -> Self {
        wanted.sort_unstable();
        wanted.dedup();
        let mut all: Vec<Needle> = Vec::new();
        for one in wanted {
            let (text, rule) = match one {
                Wanted::Literal(text, rule) => (text.into_bytes(), Some(rule)),
                Wanted::Byte(byte) => (vec![byte], None),
            };
            match all.last_mut().filter(|last| last.text == text && rule.is_some()) {
                Some(last) => last.rules.extend(rule),
                None => {
                    let offset = rarest(&text);
                    all.push(Needle { text, offset, rules: rule.into_iter().collect() });
                }
            }
        }
        let beginnings: Vec<_> = all.iter().map(|n| beginning(n.looked_for(), false)).collect();
        let mut made = Self { sets: Sets::default(), needles: std::array::from_fn(|_| Vec::new()) };
        for ((needle, beginning), set) in
            all.into_iter().zip(&beginnings).zip(divide(&beginnings, 0..SETS))
        {
            made.sets.add(set, beginning);
            if let Some(needles) = made.needles.get_mut(set) {
                needles.push(needle);
            }
        }
        made
    }

    /// Calls with what stands at a place that the run finder let pass.
    pub(super) fn each(&self, text: &[u8], place: usize, found: &mut dyn FnMut(Found)) {
        let rest = text.get(place..).unwrap_or_default();
        let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut bytes = [0; FIRST];
            bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            bytes
        });
        let sets = self.sets.of(&bytes);
        let needles = self.needles.iter().enumerate().filter(|(set, _)| sets >> set & 1 == 1);
        for needle in needles.flat_map(|(_, needles)| needles) {
            let Some(start) = place.checked_sub(needle.offset) else { continue };
            if !text.get(start..).is_some_and(|here| here.starts_with(&needle.text)) {
                continue;
            }
            match (needle.rules.as_slice(), needle.text.first()) {
                ([], Some(byte)) => found(Found::Byte(*byte)),
                (rules, _) => rules.iter().for_each(|rule| found(Found::Literal(start, *rule))),
            }
        }
    }
}

impl Needle {
    fn looked_for(&self) -> &[u8] {
        self.text.get(self.offset..).unwrap_or_default()
    }
}

/// Where the four bytes of a literal begin that are met least elsewhere.
fn rarest(text: &[u8]) -> usize {
    let share = |bytes: &[u8]| bytes.iter().map(|byte| frequency(*byte)).product::<u64>();
    let windows = text.windows(FIRST).map(share).zip(0..);
    windows.min().map_or(0, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_by_its_rarest_bytes() {
        let literal = |text: &str, rule| Wanted::Literal(text.to_owned(), rule);
        let needles = Needles::new(vec![
            literal("-----BEGIN RSA", 3),
            literal("-----BEGIN ", 4),
            literal("-----BEGIN RSA", 5),
            literal(":AA", 6),
            Wanted::Byte(b'@'),
        ]);
        let text = b"@-----BEGIN RSA :AA";
        let mut found = Vec::new();
        for place in 0..text.len() {
            let mut passes = false;
            needles.each(text, place, &mut |one| {
                passes = true;
                found.push(one);
            });
            let mut window = [0; FIRST];
            window.iter_mut().zip(&text[place..]).for_each(|(to, from)| *to = *from);
            assert!(!passes || needles.sets.of(&window) != 0);
        }
        found.sort_unstable_by_key(|one| format!("{one:?}"));
        let literals = [(1, 3), (1, 4), (1, 5), (16, 6)].map(|(at, r)| Found::Literal(at, r));
        assert_eq!(found, [&[Found::Byte(b'@')][..], &literals].concat());
    }
}
