//! What of each rule is looked for in a text, and how. The build script compiles this file too, to
//! divide what is looked for of the built-in rules: it names nothing but what rule files say, and
//! [`super::runs`]' sets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::runs::{Beginning, FIRST, LENGTH_MAX, SETS, beginning, frequency};
use crate::rule::{Entry, Facts, Left, WIDE_MIN, Within};

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
    pub(super) text: String,
    /// Whether it counts in the middle of a word, for any of its rules.
    pub(super) anywhere: bool,
    /// Whether all its rules ask for a run of [`LENGTH_MAX`] bytes or more.
    pub(super) is_long: bool,
    /// What may stand behind it: a bit for each ASCII character.
    pub(super) behind: u128,
}

/// The prefixes of all rules that are looked for in runs, in order, and of each the rules that want it
/// or another one that it begins with.
pub(super) fn prefixes(rules: &[Read<'_>]) -> (Vec<Prefix>, Vec<Vec<usize>>) {
    let in_runs =
        |(_, rule): &(usize, &Read<'_>)| matches!(way(**rule), Way::Narrow(_) | Way::Wide(_));
    let mut wanted: Vec<(&str, usize)> = rules
        .iter()
        .enumerate()
        .filter(in_runs)
        .flat_map(|(index, (entry, _))| entry.prefixes.iter().map(move |text| (&**text, index)))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let (texts, owners) = grouped(&wanted);
    let prefix = |(text, owners): (String, &Vec<usize>)| {
        let owners = || owners.iter().filter_map(|index| rules.get(*index));
        Prefix {
            text,
            anywhere: owners().any(|(entry, _)| counts_anywhere(entry)),
            is_long: owners().all(|rule| run_of(*rule) >= LENGTH_MAX),
            behind: owners().fold(0, |all, (_, facts)| all | facts.alphabet),
        }
    };
    (texts.into_iter().zip(&owners).map(prefix).collect(), owners)
}

/// For `(needle, owner)` in order: the needles, and the owners of each and of those it begins with.
pub(super) fn grouped<T: Clone>(wanted: &[(&str, T)]) -> (Vec<String>, Vec<Vec<T>>) {
    let (mut needles, mut owners) = (Vec::new(), Vec::<Vec<T>>::new());
    // The needles with which the last one begins, the shortest first, and itself.
    let mut begun: Vec<(&str, usize)> = Vec::new();
    for same in wanted.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((needle, _)) = same.first() else { continue };
        while begun.pop_if(|(shorter, _)| !needle.starts_with(*shorter)).is_some() {}
        let inherited = begun.last().and_then(|(_, index)| owners.get(*index));
        let mut all = inherited.cloned().unwrap_or_default();
        all.extend(same.iter().map(|(_, owner)| owner.clone()));
        begun.push((*needle, needles.len()));
        needles.push((*needle).to_owned());
        owners.push(all);
    }
    (needles, owners)
}

/// Beginnings that share some sets.
pub(super) struct Group {
    /// In order, each once.
    pub(super) beginnings: Vec<Beginning>,
    pub(super) sets: Range<usize>,
    /// Whether these sets count in the middle of a word.
    pub(super) anywhere: bool,
}

/// The beginnings of prefixes, by what they ask for.
pub(super) fn groups(prefixes: &[Prefix]) -> [Group; 4] {
    let kinds = [
        (false, true, 0..6),
        (false, false, 6..SETS),
        (true, true, SETS..2 * SETS),
        (true, false, 2 * SETS..3 * SETS),
    ];
    kinds.map(|(is_long, anywhere, sets)| {
        let wanted = prefixes.iter().filter(|p| (p.is_long, p.anywhere) == (is_long, anywhere));
        let all = wanted.map(|prefix| beginning(prefix.text.as_bytes(), false, prefix.behind));
        Group { beginnings: in_order(all), sets, anywhere }
    })
}

/// Each once, in order.
pub(super) fn in_order(beginnings: impl Iterator<Item = Beginning>) -> Vec<Beginning> {
    let mut all: Vec<Beginning> = beginnings.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What is looked for wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) text: Vec<u8>,
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
    /// One of [`words`], by its place.
    Word(usize),
}

/// A text that announces keys, and whether it is what an id of another rule begins with. There
/// capitals count: in small letters, hex digits are full of some of them.
pub(super) type Word<'a> = (&'a str, bool);

/// What a word announces.
#[derive(Default)]
pub(super) struct Announces {
    /// By their index.
    pub(super) rules: BTreeSet<usize>,
    /// What is behind it, if it is the beginning of an id.
    pub(super) id: Option<Id>,
}

/// What is behind the beginning of an id: a bit for each ASCII character that it consists of, and its
/// least length. Of several rules' ids, whatever either wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) alphabet: u128,
    pub(super) length: usize,
}

/// All of them.
pub(super) fn words<'a>(rules: &[Read<'a>]) -> BTreeMap<Word<'a>, Announces> {
    let mut words: BTreeMap<Word<'a>, Announces> = BTreeMap::new();
    for (index, (entry, _)) in rules.iter().enumerate() {
        for word in &entry.keywords {
            words.entry((&**word, false)).or_default().rules.insert(index);
        }
        let is_beside = |(other, _): &&Read<'_>| entry.beside.contains(&other.id);
        let beside = rules.iter().filter(|_| !entry.beside.is_empty()).filter(is_beside);
        for (other, facts) in beside {
            for beginning in &other.prefixes {
                let word = words.entry((&**beginning, true)).or_default();
                word.rules.insert(index);
                let id = word.id.get_or_insert(Id { alphabet: 0, length: usize::MAX });
                id.alphabet |= facts.alphabet;
                id.length = id.length.min(facts.match_min);
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
        text: vec![byte],
        any_case: false,
        what: Needle::Byte(byte),
        before,
        behind: u128::MAX,
    }));
    all.extend(words.iter().zip(0..).map(|(((text, is_id), word), index)| Wanted {
        any_case: !is_id,
        what: Needle::Word(index),
        behind: match word.id {
            Some(Id { alphabet, length: FIRST.. }) => alphabet,
            _ => u128::MAX,
        },
        ..Wanted::text(text)
    }));
    all
}

impl Wanted {
    fn text(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_vec(),
            any_case: false,
            what: Needle::Literal(0),
            before: (0, 0),
            behind: u128::MAX,
        }
    }

    /// Where its bytes begin that are looked for.
    pub(super) fn offset(&self) -> usize {
        rarest(&self.text, self.any_case)
    }

    /// From there on, or from what stands before.
    pub(super) fn beginning(&self, offset: usize) -> Beginning {
        let text = self.text.get(offset..).unwrap_or_default();
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
