//! Objects by git itself, as a stream: those that are too large to be held, and those that we
//! could not put together.
//!
//! git is called hardened, and with a limit on its memory: an object that ends it is one that was
//! not read, and the next one is asked of a new git.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::process::Child;

use gix_hash::ObjectId;
use gix_object::Kind;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::repository::Repository;
use super::{Call, start};
use crate::source::SourceError;

/// What git maps of packs, and keeps of bases, at once.
const FRUGAL: &[&str] = &[
    "-c",
    "core.packedGitWindowSize=16m",
    "-c",
    "core.packedGitLimit=64m",
    "-c",
    "core.deltaBaseCacheLimit=16m",
    "-c",
    "core.bigFileThreshold=32m",
];
/// What git itself takes, beside objects, in bytes.
const GIT_BYTES: u64 = 160 << 20;
/// Longest line between two objects, in bytes.
const LINE_MAX: u64 = 512;

/// Takes the objects of a stream.
pub(super) trait Take {
    /// An object; what is not read of its bytes is passed over. `false`: no more.
    fn object(&mut self, id: ObjectId, kind: Kind, size: u64, bytes: &mut dyn BufRead) -> bool;
    /// An object that git could not read.
    fn unread(&mut self, id: ObjectId, why: &str);
}

/// What is asked for.
pub(super) enum Asked {
    /// Every object there is, in the order of the packs.
    All,
    /// These.
    These(Vec<ObjectId>),
}

/// Reads objects by `git cat-file`; `memory`: what git may take for them, in bytes.
pub(super) fn read(
    repository: &Repository,
    asked: Asked,
    memory: u64,
    take: &mut dyn Take,
) -> Result<(), SourceError> {
    let mut left: VecDeque<ObjectId> = match asked {
        Asked::These(ids) => ids.into(),
        Asked::All => return run(repository, None, memory, take).map(|_| ()),
    };
    while let Some(&first) = left.front() {
        let before = left.len();
        match run(repository, Some(&mut left), memory, take) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // The next one would wait for the same.
            Err(error @ SourceError::Idle { .. }) => return Err(error),
            Err(error) if left.len() == before => {
                left.pop_front();
                take.unread(first, &error.to_string());
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// One git, until it or the objects end. `false`: no more is wanted.
fn run(
    repository: &Repository,
    mut left: Option<&mut VecDeque<ObjectId>>,
    memory: u64,
    take: &mut dyn Take,
) -> Result<bool, SourceError> {
    let mut command = repository.command();
    command.args(FRUGAL).args(["cat-file", "--batch", "--buffer"]);
    if left.is_none() {
        command.args(["--batch-all-objects", "--unordered"]);
    }
    let asked: Option<String> =
        left.as_ref().map(|left| left.iter().map(|id| format!("{id}\n")).collect());
    let input = asked.as_ref().map(String::as_bytes);
    let running = start(command, input)?;
    bound(&running.child, memory.saturating_add(GIT_BYTES));
    let mut enough = false;
    let call = Call { name: "git cat-file", input, until: None };
    let outcome = running.read(call, |stdout| {
        loop {
            match one(stdout, take) {
                Ok(Next::Object) => {
                    left.as_mut().and_then(|left| left.pop_front());
                }
                Ok(Next::End) => return Ok(()),
                Ok(Next::NoMore) => {
                    enough = true;
                    return Err(SourceError::Git("it is enough".to_owned()));
                }
                Err(source) => {
                    return Err(SourceError::Read { name: call.name.to_owned(), source });
                }
            }
        }
    });
    if enough {
        return Ok(false);
    }
    outcome?;
    if left.is_some_and(|left| !left.is_empty()) {
        return Err(SourceError::Git("git cat-file ended early".to_owned()));
    }
    Ok(true)
}

/// Limits the address space of a child: what is too much ends it, not the host.
fn bound(child: &Child, bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Without the limit the object is read all the same.
        let _bounded = prlimit(Some(pid), Resource::As, limit).is_ok();
    }
}

enum Next {
    Object,
    NoMore,
    End,
}

/// `ID KIND SIZE`, then so many bytes and a newline.
fn one(stdout: &mut dyn BufRead, take: &mut dyn Take) -> io::Result<Next> {
    let mut line = Vec::new();
    stdout.take(LINE_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Next::End);
    }
    let text = String::from_utf8_lossy(&line);
    let mut words = text.split_ascii_whitespace();
    let id = words.next().and_then(|id| ObjectId::from_hex(id.as_bytes()).ok());
    let kind = words.next().unwrap_or_default();
    let size = words.next().and_then(|size| size.parse().ok());
    let (Some(id), Ok(kind), Some(size)) = (id, Kind::from_bytes(kind.as_bytes()), size) else {
        return match id {
            Some(id) => {
                let missing = kind == "missing";
                take.unread(id, if missing { "it is missing" } else { "git does not know it" });
                Ok(Next::Object)
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "not what was asked for")),
        };
    };
    let mut bytes = stdout.take(size);
    let goes_on = take.object(id, kind, size, &mut bytes);
    if !goes_on {
        return Ok(Next::NoMore);
    }
    io::copy(&mut bytes, &mut io::sink())?;
    if bytes.limit() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut newline = [0];
    stdout.read_exact(&mut newline)?;
    Ok(Next::Object)
}
