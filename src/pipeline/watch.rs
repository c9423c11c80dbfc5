//! A watch: registered keys go to the ledger, each with the offset behind it.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::meter::{Meter, OfWatch};
use super::{placed, shown};
use crate::clock;
use crate::ledger::{self, Offset, Sighting};
use crate::matcher::{Candidate, Matcher, Scanner};
use crate::registry::lookup::{Filter, Lookup};
use crate::registry::{Registry, RegistryError};
use crate::rule::Confidence;
use crate::source::follow::{self, Followed};
use crate::source::git::history::Places;
use crate::source::{End, Head, Item, Kind, PathId, Position, Sink, Stat, Stop, path_id};
use crate::vital::Pulse;

/// Batches that wait for the recorder; a full queue holds the readers back.
pub const QUEUE_BATCHES: usize = 256;
/// Batches that are written in one transaction.
const COMMIT_BATCHES: usize = 64;
/// Between attempts to write when the database refuses.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Others may write for so long before somebody is told that nothing can be recorded.
const BUSY_MAX: Duration = Duration::from_secs(30);
/// The recorder gives a sign of life this often when nothing comes.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Candidates that nobody owns, of one stream within [`UNOWNED_EVERY`], that are handed on to be
/// remembered: a flood of them must not drive out what others showed, nor fill the disk.
const UNOWNED_MAX: u32 = 1_000;
const UNOWNED_EVERY: Duration = Duration::from_secs(600);
/// Streams of which that is counted before old counts are dropped.
const UNOWNED_STREAMS: usize = 4_096;

/// What a reader reads for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To know what is new, and how far was read.
    Follow,
    /// To find in what was read before the keys that came later. How far was read stays as it is.
    ReadAgain,
}

/// Tells whether a reader is within an item, and whether it is still the same one.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<AtomicU64>);

impl Turn {
    /// The item that is being read, if one is.
    #[must_use]
    pub fn item(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|turn| turn % 2 == 1)
    }

    fn set(&self, within: bool) {
        let turn = self.0.load(Ordering::SeqCst);
        if (turn % 2 == 1) != within {
            self.0.store(turn + 1, Ordering::SeqCst);
        }
    }
}

/// What one watch hands to the recorder.
#[derive(Default)]
pub struct Batch {
    sightings: Vec<Sighting>,
    /// Unowned candidates beyond [`UNOWNED_MAX`].
    forgotten: u64,
    offset: Option<Offset>,
    /// The watch of that name is ready: what was there at its first start is behind it.
    ready: Option<String>,
    /// Dropped when this batch, and so all before it, is written.
    last: Option<Box<dyn Send>>,
    /// When it was handed over, and the counts of its watch.
    sent: Option<(Instant, Arc<OfWatch>)>,
}

impl Batch {
    /// Nothing but what is dropped when all that was handed over before is written.
    #[must_use]
    pub fn last(last: Box<dyn Send>) -> Self {
        Self { last: Some(last), ..Self::default() }
    }
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
    ready: Option<Box<dyn Fn() + Send>>,
    pulse: Arc<Pulse>,
    /// Something that waits for [`Sink::reached`] was not decided.
    undecided: bool,
    meter: Arc<Meter>,
    /// What is counted of this watch.
    of: Arc<OfWatch>,
    /// What the log told of it last: why it is degraded, if it is.
    told: Option<String>,
    /// Counts what waits in the queue.
    queue: Arc<Meter>,
    /// Bytes of the item that were read before and are fed as context.
    context: usize,
    purpose: Purpose,
    turn: Turn,
}

impl WatchReader {
    /// A sink for the watch of that name.
    #[must_use]
    pub fn new(
        watch: String,
        host: String,
        lookup: Arc<Lookup>,
        matcher: &Matcher,
        (to, meter): (SyncSender<Batch>, Arc<Meter>),
        (ready, pulse): (Box<dyn Fn() + Send>, Arc<Pulse>),
    ) -> Self {
        let filter = lookup.filter();
        Self {
            host,
            matcher: matcher.with_shapes(filter.shapes().clone()),
            filter,
            lookup,
            scanner: Scanner::new(),
            item: None,
            found: Found::default(),
            to,
            ready: Some(ready),
            pulse,
            undecided: false,
            of: meter.of_watch(&watch),
            queue: meter.clone(),
            told: None,
            watch,
            meter,
            context: 0,
            purpose: Purpose::Follow,
            turn: Turn::default(),
        }
    }

    /// The same for what was read before: how far was read is not told, and neither is what nobody
    /// owns or what cannot be read, as that was told then.
    #[must_use]
    pub fn for_reading_again(self) -> Self {
        // What is counted is what the watch reads.
        let meter = Arc::<Meter>::default();
        let of = meter.of_watch(&self.watch);
        Self { purpose: Purpose::ReadAgain, meter, of, ..self }
    }

    /// Tells others whether an item is being read.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Whether the registry answered all questions since the last time.
    pub fn take_decided(&mut self) -> bool {
        !std::mem::take(&mut self.undecided)
    }

    fn hand_over(&self, batch: Batch) -> ControlFlow<()> {
        self.queue.queued.add(1);
        let _waits = self.pulse.rest();
        match self.to.send(Batch { sent: Some((Instant::now(), self.of.clone())), ..batch }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// A text as people may see it.
    #[must_use]
    pub fn redacted(&self, text: &str) -> String {
        shown(&self.matcher, &self.filter, Path::new(text))
    }

    /// Nothing more comes. `last` is dropped when all that came is written.
    pub fn close(self, last: Box<dyn Send>) {
        self.of.set_degraded(None);
        // A recorder that is gone drops it at once.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            self.hand_over(Batch::last(last));
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
        self.hand_over(Batch { sightings, forgotten, offset, ..Batch::default() })
    }

    /// Up to where the item is read, if that is to be remembered.
    fn offset(&self, end: End, position: Position) -> Option<Offset> {
        if end == End::Broken || self.purpose == Purpose::ReadAgain {
            return None;
        }
        let item = self.item.as_ref().filter(|item| !item.kind.is_read_once())?;
        let (stat, head) = (item.stat, item.head);
        let followed = Followed { stream: item.stream.clone()?, stat, position, head };
        let file = item.known_as.unwrap_or_else(|| path_id(&item.path));
        let watch = self.watch.clone();
        Some(Offset { watch, file, followed: Some(followed) })
    }
}

/// What was found in an item and is not handed on yet.
#[derive(Default)]
struct Found {
    sightings: Vec<Sighting>,
    /// Unowned candidates by stream, since when.
    unowned: HashMap<String, (u32, Instant)>,
    forgotten: u64,
    again: bool,
}

impl Found {
    /// A repository is one stream; each of its objects counts for itself.
    fn begin(&mut self, item: &Item) {
        if let Some(stream) = item.stream.as_ref().filter(|_| item.kind.is_in_git()) {
            self.unowned.remove(stream);
        }
    }

    /// Whether one more unowned candidate of a stream is taken.
    fn may_take(&mut self, stream: &str) -> bool {
        let now = Instant::now();
        let is_old = |since: &Instant| now.saturating_duration_since(*since) >= UNOWNED_EVERY;
        if self.unowned.len() >= UNOWNED_STREAMS {
            self.unowned.retain(|_, (_, since)| !is_old(since));
        }
        let (taken, since) = self.unowned.entry(stream.to_owned()).or_insert((0, now));
        if is_old(since) {
            (*taken, *since) = (0, now);
        }
        *taken = taken.saturating_add(1);
        *taken <= UNOWNED_MAX
    }

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
        let sure = candidate.rule.is_some() && candidate.confidence >= Confidence::Medium;
        let likely = sure && !self.again;
        let Some(stream) = item.stream.clone().filter(|_| candidate.known || likely) else {
            return;
        };
        if !candidate.known && !self.may_take(&stream) {
            self.forgotten += 1;
            return;
        }
        // A file may be come to by links: it is the same one by any of its names.
        let is_file = item.kind == Kind::File;
        let real = std::fs::canonicalize(&item.path).ok().filter(|_| is_file);
        let (stream, other_stream) = match &real {
            Some(real) => (follow::stream_of(real), Some(stream)),
            None => (stream, None),
        };
        self.sightings.push(Sighting {
            digest: filter.digest(candidate.secret.expose()),
            checked: candidate.confidence == Confidence::High,
            source: item.kind.as_str().to_owned(),
            stream,
            place: item.path.clone(),
            real,
            other_stream,
            path: shown(&item.path),
            commit: None,
            line: candidate.line,
            column: candidate.column,
            offset: candidate.start,
            host: host.to_owned(),
            seen_at: clock::now(),
            world_readable: item.stat.world_readable,
            again: self.again,
        });
    }
}

impl Sink for WatchReader {
    fn begin(&mut self, item: &Item) {
        // Whoever sees no item from here on can count on what is registered now being looked for.
        self.turn.set(true);
        self.refresh();
        self.found.again = self.purpose == Purpose::ReadAgain;
        self.found.begin(item);
        self.scanner.restart(item.from, item.context);
        self.context = item.context;
        self.meter.files.add(u64::from(!item.continued));
        self.item = Some(item.clone());
    }

    fn space(&mut self) -> &mut [u8] {
        self.scanner.space()
    }

    fn filled(&mut self, count: usize) {
        let again = self.context.min(count);
        self.context -= again;
        self.meter.bytes.add((count - again) as u64);
        let Self { scanner, matcher, filter, item, found, host, meter, .. } = self;
        let shown = |path: &Path| shown(matcher, filter, path);
        scanner.filled(count, matcher, &**filter, &mut |candidate| {
            count_candidate(meter, &candidate);
            if let Some(item) = item {
                found.take(&candidate, item, filter, &shown, host);
            }
        });
        // A closed queue shows at the end of the item. In git, places are looked up first.
        let waits = self.item.as_ref().is_some_and(|item| item.kind.waits());
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            if waits || self.found.sightings.is_empty() {
                ControlFlow::Continue(())
            } else {
                self.send(None)
            };
    }

    fn end(&mut self, end: End) -> ControlFlow<(), Position> {
        let Self { scanner, matcher, filter, item, found, host, meter, .. } = self;
        let shown = |path: &Path| shown(matcher, filter, path);
        let mut take = |candidate: Candidate| {
            count_candidate(meter, &candidate);
            if let Some(item) = item {
                found.take(&candidate, item, filter, &shown, host);
            }
        };
        let position = match end {
            End::Done | End::Broken => {
                scanner.finish(matcher, &**filter, &mut take);
                scanner.at_end()
            }
            End::Pause => scanner.pause(matcher, &**filter, &mut take),
        };
        let from = self.item.as_ref().map_or(0, |item| item.from.lines);
        self.meter.lines.add(position.lines.saturating_sub(from));
        if let Err(error) = self.filter.check() {
            error!(%error, "the registry could not be asked; this will be read again");
            self.undecided = true;
            self.meter.errors.add(1);
            self.turn.set(false);
            return ControlFlow::Break(());
        }
        let waits = self.item.as_ref().is_some_and(|item| item.kind.waits());
        let sent = match waits {
            true => ControlFlow::Continue(()),
            false => self.send(self.offset(end, position)),
        };
        self.turn.set(false);
        match sent {
            ControlFlow::Continue(()) => ControlFlow::Continue(position),
            ControlFlow::Break(()) => ControlFlow::Break(()),
        }
    }

    fn skip(&mut self, path: &Path, why: String) {
        if self.purpose == Purpose::ReadAgain {
            return;
        }
        self.meter.unreadable.add(1);
        let why = shown(&self.matcher, &self.filter, Path::new(&why));
        warn!(path = %shown(&self.matcher, &self.filter, path), why, "cannot read");
    }

    fn ready(&mut self) {
        // Who is told counts on it after a crash, too.
        let told = self.ready.take().map(|tell| Box::new(WhenWritten(tell)) as Box<dyn Send>);
        let batch = Batch { ready: Some(self.watch.clone()), last: told, ..Batch::default() };
        // A recorder that is gone ends the daemon by itself.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) = self.hand_over(batch);
    }

    fn found(&self) -> BTreeMap<String, Kind> {
        placed::objects(self.found.sightings.iter().map(|s| (&*s.place, &*s.source)))
    }

    fn place(&mut self, repository: &Path, places: &Places) {
        let Self { found, matcher, filter, .. } = self;
        let shown = |text: &Path| shown(matcher, filter, text);
        found.sightings.iter_mut().for_each(|sighting| {
            placed::tell(sighting, repository, places, &shown);
        });
    }

    fn reached(&mut self, reference: PathId, to: &str) -> bool {
        if self.purpose == Purpose::ReadAgain {
            return self.send(None).is_continue();
        }
        if !self.take_decided() {
            self.found.sightings.clear();
            return false;
        }
        let stream = to.to_owned();
        let (stat, position) = (Stat::default(), Position::default());
        let followed = Followed { stream, stat, position, head: Head::default() };
        let (watch, followed) = (self.watch.clone(), Some(followed));
        self.send(Some(Offset { watch, file: reference, followed })).is_continue()
    }

    fn gone(&mut self, file: PathId) {
        // A closed queue shows at the end of the next item.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            self.send(Some(Offset { watch: self.watch.clone(), file, followed: None }));
    }

    fn keep(&mut self, file: PathId, followed: &Followed) {
        let (watch, followed) = (self.watch.clone(), Some(followed.clone()));
        // A closed queue shows at the end of the next item.
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            self.send(Some(Offset { watch, file, followed }));
    }

    fn lost(&mut self, path: &Path, bytes: u64) {
        self.of.lost_bytes.add(bytes);
        let path = shown(&self.matcher, &self.filter, path);
        warn!(
            path,
            lost_bytes = bytes,
            "lost: a log was replaced, cut or removed before it was read"
        );
    }

    fn rescanned(&mut self) {
        self.of.rescans.add(1);
        info!(watch = self.watch, "file events were lost; everything is looked at");
    }

    fn degraded(&mut self, why: Option<&str>) {
        self.of.set_degraded(why);
        if self.told.as_deref() == why {
            return;
        }
        match why {
            Some(why) if self.meter.may_tell_degraded() => {
                warn!(watch = self.watch, why, "degraded: changes are found by looking for them");
            }
            // Another watch was told of within the minute; this one's turn comes.
            Some(_) => return,
            None => info!(watch = self.watch, "file events tell of changes again"),
        }
        self.told = why.map(str::to_owned);
    }

    fn note(&mut self, path: &Path, what: &'static str) {
        info!(path = %shown(&self.matcher, &self.filter, path), what, "stream changed");
    }
}

fn count_candidate(meter: &Meter, candidate: &Candidate) {
    meter.candidates.add(1);
    meter.registered.add(u64::from(candidate.known));
}

/// Tells somebody once it is dropped, as the end of a batch is when that is written.
struct WhenWritten(Box<dyn Fn() + Send>);

impl Drop for WhenWritten {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What the recorder tells others.
pub struct Signs<'a> {
    /// What it counts.
    pub meter: &'a Meter,
    /// That it turns.
    pub pulse: &'a Pulse,
    /// That something was written that may have to be acted upon.
    pub committed: &'a dyn Fn(),
}

/// Writes batches until all watches hung up: takes what is there, never waits to fill a batch,
/// commits once. While the database refuses, it keeps what it has and the readers wait.
pub fn record(
    registry: &mut Registry,
    from: &Receiver<Batch>,
    options: &RwLock<ledger::Options>,
    stop: &Stop,
    signs: &Signs<'_>,
) {
    let Signs { meter, pulse, committed } = signs;
    loop {
        pulse.beat();
        let first = match from.recv_timeout(BEAT_EVERY) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut sent: Vec<(Instant, Arc<OfWatch>)> = first.sent.into_iter().collect();
        let mut taken = 1;
        let (mut sightings, mut forgotten) = (first.sightings, first.forgotten);
        let mut offsets: Vec<Offset> = first.offset.into_iter().collect();
        let mut ready: Vec<String> = first.ready.into_iter().collect();
        let mut last: Vec<Box<dyn Send>> = first.last.into_iter().collect();
        for batch in from.try_iter().take(COMMIT_BATCHES) {
            sightings.extend(batch.sightings);
            forgotten += batch.forgotten;
            offsets.extend(batch.offset);
            ready.extend(batch.ready);
            last.extend(batch.last);
            sent.extend(batch.sent);
            taken += 1;
        }
        let batch =
            ledger::Batch { sightings: &sightings, offsets: &offsets, ready: &ready, forgotten };
        let began = Instant::now();
        loop {
            pulse.beat();
            let options = options.read().unwrap_or_else(PoisonError::into_inner);
            let recorded = ledger::record(registry, &batch, &options, clock::now());
            drop(options);
            match recorded {
                Ok(recorded) => {
                    if recorded.opened > 0 {
                        info!(opened = recorded.opened, added = recorded.added, "leak recorded");
                        committed();
                    }
                    break;
                }
                Err(_) if stop.is_stopped() => return,
                Err(RegistryError::Busy) if began.elapsed() < BUSY_MAX => {}
                Err(error) => {
                    meter.errors.add(1);
                    error!(%error, "cannot write to the ledger; trying again");
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
        meter.queued.take(taken);
        // Of all that was written at once, what waited longest counts.
        for (sent, of) in sent.iter().rev() {
            let lag = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
            of.lag_ms.set(lag);
            meter.lag_ms.set(lag);
        }
        drop(last);
    }
}
