//! Homes: whether a key was seen where it is meant to be, by any of the names of both.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Sighting;
use crate::incident::Place;
use crate::registry::key::{Home, Key};
use crate::source::Kind;
use crate::source::follow::names_of;

/// Places where keys are meant to be, beside those of each key.
#[derive(Debug, Default)]
pub struct Homes {
    patterns: Vec<String>,
    last: Mutex<Arc<Known>>,
}

/// The same by the names that they have at one time.
#[derive(Debug, Default)]
pub(super) struct Known {
    names: Vec<String>,
    set: GlobSet,
}

impl Homes {
    /// Absolute patterns; a `*` in one stands for no `/`.
    pub fn new(patterns: Vec<String>) -> Result<Self, globset::Error> {
        for pattern in &patterns {
            glob(pattern)?;
        }
        let last = Mutex::new(Arc::new(Known::of(names(&patterns))?));
        Ok(Self { patterns, last })
    }

    /// These, and others beside.
    pub fn and(&self, others: &Self) -> Result<Self, globset::Error> {
        Self::new([self.patterns.as_slice(), &others.patterns].concat())
    }

    /// Where links lead now. To be asked for before the database is written to: a disk may not answer.
    pub(super) fn now(&self) -> Arc<Known> {
        let names = names(&self.patterns);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.names != names {
            // A name that is no pattern names nothing; that of the home itself was one.
            *last = Arc::new(Known::of(names).unwrap_or_default());
        }
        last.clone()
    }
}

fn names(patterns: &[String]) -> Vec<String> {
    patterns.iter().flat_map(|pattern| names_of(pattern)).collect()
}

fn glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

impl Known {
    fn of(names: Vec<String>) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for name in &names {
            set.add(glob(name)?);
        }
        Ok(Self { set: set.build()?, names })
    }

    /// Whether it was seen at one of these.
    pub(super) fn hold(&self, sighting: &Sighting) -> bool {
        sighting.is_at(|place| self.set.is_match(place))
    }

    /// What the place of a sighting is for its key.
    pub(super) fn place_of(&self, key: &Key, sighting: &Sighting) -> Place {
        let home = self.hold(sighting) || key.homes.iter().any(|home| sighting.is_at_own(home));
        match (home, sighting.world_readable) {
            (false, _) => Place::Leak,
            (true, false) => Place::Home,
            (true, true) => Place::OpenHome,
        }
    }
}

impl Sighting {
    /// Homes are files: never logs, diffs or stdin.
    fn is_file(&self) -> bool {
        self.source == Kind::File.as_str()
    }

    /// Whether a pattern matches one of its names.
    fn is_at(&self, matches: impl Fn(&Path) -> bool) -> bool {
        self.is_file() && (matches(&self.place) || self.real.as_deref().is_some_and(matches))
    }

    /// Whether it is at one of a key's homes.
    fn is_at_own(&self, home: &Home) -> bool {
        (home.host.is_empty() || home.host == self.host)
            && self.is_file()
            && names_of(&home.glob).iter().filter_map(|name| glob(name).ok()).any(|glob| {
                let glob = glob.compile_matcher();
                self.is_at(|place| glob.is_match(place))
            })
    }
}
