//! Copies of the database, and the checks of a registry.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{Registry, RegistryError, Result, audit, folder, sqlite};

/// Writes a copy of one state of the database into a new file of mode 0600, checks the copy, and
/// gives it its name only then: a file of that name is a whole copy. Writers are not held up. Answers
/// the file.
pub(super) fn write(connection: &Connection, to: &Path) -> Result<File> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| RegistryError::File { doing, path, source }
    };
    if part.exists() {
        fs::remove_file(&part).map_err(failed("remove", &part))?;
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed("create", &part))?;
    let copied = copy(connection, &part).and_then(|()| {
        made.sync_all().map_err(failed("write", &part))?;
        fs::rename(&part, to).map_err(failed("create", to))
    });
    if let Err(error) = copied {
        // What is left of it is of no use; that it cannot be removed is the smaller fault.
        let _removed = fs::remove_file(&part).is_ok();
        return Err(error);
    }
    let folder = to.parent().filter(|path| !path.as_os_str().is_empty());
    folder::sync_folder(folder.unwrap_or(Path::new(".")))?;
    Ok(made)
}

fn copy(connection: &Connection, part: &Path) -> Result<()> {
    connection.execute("VACUUM INTO ?1", [part.to_string_lossy()])?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(part, flags)?;
    match problems(&copy, "quick_check")?.first() {
        None => Ok(()),
        Some(problem) => Err(RegistryError::Damaged(problem.clone())),
    }
}

fn problems(connection: &Connection, check: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA {check}(20)"))?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut lines = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    lines.retain(|line| line != "ok");
    Ok(lines)
}

impl Registry {
    /// Writes a checked copy of the database as it is now; a file that exists is not replaced.
    pub fn backup(&self, to: &Path) -> Result<()> {
        if to.symlink_metadata().is_ok() {
            return Err(RegistryError::Refused(format!("{} exists already", to.display())));
        }
        write(&self.connection, to).map(|_| ())
    }

    /// Everything that is wrong with the registry, in words; empty: nothing is.
    pub fn check(&mut self) -> Result<Vec<String>> {
        let mut found = problems(&self.connection, "integrity_check")?;
        found.extend(sqlite::changed_schema(&self.connection)?);
        found.iter_mut().for_each(|line| *line = format!("database: {line}"));
        for file in folder::loose(&self.folder) {
            found.push(file.to_string());
        }
        self.read(|tx| {
            let count =
                |sql: &str| -> Result<i64> { Ok(tx.sql().query_row(sql, [], |row| row.get(0))?) };
            for (sql, what) in CHECKS {
                let wrong = count(sql)?;
                if wrong > 0 {
                    found.push(format!("{what}: {wrong}"));
                }
            }
            found.extend(tx.audit_verify(&[])?.faults.iter().map(audit::Fault::to_string));
            Ok(())
        })?;
        Ok(found)
    }
}

/// Questions that a whole registry answers with 0.
const CHECKS: [(&str, &str); 6] = [
    ("SELECT count(*) FROM pragma_foreign_key_check", "rows that refer to nothing"),
    (
        "SELECT abs((SELECT live FROM totals) - (SELECT count(*) FROM keys WHERE state <> 'deleted'))",
        "the count of keys is wrong by",
    ),
    (
        "SELECT abs((SELECT kept FROM memory) - (SELECT count(*) FROM remembered))",
        "the count of remembered candidates is wrong by",
    ),
    (
        "SELECT count(*) FROM (SELECT DISTINCT alphabet, length, tag IS NULL AS untagged FROM keys
             EXCEPT SELECT alphabet, length, untagged FROM shapes)",
        "shapes that no scan looks for",
    ),
    (
        "SELECT count(*) FROM keys k JOIN identities i ON i.id = k.identity_id
             WHERE k.account_id <> i.account_id",
        "keys whose owner is of another account",
    ),
    (
        "SELECT count(*) FROM keys WHERE pepper_version <> (SELECT max(pepper_version) FROM keys)",
        "keys under an older pepper",
    ),
];
