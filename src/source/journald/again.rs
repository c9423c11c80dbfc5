//! What a watch has read of the journal, once more: keys came later that nobody could have seen then.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::entry::Entries;
use super::program::{Came, Program};
use super::{ENTRIES_MAX, Options, READ_BYTES, began, reached};
use crate::source::follow::{Followed, Reread};
use crate::source::{PathId, Sink, SourceError, Stop};

/// Reads the journal again, `budget` bytes of it at most, as far as the watch has read it and from
/// where it began; the newest first.
pub fn read_again(
    options: &Options,
    known: &HashMap<PathId, Followed>,
    budget: u64,
    sink: &mut dyn Sink,
    stop: &Stop,
) -> Result<Reread, SourceError> {
    let time = |id: PathId| known.get(&id).and_then(|followed| time_of(&followed.stream));
    let Some(to) = time(reached(options)) else { return Ok(Reread::default()) };
    let from = time(began(options)).map_or(0, |began| began + 1);
    if from > to {
        return Ok(Reread::default());
    }
    let mut program = Program::between(options, from, to)?;
    let mut entries = Entries::new(options);
    let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
    let (mut bytes, mut unsettled) = (0, 0);
    while !stop.is_stopped() {
        let came = program.read(&mut buffer)?;
        if let Came::Bytes(count) = came {
            bytes += count as u64;
            unsettled += entries.feed(buffer.get(..count).unwrap_or_default(), sink)?;
        }
        let over = came == Came::End || bytes >= budget;
        if unsettled >= ENTRIES_MAX || over {
            unsettled = 0;
            if entries.cursor().is_some_and(|cursor| !sink.reached(reached(options), cursor)) {
                return Err(SourceError::Undecided);
            }
        }
        match came {
            Came::End if !program.is_well() => return Err(program.ended()),
            _ if over => return Ok(Reread { files: 1, bytes, left: u64::from(came != Came::End) }),
            _ => {}
        }
    }
    Ok(Reread::default())
}

/// When the entry was written to which a cursor leads, in microseconds of the Unix epoch. The
/// cursor's form is that of systemd's `sd_journal_get_cursor`: hexadecimal numbers, `t` is the time.
fn time_of(cursor: &str) -> Option<u64> {
    let time = cursor.split(';').find_map(|part| part.strip_prefix("t="))?;
    u64::from_str_radix(time, 16).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cursor_tells_the_time() {
        let cursor = "s=0123;i=1;b=0123456789abcdef0123456789abcdef;m=1f;t=5f5e100;x=ff";
        assert_eq!(super::time_of(cursor), Some(100_000_000));
        assert_eq!(super::time_of("nothing"), None);
    }
}
