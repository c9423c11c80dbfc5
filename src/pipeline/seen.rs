//! Where a scan sees registered keys, for those who respond to it.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Asked, Scan, placed};
use crate::clock;
use crate::finding::FoundKey;
use crate::ledger::Sighting;
use crate::matcher::Candidate;
use crate::source::git::history::Places;
use crate::source::git::poll;
use crate::source::{Item, Kind, absolute, follow, path_id};

/// Places of one key that are remembered; the ledger keeps no more of an incident either.
const PLACES_MAX: u32 = 1_000;

/// Where a scan reads.
#[derive(Debug)]
pub struct Whereabouts {
    /// Name of the host.
    pub host: String,
    /// The current folder, by which paths are completed.
    pub folder: PathBuf,
    /// The repository that is read, if one is.
    pub repository: Option<PathBuf>,
}

/// Sightings of one scan.
pub(super) struct Seen {
    at: Whereabouts,
    /// What stands for this run, where what is read has no name that lasts.
    run: uuid::Uuid,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    sightings: Vec<Sighting>,
    /// By key.
    count: HashMap<String, u32>,
}

impl Seen {
    /// What makes a place the same place again. Files and what git keeps are named as the daemon names
    /// them: what it has seen there is not new.
    fn stream_of(&self, item: &Item) -> String {
        match (item.kind, &self.at.repository) {
            (Kind::File | Kind::Reflog, _) => follow::stream_of(&self.named(&item.path)),
            (kind, Some(repository)) if kind.is_in_git() => {
                let repository = poll::stream_of(&self.named(repository));
                format!("{repository}:{}", item.path.display())
            }
            _ => format!("scan:{}:{}", self.run, crate::secret::to_hex(&path_id(&item.path))),
        }
    }

    fn named(&self, path: &Path) -> PathBuf {
        let path = absolute(&self.at.folder, path);
        // Where `..` leads, behind a link, the path alone does not say.
        match path.components().any(|part| part == Component::ParentDir) {
            true => std::fs::canonicalize(&path).unwrap_or(path),
            false => path,
        }
    }

    fn sighting(&self, candidate: &Candidate, item: &Item, scan: &Scan) -> Option<Sighting> {
        let Asked::Registry(filter, _) = &scan.asked else { return None };
        let is_path = matches!(item.kind, Kind::File | Kind::Reflog);
        let place = match (item.kind, &self.at.repository) {
            (Kind::File | Kind::Reflog, _) => self.named(&item.path),
            (Kind::Ref, Some(repository)) => self.named(repository).join(&item.path),
            // Of what is in an object, the place is told by the object.
            _ => item.path.clone(),
        };
        let real = std::fs::canonicalize(&place).ok().filter(|real| is_path && *real != place);
        Some(Sighting {
            digest: filter.digest(candidate.secret.expose()),
            checked: false,
            source: item.kind.as_str().to_owned(),
            stream: self.stream_of(item),
            path: scan.shown(&place),
            place,
            real,
            commit: None,
            line: candidate.line,
            column: candidate.column,
            offset: candidate.start,
            host: self.at.host.clone(),
            seen_at: clock::now(),
            world_readable: item.stat.world_readable,
            again: false,
        })
    }
}

impl Scan {
    /// Has the scan remember where it sees registered keys.
    #[must_use]
    pub fn remembering(mut self, at: Whereabouts) -> Self {
        self.seen = Some(Seen { at, run: uuid::Uuid::new_v4(), found: Mutex::default() });
        self
    }

    /// Remembers one place of a registered key, if the scan does so.
    pub(super) fn remember(&self, candidate: &Candidate, item: &Item, key: &FoundKey) {
        let Some(seen) = &self.seen else { return };
        let mut found = seen.found.lock().unwrap_or_else(PoisonError::into_inner);
        let count = found.count.entry(key.id.clone()).or_default();
        *count = count.saturating_add(1);
        if *count <= PLACES_MAX {
            found.sightings.extend(seen.sighting(candidate, item, self));
        }
    }

    /// Says of what was seen in git where it is.
    pub(super) fn place_seen(&self, places: &Places) {
        let Some(seen) = &self.seen else { return };
        let Some(repository) = &seen.at.repository else { return };
        let repository = seen.named(repository);
        let mut found = seen.found.lock().unwrap_or_else(PoisonError::into_inner);
        for sighting in &mut found.sightings {
            placed::tell(sighting, &repository, places, &|path| self.shown(path));
        }
    }

    /// Where registered keys were seen, if the scan [remembers](Self::remembering) that, in the order of
    /// their places. Asked once.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        let Some(seen) = &self.seen else { return Vec::new() };
        let mut found = seen.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sightings = std::mem::take(&mut found.sightings);
        // The brake counts in this order, whichever thread was first.
        sightings.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        sightings
    }
}
