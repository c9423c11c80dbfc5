//! Check digits that issuers put into their keys.

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
        }
    }

    /// Whether a whole key carries the right check digits.
    #[must_use]
    pub fn verify(self, key: &[u8]) -> bool {
        let Some(at) = key.len().checked_sub(self.width()) else { return false };
        let (before, digits) = key.split_at(at);
        self.digits(before) == digits
    }

    /// The check digits for the start of a key, from its first byte on.
    #[must_use]
    pub fn digits(self, before: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32Base62 | Self::Leakwarden => {
                let body = before.iter().rposition(|&b| b == b'_').map_or(0, |at| at + 1);
                let crc = crc32fast::hash(before.get(body..).unwrap_or_default());
                padded(crc, BASE62, 6)
            }
            Self::Crc32LeHex => {
                let body = before.strip_suffix(b"_").unwrap_or(before);
                crate::secret::to_hex(&crc32fast::hash(body).to_le_bytes()).into_bytes()
            }
            Self::GitlabRoutable => padded(crc32fast::hash(before), BASE36, 7),
        }
    }

    fn width(self) -> usize {
        match self {
            Self::Crc32Base62 | Self::Leakwarden => 6,
            Self::Crc32LeHex => 8,
            Self::GitlabRoutable => 7,
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
