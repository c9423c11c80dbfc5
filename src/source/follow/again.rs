//! Everything that a watch has read, once more: keys came later that nobody could have seen then.
//!
//! Beside the watch and without touching how far it has read; newest first, up to a bound.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::content::context_before;
use super::files::stream_of;
use super::logs::{end_of, new_stream};
use super::{Follow, Followed, Mode, Options, WALK_EVERY, packed};
use crate::source::reader;
use crate::source::{End, Head, Item, Kind, PathId, Position, Sink, Stat, Stop, path_id};

/// What was read again, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// Files, or repositories.
    pub files: u64,
    /// Bytes, about.
    pub bytes: u64,
    /// Files or repositories for which the bound left no room.
    pub left: u64,
}

/// What stands between the name of a log's stream and the offset from which on it is read.
const FROM: char = '+';

/// The name of a log that is read from there on.
pub(super) fn new_stream_from(position: &Position) -> String {
    match position.offset {
        0 => new_stream(),
        offset => format!("{}{FROM}{offset}", new_stream()),
    }
}

/// The name of a compressed log that nobody asked for: it was there before.
pub(super) fn new_stream_unread() -> String {
    new_stream_from(&Position { offset: u64::MAX, ..Position::default() })
}

/// Where reading a log began.
fn began(stream: &str) -> u64 {
    stream.rsplit_once(FROM).and_then(|(_, offset)| offset.parse().ok()).unwrap_or_default()
}

/// Reads files and logs again, `budget` bytes of them at most. `known`: what the watch has read of
/// logs; a log that it does not know is none of its past.
pub fn read_again(
    options: &Options,
    known: &HashMap<PathId, Followed>,
    budget: u64,
    sink: &mut dyn Sink,
    stop: &Stop,
) -> Reread {
    let mut reread = Reread::default();
    // Whatever changes meanwhile is the watch's business.
    let without_hints = Options { poll: Some(WALK_EVERY), ..options.clone() };
    let mut follow = Follow::new(without_hints, HashMap::new(), false);
    follow.begin_walk();
    while !stop.is_stopped() && follow.walk_on(sink) {}
    for (path, known) in newest_first(&follow, known) {
        if stop.is_stopped() {
            break;
        }
        // What cannot be read the watch itself has told.
        let Ok((mut file, item)) = open(options, &path, known, stop) else { continue };
        let bytes = item.stat.size.saturating_sub(item.from.offset);
        if bytes > budget.saturating_sub(reread.bytes) {
            reread.left += 1;
        } else if follow.read(&mut *file, (item, End::Done), sink, stop).is_ok() {
            reread.files += 1;
            reread.bytes += bytes;
        }
    }
    reread
}

fn newest_first<'a>(
    follow: &Follow,
    known: &'a HashMap<PathId, Followed>,
) -> Vec<(PathBuf, Option<&'a Followed>)> {
    let mut found: Vec<_> = follow
        .found
        .iter()
        .filter_map(|path| {
            let changed = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
            let known = known.get(&path_id(path));
            let read = known.is_some() || follow.options.mode == Mode::Files;
            read.then(|| (changed, path.clone(), known))
        })
        .collect();
    found.sort_by_key(|(changed, ..)| std::cmp::Reverse(*changed));
    found.into_iter().map(|(_, path, known)| (path, known)).collect()
}

/// A file as the watch reads it, from where it began.
fn open(
    options: &Options,
    path: &Path,
    known: Option<&Followed>,
    stop: &Stop,
) -> io::Result<(Box<dyn Read>, Item)> {
    let root = options.include.root();
    match (options.mode, known) {
        (Mode::Logs { .. }, Some(known)) => {
            let (mut file, stat) = reader::open_below(root, path, options.links)?;
            let began = began(&known.stream);
            let is_packed = packed::is_name(path);
            if !known.stat.is_same_file(&stat) || (is_packed && began > 0) {
                return Err(io::ErrorKind::NotFound.into());
            }
            if is_packed {
                let item = item(Kind::Log, path, known.stream.clone(), stat);
                return Ok((Box::new(MultiGzDecoder::new(BufReader::new(file))), item));
            }
            let from = end_of(&file, began, &mut Head::default(), stop)?;
            let context = context_before(&from);
            file.seek(SeekFrom::Start(from.offset - context as u64))?;
            let item = item(Kind::Log, path, known.stream.clone(), stat);
            Ok((Box::new(file), Item { from, context, ..item }))
        }
        _ => {
            let (file, stat) = reader::open_below(root, path, options.links)?;
            Ok((Box::new(file), item(Kind::File, path, stream_of(path), stat)))
        }
    }
}

fn item(kind: Kind, path: &Path, stream: String, stat: Stat) -> Item {
    Item { stream: Some(stream), stat, ..Item::whole(kind, path.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_stream_says_where_it_began() {
        let position = Position { offset: 1_234, ..Position::default() };
        assert_eq!(began(&new_stream_from(&position)), 1_234);
        assert_eq!(began(&new_stream()), 0);
    }
}
