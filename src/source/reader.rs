//! Opens regular files, and nothing else, and pumps them into a sink.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

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
    open_at(CWD, path, links)
}

/// The same below a folder: no folder on the way may be a link, so that what is read lies there,
/// also when somebody puts a link in a folder's place meanwhile.
pub fn open_below(root: &Path, path: &Path, links: Links) -> io::Result<(File, Stat)> {
    let inner = path.strip_prefix(root).unwrap_or(Path::new(""));
    let (Some(parent), Some(name)) = (inner.parent(), inner.file_name()) else {
        return open(path, links);
    };
    let folder =
        openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if parent == Path::new("") {
        return open_at(folder.as_fd(), Path::new(name), links);
    }
    let folder = folder_below(folder.as_fd(), parent, OFlags::PATH)?;
    open_at(folder.as_fd(), Path::new(name), links)
}

/// Opens a folder at a path below another one; no part of the path may be a link.
pub fn folder_below(folder: BorrowedFd<'_>, path: &Path, how: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parts = path.iter();
    let Some(first) = parts.next() else { return Err(Errno::NOENT.into()) };
    if parts.as_path() == Path::new("") {
        return Ok(openat(folder, first, how | flags, Mode::empty())?);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(folder, path, how | flags, Mode::empty(), resolve) {
        Ok(inner) => return Ok(inner),
        // Older kernels do not know the call, and what confines this process may refuse it.
        Err(Errno::NOSYS | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut inner = openat(folder, first, OFlags::PATH | flags, Mode::empty())?;
    while let Some(part) = parts.next() {
        let is_last = parts.as_path() == Path::new("");
        let how = if is_last { how } else { OFlags::PATH };
        inner = openat(&inner, part, how | flags, Mode::empty())?;
    }
    Ok(inner)
}

/// The same from an open folder.
pub fn open_at(folder: BorrowedFd<'_>, path: &Path, links: Links) -> io::Result<(File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let straight = if links == Links::Follow { flags } else { flags | OFlags::NOFOLLOW };
    let file = match openat(folder, path, straight, Mode::empty()) {
        Err(Errno::LOOP) if links == Links::OfOwner => follow_of_owner(folder, path, flags)?,
        other => File::from(other?),
    };
    let stat = stat(&file)?;
    Ok((file, stat))
}

/// Goes where a link leads, if whoever made it may say so.
fn follow_of_owner(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<File> {
    let link =
        openat(folder, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let made_by = rustix::fs::fstat(&link)?.st_uid;
    let target = rustix::fs::readlinkat(&link, "", Vec::new())?.into_bytes();
    let target = PathBuf::from(OsString::from_vec(target));
    // From the folder that the link is in.
    let near = path.parent().unwrap_or(Path::new("")).join(target);
    let file = File::from(openat(folder, &near, flags, Mode::empty())?);
    if made_by != 0 && made_by != file.metadata()?.uid() {
        let why = "a symbolic link that is not of the file's owner";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(file)
}

/// What the file system says of an open file.
pub fn stat(file: &File) -> io::Result<Stat> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(stat_of(&meta))
}

/// What the file system said of a file.
#[must_use]
pub fn stat_of(meta: &std::fs::Metadata) -> Stat {
    let nanos =
        |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let inode = nanos(meta.ctime(), meta.ctime_nsec());
    let content = nanos(meta.mtime(), meta.mtime_nsec());
    // A time in the future can be put back after a change; then the inode's time tells of it.
    let future = content.saturating_sub(inode).max(0);
    Stat {
        dev: meta.dev(),
        ino: meta.ino(),
        size: meta.size(),
        changed_ns: inode.saturating_add(future / 2).saturating_abs(),
        world_readable: meta.mode() & 0o004 != 0,
    }
}

/// What a file system of this kind holds lies on no disk: asking for it may never end.
#[must_use]
pub fn is_of_kernel(folder: &Path) -> bool {
    const KINDS: [u32; 12] = [
        0x0000_9fa0, // proc
        0x6265_6572, // sysfs
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x7363_6673, // securityfs
        0xf97c_ff8c, // selinuxfs
        0xcafe_4a11, // bpf
        0x6265_6570, // configfs
        0x0000_1cd1, // devpts
        0x1980_0202, // mqueue
    ];
    let kind = rustix::fs::statfs(folder).map(|about| about.f_type);
    kind.is_ok_and(|kind| {
        KINDS.iter().any(|known| u32::try_from(kind).is_ok_and(|kind| kind == *known))
    })
}

/// Up to so many bytes at a place of a file; fewer at its end.
pub fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(space) = bytes.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read_at(space, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
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
            Some(code) if code == Errno::LOOP.raw_os_error() => "a symbolic link".to_owned(),
            Some(code) if code == Errno::NXIO.raw_os_error() => "not a regular file".to_owned(),
            _ => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_part_of_a_path_below_a_folder_may_be_a_link() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("a/b/c")).unwrap();
        symlink("a", tree.path().join("link")).unwrap();
        symlink("b", tree.path().join("a/link")).unwrap();
        let folder = File::open(tree.path()).unwrap();
        for (path, is_open) in [
            ("a", true),
            ("a/b", true),
            ("a/b/c", true),
            ("link", false),
            ("link/b", false),
            ("a/link", false),
            ("a/link/c", false),
            ("", false),
        ] {
            let opened = folder_below(folder.as_fd(), Path::new(path), OFlags::RDONLY);
            assert_eq!(opened.is_ok(), is_open, "{path}");
        }
    }
}
