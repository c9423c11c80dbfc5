//! The supervisor: starts the threads of the front half and the tasks of the back half, takes in a
//! changed configuration, and ends them.
//!
//! Stopping flows downstream: sources return, their queues close, the recorder writes what is left
//! and ends. Undone actions and notices stay in the ledger, so ending never has to finish them. A
//! stage that dies ends the daemon, and systemd starts it again.

mod front;
mod listen;

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, flock};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{error, info, warn};

use crate::incident::Mode;
use crate::ledger;
use crate::mail::{self, Templates};
use crate::matcher::Matcher;
use crate::registry::{Registry, RegistryError};
use crate::response::{self, local::LocalExecutor};
use crate::source::follow;
use crate::source::git::poll;

use front::{Event, Front};
use listen::View;

/// What the second signal ends with: not all that was read is written.
const EXIT_AT_ONCE: i32 = 3;

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
}

/// What the daemon does.
#[derive(Debug)]
pub struct Options {
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
    /// A thread ended that should not have.
    #[error("{0} ended unexpectedly; the log says why")]
    Stage(String),
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
    let _lock = lock(dir)?;
    let runtime = runtime()?;
    let signals = runtime.block_on(async { Signals::new() })?;
    let listener = listen::bind(options.listen)?;
    ledger::keep_policy(&mut registry, &options.ledger.policy)?;
    response::tell_head(&mut registry)?;
    if options.ledger.policy.mode == Mode::Observe {
        registry.write(|tx| tx.hold_unapproved())?;
    }
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
    let ready = Arc::new(AtomicBool::new(false));
    let view = View { registry: registry.reopen()?, meter: front.meter(), ready: ready.clone() };
    let mut supervisor = Supervisor { front, mail, reread, listen: options.listen, ready };
    let outcome = runtime.block_on(async {
        let act = response::run(&mut registry, &mut executor, &wake, &acted, ended.clone());
        let tell = listen::serve(listener, view, ended);
        let supervise = async {
            let outcome = supervisor.run(signals, events).await;
            supervisor.front.stop();
            let _all = ending.send(true).is_ok();
            outcome
        };
        tokio::join!(act, tell, supervise).2
    });
    supervisor.front.join();
    response::tell_head(&mut registry)?;
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
    front: Front,
    mail: watch::Sender<Arc<mail::Settings>>,
    reread: &'a mut dyn FnMut() -> Result<Fresh, String>,
    listen: Option<SocketAddr>,
    /// Whether nothing can be missed; the service manager knows.
    ready: Arc<AtomicBool>,
}

impl Supervisor<'_> {
    /// Until a signal comes or a thread ends.
    async fn run(
        &mut self,
        mut signals: Signals,
        mut events: mpsc::Receiver<Event>,
    ) -> Result<(), DaemonError> {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hangup.recv() => self.reload()?,
                event = events.recv() => match event {
                    Some(Event::Ready(id)) => self.front.ready(id),
                    Some(Event::Ended(part)) => self.front.ended(part)?,
                    None => return Err(DaemonError::Stage("every thread".to_owned())),
                }
            }
            if !self.ready.load(Ordering::Acquire) && self.front.is_ready() {
                info!("ready");
                tell(&[NotifyState::Ready, NotifyState::Status("watching")]);
                self.ready.store(true, Ordering::Release);
            }
        }
        info!("ending");
        tell(&[NotifyState::Stopping]);
        Ok(())
    }

    /// Takes the configuration as it is now, as a whole or not at all.
    fn reload(&mut self) -> Result<(), DaemonError> {
        info!("reading the configuration anew");
        self.ready.store(false, Ordering::Release);
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

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(%error, "cannot tell the service manager");
    }
}

/// The name of this host.
#[must_use]
pub fn host() -> String {
    crate::text::clean(rustix::system::uname().nodename().to_bytes())
}
