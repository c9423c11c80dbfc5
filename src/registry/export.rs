//! The filter that leaves the host: by it a developer's machine sees that some text is a live key
//! of the registry, without the registry.
//!
//! It holds the export key, as whoever asks it must compute tags, and of each key nothing but its
//! tag: 64 bits of SipHash. Who has the file can therefore try guesses, at some ten nanoseconds
//! each. So only keys go in that nobody guesses, see [`crate::shape::EXPORT_MIN_BITS`].

use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;

use super::tags::Tags;
use super::{RegistryError, Result, Tx, audit};
use crate::clock::to_millis;
use crate::secret::ExportKey;
use crate::shape::{Alphabet, Known, Shape, ShapeSet};
use crate::source::reader::{self, Links};

/// First line of the file; the number is that of its form.
const FORMAT: &str = "leakwarden-filter 1";
const FORMAT_NAME: &str = "leakwarden-filter ";
/// Largest file that is read, in bytes: more than a hundred million keys.
const FILE_MAX: u64 = 1 << 30;
const TAG_BYTES: usize = 8;
const CHECK_BYTES: usize = 4;

/// What went into a filter, and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Live keys in it.
    pub keys: u64,
    /// Live keys that somebody might guess.
    pub weak: u64,
    /// Live keys of which only the SHA-256 is known.
    pub hashed: u64,
}

/// An exported filter, read from its file.
pub struct ExportedFilter {
    key: ExportKey,
    tags: Tags,
    shapes: ShapeSet,
    count: u64,
    made: Timestamp,
}

impl Tx<'_> {
    /// The bytes of a filter of all live keys that are strong enough, and its entry in the audit
    /// log.
    pub fn export_filter(
        &self,
        to: &str,
        actor: &str,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Exported)> {
        let mut told = Exported::default();
        let (mut tags, mut shapes) = (Vec::new(), Vec::new());
        let sql = "SELECT tag IS NULL, export_tag, alphabet, length FROM keys
             WHERE state = 'active' AND class = 'live' AND (expires_at IS NULL OR expires_at > ?1)";
        let mut statement = self.sql().prepare(sql)?;
        let mut rows = statement.query([to_millis(now)])?;
        while let Some(row) = rows.next()? {
            let tag: Option<i64> = row.get(1)?;
            match (row.get::<_, bool>(0)?, tag) {
                (true, _) => told.hashed += 1,
                (false, None) => told.weak += 1,
                (false, Some(tag)) => {
                    tags.push(u64::from_le_bytes(tag.to_le_bytes()));
                    shapes.push((row.get::<_, String>(2)?, row.get::<_, i64>(3)?));
                }
            }
        }
        tags.sort_unstable();
        tags.dedup();
        shapes.sort_unstable();
        shapes.dedup();
        told.keys = tags.len() as u64;
        let mut text = format!(
            "{FORMAT}\nmade {now}\nexport {}\nkeys {}\n",
            self.keyring().export_key().to_hex().as_str(),
            tags.len()
        );
        for (alphabet, length) in shapes {
            text.push_str(&format!("shape {alphabet} {length}\n"));
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend(tags.iter().flat_map(|tag| tag.to_le_bytes()));
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let after = format!("keys={} weak={} hashed={}", told.keys, told.weak, told.hashed);
        let action = "registry export-filter";
        self.audit(&audit::Entry {
            actor,
            action,
            target: to,
            after: &after,
            ..audit::Entry::at(now)
        })?;
        Ok((bytes, told))
    }
}

impl ExportedFilter {
    /// Reads a file that [`Tx::export_filter`] made.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path)?;
        parse(&bytes).map_err(|why| RegistryError::Filter { path: path.to_owned(), why })
    }

    /// The shapes of its keys.
    #[must_use]
    pub fn shapes(&self) -> &ShapeSet {
        &self.shapes
    }

    /// How many keys are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        self.made
    }
}

/// Wrong with a chance of 2^-64 for each key.
impl Known for ExportedFilter {
    fn knows(&self, bytes: &[u8]) -> bool {
        self.tags.contains(self.key.tag(bytes))
    }

    fn which(&self, text: &[u8], windows: &[Range<usize>], found: &mut dyn FnMut(usize)) {
        let tag =
            |window: &Range<usize>| self.key.tag(text.get(window.clone()).unwrap_or_default());
        self.tags.which(&windows.iter().map(tag).collect::<Vec<_>>(), found);
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| RegistryError::File { doing: "read", path: path.to_owned(), source };
    let (file, stat) = reader::open(path, Links::Follow).map_err(failed)?;
    let mut bytes = Vec::with_capacity(usize::try_from(stat.size.min(FILE_MAX)).unwrap_or(0));
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// What is wrong with it, in words, or the filter.
fn parse(bytes: &[u8]) -> std::result::Result<ExportedFilter, &'static str> {
    const FOREIGN: &str = "is no filter of leakwarden; make one with \
         `leakwarden registry export-filter FILE`";
    const NEWER: &str = "was made by a newer leakwarden; use that one here, too";
    const DAMAGED: &str = "is damaged or cut short; copy it again, or make it anew with \
         `leakwarden registry export-filter FILE`";
    let rest = bytes.strip_prefix(FORMAT.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
    if rest.is_none() {
        return Err(if bytes.starts_with(FORMAT_NAME.as_bytes()) { NEWER } else { FOREIGN });
    }
    let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(DAMAGED)?;
    if bytes.len() as u64 > FILE_MAX || crc32fast::hash(content).to_le_bytes() != *check {
        return Err(DAMAGED);
    }
    let end = memchr::memmem::find(content, b"\n\n").ok_or(DAMAGED)?;
    let (header, tags) = content.split_at(end + 2);
    let header = std::str::from_utf8(header).map_err(|_| DAMAGED)?;
    let (mut key, mut count, mut made, mut shapes) = (None, None, None, Vec::new());
    for line in header.lines().skip(1).filter(|line| !line.is_empty()) {
        match line.split_once(' ').ok_or(DAMAGED)? {
            ("made", time) => made = crate::clock::parse(time),
            ("export", hex) => key = ExportKey::parse(hex),
            ("keys", number) => count = number.parse().ok(),
            ("shape", shape) => shapes.push(parse_shape(shape).ok_or(DAMAGED)?),
            _ => return Err(DAMAGED),
        }
    }
    let count: usize = count.ok_or(DAMAGED)?;
    let (tags, rest) = tags.as_chunks::<TAG_BYTES>();
    if tags.len() != count || !rest.is_empty() {
        return Err(DAMAGED);
    }
    let tags = tags.iter().map(|tag| u64::from_le_bytes(*tag)).collect();
    Ok(ExportedFilter {
        key: key.ok_or(DAMAGED)?,
        tags: Tags::default().with(tags),
        shapes: ShapeSet::new(shapes),
        count: count as u64,
        made: made.ok_or(DAMAGED)?,
    })
}

fn parse_shape(text: &str) -> Option<Shape> {
    let (alphabet, len) = text.split_once(' ')?;
    Some(Shape { alphabet: Alphabet::parse(alphabet)?, len: len.parse().ok()? })
}
