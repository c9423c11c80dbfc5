//! Every object of a pack once, by several threads.
//!
//! Objects are stored as differences to each other. Which is a difference to which is read off the
//! headers first; then each family is gone through from its root down, so that every object is put
//! together once, from a base that is at hand. What does not fit into memory, or is broken, is
//! handed back with all that rests on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use gix_hash::{ObjectId, oid};
use gix_object::Kind;
use gix_pack::data::entry::Header;

use super::decode::{Buffer, Decoder, Fault};
use super::store::{Pack, Store};
use crate::source::{Made, Mark};

/// No base: an object that is stored as it is.
const NONE: u32 = u32::MAX;
/// A base that is not in this pack.
const LOST: u32 = u32::MAX - 1;
/// Longest object that is put together, in bytes.
const OBJECT_MAX: u64 = 64 << 20;
/// Families that a thread takes at once.
const FAMILIES: usize = 4;
/// Memory for an object of the tables below, in bytes.
pub(super) const TABLE_BYTES: u64 = 32;

/// Names of objects; they are random already, which hashing them rests on.
pub(super) type Ids = gix_hashtable::HashSet<ObjectId>;

/// Which objects are read.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// All.
    All,
    /// These.
    These(&'a Ids),
}

impl Wanted<'_> {
    pub(super) fn has(&self, id: &oid) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(id),
        }
    }
}

/// An object that is put together.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) id: &'a oid,
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
    /// From which other one it is made, where that was looked at.
    pub(super) made: Option<Made<'a>>,
}

/// Takes the objects of one thread.
pub(super) trait Visit {
    /// An object; leaves marks for those that are made from it. `false`: no more, it is too much.
    fn object(&mut self, object: Object<'_>, marks: &mut Option<Vec<Mark>>) -> bool;
    /// An object that could not be put together.
    fn left(&mut self, id: ObjectId, why: Fault);
}

/// Which object of a pack rests on which.
struct Families {
    /// Where an object begins, and its number in the index; in the order of the pack.
    entries: Vec<(u64, u32)>,
    /// By entry: its base.
    bases: Vec<u32>,
    /// By entry: where those that rest on it begin in `children`.
    starts: Vec<u32>,
    children: Vec<u32>,
    /// Where the entries end.
    end: u64,
}

impl Families {
    fn read((number, pack): (usize, &Pack), hash: gix_hash::Kind, threads: usize) -> Self {
        let mut entries: Vec<(u64, u32)> = (0..pack.index.num_objects())
            .map(|index| (pack.index.pack_offset_at_index(index), index))
            .collect();
        entries.sort_unstable();
        let mut bases = vec![NONE; entries.len()];
        let part = entries.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            for (own, bases) in entries.chunks(part).zip(bases.chunks_mut(part)) {
                let all = &entries;
                scope.spawn(move || {
                    let mut decoder = Decoder::new(hash, 0);
                    for ((offset, _), base) in own.iter().zip(bases) {
                        let entry = decoder.header((number, pack), *offset);
                        *base = entry.map_or(LOST, |entry| base_of(&entry, pack, all));
                    }
                });
            }
        });
        let (starts, children) = children_of(&bases);
        Self { entries, bases, starts, children, end: pack.end }
    }

    fn children(&self, entry: u32) -> &[u32] {
        let start = |at: usize| self.starts.get(at).and_then(|start| usize::try_from(*start).ok());
        let at = entry as usize;
        match (start(at), start(at + 1)) {
            (Some(start), Some(end)) => self.children.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// From where to where an entry reaches, and its number in the index.
    fn place(&self, entry: u32) -> (u64, u64, u32) {
        let at = entry as usize;
        let (start, index) = self.entries.get(at).copied().unwrap_or_default();
        (start, self.entries.get(at + 1).map_or(self.end, |next| next.0), index)
    }

    /// By entry: whether it, or one that rests on it, is wanted.
    fn needed(&self, pack: &Pack, ids: &Ids) -> Vec<bool> {
        let mut needed = vec![false; self.entries.len()];
        for (at, (_, index)) in self.entries.iter().enumerate() {
            let mut entry = at;
            if !ids.contains(pack.index.oid_at_index(*index)) {
                continue;
            }
            while let Some(mark) = needed.get_mut(entry).filter(|mark| !**mark) {
                *mark = true;
                match self.bases.get(entry) {
                    Some(&base) if base < LOST => entry = base as usize,
                    _ => break,
                }
            }
        }
        needed
    }

    /// By entry: whether going down from the roots comes by.
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.entries.len()];
        let mut next: Vec<u32> = self.roots();
        while let Some(entry) = next.pop() {
            if let Some(mark) = reached.get_mut(entry as usize) {
                *mark = true;
            }
            next.extend(self.children(entry));
        }
        reached
    }

    fn roots(&self) -> Vec<u32> {
        (0u32..).zip(&self.bases).filter(|(_, base)| **base == NONE).map(|(at, _)| at).collect()
    }
}

fn base_of(entry: &gix_pack::data::Entry, pack: &Pack, all: &[(u64, u32)]) -> u32 {
    let base = match entry.header {
        Header::OfsDelta { base_distance } => entry.checked_base_pack_offset(base_distance),
        Header::RefDelta { base_id } => {
            pack.index.lookup(base_id).map(|index| pack.index.pack_offset_at_index(index))
        }
        _ => return NONE,
    };
    base.and_then(|base| all.binary_search_by_key(&base, |(offset, _)| *offset).ok())
        .and_then(|at| u32::try_from(at).ok())
        .unwrap_or(LOST)
}

fn children_of(bases: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; bases.len() + 1];
    for &base in bases.iter().filter(|base| **base < LOST) {
        if let Some(start) = starts.get_mut(base as usize + 1) {
            *start += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut children = vec![0u32; sum as usize];
    let mut next = starts.clone();
    for (entry, &base) in (0u32..).zip(bases).filter(|(_, base)| **base < LOST) {
        let Some(at) = next.get_mut(base as usize) else { continue };
        if let Some(child) = children.get_mut(*at as usize) {
            *child = entry;
        }
        *at += 1;
    }
    (starts, children)
}

/// What reading may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many objects are read at once.
    pub threads: usize,
    /// Bytes of memory for objects and the tables of packs, all threads together.
    pub memory: u64,
    /// Bytes that all objects may unpack to; `None`: as many as those of any real history.
    pub unpacked: Option<u64>,
}

impl Limits {
    /// Longest object that is put together here, in bytes; git streams longer ones.
    pub(super) fn object_max(&self) -> u64 {
        OBJECT_MAX.min(self.share() / 4)
    }

    fn share(&self) -> u64 {
        self.memory / self.threads.max(1) as u64
    }

    pub(super) fn options<'a>(&self, wanted: Wanted<'a>) -> Options<'a> {
        Options {
            wanted,
            kind: None,
            threads: self.threads,
            object_max: self.object_max(),
            memory: self.share() / 2,
        }
    }
}

/// How a pack is gone through.
pub(super) struct Options<'a> {
    pub(super) wanted: Wanted<'a>,
    /// Only objects of that kind.
    pub(super) kind: Option<Kind>,
    pub(super) threads: usize,
    /// Longest object, in bytes.
    pub(super) object_max: u64,
    /// Bytes of objects that one thread holds at once.
    pub(super) memory: u64,
}

/// Hands every wanted object of a pack, which is not in a pack before it, to one of the visitors.
pub(super) fn pack<V: Visit + Send>(
    store: &Store,
    number: usize,
    options: &Options<'_>,
    visitors: &mut [V],
) {
    let Some(pack) = store.packs.get(number) else { return };
    let families = Families::read((number, pack), store.hash, options.threads);
    let needed = match options.wanted {
        Wanted::All => None,
        Wanted::These(ids) => Some(families.needed(pack, ids)),
    };
    let roots = families.roots();
    let taken = AtomicUsize::new(0);
    let shared = Shared { store, pack: (number, pack), families: &families, needed, options };
    let work = |visitor: &mut V| {
        let mut walk = Walk::new(&shared, visitor);
        loop {
            let first = taken.fetch_add(FAMILIES, Ordering::Relaxed);
            let some = roots.get(first..roots.len().min(first + FAMILIES)).unwrap_or_default();
            if some.is_empty() || !some.iter().all(|root| walk.family(*root)) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let mut visitors = visitors.iter_mut();
        let own = visitors.next();
        for visitor in visitors {
            scope.spawn(|| work(visitor));
        }
        own.into_iter().for_each(work);
    });
    if let Some(visitor) = visitors.first_mut() {
        // Without a root: the base is missing, or they rest on each other.
        let mut walk = Walk::new(&shared, visitor);
        let lost = (0u32..).zip(families.reached()).filter(|(_, reached)| !reached);
        lost.for_each(|(entry, _)| walk.left_one(entry, Fault::Broken));
    }
}

struct Shared<'a> {
    store: &'a Store,
    pack: (usize, &'a Pack),
    families: &'a Families,
    needed: Option<Vec<bool>>,
    options: &'a Options<'a>,
}

impl Shared<'_> {
    fn is_needed(&self, entry: u32) -> bool {
        let needed = |marks: &Vec<bool>| marks.get(entry as usize).copied().unwrap_or_default();
        self.needed.as_ref().is_none_or(needed)
    }

    /// The name of an object that is to be handed out.
    fn wanted(&self, index: u32) -> Option<&oid> {
        let (number, pack) = self.pack;
        let id = pack.index.oid_at_index(index);
        (self.options.wanted.has(id) && !self.store.is_packed_before(id, number)).then_some(id)
    }
}

/// An object whose dependents are gone through.
struct Level {
    bytes: Buffer,
    marks: Option<Vec<Mark>>,
    entry: u32,
    /// How many of its children are done.
    done: usize,
}

struct Walk<'a, V> {
    shared: &'a Shared<'a>,
    decoder: Decoder,
    visitor: &'a mut V,
    levels: Vec<Level>,
    spare: Vec<Buffer>,
    /// Bytes of all levels.
    held: u64,
}

impl<'a, V: Visit> Walk<'a, V> {
    fn new(shared: &'a Shared<'a>, visitor: &'a mut V) -> Self {
        let decoder = Decoder::new(shared.store.hash, shared.options.object_max);
        Self { shared, decoder, visitor, levels: Vec::new(), spare: Vec::new(), held: 0 }
    }

    /// An object and all that rest on it. `false`: no more.
    fn family(&mut self, root: u32) -> bool {
        let (start, end, _) = self.shared.families.place(root);
        if !self.shared.is_needed(root) || !self.is_of_kind(start) {
            return true;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        let kind = match self.decoder.root(self.shared.pack, start, end, &mut bytes) {
            Ok(kind) => kind,
            Err(why) => {
                self.left(root, why);
                return true;
            }
        };
        if !self.enter(root, kind, bytes, false) {
            return false;
        }
        while let Some(level) = self.levels.last_mut() {
            let children = self.shared.families.children(level.entry);
            let Some(&child) = children.get(level.done) else {
                self.leave();
                continue;
            };
            level.done += 1;
            if self.shared.is_needed(child) && !self.child(child, kind) {
                return false;
            }
        }
        true
    }

    fn is_of_kind(&mut self, start: u64) -> bool {
        let kind = |walk: &mut Self| {
            let header = walk.decoder.header(walk.shared.pack, start)?.header;
            header.as_kind()
        };
        self.shared.options.kind.is_none_or(|wanted| kind(self) == Some(wanted))
    }

    fn child(&mut self, child: u32, kind: Kind) -> bool {
        let (start, end, _) = self.shared.families.place(child);
        let mut bytes = self.spare.pop().unwrap_or_default();
        let room = self.shared.options.memory.saturating_sub(self.held);
        let outcome = match self.levels.last() {
            Some(level) => {
                let base = (level.bytes.as_slice(), room);
                self.decoder.differing(self.shared.pack, (start, end), base, &mut bytes)
            }
            None => Err(Fault::Broken),
        };
        match outcome {
            Ok(()) => self.enter(child, kind, bytes, true),
            Err(why) => {
                self.spare(bytes);
                self.left(child, why);
                true
            }
        }
    }

    /// Hands an object out. `made`: from the one of the last level.
    fn enter(&mut self, entry: u32, kind: Kind, bytes: Buffer, made: bool) -> bool {
        let (_, _, index) = self.shared.families.place(entry);
        let mut marks = None;
        let goes_on = match self.shared.wanted(index) {
            Some(id) => {
                let base = self.levels.last().filter(|_| made);
                let made = base.and_then(|base| {
                    let (copied, length) = (self.decoder.copied(), base.bytes.len());
                    base.marks.as_deref().map(|marks| Made { copied, marks, length })
                });
                self.visitor.object(Object { id, kind, bytes: &bytes, made }, &mut marks)
            }
            None => true,
        };
        if self.shared.families.children(entry).is_empty() {
            self.spare(bytes);
        } else {
            self.drop_finished();
            self.held += bytes.len() as u64;
            self.levels.push(Level { bytes, marks, entry, done: 0 });
        }
        goes_on
    }

    /// Lets go of objects whose last child is begun: a long chain holds two at a time.
    fn drop_finished(&mut self) {
        while let Some(level) = self.levels.last()
            && level.done >= self.shared.families.children(level.entry).len()
        {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.held = self.held.saturating_sub(level.bytes.len() as u64);
            self.spare(level.bytes);
        }
    }

    fn spare(&mut self, bytes: Buffer) {
        // Few and small ones: the rest goes back.
        if self.spare.len() < 8 && bytes.capacity() <= 4 << 20 {
            self.spare.push(bytes);
        }
    }

    /// Hands back an object with all that rest on it.
    fn left(&mut self, entry: u32, why: Fault) {
        let mut next = vec![entry];
        while let Some(entry) = next.pop() {
            self.left_one(entry, why);
            next.extend(self.shared.families.children(entry));
        }
    }

    fn left_one(&mut self, entry: u32, why: Fault) {
        let (_, _, index) = self.shared.families.place(entry);
        if let Some(id) = self.shared.wanted(index) {
            self.visitor.left(id.to_owned(), why);
        }
    }
}
