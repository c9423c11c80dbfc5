//! Shapes: length and alphabet of registered keys, by which keys without any prefix are found.

use std::ops::Range;

/// The alphabets that are told apart, from the narrowest to the widest. A key has the first one
/// that holds all its characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alphabet {
    /// `[0-9a-fA-F]`
    Hex,
    /// `[0-9A-Za-z]`
    Alphanumeric,
    /// Hex digits and `-` in groups of 8, 4, 4, 4 and 12 (RFC 9562).
    Uuid,
    /// `[0-9A-Za-z_-]`: base64url, most prefixed keys.
    Base64Url,
    /// `[0-9A-Za-z_.-]`: the alphabet of runs.
    Dotted,
    /// `[0-9A-Za-z+/=]`
    Base64,
    /// Every visible ASCII character.
    Graphic,
}

/// By ASCII byte: a bit for each alphabet that holds it (by its place in [`Alphabet::ALL`]), and
/// [`STRONG`].
#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "run by the compiler"
)]
pub static KINDS: [u8; 128] = {
    let mut table = [0; 128];
    let mut at = 0;
    while at < table.len() {
        table[at] = kinds_of(at as u8);
        at += 1;
    }
    table
};

/// In [`KINDS`]: a digit or capital. Names in source text have few of them, keys many.
pub const STRONG: u8 = 1 << Alphabet::ALL.len();

const fn kinds_of(byte: u8) -> u8 {
    let (letter, hex) = (byte.is_ascii_alphanumeric(), byte.is_ascii_hexdigit());
    let dash = matches!(byte, b'_' | b'-');
    let base64 = matches!(byte, b'+' | b'/' | b'=');
    let strong = if byte.is_ascii_digit() || byte.is_ascii_uppercase() { STRONG } else { 0 };
    Alphabet::Hex.bit_if(hex)
        | Alphabet::Alphanumeric.bit_if(letter)
        | Alphabet::Uuid.bit_if(hex || byte == b'-')
        | Alphabet::Base64Url.bit_if(letter || dash)
        | Alphabet::Dotted.bit_if(letter || dash || byte == b'.')
        | Alphabet::Base64.bit_if(letter || base64)
        | Alphabet::Graphic.bit_if(byte.is_ascii_graphic())
        | strong
}

impl Alphabet {
    /// All of them, narrowest first.
    pub const ALL: [Self; 7] = [
        Self::Hex,
        Self::Alphanumeric,
        Self::Uuid,
        Self::Base64Url,
        Self::Dotted,
        Self::Base64,
        Self::Graphic,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    const fn bit_if(self, holds: bool) -> u8 {
        if holds { self.bit() } else { 0 }
    }

    /// Whether the byte belongs to it.
    #[must_use]
    pub fn holds(self, byte: u8) -> bool {
        kinds(byte) & self.bit() != 0
    }

    /// The widest of those that are a part of it: their words are no keys of this one.
    #[must_use]
    pub const fn narrower(self) -> Option<Self> {
        match self {
            Self::Hex => None,
            Self::Alphanumeric | Self::Uuid => Some(Self::Hex),
            Self::Base64Url | Self::Base64 => Some(Self::Alphanumeric),
            Self::Dotted => Some(Self::Base64Url),
            // Or Base64: neither is a part of the other.
            Self::Graphic => Some(Self::Dotted),
        }
    }

    /// The letters and digits of it, as an alphabet: a key ends where another character stands.
    #[must_use]
    pub const fn letters(self) -> Self {
        match self {
            Self::Hex | Self::Uuid => Self::Hex,
            _ => Self::Alphanumeric,
        }
    }

    /// The narrowest alphabet of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let all = Alphabets::of(bytes);
        Self::ALL
            .into_iter()
            .find(|one| all.0 & one.bit() != 0 && (*one != Self::Uuid || is_uuid(bytes)))
    }

    /// The alphabets that a key can have of which only this one was told.
    pub fn and_narrower(self) -> impl Iterator<Item = Self> {
        let within =
            move |other: &Self| (0..=255).all(|byte| !other.holds(byte) || self.holds(byte));
        Self::ALL.into_iter().filter(within)
    }

    /// In what its words lie.
    #[must_use]
    pub fn stretch(self) -> Stretch {
        match self {
            Self::Hex | Self::Alphanumeric | Self::Uuid | Self::Base64Url | Self::Dotted => {
                Stretch::Run
            }
            Self::Base64 => Stretch::WideRun,
            Self::Graphic => Stretch::Word,
        }
    }

    /// The word in the database and in import files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Alphanumeric => "alphanumeric",
            Self::Uuid => "uuid",
            Self::Base64Url => "base64url",
            Self::Dotted => "dotted",
            Self::Base64 => "base64",
            Self::Graphic => "graphic",
        }
    }

    /// The other way.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alphabet| alphabet.as_str() == word)
    }
}

/// What [`KINDS`] says of a byte; of one that is not ASCII, nothing.
#[must_use]
pub fn kinds(byte: u8) -> u8 {
    KINDS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// The alphabets that hold all bytes of some text.
#[derive(Clone, Copy, Debug)]
pub struct Alphabets(u8);

impl Alphabets {
    /// Reads each byte once.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(u8::MAX, |shared, byte| shared & kinds(*byte)))
    }

    /// Whether some word of the text can have this alphabet as its narrowest one: a text of letters
    /// and digits holds no word of which `_` or `-` is a part.
    #[must_use]
    pub fn leave(self, alphabet: Alphabet) -> bool {
        // Below the bit of the alphabet itself: the narrower ones. A word in a text that could be
        // part of a UUID need not be one.
        self.0 & (alphabet.bit() - 1) & !Alphabet::Uuid.bit() == 0
    }
}

/// Whether hyphens and hex digits stand where a UUID has them.
#[must_use]
pub fn is_uuid(bytes: &[u8]) -> bool {
    let Some(all) = bytes.as_array::<36>() else { return false };
    let hyphens = [8, 13, 18, 23].into_iter().all(|at: usize| bytes.get(at) == Some(&b'-'));
    // Without a way out of the loop: many bytes at once.
    hyphens && all.iter().fold(0u8, |hex, byte| hex + u8::from(byte.is_ascii_hexdigit())) == 32
}

/// What the matcher cuts a text into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stretch {
    /// `[A-Za-z0-9_.-]`
    Run,
    /// `[A-Za-z0-9_.+/=~-]`
    WideRun,
    /// Visible ASCII.
    Word,
}

/// Shortest key that may be registered, in bytes.
pub const KEY_MIN: usize = 16;
/// Longest key that may be registered, in bytes.
pub const KEY_MAX: usize = 2_048;
/// Strength below which a key is refused, in bits: guessing it offline from its digest, pepper
/// in hand, would be cheap.
const STRENGTH_MIN_BITS: f32 = 56.0;

/// Strength from which on a key's tag may leave the host: who has the filter can try some hundred
/// million guesses a second for each core, and 2^80 of them take a million cores 380 years.
pub const EXPORT_MIN_BITS: f32 = 80.0;

/// About how many bits it takes to guess this text: by the entropy of its characters, or of the steps
/// from one to the next if there is less in those, as in `abcdefgh` and `abcabcabc`.
#[must_use]
pub fn strength_bits(text: &[u8]) -> f32 {
    let steps: Vec<u8> =
        text.array_windows().map(|[one, next]: &[u8; 2]| next.wrapping_sub(*one)).collect();
    let bits = crate::text::entropy_bits(text).min(crate::text::entropy_bits(&steps));
    bits * f32::from(u16::try_from(text.len()).unwrap_or(0))
}

/// Why a key cannot be registered.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// Nothing was given.
    #[error("the key is empty")]
    Empty,
    /// Too short.
    #[error(
        "the key has {0} characters; a key of fewer than {KEY_MIN} can be guessed from its hash"
    )]
    Short(usize),
    /// Too long.
    #[error("the key has {0} characters; at most {KEY_MAX} are supported")]
    Long(usize),
    /// Too regular.
    #[error(
        "the key is too regular: about {0:.0} bits, and under {STRENGTH_MIN_BITS:.0} it can be guessed from its hash"
    )]
    Poor(f32),
    /// Spaces, control characters or letters outside ASCII.
    #[error("the key holds a character that is not visible ASCII")]
    Characters,
}

/// Length and alphabet of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// The narrowest alphabet that holds it.
    pub alphabet: Alphabet,
    /// Bytes.
    pub len: usize,
}

impl Shape {
    /// The shape of a key that is fit to be registered.
    pub fn of(key: &[u8]) -> Result<Self, Unfit> {
        if key.is_empty() {
            return Err(Unfit::Empty);
        }
        let alphabet = Alphabet::of(key).ok_or(Unfit::Characters)?;
        if key.len() < KEY_MIN {
            return Err(Unfit::Short(key.len()));
        }
        if key.len() > KEY_MAX {
            return Err(Unfit::Long(key.len()));
        }
        let bits = strength_bits(key);
        if bits < STRENGTH_MIN_BITS {
            return Err(Unfit::Poor(bits));
        }
        Ok(Self { alphabet, len: key.len() })
    }
}

/// Whether the byte is [`STRONG`].
#[must_use]
pub fn is_strong(byte: u8) -> bool {
    kinds(byte) & STRONG != 0
}

/// Knows which texts are registered keys (by their tag, or exactly).
pub trait Known {
    /// Whether these bytes are one.
    fn knows(&self, bytes: &[u8]) -> bool;

    /// So many bytes of text are to be looked into: who knows how many questions that means may
    /// prepare for them.
    fn prepare_for(&self, _bytes: u64) {}

    /// Calls with the index of each of many windows of a text that is one: cheaper than to ask one by
    /// one.
    fn which(&self, text: &[u8], windows: &[Range<usize>], found: &mut dyn FnMut(usize)) {
        each_known(self, text, windows, found);
    }
}

/// Nothing is a registered key.
pub struct NoKeys;

impl Known for NoKeys {
    fn knows(&self, _bytes: &[u8]) -> bool {
        false
    }
}

/// [`Known::which`], one by one.
pub fn each_known<K: Known + ?Sized>(
    known: &K,
    text: &[u8],
    windows: &[Range<usize>],
    found: &mut dyn FnMut(usize),
) {
    for (index, window) in windows.iter().enumerate() {
        if text.get(window.clone()).is_some_and(|bytes| known.knows(bytes)) {
            found(index);
        }
    }
}

impl<F: Fn(&[u8]) -> bool> Known for F {
    fn knows(&self, bytes: &[u8]) -> bool {
        self(bytes)
    }
}

/// A length that keys of one alphabet have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// How many bytes.
    pub bytes: usize,
    /// The fewest of them that are strong ([`is_strong`]) in any of these keys.
    pub strong: u32,
}

/// The shapes of all registered keys, grouped for the matcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShapeSet {
    groups: Vec<(Alphabet, Vec<Length>)>,
}

impl ShapeSet {
    /// Groups shapes by alphabet, lengths ascending; how strong the keys are is not known.
    #[must_use]
    pub fn new(shapes: impl IntoIterator<Item = Shape>) -> Self {
        Self::of_strong(shapes.into_iter().map(|shape| (shape, 0)))
    }

    /// The same with the fewest strong bytes in any key of a shape.
    #[must_use]
    pub fn of_strong(shapes: impl IntoIterator<Item = (Shape, u32)>) -> Self {
        let mut sorted: Vec<(Shape, u32)> = shapes.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup_by_key(|(shape, _)| *shape);
        let mut groups: Vec<(Alphabet, Vec<Length>)> = Vec::new();
        for (Shape { alphabet, len }, strong) in sorted {
            let length = Length { bytes: len, strong };
            match groups.last_mut() {
                Some((last, lengths)) if *last == alphabet => lengths.push(length),
                _ => groups.push((alphabet, vec![length])),
            }
        }
        Self { groups }
    }

    /// `(alphabet, lengths ascending)` of alphabets whose words lie in such stretches, only what is
    /// there.
    #[must_use]
    pub fn groups(&self, stretch: Stretch) -> &[(Alphabet, Vec<Length>)] {
        // Ascending, as the alphabets do.
        let of = |(alphabet, _): &(Alphabet, Vec<Length>)| alphabet.stretch();
        let start = self.groups.partition_point(|group| of(group) < stretch);
        let end = self.groups.partition_point(|group| of(group) <= stretch);
        self.groups.get(start..end).unwrap_or_default()
    }

    /// Whether a key has so many bytes.
    #[must_use]
    pub fn has_length(&self, bytes: usize) -> bool {
        self.groups
            .iter()
            .any(|(_, lengths)| lengths.binary_search_by_key(&bytes, |length| length.bytes).is_ok())
    }

    /// The shortest length of so many bytes or more among alphabets whose words lie in such
    /// stretches.
    #[must_use]
    pub fn shortest(&self, stretch: Stretch, least: usize) -> Option<usize> {
        let lengths = self.groups(stretch).iter().flat_map(|(_, lengths)| lengths);
        lengths.map(|length| length.bytes).filter(|bytes| *bytes >= least).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_narrowest_alphabet() {
        let shape = |key: &str| Shape::of(key.as_bytes()).map(|s| s.alphabet);
        assert_eq!(shape("70b3f9e1c4a85d2670E1B9C4A3F85D62"), Ok(Alphabet::Hex));
        assert_eq!(shape("70b3f9e1c4a85d26gqhkzmvjwtprxnsy"), Ok(Alphabet::Alphanumeric));
        assert_eq!(shape("70b3f9e1-c4a8-5d2g-qhkz-mvjwtprx"), Ok(Alphabet::Base64Url));
        assert_eq!(shape("70b3f9e1c4a85d26.qhkzmvjwtprxnsy"), Ok(Alphabet::Dotted));
        assert_eq!(shape("70b3f9e1c4a85d26+qhkzmvjwtprxn=="), Ok(Alphabet::Base64));
        assert_eq!(shape("70b3f9e1c4a85d26!qhkzmvjwtprx$_n"), Ok(Alphabet::Graphic));
        assert_eq!(shape("70b3f9e1-c4a8-5d26-1b9e-c43f85d6207a"), Ok(Alphabet::Uuid));
        assert_eq!(shape("70b3f9e1-c4a8-5d26-1b9ec-43f85d6207a"), Ok(Alphabet::Base64Url));
    }

    #[test]
    fn a_key_of_which_only_a_wide_alphabet_was_told_may_be_narrower() {
        let told = |alphabet: Alphabet| alphabet.and_narrower().collect::<Vec<_>>();
        assert_eq!(told(Alphabet::Hex), [Alphabet::Hex]);
        assert_eq!(
            told(Alphabet::Base64),
            [Alphabet::Hex, Alphabet::Alphanumeric, Alphabet::Base64]
        );
        assert_eq!(told(Alphabet::Graphic), Alphabet::ALL);
    }

    proptest::proptest! {
        /// What `leave` rules out is ruled out: no word of the stretch has that alphabet.
        #[test]
        fn no_word_is_ruled_out_wrongly(stretch in "[a-g_.+-]{1,60}", start in 0usize..60, len in 1usize..60) {
            let word = stretch.as_bytes().get(start..start + len).unwrap_or_default();
            if let Some(alphabet) = Alphabet::of(word).filter(|_| !word.is_empty()) {
                proptest::prop_assert!(Alphabets::of(stretch.as_bytes()).leave(alphabet));
            }
        }

        #[test]
        fn a_narrower_alphabet_is_a_part(byte: u8) {
            for alphabet in Alphabet::ALL {
                let parts = [alphabet.narrower(), Some(alphabet.letters())];
                proptest::prop_assert!(
                    alphabet.holds(byte) || !parts.into_iter().flatten().any(|part| part.holds(byte))
                );
            }
        }
    }

    #[test]
    fn unfit_keys_are_refused_and_told_why() {
        assert_eq!(Shape::of(b""), Err(Unfit::Empty));
        assert_eq!(Shape::of(b"short"), Err(Unfit::Short(5)));
        assert_eq!(Shape::of(b"has a space in it, and more"), Err(Unfit::Characters));
        for regular in [&[b'a'; 32][..], b"abcdefghijklmnopqrstuvwxyz", &b"0123456789".repeat(4)] {
            assert!(matches!(Shape::of(regular), Err(Unfit::Poor(_))), "{regular:?}");
        }
        assert!(matches!(Shape::of(&[b'x'; 4_000]), Err(Unfit::Long(4_000))));
    }

    #[test]
    fn shapes_are_grouped() {
        let set = ShapeSet::new([
            Shape { alphabet: Alphabet::Base64Url, len: 44 },
            Shape { alphabet: Alphabet::Hex, len: 64 },
            Shape { alphabet: Alphabet::Base64Url, len: 36 },
            Shape { alphabet: Alphabet::Base64Url, len: 44 },
        ]);
        let length = |bytes, strong| Length { bytes, strong };
        let all = |strong| {
            let lengths = vec![length(36, strong), length(44, strong)];
            [(Alphabet::Hex, vec![length(64, strong)]), (Alphabet::Base64Url, lengths)]
        };
        assert_eq!(set.groups(Stretch::Run), all(0));
        let strong = |shape: (Alphabet, usize)| Shape { alphabet: shape.0, len: shape.1 };
        let shapes = [(Alphabet::Hex, 64), (Alphabet::Base64Url, 44), (Alphabet::Base64Url, 36)];
        let twice = shapes.into_iter().flat_map(|shape| [(strong(shape), 9), (strong(shape), 7)]);
        let strong = ShapeSet::of_strong(twice);
        assert_eq!(strong.groups(Stretch::Run), all(7));
        assert!([36, 44, 64].into_iter().all(|len| set.has_length(len)) && !set.has_length(40));
        assert_eq!(set.shortest(Stretch::Run, 0), Some(36));
        assert_eq!(set.shortest(Stretch::Run, 37), Some(44));
        assert_eq!(set.shortest(Stretch::Run, 65), None);
        assert_eq!(set.shortest(Stretch::Word, 0), None);
        let all = Alphabet::ALL.map(|alphabet| Shape { alphabet, len: 36 });
        let set = ShapeSet::new(all);
        let of = |stretch| set.groups(stretch).iter().map(|(alphabet, _)| *alphabet);
        let stretches = [Stretch::Run, Stretch::WideRun, Stretch::Word];
        assert_eq!(stretches.into_iter().flat_map(of).collect::<Vec<_>>(), Alphabet::ALL);
        assert!(stretches.iter().all(|one| of(*one).all(|alphabet| alphabet.stretch() == *one)));
    }
}
