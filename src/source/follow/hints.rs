//! File events as hints: which paths may have changed. Bounded; when in doubt, "look at everything".

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use rustix::io::Errno;

use super::PathGlob;
use crate::source::reader;

/// No folder has this device and inode.
const NO_FOLDER: (u64, u64) = (0, 0);

/// Hints that wait; more lead to a walk over everything.
const QUEUE_MAX: usize = 4_096;

pub(in crate::source) struct Hints {
    watcher: Option<RecommendedWatcher>,
    /// With device and inode: a folder that was replaced by another is watched anew.
    watched: HashMap<PathBuf, (u64, u64)>,
    paths: Receiver<PathBuf>,
    rescan: Arc<AtomicBool>,
    /// Events were lost.
    lost: Arc<AtomicBool>,
    /// Why there are no hints for some folders.
    trouble: Option<String>,
}

impl Hints {
    pub(in crate::source) fn new() -> Self {
        let (to, paths) = sync_channel(QUEUE_MAX);
        let rescan = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(AtomicBool::new(false));
        let flag = lost.clone();
        let watcher = notify::recommended_watcher(move |event| handle(event, &to, &flag));
        let trouble = watcher.as_ref().err().map(describe);
        let watcher = watcher.ok();
        Self { watcher, watched: HashMap::new(), paths, rescan, lost, trouble }
    }

    /// Watches every root that exists; one that vanished is watched anew when it is back.
    pub(super) fn watch(&mut self, globs: &[PathGlob]) {
        for root in globs.iter().map(PathGlob::root) {
            // A file is watched by its folder: it may be replaced by another one of its name.
            let (place, mode) = match (root.is_dir(), root.parent()) {
                (false, Some(folder)) => (folder, RecursiveMode::NonRecursive),
                _ => (root, RecursiveMode::Recursive),
            };
            self.watch_place(place, mode);
        }
    }

    /// Watches a folder, if there is one; again when it was replaced by another.
    pub(in crate::source) fn watch_place(&mut self, place: &Path, mode: RecursiveMode) {
        let now = std::fs::metadata(place).ok().map(|meta| (meta.dev(), meta.ino()));
        match now {
            None => {
                self.watched.remove(place);
            }
            Some(id) if self.watched.get(place) != Some(&id) => self.watch_anew(place, id, mode),
            Some(_) => {}
        }
    }

    fn watch_anew(&mut self, place: &Path, id: (u64, u64), mode: RecursiveMode) {
        let Some(watcher) = &mut self.watcher else { return };
        if self.watched.remove(place).is_some() {
            // The old folder's watch; it may be gone with it.
            let _ended = watcher.unwatch(place).is_ok();
        }
        match watcher.watch(place, mode) {
            Ok(()) => {
                self.watched.insert(place.to_owned(), id);
                self.rescan.store(true, Ordering::Release);
            }
            Err(error) => self.trouble = Some(describe(&error)),
        }
    }

    /// Why there are no hints for some folders, if that is so.
    pub(in crate::source) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether events were lost, so that everything has to be looked at; asked for once.
    pub(in crate::source) fn take_lost(&mut self) -> bool {
        let lost = self.lost.swap(false, Ordering::AcqRel);
        if lost {
            // Folders that came meanwhile are not watched: all are to be watched anew.
            self.watched.values_mut().for_each(|id| *id = NO_FOLDER);
        }
        lost
    }

    /// Whether a folder is watched since it was asked for last: what came before is found by a walk.
    pub(in crate::source) fn take_rescan(&self) -> bool {
        self.rescan.swap(false, Ordering::AcqRel)
    }

    /// Waits for hints, at most so long; answers all that are there.
    pub(in crate::source) fn wait(&self, longest: Duration) -> HashSet<PathBuf> {
        let mut paths = HashSet::new();
        if self.watcher.is_none() {
            std::thread::sleep(longest.min(Duration::from_millis(250)));
            return paths;
        }
        if let Ok(first) = self.paths.recv_timeout(longest.min(Duration::from_millis(250))) {
            paths.insert(first);
            paths.extend(self.paths.try_iter().take(QUEUE_MAX));
        }
        paths
    }
}

fn handle(event: notify::Result<notify::Event>, to: &SyncSender<PathBuf>, lost: &AtomicBool) {
    let Ok(event) = event else {
        lost.store(true, Ordering::Release);
        return;
    };
    if event.need_rescan() {
        lost.store(true, Ordering::Release);
    }
    // Our own reading opens files too; only the end of writing tells something.
    let wanted = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    if wanted {
        for path in event.paths {
            if to.try_send(path).is_err() {
                lost.store(true, Ordering::Release);
            }
        }
    }
}

/// A limit of the kernel, and the setting that has it, which is the smaller of two, with its value.
fn too_few(what: &str, settings: [&str; 2]) -> String {
    let value = |setting: &str| -> Option<u64> {
        let file = Path::new("/proc/sys").join(setting.replace('.', "/"));
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    let known = settings.into_iter().filter_map(|setting| Some((value(setting)?, setting)));
    match known.min() {
        Some((value, setting)) => format!("{what}: {setting} is {value}; raise it"),
        None => format!("{what}; raise {}", settings.join(" and ")),
    }
}

/// What is wrong, and what helps. Without the paths: they may hold a key.
fn describe(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => too_few(
            "the limit of file watches is reached",
            ["fs.inotify.max_user_watches", "user.max_inotify_watches"],
        ),
        notify::ErrorKind::Io(error)
            if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) =>
        {
            too_few(
                "the limit of inotify instances is reached",
                ["fs.inotify.max_user_instances", "user.max_inotify_instances"],
            )
        }
        notify::ErrorKind::Io(error) => reader::describe(error),
        _ => "a folder cannot be watched".to_owned(),
    }
}
