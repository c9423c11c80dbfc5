//! Which entries of a folder git ignores: the patterns of `.gitignore` at every level of the work
//! tree, of its `info/exclude`, and of the user (`core.excludesFile`). As in git, the deepest file
//! that says anything counts, and in it the last line; nothing outside of a work tree means
//! anything. Meaning of a pattern: the crate `ignore`, ripgrep's.
//!
//! What is ignored is not read, so where that crate knows less of patterns than git does, such a line
//! leaves nothing out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::source::reader::{self, Links};

/// Bytes of a file of patterns, at most: those that people write are a thousandth of it.
const PATTERNS_MAX: u64 = 1 << 20;
/// Patterns that hold in one folder, at most: each costs memory.
const LINES_MAX: usize = 10_000;
/// Files of patterns that hold in one folder, at most.
const LEVELS_MAX: usize = 100;
/// Bytes of a pattern, at most: as long as a path may be.
const LINE_MAX: usize = 4096;
/// What becomes of a file of patterns that asks for too much.
const UNHEEDED: &str = "it is not heeded until it is shorter (--no-ignore heeds none)";
/// Leaves nothing out, whatever the lines before it say.
const NOTHING: &str = "!**";

/// What the user has git ignore everywhere. Read when a work tree is met.
static OF_USER: LazyLock<Gitignore> = LazyLock::new(|| {
    let path = gitconfig_excludes_path().unwrap_or_default();
    let read = patterns((CWD, &path), Links::Follow, &mut 0);
    read.unwrap_or_default().unwrap_or_else(Gitignore::empty)
});

/// Says what cannot be read, and why.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&Path, String);

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
    /// How many patterns hold here, of how many levels.
    lines: usize,
    levels: usize,
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
    pub(super) fn above(folder: &Path, tell: Tell<'_>) -> Self {
        let above: Vec<&Path> = folder.ancestors().skip(1).collect();
        let is_top = |folder: &&Path| is_repository(CWD, folder);
        let Some(top) = above.iter().position(is_top) else { return Self::default() };
        let mut ignored = Self::default();
        for folder in above.get(..=top).unwrap_or_default().iter().rev() {
            let signs = Signs { has_patterns: true, may_be_repository: true };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match openat(CWD, *folder, flags, Mode::empty()) {
                Ok(fd) => ignored = ignored.within(fd.as_fd(), (folder, folder), signs, tell),
                Err(error) => tell(folder, reader::describe(&error.into())),
            }
        }
        ignored
    }

    /// What holds in a folder below, which is open. `path`: as it is told; `absolute`: as entries are
    /// asked for.
    pub(super) fn within(
        &self,
        folder: BorrowedFd<'_>,
        (path, absolute): (&Path, &Path),
        signs: Signs,
        tell: Tell<'_>,
    ) -> Self {
        let is_top = signs.may_be_repository && is_repository(folder, Path::new(""));
        if !is_top && (self.0.is_none() || !signs.has_patterns) {
            return self.clone();
        }
        let above = if is_top { Self::default() } else { self.clone() };
        let (mut lines, levels) = match &above.0 {
            Some(above) => (above.lines, above.levels + 1),
            None => (0, 1),
        };
        if levels > LEVELS_MAX {
            let why = format!("over {LEVELS_MAX} files of patterns hold here; {UNHEEDED}");
            tell(&path.join(".gitignore"), why);
            return above;
        }
        let mut read = |name: &Path, links: Links| {
            let read = patterns((folder, name), links, &mut lines);
            let read = read.unwrap_or_else(|error| {
                tell(&path.join(name), reader::describe(&error));
                None
            });
            read.unwrap_or_else(Gitignore::empty)
        };
        // Git follows no link there, but one to `info/exclude`.
        let own = match signs.has_patterns {
            true => read(Path::new(".gitignore"), Links::Refuse),
            false => Gitignore::empty(),
        };
        let exclude = is_top.then(|| match common_folder(folder) {
            Some(git) => read(&git.join("info/exclude"), Links::Follow),
            None => Gitignore::empty(),
        });
        if own.is_empty() && exclude.is_none() {
            return above;
        }
        let len = absolute.as_os_str().len() + usize::from(absolute != Path::new("/"));
        Self(Some(Arc::new(Level { above, len, own, exclude, lines, levels })))
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

/// Whether a work tree begins at a folder: git's, or jj's, which reads the same patterns.
fn is_repository(folder: BorrowedFd<'_>, path: &Path) -> bool {
    let is_there = |name| statat(folder, path.join(name), AtFlags::empty()).is_ok();
    [".git", ".jj"].into_iter().any(is_there)
}

/// The patterns of a file; `None`: there is no such file. Counts them; too many are an error.
fn patterns(
    (folder, name): (BorrowedFd<'_>, &Path),
    links: Links,
    lines: &mut usize,
) -> io::Result<Option<Gitignore>> {
    let Some(text) = text_of(folder, name, links, PATTERNS_MAX)? else { return Ok(None) };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let mut builder = GitignoreBuilder::new("");
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        *lines += 1;
        if *lines > LINES_MAX {
            let why = format!("over {LINES_MAX} patterns hold here; {UNHEEDED}");
            return Err(io::Error::other(why));
        }
        let understood = understood(line).is_some_and(|line| builder.add_line(None, &line).is_ok());
        if !understood && line.starts_with(b"!") {
            let _can_be_read = builder.add_line(None, NOTHING).is_ok();
        }
    }
    let all = builder.build();
    Ok(Some(all.map_err(|_| io::Error::other(format!("too large patterns; {UNHEEDED}")))?))
}

/// A line as the crate `ignore` is to have it; `None`: git may mean something else by it.
fn understood(line: &[u8]) -> Option<String> {
    let line = str::from_utf8(line).ok().filter(|line| line.len() <= LINE_MAX)?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    let is_odd = line.contains("[:")
        || line.contains("\\/")
        || line.contains('[') && line.contains('\\')
        || line.trim_end_matches(' ').ends_with(char::is_whitespace);
    // Git has no alternatives in braces.
    let mut escaped = String::with_capacity(line.len());
    let (mut in_class, mut is_escaped) = (false, false);
    for letter in line.chars() {
        match letter {
            '[' => in_class = true,
            ']' => in_class = false,
            '{' | '}' if !in_class && !is_escaped => escaped.push('\\'),
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
        escaped.push(letter);
    }
    (!is_odd).then_some(escaped)
}

/// What a regular file holds; `None`: there is none.
fn text_of(
    folder: BorrowedFd<'_>,
    name: &Path,
    links: Links,
    limit: u64,
) -> io::Result<Option<Vec<u8>>> {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    let file: File = match reader::open_at(folder, name, links) {
        Ok((_, stat)) if stat.size > limit => {
            return Err(io::Error::other(format!("of over {limit} bytes; {UNHEEDED}")));
        }
        Ok((file, _)) => file,
        Err(error) => {
            // A link, where none counts, or a socket.
            let is_other = [Errno::LOOP, Errno::NXIO]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
            let is_none =
                is_other || matches!(error.kind(), NotFound | NotADirectory | InvalidInput);
            return if is_none { Ok(None) } else { Err(error) };
        }
    };
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Where git keeps what all work trees of a repository have in common, from the folder on: `.git`, or
/// where the file of that name leads (gitrepository-layout(5): `gitdir`, `commondir`).
fn common_folder(folder: BorrowedFd<'_>) -> Option<PathBuf> {
    let git = PathBuf::from(".git");
    let mode = statat(folder, &git, AtFlags::empty()).ok()?.st_mode;
    if FileType::from_raw_mode(mode).is_dir() {
        return Some(git);
    }
    let line = |path: &Path| {
        let text = text_of(folder, path, Links::Refuse, LINE_MAX as u64).ok()??;
        Some(text.trim_ascii_end().to_vec())
    };
    let own = PathBuf::from(OsStr::from_bytes(line(&git)?.strip_prefix(b"gitdir: ")?));
    Some(match line(&own.join("commondir")) {
        Some(common) => own.join(OsStr::from_bytes(&common)),
        None => own,
    })
}
