//! What moves bytes to findings (a scan) and to the ledger (a watch): the only file with channels.

mod placed;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info, warn};

use crate::clock;
use crate::finding::{Finding, FoundKey, KnownKeys, Report, Skipped};
use crate::ledger::{self, Offset, Sighting};
use crate::matcher::{Candidate, Matcher, Scanner, pieces};
use crate::registry::export::ExportedFilter;
use crate::registry::lookup::{Filter, Lookup};
use crate::registry::{Registry, RegistryError};
use crate::rule::Confidence;
use crate::secret::fingerprint;
use crate::shape::ShapeSet;
use crate::source::follow::Followed;
use crate::source::git::history::Places;
use crate::source::{End, Item, Kind, Made, Mark, PathId, Position, Sink, Stat, Stop, path_id};

/// Batches that wait for the recorder; a full queue holds the readers back.
pub const QUEUE_BATCHES: usize = 256;
/// Batches that are written in one transaction.
const COMMIT_BATCHES: usize = 64;
/// Between attempts to write when the database refuses.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a scan reports.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only keys of the registry.
    pub only_registered: bool,
    /// Findings below are counted, not reported; registered keys always are.
    pub min_confidence: Confidence,
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
    Registry(Arc<Filter>, Mutex<Registry>),
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
                let filter = Arc::new(Filter::of(&registry)?);
                salt = registry.fingerprint_salt()?;
                report.known = KnownKeys::Registry(registry.key_count()?);
                let shapes = filter.shapes().clone();
                (Asked::Registry(filter, Mutex::new(registry)), shapes)
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

    /// The report, once all readers are gone.
    pub fn finish(self) -> Result<Report, RegistryError> {
        if let Some(error) = self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        if let Asked::Registry(filter, registry) = &self.asked {
            filter.check()?;
            // A pepper that was rotated meanwhile would have hidden keys.
            registry.lock().unwrap_or_else(PoisonError::into_inner).read(|_| Ok(()))?;
        }
        let mut report = self.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.findings.sort_by(|a, b| (&a.path, a.line, a.start).cmp(&(&b.path, b.line, b.start)));
        report.skipped.sort_by(|a, b| (&a.path, &a.why).cmp(&(&b.path, &b.why)));
        Ok(report)
    }

    fn knows(&self, bytes: &[u8]) -> bool {
        match &self.asked {
            Asked::Nothing => false,
            Asked::Registry(filter, _) => filter.knows(bytes),
            Asked::Exported(filter) => filter.knows(bytes),
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
        let rule = candidate.rule.and_then(|index| self.matcher.rules().rules().get(index));
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
            source: item.kind.as_str(),
            git: placed::in_git(item),
        })
    }

    fn shown(&self, path: &Path) -> String {
        use std::os::unix::ffi::OsStrExt;
        self.redacted(path.as_os_str().as_bytes())
    }

    fn redacted(&self, text: &[u8]) -> String {
        self.matcher.redact(text, &|bytes| self.knows(bytes))
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
    if finding.key.is_none()
        && !finding.probable
        && finding.confidence < scan.options.min_confidence
    {
        part.below_confidence += 1;
    } else {
        part.findings.push(finding);
    }
}

impl Sink for ScanReader<'_> {
    fn begin(&mut self, item: &Item) {
        let counted = !item.continued && item.kind != Kind::Reflog;
        self.part.files += u64::from(counted);
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
        self.scanner.filled(count, &scan.matcher, &|bytes| scan.knows(bytes), &mut |candidate| {
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
        let known = |bytes: &[u8]| scan.knows(bytes);
        let text = (text, item.from.offset);
        Some(scanner.whole(text, from, &scan.matcher, &known, &mut |candidate| {
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
        let known = |bytes: &[u8]| scan.knows(bytes);
        let outcome =
            pieces::scan(&scan.matcher, &known, (size, threads), read, &mut |candidate| {
                collect(scan, item, shown, part, &candidate);
            });
        part.files += 1;
        part.bytes += outcome.as_ref().copied().unwrap_or_default();
        Some(outcome.map(|_| ()))
    }

    fn end(&mut self, _end: End) -> ControlFlow<(), Position> {
        let Self { scan, part, item, shown, .. } = self;
        self.scanner.finish(&scan.matcher, &|bytes| scan.knows(bytes), &mut |candidate| {
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
        let mut report = self.scan.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.findings.append(&mut self.part.findings);
        report.skipped.append(&mut self.part.skipped);
        report.files += self.part.files;
        report.bytes += self.part.bytes;
        report.below_confidence += self.part.below_confidence;
    }
}

/// Candidates that nobody owns, of one item, that are handed on to be remembered.
const UNOWNED_MAX: u32 = 1_000;

/// What one watch hands to the recorder.
#[derive(Debug, Default)]
pub struct Batch {
    sightings: Vec<Sighting>,
    /// Unowned candidates beyond [`UNOWNED_MAX`].
    forgotten: u64,
    offset: Option<Offset>,
    /// The watch of that name is ready: what was there at its first start is behind it.
    ready: Option<String>,
}

/// The sink of one watch: sends registered keys on, with the offset behind them.
pub struct WatchReader {
    watch: String,
    host: String,
    lookup: Arc<Lookup>,
    filter: Arc<Filter>,
    matcher: Matcher,
    scanner: Scanner,
    item: Option<Item>,
    found: Found,
    to: SyncSender<Batch>,
    ready: Box<dyn Fn() + Send>,
    /// Something in git was not decided.
    undecided: bool,
}

impl WatchReader {
    /// A sink for the watch of that name.
    #[must_use]
    pub fn new(
        watch: String,
        host: String,
        lookup: Arc<Lookup>,
        matcher: &Matcher,
        to: SyncSender<Batch>,
        ready: Box<dyn Fn() + Send>,
    ) -> Self {
        let filter = lookup.filter();
        Self {
            watch,
            host,
            matcher: matcher.with_shapes(filter.shapes().clone()),
            filter,
            lookup,
            scanner: Scanner::new(),
            item: None,
            found: Found::default(),
            to,
            ready,
            undecided: false,
        }
    }

    /// Takes in keys that were registered since.
    fn refresh(&mut self) {
        match self.lookup.refresh() {
            Ok(filter) => {
                if filter.shapes() != self.filter.shapes() {
                    self.matcher = self.matcher.with_shapes(filter.shapes().clone());
                }
                self.filter = filter;
            }
            Err(error) => error!(%error, "cannot follow the registry; using what is known"),
        }
    }

    fn send(&mut self, offset: Option<Offset>) -> ControlFlow<()> {
        let sightings = std::mem::take(&mut self.found.sightings);
        let forgotten = std::mem::take(&mut self.found.forgotten);
        if sightings.is_empty() && forgotten == 0 && offset.is_none() {
            return ControlFlow::Continue(());
        }
        match self.to.send(Batch { sightings, forgotten, offset, ready: None }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// What was found in an item and is not handed on yet.
#[derive(Default)]
struct Found {
    sightings: Vec<Sighting>,
    unowned: u32,
    forgotten: u64,
}

impl Found {
    /// Takes registered candidates, and those that a rule is sure enough of: somebody may register
    /// them later. A flood of the latter is cut, and counted.
    fn take(
        &mut self,
        candidate: &Candidate,
        item: &Item,
        filter: &Filter,
        shown: &dyn Fn(&Path) -> String,
        host: &str,
    ) {
        let likely = candidate.rule.is_some() && candidate.confidence >= Confidence::Medium;
        let Some(stream) = item.stream.clone().filter(|_| candidate.known || likely) else {
            return;
        };
        if !candidate.known {
            self.unowned += 1;
            if self.unowned > UNOWNED_MAX {
                self.forgotten += 1;
                return;
            }
        }
        self.sightings.push(Sighting {
            digest: filter.digest(candidate.secret.expose()),
            checked: candidate.confidence == Confidence::High,
            source: item.kind.as_str().to_owned(),
            stream,
            place: item.path.clone(),
            path: shown(&item.path),
            line: candidate.line,
            column: candidate.column,
            offset: candidate.start,
            host: host.to_owned(),
            seen_at: clock::now(),
            world_readable: item.stat.world_readable,
        });
    }
}

impl Sink for WatchReader {
    fn begin(&mut self, item: &Item) {
        self.refresh();
        self.found.unowned = 0;
        self.scanner.restart(item.from, item.context);
        self.item = Some(item.clone());
    }

    fn space(&mut self) -> &mut [u8] {
        self.scanner.space()
    }

    fn filled(&mut self, count: usize) {
        let Self { scanner, matcher, filter, item, found, host, .. } = self;
        let shown = |path: &Path| shown(matcher, filter, path);
        scanner.filled(count, matcher, &|bytes| filter.knows(bytes), &mut |candidate| {
            if let Some(item) = item {
                found.take(&candidate, item, filter, &shown, host);
            }
        });
        // A closed queue shows at the end of the item. In git, places are looked up first.
        let in_git = self.item.as_ref().is_some_and(|item| item.kind.is_in_git());
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            if in_git || self.found.sightings.is_empty() {
                ControlFlow::Continue(())
            } else {
                self.send(None)
            };
    }

    fn end(&mut self, end: End) -> ControlFlow<(), Position> {
        let Self { scanner, matcher, filter, item, found, host, .. } = self;
        let shown = |path: &Path| shown(matcher, filter, path);
        let known = |bytes: &[u8]| filter.knows(bytes);
        let mut take = |candidate: Candidate| {
            if let Some(item) = item {
                found.take(&candidate, item, filter, &shown, host);
            }
        };
        let position = match end {
            End::Done | End::Broken => {
                scanner.finish(matcher, &known, &mut take);
                scanner.at_end()
            }
            End::Pause => scanner.pause(matcher, &known, &mut take),
        };
        let offset = match (&self.item, self.filter.check()) {
            (_, Err(error)) => {
                error!(%error, "the registry could not be asked; this will be read again");
                self.undecided = true;
                return ControlFlow::Break(());
            }
            (Some(item), Ok(())) if item.kind.is_in_git() => {
                return ControlFlow::Continue(position);
            }
            (_, Ok(())) if end == End::Broken => None,
            (Some(item), Ok(())) => item.stream.clone().map(|stream| Offset {
                watch: self.watch.clone(),
                file: path_id(&item.path),
                followed: Some(Followed { stream, stat: item.stat, position }),
            }),
            (None, Ok(())) => None,
        };
        match self.send(offset) {
            ControlFlow::Continue(()) => ControlFlow::Continue(position),
            ControlFlow::Break(()) => ControlFlow::Break(()),
        }
    }

    fn skip(&mut self, path: &Path, why: String) {
        let why = shown(&self.matcher, &self.filter, Path::new(&why));
        warn!(path = %shown(&self.matcher, &self.filter, path), why, "cannot read");
    }

    fn ready(&mut self) {
        let batch = Batch { ready: Some(self.watch.clone()), ..Batch::default() };
        // A recorder that is gone ends the daemon by itself.
        let _sent = self.to.send(batch).is_ok();
        (self.ready)();
    }

    fn found(&self) -> BTreeMap<String, Kind> {
        placed::objects(self.found.sightings.iter().map(|s| (&*s.place, s.source)))
    }

    fn place(&mut self, repository: &Path, places: &Places) {
        let Self { found, matcher, filter, .. } = self;
        let shown = |text: &Path| shown(matcher, filter, text);
        found.sightings.iter_mut().for_each(|sighting| {
            placed::tell(sighting, repository, places, &shown);
        });
    }

    fn reached(&mut self, reference: PathId, to: &str) -> bool {
        if std::mem::take(&mut self.undecided) {
            self.found.sightings.clear();
            return false;
        }
        let stream = to.to_owned();
        let followed = Followed { stream, stat: Stat::default(), position: Position::default() };
        let (watch, followed) = (self.watch.clone(), Some(followed));
        self.send(Some(Offset { watch, file: reference, followed })).is_continue()
    }

    fn gone(&mut self, file: PathId) {
        // A closed queue shows at the end of the next item.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            self.send(Some(Offset { watch: self.watch.clone(), file, followed: None }));
    }

    fn note(&mut self, path: &Path, what: &'static str) {
        info!(path = %shown(&self.matcher, &self.filter, path), what, "stream changed");
    }
}

fn shown(matcher: &Matcher, filter: &Filter, path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    matcher.redact(path.as_os_str().as_bytes(), &|bytes| filter.knows(bytes))
}

/// Writes batches until all watches hung up: takes what is there, never waits to fill a batch,
/// commits once. While the database refuses, it keeps what it has and the readers wait.
pub fn record(
    registry: &mut Registry,
    from: &Receiver<Batch>,
    options: &ledger::Options,
    stop: &Stop,
    committed: &dyn Fn(),
) {
    while let Ok(first) = from.recv() {
        let (mut sightings, mut forgotten) = (first.sightings, first.forgotten);
        let mut offsets: Vec<Offset> = first.offset.into_iter().collect();
        let mut ready: Vec<String> = first.ready.into_iter().collect();
        for batch in from.try_iter().take(COMMIT_BATCHES) {
            sightings.extend(batch.sightings);
            forgotten += batch.forgotten;
            offsets.extend(batch.offset);
            ready.extend(batch.ready);
        }
        let batch =
            ledger::Batch { sightings: &sightings, offsets: &offsets, ready: &ready, forgotten };
        loop {
            match ledger::record(registry, &batch, options, clock::now()) {
                Ok(recorded) => {
                    if recorded.opened > 0 {
                        info!(opened = recorded.opened, added = recorded.added, "leak recorded");
                        committed();
                    }
                    break;
                }
                Err(error) => {
                    error!(%error, "cannot write to the ledger; trying again");
                    if stop.is_stopped() {
                        return;
                    }
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
    }
}
