//! Words that people write beside keys: names, descriptions, reasons. They are stored as they are,
//! so no registered key may stand in them.

use super::{RegistryError, Result, Tx};
use crate::shape::{KEY_MAX, KEY_MIN};

/// What ends a key in a text, for one alphabet after the other: any, the one of runs, base64url, base64.
const ENDS: [fn(&u8) -> bool; 4] = [
    |byte| !byte.is_ascii_graphic(),
    |byte| !(byte.is_ascii_alphanumeric() || b"_-.".contains(byte)),
    |byte| !(byte.is_ascii_alphanumeric() || b"_-".contains(byte)),
    |byte| !(byte.is_ascii_alphanumeric() || b"+/=".contains(byte)),
];

/// The parts of a text that may be keys, each once.
pub(super) fn parts(text: &[u8]) -> Vec<&[u8]> {
    if text.len() < KEY_MIN {
        return Vec::new();
    }
    let all = ENDS.iter().flat_map(|end| text.split(end));
    let mut parts: Vec<&[u8]> =
        all.filter(|part| (KEY_MIN..=KEY_MAX).contains(&part.len())).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

impl Tx<'_> {
    /// Whether a registered key stands in a text.
    pub fn is_key_in(&self, text: &[u8]) -> Result<bool> {
        for part in parts(text) {
            if self.is_key(&self.keyring().digest(part))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses words that cannot be shown in one line, or in which a registered key stands.
    pub(super) fn refuse_words(&self, words: &[&str]) -> Result<()> {
        let mut why = None;
        for word in words {
            if word.contains(char::is_control) {
                why = Some("a control character");
            } else if self.is_key_in(word.as_bytes())? {
                why = Some("a registered key");
            }
        }
        let Some(why) = why else { return Ok(()) };
        let what = "the name, the description or another word about the key";
        Err(RegistryError::Refused(format!("{what} holds {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_part_of_what_is_written_around_it() {
        let key = b"0123456789abcdef_X-Yz";
        for text in ["the key is %.", "--reason=%", "(%)", "a:%", "x/%", "%"] {
            let text = text.replace('%', "0123456789abcdef_X-Yz");
            assert!(parts(text.as_bytes()).contains(&&key[..]), "{text}");
        }
        assert!(parts(b"0123456789abcde").is_empty());
    }
}
