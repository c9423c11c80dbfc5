//! Objects out of packs and loose files: inflated, put together from deltas, never beyond a bound.

use gix_object::Kind;
use gix_pack::data::entry::Header;
use gix_zlib::{Inflate, Status};
use zeroize::Zeroizing;

use super::store::{HEADER_MAX, Pack};
use crate::source::Copied;

/// How much of a pack is read at once at most, in bytes.
const WINDOW: usize = 128 * 1024;
/// How much is read at once elsewhere in it.
const JUMP: usize = 2 * 1024;
/// Deflate makes no more of a byte than this.
const RATIO_MAX: u64 = 1_040;

/// Why an object was not put together. It may be whole elsewhere, or for git.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its bytes are not those of an object.
    Broken,
    /// It does not fit into the memory there is for it.
    TooLarge,
}

/// Shorter parts that two objects have in common are not worth a thought, in bytes.
const COPIED_MIN: usize = 12 * 1024;

/// Bytes that may hold a key: wiped when they are let go.
pub(super) type Buffer = Zeroizing<Vec<u8>>;

/// What one thread needs to put objects together.
pub(super) struct Decoder {
    hash: gix_hash::Kind,
    inflate: Inflate,
    window: Buffer,
    /// Which pack the window shows, and from where on.
    shown: (usize, u64),
    delta: Buffer,
    /// Long parts that the last object has in common with its base.
    copied: Vec<Copied>,
    /// Longest object, in bytes.
    limit: u64,
}

impl Decoder {
    pub(super) fn new(hash: gix_hash::Kind, limit: u64) -> Self {
        Self {
            hash,
            inflate: Inflate::default(),
            window: Buffer::default(),
            shown: (usize::MAX, 0),
            delta: Buffer::default(),
            copied: Vec::new(),
            limit,
        }
    }

    /// Longest object that it puts together, in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Long parts that the last object has in common with its base, in order.
    pub(super) fn copied(&self) -> &[Copied] {
        &self.copied
    }

    /// The bytes of a pack from an offset on, at least `least` if the pack goes on so far.
    fn bytes(&mut self, (number, pack): (usize, &Pack), at: u64, least: usize) -> &[u8] {
        let start = at.checked_sub(self.shown.1).and_then(|start| usize::try_from(start).ok());
        let there = start.filter(|start| start.saturating_add(least) <= self.window.len());
        let start = match there.filter(|_| self.shown.0 == number) {
            Some(start) => start,
            None => {
                // Ever more is read ahead, as long as reading goes on where it ended.
                let length = self.window.len();
                let goes_on = self.shown.0 == number
                    && at
                        .checked_sub(self.shown.1)
                        .is_some_and(|gap| gap <= (length + JUMP) as u64);
                let ahead = if goes_on { (2 * length).min(WINDOW) } else { 0 }.max(JUMP);
                self.window.resize(least.max(ahead), 0);
                let filled = pack.read_at(at, &mut self.window).unwrap_or_default();
                self.window.truncate(filled);
                self.shown = (number, at);
                0
            }
        };
        self.window.get(start..).unwrap_or_default()
    }

    /// The header of an entry.
    pub(super) fn header(
        &mut self,
        pack: (usize, &Pack),
        at: u64,
    ) -> Option<gix_pack::data::Entry> {
        if at >= pack.1.end {
            return None;
        }
        let hash = self.hash;
        gix_pack::data::Entry::from_bytes(self.bytes(pack, at, HEADER_MAX), at, hash).ok()
    }

    /// Inflates an entry that ends at `end` at the latest.
    fn inflate(
        &mut self,
        pack: (usize, &Pack),
        (at, end): (u64, u64),
        size: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if size > self.limit {
            return Err(Fault::TooLarge);
        }
        let length = end.saturating_sub(at);
        if size / RATIO_MAX > length {
            return Err(Fault::Broken);
        }
        // What git writes is never much longer than what it holds.
        let length = length.min(size + size / 64 + 1_024);
        let length = usize::try_from(length).map_err(|_| Fault::TooLarge)?;
        let size = usize::try_from(size).map_err(|_| Fault::TooLarge)?;
        self.bytes(pack, at, length);
        let start = usize::try_from(at - self.shown.1).unwrap_or(usize::MAX);
        let input = self.window.get(start..).unwrap_or_default();
        out.resize(size, 0);
        self.inflate.reset();
        match self.inflate.once(input, out) {
            Ok((Status::StreamEnd, _, written)) if written == size => Ok(()),
            _ => Err(Fault::Broken),
        }
    }

    /// Reads an object that is stored as it is.
    pub(super) fn root(
        &mut self,
        pack: (usize, &Pack),
        at: u64,
        end: u64,
        out: &mut Vec<u8>,
    ) -> Result<Kind, Fault> {
        let entry = self.header(pack, at).ok_or(Fault::Broken)?;
        let kind = entry.header.as_kind().ok_or(Fault::Broken)?;
        self.inflate(pack, (entry.data_offset, end), entry.decompressed_size, out)?;
        Ok(kind)
    }

    /// Reads an object that is stored as the difference to another, which fits `room` bytes.
    pub(super) fn differing(
        &mut self,
        pack: (usize, &Pack),
        (at, end): (u64, u64),
        (base, room): (&[u8], u64),
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let entry = self.header(pack, at).ok_or(Fault::Broken)?;
        if !matches!(entry.header, Header::OfsDelta { .. } | Header::RefDelta { .. }) {
            return Err(Fault::Broken);
        }
        let mut delta = std::mem::take(&mut self.delta);
        let range = (entry.data_offset, end);
        let outcome = self
            .inflate(pack, range, entry.decompressed_size, &mut delta)
            .and_then(|()| apply(base, &delta, room.min(self.limit), (out, &mut self.copied)));
        self.copied.retain(|part| part.length >= COPIED_MIN);
        self.delta = delta;
        outcome
    }

    /// Inflates the whole of a loose object: `kind size NUL bytes`.
    pub(super) fn loose(&mut self, file: &[u8], out: &mut Vec<u8>) -> Result<Kind, Fault> {
        let mut head = [0; 64];
        self.inflate.reset();
        let (_, _, there) = self.inflate.prefix(file, &mut head).map_err(|_| Fault::Broken)?;
        let head = head.get(..there).unwrap_or_default();
        let (kind, size, start) = loose_header(head).ok_or(Fault::Broken)?;
        if size > self.limit {
            return Err(Fault::TooLarge);
        }
        let whole = usize::try_from(size).map_err(|_| Fault::TooLarge)? + start;
        out.resize(whole, 0);
        self.inflate.reset();
        match self.inflate.once(file, out) {
            Ok((Status::StreamEnd, _, written)) if written == whole => {
                out.drain(..start);
                Ok(kind)
            }
            _ => Err(Fault::Broken),
        }
    }
}

/// Kind, size, and where the object itself begins.
fn loose_header(head: &[u8]) -> Option<(Kind, u64, usize)> {
    let end = memchr::memchr(0, head)?;
    let text = std::str::from_utf8(head.get(..end)?).ok()?;
    let (kind, size) = text.split_once(' ')?;
    Some((Kind::from_bytes(kind.as_bytes()).ok()?, size.parse().ok()?, end + 1))
}

/// Puts an object together from another one and the difference to it.
fn apply(
    base: &[u8],
    delta: &[u8],
    room: u64,
    (out, copied): (&mut Vec<u8>, &mut Vec<Copied>),
) -> Result<(), Fault> {
    let mut at = 0;
    if length(delta, &mut at)? != base.len() as u64 {
        return Err(Fault::Broken);
    }
    let size = length(delta, &mut at)?;
    if size > room {
        return Err(Fault::TooLarge);
    }
    let size = usize::try_from(size).map_err(|_| Fault::TooLarge)?;
    out.clear();
    copied.clear();
    out.reserve(size);
    while let Some(&command) = delta.get(at) {
        at += 1;
        let part = if command & 0x80 != 0 {
            let (mut from, mut count) = (0usize, 0usize);
            for bit in 0..7 {
                if command & (1 << bit) != 0 {
                    let byte = usize::from(*delta.get(at).ok_or(Fault::Broken)?);
                    at += 1;
                    if bit < 4 {
                        from |= byte << (8 * bit);
                    } else {
                        count |= byte << (8 * (bit - 4));
                    }
                }
            }
            let count = if count == 0 { 0x1_0000 } else { count };
            note(copied, Copied { from, to: out.len(), length: count });
            base.get(from..from + count)
        } else {
            let from = at;
            at += usize::from(command);
            delta.get(from..at).filter(|part| !part.is_empty())
        };
        let part = part.ok_or(Fault::Broken)?;
        if out.len() + part.len() > size {
            return Err(Fault::Broken);
        }
        out.extend_from_slice(part);
    }
    if out.len() == size { Ok(()) } else { Err(Fault::Broken) }
}

/// Adds a part; one that goes on where the last one ended makes it longer.
fn note(copied: &mut Vec<Copied>, part: Copied) {
    match copied.last_mut() {
        Some(last) if last.from + last.length == part.from && last.to + last.length == part.to => {
            last.length += part.length;
        }
        _ => copied.push(part),
    }
}

/// A number of seven bits a byte, the lowest first.
fn length(delta: &[u8], at: &mut usize) -> Result<u64, Fault> {
    let (mut size, mut shift) = (0u64, 0u32);
    loop {
        let byte = *delta.get(*at).ok_or(Fault::Broken)?;
        *at += 1;
        let part = u64::from(byte & 0x7f);
        size |= part.checked_shl(shift).filter(|_| shift < 63).ok_or(Fault::Broken)?;
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_applied_within_its_bounds() {
        let (mut out, mut copied) = (Vec::new(), Vec::new());
        let base = b"0123456789";
        // From 10 bytes to 6: four from the third on, then two new ones.
        let delta = [10, 6, 0x80 | 0x01 | 0x10, 2, 4, 2, b'a', b'b'];
        let mut apply = |delta: &[u8], room| {
            let outcome = apply(base, delta, room, (&mut out, &mut copied));
            outcome.map(|()| (out.clone(), copied.clone()))
        };
        let copy = Copied { from: 2, to: 0, length: 4 };
        assert_eq!(apply(&delta, 100), Ok((b"2345ab".to_vec(), vec![copy])));
        // Two copies that go on are one.
        let twice = [10, 4, 0x91, 2, 2, 0x91, 4, 2];
        assert_eq!(apply(&twice, 100), Ok((b"2345".to_vec(), vec![copy])));
        assert_eq!(apply(&delta, 5), Err(Fault::TooLarge));
        for broken in [
            &[10u8, 6][..],
            &[9, 6, 0x91, 2, 4, 2, b'a', b'b'],
            &[10, 6, 0x91, 8, 4, 2, b'a', b'b'],
            &[10, 5, 0x91, 2, 4, 2, b'a', b'b'],
            &[10, 7, 0x91, 2, 4, 2, b'a', b'b'],
            &[10, 6, 0, 0x91, 2, 4, 2, b'a', b'b'],
            &[10, 6, 0x91, 2],
            &[0x80; 12],
            &[],
        ] {
            assert_eq!(apply(broken, 100), Err(Fault::Broken), "{broken:?}");
        }
    }

    #[test]
    fn the_header_of_a_loose_object() {
        assert_eq!(loose_header(b"blob 12\0x"), Some((Kind::Blob, 12, 8)));
        for broken in [&b"blob 12"[..], b"blub 1\0", b"blob x\0", b"blob\0", b""] {
            assert_eq!(loose_header(broken), None);
        }
    }
}
