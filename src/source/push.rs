//! What a push brings: the lines that its new commits add, their messages and names, the tags and
//! names of what is pushed.
//!
//! Only what is new: what some ref of the receiving side holds already is not read again. A merge
//! is compared with each of its parents; whoever reads the findings keeps those of all comparisons
//! (see `Brought::parents_of`), as everything else came with another commit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::source::diff::{self, Commit};
use crate::source::git::history::Origin;
use crate::source::git::{self, Call, Repository};
use crate::source::{End, Item, Kind, Position, Sink, SourceError, Stop, reader};

/// Tags of tags that are followed.
const TAGS_MAX: usize = 16;
/// Paths of merges that are named to git, in bytes; of more it shows all.
const PATHS_MAX: usize = 64 * 1024;
/// Longest header of a commit whose message is told apart from it, in bytes.
const HEADER_MAX: usize = 64 * 1024;

/// A line of what git tells hooks: a ref, and what it is to point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The ref on the receiving side.
    pub name: String,
    /// The id it pointed to; zeros where there is no such ref.
    pub old: String,
    /// The id it shall point to; zeros where it shall go.
    pub new: String,
}

/// What the receiving side has already.
#[derive(Clone, Debug)]
pub enum Known {
    /// Everything its refs hold; this is the receiving side.
    AllRefs,
    /// What is remembered of a remote of this name, and where its refs point to.
    Remote(String),
    /// What is reachable from the old ids.
    Old,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Brought {
    /// Commits that are new.
    pub commits: u64,
    /// Merges that were compared with each of their parents.
    compared: Vec<Commit>,
}

impl Brought {
    /// By the beginning of the path of a finding (`COMMIT:`): with how many parents a merge was
    /// compared.
    #[must_use]
    pub fn parents_of(&self) -> HashMap<&str, usize> {
        self.compared.iter().map(|commit| (diff::short(&commit.id), commit.parents)).collect()
    }
}

/// Whether an id stands for "nothing".
#[must_use]
pub fn is_nothing(id: &str) -> bool {
    id.bytes().all(|digit| digit == b'0')
}

/// Whether a text is an object's id in full.
#[must_use]
pub fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Reads what these updates bring.
pub fn read(
    repository: &Repository,
    updates: &[Update],
    known: &Known,
    until: Option<Instant>,
    sink: &mut dyn Sink,
) -> Result<Brought, SourceError> {
    let new: Vec<&Update> = updates.iter().filter(|update| !is_nothing(&update.new)).collect();
    if new.is_empty() {
        return Ok(Brought::default());
    }
    read_names(&new, sink);
    let ids = new_commits(repository, &new, known, until)?;
    let commits = read_changes(repository, &ids, until, sink)?;
    let expected = ids.iter().filter(|byte| **byte == b'\n').count();
    if commits.len() != expected {
        let read = commits.len();
        let why = format!("git named {expected} new commits, and showed {read} of them");
        return Err(SourceError::Git(why));
    }
    let compared = read_merges(repository, &commits, until, sink)?;
    read_objects(repository, &commits, &new, until, sink)?;
    Ok(Brought { commits: commits.len() as u64, compared })
}

/// The names of the refs: a branch may be named after a key.
fn read_names(updates: &[&Update], sink: &mut dyn Sink) {
    let names: String = updates.iter().map(|update| format!("{}\n", update.name)).collect();
    whole(Path::new("(names of refs)"), names.as_bytes(), sink);
}

/// Ids of the commits that are new, one a line.
fn new_commits(
    repository: &Repository,
    updates: &[&Update],
    known: &Known,
    until: Option<Instant>,
) -> Result<Vec<u8>, SourceError> {
    let mut command = repository.command();
    command.arg("rev-list");
    let mut input: String = updates.iter().map(|update| format!("{}\n", update.new)).collect();
    let without_old = |input: &mut String| {
        let old = updates.iter().filter(|update| !is_nothing(&update.old));
        old.for_each(|update| input.push_str(&format!("^{}\n", update.old)));
    };
    match known {
        Known::AllRefs => {
            command.args(["--stdin", "--not", "--all"]);
        }
        Known::Remote(name) => {
            // The remote may have moved on to something that is not here. An id to be pushed that
            // is missing shows when the objects are read.
            command.args(["--ignore-missing", "--stdin"]);
            without_old(&mut input);
            if is_plain(name) {
                command.args(["--not", &format!("--remotes={name}")]);
            }
        }
        Known::Old => {
            command.arg("--stdin");
            without_old(&mut input);
        }
    }
    let call = Call { name: "git rev-list", input: Some(input.as_bytes()), until };
    git::run(command, call, |output| {
        let mut ids = Vec::new();
        output
            .read_to_end(&mut ids)
            .map_err(|source| SourceError::Read { name: "git rev-list".to_owned(), source })?;
        Ok(ids)
    })
}

/// Whether the name of a remote holds nothing that is special in a pattern.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
}

/// The lines that the commits add. git shows none for merges here, but names them.
fn read_changes(
    repository: &Repository,
    ids: &[u8],
    until: Option<Instant>,
    sink: &mut dyn Sink,
) -> Result<Vec<Commit>, SourceError> {
    let mut commits = Vec::new();
    if ids.is_empty() {
        return Ok(commits);
    }
    let mut command = diff_tree(repository);
    command.args(["--root", "--always"]).args(git::AS_ADDED_LINES);
    let call = Call { name: "git diff-tree", input: Some(ids), until };
    let outcome = git::run(command, call, |output| {
        diff::run_commits(output, Kind::Pushed, &mut commits, sink)
    })?;
    outcome.check(call.name)?;
    Ok(commits)
}

fn diff_tree(repository: &Repository) -> Command {
    let mut command = repository.command();
    command.args(["diff-tree", "--stdin", "-r", diff::COMMIT_FORMAT]);
    command
}

/// What merges hold that none of their parents has: read where a file differs from that of each
/// parent, once for each of them.
fn read_merges(
    repository: &Repository,
    commits: &[Commit],
    until: Option<Instant>,
    sink: &mut dyn Sink,
) -> Result<Vec<Commit>, SourceError> {
    let merges = commits.iter().filter(|commit| commit.parents > 1);
    let ids: String = merges.map(|commit| format!("{}\n", commit.id)).collect();
    let mut read = Vec::new();
    if ids.is_empty() {
        return Ok(read);
    }
    let mut command = diff_tree(repository);
    command.args(["-c", "--raw", "-z", "--no-renames", "--ignore-submodules=none"]);
    let call = Call { name: "git diff-tree -c", input: Some(ids.as_bytes()), until };
    let own = git::run(command, call, |output| {
        own_changes(output)
            .map_err(|source| SourceError::Read { name: call.name.to_owned(), source })
    })?;
    if own.commits.is_empty() {
        return Ok(read);
    }
    let mut command = diff_tree(repository);
    command.arg("-m").args(git::AS_ADDED_LINES).env("GIT_LITERAL_PATHSPECS", "1");
    if own.paths.iter().map(|path| path.len() + 1).sum::<usize>() <= PATHS_MAX {
        command.arg("--").args(&own.paths);
    }
    let ids = own.commits.join("\n") + "\n";
    let call = Call { name: "git diff-tree -m", input: Some(ids.as_bytes()), until };
    let outcome =
        git::run(command, call, |output| diff::run_commits(output, Kind::Pushed, &mut read, sink))?;
    outcome.check(call.name)?;
    Ok(read)
}

/// Merges with changes of their own, and where these are.
#[derive(Default)]
struct OwnChanges {
    commits: Vec<String>,
    paths: BTreeSet<OsString>,
}

/// Reads a list with NUL behind each word: a commit, then for each of its files what changed (as
/// many colons as parents, then more) and the path.
fn own_changes(output: &mut dyn BufRead) -> std::io::Result<OwnChanges> {
    let mut own = OwnChanges::default();
    let (mut commit, mut is_path) = (String::new(), false);
    loop {
        let mut word = Vec::new();
        if output.read_until(0, &mut word)? == 0 {
            return Ok(own);
        }
        if word.last() == Some(&0) {
            word.pop();
        }
        if std::mem::take(&mut is_path) {
            own.paths.insert(OsString::from_vec(word));
            if own.commits.last() != Some(&commit) {
                own.commits.push(commit.clone());
            }
        } else if let Some(read) = diff::commit_of(&word) {
            commit = read.id;
        } else {
            is_path = word.first() == Some(&b':');
        }
    }
}

/// Messages and names of the new commits, the tags that are pushed, and files that a ref points to.
fn read_objects(
    repository: &Repository,
    commits: &[Commit],
    updates: &[&Update],
    until: Option<Instant>,
    sink: &mut dyn Sink,
) -> Result<(), SourceError> {
    let fresh: HashSet<&str> = commits.iter().map(|commit| commit.id.as_str()).collect();
    let mut asked: Vec<String> = commits.iter().map(|commit| commit.id.clone()).collect();
    asked.extend(updates.iter().map(|u| u.new.clone()).filter(|id| !fresh.contains(&**id)));
    for _ in 0..=TAGS_MAX {
        if asked.is_empty() {
            return Ok(());
        }
        let mut command = repository.command();
        command.args(["cat-file", "--batch", "--buffer"]);
        let input = asked.join("\n") + "\n";
        let call = Call { name: "git cat-file", input: Some(input.as_bytes()), until };
        let mut tagged = Vec::new();
        git::run(command, call, |output| {
            asked
                .iter()
                .try_for_each(|_| object(output, &fresh, &mut tagged, sink))
                .map_err(|source| SourceError::Read { name: "git cat-file".to_owned(), source })
        })?;
        asked = tagged;
    }
    sink.skip(Path::new("(tags)"), format!("more than {TAGS_MAX} tags of tags"));
    Ok(())
}

/// One answer of `git cat-file --batch`.
fn object(
    output: &mut dyn BufRead,
    fresh: &HashSet<&str>,
    tagged: &mut Vec<String>,
    sink: &mut dyn Sink,
) -> std::io::Result<()> {
    let line = head(output)?;
    let Head { id, kind, size } = Head::of(&line)?;
    let short = diff::short(id);
    let Some(size) = size else {
        sink.skip(Path::new(&format!("object {short}")), format!("git says it is {kind}"));
        return Ok(());
    };
    let mut content = output.take(size);
    match kind {
        "commit" if fresh.contains(id) => {
            with_message(&format!("commit {short}"), &mut content, sink)?;
        }
        "tag" => {
            let header = with_message(&format!("tag {short}"), &mut content, sink)?;
            tagged.extend(target(&header));
        }
        "blob" => stream(&PathBuf::from(format!("object {short}")), &[], &mut content, sink)?,
        "tree" => {
            let why = "a ref points to a folder; only commits, tags and files are read";
            sink.skip(Path::new(&format!("object {short}")), why.to_owned());
        }
        _ => {}
    }
    let left = content.limit();
    pass_over(output, left)
}

/// The line before an object: its name, its kind and how long it is.
struct Head<'a> {
    id: &'a str,
    kind: &'a str,
    /// `None`: there is no object.
    size: Option<u64>,
}

impl<'a> Head<'a> {
    fn of(line: &'a str) -> std::io::Result<Self> {
        let mut words = line.split_whitespace();
        let id = words.next().ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let kind = words.next().unwrap_or_default();
        Ok(Self { id, kind, size: words.next().and_then(|size| size.parse().ok()) })
    }
}

fn head(output: &mut dyn BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    output.take(256).read_line(&mut line)?;
    Ok(line)
}

/// What is left of an object, and the newline behind it.
fn pass_over(output: &mut dyn BufRead, left: u64) -> std::io::Result<()> {
    std::io::copy(&mut output.take(left + 1), &mut std::io::sink()).map(|_| ())
}

/// Who made commits and tags; by the beginnings of their names, as they stand in paths.
pub fn origins(
    repository: &Repository,
    names: &BTreeSet<String>,
    until: Option<Instant>,
) -> Result<HashMap<String, Origin>, SourceError> {
    let mut command = repository.command();
    command.args(["cat-file", "--batch", "--buffer"]);
    let input: String = names.iter().map(|name| format!("{name}\n")).collect();
    let call = Call { name: "git cat-file", input: Some(input.as_bytes()), until };
    git::run(command, call, |output| {
        let origins = names.iter().map(|name| Ok((name.clone(), origin(output)?)));
        let origins: std::io::Result<Vec<(String, Option<Origin>)>> = origins.collect();
        let origins =
            origins.map_err(|source| SourceError::Read { name: call.name.to_owned(), source })?;
        Ok(origins.into_iter().filter_map(|(name, origin)| Some((name, origin?))).collect())
    })
}

fn origin(output: &mut dyn BufRead) -> std::io::Result<Option<Origin>> {
    let line = head(output)?;
    let Head { id, kind, size: Some(size) } = Head::of(&line)? else { return Ok(None) };
    let mut begin = Vec::new();
    output.take(size.min(HEADER_MAX as u64)).read_to_end(&mut begin)?;
    pass_over(output, size - begin.len() as u64)?;
    Ok(Origin::of(id, kind, &begin))
}

/// The beginning of the name of the commit that a path of a push is in.
#[must_use]
pub fn commit_of(path: &str) -> Option<&str> {
    let id = path.strip_prefix("commit ").unwrap_or(path);
    let id = id.get(..diff::SHORT_ID)?;
    id.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(id)
}

/// The same, also of a tag.
#[must_use]
pub fn object_of(path: &str) -> Option<&str> {
    commit_of(path.strip_prefix("tag ").unwrap_or(path))
}

/// What a tag points to, if it is read by its own: commits come with the others.
fn target(header: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(header);
    let mut lines = text.lines();
    let id = lines.next()?.strip_prefix("object ")?;
    let kind = lines.next()?.strip_prefix("type ")?;
    (kind != "commit" && is_id(id)).then(|| id.to_owned())
}

/// Reads a commit or a tag: its header, then its message, whose lines are counted from 1.
fn with_message(
    name: &str,
    content: &mut dyn Read,
    sink: &mut dyn Sink,
) -> std::io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    content.take(HEADER_MAX as u64).read_to_end(&mut begin)?;
    let end = memchr::memmem::find(&begin, b"\n\n").map_or(0, |at| at + 2);
    let (header, message) = begin.split_at(end);
    if !header.is_empty() {
        whole(Path::new(&format!("{name} (names)")), header, sink);
    }
    let rest = &mut content.take(u64::MAX);
    stream(&PathBuf::from(format!("{name} (message)")), message, rest, sink)?;
    Ok(header.to_vec())
}

/// Pushes text that is not of a file.
fn whole(name: &Path, text: &[u8], sink: &mut dyn Sink) {
    sink.begin(&Item { continued: true, ..Item::whole(Kind::Pushed, name.to_owned()) });
    reader::push(sink, text);
    let (ControlFlow::Continue(Position { .. }) | ControlFlow::Break(())) = sink.end(End::Done);
}

/// Pushes the beginning of something, and the rest as it comes.
fn stream(
    name: &Path,
    begin: &[u8],
    rest: &mut dyn Read,
    sink: &mut dyn Sink,
) -> std::io::Result<()> {
    sink.begin(&Item { continued: true, ..Item::whole(Kind::Pushed, name.to_owned()) });
    reader::push(sink, begin);
    let outcome = reader::pump(rest, sink, &Stop::new());
    let (ControlFlow::Continue(Position { .. }) | ControlFlow::Break(())) = sink.end(End::Done);
    outcome.map(|_| ())
}
