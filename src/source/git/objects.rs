//! What is read of an object: blobs and messages as text, trees for their names, and of all of them
//! whether what they point to is there.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use gix_hash::{ObjectId, oid};
use gix_object::{Kind, TreeRefIter};

use super::decode::Fault;
use super::path_of;
use super::store::Store;
use super::stream::Take;
use super::walk::{Object, Visit};
use crate::source::{End, Item, Mark, Position, Sink, Stop, reader};

/// Entries of trees that a thread remembers having looked at; most are met again and again.
const REMEMBERED: usize = 1 << 15;
/// A name that is shorter holds no key.
const NAME_MIN: usize = 16;
/// Missing objects that are told by name.
const MISSING_MAX: usize = 1_000;
/// Longest tree, commit or tag that is taken from a stream, in bytes.
const HELD_MAX: u64 = 64 << 20;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects of all kinds.
    pub objects: u64,
    /// Commits among them.
    pub commits: u64,
    /// Names in trees under which there are commits of other repositories.
    pub submodules: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            objects: self.objects + other.objects,
            commits: self.commits + other.commits,
            submodules: self.submodules.max(other.submodules),
        }
    }
}

/// Something that is pointed to and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) id: ObjectId,
    pub(super) from: ObjectId,
}

/// What all threads share.
pub(super) struct Shared<'a> {
    pub(super) store: &'a Store,
    /// Bytes that may still be unpacked: what makes more of them than any history does is a trap.
    pub(super) budget: AtomicI64,
    /// Whether what is missing is missing on purpose.
    pub(super) lenient: bool,
    /// Commits whose parents were left out on purpose, in order.
    pub(super) boundary: Vec<ObjectId>,
    /// Mixed into what is remembered of entries: nobody can choose two that look the same.
    pub(super) salt: u64,
    /// What stands for the repository in what is remembered, if anything is.
    pub(super) stream: Option<String>,
    /// What stands for the names of submodules that were met.
    pub(super) submodules: Mutex<BTreeSet<u64>>,
}

impl Shared<'_> {
    /// Answers how many there are so far.
    fn count_submodule(&self, name: &[u8]) -> u64 {
        let mut met = self.submodules.lock().unwrap_or_else(PoisonError::into_inner);
        if met.len() < SUBMODULES_MAX {
            met.insert(mixed(self.salt, name));
        }
        met.len() as u64
    }
}

/// Submodules that are told apart.
const SUBMODULES_MAX: usize = 10_000;

/// One thread's reader.
pub(super) struct Reader<'a, S> {
    shared: &'a Shared<'a>,
    sink: S,
    entries: Vec<u64>,
    pub(super) tally: Tally,
    /// What was not put together.
    pub(super) left: Vec<(ObjectId, Fault)>,
    pub(super) missing: Vec<Missing>,
    /// Missing objects that are not told by name.
    pub(super) more_missing: u64,
}

impl<'a, S: Sink> Reader<'a, S> {
    pub(super) fn new(shared: &'a Shared<'a>, sink: S) -> Self {
        Self {
            shared,
            sink,
            entries: vec![0; REMEMBERED],
            tally: Tally::default(),
            left: Vec::new(),
            missing: Vec::new(),
            more_missing: 0,
        }
    }

    fn tree(&mut self, id: &oid, bytes: &[u8]) {
        for entry in TreeRefIter::from_bytes(bytes, self.shared.store.hash) {
            let Ok(entry) = entry else {
                self.left.push((id.to_owned(), Fault::Broken));
                return;
            };
            if !self.is_new(entry.filename, entry.oid) {
                continue;
            }
            if entry.filename.len() >= NAME_MIN {
                let offset = offset_of(bytes, entry.filename);
                let item = self.item(crate::source::Kind::PathName, id, offset);
                self.sink.whole(&item, entry.filename);
            }
            if entry.mode.is_commit() {
                self.tally.submodules = self.shared.count_submodule(entry.filename);
            } else {
                self.wants(entry.oid, id);
            }
        }
    }

    /// Whether an entry was not met a moment ago.
    fn is_new(&mut self, name: &[u8], id: &oid) -> bool {
        let mark = mixed(mixed(self.shared.salt, name), id.as_bytes());
        let place = usize::try_from(mark % REMEMBERED as u64).unwrap_or_default();
        let mark = mark | 1;
        self.entries.get_mut(place).is_none_or(|seen| std::mem::replace(seen, mark) != mark)
    }

    fn wants(&mut self, id: &oid, from: &oid) {
        if self.shared.lenient || self.shared.store.contains(id) {
            return;
        }
        if self.missing.len() < MISSING_MAX {
            self.missing.push(Missing { id: id.to_owned(), from: from.to_owned() });
        } else {
            self.more_missing += 1;
        }
    }

    /// A commit or a tag: its text without the names of objects before it, which are no text.
    fn message(&mut self, id: &oid, kind: Kind, bytes: &[u8]) {
        let mut start = 0;
        let whole = self.shared.boundary.binary_search_by(|other| other.as_ref().cmp(id)).is_err();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let Some(at) = line.iter().position(|&byte| byte == b' ') else { break };
            let (name, rest) = line.split_at(at);
            if !matches!(name, b"tree" | b"parent" | b"object") {
                break;
            }
            let target = ObjectId::from_hex(rest.trim_ascii());
            match target {
                Ok(target) if whole || name != b"parent" => self.wants(&target, id),
                Ok(_) => {}
                Err(_) => break,
            }
            start += line.len();
        }
        let kind = match kind {
            Kind::Tag => crate::source::Kind::Tag,
            _ => crate::source::Kind::Commit,
        };
        let item = self.item(kind, id, start);
        self.sink.whole(&item, bytes.get(start..).unwrap_or_default());
    }

    /// An object that nothing is made from.
    pub(super) fn plain(&mut self, id: &oid, kind: Kind, bytes: &[u8]) -> bool {
        Visit::object(self, Object { id, kind, bytes, made: None }, &mut None)
    }

    fn item(&self, kind: crate::source::Kind, id: &oid, offset: usize) -> Item {
        let from = Position { offset: offset as u64, ..Position::default() };
        let name = id.to_hex().to_string();
        let stream = self.shared.stream.as_ref().map(|stream| format!("{stream}:{name}"));
        Item { from, stream, ..Item::whole(kind, PathBuf::from(name)) }
    }

    fn spend(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.shared.budget.fetch_sub(bytes, Ordering::Relaxed) > bytes
    }

    /// A name of its own, such as that of a branch.
    pub(super) fn name(&mut self, kind: crate::source::Kind, name: &[u8]) {
        if name.len() >= NAME_MIN {
            let item = Item::whole(kind, path_of(name));
            self.sink.whole(&item, name);
        }
    }

    /// Something beside objects that could not be read.
    pub(super) fn skip(&mut self, path: &std::path::Path, why: String) {
        self.sink.skip(path, why);
    }

    pub(super) fn sink(&mut self) -> &mut S {
        &mut self.sink
    }
}

impl<S: Sink> Visit for Reader<'_, S> {
    fn object(&mut self, object: Object<'_>, marks: &mut Option<Vec<Mark>>) -> bool {
        let Object { id, kind, bytes, made } = object;
        if !self.spend(bytes.len() as u64) {
            return false;
        }
        self.tally.objects += 1;
        match kind {
            Kind::Blob => {
                let item = self.item(crate::source::Kind::Blob, id, 0);
                *marks = self.sink.made(&item, bytes, made);
            }
            Kind::Tree => self.tree(id, bytes),
            Kind::Commit => {
                self.tally.commits += 1;
                self.message(id, kind, bytes);
            }
            Kind::Tag => self.message(id, kind, bytes),
        }
        true
    }

    fn left(&mut self, id: ObjectId, why: Fault) {
        self.left.push((id, why));
    }
}

impl<S: Sink> Take for Reader<'_, S> {
    fn object(&mut self, id: ObjectId, kind: Kind, size: u64, bytes: &mut dyn BufRead) -> bool {
        if kind == Kind::Blob {
            if !self.spend(size) {
                return false;
            }
            self.tally.objects += 1;
            let item = self.item(crate::source::Kind::Blob, &id, 0);
            self.sink.begin(&item);
            // What breaks off here breaks off for git too, which says why.
            let _whole = reader::pump(bytes, &mut self.sink, &Stop::new()).is_ok();
            let _position = self.sink.end(End::Done);
            return true;
        }
        let mut held = Vec::new();
        match std::io::Read::read_to_end(&mut std::io::Read::take(bytes, HELD_MAX), &mut held) {
            Ok(_) if size <= HELD_MAX => self.plain(&id, kind, &held),
            Ok(_) => {
                self.unread(id, "it is too large for what it is");
                true
            }
            Err(_) => true,
        }
    }

    fn unread(&mut self, id: ObjectId, why: &str) {
        self.sink.skip(&object_path(&id), format!("an object that cannot be read: {why}"));
    }
}

/// How an object without a path is called.
pub(super) fn object_path(id: &oid) -> PathBuf {
    PathBuf::from(format!("<object {}>", id.to_hex()))
}

/// Where a part of a text lies in it.
fn offset_of(text: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// A key mixed with a text: nobody who does not know the key can choose two texts for one answer.
pub(super) fn mixed(key: u64, text: &[u8]) -> u64 {
    let mut mark = key ^ text.len() as u64;
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    for word in words.iter().chain([&last]) {
        let product = u128::from(mark ^ u64::from_le_bytes(*word)) * u128::from(key | 1);
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        mark = u64::try_from(low ^ high).unwrap_or_default().wrapping_add(key);
    }
    mark
}
