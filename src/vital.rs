//! Signs of life: that a thread turns, and how long things took. What looks at them is the daemon;
//! what gives them is any part of it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Shows that a part of the daemon turns.
///
/// Whoever has a loop of its own beats in it. A thread that may be long in one place without being
/// stuck (it walks a large tree, git reads a large pack) says which thread it is: then what the
/// system counts of it is a sign of life, too.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    resting: AtomicBool,
    /// 0: not said.
    thread: AtomicU32,
}

/// What a pulse was at one moment; two equal ones mean that nothing moved in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    beats: u64,
    ran_ns: Option<u64>,
}

impl Pulse {
    /// A loop went round.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread that calls this is the one that has this pulse.
    pub fn of_this_thread(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread.store(thread.unsigned_abs(), Ordering::Relaxed);
    }

    /// Until the answer is dropped it waits for somebody who has a pulse of his own.
    #[must_use]
    pub fn rest(&self) -> Rest<'_> {
        self.resting.store(true, Ordering::Relaxed);
        Rest(self)
    }

    /// What it is now; `None` while it rests.
    #[must_use]
    pub fn sign(&self) -> Option<Sign> {
        if self.resting.load(Ordering::Relaxed) {
            return None;
        }
        let ran_ns = Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread > 0);
        let ran_ns = ran_ns.and_then(ran_ns_of);
        Some(Sign { beats: self.beats.load(Ordering::Relaxed), ran_ns })
    }
}

/// For how long a thread of this process ran, in nanoseconds.
fn ran_ns_of(thread: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// See [`Pulse::rest`].
#[derive(Debug)]
pub struct Rest<'a>(&'a Pulse);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.beat();
        self.0.resting.store(false, Ordering::Relaxed);
    }
}

/// Upper bounds of a histogram's buckets, in seconds; what is longer is counted behind the last.
pub const BOUNDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_ms: AtomicU64,
}

impl Histogram {
    /// It took so long once more.
    pub fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// How often it took at most as long as each of [`BOUNDS`], and however long; and all together.
    #[must_use]
    pub fn read(&self) -> (Vec<u64>, Duration) {
        let mut up_to = 0;
        let counts = self.counts.iter().map(|count| {
            up_to += count.load(Ordering::Relaxed);
            up_to
        });
        let counts = counts.collect();
        (counts, Duration::from_millis(self.sum_ms.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_that_rests_gives_no_sign() {
        let pulse = Pulse::default();
        let first = pulse.sign();
        assert_eq!(first, pulse.sign());
        let rest = pulse.rest();
        assert_eq!(pulse.sign(), None);
        drop(rest);
        assert_ne!(pulse.sign(), first, "it moved");
        pulse.of_this_thread();
        assert!(pulse.sign().unwrap().ran_ns.is_some());
    }

    #[test]
    fn a_histogram_counts_up() {
        let histogram = Histogram::default();
        for ms in [10, 50, 51, 3_000_000] {
            histogram.add(Duration::from_millis(ms));
        }
        let (counts, sum) = histogram.read();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(sum, Duration::from_millis(3_000_111));
    }
}
