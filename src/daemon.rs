//! The supervisor: starts the threads of the front half and the tasks of the back half, and ends
//! them.
//!
//! Stopping flows downstream: sources return, their queues close, the recorder writes what is left
//! and ends. Undone actions and notices stay in the ledger, so ending never has to finish them. A
//! stage that dies ends the daemon, and systemd starts it again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{error, info};

use crate::incident::Mode;
use crate::ledger;
use crate::mail::{self, Mailer, Templates};
use crate::matcher::Matcher;
use crate::pipeline::{self, Batch, QUEUE_BATCHES, WatchReader};
use crate::registry::lookup::Lookup;
use crate::registry::{Registry, RegistryError};
use crate::response::{self, local::LocalExecutor};
use crate::source::follow::{self, Follow};
use crate::source::git::poll::{self, Poll};
use crate::source::{SourceError, Stop};

/// From the signal to the end, at most.
const GRACE: Duration = Duration::from_secs(4);

/// One entry of the configuration's `watch`.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Its name: offsets are kept under it.
    pub name: String,
    /// What it follows.
    pub follow: Followed,
}

/// What a watch follows.
#[derive(Clone, Debug)]
pub enum Followed {
    /// Folders and logs.
    Files(follow::Options),
    /// Repositories.
    Git(poll::Options),
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

/// What the daemon does.
#[derive(Debug)]
pub struct Options {
    /// What is followed.
    pub watches: Vec<Watch>,
    /// How leaks are recorded and decided.
    pub ledger: ledger::Options,
    /// Where mails go.
    pub mailer: Mailer,
    /// How mails are sent.
    pub mail: mail::Options,
}

/// Why the daemon ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The operating system.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] std::io::Error),
    /// Another one runs.
    #[error("another `leakwarden watch` runs on the registry in {0}; two would act twice")]
    Running(PathBuf),
    /// A thread ended that should not have.
    #[error("{0} ended unexpectedly; the log says why")]
    Stage(String),
    /// A built-in template is broken.
    #[error("mail template: {0}")]
    Template(#[from] minijinja::Error),
}

/// Runs until SIGTERM or SIGINT.
pub fn run(
    mut registry: Registry,
    dir: &Path,
    matcher: &Matcher,
    options: Options,
) -> Result<(), DaemonError> {
    let _lock = lock(dir)?;
    ledger::keep_policy(&mut registry, &options.ledger.policy)?;
    response::tell_head(&mut registry)?;
    if options.ledger.policy.mode == Mode::Observe {
        registry.write(|tx| tx.hold_unapproved())?;
    }
    let (ending, ended) = watch::channel(false);
    let mut back = Back {
        response: registry.reopen()?,
        executor: LocalExecutor::new(registry.reopen()?),
        wake: Arc::new(Notify::new()),
        acted: Arc::new(Notify::new()),
        ending,
    };
    let mail = Mail {
        registry: registry.reopen()?,
        mailer: options.mailer,
        options: options.mail,
        templates: Templates::builtin()?,
        acted: back.acted.clone(),
        ended: ended.clone(),
    };
    let mode = options.ledger.policy.mode;
    let (mut front, told, events) =
        Front::start(registry, matcher, options.watches, options.ledger, back.wake.clone())?;
    front.mail(mail, told)?;
    info!(?mode, "watching");
    let runtime = runtime()?;
    let outcome = runtime.block_on(back.run(&front.stop, front.watches, events, ended));
    front.join();
    response::tell_head(&mut back.response)?;
    info!("ended");
    outcome
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DaemonError::System("start the async runtime", error))
}

/// One daemon per registry: held as long as the file is open.
fn lock(dir: &Path) -> Result<std::fs::File, DaemonError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("daemon.lock"))
        .map_err(|error| DaemonError::System("open daemon.lock in the registry folder", error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| DaemonError::Running(dir.to_owned()))?;
    Ok(file)
}

/// What threads tell the supervisor.
enum Event {
    /// A watch misses nothing from now on.
    Ready,
    /// A thread ended.
    Ended(String),
}

/// Tells when a thread ends, however it ends.
struct Guard {
    name: String,
    events: mpsc::Sender<Event>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The supervisor may be gone already; then nobody needs to know.
        let _told = self.events.try_send(Event::Ended(std::mem::take(&mut self.name))).is_ok();
    }
}

/// The threads.
struct Front {
    stop: Stop,
    watches: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Front {
    fn start(
        mut registry: Registry,
        matcher: &Matcher,
        watches: Vec<Watch>,
        ledger: ledger::Options,
        wake: Arc<Notify>,
    ) -> Result<(Self, mpsc::Sender<Event>, mpsc::Receiver<Event>), DaemonError> {
        let stop = Stop::new();
        let (events, from) = mpsc::channel(2 * watches.len() + 3);
        let lookup = Arc::new(Lookup::new(&registry)?);
        let (to, batches) = sync_channel(QUEUE_BATCHES);
        let mut front = Self { stop, watches: watches.len(), threads: Vec::new() };
        for watch in watches {
            let files = ledger::offsets(&mut registry, &watch.name)?;
            let first = ledger::first_start(&mut registry, &watch.name)?;
            let follow = match watch.follow {
                Followed::Files(options) => Endless::Files(Follow::new(options, files, first)),
                Followed::Git(options) => Endless::Git(Poll::new(options, files, first)),
            };
            let told = events.clone();
            let ready = Box::new(move || {
                let _told = told.try_send(Event::Ready).is_ok();
            });
            let name = watch.name.clone();
            let reader = WatchReader::new(name, host(), lookup.clone(), matcher, to.clone(), ready);
            front.watch(watch.name, follow, reader, events.clone())?;
        }
        // Only the watches hold senders now: when they end, the recorder does.
        drop::<SyncSender<Batch>>(to);
        front.record(registry, batches, ledger, wake, events.clone())?;
        Ok((front, events, from))
    }

    /// Mail has a thread of its own: a folder or a server that hangs must not hold up an action.
    fn mail(&mut self, mut mail: Mail, events: mpsc::Sender<Event>) -> Result<(), DaemonError> {
        let runtime = runtime()?;
        self.spawn("mail", move || {
            let _guard = Guard { name: "mail".to_owned(), events };
            let Mail { registry, mailer, options, templates, acted, ended } = &mut mail;
            let ended = ended.clone();
            runtime.block_on(mail::run(registry, mailer, templates, options, acted, ended));
            // A name look-up that hangs must not hold up the end.
            runtime.shutdown_background();
        })
    }

    fn watch(
        &mut self,
        name: String,
        mut follow: Endless,
        mut reader: WatchReader,
        events: mpsc::Sender<Event>,
    ) -> Result<(), DaemonError> {
        let stop = self.stop.clone();
        self.spawn("watch", move || {
            let guard = Guard { name: format!("watch {name}"), events };
            if let Err(error) = follow.run(&mut reader, &stop) {
                error!(%error, watch = guard.name, "watch failed");
            }
        })
    }

    fn record(
        &mut self,
        mut registry: Registry,
        batches: Receiver<Batch>,
        options: ledger::Options,
        wake: Arc<Notify>,
        events: mpsc::Sender<Event>,
    ) -> Result<(), DaemonError> {
        let stop = self.stop.clone();
        self.spawn("recorder", move || {
            let _guard = Guard { name: "the recorder".to_owned(), events };
            pipeline::record(&mut registry, &batches, &options, &stop, &|| wake.notify_one());
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

    /// Waits for the threads, but not for ever: what they have not written will be read again.
    fn join(self) {
        self.stop.stop();
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

/// What the mail thread works with.
struct Mail {
    registry: Registry,
    mailer: Mailer,
    options: mail::Options,
    templates: Templates,
    acted: Arc<Notify>,
    ended: watch::Receiver<bool>,
}

/// The tasks of the main thread.
struct Back {
    response: Registry,
    executor: LocalExecutor,
    wake: Arc<Notify>,
    acted: Arc<Notify>,
    ending: watch::Sender<bool>,
}

impl Back {
    /// Acts until a signal comes or a thread ends.
    async fn run(
        &mut self,
        stop: &Stop,
        watches: usize,
        events: mpsc::Receiver<Event>,
        ended: watch::Receiver<bool>,
    ) -> Result<(), DaemonError> {
        let signals = Signals::new()?;
        let (wake, acted) = (&self.wake, &self.acted);
        let act = response::run(&mut self.response, &mut self.executor, wake, acted, ended);
        let supervise = async {
            let outcome = supervise(signals, watches, events).await;
            stop.stop();
            let _all = self.ending.send(true).is_ok();
            outcome
        };
        let ((), outcome) = tokio::join!(act, supervise);
        outcome
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let on = |kind| signal(kind).map_err(|error| DaemonError::System("catch signals", error));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }
}

async fn supervise(
    mut signals: Signals,
    mut starting: usize,
    mut events: mpsc::Receiver<Event>,
) -> Result<(), DaemonError> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            event = events.recv() => match event {
                Some(Event::Ready) => {
                    starting = starting.saturating_sub(1);
                    if starting == 0 {
                        ready();
                    }
                }
                Some(Event::Ended(name)) => return Err(DaemonError::Stage(name)),
                None => return Err(DaemonError::Stage("every thread".to_owned())),
            }
        }
    }
    info!("ending");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
        error!(%error, "cannot tell the service manager");
    }
    Ok(())
}

fn ready() {
    info!("ready");
    let status = sd_notify::NotifyState::Status("watching");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready, status]) {
        error!(%error, "cannot tell the service manager");
    }
}

/// The name of this host.
#[must_use]
pub fn host() -> String {
    crate::text::clean(rustix::system::uname().nodename().to_bytes())
}
