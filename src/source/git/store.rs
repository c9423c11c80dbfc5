//! Where the objects of a repository lie: packs and loose files, its own and borrowed ones.
//!
//! Everything is read by `pread` into buffers of ours: nothing is mapped, so a file that is cut
//! short while it is read is an error and not the end of the process.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use gix_hash::{ObjectId, oid};
use gix_pack::{data, index};

use crate::source::reader::{self, Links};

/// Folders that borrow from folders that borrow…: git follows as many.
const ALTERNATES_DEEP: usize = 5;
/// Longest list of other folders that is read, in bytes.
const ALTERNATES_MAX: u64 = 64 * 1024;
/// Largest entry header: the size, then a distance or the name of the base.
pub(super) const HEADER_MAX: usize = 48;

/// A pack with its index.
pub(super) struct Pack {
    pub(super) index: index::File<Vec<u8>>,
    file: File,
    /// Where the entries end.
    pub(super) end: u64,
}

impl Pack {
    fn open(path: &Path, hash: gix_hash::Kind) -> Result<Self, String> {
        let read =
            |path: &Path| reader::open(path, Links::Follow).map_err(|e| reader::describe(&e));
        let (mut from, stat) = read(path)?;
        let mut bytes = Vec::with_capacity(usize::try_from(stat.size).unwrap_or_default());
        from.read_to_end(&mut bytes).map_err(|error| reader::describe(&error))?;
        let index = index::File::from_data(bytes, path.to_owned(), hash)
            .map_err(|_| "a broken index of a pack".to_owned())?;
        let (file, stat) = read(&path.with_extension("pack"))?;
        let mut head = [0; data::header::SIZE];
        let known = file.read_exact_at(&mut head, 0).is_ok()
            && data::header::decode(&head).is_ok_and(|(_, count)| count == index.num_objects());
        if !known {
            return Err("a broken pack: its beginning is not what its index says".to_owned());
        }
        let end = stat.size.saturating_sub(hash.len_in_bytes() as u64);
        Ok(Self { index, file, end })
    }

    /// Reads as much as there is of a range.
    pub(super) fn read_at(&self, offset: u64, space: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// All objects of a repository.
pub(super) struct Store {
    pub(super) hash: gix_hash::Kind,
    pub(super) packs: Vec<Pack>,
    /// In order, each once; with the number of its folder.
    pub(super) loose: Vec<(ObjectId, u32)>,
    folders: Vec<PathBuf>,
    /// What could not be opened, and why.
    pub(super) skipped: Vec<(PathBuf, String)>,
    /// Whether objects were left with a remote on purpose.
    pub(super) partial: bool,
    /// Whether there are packs whose indexes do not fit into memory: they are not opened.
    pub(super) too_many: bool,
    /// Bytes of indexes that may still be read.
    room: u64,
}

impl Store {
    /// Whether there is no object at all, nor anything that may hold some.
    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.loose.is_empty() && self.skipped.is_empty()
    }

    /// `room`: bytes of indexes that are held at most.
    pub(super) fn open(objects: &Path, hash: gix_hash::Kind, room: u64) -> Self {
        let mut store = Self {
            hash,
            packs: Vec::new(),
            loose: Vec::new(),
            folders: Vec::new(),
            skipped: Vec::new(),
            partial: false,
            too_many: false,
            room,
        };
        store.find_folders(objects);
        let mut names = BTreeSet::new();
        for (number, folder) in (0..).zip(store.folders.clone()) {
            store.open_packs(&folder.join("pack"), &mut names);
            store.list_loose(&folder, number);
        }
        store.loose.sort_unstable();
        store.loose.dedup_by_key(|(id, _)| *id);
        store
    }

    /// The folder itself, and those that it borrows from.
    fn find_folders(&mut self, objects: &Path) {
        let mut next = vec![objects.to_owned()];
        let mut seen = BTreeSet::new();
        for depth in 0..=ALTERNATES_DEEP {
            for folder in std::mem::take(&mut next) {
                let known = match folder.canonicalize() {
                    Ok(real) if real.is_dir() => !seen.insert(real),
                    _ => {
                        let why = "a folder that objects are borrowed from is not there";
                        self.skipped.push((folder, why.to_owned()));
                        continue;
                    }
                };
                if known {
                    continue;
                }
                let others = self.alternates(&folder);
                if depth == ALTERNATES_DEEP && !others.is_empty() {
                    let why = "borrows objects over too many folders";
                    self.skipped.push((folder.clone(), why.to_owned()));
                } else {
                    next.extend(others);
                }
                self.folders.push(folder);
            }
        }
    }

    fn alternates(&mut self, folder: &Path) -> Vec<PathBuf> {
        let path = folder.join("info/alternates");
        let mut text = Vec::new();
        match reader::open(&path, Links::Follow)
            .and_then(|(file, _)| file.take(ALTERNATES_MAX).read_to_end(&mut text))
        {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.skipped.push((path, reader::describe(&error))),
        }
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
            .map(|line| folder.join(OsStr::from_bytes(line)))
            .collect()
    }

    fn open_packs(&mut self, folder: &Path, names: &mut BTreeSet<std::ffi::OsString>) {
        let Some(entries) = self.entries(folder) else { return };
        for path in entries {
            let extension = path.extension().unwrap_or_default();
            let Some(name) = path.file_name().map(OsStr::to_owned) else { continue };
            if extension == "promisor" {
                self.partial = true;
            } else if extension == "pack" && !path.with_extension("idx").exists() {
                self.skipped.push((path, "a pack without its index".to_owned()));
            } else if extension == "idx" && names.insert(name) {
                let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
                match (self.room.checked_sub(size), self.too_many) {
                    (Some(room), false) => self.room = room,
                    _ => {
                        self.too_many = true;
                        continue;
                    }
                }
                match Pack::open(&path, self.hash) {
                    Ok(pack) => self.packs.push(pack),
                    Err(why) => self.skipped.push((path, why)),
                }
            }
        }
    }

    fn list_loose(&mut self, folder: &Path, number: u32) {
        let hex = |path: &Path| path.file_name().map(|name| name.as_bytes().to_owned());
        for below in self.entries(folder).unwrap_or_default() {
            let Some(start) = hex(&below).filter(|name| name.len() == 2) else { continue };
            if !start.iter().all(u8::is_ascii_hexdigit) {
                continue;
            }
            for path in self.entries(&below).unwrap_or_default() {
                // Files that are still being written bear other names.
                let name = [start.as_slice(), &hex(&path).unwrap_or_default()].concat();
                if let Ok(id) = ObjectId::from_hex(&name)
                    && id.kind() == self.hash
                {
                    self.loose.push((id, number));
                }
            }
        }
    }

    /// What is in a folder, in order; one that is not there has nothing.
    fn entries(&mut self, folder: &Path) -> Option<Vec<PathBuf>> {
        match std::fs::read_dir(folder) {
            Ok(entries) => {
                let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                paths.sort();
                Some(paths)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.skipped.push((folder.to_owned(), reader::describe(&error)));
                None
            }
        }
    }

    /// How many objects there are, those counted twice that lie at two places.
    pub(super) fn count(&self) -> u64 {
        let packed: u64 = self.packs.iter().map(|pack| u64::from(pack.index.num_objects())).sum();
        packed + self.loose.len() as u64
    }

    /// Bytes of memory that the indexes take.
    pub(super) fn index_bytes(&self) -> u64 {
        // The names, and for each a check and an offset.
        let entry = self.hash.len_in_bytes() as u64 + 8;
        let packed: u64 = self.packs.iter().map(|pack| u64::from(pack.index.num_objects())).sum();
        packed * entry + self.loose.len() as u64 * size_of::<(ObjectId, u32)>() as u64
    }

    /// Bytes on disk, packs only.
    pub(super) fn pack_bytes(&self) -> u64 {
        self.packs.iter().map(|pack| pack.end).sum()
    }

    /// Whether an object is in one of the packs before that one.
    pub(super) fn is_packed_before(&self, id: &oid, pack: usize) -> bool {
        self.packs.iter().take(pack).any(|pack| pack.index.lookup(id).is_some())
    }

    /// Whether there is an object of that name; git knows the empty ones without having them.
    pub(super) fn contains(&self, id: &oid) -> bool {
        self.is_packed_before(id, self.packs.len())
            || self.loose.binary_search_by(|(loose, _)| loose.as_ref().cmp(id)).is_ok()
            || id == ObjectId::empty_tree(self.hash)
            || id == ObjectId::empty_blob(self.hash)
    }

    /// What is near each other in a pack has places near each other.
    pub(super) fn place(&self, id: &oid) -> (usize, u64) {
        let packed = |(number, pack): (usize, &Pack)| {
            let index = pack.index.lookup(id)?;
            Some((number, pack.index.pack_offset_at_index(index)))
        };
        self.packs.iter().enumerate().find_map(packed).unwrap_or((usize::MAX, 0))
    }

    /// The file of a loose object.
    pub(super) fn loose_path(&self, id: &ObjectId, folder: u32) -> PathBuf {
        let name = id.to_hex().to_string();
        let (start, rest) = name.split_at_checked(2).unwrap_or_default();
        let folder = usize::try_from(folder).ok().and_then(|at| self.folders.get(at));
        folder.map(PathBuf::as_path).unwrap_or(Path::new("")).join(start).join(rest)
    }
}
