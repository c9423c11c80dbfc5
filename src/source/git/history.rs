//! Every object of a repository, once: not only what `git log -p` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use gix_hash::ObjectId;

use super::Call;
use super::decode::{Buffer, Decoder};
use super::finder::{self, Finder};
use super::objects::{Reader, Shared, object_path};
use super::repository::Repository;
use super::store::Store;
use super::stream::{self, Asked};
use super::walk::{self, Ids, TABLE_BYTES, Visit, Wanted};
use crate::source::reader::{self as files, Links};
use crate::source::{End, Item, Kind, Position, Sink, SourceError};

pub use super::objects::Tally;
pub use super::places::{Origin, Place, Places};
pub use super::walk::Limits;

/// Bytes that any repository may unpack to.
const UNPACKED_MIN: u64 = 64 << 30;
/// How much more than its packs a repository may unpack to.
const UNPACKED_RATIO: u64 = 5_000;
/// A selection of less than one of so many objects is looked up one by one.
const FEW: u64 = 8;
/// Longest line of a reflog, in bytes.
const LOG_LINE_MAX: u64 = 64 * 1024;
/// Folders of reflogs in folders that are gone into.
const LOG_DEPTH: usize = 64;

/// Which part of a history is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every object, reachable or not, and the names and logs of references.
    Everything,
    /// What the second commit has and the first does not.
    Commits {
        /// Left out with all that it has.
        without: Option<String>,
        /// A branch, a tag, or the name of a commit.
        of: String,
    },
    /// What some objects lead to and others do not.
    New {
        /// What references lead to.
        of: Vec<ObjectId>,
        /// Left out with all that it has, as far as it is still there.
        without: Vec<ObjectId>,
        /// What stands for the repository in what is remembered.
        stream: String,
    },
}

/// A repository that is to be read.
pub struct History {
    repository: Repository,
    store: Store,
    limits: Limits,
    /// Whether history that was left out of a clone on purpose may be missing.
    lenient: bool,
}

/// What reading was like, beside what the sinks were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was read.
    pub tally: Tally,
    /// Whether the selection was empty: nothing was to be read.
    pub nothing_new: bool,
    /// Bytes that its objects unpacked to.
    pub unpacked: u64,
}

impl History {
    /// Opens the repository around a folder.
    pub fn open(folder: &Path, limits: Limits, lenient: bool) -> Result<Self, SourceError> {
        let repository = Repository::open(folder)?;
        let room = limits.memory / 2;
        let store = Store::open(&repository.objects(), repository.hash(), room);
        Ok(Self { repository, store, limits, lenient })
    }

    /// What the repository is known by, from wherever in it, or in one of its work trees, it is read: its
    /// folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let common = self.repository.common();
        let common = std::fs::canonicalize(common).unwrap_or_else(|_| common.to_owned());
        match (common.file_name(), common.parent()) {
            (Some(name), Some(folder)) if name == ".git" => folder.to_owned(),
            _ => common,
        }
    }

    /// Reads with as many threads as there are sinks.
    pub fn read<S: Sink + Send>(
        &self,
        selection: &Selection,
        mut sinks: Vec<S>,
    ) -> Result<Outcome, SourceError> {
        let Some(sink) = sinks.first_mut() else { return Ok(Outcome::default()) };
        let ids = self.selected(selection, sink)?;
        if ids.as_ref().is_some_and(Ids::is_empty) {
            return Ok(Outcome { nothing_new: true, ..Outcome::default() });
        }
        self.tell_gaps(sink);
        let shared = self.shared(selection)?;
        let allowed = shared.budget.load(Ordering::Relaxed);
        let mut readers: Vec<Reader<'_, S>> =
            sinks.into_iter().map(|sink| Reader::new(&shared, sink)).collect();
        let folder = self.repository.folder();
        match (self.objects(&ids, &mut readers), readers.first_mut()) {
            // What was found before is told, unless it is read again from the same place on.
            (Err(error), Some(reader)) if !matches!(selection, Selection::New { .. }) => {
                reader.skip(folder, format!("not all of its objects were read: {error}"));
            }
            (outcome, _) => outcome?,
        }
        if let Some(reader) = readers.first_mut().filter(|_| ids.is_none()) {
            if let Err(error) = self.names(reader) {
                reader.skip(folder, format!("its references were not read: {error}"));
            }
            for folder in self.repository.logs() {
                logs(&folder, LOG_DEPTH, reader);
            }
        }
        let tally = readers.iter().fold(Tally::default(), |sum, reader| sum.with(reader.tally));
        self.tell_missing(&mut readers);
        if let Some(reader) = readers.first_mut() {
            if shared.budget.load(Ordering::Relaxed) <= 0 {
                let why = match self.limits.unpacked {
                    Some(bytes) => format!("its objects unpack to more than {} MB", bytes >> 20),
                    None => "its objects unpack to more than any history does".to_owned(),
                };
                let why = format!("{why}; the rest was not read (--max-unpacked)");
                reader.skip(self.repository.folder(), why);
            }
            if tally.objects == 0 && ids.is_none() && self.store.is_empty() {
                let why = "an empty repository: there is nothing to read";
                reader.skip(self.repository.folder(), why.to_owned());
            }
        }
        let unpacked = (allowed - shared.budget.load(Ordering::Relaxed)).unsigned_abs();
        Ok(Outcome { tally, nothing_new: false, unpacked })
    }

    /// Where objects are known from. `wanted`: their names in hex.
    #[must_use]
    pub fn places(&self, wanted: &BTreeMap<String, Kind>) -> Places {
        let id = |name: &String| ObjectId::from_hex(name.as_bytes()).ok();
        let in_trees = |kind: Kind| matches!(kind, Kind::Blob | Kind::PathName);
        let below: Ids =
            wanted.iter().filter(|(_, kind)| in_trees(**kind)).filter_map(|(n, _)| id(n)).collect();
        let mut places = match below.is_empty() {
            true => Places::new(),
            false => super::places::of(&self.store, &below, self.repository.head(), &self.limits),
        };
        let mut finder = Finder::new(&self.store);
        for (name, _) in wanted.iter().filter(|(_, kind)| !in_trees(**kind)) {
            let own =
                id(name).and_then(|id| super::places::origin_of(&mut finder, self.store.hash, &id));
            let place = Place { path: Vec::new(), origin: own, in_head: None, order: 0 };
            places.insert(name.clone(), vec![place]);
        }
        places
    }

    /// The objects of a selection; `None`: all that there are.
    fn selected(
        &self,
        selection: &Selection,
        sink: &mut dyn Sink,
    ) -> Result<Option<Ids>, SourceError> {
        let (of, without) = match selection {
            Selection::Everything => return Ok(None),
            Selection::Commits { without, of } => {
                let without = without.as_ref().map(|name| self.repository.commit(name));
                (vec![self.repository.tag_or_commit(of)?], Vec::from_iter(without.transpose()?))
            }
            Selection::New { of, without, .. } => {
                let there = |id: &ObjectId| self.store.contains(id);
                (of.clone(), without.iter().copied().filter(there).collect())
            }
        };
        let of = of.iter().map(|id| format!("{id}\n"));
        let asked: String = of.chain(without.iter().map(|id| format!("^{id}\n"))).collect();
        let mut command = self.repository.command();
        command.args(["rev-list", "--objects", "--no-object-names", "--missing=print", "--stdin"]);
        let call = Call { name: "git rev-list", input: Some(asked.as_bytes()), until: None };
        let mut ids = Ids::default();
        let mut lost = Vec::new();
        self.repository.lines(command, call, &mut |line| match line.strip_prefix(b"?") {
            Some(name) => lost.extend(ObjectId::from_hex(name)),
            None => ids.extend(ObjectId::from_hex(line)),
        })?;
        if !self.lenient {
            for id in lost {
                sink.skip(&object_path(&id), "a missing object".to_owned());
            }
        }
        Ok(Some(ids))
    }

    fn shared(&self, selection: &Selection) -> Result<Shared<'_>, SourceError> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|error| SourceError::Git(error.to_string()))?;
        let likely = UNPACKED_MIN.max(self.store.pack_bytes().saturating_mul(UNPACKED_RATIO));
        let budget = self.limits.unpacked.unwrap_or(likely);
        Ok(Shared {
            store: &self.store,
            budget: AtomicI64::new(i64::try_from(budget).unwrap_or(i64::MAX)),
            lenient: self.store.partial || self.store.too_many,
            boundary: self.repository.boundary(),
            salt: u64::from_le_bytes(salt),
            stream: match selection {
                Selection::New { stream, .. } => Some(stream.clone()),
                _ => None,
            },
            submodules: Mutex::default(),
        })
    }

    /// What this clone lacks.
    fn tell_gaps(&self, sink: &mut dyn Sink) {
        let folder = self.repository.folder();
        for (path, why) in &self.store.skipped {
            sink.skip(path, why.clone());
        }
        let advice = "; --allow-shallow takes what there is";
        if self.repository.is_shallow() && !self.lenient {
            let why = format!("a shallow clone: it lacks older history{advice}");
            sink.skip(folder, why);
        }
        if self.store.partial && !self.lenient {
            let why = format!("a partial clone: objects were left with its remote{advice}");
            sink.skip(folder, why);
        }
    }

    /// Bytes that the tables of the largest pack take, beside all indexes.
    fn table_bytes(&self) -> u64 {
        let counts = self.store.packs.iter().map(|pack| u64::from(pack.index.num_objects()));
        self.store.index_bytes() + counts.max().unwrap_or_default() * TABLE_BYTES
    }

    fn objects<S: Sink + Send>(
        &self,
        ids: &Option<Ids>,
        readers: &mut [Reader<'_, S>],
    ) -> Result<(), SourceError> {
        let memory = self.limits.memory;
        let tables = self.table_bytes();
        let fits = !self.store.too_many && tables <= memory / 2;
        let limits = Limits { memory: memory.saturating_sub(tables), ..self.limits };
        let few = |ids: &Ids| (ids.len() as u64) < self.store.count() / FEW;
        let asked = match ids {
            Some(ids) if few(ids) && !self.store.too_many => {
                self.one_by_one(ids, readers);
                None
            }
            // No room is left to put objects together in.
            Some(ids) if !fits => Some(ids.iter().copied().collect()),
            None if !fits => return self.by_git(Asked::All, readers),
            _ => {
                let wanted = ids.as_ref().map_or(Wanted::All, Wanted::These);
                for number in 0..self.store.packs.len() {
                    walk::pack(&self.store, number, &limits.options(wanted), readers);
                }
                self.loose(wanted, &limits, readers);
                None
            }
        };
        let mut rest: BTreeSet<ObjectId> = asked.unwrap_or_default();
        rest.extend(readers.iter_mut().flat_map(|reader| reader.left.drain(..)).map(|left| left.0));
        if rest.is_empty() {
            return Ok(());
        }
        self.by_git(Asked::These(rest.into_iter().collect()), readers)
    }

    fn by_git<S: Sink>(
        &self,
        asked: Asked,
        readers: &mut [Reader<'_, S>],
    ) -> Result<(), SourceError> {
        let memory = self.limits.memory.saturating_sub(self.store.index_bytes());
        let Some(reader) = readers.first_mut() else { return Ok(()) };
        stream::read(&self.repository, asked, memory, reader)?;
        // What even git has, but not as what it says it is.
        for (id, _) in std::mem::take(&mut reader.left) {
            reader.skip(&object_path(&id), "a broken object".to_owned());
        }
        Ok(())
    }

    fn one_by_one<S: Sink + Send>(&self, ids: &Ids, readers: &mut [Reader<'_, S>]) {
        let mut ids: Vec<ObjectId> = ids.iter().copied().collect();
        // Neighbours rest on the same bases.
        ids.sort_by_cached_key(|id| self.store.place(id));
        let part = ids.len().div_ceil(readers.len().max(1)).max(1);
        let store = &self.store;
        std::thread::scope(|scope| {
            for (ids, reader) in ids.chunks(part).zip(readers) {
                scope.spawn(move || {
                    let mut finder = Finder::new(store);
                    for id in ids {
                        match finder.find(id) {
                            Ok((kind, bytes)) => {
                                if !reader.plain(id, kind, &bytes) {
                                    return;
                                }
                            }
                            Err(why) => reader.left(*id, why),
                        }
                    }
                });
            }
        });
    }

    fn loose<S: Sink + Send>(
        &self,
        wanted: Wanted<'_>,
        limits: &Limits,
        readers: &mut [Reader<'_, S>],
    ) {
        let taken = AtomicUsize::new(0);
        let (store, taken) = (&self.store, &taken);
        std::thread::scope(|scope| {
            for reader in readers {
                scope.spawn(move || {
                    let mut decoder = Decoder::new(store.hash, limits.object_max());
                    let mut bytes = Buffer::default();
                    while let Some((id, folder)) =
                        store.loose.get(taken.fetch_add(1, Ordering::Relaxed))
                    {
                        if !wanted.has(id) || store.is_packed_before(id, store.packs.len()) {
                            continue;
                        }
                        let path = store.loose_path(id, *folder);
                        match finder::loose(&mut decoder, &path, &mut bytes) {
                            Ok(kind) => {
                                if !reader.plain(id, kind, &bytes) {
                                    return;
                                }
                            }
                            Err(why) => reader.left(*id, why),
                        }
                    }
                });
            }
        });
    }

    /// Branches, tags and all other references, and what they point to.
    pub(super) fn references(&self) -> Result<Vec<(PathBuf, ObjectId)>, SourceError> {
        let mut command = self.repository.command();
        command.args(["for-each-ref", "--format=%(objectname) %(refname)"]);
        let mut references = Vec::new();
        let call = Call { name: "git for-each-ref", input: None, until: None };
        self.repository.lines(command, call, &mut |line| {
            let Some(at) = memchr::memchr(b' ', line) else { return };
            let (id, name) = line.split_at(at);
            let name = super::path_of(name.get(1..).unwrap_or_default());
            references.extend(ObjectId::from_hex(id).map(|id| (name, id)));
        })?;
        Ok(references)
    }

    /// Names of references, and whether what they point to is there.
    fn names<S: Sink>(&self, reader: &mut Reader<'_, S>) -> Result<(), SourceError> {
        for (name, id) in self.references()? {
            reader.name(Kind::Ref, name.as_os_str().as_encoded_bytes());
            if !self.store.too_many && !self.store.contains(&id) {
                reader.skip(&name, "points to an object that is missing".to_owned());
            }
        }
        Ok(())
    }

    /// The `.git` that all work trees share.
    pub(super) fn common(&self) -> &Path {
        self.repository.common()
    }

    fn tell_missing<S: Sink>(&self, readers: &mut [Reader<'_, S>]) {
        let mut missing = BTreeMap::new();
        let mut more = 0;
        for reader in readers.iter_mut() {
            more += reader.more_missing;
            missing.extend(reader.missing.drain(..).map(|missing| (missing.id, missing.from)));
        }
        let Some(reader) = readers.first_mut() else { return };
        for (id, from) in missing {
            let why = format!("a missing object, which {} points to", from.to_hex());
            reader.skip(&object_path(&id), why);
        }
        if more > 0 {
            let why = format!("{} more are missing", crate::text::grouped(more));
            reader.skip(Path::new("<objects>"), why);
        }
    }
}

/// Reflogs: of each line who and why; the names of commits before that are blanked.
fn logs<S: Sink>(folder: &Path, depth: usize, reader: &mut Reader<'_, S>) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return reader.skip(folder, files::describe(&error)),
    };
    let mut entries: Vec<(PathBuf, bool)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
        .filter(|(_, kind)| kind.is_dir() || kind.is_file())
        .map(|(path, kind)| (path, kind.is_dir()))
        .collect();
    entries.sort();
    for (path, is_folder) in entries {
        match (is_folder, depth) {
            (true, 0) => reader.skip(&path, "too many folders in folders".to_owned()),
            (true, _) => logs(&path, depth - 1, reader),
            (false, _) => {
                if let Err(error) = log(&path, reader.sink()) {
                    reader.skip(&path, files::describe(&error));
                }
            }
        }
    }
}

fn log(path: &Path, sink: &mut dyn Sink) -> std::io::Result<()> {
    let (file, stat) = files::open(path, Links::Refuse)?;
    let mut file = BufReader::new(std::io::Read::take(file, stat.size));
    sink.begin(&Item { from: Position::default(), ..Item::whole(Kind::Reflog, path.to_owned()) });
    let mut line = Vec::new();
    let outcome = loop {
        line.clear();
        let part = std::io::Read::take(&mut file, LOG_LINE_MAX).read_until(b'\n', &mut line);
        match part {
            Ok(0) => break Ok(()),
            Ok(_) => {
                let ids = line.iter().take_while(|byte| byte.is_ascii_hexdigit() || **byte == b' ');
                let ids = ids.count();
                if ids > 2 * gix_hash::Kind::Sha1.len_in_hex() {
                    line.iter_mut().take(ids).for_each(|byte| *byte = b' ');
                }
                files::push(sink, &line);
            }
            Err(error) => break Err(error),
        }
    };
    let (ControlFlow::Continue(_) | ControlFlow::Break(())) = sink.end(End::Done);
    outcome
}

/// Which part of a commit or a tag a place of its text is in, and where there: line and column,
/// counted from 1. The text begins behind the names of other objects.
#[must_use]
pub fn part_of(kind: Kind, text: &[u8], at: usize) -> (&'static str, u64, u64) {
    let tag = kind == Kind::Tag;
    let body = memchr::memmem::find(text, b"\n\n").map(|at| at + 2);
    let (name, part) = match body {
        Some(body) if at >= body => {
            (if tag { "<tag message>" } else { "<commit message>" }, text.get(body..at))
        }
        _ => {
            let before = text.get(..at).unwrap_or_default();
            let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
            let line = text.get(start..).unwrap_or_default();
            let names = [
                (&b"author "[..], "<author>"),
                (b"committer ", "<committer>"),
                (b"tagger ", "<tagger>"),
                (b"tag ", "<tag name>"),
            ];
            let name = names.iter().find(|(word, _)| line.starts_with(word));
            let other = if tag { "<tag header>" } else { "<commit header>" };
            (name.map_or(other, |name| name.1), text.get(start..at))
        }
    };
    let part = part.unwrap_or_default();
    let line = memchr::memchr_iter(b'\n', part).count() as u64 + 1;
    let column = part.len() - memchr::memrchr(b'\n', part).map_or(0, |at| at + 1) + 1;
    (name, line, column as u64)
}
