//! File events as hints: which paths may have changed. Bounded; when in doubt, "look at everything".

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::io::Errno;

use crate::source::reader;

/// Hints that wait; more lead to a walk over everything.
const QUEUE_MAX: usize = 4_096;
/// A stop is noticed within this time.
const NAP: Duration = Duration::from_millis(250);
/// Where many events come, they are gathered for so long: each costs, and most say the same.
const GATHER: Duration = Duration::from_millis(30);
/// So many are many, within a stretch that is this long at least.
const MANY: u32 = 4;
const STRETCH: Duration = Duration::from_millis(5);
/// A watcher that could not be had is asked for again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// Settings of the kernel that bound watches: of the host, and of a user in a container.
const FOLDERS: [&str; 2] = ["fs.inotify.max_user_watches", "user.max_inotify_watches"];
const WATCHERS: [&str; 2] = ["fs.inotify.max_user_instances", "user.max_inotify_instances"];

pub(in crate::source) struct Hints {
    watcher: Option<RecommendedWatcher>,
    /// With device and inode: a folder that was replaced by another is watched anew.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    pending: Arc<Pending>,
    /// When hints were taken last.
    taken: Instant,
    /// Why there are no hints for some folders.
    trouble: Option<String>,
    /// Folders were refused since the last complete walk began.
    refused: bool,
    /// Folders that cannot be watched, since then.
    closed: HashSet<PathBuf>,
    /// When a watcher is asked for again; `None`: there is one, or none is wanted.
    again: Option<Instant>,
}

impl Hints {
    /// Hints of the kernel, if it gives any.
    pub(in crate::source) fn new() -> Self {
        let mut hints = Self::none();
        hints.open();
        hints
    }

    /// No hints: everything is found by looking for it.
    pub(super) fn none() -> Self {
        Self {
            watcher: None,
            watched: BTreeMap::new(),
            pending: Arc::default(),
            taken: Instant::now(),
            trouble: None,
            refused: false,
            closed: HashSet::new(),
            again: None,
        }
    }

    fn open(&mut self) {
        self.watched.clear();
        self.pending = Arc::default();
        let mut teller = Teller::new(self.pending.clone());
        match notify::recommended_watcher(move |event| teller.handle(event)) {
            Ok(watcher) => {
                (self.watcher, self.again, self.trouble) = (Some(watcher), None, None);
            }
            Err(error) => {
                self.trouble = Some(describe(&error, &WATCHERS));
                self.again = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Asks again for a watcher that could not be had. Answers whether there is one now, which
    /// watches nothing yet.
    pub(in crate::source) fn retry(&mut self, now: Instant) -> bool {
        let due = self.again.is_some_and(|again| now >= again);
        if due {
            self.open();
        }
        due && self.watcher.is_some()
    }

    /// Watches a folder, if there is one; again when it was replaced by another. Answers whether it
    /// was not watched before.
    pub(in crate::source) fn watch(&mut self, place: &Path, mode: RecursiveMode) -> bool {
        if self.watcher.is_none() || self.refused {
            return false;
        }
        match std::fs::metadata(place).ok().map(|meta| (meta.dev(), meta.ino())) {
            None => {
                self.forget(place);
                false
            }
            Some(id) if self.watched.get(place) != Some(&id) => self.watch_anew(place, id, mode),
            Some(_) => false,
        }
    }

    fn watch_anew(&mut self, place: &Path, id: (u64, u64), mode: RecursiveMode) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        if self.watched.remove(place).is_some() {
            // The old folder's watch; it may be gone with it.
            let _ended = watcher.unwatch(place).is_ok();
        }
        match watcher.watch(place, mode) {
            Ok(()) => {
                self.watched.insert(place.to_owned(), id);
                true
            }
            Err(error) => {
                // What may not be entered is told by the walk; what is gone needs no hint.
                if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) {
                    self.trouble = Some(describe(&error, &FOLDERS));
                    self.refused = true;
                }
                self.closed.insert(place.to_owned());
                false
            }
        }
    }

    /// A path is not what it was: if it comes back, it is watched anew with all below it.
    pub(super) fn forget(&mut self, path: &Path) {
        let below = |known: &&PathBuf| known.starts_with(path);
        let gone: Vec<PathBuf> = self
            .watched
            .range(path.to_owned()..)
            .map(|(known, _)| known)
            .take_while(below)
            .cloned()
            .collect();
        for path in gone {
            self.watched.remove(&path);
        }
    }

    /// A walk over everything begins: folders that were refused are asked for again.
    pub(in crate::source) fn walk_begins(&mut self) {
        self.refused = false;
        self.closed.clear();
    }

    /// Whether a folder is there that is to be watched and is not, or was replaced by another.
    pub(super) fn is_stale(&self, folder: &Path) -> bool {
        let id = || std::fs::metadata(folder).ok().filter(std::fs::Metadata::is_dir);
        let id = || id().map(|meta| (meta.dev(), meta.ino()));
        self.watcher.is_some()
            && !self.refused
            && !self.closed.contains(folder)
            && id().is_some_and(|id| self.watched.get(folder) != Some(&id))
    }

    /// A walk over everything is complete.
    pub(in crate::source) fn walk_ends(&mut self) {
        if self.watcher.is_some() && !self.refused {
            self.trouble = None;
        }
    }

    /// Why there are no hints for some folders, if that is so.
    pub(in crate::source) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether events were lost, so that everything has to be looked at; asked for once.
    pub(in crate::source) fn take_lost(&self) -> bool {
        std::mem::take(&mut self.pending.held().lost)
    }

    /// Waits for hints, at most so long; answers all that are there.
    pub(in crate::source) fn wait(&mut self, longest: Duration) -> HashSet<PathBuf> {
        let longest = longest.min(NAP);
        if self.watcher.is_none() {
            std::thread::sleep(longest);
            return HashSet::new();
        }
        self.pending.wait(longest);
        if !longest.is_zero() {
            // After the first hint in a while the rest of them may wait a moment.
            std::thread::sleep(GATHER.saturating_sub(self.taken.elapsed()).min(longest));
            self.taken = Instant::now();
        }
        let (paths, died) = self.pending.take();
        if died {
            // Whatever came is lost.
            self.pending.held().lost = true;
            self.trouble = Some("the thread that reads file events died".to_owned());
            (self.watcher, self.again) = (None, Some(Instant::now()));
        }
        paths
    }
}

/// What the watcher's thread has told.
#[derive(Default)]
struct Pending {
    told: Mutex<Told>,
    more: Condvar,
}

#[derive(Default)]
struct Told {
    paths: HashSet<PathBuf>,
    /// Events were lost.
    lost: bool,
    /// Nothing more will be told.
    died: bool,
}

impl Pending {
    fn held(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, longest: Duration) {
        let nothing = |told: &mut Told| told.paths.is_empty() && !told.lost && !told.died;
        drop(self.more.wait_timeout_while(self.held(), longest, nothing));
    }

    fn take(&self) -> (HashSet<PathBuf>, bool) {
        let mut told = self.held();
        (std::mem::take(&mut told.paths), told.died)
    }
}

/// Called by the watcher's thread, and dropped with it.
struct Teller {
    to: Arc<Pending>,
    since: Instant,
    count: u32,
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.to.held().died = true;
        self.to.more.notify_one();
    }
}

impl Teller {
    fn new(to: Arc<Pending>) -> Self {
        Self { to, since: Instant::now(), count: 0 }
    }

    fn handle(&mut self, event: notify::Result<notify::Event>) {
        self.tell(event);
        self.count += 1;
        if self.since.elapsed() >= STRETCH {
            if self.count >= MANY {
                // Meanwhile the kernel gathers, and makes one of events that say the same.
                std::thread::sleep(GATHER);
            }
            (self.since, self.count) = (Instant::now(), 0);
        }
    }

    fn tell(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else {
            self.to.held().lost = true;
            return;
        };
        // Our own reading opens files too; only the end of writing tells something.
        let wanted = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        if !wanted && !event.need_rescan() {
            return;
        }
        let mut told = self.to.held();
        told.lost |= event.need_rescan();
        for path in event.paths {
            if told.paths.len() < QUEUE_MAX {
                told.paths.insert(path);
            } else {
                told.lost |= !told.paths.contains(&path);
            }
        }
        drop(told);
        self.to.more.notify_one();
    }
}

/// What is wrong, and what helps. Without the paths: they may hold a key.
fn describe(error: &notify::Error, limits: &[&str]) -> String {
    let of_user = |error: &std::io::Error| {
        error.raw_os_error().is_some_and(|code| code == Errno::MFILE.raw_os_error())
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => advice(limits),
        notify::ErrorKind::Io(error) if of_user(error) => advice(limits),
        notify::ErrorKind::Io(error) => reader::describe(error),
        _ => "a folder cannot be watched".to_owned(),
    }
}

/// The setting that is in the way, with its value: the lowest one.
fn advice(limits: &[&str]) -> String {
    let value = |name: &&str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    let lowest = limits.iter().filter_map(|name| Some((value(name)?, *name))).min();
    match lowest {
        Some((value, name)) => format!("{name} is {value}, which is too low; raise it with sysctl"),
        None => format!("raise {} with sysctl", limits.join(" or ")),
    }
}
