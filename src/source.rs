//! What goes in: the contract between sources and whoever reads them.
//!
//! # The contract
//!
//! - A source pushes: it announces an [`Item`], reads bytes straight into the sink's buffer, and ends
//!   the item. It knows neither threads nor channels nor what is looked for; a sink that takes its
//!   time holds it back, and that is all the pressure there is.
//! - What it could not read it says with [`Sink::skip`], what is gone unread with [`Sink::lost`]: a
//!   clean answer proves coverage. It goes on with everything else.
//! - It never retries as a whole. What keeps all of it from going on (its program ended, its pipe is
//!   gone) it answers as a [`SourceError`], and returns. The supervisor says `degraded`, waits, and
//!   makes a new one; the pause doubles from one second to a minute. So a source has no pauses of its
//!   own, and no state that outlives it but what the sink remembers.
//! - It goes on where the sink's memory says, which is written together with what was found up to
//!   there. Read twice is harmless (the same place is the same sighting), not read is not.
//! - It looks at [`Stop`] at least four times a second, also while nothing comes, and returns `Ok` when
//!   it is asked to, or when nothing more can come.
//! - It calls [`Sink::ready`] once: from then on nothing that comes can be missed.
//! - It opens regular files only, without following a link in the last place and without blocking;
//!   what is no regular file by nature (a pipe, a program's output) is waited for with a limit.
//! - It runs no program that its input names, and gives a program nothing of its input.

pub mod diff;
pub mod files;
pub mod follow;
pub mod git;
pub mod journald;
pub mod pipe;
pub mod push;
pub mod reader;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A file as it stands.
    File,
    /// A log that is followed.
    Log,
    /// Standard input.
    Stdin,
    /// Added lines of a diff.
    Diff,
    /// Added lines of git's index.
    Staged,
    /// What a push brings.
    Pushed,
    /// A file as git keeps it.
    Blob,
    /// The message of a commit, or who made it.
    Commit,
    /// The message of a tag, or who made it.
    Tag,
    /// The name of a file or folder in git.
    PathName,
    /// The name of a branch or tag.
    Ref,
    /// A log of what branches were before.
    Reflog,
    /// An entry of the system's journal.
    Journal,
    /// A named pipe.
    Pipe,
}

impl Kind {
    /// Whether it is something that git keeps.
    #[must_use]
    pub fn is_in_git(self) -> bool {
        matches!(self, Self::Blob | Self::Commit | Self::Tag | Self::PathName | Self::Ref)
    }

    /// Whether what is found is told together with how far was read, by [`Sink::reached`].
    #[must_use]
    pub fn waits(self) -> bool {
        self.is_in_git() || self == Self::Journal
    }

    /// Whether what was read cannot be read again: nothing is remembered of how far it was read.
    #[must_use]
    pub fn is_read_once(self) -> bool {
        matches!(self, Self::Pipe | Self::Stdin)
    }

    /// The word in reports and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Log => "log",
            Self::Stdin => "stdin",
            Self::Diff => "diff",
            Self::Staged => "staged",
            Self::Pushed => "pushed",
            Self::Blob => "blob",
            Self::Commit => "commit",
            Self::Tag => "tag",
            Self::PathName => "path",
            Self::Ref => "ref",
            Self::Reflog => "reflog",
            Self::Journal => "journald",
            Self::Pipe => "pipe",
        }
    }
}

/// Where in a stream reading stands. Everything before `offset` is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes from the start of the stream.
    pub offset: u64,
    /// Newlines before the offset.
    pub lines: u64,
    /// Hash of up to [`CONTEXT_MAX`] bytes before the offset: a file that holds something else
    /// there is another one, whatever its inode says.
    pub marker: [u8; 16],
}

/// What the file system says of a file; two equal ones mean "unchanged".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of content or inode, nanoseconds since 1970; below 0: not read to its end.
    pub changed_ns: i64,
    /// Whether everybody on the host may read it.
    pub world_readable: bool,
}

impl Stat {
    /// The same of a file that was not read to its end.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self { changed_ns: -self.changed_at(), ..self }
    }

    /// Whether the file was not read to its end.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.changed_ns < 0
    }

    /// Last change, nanoseconds since 1970.
    #[must_use]
    pub fn changed_at(&self) -> i64 {
        self.changed_ns.saturating_abs()
    }

    /// Whether it is of the same file, as far as the file system can tell.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// How a file begins: with the marker before a position it tells whether a file still holds what was
/// read of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many bytes of it, at most [`CONTEXT_MAX`]; 0: nothing is known.
    pub length: u16,
    /// Their hash.
    pub hash: [u8; 16],
    /// How many bytes from the first one on are summed: what a copy holds, too.
    pub summed: u64,
    /// The CRC-32 of these.
    pub sum: u32,
}

impl Head {
    /// Of the first bytes of a file; what is beyond [`CONTEXT_MAX`] does not count.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..CONTEXT_MAX).unwrap_or(bytes);
        let length = u16::try_from(bytes.len()).unwrap_or_default();
        Self { length, hash: marker(bytes), summed: 0, sum: 0 }
    }

    /// Whether a file that begins with these bytes may be the one.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let same = |bytes| marker(bytes) == self.hash;
        self.length == 0 || bytes.get(..usize::from(self.length)).is_some_and(same)
    }
}

/// A path below a folder, without the `.` and `..` that would stand in the way of globs. Where `..` leads,
/// behind a link, only the file system says: one that it does not know stays.
#[must_use]
pub fn absolute(folder: &Path, path: &Path) -> PathBuf {
    let joined = folder.join(path);
    let parts: Vec<Component<'_>> =
        joined.components().filter(|part| *part != Component::CurDir).collect();
    let last = parts.iter().rposition(|part| *part == Component::ParentDir);
    let (known, rest) = parts.split_at(last.map_or(0, |last| last + 1));
    match std::fs::canonicalize(known.iter().collect::<PathBuf>()) {
        Ok(real) if !known.is_empty() => rest.iter().fold(real, |path, part| path.join(part)),
        _ => parts.iter().collect(),
    }
}

/// A pattern that does not depend on a folder any more, whose own name is no pattern. One that begins with
/// `**` matches anywhere; all others are paths.
#[must_use]
pub fn absolute_pattern(folder: &Path, pattern: &str) -> String {
    if pattern.starts_with("**") {
        return pattern.to_owned();
    }
    let parts = Path::new(pattern).components().filter(|part| *part != Component::CurDir);
    let parts: Vec<Component<'_>> = parts.collect();
    let last = parts.iter().rposition(|part| *part == Component::ParentDir);
    let (known, rest) = parts.split_at(last.map_or(0, |last| last + 1));
    let known: PathBuf = known.iter().collect();
    // Where `..` leads is a path, not a pattern.
    let base = match std::fs::canonicalize(folder.join(&known)) {
        Ok(real) if last.is_some() => PathBuf::from(escaped(&real)),
        _ => Path::new(&escaped(&absolute(folder, Path::new("")))).join(&known),
    };
    rest.iter().fold(base, |path, part| path.join(part)).to_string_lossy().into_owned()
}

/// A pattern that matches this path alone.
#[must_use]
pub fn escaped(path: &Path) -> String {
    globset::escape(&path.to_string_lossy().replace('\\', r"\\"))
}

/// What a path is remembered by: a file name may hold a key, and what is remembered is stored.
pub type PathId = [u8; 32];

/// The id of a path.
#[must_use]
pub fn path_id(path: &Path) -> PathId {
    crate::secret::identity_hash(&[path.as_os_str().as_bytes()])
}

/// Bytes before a position that are read again to give a match its left-hand side.
pub const CONTEXT_MAX: usize = 1_024;

/// One stream of bytes, or the part of it that follows.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it comes from.
    pub kind: Kind,
    /// Its path as the user knows it; for stdin the given name.
    pub path: PathBuf,
    /// What makes a place in it the same place again; `None` where nothing is remembered.
    pub stream: Option<String>,
    /// Where the part begins.
    pub from: Position,
    /// How many bytes before `from.offset` are fed first, as context.
    pub context: usize,
    /// The same file as the item before (another block of a diff): not counted again.
    pub continued: bool,
    /// What the file system said before it was read.
    pub stat: Stat,
    /// How the file begins, where that is remembered.
    pub head: Head,
    /// Under which it is remembered how far it is read; `None`: under its path.
    pub known_as: Option<PathId>,
}

impl Item {
    /// A whole stream from its first byte, remembered nowhere.
    #[must_use]
    pub fn whole(kind: Kind, path: PathBuf) -> Self {
        Self {
            kind,
            path,
            stream: None,
            from: Position::default(),
            context: 0,
            continued: false,
            stat: Stat::default(),
            head: Head::default(),
            known_as: None,
        }
    }
}

/// A part of a text that was copied from another text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where it was.
    pub from: usize,
    /// Where it is.
    pub to: usize,
    /// How long it is.
    pub length: usize,
}

/// What a sink found in a text, for texts that are made from it. Only the sink can read the note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub span: std::ops::Range<usize>,
    /// What.
    pub note: u64,
}

/// How a text was made from another one, whose marks are known.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Long parts that are the same, in order.
    pub copied: &'a [Copied],
    /// All marks of the other text.
    pub marks: &'a [Mark],
    /// Length of the other text.
    pub length: usize,
}

/// How an item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No byte will follow.
    Done,
    /// This is all there is for now; a last line without its newline will be read again.
    Pause,
    /// Reading was broken off: what was read counts, but it will all be read again.
    Broken,
}

/// Takes what sources read.
pub trait Sink {
    /// A stream, or a part of one, begins.
    fn begin(&mut self, item: &Item);
    /// Where the next bytes are to be read to; never empty.
    fn space(&mut self) -> &mut [u8];
    /// So many bytes were read there.
    fn filled(&mut self, count: usize);
    /// A whole file that can be read at any place, `size` bytes of it, by several threads at once:
    /// instead of beginning, filling and ending it. `None`: this sink cannot.
    fn pieces(
        &mut self,
        _item: &Item,
        _size: u64,
        _threads: usize,
        _read: &(dyn Fn(u64, &mut [u8]) -> std::io::Result<usize> + Sync),
    ) -> Option<std::io::Result<()>> {
        None
    }
    /// A stream whose text is at hand as a whole: begins, takes it, and ends.
    fn whole(&mut self, item: &Item, text: &[u8]) {
        self.begin(item);
        reader::push(self, text);
        let (ControlFlow::Continue(_) | ControlFlow::Break(())) = self.end(End::Done);
    }
    /// The same, for one that others will be made from, and that may be made from another itself:
    /// what was found in that need not be found again. Answers its marks, if this sink makes any.
    fn made(&mut self, item: &Item, text: &[u8], _from: Option<Made<'_>>) -> Option<Vec<Mark>> {
        self.whole(item, text);
        None
    }
    /// The item ends; answers up to where everything is decided. `Break`: read nothing more.
    fn end(&mut self, end: End) -> ControlFlow<(), Position>;
    /// Something could not be read.
    fn skip(&mut self, path: &Path, why: String);
    /// Nothing that comes from now on can be missed.
    fn ready(&mut self) {}
    /// Objects of git in which something was found, by their names in hex.
    fn found(&self) -> BTreeMap<String, Kind> {
        BTreeMap::new()
    }
    /// Where they are: nothing is told of them before.
    fn place(&mut self, _repository: &Path, _places: &git::history::Places) {}
    /// What a reference leads to is read. `false`: not all was decided, it is to be read again.
    fn reached(&mut self, _reference: PathId, _to: &str) -> bool {
        true
    }
    /// What was remembered of a file can be forgotten.
    fn gone(&mut self, _file: PathId) {}
    /// What is to be remembered of a file that was not read now: it has another name, for one.
    fn keep(&mut self, _file: PathId, _followed: &follow::Followed) {}
    /// Bytes of a log are gone that were there and were not read: at least so many, perhaps none.
    fn lost(&mut self, _path: &Path, _bytes: u64) {}
    /// File events were lost; everything is looked at.
    fn rescanned(&mut self) {}
    /// Why changes are found by looking for them only; `None`: file events tell of them.
    fn degraded(&mut self, _why: Option<&str>) {}
    /// Something about a stream that an operator may want to know. Sources never log paths
    /// themselves: a path may hold a key, and only sinks can tell.
    fn note(&mut self, path: &Path, what: &'static str);
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn begin(&mut self, item: &Item) {
        (**self).begin(item);
    }
    fn space(&mut self) -> &mut [u8] {
        (**self).space()
    }
    fn filled(&mut self, count: usize) {
        (**self).filled(count);
    }
    fn end(&mut self, end: End) -> ControlFlow<(), Position> {
        (**self).end(end)
    }
    fn skip(&mut self, path: &Path, why: String) {
        (**self).skip(path, why);
    }
    fn note(&mut self, path: &Path, what: &'static str) {
        (**self).note(path, what);
    }
    fn whole(&mut self, item: &Item, text: &[u8]) {
        (**self).whole(item, text);
    }
    fn made(&mut self, item: &Item, text: &[u8], from: Option<Made<'_>>) -> Option<Vec<Mark>> {
        (**self).made(item, text, from)
    }
    fn ready(&mut self) {
        (**self).ready();
    }
    fn found(&self) -> BTreeMap<String, Kind> {
        (**self).found()
    }
    fn place(&mut self, repository: &Path, places: &git::history::Places) {
        (**self).place(repository, places);
    }
    fn reached(&mut self, reference: PathId, to: &str) -> bool {
        (**self).reached(reference, to)
    }
    fn gone(&mut self, file: PathId) {
        (**self).gone(file);
    }
    fn keep(&mut self, file: PathId, followed: &follow::Followed) {
        (**self).keep(file, followed);
    }
    fn lost(&mut self, path: &Path, bytes: u64) {
        (**self).lost(path, bytes);
    }
    fn rescanned(&mut self) {
        (**self).rescanned();
    }
    fn degraded(&mut self, why: Option<&str>) {
        (**self).degraded(why);
    }
}

/// Tells sources to come to an end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A stop that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A source that as a whole cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading a stream that is no file failed.
    #[error("cannot read {name}: {source}")]
    Read {
        /// What was read.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The input is not what it was said to be.
    #[error("{0}")]
    Format(String),
    /// git did not do what was asked.
    #[error("{0}")]
    Git(String),
    /// git waits for something that never comes.
    #[error(
        "{name} did nothing for {seconds} s and was ended; a file of the repository may be a pipe, \
         or on a disk that does not answer"
    )]
    Idle {
        /// Which git.
        name: String,
        /// How long.
        seconds: u64,
    },
    /// The journal without its program.
    #[error("the journal is read by journalctl, which cannot be run: it is not at {}", .0.join(" or "))]
    NoJournalctl([&'static str; 3]),
    /// A program that is to run for ever did not.
    #[error("{program} ended{}", if .why.is_empty() { String::new() } else { format!(": {}", .why) })]
    Ended {
        /// Which.
        program: &'static str,
        /// What it said last.
        why: String,
    },
    /// What was read as a pipe is none any more, or another one.
    #[error("{0}: {1}")]
    Pipe(String, &'static str),
    /// Not all was decided: it will be read again.
    #[error("the registry could not be asked; what came is read again")]
    Undecided,
    /// The time that was given is used up.
    #[error("the time budget is used up")]
    Late,
    /// A glob of the configuration does not compile.
    #[error("{0}")]
    Glob(#[from] globset::Error),
}

/// The marker of a position: first half of the SHA-256 of the bytes before it.
#[must_use]
pub fn marker(context: &[u8]) -> [u8; 16] {
    let hash = crate::secret::identity_hash(&[context]);
    let mut out = [0; 16];
    out.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    out
}
