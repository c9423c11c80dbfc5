//! Folders and logs, for ever: what is there at start and what comes.
//!
//! Walking is the truth, the notify crate is a hint that makes it fast: events of a new folder
//! are lost before its watch stands, and a full queue leaves one quiet event. So every hint leads to
//! a look at the file system, and everything is looked at again every [`WALK_EVERY`].
//!
//! Nobody waits for a long file: it is read in slices, between which whatever is live comes first.

mod adrift;
mod again;
mod content;
mod files;
mod glob;
pub(in crate::source) mod hints;
mod logs;
mod packed;
mod siblings;
mod walk;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use globset::GlobSet;

use crate::source::reader::{self, Links};
use crate::source::{
    End, Head, Item, Kind, PathId, Position, Sink, SourceError, Stat, Stop, path_id,
};

use adrift::Adrift;
pub use again::{Reread, read_again};
use content::context_before;
pub use files::stream_of;
pub use glob::{PathGlob, absolute_home, is_everything, names_of};
use hints::Hints;
use logs::Kept;
use packed::Packed;
use walk::Walk;

/// Everything is walked again this often, hints or not.
pub const WALK_EVERY: Duration = Duration::from_secs(30);
/// Logs are looked at this often, quiet ones half as often, and missing roots are looked for.
const TICK: Duration = Duration::from_secs(1);
/// A new folder is walked a second time after this long: its watch stands by then.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// A log is quiet when it has not changed for so long.
const QUIET: Duration = Duration::from_secs(10);
/// A log that is written to all the time is looked at this often at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much of a file is read before others have their turn, in bytes. It is also what is read again
/// at most after a crash.
const SLICE: u64 = 8 << 20;
/// How long walking goes on, and what it found is read, before what is live has its turn.
const TURN: Duration = Duration::from_millis(50);

/// What to follow.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which files.
    pub include: PathGlob,
    /// Which not.
    pub exclude: GlobSet,
    /// How they grow.
    pub mode: Mode,
    /// Which links to files are followed; links to folders never are.
    pub links: Links,
    /// No file events, but a look at everything this often: for network file systems.
    pub poll: Option<Duration>,
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
    /// How it begins.
    pub head: Head,
}

/// A watch over folders or logs.
pub struct Follow {
    options: Options,
    hints: Hints,
    walk: Walk,
    files: HashMap<PathBuf, Known>,
    /// What an earlier run read and this one has not met yet.
    earlier: HashMap<PathId, Followed>,
    /// Paths that may have changed, and when to look at them.
    due: BTreeMap<PathBuf, Instant>,
    /// What a walk found new or changed.
    found: VecDeque<PathBuf>,
    /// Files of which more is to be read than a slice.
    unfinished: VecDeque<PathBuf>,
    /// Compressed logs that are being read.
    packed: VecDeque<Packed>,
    /// Logs that are not at their paths any more.
    adrift: Vec<Adrift>,
    /// Their siblings are being looked at.
    among_siblings: bool,
    /// Quiet logs were not looked at the last time.
    skipped: bool,
    /// Large files that were read a moment ago: not again before this time.
    settling: HashMap<PathBuf, Instant>,
    /// Logs that seem to be copies that are being made, since when.
    copying: HashMap<PathBuf, Instant>,
    /// Files that could not be read, told once.
    unreadable: HashMap<PathBuf, String>,
    /// Compressed files that may not be complete, and since when they are as they are.
    packing: HashMap<PathBuf, (Stat, Instant)>,
    walk_at: Option<Instant>,
    tick_at: Option<Instant>,
    /// Whether the first look is over.
    started: bool,
    told_ready: bool,
    /// Whether this watch was never started before.
    first_start: bool,
}

/// A file that is followed.
struct Known {
    followed: Followed,
    /// The path before rotation.
    unrotated: Option<PathBuf>,
    /// The pattern means it; else it is what rotation made of one that it means.
    wanted: bool,
    /// A log stays open, to be read to its end whatever becomes of its name.
    kept: Option<Kept>,
    looked: Option<Instant>,
}

impl Known {
    fn new(path: &Path, followed: Followed, wanted: bool) -> Self {
        Self { followed, wanted, unrotated: siblings::unrotated(path), kept: None, looked: None }
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.looked.is_none_or(|at| now.saturating_duration_since(at) >= QUIET)
    }
}

impl Follow {
    /// A watch that knows what an earlier one has read.
    #[must_use]
    pub fn new(options: Options, earlier: HashMap<PathId, Followed>, first_start: bool) -> Self {
        let hints = if options.poll.is_some() { Hints::none() } else { Hints::new() };
        Self {
            options,
            hints,
            walk: Walk::default(),
            files: HashMap::new(),
            earlier,
            due: BTreeMap::new(),
            found: VecDeque::new(),
            unfinished: VecDeque::new(),
            packed: VecDeque::new(),
            adrift: Vec::new(),
            among_siblings: false,
            skipped: false,
            settling: HashMap::new(),
            copying: HashMap::new(),
            unreadable: HashMap::new(),
            packing: HashMap::new(),
            walk_at: None,
            tick_at: None,
            started: false,
            told_ready: false,
            first_start,
        }
    }

    /// Follows until asked to stop. [`Sink::ready`] is called once, as soon as nothing that comes
    /// from then on can be missed.
    pub fn run(&mut self, sink: &mut dyn Sink, stop: &Stop) -> Result<(), SourceError> {
        while !stop.is_stopped() {
            let next = self.turn(Instant::now(), sink, stop);
            let wait = next.saturating_duration_since(Instant::now());
            for path in self.hints.wait(wait) {
                self.hint(path, Instant::now());
            }
        }
        self.give_up_adrift(sink);
        Ok(())
    }

    /// Does what is to be done at that time, for a moment; answers when there is more to do.
    pub fn turn(&mut self, now: Instant, sink: &mut dyn Sink, stop: &Stop) -> Instant {
        if self.hints.retry(now) || self.hints.take_lost() {
            sink.rescanned();
            self.walk_at = None;
        }
        if self.tick_at.is_none_or(|at| now >= at) {
            self.tick(now, sink);
            self.tick_at = Some(now + self.tick_every());
        }
        if self.walk_at.is_none_or(|at| now >= at) {
            self.begin_walk();
            self.walk_at = Some(now + self.walk_every());
        }
        // Where "from now on" begins in a log is known after the first look only.
        let first_look = self.first_start && self.options.mode == LIVE_ONLY;
        if !first_look {
            self.tell_ready(sink);
        }
        self.work(now, sink, stop);
        while first_look && !self.started && !stop.is_stopped() {
            self.work(now, sink, stop);
        }
        let idle = self.walk.is_idle() && self.found.is_empty() && !self.has_more_adrift();
        if idle && self.unfinished.is_empty() && self.packed.is_empty() {
            let next = [self.tick_at, self.walk_at, self.due.values().min().copied()];
            return next.into_iter().flatten().min().unwrap_or(now);
        }
        now
    }

    fn tick_every(&self) -> Duration {
        self.options.poll.unwrap_or(TICK)
    }

    fn walk_every(&self) -> Duration {
        match (self.options.poll, self.hints.trouble()) {
            (Some(poll), _) => poll,
            // Looking for changes must not become all that is done.
            (None, Some(_)) => (self.walk.took() * 50).clamp(5 * TICK, WALK_EVERY),
            (None, None) => WALK_EVERY,
        }
    }

    fn tell_ready(&mut self, sink: &mut dyn Sink) {
        if !std::mem::replace(&mut self.told_ready, true) {
            sink.ready();
        }
    }

    fn wants(&self, path: &Path) -> bool {
        self.options.include.is_match(path) && !self.options.exclude.is_match(path)
    }

    fn is_logs(&self) -> bool {
        matches!(self.options.mode, Mode::Logs { .. })
    }

    /// Regularly: logs are looked at, so that a lost hint costs a second at most.
    fn tick(&mut self, now: Instant, sink: &mut dyn Sink) {
        sink.degraded(self.hints.trouble());
        self.settling.retain(|_, until| *until > now);
        if self.is_root_new() {
            self.walk_at = None;
        }
        if !self.is_logs() {
            return;
        }
        // What was rotated is looked at where events tell of it, and by walking.
        // What is quiet is looked at every other time, as long as events tell of it.
        let has_hints = self.options.poll.is_none() && self.hints.trouble().is_none();
        let skips = has_hints && !self.skipped;
        self.skipped = skips;
        let is_live = |(_, known): &(&PathBuf, &Known)| {
            (known.wanted || known.kept.is_some()) && !(skips && known.is_quiet(now))
        };
        let live = self.files.iter().filter(is_live);
        let changed: Vec<PathBuf> =
            live.filter(|(path, known)| known.has_changed(path)).map(of_path).collect();
        for path in changed {
            self.due.entry(path).or_insert(now);
        }
        self.check_open(now);
        self.settle_adrift(now, sink);
    }

    /// A path may have changed.
    fn hint(&mut self, path: PathBuf, now: Instant) {
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                // It may be another one than before.
                self.hints.forget(&path);
                self.visit(path.clone());
                self.due.insert(path, now + SECOND_LOOK);
            }
            Ok(_) if self.files.contains_key(&path) || self.is_member(&path) => {
                let looked = self.files.get(&path).and_then(|known| known.looked);
                let at = looked.map_or(now, |looked| now.max(looked + LOOK_EVERY));
                let due = self.due.entry(path).or_insert(at);
                *due = at.min(*due);
            }
            Err(_) => {
                self.hints.forget(&path);
                if self.files.contains_key(&path) {
                    self.due.entry(path).or_insert(now);
                }
            }
            Ok(_) => {}
        }
    }

    /// What is live first, then a moment of walking and of what that found, then a slice of what is
    /// long.
    fn work(&mut self, now: Instant, sink: &mut dyn Sink, stop: &Stop) {
        let due = self.due.iter().filter(|(_, at)| **at <= now).map(of_path).collect::<Vec<_>>();
        for path in due {
            if stop.is_stopped() {
                return;
            }
            self.due.remove(&path);
            // A link to a folder is not followed: it leads out of what is watched.
            if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                self.visit(path);
            } else {
                self.look(&path, now, sink, stop);
            }
        }
        self.read_adrift(now, sink, stop);
        let end = Instant::now() + TURN;
        while Instant::now() < end && !stop.is_stopped() && self.walk_on(sink) {}
        while Instant::now() < end && !stop.is_stopped() {
            let Some(path) = self.found.pop_front() else { break };
            self.look(&path, now, sink, stop);
        }
        if stop.is_stopped() {
            return;
        }
        if !self.started && self.walk.is_idle() && self.found.is_empty() {
            self.settle_earlier(now, sink);
            self.started = true;
            self.tell_ready(sink);
        }
        if let Some(path) = self.unfinished.pop_front() {
            self.look(&path, now, sink, stop);
        }
        self.unpack(sink, stop);
    }

    fn look(&mut self, path: &Path, now: Instant, sink: &mut dyn Sink, stop: &Stop) {
        let looked = match self.options.mode {
            Mode::Files => self.look_at_file(path, now, sink, stop),
            Mode::Logs { .. } => self.look_at_log(path, now, sink, stop),
        };
        match looked {
            Ok(()) => {
                self.unreadable.remove(path);
            }
            Err(error) if is_gone(&error) => self.vanished(path, now, sink, stop),
            // Stopped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.complain(path, &error, sink),
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

    /// A file is not there any more. A log may have been renamed; a folder that is away as a whole
    /// (a mount) may come back.
    fn vanished(&mut self, path: &Path, now: Instant, sink: &mut dyn Sink, stop: &Stop) {
        self.unreadable.remove(path);
        self.packing.remove(path);
        let is_deleted = self.files.get(path).is_some_and(Known::is_deleted);
        if !is_deleted && !path.parent().is_some_and(Path::exists) {
            return;
        }
        // It may be an earlier run that knew it.
        if self.known(path).is_none() {
            return;
        }
        if self.is_logs() {
            self.cast_off(path, None, now, sink, stop);
        } else {
            self.files.remove(path);
            self.forget(path_id(path), sink);
        }
    }

    /// After the first look: what an earlier run read and this one did not meet. A log may be somewhere
    /// all the same; what is nowhere is forgotten, unless it may come back or could not be opened.
    fn settle_earlier(&mut self, now: Instant, sink: &mut dyn Sink) {
        if self.earlier.is_empty() || !self.options.include.root().exists() {
            return;
        }
        let closed: Vec<_> = self.unreadable.keys().map(|path| path_id(path)).collect();
        let is_logs = self.is_logs();
        let left = self.earlier.extract_if(|id, _| !closed.contains(id)).collect::<Vec<_>>();
        for (id, followed) in left {
            if is_logs {
                self.miss(id, followed, now, sink);
            } else {
                self.forget(id, sink);
            }
        }
    }

    /// Nothing is remembered under an id any more, unless another file has come to bear that name.
    fn forget(&self, id: PathId, sink: &mut dyn Sink) {
        if !self.files.keys().any(|path| path_id(path) == id) {
            sink.gone(id);
        }
    }

    /// What is remembered of a path, by this run or an earlier one.
    fn known(&mut self, path: &Path) -> Option<Followed> {
        if let Some(known) = self.files.get(path) {
            return Some(known.followed.clone());
        }
        let known = self.earlier.remove(&path_id(path))?;
        self.files.insert(path.to_owned(), Known::new(path, known.clone(), self.wants(path)));
        Some(known)
    }

    fn open(&self, path: &Path) -> io::Result<(File, Stat)> {
        reader::open_below(self.options.include.root(), path, self.options.links)
    }

    /// Reads a slice of a file from where its reading stands. Answers whether its end was reached.
    fn read_slice(
        &mut self,
        file: &mut File,
        part: &Part<'_>,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<bool> {
        let Some(mut followed) = self.read_part(file, part, sink, stop)? else {
            return Ok(false);
        };
        if part.kind == Kind::Log {
            content::sum_up(file, &mut followed)?;
            if followed.head.summed > part.from.head.summed {
                sink.keep(path_id(part.path), &followed);
            }
        }
        let path = part.path.to_owned();
        let more = followed.stat.is_unfinished();
        if more && !self.unfinished.contains(&path) {
            self.unfinished.push_back(path.clone());
        }
        match self.files.get_mut(&path) {
            Some(known) => known.followed = followed,
            None => {
                let known = Known::new(&path, followed, self.wants(&path));
                self.files.insert(path, known);
            }
        }
        Ok(!more)
    }

    /// The same. Answers how far it was read, if it was.
    fn read_part(
        &mut self,
        file: &mut File,
        part: &Part<'_>,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<Option<Followed>> {
        let Followed { stream, position, head, .. } = part.from.clone();
        let context = context_before(&position);
        file.seek(SeekFrom::Start(position.offset - context as u64))?;
        let last = part.stat.size <= position.offset.saturating_add(SLICE);
        let stat = if last { part.stat } else { part.stat.unfinished() };
        let whole = Item::whole(part.kind, part.path.to_owned());
        let (from, stream) = (position, Some(stream));
        let item = Item { stream, from, context, stat, head, known_as: part.known_as, ..whole };
        let mut slice = file.take(SLICE + context as u64);
        let end = if last && part.kind == Kind::File { End::Done } else { End::Pause };
        let read = self.read(&mut slice, (item, end), sink, stop)?;
        Ok(read.continue_value())
    }

    /// Reads what there is. Answers how far.
    fn read(
        &mut self,
        from: &mut dyn Read,
        (item, end): (Item, End),
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> io::Result<ControlFlow<(), Followed>> {
        sink.begin(&item);
        let complete = reader::pump(from, sink, stop);
        let end = if matches!(complete, Ok(true)) { end } else { End::Broken };
        let ended = sink.end(end);
        if !complete? {
            return Ok(ControlFlow::Break(()));
        }
        Ok(match (ended, item.stream) {
            (ControlFlow::Continue(position), Some(stream)) => {
                let Item { stat, head, .. } = item;
                ControlFlow::Continue(Followed { stream, stat, position, head })
            }
            _ => ControlFlow::Break(()),
        })
    }
}

const LIVE_ONLY: Mode = Mode::Logs { from_beginning: false };

/// What is to be read of a file.
struct Part<'a> {
    path: &'a Path,
    /// Under which it is remembered, if not under its path.
    known_as: Option<PathId>,
    kind: Kind,
    stat: Stat,
    from: Followed,
}

/// Whether there is nothing any more, or a file in the place of its folder.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn of_path<T>((path, _): (&PathBuf, T)) -> PathBuf {
    path.clone()
}

/// The host's clock, as the file system has it.
fn now_ns() -> i64 {
    i64::try_from(crate::clock::now().as_nanosecond()).unwrap_or(i64::MAX)
}
