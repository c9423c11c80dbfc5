//! Findings in git: by their object first, with path and commit once these are looked up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::Path;

use jiff::Timestamp;

use super::{Scan, collect};
use crate::finding::{Finding, FoundCommit, InGit, Report};
use crate::ledger::Sighting;
use crate::matcher::Candidate;
use crate::source::git::history::{Origin, Place, Places, part_of};
use crate::source::{Item, Kind, push};

/// Kinds of text that an object holds.
const IN_OBJECTS: [Kind; 4] = [Kind::Blob, Kind::PathName, Kind::Commit, Kind::Tag];

/// Takes a candidate in a text that is at hand as a whole.
pub(super) fn collect_whole(
    scan: &Scan,
    (item, text): (&Item, &[u8]),
    part: &mut Report,
    candidate: &Candidate,
) {
    let before = part.findings.len();
    // The name itself is what is shown of where it is.
    let mut shown = (item.kind == Kind::PathName).then(|| scan.redacted(text));
    collect(scan, item, &mut shown, part, candidate);
    let Some(finding) = part.findings.get_mut(before) else { return };
    if matches!(item.kind, Kind::Commit | Kind::Tag) {
        let at = candidate.start.saturating_sub(item.from.offset);
        let at = usize::try_from(at).unwrap_or_default();
        let (name, line, column) = part_of(item.kind, text, at);
        name.clone_into(&mut finding.path);
        (finding.line, finding.column) = (line, column);
    }
}

/// What is known of a finding in an object before its places are looked up.
pub(super) fn in_git(item: &Item) -> Option<InGit> {
    let object = || item.path.to_string_lossy().into_owned();
    let in_object = IN_OBJECTS.contains(&item.kind);
    in_object.then(|| InGit { object: object(), in_head: None, versions: 1 })
}

/// Objects with findings, of places and the words of their kinds.
pub(super) fn objects<'a>(
    found: impl Iterator<Item = (&'a Path, &'a str)>,
) -> BTreeMap<String, Kind> {
    let kind = |word| IN_OBJECTS.into_iter().find(|kind| kind.as_str() == word);
    found.filter_map(|(path, word)| Some((path.to_str()?.to_owned(), kind(word)?))).collect()
}

/// Says of a sighting in git where it is: repository, path, commit.
pub(super) fn tell(
    sighting: &mut Sighting,
    repository: &Path,
    places: &Places,
    shown: &dyn Fn(&Path) -> String,
) {
    use std::os::unix::ffi::OsStrExt;
    if !IN_OBJECTS.iter().any(|kind| kind.as_str() == sighting.source) {
        return;
    }
    let object = sighting.place.to_string_lossy();
    let place = places.get(&*object).and_then(|p| p.iter().min_by_key(|p| p.order));
    let what = match (&*sighting.source, place) {
        ("blob", Some(place)) => shown(Path::new(OsStr::from_bytes(&place.path))),
        ("blob", None) => unplaced(&object),
        (word, _) => format!("({word})"),
    };
    sighting.commit = place.and_then(|place| Some(place.origin.as_ref()?.commit.clone()));
    sighting.path = format!("{}: {what}", shown(repository));
}

/// What is shown of an object that no commit has.
fn unplaced(object: &str) -> String {
    format!("<blob {}>", object.get(..12).unwrap_or_default())
}

impl Scan {
    /// Objects with findings, by their names in hex.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Kind> {
        let report = self.held();
        let found = report.findings.iter();
        objects(found.filter_map(|finding| {
            Some((Path::new(&finding.git.as_ref()?.object), finding.source.as_str()))
        }))
    }

    /// Gives findings the paths and commits of their objects. Of versions of a file that hold the
    /// same key only the oldest is kept, and counted.
    pub fn place(&self, places: &Places) {
        self.place_seen(places);
        let mut report = self.held();
        let mut oldest: HashMap<(String, String, String), (usize, Finding)> = HashMap::new();
        let mut kept = Vec::new();
        for finding in std::mem::take(&mut report.findings) {
            if finding.git.is_none() {
                kept.push(finding);
                continue;
            }
            for (order, placed) in self.placed(finding, places) {
                let key = (placed.path.clone(), placed.fingerprint.clone(), placed.rule.clone());
                match oldest.remove(&key) {
                    Some(other) => oldest.insert(key, older(other, (order, placed))),
                    None => oldest.insert(key, (order, placed)),
                };
            }
        }
        kept.extend(oldest.into_values().map(|(_, finding)| finding));
        report.findings = kept;
    }

    /// Beginnings of the names of pushed commits and tags with findings.
    #[must_use]
    pub fn pushed(&self) -> BTreeSet<String> {
        let report = self.held();
        let found = report.findings.iter().filter(|finding| finding.source == Kind::Pushed);
        found.filter_map(|finding| push::object_of(&finding.path)).map(str::to_owned).collect()
    }

    /// Says of findings in a push whose commits they are in.
    pub fn name_pushed(&self, origins: &HashMap<String, Origin>) {
        let mut report = self.held();
        for finding in report.findings.iter_mut().filter(|finding| finding.source == Kind::Pushed) {
            let origin = push::object_of(&finding.path).and_then(|id| origins.get(id));
            finding.commit = origin.map(|origin| self.commit(origin));
        }
    }

    /// A finding at each place of its object, with the place's order.
    fn placed(&self, finding: Finding, places: &Places) -> Vec<(usize, Finding)> {
        let object = finding.git.as_ref().map(|git| git.object.as_str()).unwrap_or_default();
        match places.get(object) {
            Some(places) if !places.is_empty() => {
                places.iter().map(|place| (place.order, self.at(&finding, place))).collect()
            }
            _ => {
                let mut finding = finding;
                if finding.source == Kind::Blob {
                    finding.path = unplaced(&finding.path);
                }
                vec![(usize::MAX, finding)]
            }
        }
    }

    fn at(&self, finding: &Finding, place: &Place) -> Finding {
        let mut finding = finding.clone();
        if finding.source == Kind::Blob {
            finding.path = self.redacted(&place.path);
        } else if !place.path.is_empty() {
            finding.path = format!("{}/{}", self.redacted(&place.path), finding.path);
        }
        if let Some(git) = &mut finding.git {
            git.in_head = place.in_head;
            finding.commit = place.origin.as_ref().map(|origin| self.commit(origin));
        }
        finding
    }

    fn commit(&self, origin: &Origin) -> FoundCommit {
        FoundCommit {
            id: origin.commit.clone(),
            author: self.redacted(&origin.author),
            email: self.redacted(&origin.email),
            date: origin.date.and_then(|date| Timestamp::from_second(date).ok()),
        }
    }
}

/// Of two findings of one key at one path the older, which stands for both.
fn older(one: (usize, Finding), other: (usize, Finding)) -> (usize, Finding) {
    let (mut first, second) = if one.0 <= other.0 { (one, other) } else { (other, one) };
    if let (Some(git), Some(also)) = (&mut first.1.git, &second.1.git) {
        // The same object twice is one version.
        git.versions += u64::from(git.object != also.object) * also.versions;
        git.in_head = match (git.in_head, also.in_head) {
            (Some(one), Some(other)) => Some(one || other),
            (one, other) => one.or(other),
        };
    }
    first
}
