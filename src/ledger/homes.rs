//! Homes: whether a key was seen where it is meant to be, by any of the names of both.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Sighting;
use crate::incident::Place;
use crate::registry::key::{Home, Key};
use crate::source::Kind;
use crate::source::follow::names_of;

/// Places where keys are meant to be, beside those of each key.
#[derive(Clone, Debug, Default)]
pub struct Homes {
    patterns: Vec<String>,
    /// Of the names they had when they were read.
    known: GlobSet,
}

impl Homes {
    /// Absolute patterns; a `*` in one stands for no `/`.
    pub fn new(patterns: Vec<String>) -> Result<Self, globset::Error> {
        let mut known = GlobSetBuilder::new();
        for name in patterns.iter().flat_map(|pattern| names_of(pattern)) {
            known.add(GlobBuilder::new(&name).literal_separator(true).build()?);
        }
        Ok(Self { known: known.build()?, patterns })
    }

    /// These, and others beside.
    pub fn and(&self, others: &Self) -> Result<Self, globset::Error> {
        Self::new([self.patterns.as_slice(), &others.patterns].concat())
    }

    /// Whether it was seen at one of these.
    pub(super) fn hold(&self, sighting: &Sighting) -> bool {
        sighting.is_at(|place| self.known.is_match(place))
            // A link may lead elsewhere since they were read.
            || self.patterns.iter().any(|home| sighting.is_at_any(home))
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

    /// The same, by any of the names of the pattern.
    fn is_at_any(&self, pattern: &str) -> bool {
        self.is_file()
            && names_of(pattern).iter().any(|name| {
                let glob = GlobBuilder::new(name).literal_separator(true).build();
                glob.is_ok_and(|glob| {
                    let glob = glob.compile_matcher();
                    self.is_at(|place| glob.is_match(place))
                })
            })
    }

    fn is_at_own(&self, home: &Home) -> bool {
        (home.host.is_empty() || home.host == self.host) && self.is_at_any(&home.glob)
    }
}
