//! The socket in the registry's folder at which the daemon says how it does, and how it is asked.
//!
//! A socket rather than a file that is written again and again: it answers with what is true now, it
//! costs nothing while nobody asks, and it is dead when the daemon is. Only those reach it who may
//! enter the registry's folder.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DaemonError;
use super::status::Status;

/// Its name in the registry's folder.
const NAME: &str = "daemon.sock";
/// Longest wait for a daemon that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_MAX: u64 = 16 << 20;

/// A socket to listen on; its name is gone when this is dropped.
pub(super) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Makes it. The caller holds the lock of the folder: one that lies there is a dead daemon's.
    pub(super) fn bind(dir: &Path) -> Result<Self, DaemonError> {
        let path = dir.join(NAME);
        let bind = || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = within(dir, UnixListener::bind)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let failed = |error| DaemonError::System("make daemon.sock in the registry folder", error);
        let listener = bind().map_err(failed)?;
        Ok(Self { path, listener })
    }

    /// The same socket for the async runtime.
    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // One that stays is taken for dead by the next daemon.
        let _removed = std::fs::remove_file(&self.path).is_ok();
    }
}

/// The path of a socket has 108 bytes at most, that of a folder any number: so it goes by the open
/// folder.
fn within<T>(dir: &Path, open: impl Fn(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let directory = rustix::fs::OFlags::DIRECTORY.bits();
    let flags = i32::try_from(directory).map_err(io::Error::other)?;
    let folder: File = OpenOptions::new().read(true).custom_flags(flags).open(dir)?;
    open(PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd())))
}

/// Why a daemon did not say how it does.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none.
    #[error("no `leakwarden watch` runs on the registry in {0}")]
    NoDaemon(PathBuf),
    /// It cannot be reached, or says nothing.
    #[error("cannot ask the daemon of the registry in {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It says what cannot be understood: it is of another version.
    #[error("the daemon of the registry in {0} is of another version; restart it")]
    Version(PathBuf),
}

/// Asks the daemon of a registry how it does.
pub fn ask(dir: &Path) -> Result<Status, AskError> {
    let stream = match within(dir, UnixStream::connect) {
        Ok(stream) => stream,
        Err(error) => {
            use io::ErrorKind::{ConnectionRefused, NotFound};
            return Err(match error.kind() {
                NotFound | ConnectionRefused => AskError::NoDaemon(dir.to_owned()),
                _ => AskError::Io(dir.to_owned(), error),
            });
        }
    };
    let answer = talk(stream).map_err(|error| AskError::Io(dir.to_owned(), error))?;
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.contains(" 200 "));
    let status = body.and_then(|(_, body)| serde_json::from_str(body).ok());
    status.ok_or_else(|| AskError::Version(dir.to_owned()))
}

fn talk(mut stream: UnixStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /status HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
