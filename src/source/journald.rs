//! The system's journal, for ever, as `journalctl --follow` gives it.
//!
//! journalctl rather than a crate: the format of journal files is the business of systemd, which
//! changes it (compact mode, new compressions), and libsystemd is C that this process would have to
//! load. Its export form rather than JSON: bytes are as they were written, a field of any length is
//! read in parts, and nothing has to be decoded.
//!
//! Read is what programs said: every field but those that the journal adds by itself (`_PID`,
//! `_HOSTNAME`, …), of which only the command line can hold a key; it is read once as long as it is
//! the same.

mod again;
mod entry;
mod export;
mod program;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::follow::Followed;
use super::{PathId, Sink, SourceError, Stop, path_id};
use entry::Entries;
use program::{Came, Program};

pub use again::read_again;
pub use program::check;

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Entries after which how far was read is remembered, also while more come.
const ENTRIES_MAX: u32 = 256;

/// What to follow.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these units; all where there are none.
    pub units: Vec<String>,
    /// A folder with journal files; the system's own where there is none.
    pub directory: Option<PathBuf>,
    /// Whether what the journal has at the very first start is read.
    pub from_beginning: bool,
}

/// A watch over the journal.
pub struct Journald {
    options: Options,
    /// Behind the last entry that was read.
    cursor: Option<String>,
    /// Whether this watch was never started before.
    first_start: bool,
    id: PathId,
}

impl Journald {
    /// A watch that goes on where an earlier one was.
    #[must_use]
    pub fn new(options: Options, earlier: &HashMap<PathId, Followed>, first_start: bool) -> Self {
        let id = reached(&options);
        let cursor = earlier.get(&id).map(|followed| followed.stream.clone());
        Self { options, cursor, first_start, id }
    }

    /// Follows until asked to stop.
    pub fn run(&mut self, sink: &mut dyn Sink, stop: &Stop) -> Result<(), SourceError> {
        if self.cursor.is_none() && self.first_start && !self.options.from_beginning {
            self.cursor = self.last_cursor(sink, stop)?;
            // What was there before is not read later either.
            if let Some(cursor) = &self.cursor
                && !(sink.reached(began(&self.options), cursor) && sink.reached(self.id, cursor))
            {
                return Err(SourceError::Undecided);
            }
        }
        let mut program = Program::follow(&self.options, self.cursor.as_deref())?;
        sink.ready();
        let mut entries = Entries::new(&self.options);
        let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
        let mut unsettled = 0;
        while !stop.is_stopped() {
            let came = program.read(&mut buffer)?;
            if let Some(said) = program.said() {
                sink.skip(Path::new("the journal"), said);
            }
            match came {
                Came::Bytes(count) => {
                    let part = buffer.get(..count).unwrap_or_default();
                    unsettled += entries.feed(part, sink)?;
                }
                Came::Nothing | Came::End => {}
            }
            if unsettled > 0 && (unsettled >= ENTRIES_MAX || !matches!(came, Came::Bytes(_))) {
                unsettled = 0;
                self.settle(&entries, sink)?;
            }
            if matches!(came, Came::End) {
                return Err(program.ended());
            }
        }
        if unsettled > 0 {
            self.settle(&entries, sink)?;
        }
        Ok(())
    }

    /// Hands on what was found, together with how far was read.
    fn settle(&mut self, entries: &Entries, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let Some(cursor) = entries.cursor() else { return Ok(()) };
        if !sink.reached(self.id, cursor) {
            return Err(SourceError::Undecided);
        }
        self.cursor = Some(cursor.to_owned());
        Ok(())
    }

    /// Behind the last entry there is, of whatever unit: where "from now on" begins.
    fn last_cursor(&self, sink: &mut dyn Sink, stop: &Stop) -> Result<Option<String>, SourceError> {
        let mut program = Program::last(&self.options)?;
        let mut text = Zeroizing::new(Vec::new());
        let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
        while !stop.is_stopped() {
            match program.read(&mut buffer)? {
                // The cursor comes first; what follows may be long.
                Came::Bytes(count) if text.len() < READ_BYTES => {
                    text.extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Came::Bytes(_) | Came::Nothing => {}
                Came::End => break,
            }
        }
        if let Some(said) = program.said() {
            sink.skip(Path::new("the journal"), said);
        }
        let lines = text.split(|byte| *byte == b'\n');
        let cursor = lines.filter_map(|line| line.strip_prefix(b"__CURSOR=")).next();
        Ok(cursor.map(|cursor| String::from_utf8_lossy(cursor).into_owned()))
    }
}

fn place(options: &Options) -> &Path {
    options.directory.as_deref().unwrap_or(Path::new("journal"))
}

/// Under which it is remembered how far was read.
fn reached(options: &Options) -> PathId {
    path_id(place(options))
}

/// Under which it is remembered where "from now on" began.
fn began(options: &Options) -> PathId {
    path_id(&place(options).join("\0began"))
}

/// A sink that takes nothing more shows when the next entry is settled.
fn ended(flow: ControlFlow<(), super::Position>) {
    let (ControlFlow::Continue(_) | ControlFlow::Break(())) = flow;
}
