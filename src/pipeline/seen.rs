//! Where a scan sees registered keys, for those who respond to it: written to the ledger in small
//! transactions, so that little waits in memory, nobody waits long for the database, and little is lost
//! with a scan that is ended. What cannot be written is kept, and tried again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{Asked, Scan, placed};
use crate::clock;
use crate::finding::FoundKey;
use crate::ledger::{self, Batch, Sighting};
use crate::matcher::Candidate;
use crate::registry::RegistryError;
use crate::secret::{Digest, to_hex};
use crate::source::git::history::Places;
use crate::source::git::poll;
use crate::source::{Item, Kind, absolute, follow, path_id};
use crate::text::plural;

/// Sightings that are written in one transaction.
const TOGETHER: usize = 256;
/// After the database could not be written to, it is tried again this much later.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How a scan records.
#[derive(Debug)]
pub struct Recording {
    /// Name of the host.
    pub host: String,
    /// The current folder, by which paths are completed.
    pub folder: PathBuf,
    /// How leaks are decided.
    pub options: ledger::Options,
}

/// What a scan has found could not all be recorded.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} of registered keys could not be recorded, so that nothing is done about them: {why}",
    plural(*count, "place")
)]
pub struct Unrecorded {
    /// How many.
    pub count: u64,
    /// Why not.
    pub why: String,
}

/// Sightings of one scan.
pub(super) struct Seen {
    recording: Recording,
    /// The folder of the repository that is read, if one is.
    repository: OnceLock<PathBuf>,
    /// What stands for this run, where what is read has no name that lasts.
    run: uuid::Uuid,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Not written yet.
    sightings: Vec<Sighting>,
    /// The database could not be written to: when it is tried again.
    again: Option<Instant>,
    /// By id.
    keys: HashMap<String, Digest>,
}

impl Seen {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sighting(
        &self,
        digest: Digest,
        candidate: &Candidate,
        item: &Item,
        scan: &Scan,
    ) -> Sighting {
        let repository = self.repository.get();
        let place = match (item.kind, repository) {
            (Kind::File | Kind::Reflog, _) => absolute(&self.recording.folder, &item.path),
            (Kind::Ref, Some(repository)) => repository.join(&item.path),
            // Of what is in an object, the place is told by the object.
            _ => item.path.clone(),
        };
        let is_file = matches!(item.kind, Kind::File | Kind::Reflog);
        let real = is_file.then(|| std::fs::canonicalize(&place).unwrap_or_else(|_| place.clone()));
        // Files and what git keeps are named as the daemon names them: what it has seen is not new.
        let stream = match (&real, item.kind, repository) {
            (Some(real), _, _) => follow::stream_of(real),
            (None, Kind::Ref, Some(folder)) => poll::stream_of_name(folder, &item.path),
            (None, kind, Some(folder)) if kind.is_in_git() => {
                format!("{}:{}", poll::stream_of(folder), item.path.display())
            }
            _ => format!("scan:{}:{}", self.run, to_hex(&path_id(&item.path))),
        };
        Sighting {
            digest,
            checked: false,
            source: item.kind.as_str().to_owned(),
            stream,
            path: scan.shown(&place),
            other_stream: real.as_ref().map(|_| follow::stream_of(&place)),
            place,
            real,
            commit: None,
            line: candidate.line,
            column: candidate.column,
            offset: candidate.start,
            host: self.recording.host.clone(),
            seen_at: clock::now(),
            world_readable: item.stat.world_readable,
            again: false,
        }
    }
}

impl Scan {
    /// Has the scan record where it sees registered keys.
    #[must_use]
    pub fn recording(mut self, recording: Recording) -> Self {
        let (run, repository) = (uuid::Uuid::new_v4(), OnceLock::new());
        self.seen = Some(Seen { recording, repository, run, found: Mutex::default() });
        self
    }

    /// Says which repository is read: its [folder](crate::source::git::history::History::folder).
    pub fn reads_repository(&self, folder: PathBuf) {
        if let Some(seen) = &self.seen {
            seen.repository.get_or_init(|| folder);
        }
    }

    /// Takes one place of a registered key, if the scan records.
    pub(super) fn saw(&self, candidate: &Candidate, item: &Item, key: &FoundKey) {
        let (Some(seen), Asked::Registry(filter, _)) = (&self.seen, &self.asked) else { return };
        let digest = filter.digest(candidate.secret.expose());
        let sighting = seen.sighting(digest, candidate, item, self);
        let mut found = seen.found();
        found.keys.entry(key.id.clone()).or_insert(digest);
        found.sightings.push(sighting);
        // Who reads does not wait again for a database that is busy.
        let full = found.sightings.len() >= TOGETHER && found.again.is_none();
        drop(found);
        if full {
            self.record_seen();
        }
    }

    /// Writes what was seen until now; what is in git waits for its places.
    pub fn record_seen(&self) {
        let Some(seen) = &self.seen else { return };
        let mut found = seen.found();
        let is_time = found.again.is_none_or(|again| again <= Instant::now());
        if is_time && seen.repository.get().is_none() {
            let sightings = std::mem::take(&mut found.sightings);
            drop(found);
            // It is told at the end, if it fails again.
            let _kept = self.record(seen, sightings).is_ok();
        }
    }

    /// Writes sightings; those that cannot be written wait again.
    fn record(&self, seen: &Seen, mut sightings: Vec<Sighting>) -> Result<(), RegistryError> {
        let Asked::Registry(_, registry) = &self.asked else { return Ok(()) };
        // The brake counts in this order, whichever thread was first.
        sightings.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        while !sightings.is_empty() {
            let part = sightings.get(..TOGETHER.min(sightings.len())).unwrap_or_default();
            let batch = Batch { sightings: part, offsets: &[], ready: &[], forgotten: 0 };
            let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
            let (options, now) = (&seen.recording.options, clock::now());
            if let Err(error) = ledger::record_beside(&mut registry, &batch, options, now) {
                let mut found = seen.found();
                found.again = Some(Instant::now() + AGAIN_AFTER);
                found.sightings.append(&mut sightings);
                return Err(error);
            }
            sightings.drain(..part.len());
        }
        Ok(())
    }

    /// Says of what was seen in git where it is.
    pub(super) fn place_seen(&self, places: &Places) {
        let Some(seen) = &self.seen else { return };
        let Some(repository) = seen.repository.get() else { return };
        for sighting in &mut seen.found().sightings {
            placed::tell(sighting, repository, places, &|path: &Path| self.shown(path));
        }
    }

    /// The keys that were seen.
    #[must_use]
    pub fn seen(&self) -> Vec<Digest> {
        let Some(seen) = &self.seen else { return Vec::new() };
        seen.found().keys.values().copied().collect()
    }

    /// Writes what is not written yet.
    pub fn record_rest(&self) -> Result<(), Unrecorded> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let sightings = std::mem::take(&mut seen.found().sightings);
        let outcome = self.record(seen, sightings);
        outcome.map_err(|error| {
            let count = seen.found().sightings.len() as u64;
            Unrecorded { count, why: error.to_string() }
        })
    }
}
