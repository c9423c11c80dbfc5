//! The supervisor: starts the threads of the front half and the tasks of the back half, takes in a
//! changed configuration, and ends them.
//!
//! Stopping flows downstream: sources return, their queues close, the recorder writes what is left
//! and ends. Undone actions and notices stay in the ledger, so ending never has to finish them.
//!
//! A source that fails is started again, after a pause that grows: it goes on where it was, and the
//! others never noticed. The recorder, mail and what acts have no such place to go on from: one of
//! them that dies ends the daemon, and systemd starts it again. So does a part that hangs.

mod again;
mod front;
mod listen;
pub mod log;
pub mod once;
mod restart;
mod socket;
mod status;
mod watchdog;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{error, info, warn};

use crate::incident::Mode;
use crate::ledger;
use crate::mail::{self, Templates};
use crate::matcher::Matcher;
use crate::registry::{Registry, RegistryError, folder};
use crate::response::{self, local::LocalExecutor};
use crate::source::follow;
use crate::source::git::poll;
use crate::source::{SourceError, journald, pipe};
use crate::text;
use crate::vital::Pulse;

use front::{Event, Front};
use socket::Socket;
use status::View;
use watchdog::Watchdog;

pub use socket::{AskError, ask};
pub use status::{State, Status, Took, WatchStatus};

/// What the second signal ends with: not all that was read is written.
const EXIT_AT_ONCE: i32 = 3;
/// Between looks whether others are done.
const FINISH_LOOK_EVERY: Duration = Duration::from_millis(20);

/// One entry of the configuration's `watch`.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Its name: offsets are kept under it.
    pub name: String,
    /// What it follows.
    pub follow: Followed,
    /// All else that was said of it, to tell a changed one from one that is as it was.
    pub said: String,
}

impl Watch {
    /// Standard input.
    #[must_use]
    pub fn stdin() -> Self {
        Self { name: "stdin".to_owned(), follow: Followed::Stdin, said: String::new() }
    }

    /// Why it cannot be watched here at all, if so.
    pub fn check(&self) -> Result<(), SourceError> {
        match &self.follow {
            Followed::Journald(_) => journald::check(),
            Followed::Pipe(path) => pipe::check(path),
            Followed::Files(_) | Followed::Git(_) | Followed::Stdin => Ok(()),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.said) == (&other.name, &other.said)
    }
}

/// What a watch follows.
#[derive(Clone, Debug)]
pub enum Followed {
    /// Folders and logs.
    Files(follow::Options),
    /// Repositories.
    Git(poll::Options),
    /// The system's journal.
    Journald(journald::Options),
    /// A named pipe.
    Pipe(PathBuf),
    /// Standard input, to its end.
    Stdin,
}

/// What the daemon does.
#[derive(Debug)]
pub struct Options {
    /// The file that says so, by its absolute path.
    pub config: PathBuf,
    /// What is followed.
    pub watches: Vec<Watch>,
    /// How leaks are recorded and decided.
    pub ledger: ledger::Options,
    /// Where mails go, and how.
    pub mail: mail::Settings,
    /// Where it is told how the daemon does.
    pub listen: Option<SocketAddr>,
}

/// What SIGHUP brings.
pub struct Fresh {
    /// The configuration as it is now.
    pub options: Options,
    /// The rules, where they changed.
    pub matcher: Option<Matcher>,
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
    /// A scan acts, for longer than it may.
    #[error(
        "a `leakwarden scan --respond` acts on the registry in {0} and does not end; two would act \
        twice"
    )]
    Acting(PathBuf),
    /// A thread ended that should not have.
    #[error("{0} ended unexpectedly; the log says why")]
    Stage(&'static str),
    /// An address to listen on.
    #[error("cannot listen on {0}: {1}; choose another port for `listen`")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A built-in template is broken.
    #[error("mail template: {0}")]
    Template(#[from] minijinja::Error),
}

/// Runs until SIGTERM or SIGINT. `reread` is asked on SIGHUP; where it fails, with the reason, all
/// stays as it is.
pub fn run(
    mut registry: Registry,
    dir: &Path,
    matcher: Matcher,
    options: Options,
    reread: &mut dyn FnMut() -> Result<Fresh, String>,
) -> Result<(), DaemonError> {
    let _lock = lock(dir, Lock::Daemon)?;
    let _acting = lock_when_free(dir)?;
    let runtime = runtime()?;
    let signals = runtime.block_on(async { Signals::new() })?;
    let listener = listen::bind(options.listen)?;
    let socket = Socket::bind(dir)?;
    ledger::keep_policy(&mut registry, &options.ledger.policy)?;
    ledger::keep_config(&mut registry, &options.config)?;
    response::tell_head(&mut registry)?;
    hold(&mut registry, options.ledger.policy.mode)?;
    let (ending, ended) = watch::channel(false);
    let (mail, settings) = watch::channel(Arc::new(options.mail));
    let (wake, acted) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mode = options.ledger.policy.mode;
    let (mut front, events) =
        Front::start(&registry, matcher, options.watches, options.ledger, wake.clone())?;
    front.mail(Mail {
        registry: registry.reopen()?,
        settings,
        templates: Templates::builtin()?,
        acted: acted.clone(),
        ended: ended.clone(),
    })?;
    info!(?mode, "watching");
    let mut executor = LocalExecutor::new(registry.reopen()?);
    let (board, pulse) = (front.board(), Arc::new(Pulse::default()));
    let view = View {
        registry: registry.reopen()?,
        meter: front.meter(),
        board: board.clone(),
        options: front.options(),
    };
    let mut supervisor = Supervisor {
        registry: registry.reopen()?,
        front,
        mail,
        reread,
        listen: options.listen,
        acting: pulse.clone(),
        told: String::new(),
    };
    let outcome = runtime.block_on(async {
        let took = |took| board.took.add(took);
        let ties =
            response::Ties { wake: &wake, acted: &acted, turned: &|| pulse.beat(), took: &took };
        let act = response::run(&mut registry, &mut executor, &ties, ended.clone());
        let tell = listen::serve(listener, &socket, view, ended);
        let supervise = async {
            let outcome = supervisor.run(signals, events).await;
            supervisor.front.stop();
            let _all = ending.send(true).is_ok();
            outcome
        };
        tokio::join!(act, tell, supervise).2
    });
    supervisor.front.join();
    log::tell_repeats();
    response::tell_head(&mut registry)?;
    info!("ended");
    outcome
}

/// Who observes does not carry out what was due before.
fn hold(registry: &mut Registry, mode: Mode) -> Result<(), RegistryError> {
    match mode {
        Mode::Observe => registry.write(|tx| tx.hold_unapproved()).map(|_| ()),
        Mode::Act => Ok(()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DaemonError::System("start the async runtime", error))
}

/// What only one process at a time may be for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// The daemon.
    Daemon,
    /// Who carries out what is due: the daemon, or a scan that responds.
    Acting,
}

/// Held as long as the file is open.
fn lock(dir: &Path, lock: Lock) -> Result<std::fs::File, DaemonError> {
    let (name, doing) = match lock {
        Lock::Daemon => ("daemon.lock", "open daemon.lock in the registry folder"),
        Lock::Acting => ("acting.lock", "open acting.lock in the registry folder"),
    };
    let file =
        folder::open_lock(&dir.join(name)).map_err(|error| DaemonError::System(doing, error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| match lock {
        Lock::Daemon => DaemonError::Running(dir.to_owned()),
        Lock::Acting => DaemonError::Acting(dir.to_owned()),
    })?;
    Ok(file)
}

/// Waits for a scan that responds, which takes no longer than it may.
fn lock_when_free(dir: &Path) -> Result<std::fs::File, DaemonError> {
    let end = Instant::now() + once::PATIENCE + front::GRACE;
    let mut is_told = false;
    loop {
        match lock(dir, Lock::Acting) {
            Err(DaemonError::Acting(_)) if Instant::now() < end => {
                if !std::mem::replace(&mut is_told, true) {
                    info!("waiting for a scan that responds");
                }
                std::thread::sleep(FINISH_LOOK_EVERY);
            }
            other => return other,
        }
    }
}

/// What the mail thread works with.
struct Mail {
    registry: Registry,
    settings: watch::Receiver<Arc<mail::Settings>>,
    templates: Templates,
    acted: Arc<Notify>,
    ended: watch::Receiver<bool>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let failed = |error| DaemonError::System("catch signals", error);
        // Whoever asks twice does not wait, whatever hangs: the second one ends the process before
        // any thread has a say in it.
        let asked = Arc::new(AtomicBool::new(false));
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let (kind, again) = (kind.as_raw_value(), asked.clone());
            signal_hook::flag::register_conditional_shutdown(kind, EXIT_AT_ONCE, again)
                .map_err(failed)?;
        }
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            signal_hook::flag::register(kind.as_raw_value(), asked.clone()).map_err(failed)?;
        }
        let on = |kind| signal(kind).map_err(failed);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

/// Watches over the threads, and says how they do.
struct Supervisor<'a> {
    registry: Registry,
    front: Front,
    mail: watch::Sender<Arc<mail::Settings>>,
    reread: &'a mut dyn FnMut() -> Result<Fresh, String>,
    listen: Option<SocketAddr>,
    /// Of what carries actions out.
    acting: Arc<Pulse>,
    /// What the service manager shows.
    told: String,
}

impl Supervisor<'_> {
    /// Until a signal comes, a thread ends that should not, or nothing more can come.
    async fn run(
        &mut self,
        mut signals: Signals,
        mut events: mpsc::Receiver<Event>,
    ) -> Result<(), DaemonError> {
        let mut watchdog = Watchdog::new();
        let mut looks = tokio::time::interval(watchdog.every);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let restart = self.front.next_restart();
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hangup.recv() => self.reload()?,
                () = until(restart) => self.front.restart()?,
                _ = looks.tick() => self.look(&mut watchdog),
                event = events.recv() => match event {
                    Some(Event::Ready(id)) => self.front.ready(id),
                    Some(Event::Ended(part, ending)) => self.front.ended(part, ending)?,
                    None => return Err(DaemonError::Stage("every thread")),
                }
            }
            if self.front.is_done() {
                info!("nothing more comes from any watch");
                self.finish().await;
                break;
            }
            self.tell_readiness();
        }
        info!("ending");
        tell(&[NotifyState::Stopping]);
        Ok(())
    }

    fn tell_readiness(&mut self) {
        let ready = &self.front.board().ready;
        let is_ready = self.front.is_ready();
        if is_ready && !ready.load(Ordering::Acquire) {
            info!("ready");
            tell(&[NotifyState::Ready]);
            self.tell_status();
        }
        ready.store(is_ready, Ordering::Release);
    }

    fn look(&mut self, watchdog: &mut Watchdog) {
        let board = self.front.board();
        let mut parts = self.front.parts();
        parts.push(("the one that acts".to_owned(), self.acting.clone()));
        board.set_stuck(watchdog.look(&parts, &board.stuck()));
        log::tell_repeats();
        self.tell_status();
    }

    /// A line for `systemctl status`.
    fn tell_status(&mut self) {
        let (board, meter) = (self.front.board(), self.front.meter());
        let (watches, failed) = board.count();
        let state = match (failed, board.ready.load(Ordering::Acquire)) {
            (0, true) => "ready".to_owned(),
            (0, false) => "starting".to_owned(),
            (failed, _) => format!("degraded ({failed} failed)"),
        };
        let line = format!(
            "{state}, {watches} watched; {} and {} read; registered keys seen {}",
            text::plural(meter.bytes.get(), "byte"),
            text::plural(meter.lines.get(), "line"),
            text::plural(meter.registered.get(), "time"),
        );
        if line != self.told {
            tell(&[NotifyState::Status(&line)]);
            self.told = line;
        }
    }

    /// Whoever pipes something in wants what follows from it done, too; within the time that ending
    /// has anyway.
    async fn finish(&mut self) {
        let end = Instant::now() + front::GRACE;
        let due = |total: &ledger::Total| total.state == "due" && total.count > 0;
        while Instant::now() < end {
            match ledger::totals(&mut self.registry) {
                Ok(totals) if !totals.iter().any(due) => return,
                Ok(_) | Err(_) => tokio::time::sleep(FINISH_LOOK_EVERY).await,
            }
        }
    }

    /// Takes the configuration as it is now, as a whole or not at all.
    fn reload(&mut self) -> Result<(), DaemonError> {
        info!("reading the configuration anew");
        self.front.board().ready.store(false, Ordering::Release);
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => error!(%error, "cannot tell the service manager"),
        }
        let Fresh { options, matcher } = match (self.reread)() {
            Ok(fresh) => fresh,
            Err(error) => {
                error!(error, "the new configuration is not used; all stays as it was");
                return Ok(());
            }
        };
        if options.listen != self.listen {
            warn!("`listen` changes with a restart only; the address stays");
        }
        match self.front.change(options.watches, matcher, options.ledger) {
            Err(DaemonError::Registry(error)) => {
                error!(%error, "the registry refuses the new configuration; try again");
            }
            other => {
                other?;
                self.mail.send_replace(Arc::new(options.mail));
            }
        }
        Ok(())
    }
}

/// Until a point in time; for ever where there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(%error, "cannot tell the service manager");
    }
}

/// The name of this host.
#[must_use]
pub fn host() -> String {
    text::clean(rustix::system::uname().nodename().to_bytes())
}
