//! Where an object that holds a key is known from: the first commit that has it, and its path there.
//!
//! Looked up only for objects with findings. Commits are gone through from the oldest on, each after
//! its parents, and every tree is read once; so the first commit that leads to an object is the
//! first that has it. Trees and commits that are missing are passed over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::BuildHasher as _;

use gix_hash::{ObjectId, oid};
use gix_object::{CommitRefIter, Kind, TagRefIter, TreeRefIter};

use super::decode::{Decoder, Fault};
use super::finder::{self, Finder};
use super::objects::mixed;
use super::store::Store;
use super::walk::{self, Ids, Limits, Object, Visit, Wanted};
use crate::source::Mark;

/// Paths of one object that are told.
const PATHS_MAX: usize = 64;
/// Places of one tree that are gone into: a tree of trees of the same trees has no end.
const TREE_PLACES_MAX: u8 = 8;
/// Folders in folders that are gone into.
const DEPTH_MAX: usize = 1_024;

/// Who made a commit, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the commit, or of the tag.
    pub commit: String,
    /// Name of its author.
    pub author: Vec<u8>,
    /// The author's mail address.
    pub email: Vec<u8>,
    /// When it was written, in seconds since 1970.
    pub date: Option<i64>,
}

/// A place of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path; of a tree, that of the folder.
    pub path: Vec<u8>,
    /// The first commit that has it there; `None`: no commit has it.
    pub origin: Option<Origin>,
    /// Whether `HEAD` has it there; `None`: that is not asked of such objects.
    pub in_head: Option<bool>,
    /// Which comes first: smaller for older commits.
    pub order: usize,
}

/// Places of objects, by their names in hex.
pub type Places = HashMap<String, Vec<Place>>;

struct Commit {
    id: ObjectId,
    tree: ObjectId,
    time: i64,
    parents: Vec<ObjectId>,
}

/// Collects commits.
#[derive(Default)]
struct Commits {
    hash: Option<gix_hash::Kind>,
    found: Vec<Commit>,
}

impl Visit for Commits {
    fn object(&mut self, object: Object<'_>, _marks: &mut Option<Vec<Mark>>) -> bool {
        let Object { id, kind, bytes, .. } = object;
        if kind == Kind::Commit {
            let hash = self.hash.unwrap_or(gix_hash::Kind::Sha1);
            let mut commit = CommitRefIter::from_bytes(bytes, hash);
            if let Ok(tree) = commit.tree_id() {
                let all = CommitRefIter::from_bytes(bytes, hash);
                let time = all.committer().ok().and_then(|who| who.time().ok());
                self.found.push(Commit {
                    id: id.to_owned(),
                    tree,
                    time: time.map(|time| time.seconds).unwrap_or_default(),
                    parents: all.parent_ids().collect(),
                });
            }
        }
        true
    }

    fn left(&mut self, _id: ObjectId, _why: Fault) {}
}

/// All commits, each after its parents, the older first.
fn commits(store: &Store, limits: &Limits) -> Vec<Commit> {
    let make = || Commits { hash: Some(store.hash), found: Vec::new() };
    let mut visitors: Vec<Commits> = (0..limits.threads).map(|_| make()).collect();
    let options = walk::Options { kind: Some(Kind::Commit), ..limits.options(Wanted::All) };
    for number in 0..store.packs.len() {
        walk::pack(store, number, &options, &mut visitors);
    }
    if let Some(visitor) = visitors.first_mut() {
        let mut decoder = Decoder::new(store.hash, limits.object_max());
        let mut bytes = Vec::new();
        for (id, folder) in &store.loose {
            let path = store.loose_path(id, *folder);
            if let Ok(kind) = finder::loose(&mut decoder, &path, &mut bytes) {
                let object = Object { id, kind, bytes: &bytes, made: None };
                visitor.object(object, &mut None);
            }
        }
    }
    ordered(visitors.into_iter().flat_map(|visitor| visitor.found).collect())
}

fn ordered(mut commits: Vec<Commit>) -> Vec<Commit> {
    commits.sort_unstable_by_key(|commit| (commit.time, commit.id));
    commits.dedup_by_key(|commit| commit.id);
    let numbers: gix_hashtable::HashMap<ObjectId, usize> =
        commits.iter().enumerate().map(|(number, commit)| (commit.id, number)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); commits.len()];
    let mut waits = vec![0usize; commits.len()];
    for (number, commit) in commits.iter().enumerate() {
        // A shallow clone has commits without their parents.
        for parent in commit.parents.iter().filter_map(|parent| numbers.get(parent)) {
            if let (Some(below), Some(count)) = (children.get_mut(*parent), waits.get_mut(number)) {
                below.push(number);
                *count += 1;
            }
        }
    }
    let free = waits.iter().enumerate().filter(|(_, count)| **count == 0);
    let mut next: BinaryHeap<Reverse<usize>> = free.map(|(number, _)| Reverse(number)).collect();
    let mut slots: Vec<Option<Commit>> = commits.into_iter().map(Some).collect();
    let mut order = Vec::with_capacity(slots.len());
    while let Some(Reverse(number)) = next.pop() {
        order.extend(slots.get_mut(number).and_then(Option::take));
        for child in children.get(number).into_iter().flatten() {
            if let Some(count) = waits.get_mut(*child) {
                *count -= 1;
                if *count == 0 {
                    next.push(Reverse(*child));
                }
            }
        }
    }
    order
}

/// Looks for objects in trees.
struct Search<'a> {
    finder: Finder<'a>,
    store: &'a Store,
    wanted: &'a Ids,
    /// How many places of a tree were gone into.
    trees: gix_hashtable::HashMap<ObjectId, u8>,
    /// Trees at their paths.
    seen: HashSet<u64>,
    salt: u64,
}

impl<'a> Search<'a> {
    fn new(store: &'a Store, wanted: &'a Ids) -> Self {
        Self {
            finder: Finder::new(store),
            store,
            wanted,
            trees: gix_hashtable::HashMap::default(),
            seen: HashSet::new(),
            salt: std::hash::RandomState::new().hash_one(0),
        }
    }

    /// Whether a tree is to be gone into at the path of that key.
    fn is_new(&mut self, tree: &oid, key: u64) -> bool {
        if !self.seen.insert(mixed(key, tree.as_bytes())) {
            return false;
        }
        let places = self.trees.entry(tree.to_owned()).or_default();
        *places = places.saturating_add(1);
        *places <= TREE_PLACES_MAX
    }

    /// Goes through a tree and what is below; calls with every wanted object and its path.
    fn tree(&mut self, root: ObjectId, found: &mut dyn FnMut(&oid, &[u8])) {
        let mut next = Vec::new();
        if self.is_new(&root, self.salt) {
            next.push(Below { tree: root, path: Vec::new(), key: self.salt, depth: 0 });
        }
        while let Some(Below { tree, path, key, depth }) = next.pop() {
            if self.wanted.contains(&tree) {
                found(&tree, &path);
            }
            let Ok((Kind::Tree, bytes)) = self.finder.find(&tree) else { continue };
            for entry in TreeRefIter::from_bytes(&bytes, self.store.hash) {
                let Ok(entry) = entry else { break };
                let path = || match path.is_empty() {
                    true => entry.filename.to_vec(),
                    false => [&path, b"/".as_slice(), entry.filename].concat(),
                };
                if entry.mode.is_tree() {
                    let key = mixed(key, entry.filename);
                    if depth < DEPTH_MAX && self.is_new(entry.oid, key) {
                        let tree = entry.oid.to_owned();
                        next.push(Below { tree, path: path(), key, depth: depth + 1 });
                    }
                } else if self.wanted.contains(entry.oid) {
                    found(entry.oid, &path());
                }
            }
        }
    }
}

/// A tree that is to be gone through.
struct Below {
    tree: ObjectId,
    path: Vec<u8>,
    /// Stands for the path.
    key: u64,
    depth: usize,
}

/// Where `HEAD` has objects, each with its path.
fn in_head(store: &Store, wanted: &Ids, head: ObjectId) -> HashSet<(ObjectId, Vec<u8>)> {
    let mut found = HashSet::new();
    let mut finder = Finder::new(store);
    let tree = match finder.find(&head) {
        Ok((Kind::Commit, bytes)) => CommitRefIter::from_bytes(&bytes, store.hash).tree_id().ok(),
        _ => None,
    };
    if let Some(tree) = tree {
        Search::new(store, wanted).tree(tree, &mut |id, path| {
            found.insert((id.to_owned(), path.to_vec()));
        });
    }
    found
}

/// Places of blobs and trees: the first that each had, those in `HEAD`, and what else is met up to
/// where these are known. What no commit has gets no place.
pub(super) fn of(store: &Store, wanted: &Ids, head: Option<ObjectId>, limits: &Limits) -> Places {
    let in_head = head.map(|head| in_head(store, wanted, head)).unwrap_or_default();
    let mut sought = in_head.clone();
    let mut found: HashMap<(ObjectId, Vec<u8>), Place> = HashMap::new();
    let mut counts: HashMap<ObjectId, usize> = HashMap::new();
    let mut search = Search::new(store, wanted);
    let mut origins = Finder::new(store);
    for (order, commit) in commits(store, limits).into_iter().enumerate() {
        if sought.is_empty() && counts.len() == wanted.len() {
            break;
        }
        let mut origin = None;
        search.tree(commit.tree, &mut |id, path| {
            let place = (id.to_owned(), path.to_vec());
            sought.remove(&place);
            let count = counts.entry(id.to_owned()).or_default();
            if *count < PATHS_MAX && !found.contains_key(&place) {
                *count += 1;
                let origin = origin
                    .get_or_insert_with(|| origin_of(&mut origins, store.hash, &commit.id))
                    .clone();
                let in_head = Some(in_head.contains(&place));
                found.insert(place, Place { path: path.to_vec(), origin, in_head, order });
            }
        });
    }
    let mut places = Places::new();
    for ((id, _), place) in found {
        places.entry(id.to_hex().to_string()).or_default().push(place);
    }
    places
}

/// Who made a commit or a tag.
pub(super) fn origin_of(finder: &mut Finder<'_>, hash: gix_hash::Kind, id: &oid) -> Option<Origin> {
    let (kind, bytes) = finder.find(id).ok()?;
    Origin::read(id.to_hex().to_string(), kind, &bytes, hash)
}

impl Origin {
    /// Of a commit or a tag, whose name and kind git has written, or the beginning of it.
    pub(in crate::source) fn of(id: &str, kind: &str, bytes: &[u8]) -> Option<Self> {
        let hash = ObjectId::from_hex(id.as_bytes()).ok()?.kind();
        Self::read(id.to_owned(), Kind::from_bytes(kind.as_bytes()).ok()?, bytes, hash)
    }

    fn read(commit: String, kind: Kind, bytes: &[u8], hash: gix_hash::Kind) -> Option<Self> {
        let who = match kind {
            Kind::Commit => CommitRefIter::from_bytes(bytes, hash).author().ok(),
            Kind::Tag => TagRefIter::from_bytes(bytes, hash).tagger().ok().flatten(),
            _ => return None,
        };
        let mut origin = Self { commit, ..Self::default() };
        if let Some(who) = who {
            origin.author = who.name.to_vec();
            origin.email = who.email.to_vec();
            origin.date = who.time().ok().map(|time| time.seconds);
        }
        Some(origin)
    }
}
