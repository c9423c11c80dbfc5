//! Entries of the journal on their way to the sink: each is an item, its message first.

use std::collections::HashSet;
use std::path::PathBuf;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::export::{Export, Piece};
use super::{Options, ended};
use crate::clock;
use crate::source::{End, Item, Kind, Position, Sink, SourceError, reader};

/// An entry that is longer is handed on before it is known as a whole: then its unit may be unknown.
const ENTRY_MAX: usize = 1 << 20;
/// Command lines that are remembered.
const COMMANDS_MAX: usize = 1_024;
/// Longest value that is kept of a field that says where an entry comes from.
const LABEL_MAX: usize = 512;

/// Reads entries out of the journal's export form.
pub(super) struct Entries {
    export: Export,
    entry: Entry,
    /// Behind the last entry that is complete.
    cursor: Option<String>,
    /// Whether entries may be of other hosts.
    of_hosts: bool,
    stream: String,
    /// Hashes of command lines that were read already.
    commands: HashSet<[u8; 32]>,
}

/// What is known of an entry.
#[derive(Default)]
struct Entry {
    cursor: Vec<u8>,
    time: Vec<u8>,
    unit: Vec<u8>,
    identifier: Vec<u8>,
    host: Vec<u8>,
    command: Zeroizing<Vec<u8>>,
    message: Zeroizing<Vec<u8>>,
    rest: Zeroizing<Vec<u8>>,
    /// It is with the sink already.
    begun: bool,
}

impl Entries {
    pub(super) fn new(options: &Options) -> Self {
        let stream = format!("journal:{}", crate::secret::to_hex(&super::reached(options)));
        let of_hosts = options.directory.is_some();
        let (export, entry) = (Export::new(), Entry::default());
        Self { export, entry, cursor: None, of_hosts, stream, commands: HashSet::new() }
    }

    /// Behind the last entry that is complete.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Takes what journalctl wrote; answers how many entries were completed.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<u32, SourceError> {
        let Self { export, entry, cursor, of_hosts, stream, commands } = self;
        let mut complete = 0;
        export.feed(bytes, &mut |piece| match piece {
            Piece::Value { name, part, first } => {
                entry.take(name, part, first, sink);
                if !entry.begun && entry.message.len() + entry.rest.len() > ENTRY_MAX {
                    entry.begin(stream, *of_hosts, sink);
                }
            }
            Piece::End => {
                let mut entry = std::mem::take(entry);
                if !entry.begun {
                    entry.begin(stream, *of_hosts, sink);
                }
                ended(sink.end(End::Done));
                let command = crate::secret::identity_hash(&[&entry.command]);
                if entry.is_new_command(&command, commands) {
                    entry.tell_command(stream, &command, *of_hosts, sink);
                }
                *cursor = Some(String::from_utf8_lossy(&entry.cursor).into_owned());
                complete += 1;
            }
        })?;
        Ok(complete)
    }
}

impl Entry {
    fn take(&mut self, name: &[u8], part: &[u8], first: bool, sink: &mut dyn Sink) {
        let label = match name {
            b"__CURSOR" => &mut self.cursor,
            b"__REALTIME_TIMESTAMP" => &mut self.time,
            b"_SYSTEMD_UNIT" => &mut self.unit,
            b"_HOSTNAME" => &mut self.host,
            b"_CMDLINE" => {
                let room = ENTRY_MAX.saturating_sub(self.command.len());
                self.command.extend_from_slice(part.get(..room.min(part.len())).unwrap_or(part));
                return;
            }
            b"SYSLOG_IDENTIFIER" => {
                keep(&mut self.identifier, part);
                return self.add(name, part, first, sink);
            }
            _ if name.starts_with(b"_") => return,
            _ => return self.add(name, part, first, sink),
        };
        keep(label, part);
    }

    /// A part of what a program said.
    fn add(&mut self, name: &[u8], part: &[u8], first: bool, sink: &mut dyn Sink) {
        let is_message = name == b"MESSAGE";
        if self.begun {
            if first {
                reader::push(sink, b"\n");
                reader::push(sink, name);
                reader::push(sink, b"=");
            }
            reader::push(sink, part);
        } else if is_message && (!first || self.message.is_empty()) {
            self.message.extend_from_slice(part);
        } else {
            if first {
                self.rest.push(b'\n');
                self.rest.extend_from_slice(name);
                self.rest.push(b'=');
            }
            self.rest.extend_from_slice(part);
        }
    }

    /// Whether its command line was not read yet; from now on it was.
    fn is_new_command(&self, hash: &[u8; 32], commands: &mut HashSet<[u8; 32]>) -> bool {
        if self.command.is_empty() {
            return false;
        }
        if commands.len() >= COMMANDS_MAX {
            commands.clear();
        }
        commands.insert(*hash)
    }

    /// The command line is one place, whatever entries it comes with and however often.
    fn tell_command(&self, stream: &str, hash: &[u8; 32], of_hosts: bool, sink: &mut dyn Sink) {
        let hash = crate::secret::to_hex(hash);
        let mut place = self.place(self.micros(), of_hosts).into_os_string();
        place.push(" (command line)");
        let item = Item {
            stream: Some(format!("{stream}:command:{}", hash.get(..32).unwrap_or_default())),
            continued: true,
            ..Item::whole(Kind::Journal, place.into())
        };
        sink.begin(&item);
        reader::push(sink, &self.command);
        ended(sink.end(End::Done));
    }

    /// When it was written, in microseconds of the Unix epoch; 0: unknown.
    fn micros(&self) -> u64 {
        let micros = std::str::from_utf8(&self.time).ok().and_then(|time| time.parse().ok());
        micros.unwrap_or_default()
    }

    fn begin(&mut self, stream: &str, of_hosts: bool, sink: &mut dyn Sink) {
        let micros = self.micros();
        // A unit that says many keys is held, not all others with it.
        let unit = crate::secret::to_hex(&crate::secret::identity_hash(&[&self.unit]));
        let item = Item {
            stream: Some(format!("{stream}:{}", unit.get(..16).unwrap_or_default())),
            // The same entry is at the same place, however often and by whatever filter it is read.
            from: Position { offset: micros, ..Position::default() },
            continued: true,
            ..Item::whole(Kind::Journal, self.place(micros, of_hosts))
        };
        sink.begin(&item);
        reader::push(sink, &self.message);
        reader::push(sink, &self.rest);
        self.begun = true;
    }

    /// Where people find it.
    fn place(&self, micros: u64, of_hosts: bool) -> PathBuf {
        let who = match (self.unit.as_slice(), self.identifier.as_slice()) {
            (b"", b"") => b"the journal".as_slice(),
            (b"", identifier) => identifier,
            (unit, _) => unit,
        };
        let mut place = String::from_utf8_lossy(who).into_owned();
        if of_hosts && !self.host.is_empty() {
            place = format!("{place} on {}", String::from_utf8_lossy(&self.host));
        }
        let time = i64::try_from(micros).ok();
        let time = time.and_then(|time| Timestamp::from_microsecond(time).ok());
        if let Some(time) = time.filter(|_| micros > 0) {
            place = format!("{place} at {}", clock::rfc3339(time));
        }
        place.into()
    }
}

fn keep(label: &mut Vec<u8>, part: &[u8]) {
    let room = LABEL_MAX.saturating_sub(label.len());
    label.extend_from_slice(part.get(..room.min(part.len())).unwrap_or(part));
}
