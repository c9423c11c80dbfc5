//! What a log is called once it is rotated: `app.log` becomes `app.log.1`, `app.log-20261121`,
//! `app-20261121.log`, `app.log.2.gz`, `app.log.old`, in the same folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Words that rotated logs end with, beside numbers and dates.
const WORDS: [&[u8]; 5] = [b"old", b"bak", b"prev", b"save", b"last"];

/// Other files in the folder of a log that may be it under another name, or a copy of it.
pub(super) fn of(path: &Path) -> Vec<PathBuf> {
    let Some(trunk) = path.file_name().map(trunk) else { return Vec::new() };
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let related = entries.filter(|entry| self::trunk(&entry.file_name()) == trunk);
    let mut found: Vec<PathBuf> =
        related.map(|entry| entry.path()).filter(|other| other != path).collect();
    found.sort();
    found
}

/// Whether two logs in one folder bear one name before rotation.
pub(super) fn are(one: &Path, other: &Path) -> bool {
    let trunk = |path: &Path| path.file_name().map(trunk);
    one.parent() == other.parent() && trunk(one) == trunk(other)
}

/// The path that a rotated log had before, as far as its name tells.
pub(super) fn unrotated(path: &Path) -> Option<PathBuf> {
    Some(path.with_file_name(OsStr::from_bytes(&trunk(path.file_name()?))))
}

/// The name without what rotation adds to it.
fn trunk(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let name = name.strip_suffix(b".gz").unwrap_or(name);
    let cut = without_counts(name);
    if cut.len() < name.len() {
        return cut.to_vec();
    }
    // Before the ending: `app-20261121.log`.
    let Some(dot) = memchr::memrchr(b'.', name).filter(|dot| *dot > 0) else {
        return name.to_vec();
    };
    let (stem, ending) = name.split_at(dot);
    // `worker-2.log` is no rotated `worker.log`; a date has eight digits.
    let cut = without_counts(stem);
    let added = stem.get(cut.len()..).unwrap_or_default();
    let is_date = added.iter().filter(|byte| byte.is_ascii_digit()).count() >= 8;
    let stem = if is_date || added.starts_with(b".") { cut } else { stem };
    [stem, ending].concat()
}

/// Takes numbers, dates and words away from the end, each with the character that sets it off.
fn without_counts(name: &[u8]) -> &[u8] {
    let mut rest = name;
    loop {
        let Some(at) = rest.iter().rposition(|byte| b".-_".contains(byte)) else { return rest };
        let (before, part) = rest.split_at(at);
        let part = part.get(1..).unwrap_or_default();
        let counts =
            !part.is_empty() && part.iter().all(|b| b.is_ascii_digit() || b"T:+Z".contains(b));
        if before.is_empty() || !(counts || WORDS.contains(&part)) {
            return rest;
        }
        rest = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_have_one_trunk() {
        let of = |name: &str| String::from_utf8(trunk(OsStr::new(name))).unwrap();
        for name in [
            "app.log",
            "app.log.1",
            "app.log.12.gz",
            "app.log-20261121",
            "app.log-20261121-1430.gz",
            "app-20261121.log",
            "app-2026-11-21T10:00:00Z.log.gz",
            "app.log.old",
            "app.1.log",
        ] {
            assert_eq!(of(name), "app.log", "{name}");
        }
        for (name, trunk) in [
            ("app2.log", "app2.log"),
            ("app-2.log", "app-2.log"),
            ("app-error.log", "app-error.log"),
            ("syslog.1", "syslog"),
            (".hidden", ".hidden"),
            ("1.log", "1.log"),
        ] {
            assert_eq!(of(name), trunk);
        }
    }
}
