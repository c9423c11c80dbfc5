//! git, called so that nothing a repository says is run.
//!
//! The configuration of a repository can name programs (`core.fsmonitor`, textconv, filters,
//! `diff.external`, hooks). Every call here switches them off; which switches are needed for
//! which command was measured, see `docs/security.md`. The owner check (`safe.directory`) stays on.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{Builder, JoinHandle};

use crate::source::diff::{self, Outcome};
use crate::source::{Kind, Sink, SourceError};

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
];

/// Longest error text of git that is kept, in bytes.
const STDERR_MAX: u64 = 4_096;

/// A work tree whose owner git accepts.
#[derive(Debug)]
pub struct WorkTree {
    folder: PathBuf,
    /// Folders of other owners that the user, or the host, trusts (`safe.directory`).
    trusted: Vec<String>,
}

impl WorkTree {
    /// The work tree around a folder, or an error that says that there is none.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        let mut tree = Self { folder: folder.to_owned(), trusted: Vec::new() };
        let ask = |tree: &Self| {
            one_line(git(tree).args(["rev-parse", "--show-toplevel"]), "git rev-parse")
        };
        match ask(&tree) {
            Err(SourceError::Git(why)) if why.contains("dubious ownership") => {
                // What the user's own configuration allows is not the repository's to say.
                tree.trusted = trusted_folders();
                ask(&tree)?;
            }
            other => {
                other?;
            }
        }
        Ok(tree)
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

fn git(tree: &WorkTree) -> Command {
    // The one place where a program is started for a repository.
    let mut command = Command::new("git");
    for folder in &tree.trusted {
        command.arg("-c").arg(format!("safe.directory={folder}"));
    }
    command
        .current_dir(&tree.folder)
        .args(NOTHING_RUNS)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("LC_ALL", "C")
        .env_remove("GIT_EXTERNAL_DIFF")
        .env_remove("GIT_CONFIG_PARAMETERS")
        .env_remove("GIT_CONFIG_COUNT")
        .env_remove("GIT_TRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn cannot_start(error: &io::Error) -> SourceError {
    SourceError::Git(format!("cannot start git: {error}; is it installed and in PATH?"))
}

/// Pushes the lines that the index adds to `HEAD` (or to nothing, before the first commit).
pub fn staged(tree: &WorkTree, sink: &mut dyn Sink) -> Result<Outcome, SourceError> {
    let mut child = git(tree)
        .args([
            "diff",
            "--cached",
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
        ])
        .spawn()
        .map_err(|error| cannot_start(&error))?;
    let errors = drain(&mut child)?;
    let outcome = match child.stdout.take() {
        Some(stdout) => {
            diff::run(&mut BufReader::with_capacity(64 * 1024, stdout), Kind::Staged, sink)
        }
        None => Err(SourceError::Git("git has no output".to_owned())),
    };
    finish(child, errors, "git diff --cached")?;
    outcome
}

/// Where git looks for the hooks of a repository, with the user's own settings in force.
pub fn hooks_folder(folder: &Path) -> Result<PathBuf, SourceError> {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(["-c", "core.fsmonitor=false", "rev-parse", "--git-path", "hooks"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(folder.join(one_line(&mut command, "git rev-parse")?))
}

fn one_line(command: &mut Command, name: &str) -> Result<PathBuf, SourceError> {
    use std::os::unix::ffi::OsStrExt;
    let mut child = command.spawn().map_err(|error| cannot_start(&error))?;
    let errors = drain(&mut child)?;
    let mut line = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(64 * 1024)
            .read_to_end(&mut line)
            .map_err(|source| SourceError::Read { name: name.to_owned(), source })?;
    }
    finish(child, errors, name)?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    Ok(PathBuf::from(OsStr::from_bytes(line)))
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
