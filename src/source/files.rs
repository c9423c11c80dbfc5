//! Files and folders, once: a parallel walk, each thread with a sink of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use globset::GlobSet;
use ignore::{DirEntry, WalkBuilder, WalkState};
use rustix::fs::{Mode, OFlags, RawDir};

use crate::source::reader::{self, Links};
use crate::source::{End, Item, Kind, Sink};

/// What to walk.
#[derive(Debug)]
pub struct Options {
    /// Files and folders, as the user named them.
    pub paths: Vec<PathBuf>,
    /// What is left out.
    pub exclude: GlobSet,
    /// Read also what `.gitignore` names.
    pub no_ignore: bool,
    /// How many files are read at once; asked for where it matters.
    pub threads: LazyLock<usize, Box<dyn FnOnce() -> usize + Send>>,
    /// Held by who reads a long file by several threads.
    pub long: Mutex<()>,
}

/// Walks and reads; `make_sink` is called once a thread. Answers how many entries were left out
/// because `.gitignore` names them.
pub fn run<S: Sink + Send>(options: &Options, make_sink: &(dyn Fn() -> S + Sync)) -> u64 {
    let ignored = AtomicU64::new(0);
    let mut folders: Vec<&PathBuf> = Vec::new();
    let mut sink = make_sink();
    for path in &options.paths {
        match std::fs::metadata(path) {
            Err(error) => sink.skip(path, reader::describe(&error)),
            Ok(meta) if meta.is_dir() => folders.push(path),
            Ok(_) => read(path, Links::Follow, options, &mut sink),
        }
    }
    drop(sink);
    let mut rest = folders.into_iter();
    if let Some(first) = rest.next() {
        let mut builder = WalkBuilder::new(first);
        rest.for_each(|path| {
            builder.add(path);
        });
        walk(options, &mut builder, make_sink, &ignored);
    }
    // Files that come or go during the walk can make the two halves differ a little.
    u64::try_from(ignored.into_inner().cast_signed()).unwrap_or_default()
}

fn walk<S: Sink + Send>(
    options: &Options,
    builder: &mut WalkBuilder,
    make_sink: &(dyn Fn() -> S + Sync),
    ignored: &AtomicU64,
) {
    let exclude = options.exclude.clone();
    builder
        .standard_filters(false)
        .git_ignore(!options.no_ignore)
        .git_exclude(!options.no_ignore)
        .git_global(!options.no_ignore)
        .parents(!options.no_ignore)
        .threads(*options.threads)
        .filter_entry(move |entry| entry.depth() == 0 || !left_out(entry.path(), &exclude));
    builder.build_parallel().run(|| {
        let mut sink = make_sink();
        let room = Vec::with_capacity(ROOM_BYTES);
        let mut tally = Tally { ignored, parent: PathBuf::new(), seen: 0, room };
        Box::new(move |entry| {
            match entry {
                Err(error) => {
                    let (path, why) = explain(&error);
                    sink.skip(&path, why);
                }
                Ok(entry) => visit(&entry, options, &mut sink, &mut tally),
            }
            WalkState::Continue
        })
    });
}

/// `.git` itself and what the user excludes.
fn left_out(path: &Path, exclude: &GlobSet) -> bool {
    path.file_name().is_some_and(|name| name == ".git" || exclude.is_match(name))
        || exclude.is_match(path)
}

fn visit(entry: &DirEntry, options: &Options, sink: &mut dyn Sink, tally: &mut Tally<'_>) {
    if let Some(error) = entry.error() {
        let (path, why) = explain(error);
        sink.skip(&path, why);
    }
    if entry.depth() > 0 && !options.no_ignore {
        tally.saw(entry.path());
    }
    let Some(kind) = entry.file_type() else { return };
    if kind.is_dir() {
        if !options.no_ignore {
            tally.entered(entry.path(), &options.exclude);
        }
    } else if kind.is_file() {
        read(entry.path(), Links::Refuse, options, sink);
    }
}

/// Files that are longer, in bytes, are read by several threads at once.
const LONG: u64 = 64 << 20;

fn read(path: &Path, links: Links, options: &Options, sink: &mut dyn Sink) {
    let mut item = Item::whole(Kind::File, path.to_owned());
    let outcome = reader::open(path, links).and_then(|(mut file, stat)| {
        item.stat = stat;
        // One at a time: else as many threads would run as there are cores, squared.
        let turn =
            options.long.try_lock().ok().filter(|_| stat.size > LONG && *options.threads > 1);
        if turn.is_some() {
            let read = |offset: u64, space: &mut [u8]| file.read_at(space, offset);
            if let Some(outcome) = sink.pieces(&item, stat.size, *options.threads, &read) {
                return outcome;
            }
        }
        sink.begin(&item);
        let outcome = reader::pump_file(&mut file, stat.size, sink);
        let _position = sink.end(End::Done);
        outcome
    });
    if let Err(error) = outcome {
        sink.skip(path, reader::describe(&error));
    }
}

fn explain(error: &ignore::Error) -> (PathBuf, String) {
    match error {
        ignore::Error::WithPath { path, err } => {
            let why = err.io_error().map_or_else(|| err.to_string(), reader::describe);
            (path.clone(), why)
        }
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            explain(err)
        }
        other => (PathBuf::new(), other.io_error().map_or_else(|| other.to_string(), io_text)),
    }
}

fn io_text(error: &io::Error) -> String {
    reader::describe(error)
}

/// For the entries of a folder: enough for most at one go.
const ROOM_BYTES: usize = 32 * 1024;

/// Counts what the walker leaves out: entries that a folder has, less those that were seen. The
/// two halves come from different threads, so the sum goes through a wrapping counter.
struct Tally<'a> {
    ignored: &'a AtomicU64,
    parent: PathBuf,
    seen: u64,
    /// Where the kernel writes what a folder holds.
    room: Vec<u8>,
}

impl Tally<'_> {
    fn saw(&mut self, path: &Path) {
        if path.parent() != Some(self.parent.as_path()) {
            self.settle();
            self.parent = path.parent().map(Path::to_owned).unwrap_or_default();
        }
        self.seen += 1;
    }

    fn entered(&mut self, folder: &Path, exclude: &GlobSet) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(folder_fd) = rustix::fs::open(folder, flags, Mode::empty()) else { return };
        let mut entries = RawDir::new(folder_fd, self.room.spare_capacity_mut());
        let mut there = 0;
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_bytes();
            let kept = match name {
                b"." | b".." => false,
                // No path is put together where only the name counts.
                name if exclude.is_empty() => name != b".git",
                name => !left_out(&folder.join(OsStr::from_bytes(name)), exclude),
            };
            there += u64::from(kept);
        }
        self.ignored.fetch_add(there, Ordering::Relaxed);
    }

    fn settle(&mut self) {
        self.ignored.fetch_sub(self.seen, Ordering::Relaxed);
        self.seen = 0;
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}
