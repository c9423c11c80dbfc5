//! Which entries of a folder git ignores: the patterns of `.gitignore` at every level of the work
//! tree, of its `info/exclude`, and of the user (`core.excludesFile`). As in git, the deepest file
//! that says anything counts, and in it the last line; nothing outside of a work tree means
//! anything. Meaning of a pattern: the crate `ignore`, ripgrep's.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::source::reader::{self, Links};

/// In these lies what git reads beside the work tree's own files.
const REPOSITORIES: [&str; 2] = [".git", ".jj"];
/// A file of patterns that is longer is somebody's joke.
const PATTERNS_MAX: u64 = 8 << 20;
/// The same for a file that holds the path of a folder.
const PATH_MAX: u64 = 8 << 10;

/// What the user has git ignore everywhere. Read when a work tree is met.
static OF_USER: LazyLock<Gitignore> = LazyLock::new(|| GitignoreBuilder::new("").build_global().0);

/// The patterns that hold in a folder. Cheap to clone; outside of a work tree, nothing.
#[derive(Clone, Default)]
pub(super) struct Ignored(Option<Arc<Level>>);

/// A folder with patterns.
struct Level {
    above: Ignored,
    /// So much of the path of an entry is the path of this folder, with the slash behind it.
    len: usize,
    own: Gitignore,
    /// Of the repository whose work tree begins here.
    exclude: Option<Gitignore>,
}

/// What a listing says of a folder's own patterns.
#[derive(Clone, Copy, Default)]
pub(super) struct Signs {
    has_patterns: bool,
    may_be_repository: bool,
}

impl Signs {
    /// Takes in the name of an entry.
    pub(super) fn see(&mut self, name: &[u8]) {
        match name {
            b".gitignore" => self.has_patterns = true,
            b".git" | b".jj" => self.may_be_repository = true,
            _ => {}
        }
    }
}

impl Ignored {
    /// What holds in a folder that a walk begins with: the folders above may belong to a work tree,
    /// too. `folder`: absolute.
    pub(super) fn above(folder: &Path, tell: &mut dyn FnMut(&Path, String)) -> Self {
        let above: Vec<&Path> = folder.ancestors().skip(1).collect();
        let is_top = |folder: &&Path| REPOSITORIES.iter().any(|name| folder.join(name).exists());
        let Some(top) = above.iter().position(is_top) else { return Self::default() };
        let inside = above.get(..=top).unwrap_or_default().iter().rev();
        let signs = Signs { has_patterns: true, may_be_repository: true };
        inside.fold(Self::default(), |ignored, folder| ignored.within(folder, folder, signs, tell))
    }

    /// What holds in a folder below. `path`: as it is told; `absolute`: as entries are asked for.
    pub(super) fn within(
        &self,
        path: &Path,
        absolute: &Path,
        signs: Signs,
        tell: &mut dyn FnMut(&Path, String),
    ) -> Self {
        let is_top =
            signs.may_be_repository && REPOSITORIES.iter().any(|name| path.join(name).exists());
        if !is_top && (self.0.is_none() || !signs.has_patterns) {
            return self.clone();
        }
        let read = |path: &Path, tell: &mut dyn FnMut(&Path, String)| {
            patterns(path, tell).unwrap_or_else(Gitignore::empty)
        };
        let own = match signs.has_patterns {
            true => read(&path.join(".gitignore"), tell),
            false => Gitignore::empty(),
        };
        let exclude = is_top.then(|| match common_folder(path) {
            Some(git) => read(&git.join("info/exclude"), tell),
            None => Gitignore::empty(),
        });
        let above = if is_top { Self::default() } else { self.clone() };
        let len = absolute.as_os_str().len() + usize::from(absolute != Path::new("/"));
        Self(Some(Arc::new(Level { above, len, own, exclude })))
    }

    /// Whether anything may be ignored here.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether git ignores an entry, by its absolute path.
    pub(super) fn ignores(&self, path: &[u8], is_folder: bool) -> bool {
        let mut here = self;
        while let Some(level) = &here.0 {
            let path = Path::new(OsStr::from_bytes(path.get(level.len..).unwrap_or_default()));
            let mut verdict = level.own.matched(path, is_folder);
            if let Some(exclude) = &level.exclude {
                verdict = verdict
                    .or(exclude.matched(path, is_folder))
                    .or(OF_USER.matched(path, is_folder));
            }
            match verdict {
                Match::None => here = &level.above,
                verdict => return verdict.is_ignore(),
            }
        }
        false
    }
}

/// The patterns of a file, if there is one. Git follows no link there.
fn patterns(path: &Path, tell: &mut dyn FnMut(&Path, String)) -> Option<Gitignore> {
    let (file, stat) = reader::open(path, Links::Refuse).ok()?;
    if stat.size > PATTERNS_MAX {
        tell(path, format!("of over {} MiB, which are no patterns", PATTERNS_MAX >> 20));
        return None;
    }
    let text = match read_text(file, PATTERNS_MAX) {
        Ok(text) => text,
        Err(error) => {
            tell(path, reader::describe(&error));
            return None;
        }
    };
    let mut builder = GitignoreBuilder::new("");
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        if let Err(error) = builder.add_line(None, line) {
            tell(path, format!("line {number}: {error}"));
        }
    }
    builder.build().map_err(|error| tell(path, error.to_string())).ok()
}

/// What is no UTF-8 in it names no file that a pattern could.
fn read_text(file: File, limit: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where git keeps what all work trees of a repository have in common: `.git`, or where the file of
/// that name leads (gitrepository-layout(5): `gitdir`, `commondir`).
fn common_folder(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let line = |path: &Path| {
        let (file, _) = reader::open(path, Links::Refuse).ok()?;
        Some(read_text(file, PATH_MAX).ok()?.trim_end().to_owned())
    };
    let own = folder.join(line(&git)?.strip_prefix("gitdir: ")?);
    Some(match line(&own.join("commondir")) {
        Some(common) => own.join(common),
        None => own,
    })
}
