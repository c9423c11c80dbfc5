//! Walking: folders one after another, a moment at a time. Each is watched before it is listed, so
//! that what comes later raises a hint.

use std::collections::HashMap;
use std::fs::{DirEntry, FileType, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::RecursiveMode;

use super::{Follow, of_path, siblings};
use crate::source::Sink;
use crate::source::reader::{self, Links};

/// A walk that is under way.
#[derive(Default)]
pub(super) struct Walk {
    folders: Vec<PathBuf>,
    /// Everything is walked, since then.
    all_since: Option<Instant>,
    /// Once more after that: it was asked for meanwhile.
    again: bool,
    took: Duration,
    /// Devices that were met: whether they are the kernel's own.
    of_kernel: HashMap<u64, bool>,
}

impl Walk {
    pub(super) fn is_idle(&self) -> bool {
        self.folders.is_empty() && self.all_since.is_none()
    }

    /// How long the last walk over everything took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    fn is_of_kernel(&mut self, folder: &Path, device: u64) -> bool {
        *self.of_kernel.entry(device).or_insert_with(|| reader::is_of_kernel(folder))
    }
}

impl Follow {
    /// Everything is to be looked at: at start, when hints were lost, and regularly.
    pub(super) fn begin_walk(&mut self) {
        if self.walk.all_since.is_some() {
            self.walk.again = true;
            return;
        }
        self.walk.all_since = Some(Instant::now());
        self.walk.of_kernel.clear();
        self.hints.walk_begins();
        let root = self.options.include.root().to_owned();
        self.walk.folders.push(root);
        // A known file that is gone is looked at too, to be forgotten.
        let is_gone = |path: &Path| path.symlink_metadata().is_err();
        self.found.extend(self.files.iter().map(of_path).filter(|path| is_gone(path)));
    }

    /// A folder is to be walked, with all below it.
    pub(super) fn visit(&mut self, folder: PathBuf) {
        if self.options.include.may_be_in(&folder) {
            self.walk.folders.push(folder);
        }
    }

    /// Whether the root came, or another one in its place, and nobody has looked.
    pub(super) fn is_root_new(&self) -> bool {
        let root = self.options.include.root();
        let folder = match (root.is_dir(), root.parent()) {
            (false, Some(parent)) => parent,
            _ => root,
        };
        self.walk.is_idle() && self.hints.is_stale(folder)
    }

    /// Walks one folder. Answers whether there are more.
    pub(super) fn walk_on(&mut self, sink: &mut dyn Sink) -> bool {
        let Some(folder) = self.walk.folders.pop() else {
            if let Some(since) = self.walk.all_since.take() {
                self.walk.took = since.elapsed();
                self.hints.walk_ends();
            }
            if std::mem::take(&mut self.walk.again) {
                self.begin_walk();
            }
            return !self.walk.is_idle();
        };
        match std::fs::metadata(&folder) {
            Ok(meta) if meta.is_dir() => self.walk_into(&folder, &meta, sink),
            // A root that is a file: it may be replaced by another one of its name.
            Ok(meta) => {
                self.watch_parent(&folder);
                self.meet_siblings(&folder);
                self.meet(folder, meta.file_type(), None);
            }
            Err(_) => {
                self.watch_parent(&folder);
                self.meet_siblings(&folder);
            }
        }
        true
    }

    /// What a log was rotated to that is a root itself.
    fn meet_siblings(&mut self, log: &Path) {
        if !self.is_logs() {
            return;
        }
        for sibling in siblings::of(log).into_iter() {
            if let Ok(meta) = sibling.symlink_metadata() {
                self.meet(sibling, meta.file_type(), None);
            }
        }
    }

    fn watch_parent(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.hints.watch(parent, RecursiveMode::NonRecursive);
        }
    }

    fn walk_into(&mut self, folder: &Path, meta: &Metadata, sink: &mut dyn Sink) {
        if self.walk.is_of_kernel(folder, meta.dev()) {
            let why = "a file system of the kernel's own, where nothing is stored";
            let error = io::Error::new(io::ErrorKind::Unsupported, why);
            self.complain(folder, &error, sink);
            return;
        }
        self.hints.watch(folder, RecursiveMode::NonRecursive);
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            // It was deleted a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.complain(folder, &error, sink);
                return;
            }
        };
        self.unreadable.remove(folder);
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if !kind.is_dir() {
                self.meet(path, kind, Some(&entry));
            } else if self.options.include.may_be_in(&path) && !self.is_excluded_with_all(&path) {
                self.walk.folders.push(path);
            }
        }
    }

    /// Whether nothing below a folder can be meant: a pattern that leaves out names that nobody gives
    /// leaves out all.
    fn is_excluded_with_all(&self, folder: &Path) -> bool {
        let inner = folder.join("\u{1}\u{1}");
        let exclude = &self.options.exclude;
        exclude.is_match(folder)
            || (exclude.is_match(&inner) && exclude.is_match(inner.join("\u{1}")))
    }

    /// A file on the way: to be looked at if it is meant and not as it was.
    fn meet(&mut self, path: PathBuf, kind: FileType, entry: Option<&DirEntry>) {
        let follows = self.options.links != Links::Refuse;
        let readable = kind.is_file() || (follows && kind.is_symlink());
        if !readable || self.due.contains_key(&path) {
            return;
        }
        let known = self.files.get(&path).map(|known| known.has_changed(&path));
        // A log of an earlier run may bear another name now.
        let of_earlier = || entry.is_some_and(|entry| self.is_of_earlier(entry.ino()));
        let wanted = known.unwrap_or_else(|| self.is_member(&path) || of_earlier());
        if wanted {
            self.found.push_back(path);
        }
    }

    fn is_of_earlier(&self, ino: u64) -> bool {
        self.is_logs() && self.earlier.values().any(|known| known.stat.ino == ino)
    }
}
