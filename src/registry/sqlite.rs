//! The database file: how it is opened, and its schema.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use rustix::fs::{FlockOperation, flock};

use super::{RegistryError, Result, backup, folder};

/// How often a writer asks for its turn while another one writes, a pause apart: for a minute, as
/// an import writes for some seconds at a time.
const TURNS_ASKED: i32 = 20_000;
/// The same for a loop that tries again by itself: about a second.
const TURNS_ASKED_IN_LOOP: i32 = 330;
const PAUSE: Duration = Duration::from_millis(3);

/// Prepared statements that are kept.
const STATEMENTS_MAX: usize = 64;

/// Opens an existing file. WAL with full sync: what was committed survives a power cut, which an
/// outbox of destructive actions needs. Freed pages are wiped; the schema is not trusted.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_a_minute))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // Nothing is written beside the database, and no statement of an import is prepared twice.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// A second connection to a database that is open already, for a loop that tries again by itself:
/// it does not wait long for other writers.
pub(super) fn open_again(path: &Path) -> Result<Connection> {
    let connection = open(path)?;
    connection.busy_handler(Some(wait_a_second))?;
    Ok(connection)
}

fn wait_a_minute(asked: i32) -> bool {
    ask_again(asked, TURNS_ASKED)
}

fn wait_a_second(asked: i32) -> bool {
    ask_again(asked, TURNS_ASKED_IN_LOOP)
}

/// All who wait ask equally often. SQLite's own handler has those ask less who waited long: beside
/// many writers that come and go, such a one may never have its turn.
fn ask_again(asked: i32, most: i32) -> bool {
    std::thread::sleep(PAUSE);
    asked < most
}

/// Every schema there ever was is the sum of the first steps.
fn steps() -> Vec<M<'static>> {
    vec![
        M::up(include_str!("schema/1.sql")),
        M::up(include_str!("schema/2.sql")).foreign_key_check(),
        M::up(include_str!("schema/3.sql")),
        M::up(include_str!("schema/4.sql")),
        M::up(include_str!("schema/5.sql")),
        M::up(include_str!("schema/6.sql")),
    ]
}

fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Takes what the write-ahead log holds into the database. `false`: others read or write, and some
/// of it had to be left.
pub(super) fn take_in_log(connection: &Connection) -> Result<bool> {
    let answer = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (busy, pages, taken): (bool, i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], answer)?;
    Ok(!busy && pages == taken)
}

/// By kind and name: the text of everything in the schema.
fn schema(connection: &Connection) -> Result<BTreeMap<(String, String), String>> {
    let sql = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What of the schema is not as this version makes it, in words.
pub(super) fn changed_schema(connection: &Connection) -> Result<Vec<String>> {
    let mut fresh = Connection::open_in_memory()?;
    Migrations::new(steps()).to_latest(&mut fresh)?;
    let (wanted, found) = (schema(&fresh)?, schema(connection)?);
    let missing = wanted.iter().filter(|(name, _)| !found.contains_key(*name));
    let missing = missing.map(|((kind, name), _)| format!("the {kind} {name} is missing"));
    let other = found.iter().filter(|(name, sql)| wanted.get(*name) != Some(*sql));
    let other = other.map(|((kind, name), _)| format!("the {kind} {name} is not leakwarden's"));
    Ok(missing.chain(other).collect())
}

/// Whether there is no schema at all: only `init` makes one.
pub(super) fn is_empty(connection: &Connection) -> Result<bool> {
    Ok(version(connection)? == 0)
}

/// Brings the schema up to date, after a copy of the database as it was; a newer one is refused.
pub(super) fn migrate(connection: &mut Connection, dir: &Path) -> Result<()> {
    let path = folder::database(dir);
    let known = i64::try_from(steps().len()).unwrap_or(i64::MAX);
    let found = version(connection)?;
    if found > known {
        return Err(RegistryError::Newer { path, found, known });
    }
    if found == known {
        return Ok(());
    }
    // One process migrates; those that waited find it done.
    let _lock = lock(dir, &dir.join("migration.lock"), FlockOperation::LockExclusive)?;
    let found = version(connection)?;
    if found == known {
        return Ok(());
    }
    // A daemon of the older version would write to tables that it does not know.
    let _alone = without_daemon(dir)?;
    if found > 0 {
        let (path, failed) = (before(dir, found), "give to its owner");
        let copy = backup::write(connection, &path)?;
        folder::give_to_owner(&copy, dir).map_err(|source| RegistryError::File {
            doing: failed,
            path,
            source,
        })?;
    }
    connection.pragma_update(None, "foreign_keys", false)?;
    Migrations::new(steps()).to_latest(connection)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Where the copy from before a migration lies.
fn before(dir: &Path, version: i64) -> PathBuf {
    dir.join(format!("registry.before-schema-{}.db", version + 1))
}

/// Held as long as no daemon may start; refused while one runs.
pub(super) fn without_daemon(dir: &Path) -> Result<std::fs::File> {
    lock(dir, &dir.join("daemon.lock"), FlockOperation::NonBlockingLockExclusive)
}

fn lock(dir: &Path, path: &Path, operation: FlockOperation) -> Result<std::fs::File> {
    let file = folder::open_lock(path).map_err(|source| RegistryError::File {
        doing: "open",
        path: path.to_owned(),
        source,
    })?;
    flock(&file, operation).map_err(|_| RegistryError::Running(dir.to_owned()))?;
    Ok(file)
}
