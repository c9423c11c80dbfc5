//! Findings in a temporary file: a log may hold the same key in each of millions of lines.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

use super::Finding;

/// Bytes of each run that are read at once.
const READ_BYTES: usize = 8 << 10;

/// Runs of findings, each in order, in a file that has no name: it is gone with the process.
#[derive(Debug, Default)]
pub(super) struct Aside {
    file: Option<File>,
    /// Where each run lies.
    runs: Vec<Range<u64>>,
    pub(super) count: u64,
    pub(super) registered: u64,
}

impl Aside {
    /// Adds a run of findings that are in order. On an error it is as it was.
    pub(super) fn put(&mut self, findings: &[Finding]) -> io::Result<()> {
        if self.file.is_none() {
            // Where files may not grow any further, that is an error like others.
            signal_hook::flag::register(SIGXFSZ, Arc::default())?;
            self.file = Some(tempfile::tempfile()?);
        }
        let Some(file) = &self.file else { return Ok(()) };
        let start = self.runs.last().map_or(0, |run| run.end);
        match write(file, start, findings) {
            Ok(end) => self.runs.push(start..end),
            // A disk that is full should not stay so for this.
            Err(error) => return file.set_len(start).and(Err(error)),
        }
        self.count += findings.len() as u64;
        self.registered += findings.iter().filter(|finding| finding.key.is_some()).count() as u64;
        Ok(())
    }

    /// Calls with all of them and those `at_hand`, which are in order, in the order of all.
    pub(super) fn each(
        &self,
        at_hand: &[Finding],
        tell: &mut dyn FnMut(&Finding) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(file) = &self.file else { return at_hand.iter().try_for_each(tell) };
        let mut runs: Vec<_> = self
            .runs
            .iter()
            .map(|run| BufReader::with_capacity(READ_BYTES, Part { file, range: run.clone() }))
            .collect();
        let mut rest = at_hand.iter();
        let mut heads = BinaryHeap::new();
        let mut next = |run: usize| match runs.get_mut(run) {
            // Who tells of it may think that what he writes to is at fault.
            Some(run) => next_of(run).map_err(|error| {
                let why = format!("the temporary file with findings cannot be read: {error}");
                io::Error::new(error.kind(), why)
            }),
            None => Ok(rest.next().cloned()),
        };
        for run in 0..=self.runs.len() {
            heads.extend(next(run)?.map(|finding| Head { finding, run }));
        }
        while let Some(Head { finding, run }) = heads.pop() {
            tell(&finding)?;
            heads.extend(next(run)?.map(|finding| Head { finding, run }));
        }
        Ok(())
    }
}

/// Writes them from a place of a file on. Answers where they end.
fn write(file: &File, start: u64, findings: &[Finding]) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(64 << 10, Part { file, range: start..u64::MAX });
    for finding in findings {
        serde_json::to_writer(&mut out, finding)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(out.get_ref().range.start)
}

fn next_of(run: &mut BufReader<Part<'_>>) -> io::Result<Option<Finding>> {
    let mut line = Vec::new();
    match run.read_until(b'\n', &mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_slice(&line)?)),
    }
}

/// The first of a run that was not told. The greatest is the first in order, and of the earliest run.
struct Head {
    finding: Finding,
    run: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.finding.place(), other.run).cmp(&(self.finding.place(), self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// A part of a file, read and written from its beginning on.
struct Part<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count =
            self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
