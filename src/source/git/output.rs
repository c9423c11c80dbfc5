//! What git writes, waited for as long as git works.
//!
//! A repository can hold a pipe in the place of a file: git opens it and waits for ever. So git
//! that neither writes nor computes nor waits for a disk for some seconds is given up.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Seconds without any work after which git is given up.
pub(super) const IDLE_MAX: u64 = 10;
/// A git that writes nothing is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many looks at a git that does nothing.
const IDLE_LOOKS_MAX: u64 = IDLE_MAX * 2;
/// Which word behind the name of a process is its state, and which are its CPU times.
const STATE: usize = 0;
const TIMES: std::ops::RangeInclusive<usize> = 11..=12;

/// Standard output of a git.
pub(super) struct Output<'a> {
    pub(super) stdout: ChildStdout,
    /// Its process.
    pub(super) id: u32,
    /// When it is no longer waited for, whatever it does.
    pub(super) until: Option<Instant>,
    /// Set when it was given up because it does nothing.
    pub(super) idle: &'a Cell<bool>,
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut last, mut idle_looks) = (None, 0);
        while !self.is_ready()? {
            let work = Work::of(self.id);
            let works = work.is_some_and(|work| work.goes_on) || work != last;
            last = work;
            // Looks are counted, not time: we may have been stopped ourselves, and git with us.
            idle_looks = if works { 0 } else { idle_looks + 1 };
            let idle = idle_looks >= IDLE_LOOKS_MAX;
            if idle || self.until.is_some_and(|until| Instant::now() >= until) {
                self.idle.set(idle);
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        self.stdout.read(buffer)
    }
}

impl Output<'_> {
    /// Whether there is something to read, or the end; waits a little for it.
    fn is_ready(&self) -> io::Result<bool> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut polled = [PollFd::from_borrowed_fd(self.stdout.as_fd(), PollFlags::IN)];
        Ok(poll(&mut polled, Some(&wait))? > 0)
    }
}

/// What a process has done.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Work {
    /// It runs, could run, or waits for a disk.
    goes_on: bool,
    /// CPU time, in ticks.
    ticks: u64,
}

impl Work {
    /// `None`: the system does not say.
    fn of(process: u32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{process}/stat")).ok()?;
        // The name before may hold anything, also brackets.
        let at = memchr::memrchr(b')', &text)? + 1;
        let words = String::from_utf8_lossy(text.get(at..)?).into_owned();
        let words: Vec<&str> = words.split_ascii_whitespace().collect();
        let times = words.get(TIMES)?.iter().map(|time| time.parse::<u64>().ok());
        let goes_on = matches!(*words.get(STATE)?, "R" | "D");
        Some(Self { goes_on, ticks: times.sum::<Option<u64>>()? })
    }
}
