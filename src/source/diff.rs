//! Unified diffs: added lines only, with the line numbers of the new file.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::source::{End, Item, Kind, Position, Sink, SourceError, reader};

/// Longest header line that is looked at, in bytes.
const HEADER_MAX: usize = 16 * 1024;

/// What a diff was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Headers of files and hunks: none means "this is no diff".
    pub headers: u64,
    /// Changed files that git listed before the diff (`--raw`).
    pub listed: u64,
    /// Changed files in the diff itself.
    pub files: u64,
    /// Bytes of input.
    pub bytes: u64,
}

impl Outcome {
    /// An error if the diff holds less than git listed before it: then it is not all there.
    pub fn check(&self, name: &str) -> Result<(), SourceError> {
        if self.files >= self.listed {
            return Ok(());
        }
        let Self { listed, files, .. } = self;
        Err(SourceError::Git(format!("{name} listed {listed} changed files, and showed {files}")))
    }
}

/// A commit in a series of diffs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id, in hex.
    pub id: String,
    /// How many parents it has, but at least one: it is compared with something.
    pub parents: usize,
}

/// What comes before the diffs of a commit: its id, then those of its parents.
pub const COMMIT_FORMAT: &str = "--format=commit:%H:%P";
const COMMIT_MARK: &[u8] = b"commit:";
/// Digits of a commit's id before a path.
pub(super) const SHORT_ID: usize = 12;

/// Reads a diff to its end and pushes its added lines.
pub fn run(
    input: &mut dyn BufRead,
    kind: Kind,
    sink: &mut dyn Sink,
) -> Result<Outcome, SourceError> {
    read(input, kind, None, sink)
}

/// The same for the diffs of many commits, each behind a line of [`COMMIT_FORMAT`]; a path becomes
/// `COMMIT:PATH`.
pub fn run_commits(
    input: &mut dyn BufRead,
    kind: Kind,
    commits: &mut Vec<Commit>,
    sink: &mut dyn Sink,
) -> Result<Outcome, SourceError> {
    read(input, kind, Some(commits), sink)
}

/// What a line of [`COMMIT_FORMAT`] says.
#[must_use]
pub fn commit_of(line: &[u8]) -> Option<Commit> {
    let text = String::from_utf8_lossy(line.strip_prefix(COMMIT_MARK)?);
    let (id, parents) = text.split_once(':')?;
    Some(Commit { id: id.to_owned(), parents: parents.split_whitespace().count().max(1) })
}

/// A commit's id as it stands before a path.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

fn read(
    input: &mut dyn BufRead,
    kind: Kind,
    commits: Option<&mut Vec<Commit>>,
    sink: &mut dyn Sink,
) -> Result<Outcome, SourceError> {
    let mut reader = Reader {
        kind,
        sink,
        commits,
        path: PathBuf::new(),
        pair: None,
        fed: None,
        open: false,
        old_left: 0,
        new_left: 0,
        new_line: 0,
        outcome: Outcome::default(),
    };
    let result = reader.run(input);
    reader.close();
    let outcome = reader.outcome;
    result.map_err(|source| SourceError::Read { name: "the diff".to_owned(), source })?;
    Ok(outcome)
}

struct Reader<'a> {
    kind: Kind,
    sink: &'a mut dyn Sink,
    /// Those read so far, where the diffs are of commits.
    commits: Option<&'a mut Vec<Commit>>,
    path: PathBuf,
    /// The names of the file in git's own header, up to where its path is told.
    pair: Option<Pair>,
    /// The path of the item fed last, to count a file once.
    fed: Option<PathBuf>,
    /// Whether an item is open.
    open: bool,
    /// Lines left of the hunk, by its header.
    old_left: u64,
    new_left: u64,
    /// Number of the next line of the new file.
    new_line: u64,
    outcome: Outcome,
}

impl Reader<'_> {
    fn run(&mut self, input: &mut dyn BufRead) -> io::Result<()> {
        loop {
            let Some(&first) = input.fill_buf()?.first() else {
                if self.old_left > 0 || self.new_left > 0 {
                    self.sink.skip(&self.path, "the diff ends in the middle of a hunk".to_owned());
                }
                return Ok(());
            };
            if self.old_left == 0 && self.new_left == 0 && first != b'\\' {
                self.close();
                let header = self.header(input)?;
                self.read_header(&header);
                continue;
            }
            match first {
                b'+' => {
                    self.take(input, 1);
                    self.open();
                    self.line(input, true)?;
                    self.new_left = self.new_left.saturating_sub(1);
                    self.new_line += 1;
                }
                b'-' => {
                    self.line(input, false)?;
                    self.old_left = self.old_left.saturating_sub(1);
                }
                b'\\' => self.line(input, false)?,
                _ => {
                    self.close();
                    self.line(input, false)?;
                    self.old_left = self.old_left.saturating_sub(1);
                    self.new_left = self.new_left.saturating_sub(1);
                    self.new_line += 1;
                }
            }
        }
    }

    fn take(&mut self, input: &mut dyn BufRead, count: usize) {
        input.consume(count);
        self.outcome.bytes += count as u64;
    }

    /// Reads to the end of the line, feeding it or not; bounded memory whatever its length.
    fn line(&mut self, input: &mut dyn BufRead, feed: bool) -> io::Result<()> {
        loop {
            let part = input.fill_buf()?;
            if part.is_empty() {
                return Ok(());
            }
            let end = memchr::memchr(b'\n', part);
            let count = end.map_or(part.len(), |at| at + 1);
            if feed {
                let part = part.get(..count).unwrap_or_default();
                reader::push(self.sink, part);
            }
            self.take(input, count);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// One line outside of hunks, cut at [`HEADER_MAX`], without its newline.
    fn header(&mut self, input: &mut dyn BufRead) -> io::Result<Vec<u8>> {
        let mut header = Vec::new();
        loop {
            let part = input.fill_buf()?;
            let end = memchr::memchr(b'\n', part);
            let count = end.map_or(part.len(), |at| at + 1);
            let room = HEADER_MAX.saturating_sub(header.len());
            let text = part.get(..end.unwrap_or(count).min(room)).unwrap_or_default();
            header.extend_from_slice(text);
            self.take(input, count);
            if end.is_some() || count == 0 {
                if header.last() == Some(&b'\r') {
                    header.pop();
                }
                return Ok(header);
            }
        }
    }

    fn read_header(&mut self, header: &[u8]) {
        if let Some(name) = header.strip_prefix(b"+++ ") {
            self.outcome.headers += 1;
            let path = pair_path(self.pair.take().as_ref(), name);
            self.path = self.of_commit(path);
        } else if let Some(names) = header.strip_prefix(b"diff --git ") {
            self.outcome.headers += 1;
            self.outcome.files += 1;
            self.pair = Some(Pair::of(names));
        } else if let Some(name) = header.strip_prefix(b"--- ") {
            if let Some(pair) = &mut self.pair {
                pair.old.get_or_insert_with(|| plain_name(name));
            }
        } else if let Some(name) =
            header.strip_prefix(b"rename to ").or_else(|| header.strip_prefix(b"copy to "))
        {
            if let Some(pair) = &mut self.pair {
                pair.to = Some(plain_name(name));
            }
        } else if header.first() == Some(&b':') {
            self.outcome.listed += 1;
        } else if let Some(name) = header.strip_prefix(b"* Unmerged path ") {
            self.outcome.files += 1;
            // A path as it is.
            self.sink.skip(&path_of(name), "not merged yet".to_owned());
        } else if header.starts_with(b"@@@") {
            self.outcome.headers += 1;
            let why = "a combined diff; compare with one parent (`git diff HEAD^`)";
            self.sink.skip(&self.path, why.to_owned());
        } else if let Some((old, start, new)) = hunk(header) {
            self.outcome.headers += 1;
            (self.old_left, self.new_line, self.new_left) = (old, start, new);
        } else if header.starts_with(b"Binary files ") {
            self.outcome.headers += 1;
            let why = "a binary file whose content the diff does not hold; use `git diff --text`";
            let path = binary_path(self.pair.take().as_ref(), header);
            self.sink.skip(&path, why.to_owned());
        } else if header == b"GIT binary patch" {
            let why = "a binary patch; use `git diff --text`";
            self.sink.skip(&self.path, why.to_owned());
        } else if header.starts_with(b"Only in ") {
            self.sink.skip(&path_of(header), "the diff does not hold this file; use -N".to_owned());
        } else if header.first() == Some(&b'+') {
            let why = "added lines beyond what the hunk's header counts";
            self.sink.skip(&self.path, why.to_owned());
        } else if let Some(commit) = commit_of(header)
            && let Some(commits) = &mut self.commits
        {
            // A merge comes once for each parent that it differs from.
            if commits.last() != Some(&commit) {
                commits.push(commit);
            }
        }
    }

    /// A path of the commit that is read, where there is one.
    fn of_commit(&self, path: PathBuf) -> PathBuf {
        match self.commits.as_ref().and_then(|commits| commits.last()) {
            Some(commit) => {
                let mut text = OsString::from(short(&commit.id));
                text.push(":");
                text.push(path);
                text.into()
            }
            None => path,
        }
    }

    fn open(&mut self) {
        if !self.open {
            let continued = self.fed.as_deref() == Some(self.path.as_path());
            let lines = self.new_line.saturating_sub(1);
            let from = Position { lines, ..Position::default() };
            self.sink.begin(&Item { continued, from, ..Item::whole(self.kind, self.path.clone()) });
            self.fed = Some(self.path.clone());
            self.open = true;
        }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            let (ControlFlow::Continue(_) | ControlFlow::Break(())) = self.sink.end(End::Done);
        }
    }
}

/// `@@ -a,b +c,d @@` as (b, c, d).
fn hunk(header: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(header.get(..header.len().min(80))?)
        .or_else(|error| std::str::from_utf8(header.get(..error.valid_up_to()).unwrap_or_default()))
        .ok()?;
    let mut words = text.strip_prefix("@@ -")?.split(' ');
    let old = words.next()?;
    let new = words.next()?.strip_prefix('+')?;
    let pair = |word: &str| match word.split_once(',') {
        Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
        None => Some((word.parse::<u64>().ok()?, 1u64)),
    };
    let ((_, old_count), (start, count)) = (pair(old)?, pair(new)?);
    Some((old_count, start, count))
}

/// What git puts before the names of a file, by what it compares (`diff.mnemonicPrefix`).
const PREFIXES: [(&[u8], &[u8]); 6] = [
    (b"a/", b"b/"),
    (b"i/", b"w/"),
    (b"c/", b"i/"),
    (b"c/", b"w/"),
    (b"o/", b"w/"),
    (b"1/", b"2/"),
];

/// What git says of the names of a file: with something before each, or without (`diff.noprefix`).
struct Pair {
    /// Both, of `diff --git`: one path, so they are of one length. `None`: of two.
    names: Option<(Vec<u8>, Vec<u8>)>,
    /// Of the line `--- `.
    old: Option<Vec<u8>>,
    /// Of `rename to`, which has nothing before it.
    to: Option<Vec<u8>>,
}

impl Pair {
    fn of(names: &[u8]) -> Self {
        let halves = names.split_at_checked(names.len() / 2);
        let both = halves.and_then(|(old, new)| Some((old, new.strip_prefix(b" ")?)));
        let both = both.map(|(old, new)| (plain_name(old), plain_name(new)));
        let names = both.filter(|(old, new)| old == new || prefix(old, new).is_some());
        Self { names, old: None, to: None }
    }
}

/// What stands before two names of one file.
fn prefix<'a>(old: &'a [u8], new: &'a [u8]) -> Option<&'a [u8]> {
    let (before, path) = old.split_at_checked(2)?;
    let (behind, new_path) = new.split_at_checked(2)?;
    let is_known = |(one, other): &(&[u8], &[u8])| {
        // The other way round with `-R`.
        (before, behind) == (*one, *other) || (before, behind) == (*other, *one)
    };
    // Two files have two names where no repository is asked.
    let are_of_one = path == new_path || before == b"1/" || before == b"2/";
    (are_of_one && PREFIXES.iter().any(is_known)).then_some(behind)
}

/// The path of a name in a header: unquoted, and without what git puts before it.
fn pair_path(pair: Option<&Pair>, name: &[u8]) -> PathBuf {
    let name = plain_name(name);
    if let Some(to) = pair.and_then(|pair| pair.to.as_ref()) {
        return path_of(to);
    }
    let both = pair.and_then(|pair| {
        let of_lines = || Some((pair.old.as_deref()?, name.as_slice()));
        pair.names.as_ref().map(|(old, new)| (old.as_slice(), new.as_slice())).or_else(of_lines)
    });
    let before: &[u8] = match both {
        Some((old, new)) if old == new => b"",
        Some((old, new)) => prefix(old, new).unwrap_or(b"b/"),
        None => b"b/",
    };
    path_of(name.strip_prefix(before).unwrap_or(&name))
}

/// A name without what may stand behind it, unquoted where git quoted it.
fn plain_name(name: &[u8]) -> Vec<u8> {
    let name = name.split(|&b| b == b'\t').next().unwrap_or_default();
    match name.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted.strip_suffix(b"\"").unwrap_or(quoted)),
        None => name.to_vec(),
    }
}

fn binary_path(pair: Option<&Pair>, header: &[u8]) -> PathBuf {
    let text = header.strip_suffix(b" differ").unwrap_or(header);
    let at = memchr::memmem::rfind(text, b" and ").map_or(0, |at| at + 5);
    pair_path(pair, text.get(at..).unwrap_or_default())
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned()
}

/// Undoes git's C-style quoting.
fn unquote(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(digit @ b'0'..=b'3') => {
                let mut value = digit - b'0';
                for _ in 0..2 {
                    if let Some(next @ b'0'..=b'7') = bytes.peek().copied() {
                        value = value << 3 | (next - b'0');
                        bytes.next();
                    }
                }
                out.push(value);
            }
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'a') => out.push(7),
            Some(b'b') => out.push(8),
            Some(b'v') => out.push(11),
            Some(b'f') => out.push(12),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is given: path, number of the first line, text.
    #[derive(Default)]
    struct Notes {
        blocks: Vec<(String, u64, String)>,
        files: u64,
        skipped: Vec<String>,
        space: Vec<u8>,
    }

    impl Sink for Notes {
        fn begin(&mut self, item: &Item) {
            self.files += u64::from(!item.continued);
            let path = item.path.to_string_lossy().into_owned();
            self.blocks.push((path, item.from.lines + 1, String::new()));
        }
        fn space(&mut self) -> &mut [u8] {
            self.space.resize(7, 0);
            &mut self.space
        }
        fn filled(&mut self, count: usize) {
            let text = String::from_utf8_lossy(&self.space[..count]).into_owned();
            self.blocks.last_mut().unwrap().2.push_str(&text);
        }
        fn end(&mut self, _: End) -> ControlFlow<(), Position> {
            ControlFlow::Continue(Position::default())
        }
        fn skip(&mut self, path: &Path, _: String) {
            self.skipped.push(path.to_string_lossy().into_owned());
        }
        fn note(&mut self, _: &Path, _: &'static str) {}
    }

    fn read(diff: &str) -> (Notes, Outcome) {
        let mut notes = Notes::default();
        let outcome = run(&mut diff.as_bytes(), Kind::Diff, &mut notes).unwrap();
        (notes, outcome)
    }

    #[test]
    fn added_lines_keep_their_numbers() {
        let (notes, outcome) = read(
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@ fn\n one\n-two\n+TWO\n+2b\n three\n\
             @@ -9 +10 @@\n-old\n+++ looks like a header\n\\ No newline at end of file\n\
             diff --git a/y b/y\n--- /dev/null\n+++ b/y\n@@ -0,0 +1 @@\n+hello\n",
        );
        let block = |path: &str, line, text: &str| (path.to_owned(), line, text.to_owned());
        assert_eq!(
            notes.blocks,
            [
                block("x", 2, "TWO\n2b\n"),
                block("x", 10, "++ looks like a header\n"),
                block("y", 1, "hello\n")
            ]
        );
        assert_eq!(notes.files, 2);
        assert_eq!(outcome.headers, 7);
    }

    #[test]
    fn odd_names_and_binary_files() {
        let (notes, _) = read(
            "+++ \"b/caf\\303\\251\\t.txt\"\n@@ -0,0 +1 @@\n+x\n\
             Binary files /dev/null and b/logo.png differ\n",
        );
        assert_eq!(notes.blocks[0].0, "café\t.txt");
        assert_eq!(notes.skipped, ["logo.png"]);
    }

    #[test]
    fn a_path_is_told_without_what_stands_before_it() {
        for (headers, path) in [
            ("diff --git a/x b/x\n--- a/x\n+++ b/x\n", "x"),
            ("diff --git b/x a/x\n--- b/x\n+++ a/x\n", "x"),
            ("diff --git b/x b/x\n--- b/x\n+++ b/x\n", "b/x"),
            ("diff --git b/x b/x\n--- /dev/null\n+++ b/x\n", "b/x"),
            ("diff --git i/b/x w/b/x\n--- /dev/null\n+++ w/b/x\n", "b/x"),
            ("diff --git \"c/b/\\t\" \"i/b/\\t\"\n--- /dev/null\n+++ \"i/b/\\t\"\n", "b/\t"),
            ("diff --git 1/x 2/longer\n--- 1/x\n+++ 2/longer\n", "longer"),
            ("diff --git a/x b/x\nrename from a/x\nrename to b/x\n--- a/x\n+++ b/x\n", "b/x"),
            ("diff --git old/x new/x\n--- old/x\n+++ new/x\n", "new/x"),
            ("--- b/x.orig\t2026\n+++ b/x\t2026\n", "x"),
            ("--- w/x\n+++ w/x\n", "w/x"),
        ] {
            let (notes, _) = read(&format!("{headers}@@ -0,0 +1 @@\n+x\n"));
            assert_eq!(notes.blocks[0].0, path, "{headers}");
        }
        let (notes, _) = read("diff --git w/x w/x\nBinary files w/x and w/x differ\n");
        assert_eq!(notes.skipped, ["w/x"]);
    }

    #[test]
    fn what_is_no_diff_has_no_headers() {
        assert_eq!(read("just\nsome text\n").1.headers, 0);
    }
}
