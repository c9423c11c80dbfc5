//! The journal's export form: `NAME=text` a line, or `NAME`, a length of 8 bytes and so many bytes;
//! an empty line ends an entry. Read in parts, whatever their borders.

use zeroize::Zeroizing;

use crate::source::SourceError;

/// A line that is longer is handed on in parts.
const LINE_MAX: usize = 64 * 1024;
/// Longest name of a field; journald takes 64.
const NAME_MAX: usize = 256;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A part of the value of a field. `first`: the field begins with it.
    Value { name: &'a [u8], part: &'a [u8], first: bool },
    /// The entry is at its end.
    End,
}

enum State {
    /// At the start of a line.
    Line,
    /// In the text of a field.
    Text(Vec<u8>),
    /// Before the length of a field.
    Length(Vec<u8>),
    /// In the bytes of a field; so many are left, and whether none was handed on.
    Bytes(Vec<u8>, u64, bool),
}

/// Reads it.
pub(super) struct Export {
    state: State,
    /// What came and is not handed on.
    buffer: Zeroizing<Vec<u8>>,
}

impl Export {
    pub(super) fn new() -> Self {
        Self { state: State::Line, buffer: Zeroizing::default() }
    }

    /// Takes the next bytes and hands on what is complete.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), SourceError> {
        self.buffer.extend_from_slice(bytes);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while let Some(after) = self.step(rest, take)? {
            rest = after;
        }
        let kept = rest.len();
        let done = buffer.len() - kept;
        buffer.copy_within(done.., 0);
        buffer.truncate(kept);
        self.buffer = buffer;
        Ok(())
    }

    /// One step; `None`: more has to come first.
    fn step<'b>(
        &mut self,
        rest: &'b [u8],
        take: &mut dyn FnMut(Piece<'_>),
    ) -> Result<Option<&'b [u8]>, SourceError> {
        let (state, after) = match std::mem::replace(&mut self.state, State::Line) {
            State::Line => match memchr::memchr(b'\n', rest) {
                Some(at) => (line(rest.get(..at).unwrap_or_default(), take)?, rest.get(at + 1..)),
                None if rest.len() > LINE_MAX => {
                    let (name, part) = split(rest).ok_or_else(malformed)?;
                    take(Piece::Value { name, part, first: true });
                    (State::Text(name.to_owned()), Some(&[][..]))
                }
                None => (State::Line, None),
            },
            State::Text(name) => match memchr::memchr(b'\n', rest) {
                Some(at) => {
                    let part = rest.get(..at).unwrap_or_default();
                    take(Piece::Value { name: &name, part, first: false });
                    (State::Line, rest.get(at + 1..))
                }
                None if rest.is_empty() => (State::Text(name), None),
                None => {
                    take(Piece::Value { name: &name, part: rest, first: false });
                    (State::Text(name), Some(&[][..]))
                }
            },
            State::Length(name) => match rest.split_first_chunk::<8>() {
                Some((length, after)) => {
                    (State::Bytes(name, u64::from_le_bytes(*length), true), Some(after))
                }
                None => (State::Length(name), None),
            },
            State::Bytes(name, 0, first) => match rest.split_first() {
                Some((b'\n', after)) => {
                    if first {
                        take(Piece::Value { name: &name, part: &[], first });
                    }
                    (State::Line, Some(after))
                }
                Some(_) => return Err(malformed()),
                None => (State::Bytes(name, 0, first), None),
            },
            State::Bytes(name, left, first) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                if count == 0 {
                    (State::Bytes(name, left, first), None)
                } else {
                    let (part, after) = rest.split_at(count);
                    take(Piece::Value { name: &name, part, first });
                    (State::Bytes(name, left - count as u64, false), Some(after))
                }
            }
        };
        self.state = state;
        Ok(after)
    }
}

/// A whole line.
fn line(line: &[u8], take: &mut dyn FnMut(Piece<'_>)) -> Result<State, SourceError> {
    if line.is_empty() {
        take(Piece::End);
    } else if let Some((name, part)) = split(line) {
        take(Piece::Value { name, part, first: true });
    } else if line.len() > NAME_MAX {
        return Err(malformed());
    } else if !line.starts_with(b"-- ") {
        // What starts like that is a remark of journalctl.
        return Ok(State::Length(line.to_owned()));
    }
    Ok(State::Line)
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', line.get(..line.len().min(NAME_MAX))?)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

fn malformed() -> SourceError {
    SourceError::Format("journalctl wrote something that is not the journal's export form".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of an entry.
    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(parts: &[&[u8]]) -> Result<Vec<Fields>, SourceError> {
        let mut export = Export::new();
        let (mut entries, mut entry) = (Vec::new(), Fields::new());
        for part in parts {
            export.feed(part, &mut |piece| match piece {
                Piece::Value { name, part, first: true } => {
                    entry.push((name.to_owned(), part.to_owned()));
                }
                Piece::Value { name, part, first: false } => {
                    let (last, value) = entry.last_mut().unwrap();
                    assert_eq!(last, name);
                    value.extend_from_slice(part);
                }
                Piece::End => entries.push(std::mem::take(&mut entry)),
            })?;
        }
        Ok(entries)
    }

    fn sample() -> Vec<u8> {
        let mut text = b"__CURSOR=s=1;i=2\nMESSAGE\n".to_vec();
        let message = b"two\nlines\xff\x00=x";
        text.extend_from_slice(&(message.len() as u64).to_le_bytes());
        text.extend_from_slice(message);
        text.extend_from_slice(b"\nEMPTY\n\0\0\0\0\0\0\0\0\nNOTHING=\n\n-- No entries --\nA=b\n\n");
        text
    }

    #[test]
    fn the_same_whatever_the_borders() {
        let text = sample();
        let whole = read(&[&text]).unwrap();
        let names = |entry: &Fields| {
            entry.iter().map(|(name, _)| String::from_utf8_lossy(name).into()).collect()
        };
        let all: Vec<Vec<String>> = whole.iter().map(names).collect();
        assert_eq!(all, [vec!["__CURSOR", "MESSAGE", "EMPTY", "NOTHING"], vec!["A"]]);
        assert_eq!(whole[0][0].1, b"s=1;i=2");
        assert_eq!(whole[0][1].1, b"two\nlines\xff\x00=x");
        for at in 0..text.len() {
            let (one, other) = text.split_at(at);
            assert_eq!(read(&[one, other]).unwrap(), whole, "{at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), whole);
    }

    #[test]
    fn long_fields_come_in_parts() {
        let long = vec![b'x'; 3 * LINE_MAX];
        let mut text = b"MESSAGE=".to_vec();
        text.extend_from_slice(&long);
        text.extend_from_slice(b"\nB=c\n\n");
        let parts: Vec<&[u8]> = text.chunks(LINE_MAX / 2).collect();
        assert_eq!(read(&parts).unwrap()[0][0].1, long);
    }

    #[test]
    fn what_is_something_else_is_refused() {
        assert!(read(&[&vec![b'x'; NAME_MAX + 1], b"\n"]).is_err());
        assert!(read(&[&vec![b'x'; LINE_MAX + 1]]).is_err());
        assert!(read(&[b"A\n\x01\0\0\0\0\0\0\0xy"]).is_err());
    }
}
