//! Whose a key is: the registry of hashed keys, over SQLite.
//!
//! Invariants: a plain key is never written (digest, tags and a hint are); whatever changes is one
//! `BEGIN IMMEDIATE` transaction together with its audit row; a database without its own pepper,
//! a newer one, a damaged one or one that others may read is refused, never replaced.

pub mod audit;
pub mod export;
pub mod folder;
pub mod key;
mod keys;
pub mod lookup;
mod sqlite;
pub mod tags;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::clock::to_millis;
use crate::secret::{Keyring, KeyringError};
use crate::shape::Unfit;

pub use keys::{Change, Identity, Material, NewKey, generate_ibm_like, generate_own};

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
    /// SQLite refused.
    #[error("registry database: {0}")]
    Sqlite(#[from] rusqlite::Error),
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
        sqlite::migrate(&mut connection, &folder::database(dir))?;
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(KeyringError::Random)?;
        let mut registry = Self { connection, keyring: Arc::new(keyring), folder: dir.to_owned() };
        let check = registry.keyring.check_value();
        registry.write(|tx| {
            tx.set_meta("pepper_check", &check)?;
            tx.set_meta("fingerprint_salt", &salt)?;
            tx.create_account(&setup.account, &setup.admin, &setup.actor, now)
        })?;
        Ok(registry)
    }

    /// Opens an existing registry, checks modes and pepper, and brings its schema up to date.
    pub fn open(dir: &Path) -> Result<Self> {
        let keyring = folder::open(dir)?;
        let path = folder::database(dir);
        let mut connection = sqlite::open(&path)?;
        if sqlite::is_empty(&connection)? {
            return Err(RegistryError::Empty(path));
        }
        sqlite::migrate(&mut connection, &path)?;
        let registry = Self { connection, keyring: Arc::new(keyring), folder: dir.to_owned() };
        let stored = registry.meta("pepper_check")?.unwrap_or_default();
        if !crate::secret::equal(&stored, &registry.keyring.check_value()) {
            return Err(RegistryError::WrongPepper(folder::pepper(dir)));
        }
        Ok(registry)
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
        let tx = Tx { transaction, keyring: &self.keyring };
        let answer = work(&tx)?;
        tx.transaction.commit()?;
        Ok(answer)
    }

    /// Runs one transaction that only reads, over one state of the database.
    pub fn read<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&Tx { transaction, keyring: &self.keyring })
    }

    /// How many keys there are, tombstones not counted.
    pub fn key_count(&self) -> Result<u64> {
        let sql = "SELECT live FROM totals";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The salt of this installation's fingerprints.
    pub fn fingerprint_salt(&self) -> Result<Vec<u8>> {
        self.meta("fingerprint_salt").map(Option::unwrap_or_default)
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut statement =
            self.connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
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

    fn set_meta(&self, name: &str, value: &[u8]) -> Result<()> {
        self.sql().execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", (name, value))?;
        Ok(())
    }

    fn create_account(&self, name: &str, admin: &str, actor: &str, now: Timestamp) -> Result<()> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.sql().execute(
            "INSERT INTO accounts (id, name, created_at) VALUES (?1, ?2, ?3)",
            (&id, name, to_millis(now)),
        )?;
        self.audit(&audit::Entry {
            actor,
            action: "account create",
            target: &id,
            after: name,
            ..audit::Entry::at(now)
        })?;
        let admin = self.identity(admin, actor, now)?;
        self.sql().execute("UPDATE identities SET is_admin = 1 WHERE id = ?1", [&admin.id])?;
        self.audit(&audit::Entry {
            actor,
            action: "access grant",
            target: &admin.id,
            after: "administrator",
            ..audit::Entry::at(now)
        })
    }
}
