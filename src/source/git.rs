//! git, called so that nothing a repository says is run.
//!
//! The configuration of a repository can name programs (`core.fsmonitor`, textconv, filters,
//! `diff.external`, hooks). Every call here switches them off; which switches are needed for
//! which command was measured, see `docs/security.md`. The owner check (`safe.directory`) stays on.
//! What git itself gives a hook to see what is staged or pushed (`GIT_INDEX_FILE`,
//! `GIT_OBJECT_DIRECTORY` and the like) is handed on.

mod decode;
mod finder;
pub mod history;
mod objects;
mod output;
mod places;
pub mod poll;
mod repository;
mod store;
mod stream;
mod walk;

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crate::source::diff::{self, Outcome};
use crate::source::{Kind, Sink, SourceError};
use output::{IDLE_MAX, Output};

const NOTHING_RUNS: &[&str] = &[
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.quotePath=true",
    "-c",
    "protocol.allow=never",
    "-c",
    "diff.orderFile=/dev/null",
    // git reads a file of the work tree in the place of an object where it takes them for the same,
    // but not where line ends might have to be converted.
    "-c",
    "core.autocrlf=input",
    "-c",
    "core.safecrlf=false",
    "-c",
    "core.checkStat=default",
    "-c",
    "core.trustctime=true",
];

/// Every change as the lines it adds, whatever settings and attributes say.
pub(super) const AS_ADDED_LINES: &[&str] = &[
    "--raw",
    "--patch",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--text",
    "--unified=0",
    "--inter-hunk-context=0",
    "--find-renames",
    "--ignore-submodules=none",
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-relative",
];

/// Longest error text of git that is kept, in bytes.
const STDERR_MAX: u64 = 4_096;

/// A repository whose owner git accepts.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    /// Folders of other owners that the user, or the host, trusts (`safe.directory`).
    trusted: Vec<String>,
}

impl Repository {
    /// The repository around a folder, with or without a work tree, or an error that says that
    /// there is none.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        let mut repository = Self { folder: folder.to_owned(), trusted: Vec::new() };
        match repository.ask() {
            Err(SourceError::Git(why)) if why.contains("dubious ownership") => {
                // What the user's own configuration allows is not the repository's to say.
                repository.trusted = trusted_folders();
                repository.ask()?;
            }
            other => other?,
        }
        Ok(repository)
    }

    fn ask(&self) -> Result<(), SourceError> {
        let mut command = self.command();
        command.args(["rev-parse", "--git-dir"]);
        one_line(command, "git rev-parse").map(|_| ())
    }

    /// An error where no commit is ever made: in a bare repository, or outside of a work tree.
    pub fn need_work_tree(&self) -> Result<(), SourceError> {
        let mut command = self.command();
        command.args(["rev-parse", "--is-inside-work-tree"]);
        if one_line(command, "git rev-parse")? == b"true" {
            return Ok(());
        }
        Err(SourceError::Git("this is no work tree; no commit is made here".to_owned()))
    }

    /// The id of the commit that a name stands for.
    pub fn commit(&self, name: &str) -> Result<String, SourceError> {
        let mut command = self.command();
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        command.arg(format!("{name}^{{commit}}"));
        match one_line(command, "git rev-parse") {
            Ok(id) => Ok(String::from_utf8_lossy(&id).into_owned()),
            Err(error @ SourceError::Idle { .. }) => Err(error),
            Err(_) => {
                let name = crate::text::clean(name.as_bytes());
                Err(SourceError::Git(format!("there is no commit `{name}` here")))
            }
        }
    }

    /// The one place where a program is started for a repository.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("git");
        for folder in &self.trusted {
            command.arg("-c").arg(format!("safe.directory={folder}"));
        }
        command
            .current_dir(&self.folder)
            .args(NOTHING_RUNS)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            // Settings of the repository allow no protocol then, for a git that fetches all the same.
            .env("GIT_ALLOW_PROTOCOL", "")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("LC_ALL", "C")
            .env_remove("GIT_EXTERNAL_DIFF")
            .env_remove("GIT_DIFF_OPTS")
            .env_remove("GIT_CONFIG_PARAMETERS")
            .env_remove("GIT_CONFIG_COUNT")
            .env_remove("GIT_TRACE");
        command
    }

    fn staged(&self) -> Result<Running, SourceError> {
        let mut command = self.command();
        command.args(["diff", "--cached"]).args(AS_ADDED_LINES);
        start(command, None)
    }
}

fn trusted_folders() -> Vec<String> {
    ["--system", "--global"]
        .into_iter()
        .filter_map(|scope| {
            let mut command = Command::new("git");
            command.args(["config", scope, "--get-all", "safe.directory"]).current_dir("/");
            let answer = command.stdin(Stdio::null()).output().ok()?;
            Some(String::from_utf8_lossy(&answer.stdout).lines().map(str::to_owned).collect())
        })
        .flat_map(|lines: Vec<String>| lines)
        .collect()
}

/// What the index adds to `HEAD` (or to nothing, before the first commit).
pub struct Staged {
    folder: PathBuf,
    running: Running,
}

impl Staged {
    /// Starts git, which can work while its reader is made: a hook is waited for.
    pub fn start(folder: &Path) -> Result<Self, SourceError> {
        let here = Repository { folder: folder.to_owned(), trusted: Vec::new() };
        Ok(Self { folder: folder.to_owned(), running: here.staged()? })
    }

    /// Pushes the added lines.
    pub fn read(self, sink: &mut dyn Sink) -> Result<Outcome, SourceError> {
        let error = match read_staged(self.running, sink) {
            Ok(outcome) => return Ok(outcome),
            Err(error @ SourceError::Idle { .. }) => return Err(error),
            Err(error) => error,
        };
        // `git diff` does not say that there is no repository, or whose it is.
        let repository = Repository::open(&self.folder)?;
        if repository.trusted.is_empty() {
            return Err(error);
        }
        read_staged(repository.staged()?, sink)
    }
}

fn read_staged(running: Running, sink: &mut dyn Sink) -> Result<Outcome, SourceError> {
    let call = Call { name: "git diff --cached", input: None, until: None };
    let outcome = running.read(call, |input| diff::run(input, Kind::Staged, sink))?;
    outcome.check(call.name)?;
    Ok(outcome)
}

/// How git is called.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// For errors.
    pub(super) name: &'a str,
    /// Its standard input.
    pub(super) input: Option<&'a [u8]>,
    /// When its answer is no longer waited for. One that does nothing at all is given up before.
    pub(super) until: Option<Instant>,
}

/// Runs git and reads what it writes, while it writes.
pub(super) fn run<T>(
    command: Command,
    call: Call<'_>,
    read: impl FnOnce(&mut dyn BufRead) -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    start(command, call.input)?.read(call, read)
}

/// git at work.
struct Running {
    child: Child,
    errors: JoinHandle<Vec<u8>>,
}

fn start(mut command: Command, input: Option<&[u8]>) -> Result<Running, SourceError> {
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_start(&error))?;
    let errors = drain(&mut child)?;
    Ok(Running { child, errors })
}

impl Running {
    fn read<T>(
        mut self,
        call: Call<'_>,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let idle = Cell::new(false);
        let answer = self.exchange(call, &idle, read);
        let ended = finish(self.child, self.errors, call.name);
        match answer {
            _ if idle.get() => {
                Err(SourceError::Idle { name: call.name.to_owned(), seconds: IDLE_MAX })
            }
            Ok(answer) => ended.map(|()| answer),
            Err(_) if call.until.is_some_and(|until| Instant::now() >= until) => {
                Err(SourceError::Late)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes its input and reads its output at the same time; ends it when that fails.
    fn exchange<T>(
        &mut self,
        call: Call<'_>,
        idle: &Cell<bool>,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let id = self.child.id();
        let (stdin, stdout) = (self.child.stdin.take(), self.child.stdout.take());
        std::thread::scope(|scope| {
            if let (Some(mut stdin), Some(input)) = (stdin, call.input) {
                // git that needs no more of its input closes it.
                let write = move || stdin.write_all(input).is_ok();
                Builder::new()
                    .name("git stdin".to_owned())
                    .spawn_scoped(scope, write)
                    .map_err(|error| cannot_start(&error))?;
            }
            let Some(stdout) = stdout else {
                return Err(SourceError::Git("git has no output".to_owned()));
            };
            let output = Output { stdout, id, until: call.until, idle };
            let answer = read(&mut BufReader::with_capacity(64 * 1024, output));
            if answer.is_err() || idle.get() {
                // It may have ended by itself already.
                let _killed = self.child.kill().is_ok();
            }
            answer
        })
    }
}

/// Where git looks for the hooks of a repository, with the user's own settings in force.
#[derive(Debug)]
pub struct HookPlaces {
    /// The top of the work tree; `None`: a bare repository.
    pub top: Option<PathBuf>,
    /// The folder that all work trees of the repository share.
    pub common: PathBuf,
    /// Where hooks are looked for.
    pub hooks: PathBuf,
    /// What sent git there, if something did.
    pub setting: Option<HooksPath>,
}

/// `core.hooksPath`.
#[derive(Debug)]
pub struct HooksPath {
    /// `system`, `global`, `local`, `worktree` or `command`.
    pub scope: String,
    /// The file it is written in, as git names it.
    pub origin: String,
}

impl HookPlaces {
    /// Those of the repository around a folder.
    pub fn of(folder: &Path) -> Result<Self, SourceError> {
        let bare = ask_user_git(folder, &["rev-parse", "--is-bare-repository"])?;
        let at = |base: &Path, what: &[&str]| {
            ask_user_git(base, what).map(|answer| base.join(path_of(&answer)))
        };
        let top = match bare.as_slice() {
            b"true" => None,
            _ => Some(at(folder, &["rev-parse", "--show-toplevel"])?),
        };
        let git_dir = at(folder, &["rev-parse", "--absolute-git-dir"])?;
        // A relative `core.hooksPath` is meant from where hooks run.
        let base = top.as_deref().unwrap_or(&git_dir);
        let common = at(base, &["rev-parse", "--git-common-dir"])?;
        let hooks = at(base, &["rev-parse", "--git-path", "hooks"])?;
        let words = ["config", "-z", "--show-scope", "--show-origin", "--get", "core.hooksPath"];
        let setting = ask_user_git(base, &words).ok().and_then(|answer| {
            let mut parts = answer.split(|&b| b == 0).map(crate::text::clean);
            Some(HooksPath { scope: parts.next()?, origin: parts.next()? })
        });
        Ok(Self { top, common, hooks, setting })
    }
}

/// The `core.hooksPath` that all repositories of the user have.
#[must_use]
pub fn global_hooks() -> Option<PathBuf> {
    ["--global", "--system"].into_iter().find_map(|scope| {
        let words = ["config", scope, "--type=path", "--get", "core.hooksPath"];
        ask_user_git(Path::new("/"), &words).ok().map(|path| path_of(&path))
    })
}

/// Sets, or takes out, the user's `core.hooksPath`.
pub fn set_global_hooks(folder: Option<&Path>) -> Result<(), SourceError> {
    let mut command = user_git(Path::new("/"));
    command.args(["config", "--global"]);
    match folder {
        Some(folder) => command.arg("core.hooksPath").arg(folder),
        None => command.args(["--unset", "core.hooksPath"]),
    };
    one_line(command, "git config --global").map(|_| ())
}

/// git with the user's own settings; for questions that run nothing.
fn user_git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).args(["-c", "core.fsmonitor=false"]).env("LC_ALL", "C");
    command
}

fn ask_user_git(folder: &Path, words: &[&str]) -> Result<Vec<u8>, SourceError> {
    let mut command = user_git(folder);
    command.args(words);
    let name = format!("git {}", words.first().copied().unwrap_or_default());
    one_line(command, &name)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn cannot_start(error: &io::Error) -> SourceError {
    SourceError::Git(format!("cannot start git: {error}; is it installed?"))
}

fn one_line(command: Command, name: &str) -> Result<Vec<u8>, SourceError> {
    run(command, Call { name, input: None, until: None }, |input| {
        let mut line = Vec::new();
        input
            .take(64 * 1024)
            .read_to_end(&mut line)
            .map_err(|source| SourceError::Read { name: name.to_owned(), source })?;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(line)
    })
}

/// Reads a child's standard error beside its output, or it would wait for us when it has much to
/// say. Keeps the beginning.
fn drain(child: &mut Child) -> Result<JoinHandle<Vec<u8>>, SourceError> {
    let stderr = child.stderr.take();
    let read = move || {
        let mut kept = Vec::new();
        if let Some(mut stderr) = stderr {
            let whole = stderr.by_ref().take(STDERR_MAX).read_to_end(&mut kept);
            // What cannot be read is no answer to anything; the exit code is.
            let _drained = whole.and_then(|_| io::copy(&mut stderr, &mut io::sink())).is_ok();
        }
        kept
    };
    Builder::new().name("git stderr".to_owned()).spawn(read).map_err(|error| cannot_start(&error))
}

fn finish(mut child: Child, errors: JoinHandle<Vec<u8>>, name: &str) -> Result<(), SourceError> {
    let text = errors.join().unwrap_or_default();
    let status = child.wait().map_err(|error| cannot_start(&error))?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
    let text = crate::text::clean(first.trim().as_bytes());
    let text = text.strip_prefix("fatal: ").unwrap_or(&text).to_owned();
    Err(SourceError::Git(format!("{name} failed: {text}")))
}
