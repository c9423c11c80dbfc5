//! A named pipe, for ever, or standard input to its end. What was read cannot be read again: so what
//! may go on (a line without its end, the start of a key) is kept here until it does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{CONTEXT_MAX, End, Item, Kind, Position, Sink, SourceError, Stop, reader};

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Longest wait for something to come: so often a stop is looked for.
const WAIT: Duration = Duration::from_millis(250);
/// What is handed on at once at most: a pipe that never rests is looked at this often as a whole.
const PART_MAX: u64 = 1 << 20;

/// Something that is read once.
pub struct Pipe {
    /// `None`: standard input.
    path: Option<PathBuf>,
    stream: String,
    position: Position,
    /// Up to [`CONTEXT_MAX`] bytes before the position, and what was read behind it.
    kept: Zeroizing<Vec<u8>>,
    context: usize,
    /// What is kept could not be decided, as the registry could not be asked. Until it can nothing more
    /// is read: it could not be read again.
    undecided: bool,
}

impl Pipe {
    /// A named pipe: writers come and go.
    #[must_use]
    pub fn named(path: PathBuf) -> Self {
        Self::new(Some(path))
    }

    /// Standard input.
    #[must_use]
    pub fn stdin() -> Self {
        Self::new(None)
    }

    fn new(path: Option<PathBuf>) -> Self {
        let stream = format!("pipe:{}", uuid::Uuid::new_v4());
        let (position, kept) = (Position::default(), Zeroizing::default());
        Self { path, stream, position, kept, context: 0, undecided: false }
    }

    /// Reads until asked to stop; standard input to its end.
    pub fn run(&mut self, sink: &mut dyn Sink, stop: &Stop) -> Result<(), SourceError> {
        let name = self.item().path.display().to_string();
        let failed = |source| SourceError::Read { name: name.clone(), source };
        let mut from = match &self.path {
            Some(path) => open(path)?,
            None => File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?),
        };
        sink.ready();
        let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
        while !stop.is_stopped() {
            if self.undecided {
                std::thread::sleep(WAIT);
                self.begin(sink);
                self.pause(sink);
                continue;
            }
            let ended = is_ready(&from, WAIT).map_err(failed)?
                && self.read(&mut from, &mut buffer, sink, stop).map_err(failed)?;
            match (&self.path, ended) {
                (None, true) => break,
                // All writers are gone. Others may come, and must find a reader all the time: the
                // old end is closed when the new one is open.
                (Some(path), true) => {
                    let new = open(path)?;
                    check_same(path, &from)?;
                    from = new;
                }
                (Some(path), false) => check_same(path, &from)?,
                (None, false) => {}
            }
        }
        if self.kept.len() > self.context {
            // Nothing follows: it is decided as it stands.
            self.begin(sink);
            let (ControlFlow::Continue(_) | ControlFlow::Break(())) = sink.end(End::Done);
        }
        Ok(())
    }

    /// Reads what is there, and hands it on as one item. Answers whether the end was reached.
    fn read(
        &mut self,
        from: &mut File,
        buffer: &mut [u8],
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<bool> {
        let mut total = 0;
        let outcome = loop {
            let count = match from.read(buffer) {
                Ok(0) => break Ok(true),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            };
            if total == 0 {
                self.begin(sink);
            }
            let part = buffer.get(..count).unwrap_or_default();
            reader::push(sink, part);
            self.kept.extend_from_slice(part);
            total += count as u64;
            if total >= PART_MAX || stop.is_stopped() || !is_ready(from, Duration::ZERO)? {
                break Ok(false);
            }
        };
        if total > 0 {
            self.pause(sink);
        }
        outcome
    }

    fn item(&self) -> Item {
        let (kind, path) = match &self.path {
            Some(path) => (Kind::Pipe, path.clone()),
            None => (Kind::Stdin, PathBuf::from("<stdin>")),
        };
        let (stream, from) = (Some(self.stream.clone()), self.position);
        Item { stream, from, context: self.context, continued: true, ..Item::whole(kind, path) }
    }

    /// Begins where all is decided, with what was read behind it.
    fn begin(&mut self, sink: &mut dyn Sink) {
        sink.begin(&self.item());
        reader::push(sink, &self.kept);
    }

    /// Nothing more for now: keeps what is not decided.
    fn pause(&mut self, sink: &mut dyn Sink) {
        let ControlFlow::Continue(position) = sink.end(End::Pause) else {
            self.undecided = true;
            return;
        };
        self.undecided = false;
        let decided = position.offset.saturating_sub(self.position.offset);
        let decided = self.context.saturating_add(usize::try_from(decided).unwrap_or(usize::MAX));
        let surplus = decided.saturating_sub(CONTEXT_MAX).min(self.kept.len());
        self.kept.copy_within(surplus.., 0);
        let left = self.kept.len() - surplus;
        self.kept.truncate(left);
        self.context = decided - surplus;
        self.position = position;
    }
}

/// Waits, but not for long, for something to read or the end.
fn is_ready(from: &File, longest: Duration) -> io::Result<bool> {
    let longest = Timespec::try_from(longest).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(from, PollFlags::IN)];
    match poll(&mut polled, Some(&longest)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        other => Ok(other? > 0),
    }
}

/// Whether there is a pipe of that name.
pub fn check(path: &Path) -> Result<(), SourceError> {
    open(path).map(|_| ())
}

/// Opens the reading end of a pipe, whether anybody writes to it or not.
fn open(path: &Path) -> Result<File, SourceError> {
    let shown = || path.display().to_string();
    let failed = |source| SourceError::Read { name: shown(), source };
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(|error| failed(io::Error::other(error)))?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(SourceError::Pipe(shown(), "not a named pipe; make one with mkfifo"))
    }
}

fn check_same(path: &Path, open: &File) -> Result<(), SourceError> {
    let failed = |source| SourceError::Read { name: path.display().to_string(), source };
    let now = std::fs::symlink_metadata(path).map_err(failed)?;
    let was = open.metadata().map_err(failed)?;
    if (now.dev(), now.ino()) == (was.dev(), was.ino()) {
        Ok(())
    } else {
        Err(SourceError::Pipe(path.display().to_string(), "another file has taken its place"))
    }
}
