//! Files and folders, once: a parallel walk, each thread with a sink of its own.

mod ignored;
mod queue;
mod walk;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use globset::GlobSet;

use crate::source::reader::{self, Links};
use crate::source::{End, Item, Kind, Sink, Stat};

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
/// because git ignores them.
pub fn run<S: Sink + Send>(options: &Options, make_sink: &(dyn Fn() -> S + Sync)) -> u64 {
    let mut folders: Vec<&Path> = Vec::new();
    let mut reader = Reader { sink: make_sink(), options };
    for path in &options.paths {
        match std::fs::metadata(path) {
            Err(error) => reader.sink.skip(path, reader::describe(&error)),
            Ok(meta) if meta.is_dir() => folders.push(path),
            Ok(_) => reader.read(path, reader::open(path, Links::Follow)),
        }
    }
    drop(reader);
    if folders.is_empty() {
        return 0;
    }
    let (exclude, no_ignore, threads) = (&options.exclude, options.no_ignore, *options.threads);
    let wanted = walk::Options { exclude, no_ignore, threads };
    walk::run(&folders, &wanted, &|| Reader { sink: make_sink(), options })
}

/// Reads the files of one thread.
struct Reader<'a, S> {
    sink: S,
    options: &'a Options,
}

impl<S: Sink> walk::Visitor for Reader<'_, S> {
    fn file(&mut self, folder: &walk::Folder, name: &OsStr) {
        let opened = reader::open_at(folder.as_fd(), Path::new(name), Links::Refuse);
        self.read(&folder.path().join(name), opened);
    }

    fn skip(&mut self, path: &Path, why: String) {
        self.sink.skip(path, why);
    }
}

/// Files that are longer, in bytes, are read by several threads at once.
const LONG: u64 = 64 << 20;

impl<S: Sink> Reader<'_, S> {
    fn read(&mut self, path: &Path, opened: io::Result<(File, Stat)>) {
        let (options, sink) = (self.options, &mut self.sink);
        let mut item = Item::whole(Kind::File, path.to_owned());
        let outcome = opened.and_then(|(mut file, stat)| {
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
}
