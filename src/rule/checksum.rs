//! Check digits that issuers put into their keys.

mod azure;

pub use super::file::Checksum;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl Checksum {
    /// The word in rule files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crc32Base62 => "crc32-base62",
            Self::Leakwarden => "leakwarden",
            Self::Crc32LeHex => "crc32-le-hex",
            Self::GitlabRoutable => "gitlab-routable",
            Self::AzureIdentifiable => "azure-identifiable",
            Self::Bech32 => "bech32",
        }
    }

    /// Whether a whole key carries the right check digits.
    #[must_use]
    pub fn verify(self, key: &[u8]) -> bool {
        let Some(width) = self.width() else { return azure::verify(key) };
        let Some((before, digits)) = key.split_at_checked(key.len().wrapping_sub(width)) else {
            return false;
        };
        self.digits(before) == digits
    }

    /// The check digits for the start of a key, from its first byte on; empty where it is none.
    #[must_use]
    pub fn digits(self, before: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32Base62 | Self::Leakwarden => {
                let body = memchr::memrchr(b'_', before).map_or(0, |at| at + 1);
                let crc = crc32fast::hash(before.get(body..).unwrap_or_default());
                padded(crc, BASE62, 6)
            }
            Self::Crc32LeHex => {
                let body = before.strip_suffix(b"_").unwrap_or(before);
                crate::secret::to_hex(&crc32fast::hash(body).to_le_bytes()).into_bytes()
            }
            Self::GitlabRoutable => padded(crc32fast::hash(before), BASE36, 7),
            Self::AzureIdentifiable => azure::digits(before).unwrap_or_default(),
            Self::Bech32 => bech32(before),
        }
    }

    /// How many there are; `None`: it depends on the key.
    fn width(self) -> Option<usize> {
        match self {
            Self::Crc32Base62 | Self::Leakwarden | Self::Bech32 => Some(6),
            Self::Crc32LeHex => Some(8),
            Self::GitlabRoutable => Some(7),
            Self::AzureIdentifiable => None,
        }
    }
}

fn padded(crc: u32, alphabet: &[u8], width: usize) -> Vec<u8> {
    let base = u32::try_from(alphabet.len()).unwrap_or(u32::MAX);
    let mut rest = crc;
    let mut out: Vec<u8> = (0..width)
        .filter_map(|_| {
            let digit = rest % base;
            rest /= base;
            alphabet.get(usize::try_from(digit).ok()?).copied()
        })
        .collect();
    out.reverse();
    out
}

const BECH32: &[u8; 32] = b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";

/// By byte: where it stands there.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static BECH32_VALUES: [u8; 256] = {
    let mut table = [0; 256];
    let mut value = 0u8;
    while (value as usize) < BECH32.len() {
        table[BECH32[value as usize] as usize] = value;
        value += 1;
    }
    table
};

/// What the five bits that are taken away add to the remainder, by these bits.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static BECH32_TAKEN: [u32; 32] = {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let mut table = [0; 32];
    let mut bits = 0;
    while bits < table.len() {
        let mut bit = 0;
        while bit < GENERATOR.len() {
            if bits >> bit & 1 == 1 {
                table[bits] ^= GENERATOR[bit];
            }
            bit += 1;
        }
        bits += 1;
    }
    table
};

/// The checksum of BIP-173: a remainder of polynomials over the bits of the characters.
fn bech32(before: &[u8]) -> Vec<u8> {
    let one = memchr::memrchr(b'1', before).unwrap_or(before.len());
    let (human, data) = before.split_at(one);
    let step = |sum: u32, value: u32| {
        let taken = usize::try_from(sum >> 25 & 31).ok().and_then(|bits| BECH32_TAKEN.get(bits));
        (sum & 0x1ff_ffff) << 5 ^ value ^ taken.copied().unwrap_or_default()
    };
    let lower = |byte: &u8| u32::from(byte.to_ascii_lowercase());
    let value = |byte: &u8| BECH32_VALUES.get(usize::from(*byte)).copied().map_or(0, u32::from);
    let sum = human.iter().fold(1, |sum, byte| step(sum, lower(byte) >> 5));
    let sum = human.iter().fold(step(sum, 0), |sum, byte| step(sum, lower(byte) & 31));
    let sum = data.iter().skip(1).fold(sum, |sum, byte| step(sum, value(byte)));
    let sum = (0..6).fold(sum, |sum, _| step(sum, 0)) ^ 1;
    let digit = |at: u32| BECH32.get(usize::try_from(sum >> (5 * at) & 31).ok()?).copied();
    (0..6).rev().filter_map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grafana_as_in_its_own_tests() {
        let token = ["glsa_", "iNValIdinValiDinvalidinvalidinva", "_5b582697"].concat();
        assert!(Checksum::Crc32LeHex.verify(token.as_bytes()));
        let wrong = ["glsa_", "iNValIdinValiDinvalidinvalidinvb", "_5b582697"].concat();
        assert!(!Checksum::Crc32LeHex.verify(wrong.as_bytes()));
    }

    #[test]
    fn github_as_published() {
        let token = ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat();
        assert!(Checksum::Crc32Base62.verify(token.as_bytes()));
        assert!(!Checksum::Crc32Base62.verify(token.to_lowercase().as_bytes()));
    }

    /// The first valid string of BIP-173, and age's key of zeros.
    #[test]
    fn bech32_as_published() {
        assert!(Checksum::Bech32.verify(b"A12UEL5L"));
        assert!(!Checksum::Bech32.verify(b"A12UEL5Q"));
        let zeros = ["AGE-SECRET-KEY-1", &"Q".repeat(52)].concat();
        assert_eq!(Checksum::Bech32.digits(zeros.as_bytes()), b"8H00W3");
    }

    #[test]
    fn digits_verify() {
        for checksum in [Checksum::Crc32Base62, Checksum::Leakwarden, Checksum::GitlabRoutable] {
            let mut key = b"lw_user_0123456789".to_vec();
            key.extend(checksum.digits(&key));
            assert!(checksum.verify(&key), "{checksum:?}");
        }
        assert!(!Checksum::Crc32Base62.verify(b"x"));
    }
}
