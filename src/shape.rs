//! Shapes: length and alphabet of registered keys, by which keys without any prefix are found.

/// The alphabets that are told apart, from the narrowest to the widest. A key has the first one
/// that holds all its characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alphabet {
    /// `[0-9a-fA-F]`
    Hex,
    /// `[0-9A-Za-z]`
    Alphanumeric,
    /// `[0-9A-Za-z_-]`: base64url, UUIDs, most prefixed keys.
    Base64Url,
    /// `[0-9A-Za-z_.-]`: the alphabet of runs.
    Dotted,
    /// `[0-9A-Za-z+/=]`
    Base64,
    /// Every visible ASCII character.
    Graphic,
}

impl Alphabet {
    /// All of them, narrowest first.
    pub const ALL: [Self; 6] =
        [Self::Hex, Self::Alphanumeric, Self::Base64Url, Self::Dotted, Self::Base64, Self::Graphic];

    /// Whether the byte belongs to it.
    #[must_use]
    pub fn holds(self, byte: u8) -> bool {
        match self {
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Base64Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
            Self::Graphic => byte.is_ascii_graphic(),
        }
    }

    /// In what its words lie.
    #[must_use]
    pub fn stretch(self) -> Stretch {
        match self {
            Self::Hex | Self::Alphanumeric | Self::Base64Url | Self::Dotted => Stretch::Run,
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

/// What the matcher cuts a text into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let alphabet = Alphabet::ALL
            .into_iter()
            .find(|alphabet| key.iter().all(|&byte| alphabet.holds(byte)))
            .ok_or(Unfit::Characters)?;
        if key.len() < KEY_MIN {
            return Err(Unfit::Short(key.len()));
        }
        if key.len() > KEY_MAX {
            return Err(Unfit::Long(key.len()));
        }
        let bits =
            crate::text::entropy_bits(key) * f32::from(u16::try_from(key.len()).unwrap_or(0));
        if bits < STRENGTH_MIN_BITS {
            return Err(Unfit::Poor(bits));
        }
        Ok(Self { alphabet, len: key.len() })
    }
}

/// The shapes of all registered keys, grouped for the matcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShapeSet {
    groups: Vec<(Alphabet, Vec<usize>)>,
}

impl ShapeSet {
    /// Groups shapes by alphabet, lengths ascending.
    #[must_use]
    pub fn new(shapes: impl IntoIterator<Item = Shape>) -> Self {
        let mut sorted: Vec<Shape> = shapes.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut groups: Vec<(Alphabet, Vec<usize>)> = Vec::new();
        for shape in sorted {
            match groups.last_mut() {
                Some((alphabet, lengths)) if *alphabet == shape.alphabet => lengths.push(shape.len),
                _ => groups.push((shape.alphabet, vec![shape.len])),
            }
        }
        Self { groups }
    }

    /// `(alphabet, lengths ascending)`, only what is there.
    #[must_use]
    pub fn groups(&self) -> &[(Alphabet, Vec<usize>)] {
        &self.groups
    }

    /// The shortest length among alphabets whose words lie in such stretches.
    #[must_use]
    pub fn shortest(&self, stretch: Stretch) -> Option<usize> {
        self.groups
            .iter()
            .filter(|(alphabet, _)| alphabet.stretch() == stretch)
            .filter_map(|(_, lengths)| lengths.first().copied())
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_narrowest_alphabet() {
        let shape = |key: &str| Shape::of(key.as_bytes()).map(|s| s.alphabet);
        assert_eq!(shape("0123456789abcdef0123456789ABCDEF"), Ok(Alphabet::Hex));
        assert_eq!(shape("0123456789abcdefghijklmnopqrstuv"), Ok(Alphabet::Alphanumeric));
        assert_eq!(shape("01234567-9abc-efgh-jklm-opqrstuv"), Ok(Alphabet::Base64Url));
        assert_eq!(shape("0123456789abcdef.hijklmnopqrstuv"), Ok(Alphabet::Dotted));
        assert_eq!(shape("0123456789abcdef+hijklmnopqrst=="), Ok(Alphabet::Base64));
        assert_eq!(shape("0123456789abcdef!hijklmnopqrst$_"), Ok(Alphabet::Graphic));
    }

    #[test]
    fn unfit_keys_are_refused_and_told_why() {
        assert_eq!(Shape::of(b""), Err(Unfit::Empty));
        assert_eq!(Shape::of(b"short"), Err(Unfit::Short(5)));
        assert_eq!(Shape::of(b"has a space in it, and more"), Err(Unfit::Characters));
        assert!(matches!(Shape::of(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), Err(Unfit::Poor(_))));
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
        assert_eq!(set.groups(), [(Alphabet::Hex, vec![64]), (Alphabet::Base64Url, vec![36, 44])]);
        assert_eq!(set.shortest(Stretch::Run), Some(36));
        assert_eq!(set.shortest(Stretch::Word), None);
    }
}
