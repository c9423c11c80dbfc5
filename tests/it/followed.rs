//! Whatever is done to a log, every line that can be read is read: an interpreter of rotations, cuts
//! and kills against a model of what there was.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use globset::GlobSet;
use leakwarden::source::follow::{Follow, Followed, Mode, Options, PathGlob};
use leakwarden::source::reader::Links;
use leakwarden::source::{CONTEXT_MAX, End, Item, PathId, Position, Sink, Stop, marker, path_id};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Rotated logs that are left.
const KEEP: usize = 4;
/// How many sequences; a variable of the environment for a longer run.
const SEQUENCES: u32 = 500;

/// What a daemon would have committed: lines with the offset behind them, in order.
#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    text: Vec<u8>,
    item: Option<Item>,
    lost: u64,
}

#[derive(Default)]
struct Entry {
    lines: Vec<String>,
    /// The stream of each, and where it ends there.
    places: Vec<(String, u64)>,
    row: Option<(PathId, Option<Followed>)>,
}

impl Book {
    fn rows(&self) -> HashMap<PathId, Followed> {
        let mut rows = HashMap::new();
        for (id, followed) in self.entries.iter().filter_map(|entry| entry.row.clone()) {
            match followed {
                Some(followed) => rows.insert(id, followed),
                None => rows.remove(&id),
            };
        }
        rows
    }

    /// Lines that were read at more than one place.
    fn twice(&self) -> Vec<(&str, Vec<&(String, u64)>)> {
        let mut places: HashMap<&str, Vec<&(String, u64)>> = HashMap::new();
        for entry in &self.entries {
            for (line, place) in entry.lines.iter().zip(&entry.places) {
                let known = places.entry(line).or_default();
                if !known.contains(&place) {
                    known.push(place);
                }
            }
        }
        places.into_iter().filter(|(_, places)| places.len() > 1).collect()
    }

    fn lines(&self) -> BTreeSet<&str> {
        self.entries.iter().flat_map(|entry| &entry.lines).map(String::as_str).collect()
    }
}

impl Sink for Book {
    fn begin(&mut self, item: &Item) {
        self.text.clear();
        self.item = Some(item.clone());
    }

    fn space(&mut self) -> &mut [u8] {
        let length = self.text.len();
        self.text.resize(length + 300, 0);
        &mut self.text[length..]
    }

    fn filled(&mut self, count: usize) {
        let length = self.text.len() - 300 + count;
        self.text.truncate(length);
    }

    fn end(&mut self, end: End) -> ControlFlow<(), Position> {
        // What `space` made room for and nothing was read into.
        let length = self.text.len() - 300;
        self.text.truncate(length);
        let item = self.item.take().unwrap();
        let context = item.context;
        let new = &self.text[context..];
        let whole = memchr::memrchr(b'\n', new).map_or(0, |at| at + 1);
        let stream = item.stream.clone().unwrap();
        let (mut lines, mut places, mut end_of_line) = (Vec::new(), Vec::new(), item.from.offset);
        for line in new[..whole].split_inclusive(|byte| *byte == b'\n') {
            end_of_line += line.len() as u64;
            if line.len() > 1 {
                lines.push(String::from_utf8_lossy(line).trim_end().to_owned());
                places.push((stream.clone(), end_of_line));
            }
        }
        let at = context + whole;
        let position = Position {
            offset: item.from.offset + whole as u64,
            lines: item.from.lines + lines.len() as u64,
            marker: marker(&self.text[at.saturating_sub(CONTEXT_MAX)..at]),
        };
        let followed =
            Followed { stream: item.stream.unwrap(), stat: item.stat, position, head: item.head };
        let row = (end != End::Broken)
            .then(|| (item.known_as.unwrap_or_else(|| path_id(&item.path)), Some(followed)));
        self.entries.push(Entry { lines, places, row });
        ControlFlow::Continue(position)
    }

    fn skip(&mut self, path: &Path, why: String) {
        panic!("{}: {why}", path.display());
    }

    fn note(&mut self, _path: &Path, _what: &'static str) {}

    fn gone(&mut self, file: PathId) {
        self.entries.push(Entry { row: Some((file, None)), ..Entry::default() });
    }

    fn keep(&mut self, file: PathId, followed: &Followed) {
        let row = Some((file, Some(followed.clone())));
        self.entries.push(Entry { row, ..Entry::default() });
    }

    fn lost(&mut self, _path: &Path, bytes: u64) {
        self.lost += bytes;
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Pack {
    Never,
    AtOnce,
    /// At the next rotation.
    Later,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8),
    /// Part of a line; the next write ends it.
    Partial,
    /// The writer has not heard of a rotation yet.
    WriteToOld,
    Rotate(Pack),
    CopyTruncate(Pack),
    Delete,
    /// The follower looks.
    Look,
    /// Killed; so many of the last things it did were not written.
    Kill(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pack = || prop_oneof![Just(Pack::Never), Just(Pack::AtOnce), Just(Pack::Later)];
    let step = prop_oneof![
        5 => (1..60u8).prop_map(Step::Write),
        1 => Just(Step::Partial),
        1 => Just(Step::WriteToOld),
        2 => pack().prop_map(Step::Rotate),
        2 => pack().prop_map(Step::CopyTruncate),
        1 => Just(Step::Delete),
        5 => Just(Step::Look),
        1 => (0..4u8).prop_map(Step::Kill),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A file that was a log once.
struct Generation {
    /// Lines, and whether they could be read before they were gone.
    lines: Vec<String>,
    partial: String,
    /// The follower has it open.
    is_open: bool,
    /// Lines that were there when the follower looked last.
    looked: usize,
}

struct Machine {
    folder: tempfile::TempDir,
    follow: Option<Follow>,
    book: Book,
    now: Instant,
    next: u32,
    /// The log that is written to; `None`: it was deleted.
    current: Option<Generation>,
    /// Rotated ones by the number in their names, the newest first; what is written to them goes to
    /// the plain file.
    rotated: Vec<Generation>,
    later: bool,
    /// Lines that nobody could read: gone before a look.
    excused: BTreeSet<String>,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            folder: tempfile::tempdir().unwrap(),
            follow: None,
            book: Book::default(),
            now: Instant::now(),
            next: 0,
            current: None,
            rotated: Vec::new(),
            later: false,
            excused: BTreeSet::new(),
        };
        machine.start(true);
        machine.look();
        machine
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.log")
    }

    fn numbered(&self, number: usize, packed: bool) -> PathBuf {
        self.folder.path().join(format!("app.log.{number}{}", if packed { ".gz" } else { "" }))
    }

    fn start(&mut self, first: bool) {
        let options = Options {
            include: PathGlob::new(self.folder.path(), "*.log").unwrap(),
            exclude: GlobSet::empty(),
            mode: Mode::Logs { from_beginning: false },
            links: Links::Refuse,
            poll: Some(Duration::from_secs(1)),
        };
        self.follow = Some(Follow::new(options, self.book.rows(), first));
    }

    fn look(&mut self) {
        let follow = self.follow.as_mut().unwrap();
        self.now += Duration::from_secs(2);
        let stop = Stop::new();
        for round in 0.. {
            assert!(round < 10_000, "never done");
            if follow.turn(self.now, &mut self.book, &stop) > self.now {
                break;
            }
        }
        for generation in self.current.iter_mut().chain(&mut self.rotated) {
            generation.looked = generation.lines.len();
        }
        if let Some(current) = &mut self.current {
            current.is_open = true;
        }
    }

    /// The follower ends; what it did last may not be written.
    fn end(&mut self, unwritten: usize) {
        self.follow = None;
        let kept = self.book.entries.len().saturating_sub(unwritten);
        self.book.entries.truncate(kept);
        for generation in self.current.iter_mut().chain(&mut self.rotated) {
            generation.is_open = false;
            // What was looked at may have to be read again.
            if unwritten > 0 {
                generation.looked = 0;
            }
        }
        self.start(false);
    }

    fn line(&mut self) -> String {
        self.next += 1;
        format!("line-{}-{}", self.next, "x".repeat(self.next as usize * 7 % 41))
    }

    fn write(&mut self, count: u8) {
        for _ in 0..count {
            let line = self.line();
            let path = self.path();
            let current = self.current.get_or_insert_with(Generation::new);
            let line = std::mem::take(&mut current.partial) + &line;
            let begun = line.rfind("line-").unwrap_or(0);
            let written = if begun > 0 { &line[begun..] } else { &line };
            append(&path, &format!("{written}\n"));
            current.lines.push(line);
        }
    }

    fn partial(&mut self) {
        let line = self.line();
        let path = self.path();
        let current = self.current.get_or_insert_with(Generation::new);
        append(&path, &line);
        current.partial.push_str(&line);
    }

    /// What goes with a file that is deleted.
    fn excuse(&mut self, gone: &Generation) {
        if !gone.is_open {
            self.excused.extend(gone.lines[gone.looked..].iter().cloned());
        }
    }

    fn shift(&mut self, pack: Pack) {
        // The oldest goes.
        if self.rotated.len() == KEEP
            && let Some(gone) = self.rotated.pop()
        {
            self.excuse(&gone);
            for packed in [false, true] {
                let _there = fs::remove_file(self.numbered(KEEP, packed)).is_ok();
            }
        }
        for number in (1..=self.rotated.len()).rev() {
            for packed in [false, true] {
                let from = self.numbered(number, packed);
                if from.exists() {
                    fs::rename(from, self.numbered(number + 1, packed)).unwrap();
                }
            }
        }
        if std::mem::replace(&mut self.later, matches!(pack, Pack::Later))
            && self.numbered(2, false).exists()
        {
            self.pack(2);
        }
    }

    fn pack(&mut self, number: usize) {
        gzip(&self.numbered(number, false));
    }

    fn rotate(&mut self, pack: Pack) {
        let Some(current) = self.current.take() else { return };
        self.shift(pack);
        fs::rename(self.path(), self.numbered(1, false)).unwrap();
        self.rotated.insert(0, current);
        if matches!(pack, Pack::AtOnce) {
            self.pack(1);
        }
    }

    fn copy_truncate(&mut self, pack: Pack) {
        let Some(current) = &mut self.current else { return };
        let copied = Generation {
            lines: std::mem::take(&mut current.lines),
            partial: std::mem::take(&mut current.partial),
            is_open: false,
            looked: std::mem::take(&mut current.looked),
        };
        self.shift(pack);
        fs::copy(self.path(), self.numbered(1, false)).unwrap();
        OpenOptions::new().write(true).open(self.path()).unwrap().set_len(0).unwrap();
        self.rotated.insert(0, copied);
        if matches!(pack, Pack::AtOnce) {
            self.pack(1);
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(count) => self.write(count),
            Step::Partial => self.partial(),
            Step::WriteToOld => {
                let path = self.numbered(1, false);
                if path.exists() {
                    let line = self.line();
                    append(&path, &format!("\n{line}\n"));
                    self.rotated[0].lines.push(line);
                }
            }
            Step::Rotate(pack) => self.rotate(pack),
            Step::CopyTruncate(pack) => self.copy_truncate(pack),
            Step::Delete => {
                if let Some(gone) = self.current.take() {
                    self.excuse(&gone);
                    fs::remove_file(self.path()).unwrap();
                }
            }
            Step::Look => self.look(),
            Step::Kill(unwritten) => self.end(unwritten.into()),
            Step::Restart => self.end(0),
        }
    }

    fn check(&mut self) {
        for _ in 0..3 {
            self.look();
        }
        let twice = self.book.twice();
        assert!(twice.is_empty(), "read at two places: {twice:?}");
        let seen = self.book.lines();
        let written = self.current.iter().chain(&self.rotated).flat_map(|log| &log.lines);
        for line in written {
            assert!(
                self.excused.contains(line)
                    || seen.iter().any(|seen| seen.ends_with(line.as_str())),
                "missed {line:?}; the folder holds {:?}",
                fs::read_dir(self.folder.path())
                    .unwrap()
                    .map(|e| e.unwrap().file_name())
                    .collect::<Vec<_>>()
            );
        }
    }
}

impl Generation {
    fn new() -> Self {
        Self { lines: Vec::new(), partial: String::new(), is_open: false, looked: 0 }
    }
}

/// What gzip does: the compressed file has the time of the plain one, which goes.
pub fn gzip(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let file = File::create(path.with_added_extension("gz")).unwrap();
    let mut packed = GzEncoder::new(file, Compression::fast());
    packed.write_all(&bytes).unwrap();
    packed.finish().unwrap().set_modified(path.metadata().unwrap().modified().unwrap()).unwrap();
    fs::remove_file(path).unwrap();
}

pub fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn no_line_is_missed_whatever_is_done_to_a_log() {
    let sequences = std::env::var("LEAKWARDEN_TEST_SEQUENCES").ok();
    let cases = sequences.map_or(SEQUENCES, |count| count.parse().unwrap());
    let config =
        Config { cases, failure_persistence: None, max_shrink_time: 20_000, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            let mut machine = Machine::new();
            for step in steps {
                machine.run(step);
            }
            machine.check();
            Ok(())
        })
        .unwrap();
}
