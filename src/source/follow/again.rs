//! Everything that a watch has read, once more: keys came later that nobody could have seen then.
//!
//! Beside the watch and without touching how far it has read; newest first, up to a bound.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Follow, Followed, Mode, Options, context_before, end_of, new_stream, same_file};
use crate::source::reader::Links;
use crate::source::{End, Item, Kind, PathId, Position, Sink, Stat, Stop, path_id};

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

/// The name of a log of which only what comes from now on is read.
pub(super) fn new_stream_from(position: &Position) -> String {
    format!("{}{FROM}{}", new_stream(), position.offset)
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
    let mut follow = Follow::new(options.clone(), HashMap::new(), false);
    follow.walk_all(Instant::now());
    for (path, known) in newest_first(&follow, known) {
        if stop.is_stopped() {
            break;
        }
        // What cannot be read the watch itself has told.
        let Ok((mut file, item)) = open(options, &path, known) else { continue };
        let bytes = item.stat.size.saturating_sub(item.from.offset);
        if bytes > budget.saturating_sub(reread.bytes) {
            reread.left += 1;
        } else if follow.read(&mut file, item, End::Done, sink, stop).is_ok() {
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
        .due
        .keys()
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
fn open(options: &Options, path: &Path, known: Option<&Followed>) -> io::Result<(File, Item)> {
    match (options.mode, known) {
        (Mode::Logs { .. }, Some(known)) => {
            let (mut file, stat) = options.open(path, Links::OfOwner)?;
            if !same_file(&known.stat, &stat) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let from = end_of(&mut file, began(&known.stream))?;
            let context = context_before(&from);
            file.seek(SeekFrom::Start(from.offset - context as u64))?;
            let item = item(Kind::Log, path, known.stream.clone(), stat);
            Ok((file, Item { from, context, ..item }))
        }
        _ => {
            let (file, stat) = options.open(path, Links::Refuse)?;
            Ok((file, item(Kind::File, path, super::stream_of(path), stat)))
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
