//! A repository: where its parts are, as git itself says.
//!
//! What a repository is, and whether its owner is trusted, git decides, called so that nothing of it
//! is run. Its objects are then read without git.

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use gix_hash::ObjectId;

use super::{Call, Repository as Trusted, one_line, path_of, run, trusted_folders};
use crate::source::SourceError;
use crate::source::reader::{self, Links};

/// What would make git look at another repository than the one that was named.
const ELSEWHERE: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Longest line that git is expected to write, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// Longest list of commits without their parents that is read, in bytes.
const SHALLOW_MAX: u64 = 64 << 20;

/// A repository that git accepts.
#[derive(Debug)]
pub(super) struct Repository {
    tree: Trusted,
    /// The `.git` of this work tree.
    own: PathBuf,
    /// The `.git` that all work trees share.
    common: PathBuf,
    hash: gix_hash::Kind,
    shallow: bool,
}

impl Repository {
    /// The repository around a folder, or an error that says why there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, SourceError> {
        let shown = || crate::text::clean(folder.as_os_str().as_encoded_bytes());
        if !folder.is_dir() {
            let why = if folder.exists() { "is not a folder" } else { "does not exist" };
            return Err(SourceError::Git(format!("{} {why}", shown())));
        }
        let mut tree = Trusted { folder: folder.to_owned(), trusted: Vec::new() };
        let asked = ["--absolute-git-dir", "--git-common-dir", "--show-object-format"];
        let ask = |tree: &Trusted| {
            let mut command = command(tree);
            command.arg("rev-parse").args(asked).arg("--is-shallow-repository");
            one_line(command, "git rev-parse")
        };
        let said = match ask(&tree) {
            Err(SourceError::Git(why)) if why.contains("dubious ownership") => {
                // What the user's own configuration allows is not the repository's to say.
                tree.trusted = trusted_folders();
                ask(&tree)
            }
            other => other,
        };
        let said = said.map_err(|error| SourceError::Git(format!("{}: {error}", shown())))?;
        let mut lines = said.split(|&byte| byte == b'\n');
        let mut next = || lines.next().unwrap_or_default();
        let (own, common) = (path_of(next()), folder.join(path_of(next())));
        let hash = match next() {
            b"sha1" => gix_hash::Kind::Sha1,
            b"sha256" => gix_hash::Kind::Sha256,
            other => {
                let other = crate::text::clean(other);
                let why = format!("{}: objects named by `{other}` cannot be read", shown());
                return Err(SourceError::Git(why));
            }
        };
        let shallow = next() == b"true";
        Ok(Self { tree, own, common, hash, shallow })
    }

    /// How its objects are named.
    #[must_use]
    pub(super) fn hash(&self) -> gix_hash::Kind {
        self.hash
    }

    /// Whether its history ends before its beginning.
    #[must_use]
    pub(super) fn is_shallow(&self) -> bool {
        self.shallow
    }

    /// Commits whose parents are left out of a shallow clone, in order.
    pub(super) fn boundary(&self) -> Vec<ObjectId> {
        let mut text = Vec::new();
        let read = reader::open(&self.common.join("shallow"), Links::Refuse)
            .and_then(|(file, _)| file.take(SHALLOW_MAX).read_to_end(&mut text));
        // One that cannot be read leaves parents missing, which is said.
        let _read = read.is_ok();
        let lines = text.split(|&byte| byte == b'\n');
        let mut ids: Vec<ObjectId> = lines.flat_map(ObjectId::from_hex).collect();
        ids.sort_unstable();
        ids
    }

    /// The folder that was named.
    #[must_use]
    pub(super) fn folder(&self) -> &Path {
        &self.tree.folder
    }

    /// The `.git` that all work trees share.
    pub(super) fn common(&self) -> &Path {
        &self.common
    }

    /// Where its objects are.
    #[must_use]
    pub(super) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Folders with what moved references were before: of all work trees.
    #[must_use]
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.common.join("logs")];
        let trees = std::fs::read_dir(self.common.join("worktrees")).into_iter().flatten();
        folders.extend(trees.flatten().map(|entry| entry.path().join("logs")));
        let own = self.own.join("logs");
        if !folders.iter().any(|folder| same(folder, &own)) {
            folders.push(own);
        }
        folders.retain(|folder| folder.is_dir());
        folders
    }

    /// The commit behind a name that the user gave, such as a branch.
    pub(super) fn commit(&self, name: &str) -> Result<ObjectId, SourceError> {
        self.named(name, &format!("{name}^{{commit}}"))
    }

    /// What such a name itself names: an annotated tag, or else the commit.
    pub(super) fn tag_or_commit(&self, name: &str) -> Result<ObjectId, SourceError> {
        self.commit(name)?;
        self.named(name, name)
    }

    fn named(&self, name: &str, asked: &str) -> Result<ObjectId, SourceError> {
        let wrong = || {
            let (name, folder) = (crate::text::clean(name.as_bytes()), self.folder().display());
            SourceError::Git(format!("`{name}` is no commit in {folder}; see `git log --all`"))
        };
        let mut command = self.command();
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options", asked]);
        let said = one_line(command, "git rev-parse").map_err(|error| match error {
            SourceError::Idle { .. } => error,
            _ => wrong(),
        })?;
        ObjectId::from_hex(said.trim_ascii()).map_err(|_| wrong())
    }

    /// Where `HEAD` is; nowhere before the first commit.
    #[must_use]
    pub(super) fn head(&self) -> Option<ObjectId> {
        self.commit("HEAD").ok()
    }

    /// git for this repository.
    pub(super) fn command(&self) -> Command {
        command(&self.tree)
    }

    /// Runs git and hands on its output, line by line, without their newlines.
    pub(super) fn lines(
        &self,
        command: Command,
        call: Call<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), SourceError> {
        run(command, call, |output| {
            let mut line = Vec::new();
            loop {
                line.clear();
                // A line is a name of at most some kilobytes; one without an end is none.
                match output.take(LINE_MAX).read_until(b'\n', &mut line) {
                    Ok(0) => return Ok(()),
                    Ok(_) => take(line.strip_suffix(b"\n").unwrap_or(&line)),
                    Err(source) => {
                        return Err(SourceError::Read { name: call.name.to_owned(), source });
                    }
                }
            }
        })
    }
}

fn command(tree: &Trusted) -> Command {
    let mut command = tree.command();
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    command
}

/// Whether two paths lead to the same folder.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
