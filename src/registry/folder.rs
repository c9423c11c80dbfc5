//! The registry's folder: mode 0700, and in it the database and the pepper, mode 0600.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{RegistryError, Result};
use crate::secret::Keyring;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Longest pepper file, in bytes.
const PEPPER_MAX: u64 = 4_096;

/// The database of a registry folder.
#[must_use]
pub fn database(dir: &Path) -> PathBuf {
    dir.join("registry.db")
}

/// Size of the write-ahead log beside the database; 0 where there is none.
pub(super) fn log_bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join("registry.db-wal")).map_or(0, |meta| meta.len())
}

/// Whether the database belongs to the user of this process.
pub(super) fn is_own(dir: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    fs::metadata(database(dir)).is_ok_and(|meta| meta.uid() == user)
}

/// What root makes in somebody's folder is to be theirs: who runs the daemon must get at it.
pub fn give_to_owner(made: &File, folder: &Path) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (folder, meta) = (fs::metadata(folder)?, made.metadata()?);
    if (meta.uid(), meta.gid()) == (folder.uid(), folder.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(made, Some(folder.uid()), Some(folder.gid()))
}

/// Makes a folder for its user alone, and those it lies in; by root, for who owns the one that is there.
pub fn make(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    make(parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(dir) {
        Ok(()) => {}
        // Another process was first; what else is there is no folder.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
        Err(error) => return Err(error),
    }
    // Who owns the folder above may have put something else there meanwhile.
    let made = opening(OFlags::DIRECTORY | OFlags::NOFOLLOW).read(true).open(dir)?;
    give_to_owner(&made, parent)
}

fn opening(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    options
}

/// A file to be locked, in a folder that may be somebody else's: no link, and nothing that waits.
pub fn open_lock(path: &Path) -> std::io::Result<File> {
    let mut options = opening(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let options = options.write(true).mode(FILE_MODE);
    // Only what was made here is given away: what is there already may be another name of any file.
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            give_to_owner(&file, path.parent().unwrap_or(Path::new("/")))?;
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let file = options.open(path)?;
            match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(std::io::Error::other("not a regular file")),
            }
        }
        Err(error) => Err(error),
    }
}

/// The pepper file of a registry folder.
#[must_use]
pub fn pepper(dir: &Path) -> PathBuf {
    dir.join("pepper")
}

/// The name under which the service manager may hand over the pepper.
const PEPPER_CREDENTIAL: &str = "leakwarden.pepper";

/// A secret that the service manager hands over (systemd's `LoadCredential`). It sees to it that
/// nobody else reads the file.
#[must_use]
pub fn credential(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    Some(folder.join(name)).filter(|path| folder.is_absolute() && path.exists())
}

/// The pepper that counts: what the service manager hands over, or else the file beside the database.
pub(super) fn used_pepper(dir: &Path) -> PathBuf {
    credential(PEPPER_CREDENTIAL).unwrap_or_else(|| pepper(dir))
}

/// Whether there is a registry that this user may read.
#[must_use]
pub fn is_readable(dir: &Path) -> bool {
    [database(dir), used_pepper(dir)].iter().all(|path| File::open(path).is_ok())
}

/// Makes the folder, a new pepper and an empty database file.
pub(super) fn create(dir: &Path) -> Result<Keyring> {
    if database(dir).exists() || pepper(dir).exists() {
        return Err(RegistryError::Exists(dir.to_owned()));
    }
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
        // An empty folder is taken over, and closed to others.
        fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE)).map_err(|source| {
            RegistryError::File { doing: "close to others", path: dir.to_owned(), source }
        })?;
    } else if !dir.exists() {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir).map_err(|source| {
            RegistryError::File { doing: "create", path: dir.to_owned(), source }
        })?;
    }
    check_mode(dir, FOLDER_MODE)?;
    let keyring = Keyring::generate()?;
    write_new(&pepper(dir), keyring.render().as_bytes())?;
    // SQLite gives its -wal and -shm the mode of the database, so the file is made first.
    write_new(&database(dir), b"")?;
    sync_folder(dir)?;
    Ok(keyring)
}

/// Replaces the pepper file by one with more in it; there is a whole one at every moment.
pub(super) fn replace_pepper(dir: &Path, keyring: &Keyring) -> Result<()> {
    if let Some(credential) = credential(PEPPER_CREDENTIAL) {
        return Err(RegistryError::Refused(format!(
            "the pepper is the credential {}, which cannot be changed here; rotate it where it is \
             the file `pepper` of the registry's folder",
            credential.display()
        )));
    }
    let (path, part) = (pepper(dir), dir.join("pepper.part"));
    let failed = |doing| {
        let path = path.clone();
        move |source| RegistryError::File { doing, path, source }
    };
    if part.exists() {
        fs::remove_file(&part).map_err(failed("remove"))?;
    }
    let made = write_file(&part, keyring.render().as_bytes())?;
    give_to_owner(&made, dir).map_err(failed("give to its owner"))?;
    fs::rename(&part, &path).map_err(failed("replace"))?;
    sync_folder(dir)
}

/// First bytes of every SQLite database.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Bytes that are missing at the end of a database file, by what its header says. Read before SQLite
/// opens it, which takes a file that is cut short for a smaller database, and writes into it.
/// Source: the database header of SQLite's file format.
pub(super) fn missing_bytes(path: &Path) -> Result<u64> {
    let failed = |source| RegistryError::File { doing: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len == 0 {
        return Err(RegistryError::Empty(path.to_owned()));
    }
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header).map_err(failed)?;
    if header.len() < HEADER || !header.starts_with(MAGIC) {
        return Err(RegistryError::Damaged(format!("{} is no database", path.display())));
    }
    let number = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().map_or(0, u32::from_be_bytes)
    };
    let page_bytes = match number(16) >> 16 {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    // The count of pages holds if it was written at the last change.
    let pages = if number(24) == number(92) { u64::from(number(28)) } else { 0 };
    Ok((pages * page_bytes).saturating_sub(len))
}

/// Length of a database's header, in bytes.
const HEADER: usize = 100;

/// Everything in the folder that others can reach.
pub(super) fn loose(dir: &Path) -> Vec<RegistryError> {
    let folder = check_mode(dir, FOLDER_MODE).err();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| check_mode(&entry.path(), FILE_MODE).err());
    folder.into_iter().chain(files).collect()
}

/// Checks the modes and reads the pepper.
pub(super) fn open(dir: &Path) -> Result<Keyring> {
    let handed_over = credential(PEPPER_CREDENTIAL);
    let (database, pepper) = (database(dir), used_pepper(dir));
    let there = |path: &Path| {
        path.try_exists().map_err(|source| RegistryError::File {
            doing: "look at",
            path: path.to_owned(),
            source,
        })
    };
    if !there(&database)? {
        return Err(RegistryError::Missing(dir.to_owned()));
    }
    if !there(&pepper)? {
        return Err(RegistryError::NoPepper(pepper));
    }
    check_mode(dir, FOLDER_MODE)?;
    check_mode(&database, FILE_MODE)?;
    if handed_over.is_none() {
        check_mode(&pepper, FILE_MODE)?;
    }
    let mut text = Zeroizing::new(String::new());
    File::open(&pepper)
        .and_then(|file| file.take(PEPPER_MAX).read_to_string(&mut text))
        .map_err(|source| RegistryError::File { doing: "read", path: pepper.clone(), source })?;
    Keyring::parse(&text).map_err(|source| RegistryError::Pepper { path: pepper, source })
}

/// Writes a new file of mode 0600 to the disk; one that exists is an error.
pub fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    write_file(path, content).map(|_| ())
}

fn write_file(path: &Path, content: &[u8]) -> Result<File> {
    let failed = |source| RegistryError::File { doing: "create", path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(FILE_MODE).open(path).map_err(failed)?;
    match file.write_all(content).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(file),
        Err(error) => {
            // A part of it is of no use; that it cannot be removed is the smaller fault.
            let _removed = fs::remove_file(path).is_ok();
            Err(failed(error))
        }
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(|source| RegistryError::File {
        doing: "write",
        path: dir.to_owned(),
        source,
    })
}

/// Opens a file to be read; one that group or others can reach is refused.
pub fn open_private(path: &Path) -> Result<File> {
    let failed = |source| RegistryError::File { doing: "read", path: path.to_owned(), source };
    let file = opening(OFlags::NONBLOCK).read(true).open(path).map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?, FILE_MODE)?;
    Ok(file)
}

fn check_mode(path: &Path, wanted: u32) -> Result<()> {
    let meta = fs::metadata(path).map_err(|source| RegistryError::File {
        doing: "look at",
        path: path.to_owned(),
        source,
    })?;
    check(path, &meta, wanted)
}

fn check(path: &Path, meta: &Metadata, wanted: u32) -> Result<()> {
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(RegistryError::Loose { path: path.to_owned(), mode, wanted })
}
