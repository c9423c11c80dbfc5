//! Whose a key is: the registry of hashed keys, over SQLite.
//!
//! Invariants: a plain key is never written (digest, tags and a hint are); whatever changes is one
//! `BEGIN IMMEDIATE` transaction together with its audit row; a database without its own pepper,
//! a newer one, a damaged one or one that others may read is refused, never replaced.

pub mod access;
pub mod account;
pub mod audit;
mod backup;
mod change;
pub mod export;
pub mod folder;
mod grants;
pub mod home;
pub mod identity;
mod issue;
pub mod key;
mod keys;
pub mod lookup;
mod rotate;
mod sqlite;
pub mod tags;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tracing::{debug, error};

use crate::secret::{Keyring, KeyringError};
use crate::shape::Unfit;

pub use change::{Change, KeyUpdate, KeysOf, OWN_ACTOR};
pub use issue::{Added, Holders, Material, NewKey, generate_ibm_like, generate_own};
pub use keys::{Filter, View};

/// What can go wrong with the registry. Each says what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// `init` where there is one.
    #[error("{0} holds a registry already; nothing was changed")]
    Exists(PathBuf),
    /// No registry there.
    #[error("no registry in {0}; make one with `leakwarden init --dir {0}`")]
    Missing(PathBuf),
    /// The database without its pepper.
    #[error("{0} is missing; restore it from its backup: without it no key is ever recognised")]
    NoPepper(PathBuf),
    /// A database file in which nothing is.
    #[error("{0} is no registry: it is empty; restore it from its backup")]
    Empty(PathBuf),
    /// Others may read or write it.
    #[error("{path} has mode {mode:04o}, others can reach it; run `chmod {wanted:04o} {path}`")]
    Loose {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it should be.
        wanted: u32,
    },
    /// A file operation failed.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// Verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The pepper file is damaged.
    #[error("{path}: {source}")]
    Pepper {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyringError,
    },
    /// The pepper file of another installation.
    #[error(
        "the pepper in {0} is not the one this registry was made with; restore the right one: \
         with a wrong one no key would ever be recognised"
    )]
    WrongPepper(PathBuf),
    /// The file of an exported filter cannot be used.
    #[error("{path} {why}")]
    Filter {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// Made by a later leakwarden.
    #[error("{path} has schema {found}, this leakwarden knows up to {known}; use a newer one")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A daemon of an older version runs on it.
    #[error(
        "a daemon runs on the registry in {0}; stop it first (it is of an older version, or would \
         go on with what is changed now)"
    )]
    Running(PathBuf),
    /// SQLite says that its file is broken.
    #[error(
        "the registry database is damaged ({0}); nothing was changed. Stop the daemon, keep the \
         damaged files, and put a backup in their place"
    )]
    Damaged(String),
    /// Another process wrote all the time.
    #[error(
        "the registry is busy: another leakwarden writes to it for long (an import?); try again"
    )]
    Busy,
    /// Nothing can be written.
    #[error(
        "cannot write to the registry: {0}; nothing was changed. Is its disk full, failing or \
         read-only? (The write-ahead log is written for reading, too.)"
    )]
    Unwritable(String),
    /// The pepper was rotated by another process.
    #[error("the pepper of the registry was rotated meanwhile; start again")]
    Rotated,
    /// SQLite refused.
    #[error("registry database: {0}")]
    Sqlite(rusqlite::Error),
    /// A migration failed.
    #[error("cannot bring the registry database up to date: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] KeyringError),
    /// The key itself is refused.
    #[error("refused: {0}")]
    Unfit(#[from] Unfit),
    /// A rule of the registry says no.
    #[error("refused: {0}")]
    Refused(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
}

impl RegistryError {
    /// Tells of it on behalf of a loop that tries again by itself. That others write is no fault.
    pub fn tell_trying_again(&self, doing: &str) {
        match self {
            Self::Busy => debug!("cannot {doing} while others write; trying again"),
            error => error!(%error, "cannot {doing}; trying again"),
        }
    }
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen,
            ) => Self::Unwritable(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

/// Refuses a change by somebody who has not seen the last one.
fn check_version(what: &str, version: i64, expected: Option<i64>) -> Result<()> {
    match expected {
        Some(expected) if expected != version => Err(RegistryError::Refused(format!(
            "the {what} was changed meanwhile: its version is {version}, not {expected}"
        ))),
        _ => Ok(()),
    }
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// An open registry. One per thread; any number may be open on the same database.
pub struct Registry {
    connection: Connection,
    keyring: Arc<Keyring>,
    folder: PathBuf,
}

/// One transaction. Methods that read or change keys live here; see also `ledger`.
pub struct Tx<'a> {
    transaction: Transaction<'a>,
    keyring: &'a Keyring,
}

/// What `init` makes.
#[derive(Debug)]
pub struct Setup {
    /// Name of the account.
    pub account: String,
    /// Mail address of the first admin.
    pub admin: String,
    /// Who makes it.
    pub actor: String,
}

impl Registry {
    /// Makes a new registry in a folder that holds none.
    pub fn init(dir: &Path, setup: &Setup, now: Timestamp) -> Result<Self> {
        let keyring = folder::create(dir)?;
        let mut connection = sqlite::open(&folder::database(dir))?;
        sqlite::migrate(&mut connection, dir)?;
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(KeyringError::Random)?;
        let check = keyring.check_value();
        connection.execute(
            "INSERT INTO meta (name, value) VALUES ('pepper_check', ?1), ('fingerprint_salt', ?2)",
            (&check, &salt),
        )?;
        let mut registry = Self { connection, keyring: Arc::new(keyring), folder: dir.to_owned() };
        let caller = access::Caller::operator(&setup.actor);
        registry.write(|tx| tx.create_account(&setup.account, &setup.admin, &caller, now))?;
        Ok(registry)
    }

    /// Opens an existing registry, checks modes and pepper, and brings its schema up to date.
    pub fn open(dir: &Path) -> Result<Self> {
        let keyring = folder::open(dir)?;
        let path = folder::database(dir);
        refuse_cut_short(dir, &path)?;
        let mut connection = sqlite::open(&path)?;
        if sqlite::is_empty(&connection)? {
            return Err(RegistryError::Empty(path));
        }
        let keyring = matching(&connection, &keyring)?
            .ok_or_else(|| RegistryError::WrongPepper(folder::used_pepper(dir)))?;
        sqlite::migrate(&mut connection, dir)?;
        Ok(Self { connection, keyring: Arc::new(keyring), folder: dir.to_owned() })
    }

    /// A second connection to the same database, for a loop that tries again by itself: it does not
    /// wait long for other writers.
    pub fn reopen(&self) -> Result<Self> {
        let connection = sqlite::open_again(&folder::database(&self.folder))?;
        Ok(Self { connection, keyring: self.keyring.clone(), folder: self.folder.clone() })
    }

    /// The installation's secrets.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Runs one transaction; an error rolls it back.
    pub fn write<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tx = Tx::new(transaction, &self.keyring)?;
        let answer = work(&tx)?;
        tx.transaction.commit()?;
        Ok(answer)
    }

    /// Runs one transaction that only reads, over one state of the database.
    pub fn read<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&Tx::new(transaction, &self.keyring)?)
    }

    /// How many keys there are, tombstones not counted.
    pub fn key_count(&self) -> Result<u64> {
        let sql = "SELECT live FROM totals";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The salt of this installation's fingerprints.
    pub fn fingerprint_salt(&self) -> Result<Vec<u8>> {
        meta(&self.connection, "fingerprint_salt").map(Option::unwrap_or_default)
    }

    /// Makes short work of what need not survive a power cut, and waits for nobody: counts of uses.
    pub fn hasten(&self) -> Result<()> {
        self.connection.pragma_update(None, "synchronous", "normal")?;
        self.connection.busy_timeout(std::time::Duration::from_millis(20))?;
        Ok(())
    }

    /// Ends the last use before the process ends: what SQLite would tidy up piece by piece, the
    /// kernel frees at once, and the files beside the database need not be made anew. Not where the log
    /// holds more than so many bytes, as whoever opens the database next reads all of it; nor where the
    /// files are another's, who might not be able to open what is left.
    #[expect(clippy::mem_forget, reason = "that is what it is for")]
    pub fn leave(self, log_bytes_max: u64) {
        let Self { connection, keyring, folder } = self;
        drop(keyring);
        if folder::is_own(&folder) && folder::log_bytes(&folder) <= log_bytes_max {
            std::mem::forget(connection);
        }
    }

    /// Takes more memory, for many changes at once.
    pub fn make_room(&self) -> Result<()> {
        self.connection.pragma_update(None, "cache_size", -256 * 1024)?;
        self.connection.pragma_update(None, "wal_autocheckpoint", 64 * 1024)?;
        Ok(())
    }
}

/// Refuses a database whose end is missing, unless that is in the log still: whoever takes the log
/// in writes the first page first, and may have been killed, or be at it.
fn refuse_cut_short(dir: &Path, path: &Path) -> Result<()> {
    if folder::missing_bytes(path)? == 0 {
        return Ok(());
    }
    if folder::log_bytes(dir) > 0 && !sqlite::take_in_log(&sqlite::open(path)?)? {
        return Ok(());
    }
    match folder::missing_bytes(path)? {
        0 => Ok(()),
        missing => Err(RegistryError::Damaged(format!(
            "the last {missing} bytes of {} are missing",
            path.display()
        ))),
    }
}

fn meta(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// The secrets under which the digests of this database were made: a copy from before a rotation
/// wants the peppers up to that one.
fn matching(connection: &Connection, keyring: &Keyring) -> Result<Option<Keyring>> {
    let stored = meta(connection, "pepper_check")?.unwrap_or_default();
    let mut older = (1..=keyring.version()).rev().map(|version| keyring.at_version(version));
    Ok(older.find(|keyring| crate::secret::equal(&stored, &keyring.check_value())))
}

impl<'a> Tx<'a> {
    /// No look-up is ever made under a pepper that is not the database's.
    fn new(transaction: Transaction<'a>, keyring: &'a Keyring) -> Result<Self> {
        let stored = meta(&transaction, "pepper_check")?.unwrap_or_default();
        if !crate::secret::equal(&stored, &keyring.check_value()) {
            return Err(RegistryError::Rotated);
        }
        Ok(Self { transaction, keyring })
    }
}

impl Tx<'_> {
    /// The connection, for statements on the ledger's tables.
    #[must_use]
    pub fn sql(&self) -> &Connection {
        &self.transaction
    }

    /// The installation's secrets.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        self.keyring
    }

    /// A value of the table of settings.
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        meta(self.sql(), name)
    }

    /// Writes one.
    pub fn set_setting(&self, name: &str, value: &[u8]) -> Result<()> {
        let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql().execute(sql, (name, value))?;
        Ok(())
    }

    /// A part of a transaction that leaves nothing behind when it is refused.
    pub fn part<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.sql().prepare_cached("SAVEPOINT part")?.execute([])?;
        let answer = work(self);
        if answer.is_err() {
            self.sql().prepare_cached("ROLLBACK TO part")?.execute([])?;
        }
        self.sql().prepare_cached("RELEASE part")?.execute([])?;
        answer
    }
}
