//! Texts told apart from others by their first bytes.

/// Longest run that may be asked for, in bytes.
pub(in crate::matcher) const LENGTH_MAX: usize = 32;
/// Bytes at the start of a text that are looked at.
pub(in crate::matcher) const FIRST: usize = 4;
/// Sets in one table: a bit each.
pub(in crate::matcher) const SETS: usize = 8;
/// Tables of prefixes.
pub(in crate::matcher) const TABLES: usize = 3;
/// Tables of needles.
pub(in crate::matcher) const NEEDLE_TABLES: usize = 2;
/// The bytes that texts consist of: ASCII.
pub(super) const BYTES: usize = 128;

/// What the first bytes of a text may be: by position, a bit for each ASCII byte.
pub(in crate::matcher) type Beginning = [u128; FIRST];

/// Eight sets of beginnings: a place passes if, for one of the sets, each of its four bytes is one
/// that some beginning of the set has there. Yes may be wrong, no never is.
#[derive(Clone, Debug)]
pub(in crate::matcher) struct Sets {
    /// By position and byte: the sets.
    pub(in crate::matcher) exact: [[u8; BYTES]; FIRST],
    /// The same by halves of the byte, which lets more pass.
    pub(in crate::matcher) halves: [Halves; FIRST],
}

/// What one byte of a place says.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::matcher) struct Halves {
    /// By low half of the byte: the sets.
    pub(in crate::matcher) low: [u8; 16],
    /// By high half.
    pub(in crate::matcher) high: [u8; 16],
}

impl Default for Sets {
    fn default() -> Self {
        Self { exact: [[0; BYTES]; FIRST], halves: [Halves::default(); FIRST] }
    }
}

impl Sets {
    /// Tables of beginnings, each with its set: of the first table, then of the second.
    pub(in crate::matcher) fn tables<'a, const N: usize>(
        beginnings: impl Iterator<Item = (&'a Beginning, usize)>,
    ) -> [Self; N] {
        // By table and set: what any of its beginnings has.
        let mut all = [[[0; FIRST]; SETS]; N];
        for (beginning, set) in beginnings {
            let one = all.get_mut(set / SETS).and_then(|sets| sets.get_mut(set % SETS));
            let bytes = one.into_iter().flatten().zip(beginning);
            bytes.for_each(|(all, bytes)| *all |= bytes);
        }
        all.map(|sets| {
            let mut table = Self::default();
            for (set, bytes) in sets.iter().enumerate() {
                table.add(set, bytes);
            }
            table
        })
    }

    fn add(&mut self, set: usize, beginning: &Beginning) {
        let bit = 1 << set;
        for ((exact, halves), bytes) in self.exact.iter_mut().zip(&mut self.halves).zip(beginning) {
            let mut rest = *bytes;
            while rest != 0 {
                let byte = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let entries = [
                    exact.get_mut(byte),
                    halves.low.get_mut(byte & 15),
                    halves.high.get_mut(byte >> 4),
                ];
                entries.into_iter().flatten().for_each(|entry| *entry |= bit);
            }
        }
    }

    /// The sets that let these bytes pass. Bytes of 0x80 or more count as others, as they may stand
    /// behind a text that is shorter.
    pub(in crate::matcher) fn of(&self, bytes: &[u8; FIRST]) -> u8 {
        bytes.iter().zip(&self.exact).fold(u8::MAX, |sets, (byte, exact)| {
            sets & exact.get(usize::from(*byte) % BYTES).copied().unwrap_or_default()
        })
    }
}

/// The beginning of a text; `any_case`: capitals and small letters alike; `behind`: what may stand
/// behind it, if it is shorter.
pub(in crate::matcher) fn beginning(text: &[u8], any_case: bool, behind: u128) -> Beginning {
    let both = |byte: u8| match any_case {
        true => 1 << byte.to_ascii_lowercase() | 1 << byte.to_ascii_uppercase(),
        false => 1 << byte,
    };
    std::array::from_fn(|at| match text.get(at) {
        // Of others, the low seven bits: as these are looked at in texts.
        Some(byte) => both(byte & 0x7f),
        None => behind,
    })
}

/// By byte: about how often it is met in logs and source text, of [`ALL`] bytes.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static FREQUENCIES: [u16; BYTES] = {
    let mut all = [0; BYTES];
    let mut byte = 0u8;
    while byte < 128 {
        all[byte as usize] = match byte {
            b' ' => 24,
            b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 12,
            b'a'..=b'z' => 5,
            b'0' | b'1' | b'2' => 6,
            b'3'..=b'9' | b'_' | b'-' | b'.' | b'/' | b'"' | b':' => 4,
            b'A'..=b'Z' | b'=' | b',' | b'(' | b')' => 2,
            _ => 1,
        };
        byte += 1;
    }
    all
};

/// The sum of [`FREQUENCIES`].
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const ALL: u64 = {
    let (mut all, mut byte) = (0, 0);
    while byte < BYTES {
        all += FREQUENCIES[byte] as u64;
        byte += 1;
    }
    all
};
/// What one place of a mebibyte counts in [`Made::share`].
const PLACE: u64 = ALL.pow(4) >> 20;

/// Four bytes that are met more often than each of them alone lets expect: `common.txt`, as
/// `benches/common` makes it of source trees (redis, ripgrep, ansible, kafka, loki, babel, aws-sdk-go,
/// and crates).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matcher) struct Common {
    pub(in crate::matcher) bytes: [u8; FIRST],
    /// How often in a mebibyte of text.
    pub(in crate::matcher) places: u64,
}

impl Common {
    fn is_in(&self, set: &Beginning) -> bool {
        self.bytes.iter().zip(set).all(|(byte, bytes)| bytes >> byte & 1 == 1)
    }
}

/// See [`FREQUENCIES`].
pub(in crate::matcher) fn frequency(byte: u8) -> u64 {
    FREQUENCIES.get(usize::from(byte)).copied().unwrap_or(1).into()
}

/// The same of several bytes together.
fn frequencies(mut bytes: u128) -> u64 {
    let mut all = 0;
    while bytes != 0 {
        all += frequency(u8::try_from(bytes.trailing_zeros()).unwrap_or_default());
        bytes &= bytes - 1;
    }
    all
}

/// Beginnings that are in one set, and by position about how often one of its bytes is met.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    bytes: Beginning,
    shares: [u64; FIRST],
}

impl Made {
    fn with(&self, other: &Self) -> Self {
        let mut made = *self;
        let others = other.bytes.iter().zip(&other.shares);
        for ((bytes, share), (new, all)) in made.bytes.iter_mut().zip(&mut made.shares).zip(others)
        {
            *share = match *bytes & new {
                0 => *share + all,
                both if both == *new => *share,
                both if both == *bytes => *all,
                both => *share + frequencies(new & !both),
            };
            *bytes |= new;
        }
        made
    }

    fn of(bytes: Beginning) -> Self {
        Self { bytes, shares: bytes.map(frequencies) }
    }

    /// About how often a text passes: of [`ALL`] to the power of four places.
    fn share(&self) -> u64 {
        self.shares.iter().product()
    }

    /// How much more often, with others in the set.
    fn more_with(&self, new: &Self, common: &[Common]) -> u64 {
        let both = self.with(new);
        let fresh = common.iter().filter(|one| one.is_in(&both.bytes) && !one.is_in(&self.bytes));
        let places: u64 = fresh.map(|one| one.places).sum();
        both.share().saturating_sub(self.share()) + places * PLACE
    }
}

/// Puts those together that differ in one position only: they let no more pass together than
/// alone. Answers which of the beginnings that are left each of them is in.
fn joined(beginnings: &[Beginning]) -> (Vec<Made>, Vec<usize>) {
    let mut all: Vec<Made> = Vec::new();
    let mut within = Vec::with_capacity(beginnings.len());
    for new in beginnings {
        let differ = |one: &Made| one.bytes.iter().zip(new).filter(|(one, new)| one != new).count();
        let like = all.iter_mut().enumerate().rev().take(2).find(|(_, one)| differ(one) <= 1);
        within.push(match like {
            Some((index, one)) => {
                *one = one.with(&Made::of(*new));
                index
            }
            None => {
                all.push(Made::of(*new));
                all.len() - 1
            }
        });
    }
    (all, within)
}

/// Divides beginnings into so many sets that let as few places pass as is easily had: the sets are
/// begun with beginnings that are unlike, and each other one is put where it adds least; then, in so
/// many rounds, each is put into a better set than it is in. Answers the set of each.
pub(in crate::matcher) fn divide(
    beginnings: &[Beginning],
    sets: usize,
    common: &[Common],
    rounds: usize,
) -> Vec<usize> {
    let (all, within) = joined(beginnings);
    // What no set can let pass makes no difference.
    let union = all.iter().fold(Made::default(), |union, one| union.with(one)).bytes;
    let common: Vec<Common> = common.iter().filter(|one| one.is_in(&union)).copied().collect();
    let mut made: Vec<Made> = Vec::new();
    // How far each one is from all sets.
    let mut unlike = vec![u64::MAX; all.len()];
    while made.len() < sets {
        let farthest = unlike.iter().zip(&all).max_by_key(|(far, _)| **far);
        let Some((_, new)) = farthest.filter(|(far, _)| **far > 0) else { break };
        for (far, one) in unlike.iter_mut().zip(&all) {
            *far = (*far).min(new.more_with(one, &common));
        }
        made.push(*new);
    }
    let put = |made: &mut [Made], new: &Made| {
        let more = |set: &Made| set.more_with(new, &common);
        let nearest = made.iter_mut().enumerate().min_by_key(|(_, set)| more(set));
        nearest.map_or(0, |(index, set)| {
            *set = set.with(new);
            index
        })
    };
    let mut chosen: Vec<usize> = Vec::with_capacity(all.len());
    for new in &all {
        chosen.push(put(&mut made, new));
    }
    for _ in 0..rounds {
        for (at, new) in all.iter().enumerate() {
            let own = chosen.get(at).copied().unwrap_or_default();
            let others = all.iter().zip(&chosen).enumerate();
            let rest = others.filter(|(other, (_, set))| *other != at && **set == own);
            let rest = rest.fold(Made::default(), |set, (_, (one, _))| set.with(one));
            if let Some(set) = made.get_mut(own) {
                *set = rest;
            }
            let better = put(&mut made, new);
            if let Some(set) = chosen.get_mut(at) {
                *set = better;
            }
        }
    }
    within.iter().map(|at| chosen.get(*at).copied().unwrap_or_default()).collect()
}
