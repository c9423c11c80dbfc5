//! What moves bytes to findings (a scan, here) and to the ledger (a watch): the only module with
//! channels.

mod meter;
mod placed;
mod seen;
mod watch;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

pub use meter::{Meter, OfWatch};
pub use seen::{Recording, Unrecorded};
pub use watch::{Batch, QUEUE_BATCHES, Signs, Turn, WatchReader, record};

use crate::finding::{Finding, FoundKey, KnownKeys, Report, Skipped};
use crate::matcher::{Candidate, Matcher, Scanner, pieces};
use crate::registry::export::ExportedFilter;
use crate::registry::lookup::Filter;
use crate::registry::{Registry, RegistryError};
use crate::rule::Confidence;
use crate::secret::fingerprint;
use crate::shape::{self, ShapeSet};
use crate::source::{End, Item, Kind, Made, Mark, Position, Sink};
use seen::Seen;

/// What a scan reports.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only keys of the registry.
    pub only_registered: bool,
    /// Findings below are counted, not reported; registered keys always are.
    pub min_confidence: Confidence,
    /// So many findings are held in memory by each reader; more go to a temporary file.
    pub at_hand: usize,
}

/// What a scan knows of keys beside what the rules say.
pub enum Known {
    /// Nothing.
    Nothing,
    /// A registry, which names them.
    Registry(Registry),
    /// A filter that was exported from one, which does not.
    Exported(ExportedFilter),
}

/// The same while the scan runs.
enum Asked {
    Nothing,
    Registry(Filter, Arc<Mutex<Registry>>),
    Exported(ExportedFilter),
}

/// A scan: shared by its readers, asked for its report at the end.
pub struct Scan {
    matcher: Matcher,
    asked: Asked,
    salt: Vec<u8>,
    options: Options,
    now: Timestamp,
    report: Mutex<Report>,
    error: Mutex<Option<RegistryError>>,
    /// Where registered keys are seen, if that is recorded.
    seen: Option<Seen>,
}

impl Scan {
    /// A scan with rules and what else is known of keys.
    pub fn new(
        matcher: &Matcher,
        known: Known,
        options: Options,
        now: Timestamp,
    ) -> Result<Self, RegistryError> {
        let mut report = Report::default();
        // With no registry there is nothing to tie fingerprints to: they hold within one run only.
        let mut salt = vec![0; 16];
        let (asked, shapes) = match known {
            Known::Registry(registry) => {
                salt = registry.fingerprint_salt()?;
                let registry = Arc::new(Mutex::new(registry));
                let filter = Filter::of(&registry)?;
                report.known = KnownKeys::Registry(filter.keys());
                let shapes = filter.shapes().clone();
                (Asked::Registry(filter, registry), shapes)
            }
            known => {
                getrandom::fill(&mut salt).map_err(crate::secret::KeyringError::Random)?;
                match known {
                    Known::Exported(filter) => {
                        let (count, made) = (filter.count(), filter.made());
                        report.known = KnownKeys::Filter { count, made };
                        let shapes = filter.shapes().clone();
                        (Asked::Exported(filter), shapes)
                    }
                    _ => (Asked::Nothing, ShapeSet::default()),
                }
            }
        };
        Ok(Self {
            matcher: matcher.with_shapes(shapes),
            asked,
            salt,
            options,
            now,
            report: Mutex::new(report),
            error: Mutex::new(None),
            seen: None,
        })
    }

    /// A sink for one thread.
    #[must_use]
    pub fn reader(&self) -> ScanReader<'_> {
        ScanReader {
            scan: self,
            scanner: Scanner::new(),
            item: None,
            shown: None,
            part: Report::default(),
        }
    }

    /// The report, once all readers are gone; and the registry, to be [left](Registry::leave) when it is
    /// told.
    pub fn finish(self) -> Result<(Report, Option<Registry>), RegistryError> {
        if let Some(error) = self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let registry = match self.asked {
            Asked::Registry(filter, registry) => {
                filter.check()?;
                // A pepper that was rotated meanwhile would have hidden keys.
                registry.lock().unwrap_or_else(PoisonError::into_inner).read(|_| Ok(()))?;
                drop(filter);
                let registry = Arc::into_inner(registry);
                registry
                    .map(|registry| registry.into_inner().unwrap_or_else(PoisonError::into_inner))
            }
            Asked::Nothing | Asked::Exported(_) => None,
        };
        let mut report = self.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.sort();
        Ok((report, registry))
    }

    fn held(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> &(dyn shape::Known + Sync) {
        match &self.asked {
            Asked::Nothing => &shape::NoKeys,
            Asked::Registry(filter, _) => filter,
            Asked::Exported(filter) => filter,
        }
    }

    fn found_key(&self, candidate: &Candidate) -> Option<FoundKey> {
        let Asked::Registry(_, registry) = &self.asked else { return None };
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = registry.read(|tx| {
            let digest = tx.keyring().digest(candidate.secret.expose());
            tx.key_by_digest(&digest)
        });
        match answer {
            Ok(key) => key.map(|key| FoundKey::of(&key, self.now)),
            Err(error) => {
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    }

    fn finding(&self, candidate: &Candidate, item: &Item, path: String) -> Option<Finding> {
        let key = if candidate.known { self.found_key(candidate) } else { None };
        let probable = candidate.known && matches!(self.asked, Asked::Exported(_));
        let rule = candidate.rule.and_then(|index| self.matcher.rules().rule(index));
        if key.is_none() && !probable && (rule.is_none() || self.options.only_registered) {
            return None;
        }
        let (id, provider, description) = match rule {
            Some(rule) => (&*rule.id, &*rule.provider, &*rule.name),
            None if probable => ("filter", "registry", "probably a registered key"),
            None => ("registry", "registry", "registered key"),
        };
        let sure = key.is_some() || probable;
        Some(Finding {
            rule: id.to_owned(),
            provider: provider.to_owned(),
            description: description.to_owned(),
            confidence: if sure { Confidence::High } else { candidate.confidence },
            key,
            probable,
            hint: candidate.hint(self.matcher.rules()),
            fingerprint: fingerprint(&self.salt, candidate.secret.expose()),
            path,
            line: candidate.line,
            column: candidate.column,
            start: candidate.start,
            end: candidate.end,
            source: item.kind,
            commit: None,
            git: placed::in_git(item),
        })
    }

    fn shown(&self, path: &Path) -> String {
        use std::os::unix::ffi::OsStrExt;
        self.redacted(path.as_os_str().as_bytes())
    }

    fn redacted(&self, text: &[u8]) -> String {
        self.matcher.redact(text, self.known())
    }
}

/// One thread's end of a scan; adds its part to the report when dropped.
pub struct ScanReader<'a> {
    scan: &'a Scan,
    scanner: Scanner,
    item: Option<Item>,
    shown: Option<String>,
    part: Report,
}

/// Takes a candidate of one item into a report. `shown`: the item's path as people may see it, once
/// it was asked for.
fn collect(
    scan: &Scan,
    item: &Item,
    shown: &mut Option<String>,
    part: &mut Report,
    candidate: &Candidate,
) {
    // Of these there may be millions, and nothing but their number is told.
    if !candidate.known && candidate.confidence < scan.options.min_confidence {
        part.below_confidence += u64::from(!scan.options.only_registered);
        return;
    }
    let path = shown.get_or_insert_with(|| scan.shown(&item.path));
    let Some(finding) = scan.finding(candidate, item, path.clone()) else { return };
    if let Some(key) = &finding.key {
        scan.saw(candidate, item, key);
    }
    if finding.key.is_none()
        && !finding.probable
        && finding.confidence < scan.options.min_confidence
    {
        part.below_confidence += 1;
    } else {
        part.findings.push(finding);
        if part.findings.len() >= scan.options.at_hand {
            scan.held().set_aside(std::mem::take(&mut part.findings));
        }
    }
}

impl Sink for ScanReader<'_> {
    fn begin(&mut self, item: &Item) {
        let counted = !item.continued && item.kind != Kind::Reflog;
        self.part.files += u64::from(counted);
        self.scan.known().prepare_for(item.stat.size);
        self.shown = None;
        self.scanner.restart(item.from, item.context);
        self.item = Some(item.clone());
    }

    fn space(&mut self) -> &mut [u8] {
        self.scanner.space()
    }

    fn filled(&mut self, count: usize) {
        self.part.bytes += count as u64;
        let Self { scan, part, item, shown, .. } = self;
        self.scanner.filled(count, &scan.matcher, scan.known(), &mut |candidate| {
            if let Some(item) = item {
                collect(scan, item, shown, part, &candidate);
            }
        });
    }

    fn whole(&mut self, item: &Item, text: &[u8]) {
        self.made(item, text, None);
    }

    fn made(&mut self, item: &Item, text: &[u8], from: Option<Made<'_>>) -> Option<Vec<Mark>> {
        let Self { scan, part, scanner, .. } = self;
        // Names are counted with what has them.
        let is_name = matches!(item.kind, Kind::PathName | Kind::Ref);
        part.files += u64::from(item.kind == Kind::Blob);
        part.bytes += if is_name { 0 } else { text.len() as u64 };
        let text = (text, item.from.offset);
        Some(scanner.whole(text, from, &scan.matcher, scan.known(), &mut |candidate| {
            placed::collect_whole(scan, (item, text.0), part, &candidate);
        }))
    }

    fn pieces(
        &mut self,
        item: &Item,
        size: u64,
        threads: usize,
        read: &pieces::ReadAt<'_>,
    ) -> Option<std::io::Result<()>> {
        let (scan, part, shown) = (self.scan, &mut self.part, &mut None);
        let known = scan.known();
        known.prepare_for(size);
        let outcome = pieces::scan(&scan.matcher, known, (size, threads), read, &mut |candidate| {
            collect(scan, item, shown, part, &candidate);
        });
        part.files += 1;
        part.bytes += outcome.as_ref().copied().unwrap_or_default();
        Some(outcome.map(|_| ()))
    }

    fn end(&mut self, _end: End) -> ControlFlow<(), Position> {
        let Self { scan, part, item, shown, .. } = self;
        self.scanner.finish(&scan.matcher, scan.known(), &mut |candidate| {
            if let Some(item) = item {
                collect(scan, item, shown, part, &candidate);
            }
        });
        // Nobody goes on from here.
        ControlFlow::Continue(Position::default())
    }

    fn skip(&mut self, path: &Path, why: String) {
        // A reason may quote a file: a line of .gitignore, for one.
        let why = self.scan.shown(Path::new(&why));
        self.part.skipped.push(Skipped { path: self.scan.shown(path), why });
    }

    fn note(&mut self, _path: &Path, _what: &'static str) {}
}

impl Drop for ScanReader<'_> {
    fn drop(&mut self) {
        let mut report = self.scan.held();
        report.findings.append(&mut self.part.findings);
        report.skipped.append(&mut self.part.skipped);
        report.files += self.part.files;
        report.bytes += self.part.bytes;
        report.below_confidence += self.part.below_confidence;
    }
}

fn shown(matcher: &Matcher, filter: &Filter, path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    matcher.redact(path.as_os_str().as_bytes(), filter)
}
