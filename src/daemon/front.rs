//! The threads: watches, recorder, mail. Watches come and go with the configuration.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tracing::{error, info};

use super::{DaemonError, Followed, Mail, Watch, host, runtime};
use crate::incident::Mode;
use crate::ledger;
use crate::mail;
use crate::matcher::Matcher;
use crate::pipeline::{self, Batch, Meter, QUEUE_BATCHES, WatchReader};
use crate::registry::lookup::Lookup;
use crate::registry::{Registry, RegistryError};
use crate::source::follow::Follow;
use crate::source::git::poll::Poll;
use crate::source::{SourceError, Stop};

/// From the signal to the end, at most.
const GRACE: Duration = Duration::from_secs(4);
/// Events that wait for the supervisor; whoever has one more waits with it.
const EVENTS_MAX: usize = 64;

/// What threads tell the supervisor.
pub(super) enum Event {
    /// A watch misses nothing from now on.
    Ready(u64),
    /// A thread ended, and what it handed on is written.
    Ended(Part),
}

/// Who ended.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Watch(u64),
    Recorder,
    Mail,
}

/// Tells when a thread ends, however it ends.
struct Guard {
    part: Part,
    events: mpsc::Sender<Event>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The supervisor may be gone already; then nobody needs to know.
        let _told = self.events.blocking_send(Event::Ended(self.part)).is_ok();
    }
}

/// A source that goes on for ever.
enum Endless {
    Files(Follow),
    Git(Poll),
}

impl Endless {
    fn run(&mut self, sink: &mut WatchReader, stop: &Stop) -> Result<(), SourceError> {
        match self {
            Self::Files(follow) => follow.run(sink, stop),
            Self::Git(poll) => poll.run(sink, stop),
        }
    }
}

/// A watch that has a thread.
struct Running {
    id: u64,
    watch: Watch,
    stop: Stop,
    ready: bool,
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
    events: mpsc::Sender<Event>,
    /// The recorder's.
    stop: Stop,
    running: Vec<Running>,
    /// Watches that start when the one of their name has ended: it has their offsets.
    waiting: Vec<Watch>,
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
        let mut front = Self {
            registry: registry.reopen()?,
            lookup: Arc::new(Lookup::new(registry)?),
            matcher,
            fresh: None,
            options: Arc::new(RwLock::new(options)),
            meter: Arc::default(),
            to,
            events,
            stop: Stop::new(),
            running: Vec::new(),
            waiting: watches,
            started: 0,
            threads: Vec::new(),
        };
        front.record(registry.reopen()?, batches, wake)?;
        front.start_waiting()?;
        Ok((front, from))
    }

    /// Mail has a thread of its own: a folder or a server that hangs must not hold up an action.
    pub(super) fn mail(&mut self, mut mail: Mail) -> Result<(), DaemonError> {
        let runtime = runtime()?;
        let guard = Guard { part: Part::Mail, events: self.events.clone() };
        self.spawn("mail", move || {
            let _guard = guard;
            let Mail { registry, settings, templates, acted, ended } = &mut mail;
            let ended = ended.clone();
            runtime.block_on(mail::run(registry, settings, templates, acted, ended));
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
        if options.policy.mode == Mode::Observe {
            self.registry.write(|tx| tx.hold_unapproved())?;
        }
        *current = options;
        Ok(())
    }

    /// A watch misses nothing from now on.
    pub(super) fn ready(&mut self, id: u64) {
        for running in self.running.iter_mut().filter(|running| running.id == id) {
            running.ready = true;
        }
    }

    /// What is counted.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Whether nothing that is configured can be missed.
    pub(super) fn is_ready(&self) -> bool {
        let ready = |running: &Running| running.ready && !running.stop.is_stopped();
        self.waiting.is_empty() && self.running.iter().all(ready)
    }

    /// A thread ended. Only a watch may, and only when it was asked to.
    pub(super) fn ended(&mut self, part: Part) -> Result<(), DaemonError> {
        let stage = match part {
            Part::Recorder => "the recorder".to_owned(),
            Part::Mail => "mail".to_owned(),
            Part::Watch(id) => {
                let index = self.running.iter().position(|running| running.id == id);
                match index.map(|index| self.running.remove(index)) {
                    Some(running) if !running.stop.is_stopped() => {
                        format!("watch {}", running.watch.name)
                    }
                    _ => return self.start_waiting(),
                }
            }
        };
        Err(DaemonError::Stage(stage))
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
        let mut follow = match watch.follow.clone() {
            Followed::Files(options) => Endless::Files(Follow::new(options, files, first)),
            Followed::Git(options) => Endless::Git(Poll::new(options, files, first)),
        };
        self.started += 1;
        let (id, events) = (self.started, self.events.clone());
        let ready = Box::new(move || {
            let _told = events.blocking_send(Event::Ready(id)).is_ok();
        });
        let (lookup, to) = (self.lookup.clone(), (self.to.clone(), self.meter.clone()));
        let name = watch.name.clone();
        let mut reader = WatchReader::new(name.clone(), host(), lookup, &self.matcher, to, ready);
        let stop = Stop::new();
        self.running.push(Running { id, watch, stop: stop.clone(), ready: false });
        let guard = Guard { part: Part::Watch(id), events: self.events.clone() };
        self.spawn("watch", move || {
            if let Err(error) = follow.run(&mut reader, &stop) {
                error!(%error, watch = name, "watch failed");
            }
            reader.close(Box::new(guard));
        })
    }

    fn record(
        &mut self,
        mut registry: Registry,
        batches: Receiver<Batch>,
        wake: Arc<Notify>,
    ) -> Result<(), DaemonError> {
        let (stop, options, meter) = (self.stop.clone(), self.options.clone(), self.meter.clone());
        let guard = Guard { part: Part::Recorder, events: self.events.clone() };
        self.spawn("recorder", move || {
            let _guard = guard;
            let committed = || wake.notify_one();
            pipeline::record(&mut registry, &batches, &options, &stop, &meter, &committed);
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
