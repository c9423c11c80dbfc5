//! The database file: how it is opened, and its schema.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::{RegistryError, Result};

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens an existing file. WAL with full sync: what was committed survives a power cut, which an
/// outbox of destructive actions needs. Freed pages are wiped; the schema is not trusted.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// A second connection to a database that is open already, for a loop that tries again by itself:
/// it does not wait long for other writers.
pub(super) fn open_again(path: &Path) -> Result<Connection> {
    let connection = open(path)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    Ok(connection)
}

fn steps() -> Vec<M<'static>> {
    vec![M::up(include_str!("schema.sql"))]
}

/// Whether there is no schema at all: only `init` makes one.
pub(super) fn is_empty(connection: &Connection) -> Result<bool> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version == 0)
}

/// Brings the schema up to date; a newer one is refused.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let steps = steps();
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(RegistryError::Newer { path: path.to_owned(), found, known });
    }
    if found < known {
        Migrations::new(steps).to_latest(connection)?;
    }
    Ok(())
}
