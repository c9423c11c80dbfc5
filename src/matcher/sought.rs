//! What of each rule is looked for in a text, and how. The build script compiles this file too, to
//! divide what is looked for of the built-in rules: it names nothing but what rule files say, and
//! [`super::runs`]' sets.

use std::collections::BTreeMap;
use std::ops::Range;

use super::runs::{
    Beginning, FIRST, LENGTH_MAX, NEEDLE_TABLES, SETS, Sets, TABLES, beginning, frequency,
};
use crate::rule::{Entry, Facts, Left, Text, WIDE_MIN, Within};

/// Shortest run, from a literal on, by which a rule is looked for; one that is content with less
/// is looked for in the whole text.
const RUN_MIN: usize = 16;

/// A rule, and what was read off its pattern.
pub(super) type Read<'a> = (&'a Entry, &'a Facts);

/// How a rule is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Its prefixes, where a run of so many bytes goes on.
    Narrow(usize),
    /// The same with wide runs.
    Wide(usize),
    /// Its literals, before a byte that all its matches hold and little else does.
    Before(u8),
    /// Its literals, wherever they stand.
    Anywhere,
    /// What announces it.
    Announced,
}

/// The way of a rule.
pub(super) fn way((entry, facts): Read<'_>) -> Way {
    let rest = run_of((entry, facts));
    match (facts.within, facts.required_byte) {
        _ if entry.is_announced() => Way::Announced,
        (Within::Runs, _) if rest >= RUN_MIN => Way::Narrow(rest.min(LENGTH_MAX)),
        (Within::WideRuns, _) if rest >= WIDE_MIN => Way::Wide(rest.min(LENGTH_MAX)),
        (_, Some(byte)) => Way::Before(byte),
        (_, None) => Way::Anywhere,
    }
}

/// How many bytes a rule asks for from its literal on.
fn run_of((entry, facts): Read<'_>) -> usize {
    let offset = entry.offsets.iter().copied().max().unwrap_or_default();
    facts.match_min.saturating_sub(offset)
}

/// Whether a rule's literal may stand in the middle of a word.
fn counts_anywhere(entry: &Entry) -> bool {
    entry.left != Left::Boundary || entry.offsets.iter().any(|offset| *offset != 0)
}

/// The beginning of keys.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    pub(super) text: Text,
    /// Whether it counts in the middle of a word, for any of its rules.
    pub(super) anywhere: bool,
    /// Whether all its rules ask for a run of [`LENGTH_MAX`] bytes or more.
    pub(super) is_long: bool,
    /// What may stand behind it: a bit for each ASCII character.
    pub(super) behind: u128,
}

/// The prefixes of all rules that are looked for in runs, in order, and of each the rules that want it
/// or another one that it begins with.
pub(super) fn prefixes(rules: &[Read<'_>]) -> (Vec<Prefix>, Lists<usize>) {
    let in_runs =
        |(_, rule): &(usize, &Read<'_>)| matches!(way(**rule), Way::Narrow(_) | Way::Wide(_));
    let mut wanted: Vec<(&Text, usize)> = rules
        .iter()
        .enumerate()
        .filter(in_runs)
        .flat_map(|(index, (entry, _))| entry.prefixes.iter().map(move |text| (text, index)))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let (texts, owners) = grouped(&wanted);
    let prefix = |(text, owners): (Text, &[usize])| {
        let owners = || owners.iter().filter_map(|index| rules.get(*index));
        Prefix {
            text,
            anywhere: owners().any(|(entry, _)| counts_anywhere(entry)),
            is_long: owners().all(|rule| run_of(*rule) >= LENGTH_MAX),
            behind: owners().fold(0, |all, (_, facts)| all | facts.alphabet),
        }
    };
    (texts.into_iter().zip(owners.iter()).map(prefix).collect(), owners)
}

/// Lists, one behind the other.
#[derive(Debug)]
pub(super) struct Lists<T> {
    all: Vec<T>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl<T> Lists<T> {
    fn range(&self, index: usize) -> Option<Range<usize>> {
        let start =
            index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        Some(start..*self.ends.get(index)?)
    }

    /// The list of that index; none is there: an empty one.
    pub(super) fn get(&self, index: usize) -> &[T] {
        self.range(index).and_then(|range| self.all.get(range)).unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.ends.len()).map(|index| self.get(index))
    }
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { all: Vec::new(), ends: Vec::new() }
    }
}

/// For `(needle, owner)` in order: the needles, and the owners of each and of those it begins with.
pub(super) fn grouped<T: Copy>(wanted: &[(&Text, T)]) -> (Vec<Text>, Lists<T>) {
    let mut needles = Vec::with_capacity(wanted.len());
    let mut owners = Lists::default();
    owners.all.reserve(wanted.len());
    owners.ends.reserve(wanted.len());
    // The needles with which the last one begins, the shortest first, and itself.
    let mut begun: Vec<(&Text, usize)> = Vec::new();
    for same in wanted.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((needle, _)) = same.first() else { continue };
        while begun.pop_if(|(shorter, _)| !needle.starts_with(&***shorter)).is_some() {}
        if let Some(inherited) = begun.last().and_then(|(_, index)| owners.range(*index)) {
            owners.all.extend_from_within(inherited);
        }
        owners.all.extend(same.iter().map(|(_, owner)| *owner));
        owners.ends.push(owners.all.len());
        begun.push((*needle, needles.len()));
        needles.push((*needle).clone());
    }
    (needles, owners)
}

/// How beginnings are divided into so many sets: answers the set of each.
pub(super) type Divide<'a> = &'a dyn Fn(&[Beginning], usize) -> Vec<usize>;

/// All of prefixes that [`firsts`] looks at, as numbers: what is made of the same is the same.
pub(super) fn seen_of_prefixes(prefixes: &[Prefix]) -> impl Iterator<Item = u64> {
    prefixes.iter().flat_map(|Prefix { text, anywhere, is_long, behind }| {
        let first = text.as_bytes().get(..FIRST);
        let flags = u64::from(*anywhere) << 1 | u64::from(*is_long);
        let size = (first.map_or(text.len(), <[u8]>::len) as u64) << 2 | flags;
        let behind = first.is_none().then(|| halves(*behind));
        numbers(first.unwrap_or(text.as_bytes())).chain([size]).chain(behind.into_iter().flatten())
    })
}

/// A text, eight bytes at a time.
fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    let number =
        |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << u8::BITS | u64::from(*byte));
    text.chunks(8).map(number)
}

fn halves(bits: u128) -> [u64; 2] {
    [bits >> u64::BITS, bits & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0))
}

/// What of prefixes is told by their first bytes.
pub(super) fn firsts(prefixes: &[Prefix], divide: Divide<'_>) -> [Sets; TABLES] {
    let groups = KINDS.map(|(is_long, anywhere, sets)| {
        let wanted = prefixes.iter().filter(|p| (p.is_long, p.anywhere) == (is_long, anywhere));
        let all = wanted.map(|prefix| beginning(prefix.text.as_bytes(), false, prefix.behind));
        let beginnings = in_order(all);
        let divided = divide(&beginnings, sets.len()).into_iter().map(|set| sets.start + set);
        let divided: Vec<usize> = divided.collect();
        (beginnings, divided)
    });
    Sets::tables(
        groups
            .iter()
            .flat_map(|(beginnings, divided)| beginnings.iter().zip(divided.iter().copied())),
    )
}

/// By table of [`firsts`]: the sets that count in the middle of a word.
pub(super) fn anywhere() -> [u8; TABLES] {
    let mut all = [0; TABLES];
    for (_, _, sets) in KINDS.into_iter().filter(|(_, anywhere, _)| *anywhere) {
        for set in sets {
            if let Some(all) = all.get_mut(set / SETS) {
                *all |= 1 << (set % SETS);
            }
        }
    }
    all
}

/// Prefixes that share some sets: whether they are long, and whether they count anywhere.
const KINDS: [(bool, bool, Range<usize>); 4] = [
    (false, true, 0..6),
    (false, false, 6..SETS),
    (true, true, SETS..2 * SETS),
    (true, false, 2 * SETS..TABLES * SETS),
];

/// All of texts that [`needles`] looks at, as numbers: what is made of the same is the same.
pub(super) fn seen_of_wanted(wanted: &[Wanted]) -> impl Iterator<Item = u64> {
    wanted.iter().flat_map(|Wanted { text, any_case, before: (count, class), behind, .. }| {
        let sizes = [text.len() as u64, (*count as u64) << 1 | u64::from(*any_case)];
        let classes = [*class, *behind].into_iter().flat_map(halves);
        sizes.into_iter().chain(classes).chain(numbers(text.as_bytes()))
    })
}

/// Of texts that are looked for anywhere: where the bytes of each begin that are looked for, and what
/// of them these tell.
pub(super) fn needles(
    wanted: &[Wanted],
    divide: Divide<'_>,
) -> (Vec<usize>, [Sets; NEEDLE_TABLES]) {
    let offsets: Vec<usize> = wanted.iter().map(Wanted::offset).collect();
    let all = wanted.iter().zip(&offsets).map(|(one, offset)| one.beginning(*offset));
    let beginnings = in_order(all);
    let sets = divide(&beginnings, NEEDLE_TABLES * SETS);
    (offsets, Sets::tables(beginnings.iter().zip(sets)))
}

/// Each once, in order.
fn in_order(beginnings: impl Iterator<Item = Beginning>) -> Vec<Beginning> {
    let mut all: Vec<Beginning> = beginnings.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What is looked for wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) text: Text,
    /// Capitals and small letters alike; the text is in small ones.
    pub(super) any_case: bool,
    pub(super) what: Needle,
    /// What stands before it, which is looked at too: so many ASCII characters, of these.
    pub(super) before: (usize, u128),
    /// What may stand behind it: a bit for each ASCII character.
    pub(super) behind: u128,
}

/// What stands there, if it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needle {
    /// The literal of that rule.
    Literal(usize),
    /// One of the bytes of [`Way::Before`].
    Byte(u8),
    /// One of [`announcing`], by its place.
    Word(usize),
}

/// A text that announces keys, and whether it is what an id of another rule begins with. There
/// capitals count: in small letters, hex digits are full of some of them.
pub(super) type Word<'a> = (&'a Text, bool);

/// What a word announces.
#[derive(Default)]
pub(super) struct Announces {
    /// A keyword: the rules that have it.
    pub(super) rules: Vec<usize>,
    /// Of ids that begin so: the rule of each, and one that names it.
    pub(super) ids: Vec<(usize, usize)>,
    /// What may stand behind it in them: a bit for each ASCII character.
    behind: u128,
}

/// All of them.
pub(super) fn announcing<'a>(rules: &[Read<'a>]) -> BTreeMap<Word<'a>, Announces> {
    let mut words: BTreeMap<Word<'a>, Announces> = BTreeMap::new();
    for (index, (entry, _)) in rules.iter().enumerate() {
        for word in entry.keywords.iter() {
            words.entry((word, false)).or_default().rules.push(index);
        }
        if entry.beside.is_empty() {
            continue;
        }
        let others = rules.iter().enumerate();
        for (id, (other, facts)) in
            others.filter(|(_, (other, _))| entry.beside.contains(&other.id))
        {
            for beginning in other.prefixes.iter() {
                let word = words.entry((beginning, true)).or_default();
                word.ids.push((id, index));
                // A short id may end with it, and one of which it is not the beginning.
                let goes_on = facts.match_min >= FIRST && other.offsets.iter().all(|at| *at == 0);
                word.behind |= if goes_on { facts.alphabet } else { u128::MAX };
            }
        }
    }
    words
}

/// Literals, bytes and words that are looked for wherever they stand.
pub(super) fn wanted(rules: &[Read<'_>], words: &BTreeMap<Word<'_>, Announces>) -> Vec<Wanted> {
    let mut all = Vec::new();
    // By byte, what stands before it: literals of that length at least, and what matches consist of.
    let mut bytes: BTreeMap<u8, (usize, u128)> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let (entry, facts) = rule;
        match way(*rule) {
            Way::Anywhere => all.extend(
                entry
                    .prefixes
                    .iter()
                    .map(|prefix| Wanted { what: Needle::Literal(index), ..Wanted::text(prefix) }),
            ),
            Way::Before(byte) => {
                let (least, class) = bytes.entry(byte).or_insert((FIRST - 1, 0));
                *least = entry.prefixes.iter().map(|prefix| prefix.len()).fold(*least, usize::min);
                *class |= facts.alphabet;
            }
            Way::Narrow(_) | Way::Wide(_) | Way::Announced => {}
        }
    }
    all.extend(bytes.into_iter().map(|(byte, before)| Wanted {
        text: char::from(byte).to_string().into(),
        any_case: false,
        what: Needle::Byte(byte),
        before,
        behind: u128::MAX,
    }));
    all.extend(words.iter().zip(0..).map(|(((text, is_id), word), index)| Wanted {
        any_case: !is_id,
        what: Needle::Word(index),
        behind: if *is_id { word.behind } else { u128::MAX },
        ..Wanted::text(text)
    }));
    all
}

impl Wanted {
    fn text(text: &Text) -> Self {
        Self {
            text: text.clone(),
            any_case: false,
            what: Needle::Literal(0),
            before: (0, 0),
            behind: u128::MAX,
        }
    }

    /// Where its bytes begin that are looked for.
    fn offset(&self) -> usize {
        rarest(self.text.as_bytes(), self.any_case)
    }

    /// From there on, or from what stands before.
    fn beginning(&self, offset: usize) -> Beginning {
        let text = self.text.as_bytes().get(offset..).unwrap_or_default();
        let (count, before) = self.before;
        let own = beginning(text, self.any_case, self.behind);
        let mut all = std::iter::repeat_n(before, count).chain(own);
        std::array::from_fn(|_| all.next().unwrap_or(u128::MAX))
    }
}

/// Bytes that several texts hold and little else, or that are rarer than they seem: the fewer are
/// looked for, the less passes that is none. The first one counts that a text holds.
const SHARED: [&[u8; FIRST]; 52] = [
    b"-BEG", b"cret", b"adog", b"ftla", b"mclo", b"m_cl", b"m-cl", b"luem", b"etli", b"astl",
    b"wili", b"sana", b"zure", b"dfla", b"snyk", b"vaul", b"ilgu", b"npla", b"d.ib", b"pdom",
    b"iam.", b"oshm", b"s_hm", b"okta", b"ssws", b"azdo", b"vsts", b"lstu", b"ado_", b"azp_",
    b"vss_", b"cf_a", b"cf-a", b"cfap", b"cf_t", b"pi_k", b"pi-k", b"pike", b"pp_k", b"ppke",
    b"on_k", b"on-k", b"nt_k", b"nt-k", b"untk", b"ge_k", b"ge-k", b"agek", b"s_ke", b"te_k",
    b"rd.c", b"rdap",
];

/// The same, in order, each with its place in the list: all are looked for in each text.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static SHARED_IN_ORDER: [(u32, usize); SHARED.len()] = {
    let mut all = [(0, 0); SHARED.len()];
    let mut count = 0;
    while count < SHARED.len() {
        let new = (u32::from_be_bytes(*SHARED[count]), count);
        let mut at = count;
        while at > 0 && all[at - 1].0 > new.0 {
            all[at] = all[at - 1];
            at -= 1;
        }
        all[at] = new;
        count += 1;
    }
    all
};

/// Where the four bytes of a text begin that are looked for: shared ones, or those that are met least
/// elsewhere.
fn rarest(text: &[u8], any_case: bool) -> usize {
    let shared = |bytes: &[u8; FIRST]| {
        let gram = u32::from_be_bytes(*bytes);
        let place = SHARED_IN_ORDER.binary_search_by_key(&gram, |(shared, _)| *shared);
        place.ok().and_then(|place| SHARED_IN_ORDER.get(place)).map(|(_, index)| *index)
    };
    let grams = text.array_windows().zip(0..);
    let first = grams.filter_map(|(bytes, at)| Some((shared(bytes)?, at))).min();
    let share = |byte: &u8| match any_case && byte.is_ascii_alphabetic() {
        true => frequency(*byte) + frequency(byte.to_ascii_uppercase()),
        false => frequency(*byte),
    };
    let met_least = || {
        let shares = text.windows(FIRST).map(|bytes| bytes.iter().map(share).product::<u64>());
        shares.zip(0..).min().map(|(_, offset)| offset)
    };
    first.map(|(_, at)| at).or_else(met_least).unwrap_or_default()
}
