//! journalctl as a child: started, listened to, and ended with us.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};

use super::Options;
use crate::source::SourceError;
use crate::text;

/// Where it is. Neither the environment nor the configuration says which program is run.
const PLACES: [&str; 3] =
    ["/usr/bin/journalctl", "/bin/journalctl", "/run/current-system/sw/bin/journalctl"];
/// Longest wait for something to come: so often a stop is looked for.
const WAIT: Duration = Duration::from_millis(250);
/// What is kept of what it complains about, in bytes.
const SAID_MAX: usize = 1_000;

/// journalctl of this host.
fn find() -> Result<&'static Path, SourceError> {
    let runs = |place: &&Path| access(*place, Access::EXEC_OK).is_ok();
    let there = PLACES.iter().map(Path::new).find(runs);
    there.ok_or(SourceError::NoJournalctl(PLACES))
}

/// Whether the journal can be read here.
pub fn check() -> Result<(), SourceError> {
    find().map(|_| ())
}

fn units(options: &Options) -> impl Iterator<Item = String> {
    options.units.iter().map(|unit| format!("--unit={unit}"))
}

/// What came within [`WAIT`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// So many bytes.
    Bytes(usize),
    /// Nothing.
    Nothing,
    /// The end: it ended.
    End,
}

/// A journalctl that runs.
pub(super) struct Program {
    child: Child,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    /// What it complained about and nobody asked for yet.
    said: Vec<u8>,
    /// The last of it.
    last: String,
}

impl Program {
    /// All entries behind the cursor, and those that come.
    pub(super) fn follow(options: &Options, cursor: Option<&str>) -> Result<Self, SourceError> {
        let mut arguments = vec!["--follow".to_owned(), "--no-tail".to_owned()];
        arguments.extend(units(options));
        arguments.extend(cursor.map(|cursor| format!("--after-cursor={cursor}")));
        Self::start(options, &arguments)
    }

    /// The last entry there is.
    pub(super) fn last(options: &Options) -> Result<Self, SourceError> {
        Self::start(options, &["--lines=1".to_owned(), "--quiet".to_owned()])
    }

    /// What was written from one time to another, both in microseconds of the Unix epoch and
    /// included; the newest first.
    pub(super) fn between(options: &Options, from: u64, to: u64) -> Result<Self, SourceError> {
        let time = |micros: u64| format!("@{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let mut arguments = vec!["--reverse".to_owned(), "--quiet".to_owned()];
        arguments.extend([format!("--since={}", time(from)), format!("--until={}", time(to))]);
        arguments.extend(units(options));
        Self::start(options, &arguments)
    }

    fn start(options: &Options, arguments: &[String]) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Read { name: "journalctl".to_owned(), source };
        let mut command = Command::new(find()?);
        command.args(["--output=export", "--all", "--no-pager"]).args(arguments);
        if let Some(folder) = &options.directory {
            let mut argument = std::ffi::OsString::from("--directory=");
            argument.push(folder);
            command.arg(argument);
        }
        command.env_clear().env("LC_ALL", "C.UTF-8").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stdout = stdout.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { child, stdout, stderr, said: Vec::new(), last: String::new() })
    }

    /// Waits a little for what it writes.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Came, SourceError> {
        let failed = |source| SourceError::Read { name: "journalctl".to_owned(), source };
        self.wait(buffer).map_err(failed)
    }

    fn wait(&mut self, buffer: &mut [u8]) -> io::Result<Came> {
        let wait = Timespec::try_from(WAIT).map_err(io::Error::other)?;
        let mut polled = vec![PollFd::from_borrowed_fd(self.stdout.as_fd(), PollFlags::IN)];
        if let Some(stderr) = &self.stderr {
            polled.push(PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN));
        }
        match poll(&mut polled, Some(&wait)) {
            Err(rustix::io::Errno::INTR) => return Ok(Came::Nothing),
            other => other?,
        };
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        if ready.get(1) == Some(&true) {
            self.listen()?;
        }
        if ready.first() != Some(&true) {
            return Ok(Came::Nothing);
        }
        match self.stdout.read(buffer) {
            Ok(0) => Ok(Came::End),
            Ok(count) => Ok(Came::Bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Came::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Takes in what it complains about.
    fn listen(&mut self) -> io::Result<()> {
        let Some(stderr) = &mut self.stderr else { return Ok(()) };
        let mut part = [0; SAID_MAX];
        let count = stderr.read(&mut part)?;
        if count == 0 {
            self.stderr = None;
        }
        let room = SAID_MAX.saturating_sub(self.said.len());
        self.said.extend_from_slice(part.get(..count.min(room)).unwrap_or_default());
        Ok(())
    }

    /// What it complained about since the last time, as one line.
    pub(super) fn said(&mut self) -> Option<String> {
        let said = std::mem::take(&mut self.said);
        let said = String::from_utf8_lossy(&said);
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            return None;
        }
        self.last = text::clean(line.as_bytes());
        Some(line)
    }

    /// Whether it ended well, once its output is at the end.
    pub(super) fn is_well(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Why it ended.
    pub(super) fn ended(mut self) -> SourceError {
        // It may have said why after it closed its output.
        while self.stderr.is_some() && self.listen().is_ok() {}
        let said = self.said().unwrap_or_else(|| std::mem::take(&mut self.last));
        let why = match (said.is_empty(), self.child.wait()) {
            (false, _) => said,
            (true, Ok(status)) => status.to_string(),
            (true, Err(error)) => error.to_string(),
        };
        SourceError::Ended { program: "journalctl", why }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill().is_ok();
        let _waited = self.child.wait().is_ok();
    }
}
