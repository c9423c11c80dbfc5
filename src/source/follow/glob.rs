//! One pattern of a watch: a folder to walk and what to take of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Components, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::source::{absolute_pattern, escaped};

/// An absolute glob, split into the folder before its first wildcard and the matcher of what is
/// below.
#[derive(Clone, Debug)]
pub struct PathGlob {
    root: PathBuf,
    /// `None`: the root itself and all below it.
    below: Option<GlobMatcher>,
    /// How many folders deep what is meant lies at most; `None`: any number.
    depth: Option<usize>,
}

impl PathGlob {
    /// Reads a pattern, relative to a folder whose name is no pattern. A path without wildcards means
    /// the file itself, or all below the folder. A folder whose name reads like a wildcard is meant
    /// as it stands if it is there.
    pub fn new(base: &Path, pattern: &str) -> Result<Self, globset::Error> {
        let (root, rest) = divided(base, pattern);
        let inner = rest.as_path().to_string_lossy();
        let below = match inner.is_empty() {
            true => None,
            false => {
                let glob = GlobBuilder::new(&inner).literal_separator(true).build()?;
                Some(glob.compile_matcher())
            }
        };
        let deep = below.is_none() || inner.contains("**");
        let depth = (!deep).then(|| rest.count());
        Ok(Self { root, below, depth })
    }

    /// Where to walk and to watch.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a path is meant.
    #[must_use]
    pub fn is_match(&self, path: &Path) -> bool {
        let inner = path.strip_prefix(&self.root);
        inner.is_ok_and(|inner| self.below.as_ref().is_none_or(|glob| glob.is_match(inner)))
    }

    /// Whether what is meant may lie in that folder.
    #[must_use]
    pub fn may_be_in(&self, folder: &Path) -> bool {
        let inner = folder.strip_prefix(&self.root);
        let deep = |inner: &Path| self.depth.is_none_or(|depth| inner.components().count() < depth);
        inner.is_ok_and(deep)
    }
}

/// A pattern's folder before its first wildcard, and what is behind that.
fn divided<'a>(base: &Path, pattern: &'a str) -> (PathBuf, Components<'a>) {
    let mut root = base.to_owned();
    let mut parts = Path::new(pattern).components();
    let mut rest = parts.clone();
    while let Some(part) = parts.next() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => match literal(&root, name) {
                Some(name) => root.push(name),
                None => break,
            },
            other => root.push(other),
        }
        rest = parts.clone();
    }
    (root, rest)
}

/// A home that does not depend on a folder any more. A `/` at its end stays: all that is below is meant.
#[must_use]
pub fn absolute_home(folder: &Path, pattern: &str) -> String {
    let plain = absolute_pattern(folder, pattern);
    let is_folder = pattern.ends_with('/') && !plain.ends_with('/');
    if is_folder { plain + "/" } else { plain }
}

/// A pattern for files, and all others that name the same ones now: as it reads where links lead, as far
/// as what stands before its first wildcard is there; and below it, where it names a folder.
#[must_use]
pub fn names_of(pattern: &str) -> Vec<String> {
    let plain = absolute_pattern(Path::new("/"), pattern);
    let (root, mut rest) = divided(Path::new(""), &plain);
    let (real, is_literal) = (where_links_lead(&plain), rest.next().is_none());
    let below = |name: &str| format!("{}/**", name.trim_end_matches('/'));
    let mut names = vec![plain.clone()];
    names.extend(real.clone());
    if is_literal && root.is_absolute() && (pattern.ends_with('/') || root.is_dir()) {
        // The folder as it stands, also where its name reads like a wildcard.
        names.push(below(&escaped(&root)));
        names.extend(real.as_deref().map(below));
    } else if pattern.ends_with('/') {
        names.extend(real.iter().chain([&plain]).map(|name| below(name)));
    }
    // Whatever a link leads to: what is everywhere is no place where a key is meant to be.
    names.retain(|name| !is_everything(name));
    names
}

/// Whether a pattern matches every file.
#[must_use]
pub fn is_everything(pattern: &str) -> bool {
    pattern.split('/').all(|part| matches!(part, "" | "." | "*" | "**"))
}

fn where_links_lead(pattern: &str) -> Option<String> {
    let (root, rest) = divided(Path::new(""), pattern);
    let real =
        std::fs::canonicalize(&root).or_else(|error| match (root.parent(), root.file_name()) {
            (Some(folder), Some(name)) => std::fs::canonicalize(folder).map(|real| real.join(name)),
            _ => Err(error),
        });
    let real = escaped(&real.ok().filter(|_| root.is_absolute())?);
    let rest = rest.as_path().to_string_lossy();
    let all = if rest.is_empty() { real } else { format!("{}/{rest}", real.trim_end_matches('/')) };
    (all != pattern).then_some(all)
}

/// The name that a part of a pattern stands for, if it stands for one only.
fn literal(folder: &Path, part: &OsStr) -> Option<PathBuf> {
    let bytes = part.as_bytes();
    let wild = |byte: &u8| b"*?[{\\".contains(byte);
    if !bytes.iter().any(wild) {
        return Some(PathBuf::from(part));
    }
    let is_there = folder.join(part).symlink_metadata().is_ok();
    if is_there && !bytes.contains(&b'*') {
        return Some(PathBuf::from(part));
    }
    unescaped(bytes).map(|name| PathBuf::from(OsStr::from_bytes(&name)))
}

/// `\[` and `[[]` stand for `[`.
fn unescaped(part: &[u8]) -> Option<Vec<u8>> {
    let (mut name, mut rest) = (Vec::new(), part);
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'\\', [escaped, after @ ..]) => {
                name.push(*escaped);
                after
            }
            (b'[', [wild @ (b'[' | b']' | b'*' | b'?' | b'{' | b'}'), b']', after @ ..]) => {
                name.push(*wild);
                after
            }
            (b'*' | b'?' | b'[' | b'{' | b'\\', _) => return None,
            (byte, after) => {
                name.push(byte);
                after
            }
        };
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str) -> PathGlob {
        PathGlob::new(Path::new("/"), pattern).unwrap()
    }

    #[test]
    fn a_home_has_many_names_but_is_never_everything() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["[slug]", "s", "?.env", r"a\b"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("[slug]", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.join("all")).unwrap();
        let base = root.to_str().unwrap();
        let is_at = |home: &str, place: &str| {
            names_of(&home.replace('@', base)).iter().any(|name| {
                let glob = GlobBuilder::new(name).literal_separator(true).build().unwrap();
                glob.compile_matcher().is_match(place.replace('@', base))
            })
        };
        for (home, place) in [
            ("@/x", "@/x"),
            ("@//./x", "@/x"),
            ("@/s", "@/s/a/b"),
            ("@/new/", "@/new/a"),
            ("@/*/", "@/any/a"),
            ("@/[slug]", "@/[slug]/a"),
            ("@/link/.env", "@/[slug]/.env"),
            ("@/link/../x", "@/x"),
            ("@/link/./*.env", "@/[slug]/a.env"),
            ("@/?.env", "@/a.env"),
            (r"@/a\\b/x", r"@/a\b/x"),
            (r"@/a\\b", r"@/a\b/x"),
            ("**/.*", "/any/.env"),
        ] {
            assert!(is_at(home, place), "{home} {place} {:?}", names_of(&home.replace('@', base)));
        }
        for (home, place) in [
            ("@/[slug]", "@/s/a"),
            ("@/link/../s", "@/[slug]/a"),
            ("@/*", "@/s/a"),
            ("@/all", "/etc/x"),
            ("@/all/", "/etc/x"),
            ("/.", "/x"),
            ("/etc/..", "/x"),
            ("/proc/self/root", "/x"),
            ("**", "/x"),
        ] {
            assert!(!is_at(home, place), "{home} {place} {:?}", names_of(&home.replace('@', base)));
        }
    }

    #[test]
    fn roots_and_matches() {
        let deep = glob("/srv/in/**");
        assert_eq!(deep.root(), Path::new("/srv/in"));
        assert!(deep.is_match(Path::new("/srv/in/a/b.txt")));
        assert!(!deep.is_match(Path::new("/srv/other/a")));
        assert!(deep.may_be_in(Path::new("/srv/in/a/b/c")));
        let flat = glob("/var/log/*.log");
        assert!(flat.is_match(Path::new("/var/log/a.log")));
        assert!(!flat.is_match(Path::new("/var/log/sub/a.log")));
        assert!(flat.may_be_in(Path::new("/var/log")));
        assert!(!flat.may_be_in(Path::new("/var/log/sub")));
        let plain = glob("/etc/app");
        assert!(plain.is_match(Path::new("/etc/app/x/y")) && plain.is_match(Path::new("/etc/app")));
    }

    #[test]
    fn brackets_that_are_no_wildcards() {
        let base = PathGlob::new(Path::new("/srv/a[b]"), "./in/*.txt").unwrap();
        assert_eq!(base.root(), Path::new("/srv/a[b]/in"));
        assert!(base.is_match(Path::new("/srv/a[b]/in/x.txt")));
        for pattern in ["/srv/[[]x]/*", "/srv/\\[x]/*"] {
            assert_eq!(glob(pattern).root(), Path::new("/srv/[x]"), "{pattern}");
        }
        assert_eq!(glob("/srv/[ab]/x").root(), Path::new("/srv"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("[ab]")).unwrap();
        let there = PathGlob::new(folder.path(), "[ab]/*.txt").unwrap();
        assert_eq!(there.root(), folder.path().join("[ab]"));
    }
}
