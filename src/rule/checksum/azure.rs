//! Azure's identifiable keys: random bytes, a signature for the service, and four check bytes, all in
//! base64 (microsoft/security-utilities, IdentifiableSecrets.cs; signatures, lengths and seeds of
//! IdentifiableMetadata.cs and the classes of the keys).

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD,
};
use zeroize::Zeroizing;

/// Keys of a service.
struct Family {
    /// In base64, before the check digits.
    signature: &'static [u8; SIGNATURE],
    /// Of the whole key, before it is encoded.
    bytes: usize,
    /// Whether `-` and `_` stand for `+` and `/`.
    is_url_safe: bool,
    /// A name for each kind of key.
    seeds: &'static [&'static [u8; 8]],
}

const SIGNATURE: usize = 4;
/// In base64: four bytes, and bits of the one before them.
const DIGITS: usize = 6;
const CHECK_BYTES: usize = 4;
/// Check digits in which all bits are zeros.
const ZEROS: &[u8; DIGITS] = b"AAAAAA";
/// Characters of the longest key, without `=`, and kinds of keys that a family has, or more.
const TEXT_MAX: usize = 96;
const KINDS: usize = 8;

const COSMOS: &[&[u8; 8]] =
    &[b"MastRW00", b"MastRO00", b"SystRW00", b"SystRO00", b"SysAll00", b"Resour00", b"Encryp00"];
const _: () = assert!(COSMOS.len() <= KINDS);
const MESSAGING: &[&[u8; 8]] = &[b"Send0000", b"Listen00", b"Manage00", b"System00", b"Unknown0"];

const FAMILIES: [Family; 12] = [
    family(b"+ASt", 64, &[b"Default0"]),
    family(b"ACDb", 64, COSMOS),
    family(b"+ABa", 64, &[b"AbAcct00"]),
    family(b"+AMC", 64, &[b"Classic0"]),
    family(b"APIM", 64, &[b"IoTHub00", b"Gatewy00", b"GitKey00", b"Tenant00"]),
    family(b"+AEh", 32, MESSAGING),
    family(b"+ASb", 32, MESSAGING),
    family(b"+ARm", 32, MESSAGING),
    family(b"AIoT", 32, &[b"IoTHub00", b"Device00", b"DpsKey00"]),
    family(b"AzSe", 39, &[b"PAdmin00", b"Query000"]),
    family(b"+ACR", 39, &[b"ACRDflt0"]),
    Family { is_url_safe: true, ..family(b"AzFu", 40, &[b"Functi00", b"Master00", b"System00"]) },
];

const fn family(
    signature: &'static [u8; SIGNATURE],
    bytes: usize,
    seeds: &'static [&'static [u8; 8]],
) -> Family {
    Family { signature, bytes, is_url_safe: false, seeds }
}

/// Whether a whole key carries check digits under one of its seeds; `=` at its end may be left out.
pub(super) fn verify(key: &[u8]) -> bool {
    let padding = key.iter().rev().take_while(|byte| **byte == b'=').count();
    let without = key.get(..key.len() - padding).unwrap_or_default();
    let Some((before, digits)) = without.split_last_chunk::<DIGITS>() else { return false };
    let Some(family) = Family::of(before) else { return false };
    let Some(key) = family.decode(before, digits) else { return false };
    let Some(zeroed) = family.decode(before, ZEROS) else { return false };
    let (Some((body, check)), Some((zeroed, _))) =
        (key.split_last_chunk::<CHECK_BYTES>(), zeroed.split_last_chunk::<CHECK_BYTES>())
    else {
        return false;
    };
    // All kinds at once; there are fewer.
    let mut seeds = [0; KINDS];
    seeds.iter_mut().zip(family.seeds.iter().cycle()).for_each(|(to, seed)| *to = number(seed));
    body == zeroed && marvin(body, seeds).into_iter().any(|word| folded(word) == *check)
}

/// Those of the first kind, `=` included, for the start of a key up to its signature; `None`: it is no
/// such start.
pub(super) fn digits(before: &[u8]) -> Option<Vec<u8>> {
    let family = Family::of(before)?;
    family.digits(before, family.seeds.first()?)
}

impl Family {
    /// By the signature that the text ends in.
    fn of(before: &[u8]) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| before.ends_with(family.signature))
    }

    /// In which it is written, without `=` and with it.
    fn engines(&self) -> [GeneralPurpose; 2] {
        if self.is_url_safe {
            [BASE64_URL_SAFE_NO_PAD, BASE64_URL_SAFE]
        } else {
            [BASE64_STANDARD_NO_PAD, BASE64_STANDARD]
        }
    }

    /// The bytes of a key: of those that its check digits hold as well, the bits are what these say.
    fn decode(&self, before: &[u8], digits: &[u8; DIGITS]) -> Option<Zeroizing<Vec<u8>>> {
        let [without, _] = self.engines();
        let mut text = Zeroizing::new([0; TEXT_MAX]);
        let length = before.len() + DIGITS;
        let text = text.get_mut(..length)?;
        text.iter_mut().zip(before.iter().chain(digits)).for_each(|(to, from)| *to = *from);
        let key = without.decode(text).map(Zeroizing::new).ok()?;
        (key.len() == self.bytes).then_some(key)
    }

    fn digits(&self, before: &[u8], seed: &[u8; 8]) -> Option<Vec<u8>> {
        let [_, with] = self.engines();
        let mut key = self.decode(before, ZEROS)?;
        let (body, check) = key.split_last_chunk_mut::<CHECK_BYTES>()?;
        let [word] = marvin(body, [number(seed)]);
        *check = folded(word);
        let encoded = Zeroizing::new(with.encode(key));
        encoded.as_bytes().get(before.len()..).map(<[u8]>::to_vec)
    }
}

fn number(seed: &[u8; 8]) -> u64 {
    u64::from_be_bytes(*seed)
}

fn folded(word: u64) -> [u8; CHECK_BYTES] {
    let [high, low] = halves(word);
    (high ^ low).to_le_bytes()
}

/// Upper and lower.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

/// Marvin32 under several seeds, before its halves are folded (microsoft/SymCrypt, lib/marvin32.c).
fn marvin<const SEEDS: usize>(bytes: &[u8], seeds: [u64; SEEDS]) -> [u64; SEEDS] {
    let mut states = seeds.map(halves);
    let mut round = |word: u32| {
        for [b, a] in &mut states {
            *a = a.wrapping_add(word);
            for [left, right] in [[20, 9], [27, 19]] {
                *b ^= *a;
                *a = a.rotate_left(left).wrapping_add(*b);
                *b = b.rotate_left(right);
            }
        }
    };
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last.iter_mut().zip(rest.iter().chain([&0x80])).for_each(|(to, from)| *to = *from);
    words.iter().chain([&last]).for_each(|word| round(u32::from_le_bytes(*word)));
    round(0);
    states.map(|[b, a]| u64::from(b) << 32 | u64::from(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two tests of SymCrypt's own.
    #[test]
    fn marvin_as_published() {
        assert_eq!(marvin(b"abc", [0xd53c_d9ce_cd08_93b7]), [0x22c7_4339_4927_69bf]);
        let all: Vec<u8> = (b'a'..=b'z').collect();
        assert_eq!(marvin(&all, [7, 0x0ddd_deee_efff_f000])[1], 0xa128_eb7e_7260_aca2);
    }

    /// Keys of one letter from the tests of microsoft/security-utilities: of each signature one, and
    /// the second kinds that are there.
    #[test]
    fn keys_as_published() {
        let keys = [
            ("a", 76, "+ASt5mnCaw=="),
            ("a", 76, "ACDbOpqrYA=="),
            ("a", 76, "+ABa13FZVQ=="),
            ("a", 76, "+AMCFNqWyA=="),
            ("a", 76, "APIMHbKhsQ=="),
            ("a", 33, "+AEhG2s/8w="),
            ("a", 33, "+ASbHpHeAI="),
            ("a", 33, "+ARmD7h+qo="),
            ("a", 33, "AIoTOumzco="),
            ("a", 42, "AzSeCjhzCu"),
            ("d", 42, "+ACRCUDxQE"),
            ("e", 42, "+ACRCTB7t/"),
            ("d", 44, "AzFu182vhA=="),
        ];
        for (letter, count, end) in keys {
            let key = letter.repeat(count) + end;
            assert!(verify(key.as_bytes()), "{key}");
            assert!(verify(key.trim_end_matches('=').as_bytes()), "{key}");
            let other = "b".to_owned() + key.get(1..).unwrap();
            assert!(!verify(other.as_bytes()), "{other}");
            let longer = "a".to_owned() + &key;
            assert!(!verify(longer.as_bytes()), "{longer}");
        }
        assert!(!verify(b"") && !verify(b"=="));
    }

    #[test]
    fn digits_of_every_family_verify() {
        for family in &FAMILIES {
            let count = (family.bytes * 8).div_ceil(6) - SIGNATURE - DIGITS;
            let letters = if family.is_url_safe { "zQ8_-" } else { "zQ8+/" };
            let before: Vec<u8> = letters.bytes().cycle().take(count).collect();
            let before = [&before, &family.signature[..]].concat();
            let key = [before.clone(), digits(&before).unwrap()].concat();
            assert!(verify(&key), "{}", String::from_utf8_lossy(&key));
        }
        assert_eq!(digits(b"ACDb"), None);
    }
}
