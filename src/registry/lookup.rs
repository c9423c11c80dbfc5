//! The filter that candidates pass before the digest is looked up: tags of registered keys.
//!
//! No database call on a miss once the filter is loaded; before that (a hook, a short scan) tags are
//! asked for by index, so that start-up does not grow with the registry.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::Null;
use rusqlite::{Connection, OptionalExtension};

use super::tags::Tags;
use super::{Registry, RegistryError, Result, folder, sqlite};
use crate::secret::{Digest, Keyring};
use crate::shape::{Alphabet, Known, Shape, ShapeSet, each_known};

/// To load so many keys takes as long as to ask for one candidate by index: as long as the filter
/// would have taken, it is not loaded.
const LOADED_PER_ASKED: u64 = 12;
/// Candidates that are asked for by index, at least.
const ASKED_MIN: u64 = 1_000;
/// A text of more bytes has more candidates than are asked for.
const LONG_BYTES: u64 = 64 << 20;

#[derive(Clone, Default)]
struct Loaded {
    tags: Tags,
    /// Digests of keys of which only the SHA-256 is known: these cost a hash per window.
    untagged: Arc<HashSet<[u8; 32]>>,
    /// The last row that is in it.
    seq: i64,
}

/// A connection that is opened when it is first needed: most scans of small files need none.
struct Lazy {
    database: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Lazy {
    fn of(registry: &Registry) -> Arc<Self> {
        let database = folder::database(&registry.folder);
        Arc::new(Self { database, connection: Mutex::default() })
    }

    fn with<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *connection {
            Some(connection) => connection,
            none => none.insert(sqlite::open_again(&self.database)?),
        };
        Ok(ask(connection)?)
    }
}

/// Answers whether bytes are a registered key, over one state of the registry.
pub struct Filter {
    keyring: Arc<Keyring>,
    connection: Arc<Lazy>,
    shapes: ShapeSet,
    untagged_lengths: Vec<usize>,
    /// How many there are, tombstones not counted.
    keys: u64,
    /// How many candidates were asked for by index.
    asked: AtomicU64,
    loaded: OnceLock<Loaded>,
    error: Mutex<Option<RegistryError>>,
}

/// A filter that follows the registry.
pub struct Lookup {
    connection: Arc<Lazy>,
    version: Mutex<i64>,
    filter: RwLock<Arc<Filter>>,
}

impl Lookup {
    /// Over the registry as it is now, loaded.
    pub fn new(registry: &Registry) -> Result<Self> {
        let connection = Lazy::of(registry);
        let version = connection.with(data_version)?;
        let filter = Filter::new(registry, connection.clone())?;
        filter.loaded();
        filter.check()?;
        Ok(Self { connection, version: Mutex::new(version), filter: RwLock::new(Arc::new(filter)) })
    }

    /// The filter as of the last [`refresh`](Self::refresh).
    #[must_use]
    pub fn filter(&self) -> Arc<Filter> {
        self.filter.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what was registered since; cheap when nothing was.
    pub fn refresh(&self) -> Result<Arc<Filter>> {
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.connection.with(data_version)?;
        let filter = self.filter();
        if current == *version {
            return Ok(filter);
        }
        let last = self.connection.with(last_row)?;
        if filter.loaded.get().is_some_and(|loaded| Some(loaded.seq) == last.or(Some(0))) {
            *version = current;
            return Ok(filter);
        }
        let shapes = self.connection.with(shapes)?;
        let (keyring, connection) = (filter.keyring.clone(), self.connection.clone());
        let mut fresh = Filter::with(keyring, connection, shapes, filter.keys);
        if let Some(base) = filter.loaded.get() {
            let loaded = self.connection.with(|connection| load(connection, base.clone()))?;
            fresh.loaded = OnceLock::from(loaded);
        }
        let fresh = Arc::new(fresh);
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        *version = current;
        Ok(fresh)
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

impl Filter {
    /// Over the registry as it is now; loaded when it pays.
    pub fn of(registry: &Registry) -> Result<Self> {
        Self::new(registry, Lazy::of(registry))
    }

    fn new(registry: &Registry, connection: Arc<Lazy>) -> Result<Self> {
        let shapes = shapes(&registry.connection)?;
        Ok(Self::with(registry.keyring().clone(), connection, shapes, registry.key_count()?))
    }

    fn with(
        keyring: Arc<Keyring>,
        connection: Arc<Lazy>,
        (shapes, untagged_lengths): (ShapeSet, Vec<usize>),
        keys: u64,
    ) -> Self {
        Self {
            keyring,
            connection,
            shapes,
            untagged_lengths,
            keys,
            asked: AtomicU64::new(0),
            loaded: OnceLock::new(),
            error: Mutex::new(None),
        }
    }

    /// How many keys there are, tombstones not counted.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The shapes of all keys.
    #[must_use]
    pub fn shapes(&self) -> &ShapeSet {
        &self.shapes
    }

    /// The digest under this registry's pepper.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> Digest {
        self.keyring.digest(bytes)
    }

    /// An error that a look-up met; answers of [`knows`](Self::knows) are not to be trusted then.
    pub fn check(&self) -> Result<()> {
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether the next so many candidates are asked for one by one.
    fn asks(&self, candidates: usize) -> bool {
        self.loaded.get().is_none()
            && self.asked.fetch_add(candidates as u64, Ordering::Relaxed) < self.asked_max()
    }

    fn asked_max(&self) -> u64 {
        ASKED_MIN.max(self.keys / LOADED_PER_ASKED)
    }

    fn ask(&self, bytes: &[u8]) -> bool {
        let answer = self.connection.with(|connection| self.is_in(connection, bytes));
        self.keep(answer).unwrap_or_default()
    }

    fn is_in(&self, connection: &Connection, bytes: &[u8]) -> rusqlite::Result<bool> {
        let tag = i64::from_le_bytes(self.keyring.tag(bytes).to_le_bytes());
        let found = exists(connection, "SELECT 1 FROM keys WHERE tag = ?1", tag)?;
        if found || !self.untagged_lengths.contains(&bytes.len()) {
            return Ok(found);
        }
        let digest = self.keyring.digest(bytes);
        exists(connection, "SELECT 1 FROM keys WHERE digest = ?1", digest.as_bytes())
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.get_or_init(|| {
            let loaded = self.connection.with(|connection| load(connection, Loaded::default()));
            self.keep(loaded).unwrap_or_default()
        })
    }

    fn keep<T>(&self, answer: Result<T>) -> Option<T> {
        answer
            .map_err(|error| {
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            })
            .ok()
    }
}

/// Wrong with a chance of 2^-64 for each key.
impl Known for Filter {
    fn knows(&self, bytes: &[u8]) -> bool {
        if self.asks(1) {
            return self.ask(bytes);
        }
        let loaded = self.loaded();
        loaded.tags.contains(self.keyring.tag(bytes))
            || (self.untagged_lengths.contains(&bytes.len())
                && loaded.untagged.contains(self.keyring.digest(bytes).as_bytes()))
    }

    fn prepare_for(&self, bytes: u64) {
        if bytes > LONG_BYTES {
            self.asked.fetch_max(self.asked_max(), Ordering::Relaxed);
        }
    }

    fn which(&self, text: &[u8], windows: &[Range<usize>], found: &mut dyn FnMut(usize)) {
        let bytes = |window: &Range<usize>| text.get(window.clone()).unwrap_or_default();
        if windows.is_empty() {
            return;
        }
        if self.asks(windows.len()) {
            let answer = self.connection.with(|connection| {
                // Locked once for all of them.
                let _state = connection.unchecked_transaction()?;
                for (window, index) in windows.iter().zip(0..) {
                    if self.is_in(connection, bytes(window))? {
                        found(index);
                    }
                }
                Ok(())
            });
            return self.keep(answer).unwrap_or_default();
        }
        if !self.untagged_lengths.is_empty() {
            return each_known(self, text, windows, found);
        }
        let tags: Vec<u64> = windows.iter().map(|window| self.keyring.tag(bytes(window))).collect();
        self.loaded().tags.which(&tags, found);
    }
}

fn last_row(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT max(seq) FROM keys", [], |row| row.get(0))
}

fn exists(
    connection: &Connection,
    sql: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([value], |_| Ok(())).optional()?.is_some())
}

/// A function of SQL that gathers tags: to step from row to row takes twice as long.
struct Gather {
    /// How many there will be, at most.
    most: usize,
    gathered: Arc<Mutex<Vec<u64>>>,
}

impl Aggregate<Vec<u64>, Null> for Gather {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Vec<u64>> {
        Ok(Vec::with_capacity(self.most))
    }

    fn step(&self, row: &mut Context<'_>, tags: &mut Vec<u64>) -> rusqlite::Result<()> {
        tags.push(row.get::<i64>(0)?.cast_unsigned());
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, tags: Option<Vec<u64>>) -> rusqlite::Result<Null> {
        *self.gathered.lock().unwrap_or_else(PoisonError::into_inner) = tags.unwrap_or_default();
        Ok(Null)
    }
}

/// Adds the rows behind `base.seq`.
fn load(connection: &Connection, mut base: Loaded) -> rusqlite::Result<Loaded> {
    // All is read of one state.
    let _state = connection.unchecked_transaction()?;
    let seq = last_row(connection)?.unwrap_or_default();
    let tags = Gather {
        most: usize::try_from(seq.saturating_sub(base.seq)).unwrap_or_default(),
        gathered: Arc::default(),
    };
    let gathered = tags.gathered.clone();
    connection.create_aggregate_function("gather", 1, FunctionFlags::SQLITE_DIRECTONLY, tags)?;
    // All tags stand in their index, which is a tenth of the table; nothing else is asked of a row.
    let (all, new) = (
        "SELECT gather(tag) FROM keys INDEXED BY keys_by_tag WHERE tag IS NOT NULL",
        "SELECT gather(tag) FROM keys WHERE tag IS NOT NULL AND seq > ?1",
    );
    match base.seq {
        0 => connection.query_row(all, [], |_| Ok(()))?,
        seq => connection.query_row(new, [seq], |_| Ok(()))?,
    }
    let added = std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner));
    let mut statement =
        connection.prepare("SELECT digest FROM keys WHERE tag IS NULL AND seq > ?1")?;
    let mut rows = statement.query([base.seq])?;
    while let Some(row) = rows.next()? {
        Arc::make_mut(&mut base.untagged).insert(row.get(0)?);
    }
    let tags = if added.is_empty() { base.tags } else { base.tags.with(added) };
    Ok(Loaded { tags, untagged: base.untagged, seq })
}

fn shapes(connection: &Connection) -> rusqlite::Result<(ShapeSet, Vec<usize>)> {
    let mut statement = connection.prepare(
        "SELECT alphabet, length, untagged, coalesce(least, 0)
         FROM shapes LEFT JOIN strong USING (alphabet, length)",
    )?;
    let mut rows = statement.query([])?;
    let (mut shapes, mut untagged) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let word: String = row.get(0)?;
        let len = usize::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        let is_untagged = row.get::<_, bool>(2)?;
        if is_untagged {
            untagged.push(len);
        }
        // Of a key that came as a hash, the alphabet is somebody's word: it may be too wide.
        let told = Alphabet::parse(&word).into_iter();
        let possible = told
            .flat_map(|told| told.and_narrower().filter(move |one| is_untagged || *one == told));
        let strong = u32::try_from(row.get::<_, i64>(3)?).unwrap_or_default();
        shapes.extend(possible.map(|alphabet| (Shape { alphabet, len }, strong)));
    }
    Ok((ShapeSet::of_strong(shapes), untagged))
}
