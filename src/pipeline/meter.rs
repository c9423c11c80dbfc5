//! What the watches and the recorder count, for whoever asks how the daemon does.

use std::sync::atomic::{AtomicU64, Ordering};

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
}
