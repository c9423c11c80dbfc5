//! Examples without secrets: the random parts of a rule's examples are placeholders
//! (`<base62:30>`, `<uuid>`, `<check>`) that are filled in at run time, always in the same way.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::Checksum;

const ALPHABETS: &[(&str, &[u8])] = &[
    ("base62", b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
    ("base64url", b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"),
    ("base64", b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/"),
    ("hex", b"0123456789abcdef"),
    ("HEX", b"0123456789ABCDEF"),
    ("base36", b"0123456789abcdefghijklmnopqrstuvwxyz"),
    ("BASE36", b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ("base32", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    ("digits", b"0123456789"),
    ("lower", b"abcdefghijklmnopqrstuvwxyz"),
    ("upper", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ("letters", b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
    ("bech32", b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
];

/// Placeholders stand for fewer characters: more than any match has.
const PLACEHOLDER_MAX: usize = 10_000;
/// Longest example, in bytes: more than any match has.
const EXAMPLE_MAX: usize = 6 << 10;

/// Fills in the placeholders of an example. `literals` and their `offsets` are the rule's, to find
/// where the key begins when check digits are computed.
pub fn expand(
    template: &str,
    (literals, offsets): (&[Cow<'static, str>], &[usize]),
    checksum: Option<Checksum>,
) -> Result<Vec<u8>, String> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut out: Vec<u8> = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('<') {
        let (text, tail) = rest.split_at(open);
        out.extend_from_slice(text.as_bytes());
        let Some((inner, after)) = tail.strip_prefix('<').and_then(|t| t.split_once('>')) else {
            return Err(format!("`{template}`: a `<` without its `>`"));
        };
        match fill(inner, &out, (literals, offsets), checksum, &mut random)? {
            Some(bytes) => {
                out.extend(bytes);
                rest = after;
            }
            None => {
                out.push(b'<');
                rest = tail.strip_prefix('<').unwrap_or_default();
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
    if out.len() > EXAMPLE_MAX {
        return Err(format!("an example has {} bytes, {EXAMPLE_MAX} are allowed", out.len()));
    }
    Ok(out)
}

/// The bytes for one placeholder; `None` where the text between the brackets is none.
fn fill(
    inner: &str,
    before: &[u8],
    (literals, offsets): (&[Cow<'static, str>], &[usize]),
    checksum: Option<Checksum>,
    random: &mut Random,
) -> Result<Option<Vec<u8>>, String> {
    if inner == "uuid" {
        let hex = random.text(b"0123456789abcdef", 32);
        let mut uuid = Vec::with_capacity(36);
        for (index, byte) in hex.into_iter().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                uuid.push(b'-');
            }
            uuid.push(byte);
        }
        return Ok(Some(uuid));
    }
    if inner == "check" {
        let checksum = checksum.ok_or("`<check>` in a rule without a checksum")?;
        let start = literals
            .iter()
            .filter_map(|literal| memchr::memmem::rfind(before, literal.as_bytes()))
            .max()
            .ok_or("`<check>` with none of the prefixes before it")?;
        let start = start.saturating_sub(offsets.first().copied().unwrap_or_default());
        let digits = checksum.digits(before.get(start..).unwrap_or_default());
        if digits.is_empty() {
            return Err(format!(
                "`<check>`: for `{}` the whole key up to its signature must stand before it, as long as such keys are",
                checksum.as_str()
            ));
        }
        return Ok(Some(digits));
    }
    let Some((name, count)) = inner.split_once(':') else { return Ok(None) };
    let number = || match count.parse() {
        Err(_) => Err(format!("`<{inner}>`: not a number")),
        Ok(PLACEHOLDER_MAX..) => Err(format!("`<{inner}>`: under {PLACEHOLDER_MAX} characters")),
        Ok(count) => Ok(count),
    };
    if name == "json" {
        return json(number()?, random)
            .map(Some)
            .ok_or_else(|| format!("`<{inner}>`: no JSON object is so long in base64url; try the next length, from 11 on"));
    }
    let Some((_, alphabet)) = ALPHABETS.iter().find(|(known, _)| *known == name) else {
        return Ok(None);
    };
    Ok(Some(random.text(alphabet, number()?)))
}

/// A JSON object in base64url, of so many characters; `None`: none is so long.
fn json(count: usize, random: &mut Random) -> Option<Vec<u8>> {
    let (before, after) = (br#"{"k":""#, br#""}"#);
    // Three bytes are four characters.
    let rest = (count * 3 / 4).checked_sub(before.len() + after.len())?;
    let value = random.text(b"abcdefghijklmnopqrstuvwxyz0123456789", rest);
    let encoded = BASE64_URL_SAFE_NO_PAD.encode([before, value.as_slice(), after].concat());
    (encoded.len() == count).then(|| encoded.into_bytes())
}

/// SplitMix64 (Steele, Lea, Flood 2014): examples want the same "random" text in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn text(&mut self, alphabet: &[u8], count: usize) -> Vec<u8> {
        let size = alphabet.len().max(1) as u64;
        (0..count)
            .filter_map(|_| alphabet.get(usize::try_from(self.next() % size).ok()?).copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled() {
        let prefixes = [Cow::Borrowed("lw_user_")];
        let literals = (&prefixes[..], &[0][..]);
        let text =
            expand("k=\"lw_user_<base62:30><check>\" <tag>", literals, Some(Checksum::Leakwarden))
                .unwrap();
        assert_eq!(text.len(), 3 + 8 + 36 + 1 + 6);
        assert!(Checksum::Leakwarden.verify(&text[3..3 + 44]));
        assert!(text.ends_with(b"<tag>"));
        let none = (&[][..], &[][..]);
        assert_eq!(expand("<uuid>", none, None).unwrap().len(), 36);
        assert!(expand("<check>", literals, None).is_err());
        let azure = Some(Checksum::AzureIdentifiable);
        let short = expand("<base62:3>lw_user_<check>", literals, azure).unwrap_err();
        assert!(short.contains("up to its signature"), "{short}");
        for wrong in ["<hex:10000>", "<hex:-1>", "<json:9>", "<json:21>"] {
            assert!(expand(wrong, none, None).is_err(), "{wrong}");
        }
        for count in [11, 20, 22, 23, 900] {
            let text = expand(&format!("<json:{count}>"), none, None).unwrap();
            assert!(text.len() == count && text.starts_with(b"eyJ"));
        }
    }
}
