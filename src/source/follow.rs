//! Folders and logs, for ever: what is there at start and what comes.
//!
//! Walking is the truth, the notify crate is a hint that makes it fast: events of a new folder
//! are lost before its watch stands, and a full queue leaves one quiet event. So every hint leads to
//! a look at the file system, and everything is looked at again every [`WALK_EVERY`].

mod again;
mod glob;
pub(in crate::source) mod hints;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::source::reader::{self, Links};
use crate::source::{
    CONTEXT_MAX, End, Item, Kind, PathId, Position, Sink, SourceError, Stat, Stop, marker, path_id,
};
use globset::GlobSet;

pub use again::{Reread, read_again};
pub use glob::PathGlob;
use hints::Hints;

/// Everything is walked again this often, hints or not.
pub const WALK_EVERY: Duration = Duration::from_secs(30);
/// Logs are looked at this often, and missing roots are looked for.
const TICK: Duration = Duration::from_secs(1);
/// A new folder is walked a second time after this long: its watch stands by then.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// How coarse the times of a file system may be, in nanoseconds: they come from the kernel's tick.
const CLOCK_STEP_NS: i128 = 20_000_000;
/// A file that changed while it was read is read again after this long and, for each MiB it has,
/// [`SETTLE_PER_MIB`] more: re-reading a growing file must not become all that is done.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_PER_MIB: Duration = Duration::from_millis(20);
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// What to follow.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which files.
    pub include: Vec<PathGlob>,
    /// Which not.
    pub exclude: GlobSet,
    /// How they grow.
    pub mode: Mode,
}

impl Options {
    /// Opens what was met below one of the roots, and nothing that a link in a folder's place leads to.
    fn open(&self, path: &Path, links: Links) -> io::Result<(File, Stat)> {
        let roots = self.include.iter().map(PathGlob::root);
        match roots.filter(|root| path.starts_with(root)).max_by_key(|root| root.as_os_str().len())
        {
            Some(root) => reader::open_below(root, path, links),
            None => reader::open(path, links),
        }
    }
}

/// How the files of a watch grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A change may be anywhere: a changed file is read as a whole.
    Files,
    /// Lines are appended: only what is new is read.
    Logs {
        /// Whether what stands in a log when it is first seen at start is read.
        from_beginning: bool,
    },
}

/// What is remembered of a file, over restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Identity of the stream; a rotated log keeps it.
    pub stream: String,
    /// What the file system said when it was read last.
    pub stat: Stat,
    /// Up to where it is decided.
    pub position: Position,
}

/// A watch over folders or logs.
pub struct Follow {
    options: Options,
    files: HashMap<PathBuf, Followed>,
    /// What an earlier run read and this one has not met yet.
    earlier: HashMap<PathId, Followed>,
    /// Paths to look at, and when.
    due: BTreeMap<PathBuf, Instant>,
    /// Large files that were read a moment ago: not again before this time.
    settling: HashMap<PathBuf, Instant>,
    /// Files that could not be read, told once.
    unreadable: HashMap<PathBuf, String>,
    /// Folders that could not be walked, not told yet.
    unwalked: Vec<PathBuf>,
    started: bool,
    /// Whether this watch was never started before.
    first_start: bool,
}

impl Follow {
    /// A watch that knows what an earlier one has read.
    #[must_use]
    pub fn new(options: Options, earlier: HashMap<PathId, Followed>, first_start: bool) -> Self {
        Self {
            options,
            files: HashMap::new(),
            earlier,
            due: BTreeMap::new(),
            settling: HashMap::new(),
            unreadable: HashMap::new(),
            unwalked: Vec::new(),
            started: false,
            first_start,
        }
    }

    /// Follows until asked to stop. [`Sink::ready`] is called once, as soon as nothing that comes
    /// from then on can be missed.
    pub fn run(&mut self, sink: &mut dyn Sink, stop: &Stop) -> Result<(), SourceError> {
        let mut hints = Hints::new();
        let mut walk_at = Instant::now();
        let mut tick_at = walk_at;
        // Where "from now on" begins in a log is known after the first look only.
        let first_look = matches!(self.options.mode, Mode::Logs { from_beginning: false });
        while !stop.is_stopped() {
            let now = Instant::now();
            if now >= tick_at {
                hints.watch(&self.options.include);
                sink.degraded(hints.trouble());
                self.tick(now);
                tick_at = now + TICK;
            }
            let lost = hints.take_lost();
            if lost {
                sink.rescanned();
            }
            let walks = now >= walk_at || hints.take_rescan() || lost;
            if walks {
                self.walk_all(now);
            }
            if !self.started && !first_look {
                sink.ready();
            }
            self.work(sink, stop);
            if walks {
                // Without file events looking is all there is, and must not become all that is done.
                let pause = (now.elapsed() * 50).clamp(5 * TICK, WALK_EVERY);
                walk_at = now + if hints.trouble().is_some() { pause } else { WALK_EVERY };
            }
            if !stop.is_stopped() && !std::mem::replace(&mut self.started, true) {
                self.settle_earlier(sink, stop);
                if first_look {
                    sink.ready();
                }
            }
            let wait = self.due.values().min().map_or(tick_at, |due| tick_at.min(*due));
            for path in hints.wait(wait.saturating_duration_since(Instant::now())) {
                self.hint(path);
            }
        }
        Ok(())
    }

    /// Looks at everything once: at start, after a rescan, and regularly.
    fn walk_all(&mut self, now: Instant) {
        for glob in self.options.include.clone() {
            self.walk(glob.root(), now);
        }
        // A known file that is gone is looked at too, to be forgotten.
        for path in self.files.keys() {
            self.due.entry(path.clone()).or_insert(now);
        }
    }

    fn walk(&mut self, folder: &Path, now: Instant) {
        let mut builder = ignore::WalkBuilder::new(folder);
        builder.standard_filters(false).follow_links(false);
        for entry in builder.build() {
            let Ok(entry) = entry.inspect_err(|error| self.note_unwalked(folder, error)) else {
                continue;
            };
            let logs = matches!(self.options.mode, Mode::Logs { .. });
            let readable = |kind: std::fs::FileType| kind.is_file() || (logs && kind.is_symlink());
            if entry.file_type().is_some_and(readable) && self.wants(entry.path()) {
                self.due.entry(entry.into_path()).or_insert(now);
            }
        }
    }

    /// A folder that cannot be looked into; told with the next work.
    fn note_unwalked(&mut self, folder: &Path, error: &ignore::Error) {
        let path = match error {
            ignore::Error::WithDepth { err, .. } => match &**err {
                ignore::Error::WithPath { path, .. } => path.clone(),
                _ => folder.to_owned(),
            },
            ignore::Error::WithPath { path, .. } => path.clone(),
            _ => folder.to_owned(),
        };
        if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            self.unwalked.push(path);
        }
    }

    fn wants(&self, path: &Path) -> bool {
        self.options.include.iter().any(|glob| glob.is_match(path))
            && !self.options.exclude.is_match(path)
    }

    /// Between walks: logs are polled, so that a lost hint costs a second at most.
    fn tick(&mut self, now: Instant) {
        self.settling.retain(|_, until| *until > now);
        if matches!(self.options.mode, Mode::Logs { .. }) {
            for path in self.files.keys() {
                self.due.entry(path.clone()).or_insert(now);
            }
        }
    }

    fn hint(&mut self, path: PathBuf) {
        let now = Instant::now();
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                self.walk(&path, now);
                self.due.insert(path, now + SECOND_LOOK);
            }
            Ok(_) if self.wants(&path) => {
                self.due.entry(path).or_insert(now);
            }
            _ => {}
        }
    }

    fn work(&mut self, sink: &mut dyn Sink, stop: &Stop) {
        for path in std::mem::take(&mut self.unwalked) {
            self.complain(&path, &io::ErrorKind::PermissionDenied.into(), sink);
        }
        let now = Instant::now();
        let due: Vec<PathBuf> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(path, _)| path.clone()).collect();
        for path in due {
            if stop.is_stopped() {
                return;
            }
            self.due.remove(&path);
            // A link to a folder is not followed: it leads out of what is watched.
            if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                self.walk(&path, now);
                continue;
            }
            match self.look(&path, sink, stop) {
                Ok(()) => {
                    self.unreadable.remove(&path);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.vanished(&path, sink, stop);
                }
                Err(error) => self.complain(&path, &error, sink),
            }
        }
    }

    /// Says once what cannot be read, and again when the reason changes.
    fn complain(&mut self, path: &Path, error: &io::Error, sink: &mut dyn Sink) {
        let why = reader::describe(error);
        if self.unreadable.get(path) != Some(&why) {
            sink.skip(path, why.clone());
            self.unreadable.insert(path.to_owned(), why);
        }
    }

    fn look(&mut self, path: &Path, sink: &mut dyn Sink, stop: &Stop) -> io::Result<()> {
        match self.options.mode {
            Mode::Files => self.look_at_file(path, sink, stop),
            Mode::Logs { from_beginning } => self.look_at_log(path, from_beginning, sink, stop),
        }
    }

    /// A file is not there any more. A log may have been renamed; a folder that is away as a whole
    /// (a mount) may come back.
    fn vanished(&mut self, path: &Path, sink: &mut dyn Sink, stop: &Stop) {
        if !path.parent().is_some_and(Path::exists) {
            return;
        }
        let Some(known) = self.files.get(path).cloned() else { return };
        match self.options.mode {
            Mode::Files => {
                self.files.remove(path);
            }
            Mode::Logs { .. } => self.finish_rotated(path, &known, sink, stop),
        }
        sink.gone(path_id(path));
    }

    /// After the first look: what an earlier run read and this one did not meet. Logs that were
    /// renamed meanwhile are read to their end; what is nowhere is forgotten, unless it may come
    /// back or could not be opened.
    fn settle_earlier(&mut self, sink: &mut dyn Sink, stop: &Stop) {
        if self.earlier.is_empty() || !self.options.include.iter().all(|g| g.root().exists()) {
            return;
        }
        if matches!(self.options.mode, Mode::Logs { .. }) {
            for glob in self.options.include.clone() {
                let mut builder = ignore::WalkBuilder::new(glob.root());
                builder.standard_filters(false).follow_links(false);
                for entry in builder.build().flatten() {
                    self.adopt(entry.path(), sink, stop);
                }
            }
        }
        let kept: Vec<PathId> = self.unreadable.keys().map(|path| path_id(path)).collect();
        self.earlier.retain(|id, _| {
            let keep = kept.contains(id);
            if !keep {
                sink.gone(*id);
            }
            keep
        });
    }

    /// Reads the rest of a log of an earlier run that bears another name now.
    fn adopt(&mut self, path: &Path, sink: &mut dyn Sink, stop: &Stop) {
        let Ok((mut file, stat)) = self.options.open(path, Links::Refuse) else { return };
        let found = self.earlier.iter().find(|(_, known)| same_file(&known.stat, &stat));
        let Some((id, known)) = found.map(|(id, known)| (*id, known.clone())) else { return };
        if !holds(&mut file, &known.position).unwrap_or(false) {
            return;
        }
        let tail = Tail { path, from: (known.stream, known.position), stat };
        match self.read_from(&mut file, tail, sink, stop) {
            Ok(()) => {
                self.earlier.remove(&id);
                sink.gone(id);
            }
            Err(error) => self.complain(path, &error, sink),
        }
    }

    /// What is remembered of a path, by this run or an earlier one.
    fn known(&mut self, path: &Path) -> Option<Followed> {
        if let Some(known) = self.earlier.remove(&path_id(path)) {
            self.files.insert(path.to_owned(), known);
        }
        self.files.get(path).cloned()
    }

    fn look_at_file(&mut self, path: &Path, sink: &mut dyn Sink, stop: &Stop) -> io::Result<()> {
        let (mut file, stat) = self.options.open(path, Links::Refuse)?;
        if self.known(path).is_some_and(|known| known.stat == stat) {
            return Ok(());
        }
        if let Some(until) = self.settling.get(path).filter(|until| **until > Instant::now()) {
            self.due.insert(path.to_owned(), *until);
            return Ok(());
        }
        let item = Item {
            stream: Some(stream_of(path)),
            stat,
            ..Item::whole(Kind::File, path.to_owned())
        };
        self.read(&mut file, item, End::Done, sink, stop)?;
        let mebibytes = u32::try_from(stat.size >> 20).unwrap_or(u32::MAX);
        let rest = SETTLE_PER_MIB.saturating_mul(mebibytes).min(SETTLE_MAX);
        if mebibytes > 0 {
            self.settling.insert(path.to_owned(), Instant::now() + rest);
        }
        let age = crate::clock::now().as_nanosecond() - i128::from(stat.changed_ns);
        let fresh = (0..CLOCK_STEP_NS).contains(&age);
        if fresh && let Some(known) = self.files.get_mut(path) {
            // Another change within the same step of the file system's clock would look the same.
            known.stat.changed_ns = 0;
        }
        if fresh || reader::stat(&file)? != stat {
            self.due.insert(path.to_owned(), Instant::now() + SETTLE + rest);
        }
        Ok(())
    }

    fn look_at_log(
        &mut self,
        path: &Path,
        from_beginning: bool,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        let (mut file, stat) = self.options.open(path, Links::OfOwner)?;
        let from = match self.known(path) {
            Some(known) if same_file(&known.stat, &stat) && holds(&mut file, &known.position)? => {
                if known.position.offset == stat.size || known.stat == stat {
                    return Ok(());
                }
                (known.stream, known.position)
            }
            Some(known) => {
                self.finish_rotated(path, &known, sink, stop);
                // `app.log.1` that became `app.log.2` was read under its old name.
                match self.take_over(path, &stat, &mut file, sink)? {
                    Some(known) => (known.stream, known.position),
                    None => (new_stream(), Position::default()),
                }
            }
            None => match self.take_over(path, &stat, &mut file, sink)? {
                Some(known) => (known.stream, known.position),
                // A log that came while nobody watched is read as one that comes now.
                None if self.started || !self.first_start || from_beginning => {
                    (new_stream(), Position::default())
                }
                None => {
                    let end = end_of(&mut file, u64::MAX)?;
                    (again::new_stream_from(&end), end)
                }
            },
        };
        self.read_from(&mut file, Tail { path, from, stat }, sink, stop)
    }

    /// A log that was renamed while it was followed goes on under its new name.
    fn take_over(
        &mut self,
        path: &Path,
        stat: &Stat,
        file: &mut File,
        sink: &mut dyn Sink,
    ) -> io::Result<Option<Followed>> {
        let same = |known: &Followed| same_file(&known.stat, stat);
        let here = |old: &Path| old.parent() == path.parent();
        let now = self.files.iter().find(|(old, known)| here(old) && same(known));
        let now = now.map(|(old, known)| (path_id(old), Some(old.clone()), known.clone()));
        let earlier = self.earlier.iter().find(|(_, known)| same(known));
        let earlier = earlier.map(|(id, known)| (*id, None, known.clone()));
        let Some((id, old, known)) = now.or(earlier) else { return Ok(None) };
        if !holds(file, &known.position)? {
            return Ok(None);
        }
        match old {
            Some(old) => self.files.remove(&old),
            None => self.earlier.remove(&id),
        };
        sink.gone(id);
        Ok(Some(known))
    }

    /// Another file stands at the path of a log: reads the rest of the old one, which lies in the
    /// same folder under another name.
    fn finish_rotated(&mut self, path: &Path, known: &Followed, sink: &mut dyn Sink, stop: &Stop) {
        self.files.remove(path);
        let folder = path.parent().unwrap_or(Path::new("."));
        let siblings = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for sibling in siblings {
            let place = sibling.path();
            let Ok((mut file, stat)) = self.options.open(&place, Links::Refuse) else { continue };
            if place == path || !same_file(&known.stat, &stat) {
                continue;
            }
            let from = (known.stream.clone(), known.position);
            let outcome = match holds(&mut file, &known.position) {
                Ok(true) => {
                    self.read_from(&mut file, Tail { path: &place, from, stat }, sink, stop)
                }
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.complain(&place, &error, sink);
            }
            sink.note(&place, "read a rotated log to its end");
            return;
        }
        sink.lost(path, known.stat.size.saturating_sub(known.position.offset));
    }

    fn read_from(
        &mut self,
        file: &mut File,
        tail: Tail<'_>,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        let Tail { path, from: (stream, from), stat } = tail;
        let context = context_before(&from);
        file.seek(SeekFrom::Start(from.offset - context as u64))?;
        let whole = Item::whole(Kind::Log, path.to_owned());
        let item = Item { stream: Some(stream), from, context, stat, ..whole };
        self.read(file, item, End::Pause, sink, stop)
    }

    fn read(
        &mut self,
        file: &mut File,
        item: Item,
        end: End,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<()> {
        sink.begin(&item);
        let complete = reader::pump(file, sink, stop);
        let end = if matches!(complete, Ok(true)) { end } else { End::Broken };
        let ended = sink.end(end);
        if !complete? {
            return Ok(());
        }
        if let (ControlFlow::Continue(position), Some(stream)) = (ended, item.stream) {
            self.files.insert(item.path, Followed { stream, stat: item.stat, position });
        }
        Ok(())
    }
}

/// The part of a log that was not read yet.
struct Tail<'a> {
    path: &'a Path,
    from: (String, Position),
    stat: Stat,
}

fn context_before(position: &Position) -> usize {
    usize::try_from(position.offset).unwrap_or(CONTEXT_MAX).min(CONTEXT_MAX)
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.dev, a.ino) == (b.dev, b.ino)
}

/// What stands for a file that is read as a whole.
fn stream_of(path: &Path) -> String {
    format!("file:{}", crate::secret::to_hex(&path_id(path)))
}

fn new_stream() -> String {
    format!("log:{}", uuid::Uuid::new_v4())
}

/// Whether a file still holds before the position what was read there: an inode is used again,
/// and a file that was cut may have grown past the old end.
fn holds(file: &mut File, position: &Position) -> io::Result<bool> {
    let context = context_before(position);
    let mut bytes = vec![0; context];
    file.seek(SeekFrom::Start(position.offset - context as u64))?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(marker(&bytes) == position.marker),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The end of the file or of so many bytes of it, with the number of its line: where "from now on"
/// begins.
fn end_of(file: &mut File, longest: u64) -> io::Result<Position> {
    file.seek(SeekFrom::Start(0))?;
    let mut file = file.take(longest);
    let mut buffer = vec![0; 256 * 1024];
    let (mut offset, mut lines, mut tail) = (0u64, 0u64, Vec::new());
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = buffer.get(..count).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        offset += count as u64;
        lines += memchr::memchr_iter(b'\n', part).count() as u64;
        tail.extend_from_slice(part.get(count.saturating_sub(CONTEXT_MAX)..).unwrap_or_default());
        let surplus = tail.len().saturating_sub(CONTEXT_MAX);
        tail.drain(..surplus);
    }
    Ok(Position { offset, lines, marker: marker(&tail) })
}
