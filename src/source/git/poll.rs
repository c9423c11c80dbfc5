//! Repositories, for ever: what is new behind any reference, once.
//!
//! A repository is looked at again when one of the files that hold its references has changed: they
//! are looked at every second, and file events are hints to do so at once.
//! What the references led to when they were read last is remembered, so that only what is new
//! is read, also after a restart.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gix_hash::ObjectId;
use globset::GlobSet;
use notify::RecursiveMode;

use super::history::{History, Limits, Selection};
use crate::source::follow::hints::Hints;
use crate::source::follow::{Followed, PathGlob, Reread};
use crate::source::{Item, Kind, PathId, Sink, SourceError, Stop, path_id};

/// Repositories are looked for this often.
const WALK_EVERY: Duration = Duration::from_secs(30);
/// References are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// A stop is noticed within this time; what a file event is a part of may take as long.
const NAP: Duration = Duration::from_millis(50);
/// A folder that is new beside others may take so long to become a repository.
const NEW_FOR: Duration = Duration::from_secs(5);
/// Folders in folders that are gone into.
const DEPTH_MAX: usize = 32;
/// Memory for objects and indexes, in bytes.
const MEMORY: u64 = 256 << 20;

/// What to follow.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which folders; those that are repositories count.
    pub include: PathGlob,
    /// Which not.
    pub exclude: GlobSet,
    /// Whether what a repository has when it is first seen is read.
    pub from_beginning: bool,
}

/// A watch over repositories.
pub struct Poll {
    options: Options,
    /// What an earlier run read and this one has not met yet.
    earlier: HashMap<PathId, Followed>,
    /// Whether this watch was never started before.
    first_start: bool,
    repositories: BTreeMap<PathBuf, Seen>,
    /// Repositories that could not be read, told once.
    unreadable: HashMap<PathBuf, String>,
}

/// What is known of a repository.
#[derive(Default)]
struct Seen {
    /// What references led to when they were read last.
    references: BTreeMap<PathId, ObjectId>,
    /// What the files that hold them looked like; `None`: not looked at yet.
    mark: Option<u64>,
    /// The `.git` that all its work trees share, once that is known.
    common: Option<PathBuf>,
    /// When it is looked at again, if that took long for nothing.
    again: Option<Instant>,
}

impl Poll {
    /// A watch that knows what an earlier one has read.
    #[must_use]
    pub fn new(options: Options, earlier: HashMap<PathId, Followed>, first_start: bool) -> Self {
        Self {
            options,
            earlier,
            first_start,
            repositories: BTreeMap::new(),
            unreadable: HashMap::new(),
        }
    }

    /// Follows until asked to stop. [`Sink::ready`] is called once, after the first look.
    pub fn run<S: Sink + Send>(&mut self, sink: &mut S, stop: &Stop) -> Result<(), SourceError> {
        let mut hints = Hints::new();
        let mut walk_at = Instant::now();
        let mut new_until = walk_at;
        let mut started = false;
        while !stop.is_stopped() {
            let now = Instant::now();
            if now >= walk_at || now < new_until {
                hints.retry(now);
                hints.walk_begins();
                let root = self.options.include.root().to_owned();
                self.find(&root, DEPTH_MAX);
                walk_at = now + WALK_EVERY;
            }
            self.look_at_all(started, sink, stop);
            if !stop.is_stopped() && !std::mem::replace(&mut started, true) {
                sink.ready();
            }
            let fresh = self.watch(&mut hints);
            hints.walk_ends();
            sink.degraded(hints.trouble());
            // What came before a watch stood is found by another look.
            if !fresh && self.wait(&mut hints, now + TICK, sink, stop) {
                new_until = Instant::now() + NEW_FOR;
            }
        }
        Ok(())
    }

    fn look_at_all<S: Sink + Send>(&mut self, started: bool, sink: &mut S, stop: &Stop) {
        for path in self.repositories.keys().cloned().collect::<Vec<_>>() {
            if stop.is_stopped() {
                return;
            }
            let now = Instant::now();
            if self.repositories.get(&path).is_some_and(|seen| seen.again > Some(now)) {
                continue;
            }
            match self.look(&path, started, sink) {
                Ok(()) => {
                    self.unreadable.remove(&path);
                }
                Err(error) => {
                    self.complain(&path, &error, sink);
                    let again = (now.elapsed() > TICK).then(|| Instant::now() + WALK_EVERY);
                    self.repositories.entry(path).or_default().again = again;
                }
            }
        }
    }

    /// Asks for hints where references are, and where repositories lie beside each other. Answers
    /// whether a folder was not watched before.
    fn watch(&self, hints: &mut Hints) -> bool {
        let mut fresh = false;
        let root = self.options.include.root();
        if !self.repositories.contains_key(root) {
            fresh |= hints.watch(root, RecursiveMode::NonRecursive);
        }
        for common in self.repositories.values().filter_map(|seen| seen.common.as_deref()) {
            fresh |= hints.watch(common, RecursiveMode::NonRecursive);
            for name in ["refs", "reftable"] {
                fresh |= hints.watch(&common.join(name), RecursiveMode::Recursive);
            }
        }
        fresh
    }

    /// Waits for hints, up to a point in time. Answers whether there may be a new repository.
    fn wait(&self, hints: &mut Hints, end: Instant, sink: &mut dyn Sink, stop: &Stop) -> bool {
        let root = self.options.include.root();
        while !stop.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            let mut paths = hints.wait(left.min(NAP));
            if left.is_zero() {
                return false;
            }
            let lost = hints.take_lost();
            if lost {
                sink.rescanned();
            }
            if lost || !paths.is_empty() {
                // A push is more than one event.
                std::thread::sleep(NAP);
                paths.extend(hints.wait(Duration::ZERO));
                return paths.iter().any(|path| {
                    let known = self.repositories.contains_key(path);
                    !known && path.parent() == Some(root) && path.is_dir()
                });
            }
        }
        false
    }

    /// Says once what cannot be read, and again when the reason changes.
    fn complain<S: Sink>(&mut self, path: &Path, error: &SourceError, sink: &mut S) {
        let why = error.to_string();
        if self.unreadable.get(path) != Some(&why) {
            sink.skip(path, why.clone());
            self.unreadable.insert(path.to_owned(), why);
        }
    }

    /// Adds the repositories in a folder. What lies in a repository is not gone into.
    fn find(&mut self, folder: &Path, depth: usize) {
        if self.options.exclude.is_match(folder) {
            return;
        }
        if self.options.include.is_match(folder) && is_repository(folder) {
            self.repositories.entry(folder.to_owned()).or_default();
            return;
        }
        if depth == 0 || is_bare(folder) {
            return;
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.find(&entry.path(), depth - 1);
            }
        }
    }

    fn look<S: Sink + Send>(
        &mut self,
        path: &Path,
        started: bool,
        sink: &mut S,
    ) -> Result<(), SourceError> {
        let Some(seen) = self.repositories.get_mut(path) else { return Ok(()) };
        let before = seen.common.as_deref().map(mark);
        if before.is_some() && seen.mark == before {
            return Ok(());
        }
        let first_look = seen.mark.is_none();
        let history =
            History::open(path, Limits { threads: 1, memory: MEMORY, unpacked: None }, true)?;
        let mark = before.unwrap_or_else(|| mark(history.common()));
        seen.common = Some(history.common().to_owned());
        let now: BTreeMap<PathId, (PathBuf, ObjectId)> = history
            .references()?
            .into_iter()
            .map(|(name, id)| (path_id(&path.join(&name)), (name, id)))
            .collect();
        for id in now.keys() {
            let known = self.earlier.remove(id);
            let known = known.and_then(|known| ObjectId::from_hex(known.stream.as_bytes()).ok());
            seen.references.extend(known.map(|known| (*id, known)));
        }
        let skip = first_look && !started && self.first_start && !self.options.from_beginning;
        let new = now.iter().filter(|(id, (_, to))| seen.references.get(*id) != Some(to));
        let new: Vec<(&PathId, &PathBuf, &ObjectId)> =
            new.map(|(id, (name, to))| (id, name, to)).collect();
        if !new.is_empty() && !skip {
            let of = new.iter().map(|(_, _, to)| **to).collect();
            let without = seen.references.values().copied();
            let without = without.chain(self.earlier.values().filter_map(tip)).collect();
            let stream = stream_of(&history.folder());
            let selection = Selection::New { of, without, stream };
            history.read(&selection, vec![&mut *sink])?;
            let names = new.iter().filter(|(id, ..)| !seen.references.contains_key(*id));
            tell(path, &history, names.map(|(_, name, _)| name.as_path()), sink);
        }
        if skip {
            for (number, (_, to)) in now.values().enumerate() {
                if !sink.reached(began(path, number), &to.to_hex().to_string()) {
                    return Ok(());
                }
            }
        }
        for (id, _, to) in new {
            if !sink.reached(*id, &to.to_hex().to_string()) {
                return Ok(());
            }
        }
        for id in seen.references.keys().filter(|id| !now.contains_key(*id)) {
            sink.gone(*id);
        }
        seen.references = now.into_iter().map(|(id, (_, to))| (id, to)).collect();
        seen.mark = Some(mark);
        Ok(())
    }
}

/// Reads repositories again, as far as a watch has read them, up to so many bytes. `known`: what it
/// has read.
pub fn read_again<S: Sink + Send>(
    options: &Options,
    known: &HashMap<PathId, Followed>,
    budget: u64,
    sink: &mut S,
    stop: &Stop,
) -> Reread {
    let mut poll = Poll::new(options.clone(), HashMap::new(), false);
    let root = options.include.root().to_owned();
    poll.find(&root, DEPTH_MAX);
    let mut reread = Reread::default();
    for path in poll.repositories.keys().take_while(|_| !stop.is_stopped()) {
        let room = budget.saturating_sub(reread.bytes);
        // What cannot be read the watch itself has told.
        match read_one_again(path, known, room, sink) {
            Ok(Some(bytes)) => {
                reread.files += 1;
                reread.bytes += bytes;
                reread.left += u64::from(bytes >= room);
            }
            Ok(None) => reread.left += 1,
            Err(_) => {}
        }
    }
    reread
}

/// Answers about how many bytes that was; `None`: there is no room for any.
fn read_one_again<S: Sink + Send>(
    path: &Path,
    known: &HashMap<PathId, Followed>,
    room: u64,
    sink: &mut S,
) -> Result<Option<u64>, SourceError> {
    if room == 0 {
        return Ok(None);
    }
    let limits = Limits { threads: 1, memory: MEMORY, unpacked: Some(room) };
    let history = History::open(path, limits, true)?;
    let references = history.references()?;
    let before = (0..).map_while(|number| known.get(&began(path, number))).filter_map(tip);
    let of = references.iter().map(|(_, to)| *to).collect();
    let (without, stream) = (before.collect(), stream_of(&history.folder()));
    let selection = Selection::New { of, without, stream };
    let outcome = history.read(&selection, vec![&mut *sink])?;
    tell(path, &history, references.iter().map(|(name, _)| name.as_path()), sink);
    // Hands on what was found.
    sink.reached(path_id(path), "");
    Ok(Some(outcome.unpacked))
}

/// Reads names of references, and says where everything is that was found.
fn tell<'a, S: Sink>(
    path: &Path,
    history: &History,
    names: impl Iterator<Item = &'a Path>,
    sink: &mut S,
) {
    for name in names {
        let stream = Some(stream_of_name(&history.folder(), name));
        let item = Item { stream, ..Item::whole(Kind::Ref, path.join(name)) };
        sink.whole(&item, name.as_os_str().as_encoded_bytes());
    }
    let found = sink.found();
    if !found.is_empty() {
        sink.place(path, &history.places(&found));
    }
}

/// What stands for a repository, by its [folder](History::folder), in what is remembered.
#[must_use]
pub fn stream_of(folder: &Path) -> String {
    format!("git:{}", crate::secret::to_hex(&path_id(folder)))
}

/// What stands for the name of a reference, which may hold a key.
#[must_use]
pub fn stream_of_name(folder: &Path, name: &Path) -> String {
    format!("{}:{}", stream_of(folder), crate::secret::to_hex(&path_id(name)))
}

/// Under these it is kept what the references of a repository led to when it was first seen, if only
/// what came since then is read.
fn began(path: &Path, number: usize) -> PathId {
    path_id(&path.join(format!("\0 began {number}")))
}

fn tip(known: &Followed) -> Option<ObjectId> {
    ObjectId::from_hex(known.stream.as_bytes()).ok()
}

fn is_bare(folder: &Path) -> bool {
    folder.join("HEAD").is_file() && folder.join("objects").is_dir()
}

fn is_repository(folder: &Path) -> bool {
    folder.join(".git").exists() || is_bare(folder)
}

/// What the files that hold the references of a repository look like.
fn mark(common: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in ["HEAD", "packed-refs", "refs", "reftable"] {
        add(&common.join(name), DEPTH_MAX, &mut hasher);
    }
    hasher.finish()
}

fn add(path: &Path, depth: usize, hasher: &mut DefaultHasher) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    let changed = (meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec());
    (path, meta.ino(), meta.size(), changed).hash(hasher);
    if meta.is_dir() && depth > 0 {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| add(path, depth - 1, hasher));
    }
}
