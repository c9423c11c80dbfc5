//! The filter that candidates pass before the digest is looked up: tags of registered keys.
//!
//! No database call on a miss once the filter is loaded; before that (a hook, a short scan) tags are
//! asked for by index, so that start-up does not grow with the registry.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

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

/// A connection that several threads ask, one at a time.
enum Shared {
    Own(Mutex<Connection>),
    OfRegistry(Arc<Mutex<Registry>>),
}

impl Shared {
    fn with<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        Ok(match self {
            Self::Own(connection) => ask(&held(connection))?,
            Self::OfRegistry(registry) => ask(&held(registry).connection)?,
        })
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers whether bytes are a registered key, over one state of the registry.
pub struct Filter {
    keyring: Arc<Keyring>,
    connection: Arc<Shared>,
    shapes: ShapeSet,
    untagged_lengths: Vec<usize>,
    /// How many there are, tombstones not counted.
    keys: u64,
    /// How many candidates were asked for by index.
    asked: AtomicU64,
    /// Tags of those that are not there: most candidates of a source tree stand in it several times.
    absent: Mutex<HashSet<u64>>,
    loaded: OnceLock<Loaded>,
    error: Mutex<Option<RegistryError>>,
}

/// A filter that follows the registry.
pub struct Lookup {
    connection: Arc<Shared>,
    version: Mutex<i64>,
    filter: RwLock<Arc<Filter>>,
}

impl Lookup {
    /// Over the registry as it is now, loaded.
    pub fn new(registry: &Registry) -> Result<Self> {
        let connection = sqlite::open_again(&folder::database(&registry.folder))?;
        let connection = Arc::new(Shared::Own(Mutex::new(connection)));
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
        let mut version = held(&self.version);
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
    /// Over the registry as it is now; loaded when it pays. Asks by the registry's own connection:
    /// to open another one takes as long as hundreds of answers.
    pub fn of(registry: &Arc<Mutex<Registry>>) -> Result<Self> {
        Self::new(&held(registry), Arc::new(Shared::OfRegistry(registry.clone())))
    }

    fn new(registry: &Registry, connection: Arc<Shared>) -> Result<Self> {
        let shapes = shapes(&registry.connection)?;
        Ok(Self::with(registry.keyring().clone(), connection, shapes, registry.key_count()?))
    }

    fn with(
        keyring: Arc<Keyring>,
        connection: Arc<Shared>,
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
            absent: Mutex::default(),
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
        match held(&self.error).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn asked_max(&self) -> u64 {
        ASKED_MIN.max(self.keys / LOADED_PER_ASKED)
    }

    /// Asks for candidates by index, unless that would take as long as to load all: `false` then.
    /// Calls with the place of each that is there.
    fn ask(&self, candidates: &[(&[u8], u64)], found: &mut dyn FnMut(usize)) -> bool {
        let unknown: Vec<(usize, &[u8], u64)> = {
            let absent = held(&self.absent);
            let all = candidates.iter().enumerate().map(|(at, (bytes, tag))| (at, *bytes, *tag));
            all.filter(|(.., tag)| !absent.contains(tag)).collect()
        };
        if unknown.is_empty() {
            return true;
        }
        let count = unknown.len() as u64;
        if self.asked.fetch_add(count, Ordering::Relaxed) >= self.asked_max() {
            return false;
        }
        let answer = self.connection.with(|connection| {
            // Locked once for all of them.
            let _state = connection.unchecked_transaction()?;
            for (at, bytes, tag) in unknown {
                match self.is_in(connection, bytes, tag)? {
                    true => found(at),
                    false => drop(held(&self.absent).insert(tag)),
                }
            }
            Ok(())
        });
        self.keep(answer);
        true
    }

    fn is_in(&self, connection: &Connection, bytes: &[u8], tag: u64) -> rusqlite::Result<bool> {
        let signed = tag.cast_signed();
        let found = exists(connection, "SELECT 1 FROM keys WHERE tag = ?1", signed)?;
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
                *held(&self.error) = Some(error);
            })
            .ok()
    }
}

/// Wrong with a chance of 2^-64 for each key.
impl Known for Filter {
    fn knows(&self, bytes: &[u8]) -> bool {
        let tag = self.keyring.tag(bytes);
        let mut is_there = false;
        if self.loaded.get().is_none() && self.ask(&[(bytes, tag)], &mut |_| is_there = true) {
            return is_there;
        }
        let loaded = self.loaded();
        loaded.tags.contains(tag)
            || (self.untagged_lengths.contains(&bytes.len())
                && loaded.untagged.contains(self.keyring.digest(bytes).as_bytes()))
    }

    fn prepare_for(&self, bytes: u64) {
        if bytes > LONG_BYTES {
            self.asked.fetch_max(self.asked_max(), Ordering::Relaxed);
        }
    }

    fn which(&self, text: &[u8], windows: &[Range<usize>], found: &mut dyn FnMut(usize)) {
        if windows.is_empty() {
            return;
        }
        let bytes = |window: &Range<usize>| text.get(window.clone()).unwrap_or_default();
        let tag = |window| self.keyring.tag(bytes(window));
        if self.loaded.get().is_none() {
            let all: Vec<_> = windows.iter().map(|window| (bytes(window), tag(window))).collect();
            if self.ask(&all, found) {
                return;
            }
        }
        if !self.untagged_lengths.is_empty() {
            return each_known(self, text, windows, found);
        }
        let tags: Vec<u64> = windows.iter().map(tag).collect();
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

/// A function of SQL that gathers tags: to step from row to row takes longer.
#[derive(Clone, Default)]
struct Gather(Arc<Mutex<Vec<u64>>>);

impl Aggregate<Vec<u64>, Null> for Gather {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Vec<u64>> {
        Ok(Vec::new())
    }

    fn step(&self, row: &mut Context<'_>, tags: &mut Vec<u64>) -> rusqlite::Result<()> {
        tags.push(row.get::<i64>(0)?.cast_unsigned());
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, tags: Option<Vec<u64>>) -> rusqlite::Result<Null> {
        *held(&self.0) = tags.unwrap_or_default();
        Ok(Null)
    }
}

/// Adds the rows behind `base.seq`.
fn load(connection: &Connection, mut base: Loaded) -> rusqlite::Result<Loaded> {
    // All is read of one state.
    let _state = connection.unchecked_transaction()?;
    let seq = last_row(connection)?.unwrap_or_default();
    let tags = Gather::default();
    let directly = FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function("gather", 1, directly, tags.clone())?;
    // All tags stand in their index, which is a tenth of the table; nothing else is asked of a row.
    let (all, new) = (
        "SELECT gather(tag) FROM keys INDEXED BY keys_by_tag WHERE tag IS NOT NULL",
        "SELECT gather(tag) FROM keys WHERE tag IS NOT NULL AND seq > ?1",
    );
    match base.seq {
        0 => connection.query_row(all, [], |_| Ok(()))?,
        seq => connection.query_row(new, [seq], |_| Ok(()))?,
    }
    let added = std::mem::take(&mut *held(&tags.0));
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
