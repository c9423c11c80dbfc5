//! The threads: watches, recorder, mail. Watches come and go with the configuration, and a watch that
//! failed is started again after a pause.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tracing::{error, info, warn};

use super::again::{Again, Reading, Readings};
use super::restart::Restarts;
use super::status::{Board, State};
use super::{DaemonError, Followed, Mail, Watch, host, runtime};
use crate::ledger;
use crate::mail;
use crate::matcher::Matcher;
use crate::pipeline::{self, Batch, Meter, QUEUE_BATCHES, WatchReader};
use crate::registry::lookup::Lookup;
use crate::registry::{Registry, RegistryError};
use crate::source::follow::Follow;
use crate::source::git::poll::Poll;
use crate::source::journald::Journald;
use crate::source::pipe::Pipe;
use crate::source::{SourceError, Stop};
use crate::vital::Pulse;

/// From the signal to the end, at most.
pub(super) const GRACE: Duration = Duration::from_secs(4);
/// Events that wait for the supervisor; whoever has one more waits with it.
const EVENTS_MAX: usize = 64;
/// Mail gives a sign of life this often.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// What threads tell the supervisor.
pub(super) enum Event {
    /// A watch misses nothing from now on.
    Ready(u64),
    /// A thread ended, and what it handed on is written.
    Ended(Part, Ending),
}

/// How a thread ended.
pub(super) enum Ending {
    /// Nobody knows: it panicked.
    Died,
    /// It was asked to, or nothing more can come.
    Done,
    /// It cannot go on; why, redacted.
    Failed(String),
}

/// Who ended.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Watch(u64),
    Recorder,
    Mail,
    Again,
}

/// Tells when a thread ends, however it ends.
struct Guard {
    part: Part,
    ending: Ending,
    events: mpsc::Sender<Event>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The supervisor may be gone already; then nobody needs to know.
        let ending = std::mem::replace(&mut self.ending, Ending::Died);
        let _told = self.events.blocking_send(Event::Ended(self.part, ending)).is_ok();
    }
}

/// A source that goes on for ever.
enum Endless {
    Files(Box<Follow>),
    Git(Poll),
    Journald(Journald),
    Pipe(Pipe),
}

impl Endless {
    fn run(&mut self, sink: &mut WatchReader, stop: &Stop) -> Result<(), SourceError> {
        match self {
            Self::Files(follow) => follow.run(sink, stop),
            Self::Git(poll) => poll.run(sink, stop),
            Self::Journald(journald) => journald.run(sink, stop),
            Self::Pipe(pipe) => pipe.run(sink, stop),
        }
    }
}

/// A watch that has a thread.
struct Running {
    id: u64,
    watch: Watch,
    stop: Stop,
    ready: bool,
    pulse: Arc<Pulse>,
}

/// The threads.
pub(super) struct Front {
    registry: Registry,
    lookup: Arc<Lookup>,
    matcher: Matcher,
    /// Changed rules that are not taken in yet.
    fresh: Option<Matcher>,
    options: Arc<RwLock<ledger::Options>>,
    meter: Arc<Meter>,
    to: SyncSender<Batch>,
    /// What may have to be read again.
    readings: Readings,
    /// Those who do end when nobody holds it.
    again: SyncSender<()>,
    events: mpsc::Sender<Event>,
    /// The recorder's.
    stop: Stop,
    running: Vec<Running>,
    /// Watches that start when the one of their name has ended: it has their offsets.
    waiting: Vec<Watch>,
    restarts: Restarts,
    board: Arc<Board>,
    /// Of the recorder, of mail.
    pulses: Vec<(String, Arc<Pulse>)>,
    started: u64,
    threads: Vec<JoinHandle<()>>,
}

impl Front {
    pub(super) fn start(
        registry: &Registry,
        matcher: Matcher,
        watches: Vec<Watch>,
        options: ledger::Options,
        wake: Arc<Notify>,
    ) -> Result<(Self, mpsc::Receiver<Event>), DaemonError> {
        let (events, from) = mpsc::channel(EVENTS_MAX);
        let (to, batches) = sync_channel(QUEUE_BATCHES);
        let (again, supervisor) = sync_channel(0);
        let mut front = Self {
            registry: registry.reopen()?,
            lookup: Arc::new(Lookup::new(registry)?),
            matcher,
            fresh: None,
            options: Arc::new(RwLock::new(options)),
            meter: Arc::default(),
            to,
            readings: Readings::default(),
            again,
            events,
            stop: Stop::new(),
            running: Vec::new(),
            waiting: watches,
            restarts: Restarts::default(),
            board: Arc::new(Board::new()),
            pulses: Vec::new(),
            started: 0,
            threads: Vec::new(),
        };
        front.record(registry.reopen()?, batches, wake)?;
        front.read_again(registry.reopen()?, supervisor)?;
        front.start_waiting()?;
        Ok((front, from))
    }

    /// Mail has a thread of its own: a folder or a server that hangs must not hold up an action.
    pub(super) fn mail(&mut self, mut mail: Mail) -> Result<(), DaemonError> {
        let runtime = runtime()?;
        let (guard, pulse) = (self.guard(Part::Mail), self.pulse("mail"));
        self.spawn("mail", move || {
            let _guard = guard;
            let Mail { registry, settings, templates, acted, ended } = &mut mail;
            let ended = ended.clone();
            let run = mail::run(registry, settings, templates, acted, ended);
            // A server may take its time, within its deadline: what must turn is the thread.
            let turn = async {
                loop {
                    pulse.beat();
                    tokio::time::sleep(BEAT_EVERY).await;
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = run => {}
                    () = turn => {}
                }
            });
            // A name look-up that hangs must not hold up the end.
            runtime.shutdown_background();
        })
    }

    /// Goes over to other watches, rules and a policy. Watches that are as they were go on.
    pub(super) fn change(
        &mut self,
        watches: Vec<Watch>,
        matcher: Option<Matcher>,
        options: ledger::Options,
    ) -> Result<(), DaemonError> {
        // Where the registry refuses, the rules count as changed the next time, too.
        self.fresh = matcher.or(self.fresh.take());
        self.take_policy(options)?;
        let same_rules = self.fresh.is_none();
        if let Some(matcher) = self.fresh.take() {
            self.matcher = matcher;
        }
        self.board.keep(|name| watches.iter().any(|watch| watch.name == name));
        // Somebody may have mended what failed: it is started at once.
        self.restarts.clear();
        self.waiting = watches;
        let (mut kept, mut stopped) = (0, 0);
        for running in self.running.iter().filter(|running| !running.stop.is_stopped()) {
            let same = |watch: &Watch| same_rules && running.watch.is_same(watch);
            if let Some(index) = self.waiting.iter().position(same) {
                drop(self.waiting.remove(index));
                kept += 1;
            } else {
                running.stop.stop();
                stopped += 1;
            }
        }
        info!(kept, stopped, new = self.waiting.len(), same_rules, "configuration read anew");
        self.start_waiting()
    }

    /// While the recorder waits: nothing is decided half by the old policy.
    fn take_policy(&mut self, options: ledger::Options) -> Result<(), RegistryError> {
        let mut current = self.options.write().unwrap_or_else(PoisonError::into_inner);
        ledger::keep_policy(&mut self.registry, &options.policy)?;
        super::hold(&mut self.registry, options.policy.mode)?;
        *current = options;
        Ok(())
    }

    /// A watch misses nothing from now on.
    pub(super) fn ready(&mut self, id: u64) {
        for running in self.running.iter_mut().filter(|running| running.id == id) {
            running.ready = true;
            self.board.set(&running.watch.name, State::Running, None);
        }
    }

    /// What is counted.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// What is told of the watches.
    pub(super) fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// What recording depends on.
    pub(super) fn options(&self) -> Arc<RwLock<ledger::Options>> {
        self.options.clone()
    }

    /// The parts that have to turn.
    pub(super) fn parts(&self) -> Vec<(String, Arc<Pulse>)> {
        let watches =
            self.running.iter().map(|one| (self.board.shown(&one.watch.name), &one.pulse));
        let watches = watches.map(|(name, pulse)| (name, pulse.clone()));
        self.pulses.iter().cloned().chain(watches).collect()
    }

    /// Whether nothing that is configured can be missed.
    pub(super) fn is_ready(&self) -> bool {
        let ready = |running: &Running| running.ready && !running.stop.is_stopped();
        self.waiting.is_empty() && self.restarts.next().is_none() && self.running.iter().all(ready)
    }

    /// Whether nothing more can come: every watch came to its end.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.restarts.next().is_none() && self.running.is_empty()
    }

    /// A thread ended. Only a watch may: when it was asked to, when nothing more can come, or to be
    /// started again.
    pub(super) fn ended(&mut self, part: Part, ending: Ending) -> Result<(), DaemonError> {
        let id = match part {
            Part::Recorder => return Err(DaemonError::Stage("the recorder")),
            Part::Mail => return Err(DaemonError::Stage("mail")),
            Part::Again => return Err(DaemonError::Stage("what reads again")),
            Part::Watch(id) => id,
        };
        let index = self.running.iter().position(|running| running.id == id);
        let Some(running) = index.map(|index| self.running.remove(index)) else { return Ok(()) };
        let why = match ending {
            _ if running.stop.is_stopped() => return self.start_waiting(),
            Ending::Done => {
                info!(watch = self.board.shown(&running.watch.name), "nothing more comes");
                self.board.set(&running.watch.name, State::Ended, None);
                return Ok(());
            }
            Ending::Died => "it ended unexpectedly; the log says why".to_owned(),
            Ending::Failed(why) => why,
        };
        self.put_off(running.watch, &why);
        Ok(())
    }

    /// A watch cannot go on now.
    fn put_off(&mut self, watch: Watch, why: &str) {
        let name = self.board.shown(&watch.name);
        self.board.set(&watch.name, State::Failed, Some(why.to_owned()));
        let again_in = self.restarts.add(watch, Instant::now()).as_secs();
        warn!(watch = name, why, again_in, "degraded: a watch failed and is started again");
    }

    /// When the next watch that failed is started again.
    pub(super) fn next_restart(&self) -> Option<Instant> {
        self.restarts.next()
    }

    /// Starts those again whose time has come.
    pub(super) fn restart(&mut self) -> Result<(), DaemonError> {
        for watch in self.restarts.due(Instant::now()) {
            match self.watch(watch.clone()) {
                Err(DaemonError::Registry(error)) => self.put_off(watch, &error.to_string()),
                other => other?,
            }
        }
        Ok(())
    }

    fn start_waiting(&mut self) -> Result<(), DaemonError> {
        self.threads.retain(|thread| !thread.is_finished());
        for watch in std::mem::take(&mut self.waiting) {
            let ending =
                |running: &Running| running.stop.is_stopped() && running.watch.name == watch.name;
            if self.running.iter().any(ending) {
                self.waiting.push(watch);
            } else {
                self.watch(watch)?;
            }
        }
        Ok(())
    }

    fn watch(&mut self, watch: Watch) -> Result<(), DaemonError> {
        let files = ledger::offsets(&mut self.registry, &watch.name)?;
        let first = ledger::first_start(&mut self.registry, &watch.name)?;
        ledger::reread::begins(&mut self.registry, &watch.name)?;
        let mut follow = match watch.follow.clone() {
            Followed::Files(options) => {
                Endless::Files(Box::new(Follow::new(options, files, first)))
            }
            Followed::Git(options) => Endless::Git(Poll::new(options, files, first)),
            Followed::Journald(options) => Endless::Journald(Journald::new(options, &files, first)),
            Followed::Pipe(path) => Endless::Pipe(Pipe::named(path)),
            Followed::Stdin => Endless::Pipe(Pipe::stdin()),
        };
        self.started += 1;
        let (id, events) = (self.started, self.events.clone());
        let ready = Box::new(move || {
            let _told = events.blocking_send(Event::Ready(id)).is_ok();
        });
        let (lookup, to) = (self.lookup.clone(), (self.to.clone(), self.meter.clone()));
        let (name, pulse, stop) = (watch.name.clone(), Arc::new(Pulse::default()), Stop::new());
        let signs = (ready as Box<dyn Fn() + Send>, pulse.clone());
        let mut reader = WatchReader::new(name.clone(), host(), lookup, &self.matcher, to, signs);
        self.board.starts(&name, reader.redacted(&name));
        let reading = Arc::new(Reading {
            watch: watch.clone(),
            matcher: self.matcher.clone(),
            turn: reader.turn(),
            stop: stop.clone(),
        });
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
        self.running.push(Running {
            id,
            watch,
            stop: stop.clone(),
            ready: false,
            pulse: pulse.clone(),
        });
        let guard = self.guard(Part::Watch(id));
        self.spawn("watch", move || {
            let mut guard = guard;
            pulse.of_this_thread();
            guard.ending = match follow.run(&mut reader, &stop) {
                Ok(()) => Ending::Done,
                Err(error) => Ending::Failed(reader.redacted(&error.to_string())),
            };
            reader.close(Box::new(guard));
        })
    }

    fn guard(&self, part: Part) -> Guard {
        Guard { part, ending: Ending::Died, events: self.events.clone() }
    }

    fn pulse(&mut self, name: &str) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        self.pulses.push((name.to_owned(), pulse.clone()));
        pulse
    }

    fn record(
        &mut self,
        mut registry: Registry,
        batches: Receiver<Batch>,
        wake: Arc<Notify>,
    ) -> Result<(), DaemonError> {
        let (stop, options, meter) = (self.stop.clone(), self.options.clone(), self.meter.clone());
        let (guard, pulse) = (self.guard(Part::Recorder), self.pulse("recorder"));
        self.spawn("recorder", move || {
            let _guard = guard;
            let committed = || wake.notify_one();
            let signs = pipeline::Signs { meter: &meter, pulse: &pulse, committed: &committed };
            pipeline::record(&mut registry, &batches, &options, &stop, &signs);
        })
    }

    fn read_again(
        &mut self,
        registry: Registry,
        supervisor: Receiver<()>,
    ) -> Result<(), DaemonError> {
        let again = Again {
            readings: self.readings.clone(),
            registry,
            lookup: self.lookup.clone(),
            to: self.to.clone(),
            meter: self.meter.clone(),
        };
        let guard = self.guard(Part::Again);
        self.spawn("again", move || {
            let _guard = guard;
            again.run(&supervisor);
        })
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), DaemonError> {
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| DaemonError::System("start a thread", error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Asks all threads to end.
    pub(super) fn stop(&self) {
        self.stop.stop();
        self.running.iter().for_each(|running| running.stop.stop());
    }

    /// Waits for the threads, but not for ever: what they have not written will be read again.
    pub(super) fn join(self) {
        self.stop();
        // The recorder ends when nobody can send anything more.
        drop::<SyncSender<Batch>>(self.to);
        drop::<SyncSender<()>>(self.again);
        let end = Instant::now() + GRACE;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() >= end {
                error!("a thread did not end in time; what it read will be read again");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
