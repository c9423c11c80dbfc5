//! Folders, walked by several threads. Each is listed once, and what is in it is opened from there:
//! no path is looked up from the root for every file, and below what the user named nobody can put a
//! link in the way.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use globset::GlobSet;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::process::{Resource, getrlimit};

use super::ignored::{Ignored, Signs};
use super::queue::Queue;
use crate::source::reader;

/// What is walked, and how.
pub(super) struct Options<'a> {
    /// Left out, with all below it; by name or by path.
    pub(super) exclude: &'a GlobSet,
    /// Also what git ignores.
    pub(super) no_ignore: bool,
    pub(super) threads: usize,
}

/// What one thread does with what it meets.
pub(super) trait Visitor {
    /// A regular file, as far as the listing says.
    fn file(&mut self, folder: &Folder, name: &OsStr);
    /// What cannot be read, and why.
    fn skip(&mut self, path: &Path, why: String);
}

/// A folder that is open.
pub(super) struct Folder {
    place: Place,
    fd: OwnedFd,
    /// One above it, which stays open for what is below.
    base: Option<Arc<Folder>>,
    open: Arc<AtomicUsize>,
}

/// Where a folder is.
struct Place {
    /// As the user sees it.
    path: PathBuf,
    /// As patterns ask for it; empty where none are read.
    absolute: PathBuf,
    /// What holds in the folder above.
    ignored: Ignored,
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Work {
    /// To be opened from one above; one that the user named from nowhere.
    Folder(Place, Option<Arc<Folder>>),
    Files(Arc<Folder>, Vec<OsString>),
}

/// How many folders stay open for those below them, at most.
const OPEN_MAX: u64 = 256;
/// As large a part of the files that a process may open is for the folders that stay open; a thread
/// needs a few files.
const SHARE: u64 = 8;
/// So many files of one folder are one thread's.
const FILES: usize = 128;
/// For the entries of a folder, in bytes: enough for most at one go.
const ROOM: usize = 32 * 1024;

/// Walks folders; `visitor` is called once a thread. Answers how many entries git ignores.
pub(super) fn run<V: Visitor>(
    folders: &[&Path],
    options: &Options<'_>,
    visitor: &(dyn Fn() -> V + Sync),
) -> u64 {
    let named = folders.iter().rev().map(|path| {
        let path = path.to_path_buf();
        Work::Folder(Place { path, absolute: PathBuf::new(), ignored: Ignored::default() }, None)
    });
    let queue = Queue::new(named.collect());
    let share = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / SHARE;
    let [open_max, threads] = [share.min(OPEN_MAX), share.max(1)]
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    let (ignored, open) = (AtomicU64::new(0), Arc::new(AtomicUsize::new(0)));
    let work = || {
        let mut worker = Worker {
            options,
            queue: &queue,
            visitor: visitor(),
            open: open.clone(),
            open_max,
            ignored: 0,
            room: Vec::with_capacity(ROOM),
            path: Vec::new(),
        };
        while let Some((work, _busy)) = queue.next() {
            worker.take(work);
        }
        ignored.fetch_add(worker.ignored, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for _ in 1..options.threads.min(threads) {
            // Where there can be no more, fewer do it.
            let _thread = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    ignored.into_inner()
}

struct Worker<'a, V> {
    options: &'a Options<'a>,
    queue: &'a Queue<Work>,
    visitor: V,
    /// How many folders are open, and how many may be for those below them.
    open: Arc<AtomicUsize>,
    open_max: usize,
    ignored: u64,
    /// Where the kernel writes what a folder holds.
    room: Vec<u8>,
    /// Where the absolute path of an entry is put together.
    path: Vec<u8>,
}

impl<V: Visitor> Worker<'_, V> {
    fn take(&mut self, work: Work) {
        match work {
            Work::Files(folder, names) => {
                names.iter().for_each(|name| self.visitor.file(&folder, name));
            }
            Work::Folder(place, base) => {
                let path = place.path.clone();
                if let Err(error) = self.enter(place, base) {
                    self.visitor.skip(&path, reader::describe(&error));
                }
            }
        }
    }

    fn enter(&mut self, mut place: Place, base: Option<Arc<Folder>>) -> io::Result<()> {
        let fd = match &base {
            Some(base) => {
                let below = place.path.strip_prefix(base.path()).unwrap_or(Path::new(""));
                reader::folder_below(base.as_fd(), below, OFlags::RDONLY)?
            }
            // The user may name a link.
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                openat(CWD, &place.path, flags, Mode::empty())?
            }
        };
        self.open.fetch_add(1, Ordering::Relaxed);
        let open = self.open.clone();
        let Self { visitor, room, .. } = self;
        let mut tell = |path: &Path, why: String| visitor.skip(path, why);
        if base.is_none() && !self.options.no_ignore {
            // Where that cannot be told, the folders above mean nothing.
            place.absolute = place.path.canonicalize().unwrap_or_else(|_| PathBuf::from("/"));
            place.ignored = Ignored::above(&place.absolute, &mut tell);
        }
        let (entries, signs, outcome) = list(&fd, room);
        if !self.options.no_ignore {
            let paths = (&*place.path, &*place.absolute);
            place.ignored = place.ignored.within(fd.as_fd(), paths, signs, &mut tell);
        }
        self.sort(&Arc::new(Folder { place, fd, base, open }), entries);
        outcome
    }

    /// Folders and most files of a long list go to whoever is free.
    fn sort(&mut self, folder: &Arc<Folder>, entries: Entries) {
        self.path.clear();
        self.path.extend_from_slice(folder.place.absolute.as_os_str().as_bytes());
        if self.path.last() != Some(&b'/') {
            self.path.push(b'/');
        }
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for (name, kind) in entries {
            if self.is_left_out(folder, &name, kind.is_dir()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(name);
            } else if kind.is_file() {
                files.push(name);
            }
        }
        let mut more = Vec::new();
        while files.len() > FILES {
            let part = files.split_off(files.len() - FILES);
            more.push(Work::Files(folder.clone(), part));
        }
        if !folders.is_empty() || !more.is_empty() {
            let place = &folder.place;
            // What is deep stays with the one that was opened when few were.
            let base = match &folder.base {
                Some(base) if self.open.load(Ordering::Relaxed) > self.open_max => base,
                _ => folder,
            };
            let below = |name: OsString| {
                let (path, absolute) = (place.path.join(&name), place.absolute.join(&name));
                let ignored = place.ignored.clone();
                Work::Folder(Place { path, absolute, ignored }, Some(base.clone()))
            };
            self.queue.add(more, folders.into_iter().map(below).collect());
        }
        files.iter().for_each(|name| self.visitor.file(folder, name));
    }

    fn is_left_out(&mut self, folder: &Folder, name: &OsStr, is_folder: bool) -> bool {
        let exclude = self.options.exclude;
        if name == ".git"
            || !exclude.is_empty()
                && (exclude.is_match(name) || exclude.is_match(folder.path().join(name)))
        {
            return true;
        }
        if !folder.place.ignored.is_some() {
            return false;
        }
        let len = self.path.len();
        self.path.extend_from_slice(name.as_bytes());
        let is_ignored = folder.place.ignored.ignores(&self.path, is_folder);
        self.path.truncate(len);
        self.ignored += u64::from(is_ignored);
        is_ignored
    }
}

type Entries = Vec<(OsString, FileType)>;

/// What is in a folder, as far as it could be read.
fn list(folder: &OwnedFd, room: &mut Vec<u8>) -> (Entries, Signs, io::Result<()>) {
    let (mut entries, mut signs) = (Vec::new(), Signs::default());
    let mut listing = RawDir::new(folder, room.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return (entries, signs, Err(error.into())),
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        signs.see(name);
        let kind = match entry.file_type() {
            // Not every file system says it; what cannot be told is told of when it is opened.
            FileType::Unknown => statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::RegularFile, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        entries.push((OsString::from_vec(name.to_vec()), kind));
    }
    (entries, signs, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Sorted, as one list: paths below the root, and what could not be read.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Met {
        files: Vec<String>,
        skipped: Vec<String>,
        ignored: u64,
    }

    struct Collector<'a>(&'a Path, &'a Mutex<Met>);

    impl Visitor for Collector<'_> {
        fn file(&mut self, folder: &Folder, name: &OsStr) {
            let path = folder.path().join(name);
            assert!(openat(folder, name, OFlags::RDONLY, Mode::empty()).is_ok(), "{path:?}");
            let path = path.strip_prefix(self.0).unwrap().to_str().unwrap().to_owned();
            self.1.lock().unwrap().files.push(path);
        }

        fn skip(&mut self, path: &Path, why: String) {
            self.1.lock().unwrap().skipped.push(format!("{}: {why}", path.display()));
        }
    }

    fn met(root: &Path, folder: &str, threads: usize) -> Met {
        let met = Mutex::default();
        let exclude = GlobSet::empty();
        let options = Options { exclude: &exclude, no_ignore: false, threads };
        let ignored = run(&[&root.join(folder)], &options, &|| Collector(root, &met));
        let mut met = met.into_inner().unwrap();
        met.files.sort();
        met.ignored = ignored;
        met
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What ripgrep's walker makes of it.
    fn expected(root: &Path, folder: &str) -> Vec<String> {
        let mut walker = ignore::WalkBuilder::new(root.join(folder));
        walker
            .standard_filters(false)
            .git_ignore(true)
            .git_exclude(true)
            .git_global(true)
            .parents(true);
        walker.filter_entry(|entry| entry.file_name() != ".git");
        let files = walker.build().map(Result::unwrap);
        let files = files.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
        let below = |entry: ignore::DirEntry| {
            entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()
        };
        let mut files: Vec<String> = files.map(below).collect();
        files.sort();
        files
    }

    /// Few names, so that patterns and repositories are above something.
    fn path(most: usize) -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec!["a", "a", "a", "a", "b", "b", "ab", "c.o", ".h"]);
        prop::collection::vec(name, 1..=most).prop_map(|parts| parts.join("/"))
    }

    fn pattern() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "b", "ab", "*", "**", "*.o", "[ab]", ".h"]);
        let body = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
        let (before, after) = (prop::sample::select(vec!["", "", "!", "/", "!/"]), "/?");
        (before, body, after).prop_map(|(before, body, after)| format!("{before}{body}{after}"))
    }

    fn patterns() -> impl Strategy<Value = String> {
        prop::collection::vec(pattern(), 1..4).prop_map(|lines| lines.join("\n") + "\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Trees with repositories in repositories, patterns at all levels, begun anywhere.
        #[test]
        fn walks_what_ripgrep_walks(
            files in prop::collection::vec(path(5), 1..12),
            ignores in prop::collection::vec((path(3), patterns()), 0..5),
            top in patterns(),
            repositories in prop::collection::vec((path(2), prop::option::of(patterns())), 0..3),
            from in path(2),
            at_top in any::<bool>(),
        ) {
            let tree = tempfile::tempdir().unwrap();
            let root = tree.path();
            // A name may be both a file's and a folder's: what came first stays.
            let put = |path: &str, text: &str| {
                let path = root.join(path);
                if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
                    let _there_is_a_folder = fs::write(path, text);
                }
            };
            files.iter().for_each(|path| put(path, ""));
            ignores.iter().for_each(|(at, text)| put(&format!("{at}/.gitignore"), text));
            put(".gitignore", &top);
            for (at, excludes) in &repositories {
                let excludes = excludes.as_deref().unwrap_or_default();
                put(&format!("{at}/.git/info/exclude"), excludes);
            }
            if at_top {
                put(".git/HEAD", "");
            }
            let from = root.join(&from);
            let from = from.ancestors().find(|path| path.is_dir()).unwrap();
            let from = from.strip_prefix(root).unwrap().to_str().unwrap();
            let alone = met(root, from, 1);
            prop_assert_eq!(&alone.files, &expected(root, from));
            prop_assert_eq!(alone, met(root, from, 3));
        }
    }

    #[test]
    fn a_linked_work_tree_and_a_submodule_have_their_excludes() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        write(root, "main/.git/info/exclude", "common\n");
        write(root, "main/.git/worktrees/linked/commondir", "../..\n");
        write(root, "main/.git/modules/sub/info/exclude", "own\n");
        write(root, "linked/.git", "gitdir: ../main/.git/worktrees/linked\n");
        write(root, "main/sub/.git", "gitdir: ../.git/modules/sub\n");
        for path in ["linked/common", "linked/own", "main/sub/common", "main/sub/own"] {
            write(root, path, "");
        }
        assert_eq!(met(root, "linked", 1).files, ["linked/own"]);
        assert_eq!(met(root, "main/sub", 1).files, ["main/sub/common"]);
    }

    #[test]
    fn links_and_pipes_are_no_patterns_and_no_files() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        write(root, ".git/HEAD", "");
        write(root, "patterns", "*\n");
        write(root, "one/a", "");
        symlink("../patterns", root.join("one/.gitignore")).unwrap();
        symlink("one", root.join("folder")).unwrap();
        symlink("nothing", root.join("one/dangling")).unwrap();
        fs::create_dir(root.join("two")).unwrap();
        let pipe = root.join("two/.gitignore");
        let mode = Mode::from_bits_truncate(0o600);
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
        write(root, "two/b", "");
        let found = met(root, "", 2);
        assert_eq!(found.files, ["one/a", "patterns", "two/b"]);
        assert_eq!(found.skipped, [""; 0]);
    }

    #[test]
    fn long_lists_and_deep_folders_are_walked_whole() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        let deep = "d/".repeat(300);
        for number in 0..5 * FILES {
            write(root, &format!("flat/{number}"), "");
        }
        for level in 0..=deep.len() / 2 {
            write(root, &format!("{}f", deep.get(..2 * level).unwrap()), "");
        }
        let count = 5 * FILES + deep.len() / 2 + 1;
        assert_eq!(met(root, "", 1).files.len(), count);
        assert_eq!(met(root, "", 4), met(root, "", 1));
    }

    /// Pattern, names, and which of them are read.
    const ODD: [(&[u8], &[&str], &[&str]); 10] = [
        (b"foo{1,2}\n*.{o\n", &["foo1", "foo{1,2}", "a.{o"], &["foo1"]),
        (b"[{]\n\\{b\n", &["{", "{b"], &[]),
        (b"\\/\n", &["a/b"], &["a/b"]),
        (b"a\t\n", &["a"], &["a"]),
        (b"*.e\n![[:alpha:]].e\n", &["a.e", "1.e"], &["1.e", "a.e"]),
        (b"[\\]]\n", &["\\]", "]"], &["\\]", "]"]),
        (b"*.e\n!\xe9.e\n", &["a.e"], &["a.e"]),
        (b"a\\\n[z-a]\nb\n", &["a", "b", "z"], &["a", "z"]),
        (b"\xef\xbb\xbfa\r\nb  \n# c\n\\#d\n", &["a", "b", "c", "#d"], &["c"]),
        (b"*\n!b\n", &["a", "b"], &["b"]),
    ];

    #[test]
    fn a_pattern_that_git_may_mean_otherwise_leaves_nothing_out() {
        for (patterns, names, read) in ODD {
            let tree = tempfile::tempdir().unwrap();
            let root = tree.path();
            write(root, ".git/HEAD", "");
            names.iter().for_each(|name| write(root, name, ""));
            fs::write(root.join(".gitignore"), patterns).unwrap();
            let mut found = met(root, "", 1);
            found.files.retain(|name| name != ".gitignore");
            let patterns = String::from_utf8_lossy(patterns);
            assert_eq!(
                (found.files, found.skipped),
                (read.iter().map(|name| name.to_string()).collect(), vec![]),
                "{patterns}"
            );
        }
    }

    #[test]
    fn patterns_cost_little_or_are_told_and_not_heeded() {
        let many = "a\n".repeat(10_001);
        let long = format!("{}a\n", "#\n".repeat(600_000));
        let nested = format!("{}{}\na\n", "{".repeat(20_000), "}".repeat(20_000));
        let half = "a\n".repeat(6_000);
        for (outer, inner, read, told) in [
            (&many, "", vec!["a", "in/a"], "/.gitignore: over 10000 patterns"),
            (&long, "", vec!["a", "in/a"], "/.gitignore: of over 1048576 bytes"),
            (&nested, "", vec![], ""),
            (&half, &*half, vec![], "/in/.gitignore: over 10000 patterns"),
        ] {
            let tree = tempfile::tempdir().unwrap();
            let root = tree.path();
            for (path, text) in [(".git/HEAD", ""), ("a", ""), ("in/a", "")] {
                write(root, path, text);
            }
            write(root, ".gitignore", outer);
            write(root, "in/.gitignore", inner);
            let mut found = met(root, "", 2);
            found.files.retain(|name| !name.ends_with(".gitignore"));
            assert_eq!(found.files, read);
            let skipped = found.skipped.concat();
            assert!(skipped.contains(told) && skipped.is_empty() == told.is_empty(), "{skipped}");
        }
    }

    #[test]
    fn of_patterns_at_a_thousand_levels_a_hundred_are_heeded() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        write(root, ".git/HEAD", "");
        for level in 0..1_000 {
            let folder = "d/".repeat(level);
            write(root, &format!("{folder}.gitignore"), "f\n");
            write(root, &format!("{folder}g"), "");
        }
        let found = met(root, "", 2);
        assert_eq!((found.files.len(), found.skipped.len()), (2_000, 900));
        assert!(found.skipped.iter().all(|line| line.contains("over 100 files of patterns")));
    }

    #[test]
    fn where_the_absolute_path_is_unknown_patterns_hold_all_the_same() {
        let tree = tempfile::tempdir().unwrap();
        write(tree.path(), ".git/HEAD", "");
        write(tree.path(), ".gitignore", "/ub/f\n/sub/g\n");
        let (mut signs, fd) = (Signs::default(), fs::File::open(tree.path()).unwrap());
        [".git", ".gitignore"].iter().for_each(|name| signs.see(name.as_bytes()));
        let paths = (tree.path(), Path::new("/"));
        let ignored = Ignored::default().within(fd.as_fd(), paths, signs, &mut |_, _| {});
        assert!(ignored.ignores(b"/sub/g", false) && !ignored.ignores(b"/sub/f", false));
    }

    #[test]
    fn a_folder_that_is_gone_is_told() {
        let tree = tempfile::tempdir().unwrap();
        let found = met(tree.path(), "gone", 2);
        assert_eq!(found.files, [""; 0]);
        assert!(found.skipped.concat().ends_with("gone: no such file or directory"));
    }
}
