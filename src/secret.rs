//! The plain key and what is made of it.
//!
//! Invariant: the bytes of a candidate or a key live in [`Secret`] and nowhere else. It has no
//! `Display`, no `Serialize` and no `Clone`, its `Debug` is redacted, and it wipes itself. What
//! leaves it is a [`Digest`] (to look it up), a tag (to filter), or a [`hint`](Secret::hint) (for
//! people).

use std::fmt;
use std::hash::Hasher;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher13;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The bytes of a key or of a candidate. Wiped when dropped.
#[derive(ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Copies bytes out of a read buffer.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The only way to the bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What people may see: the public prefix and, where enough stays hidden (16 characters or
    /// more), the last four characters. Of a text with a password in it only what stands behind the last
    /// separator is taken for hidden.
    #[must_use]
    pub fn hint(&self, prefix: &str) -> String {
        let body = self.0.get(prefix.len()..).unwrap_or_default();
        let is_in_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.+/=~".contains(byte);
        let separates = |byte: &u8| !is_in_key(byte) || b"/=".contains(byte);
        let hidden = match body.iter().all(is_in_key) {
            true => body.len(),
            false => body.iter().rev().take_while(|byte| !separates(byte)).count(),
        };
        let tail: String = if hidden >= 20 && self.0.is_ascii() {
            self.0.iter().skip(self.0.len() - 4).map(|&b| char::from(b)).collect()
        } else {
            String::new()
        };
        crate::text::clean(format!("{prefix}…{tail}").as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// `HMAC-SHA-256(pepper, SHA-256(key))`: the identity of a key in the registry.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The 32 bytes, for the database.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time with stored bytes.
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        equal(&self.0, stored)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(redacted)")
    }
}

/// A pepper file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file is not of the form that `init` writes.
    #[error(
        "line {line}: expected `{expected}`; restore the file from its backup, a pepper cannot be made anew"
    )]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(getrandom::Error),
}

/// The installation's secrets: the peppers and the two tag keys. They lie in one file of mode 0600
/// beside the database, never in it.
///
/// Each rotation adds a pepper behind the others: the digest under the last one is made from the
/// digest under the one before it, so that no plain key is needed for a rotation.
#[derive(Clone)]
pub struct Keyring {
    /// At least one, the oldest first.
    peppers: Vec<Zeroizing<[u8; 32]>>,
    macs: Vec<Hmac<Sha256>>,
    tag_key: Zeroizing<[u8; 16]>,
    export_key: Zeroizing<[u8; 16]>,
}

const FORMAT: &str = "leakwarden-pepper 1";

impl Keyring {
    /// Makes new secrets from the operating system's generator.
    pub fn generate() -> Result<Self, KeyringError> {
        let mut bytes = Zeroizing::new([0u8; 64]);
        getrandom::fill(bytes.as_mut()).map_err(KeyringError::Random)?;
        Ok(Self::from_bytes(&bytes))
    }

    fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut pepper = Zeroizing::new([0u8; 32]);
        let mut tag_key = Zeroizing::new([0u8; 16]);
        let mut export_key = Zeroizing::new([0u8; 16]);
        let (head, tail) = bytes.split_at(32);
        let (tag, export) = tail.split_at(16);
        pepper.copy_from_slice(head);
        tag_key.copy_from_slice(tag);
        export_key.copy_from_slice(export);
        Self::new(vec![pepper], tag_key, export_key)
    }

    fn new(
        peppers: Vec<Zeroizing<[u8; 32]>>,
        tag_key: Zeroizing<[u8; 16]>,
        export_key: Zeroizing<[u8; 16]>,
    ) -> Self {
        let macs = peppers.iter().map(|pepper| keyed(pepper.as_ref())).collect();
        Self { peppers, macs, tag_key, export_key }
    }

    /// How many peppers there are: the version of its digests.
    #[must_use]
    pub fn version(&self) -> usize {
        self.peppers.len()
    }

    /// The same with the first peppers only, as before the later rotations.
    #[must_use]
    pub fn at_version(&self, version: usize) -> Self {
        let peppers = self.peppers.iter().take(version).cloned().collect();
        Self::new(peppers, self.tag_key.clone(), self.export_key.clone())
    }

    /// The same with one more pepper.
    pub fn rotated(&self) -> Result<Self, KeyringError> {
        let mut pepper = Zeroizing::new([0u8; 32]);
        getrandom::fill(pepper.as_mut()).map_err(KeyringError::Random)?;
        let peppers = self.peppers.iter().cloned().chain([pepper]).collect();
        Ok(Self::new(peppers, self.tag_key.clone(), self.export_key.clone()))
    }

    /// The text of the pepper file.
    #[must_use]
    pub fn render(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(256 + 80 * self.peppers.len()));
        text.push_str(FORMAT);
        text.push('\n');
        let peppers = self.peppers.iter().map(|pepper| ("pepper", pepper.as_slice()));
        let keys = [("tag", self.tag_key.as_slice()), ("export", self.export_key.as_slice())];
        for (name, bytes) in peppers.chain(keys) {
            text.push_str(name);
            text.push(' ');
            for byte in bytes {
                text.push(char::from(hex_digit(byte >> 4)));
                text.push(char::from(hex_digit(byte & 15)));
            }
            text.push('\n');
        }
        text
    }

    /// Reads the text of a pepper file.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let malformed = |line, expected| KeyringError::Malformed { line, expected };
        let mut lines = text.lines().enumerate().peekable();
        if lines.next().map(|(_, line)| line) != Some(FORMAT) {
            return Err(malformed(1, FORMAT));
        }
        let mut peppers = Vec::new();
        while lines.peek().is_some_and(|(_, line)| line.starts_with("pepper ")) {
            let mut pepper = Zeroizing::new([0u8; 32]);
            let line = lines.next();
            field(line, "pepper ", pepper.as_mut())
                .ok_or_else(|| malformed(peppers.len() + 2, "pepper <64 hex digits>"))?;
            peppers.push(pepper);
        }
        let at = peppers.len() + 2;
        if peppers.is_empty() {
            return Err(malformed(at, "pepper <64 hex digits>"));
        }
        let (mut tag, mut export) = (Zeroizing::new([0u8; 16]), Zeroizing::new([0u8; 16]));
        field(lines.next(), "tag ", tag.as_mut())
            .ok_or_else(|| malformed(at, "tag <32 hex digits>"))?;
        field(lines.next(), "export ", export.as_mut())
            .ok_or_else(|| malformed(at + 1, "export <32 hex digits>"))?;
        Ok(Self::new(peppers, tag, export))
    }

    /// The digest of a key.
    #[must_use]
    pub fn digest(&self, key: &[u8]) -> Digest {
        let mut hash: [u8; 32] = Sha256::digest(key).into();
        let digest = self.digest_of_sha256(&hash);
        hash.zeroize();
        digest
    }

    /// The digest of a key of which only the SHA-256 is known.
    #[must_use]
    pub fn digest_of_sha256(&self, sha256: &[u8; 32]) -> Digest {
        Digest(self.macs.iter().fold(*sha256, |value, mac| step(mac, &value)))
    }

    /// The digest under the last pepper, from the one under the pepper before it.
    #[must_use]
    pub fn next_digest(&self, previous: &[u8; 32]) -> [u8; 32] {
        self.macs.last().map_or(*previous, |mac| step(mac, previous))
    }

    /// The tag of a key: 64 bits for the in-memory filter. About 10 ns for 44 bytes.
    #[must_use]
    pub fn tag(&self, key: &[u8]) -> u64 {
        sip(&self.tag_key, key)
    }

    /// The key of the tags in filters that leave the host.
    #[must_use]
    pub fn export_key(&self) -> ExportKey {
        ExportKey(self.export_key.clone())
    }

    /// What the database stores to recognise its own pepper.
    #[must_use]
    pub fn check_value(&self) -> [u8; 32] {
        self.macs.last().map_or([0; 32], |mac| {
            let mut mac = mac.clone();
            mac.update(b"leakwarden: the check value of a pepper");
            mac.finalize().into_bytes().into()
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(redacted)")
    }
}

/// What the tags of a filter that leaves the host are made with. It goes with the filter, as whoever
/// asks the filter needs it; the pepper and the other tag key do not.
pub struct ExportKey(Zeroizing<[u8; 16]>);

impl ExportKey {
    /// The tag of a key in that filter.
    #[must_use]
    pub fn tag(&self, key: &[u8]) -> u64 {
        sip(&self.0, key)
    }

    /// For the filter's file.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(to_hex(self.0.as_ref()))
    }

    /// The other way.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0u8; 16]);
        decode_hex(hex, bytes.as_mut())?;
        Some(Self(bytes))
    }
}

fn step(mac: &Hmac<Sha256>, value: &[u8; 32]) -> [u8; 32] {
    let mut mac = mac.clone();
    mac.update(value);
    mac.finalize().into_bytes().into()
}

/// The bytes of one line of a pepper file.
fn field(line: Option<(usize, &str)>, name: &str, out: &mut [u8]) -> Option<()> {
    decode_hex(line?.1.strip_prefix(name)?.trim_end(), out)
}

/// First 16 hex digits of an HMAC of the value under a salt: the same value has the same
/// fingerprint wherever that salt is used, and says nothing to whoever lacks it.
#[must_use]
pub fn fingerprint(salt: &[u8], value: &[u8]) -> String {
    let mut mac = keyed(salt);
    mac.update(value);
    let bytes: [u8; 32] = mac.finalize().into_bytes().into();
    to_hex(bytes.get(..8).unwrap_or_default())
}

/// SHA-256 of several parts, each preceded by its length, for identities of places.
#[must_use]
pub fn identity_hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Compares two values in constant time.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Lower-case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)])
        .map(char::from)
        .collect()
}

/// Fills `out` from exactly twice as many hex digits.
#[must_use]
pub fn decode_hex(hex: &str, out: &mut [u8]) -> Option<()> {
    let digits = hex.as_bytes();
    if digits.len() != out.len() * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0u8;
        for &digit in pair {
            value = value << 4 | u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        }
        *byte = value;
    }
    Some(())
}

/// Uniform random characters of an alphabet of at most 256 symbols, by rejection.
pub fn random_text(alphabet: &[u8], count: usize) -> Result<Secret, KeyringError> {
    let limit = 256 - 256 % alphabet.len().max(1);
    let mut out = Vec::with_capacity(count);
    let mut pool = Zeroizing::new([0u8; 64]);
    while out.len() < count {
        getrandom::fill(pool.as_mut()).map_err(KeyringError::Random)?;
        for &byte in pool.iter().filter(|&&byte| usize::from(byte) < limit) {
            if out.len() < count {
                out.extend(alphabet.get(usize::from(byte) % alphabet.len()));
            }
        }
    }
    Ok(Secret::new(out))
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length; the type cannot say so")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

fn sip(key: &[u8; 16], bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(bytes);
    hasher.finish()
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_survives_its_file() {
        let keyring = Keyring::generate().unwrap();
        let again = Keyring::parse(&keyring.render()).unwrap();
        let key = b"some key of some length";
        assert_eq!(keyring.digest(key).as_bytes(), again.digest(key).as_bytes());
        assert_eq!(keyring.tag(key), again.tag(key));
        assert_eq!(keyring.check_value(), again.check_value());
        assert_ne!(keyring.tag(key), keyring.export_key().tag(key));
    }

    #[test]
    fn a_damaged_keyring_is_refused_with_its_line() {
        let text = Keyring::generate().unwrap().render().replace("tag ", "tug ");
        let error = Keyring::parse(&text).unwrap_err();
        assert!(error.to_string().starts_with("line 3: expected `tag"), "{error}");
    }

    #[test]
    fn a_rotation_needs_no_plain_key() {
        let first = Keyring::generate().unwrap();
        let third = first.rotated().unwrap().rotated().unwrap();
        let second = third.at_version(2);
        let key = b"some key of some length";
        let known = first.digest(key);
        let next = second.next_digest(known.as_bytes());
        assert!(second.digest(key).matches(&next));
        assert!(third.digest(key).matches(&third.next_digest(&next)));
        assert_eq!(third.at_version(1).check_value(), first.check_value());
        assert_ne!(third.check_value(), second.check_value());
        let again = Keyring::parse(&third.render()).unwrap();
        assert_eq!((again.version(), again.check_value()), (3, third.check_value()));
    }

    #[test]
    fn the_digest_of_a_key_is_that_of_its_sha256() {
        let keyring = Keyring::generate().unwrap();
        let sha: [u8; 32] = Sha256::digest(b"abc").into();
        assert!(keyring.digest(b"abc").matches(keyring.digest_of_sha256(&sha).as_bytes()));
        assert!(!keyring.digest(b"abd").matches(keyring.digest_of_sha256(&sha).as_bytes()));
    }

    #[test]
    fn nothing_prints_the_bytes() {
        let secret = Secret::copy_of(b"abcdefghijklmnopqrstuvwxyz");
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert_eq!(secret.hint("abc"), "abc…wxyz");
        assert_eq!(Secret::copy_of(b"ghp_short").hint("ghp_"), "ghp_…");
        // A host and a user before it hide nothing of a short password.
        for (text, prefix, hint) in [
            ("jdbc:x://db.internal:5432/app?user=app&password=Zq7k1w", "jdbc:x://", "jdbc:x://…"),
            ("user=administrator password=Zq7k1w", "user=", "user=…"),
            ("jdbc:y:administrator_of_db/Zq7k1w@", "jdbc:y:", "jdbc:y:…"),
            ("key=abc;defghijklmnopqrstuvwxyz", "key=", "key=…wxyz"),
            ("k/abcdefgh/ijklmnopqrstuv==", "k/", "k/…uv=="),
        ] {
            assert_eq!(Secret::copy_of(text.as_bytes()).hint(prefix), hint, "{text}");
        }
    }
}
