//! Opens regular files, and nothing else, and pumps them into a sink.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::source::{Sink, Stat, Stop};

/// Whether a link in the last place of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The user named the path.
    Follow,
    /// It was met on a walk.
    Refuse,
    /// Followed where root, or the owner of the file behind it, made the link: nobody else may say
    /// that another file is a log.
    OfOwner,
}

/// Opens a regular file for reading. Never blocks on a FIFO, never takes a terminal. Anything
/// but a regular file is an error of kind `InvalidInput`.
pub fn open(path: &Path, links: Links) -> io::Result<(File, Stat)> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let stat = stat(&file)?;
    if links == Links::OfOwner {
        let link = std::fs::symlink_metadata(path)?;
        let owner = file.metadata()?.uid();
        if link.file_type().is_symlink() && link.uid() != 0 && link.uid() != owner {
            let why = "a symbolic link that is not of the file's owner";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    Ok((file, stat))
}

/// What the file system says of an open file.
pub fn stat(file: &File) -> io::Result<Stat> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let changed = (meta.mtime(), meta.mtime_nsec()).max((meta.ctime(), meta.ctime_nsec()));
    Ok(Stat {
        dev: meta.dev(),
        ino: meta.ino(),
        size: meta.size(),
        changed_ns: changed.0.saturating_mul(1_000_000_000).saturating_add(changed.1),
        world_readable: meta.mode() & 0o004 != 0,
    })
}

/// Reads to the end, or until asked to stop; answers whether the end was reached.
pub fn pump(from: &mut dyn Read, sink: &mut dyn Sink, stop: &Stop) -> io::Result<bool> {
    while !stop.is_stopped() {
        match from.read(sink.space()) {
            Ok(0) => return Ok(true),
            Ok(count) => sink.filled(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Reads a file of a known size, as it was when it was opened: to that size, or to its end.
pub fn pump_file(from: &mut dyn Read, size: u64, sink: &mut dyn Sink) -> io::Result<()> {
    let mut read = 0;
    // What says 0 may hold more (in /proc, for one).
    while size == 0 || read < size {
        match from.read(sink.space()) {
            Ok(0) => break,
            Ok(count) => {
                sink.filled(count);
                read += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies bytes that were read elsewhere into a sink.
pub fn push<S: Sink + ?Sized>(sink: &mut S, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = sink.space();
        let count = space.len().min(bytes.len());
        let (now, later) = bytes.split_at(count);
        space.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        sink.filled(count);
        bytes = later;
    }
}

/// A text for people: what is wrong with this file.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                "a symbolic link".to_owned()
            }
            Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
                "not a regular file".to_owned()
            }
            _ => error.to_string(),
        },
    }
}
