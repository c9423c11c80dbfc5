//! What the watches and the recorder count, for whoever asks how the daemon does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The log tells this often at most that a watch is degraded, whichever it is.
const DEGRADED_EVERY: Duration = Duration::from_secs(60);

/// A number that threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// So many fewer.
    pub fn take(&self, fewer: u64) {
        self.0.fetch_sub(fewer, Ordering::Relaxed);
    }

    /// Another number.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that is counted, since the start.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes read.
    pub bytes: Count,
    /// Lines read; the unfinished last one of a log counts when it is finished.
    pub lines: Count,
    /// Files read, and parts of logs.
    pub files: Count,
    /// What looked like a key.
    pub candidates: Count,
    /// Candidates that are registered.
    pub registered: Count,
    /// Files and folders that could not be read, each told once.
    pub unreadable: Count,
    /// Batches that wait for the recorder.
    pub queued: Count,
    /// From handing over to writing, in milliseconds, the last time.
    pub lag_ms: Count,
    /// Attempts to write that the database refused, and questions that it did not answer.
    pub errors: Count,
    /// By the watch's name. One that ended stays: counts do not go back.
    watches: Mutex<BTreeMap<String, Arc<OfWatch>>>,
    degraded_told: Mutex<Option<Instant>>,
}

/// What is counted of one watch, since the start.
#[derive(Debug, Default)]
pub struct OfWatch {
    /// Bytes that were there and are gone unread, at least so many.
    pub lost_bytes: Count,
    /// Looks at everything because file events were lost.
    pub rescans: Count,
    /// From handing over to writing, in milliseconds, the last time.
    pub lag_ms: Count,
    degraded: Mutex<Option<String>>,
}

impl Meter {
    /// The counts of the watch of that name.
    #[must_use]
    pub fn of_watch(&self, name: &str) -> Arc<OfWatch> {
        held(&self.watches).entry(name.to_owned()).or_default().clone()
    }

    /// All watches that there were, by name.
    #[must_use]
    pub fn watches(&self) -> Vec<(String, Arc<OfWatch>)> {
        held(&self.watches).iter().map(|(name, of)| (name.clone(), of.clone())).collect()
    }

    /// Whether the log may tell of a degraded watch now.
    pub(super) fn may_tell_degraded(&self) -> bool {
        let mut told = held(&self.degraded_told);
        let may = told.is_none_or(|told| told.elapsed() >= DEGRADED_EVERY);
        if may {
            *told = Some(Instant::now());
        }
        may
    }
}

impl OfWatch {
    /// Why it does less than it is meant to: changes are found by looking for them only.
    #[must_use]
    pub fn degraded(&self) -> Option<String> {
        held(&self.degraded).clone()
    }

    /// Says why, or that all is well.
    pub(super) fn set_degraded(&self, why: Option<&str>) {
        let mut degraded = held(&self.degraded);
        if degraded.as_deref() != why {
            *degraded = why.map(str::to_owned);
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
