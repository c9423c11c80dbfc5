//! One pattern of a watch: a folder to walk and what to take of it.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// An absolute glob, split into the folder before its first wildcard and the matcher.
#[derive(Clone, Debug)]
pub struct PathGlob {
    root: PathBuf,
    matcher: GlobMatcher,
    below: bool,
}

impl PathGlob {
    /// Reads a pattern; a path without wildcards means the file itself, or all below the folder.
    pub fn new(pattern: &str) -> Result<Self, globset::Error> {
        let wild = |part: &str| part.contains(['*', '?', '[', '{']);
        let mut root = PathBuf::new();
        for part in Path::new(pattern).components() {
            if wild(&part.as_os_str().to_string_lossy()) {
                break;
            }
            root.push(part);
        }
        let below = root == Path::new(pattern);
        let matcher = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
        Ok(Self { root, matcher, below })
    }

    /// Where to walk and to watch.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a path is meant.
    #[must_use]
    pub fn is_match(&self, path: &Path) -> bool {
        if self.below { path.starts_with(&self.root) } else { self.matcher.is_match(path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_and_matches() {
        let glob = PathGlob::new("/srv/in/**").unwrap();
        assert_eq!(glob.root(), Path::new("/srv/in"));
        assert!(glob.is_match(Path::new("/srv/in/a/b.txt")));
        assert!(!glob.is_match(Path::new("/srv/other/a")));
        let glob = PathGlob::new("/var/log/*.log").unwrap();
        assert!(glob.is_match(Path::new("/var/log/a.log")));
        assert!(!glob.is_match(Path::new("/var/log/sub/a.log")));
        let glob = PathGlob::new("/etc/app").unwrap();
        assert!(glob.is_match(Path::new("/etc/app/x/y")) && glob.is_match(Path::new("/etc/app")));
    }
}
