//! Reads again what watches have read, when keys came that nobody could have seen then: in the
//! background, on a thread of the lowest priority, one watch after the other.
//!
//! What the thread counts on, in this order: what is registered is looked for in every item that
//! begins from now on; no item that began before is still being read; all that was handed on before
//! is written. Then it knows of everything that may have been read without those keys in mind.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Followed, Watch, host};
use crate::ledger::{self, reread};
use crate::matcher::Matcher;
use crate::pipeline::{Batch, Meter, Turn, WatchReader};
use crate::registry::lookup::Lookup;
use crate::registry::{Registry, RegistryError};
use crate::source::follow::{self, Reread};
use crate::source::{Stop, git::poll, journald};

/// Keys that came are looked for this often.
const TICK: Duration = Duration::from_secs(1);
/// Between looks at what others are about.
const NAP: Duration = Duration::from_millis(20);
/// Bytes that are read again of one watch, at most.
const BYTES_MAX: u64 = 16 << 30;
/// Between one time and the next, for each second that it took: others need the disk as well.
const REST: u32 = 4;
/// The nicest there is.
const PRIORITY: i32 = 19;

/// A watch that has a thread.
pub(super) struct Reading {
    pub(super) watch: Watch,
    pub(super) matcher: Matcher,
    pub(super) turn: Turn,
    pub(super) stop: Stop,
}

/// The watches that have a thread, for the supervisor to add to.
pub(super) type Readings = Arc<Mutex<Vec<Arc<Reading>>>>;

/// The thread.
pub(super) struct Again {
    pub(super) readings: Readings,
    pub(super) registry: Registry,
    pub(super) lookup: Arc<Lookup>,
    pub(super) to: SyncSender<Batch>,
    pub(super) meter: Arc<Meter>,
}

impl Again {
    /// Runs until the supervisor hangs up.
    pub(super) fn run(mut self, supervisor: &Receiver<()>) {
        if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
            warn!(%error, "what is read again is read as fast as what is new");
        }
        let mut next = Instant::now();
        while supervisor.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let began = Instant::now();
            if began < next {
                continue;
            }
            for reading in self.current() {
                if let Err(error) = self.look(&reading) {
                    error.tell_trying_again("tell what is to be read again");
                }
            }
            next = Instant::now() + began.elapsed() * REST;
        }
    }

    /// The watches that were not stopped.
    fn current(&self) -> Vec<Arc<Reading>> {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|reading| !reading.stop.is_stopped());
        readings.clone()
    }

    fn look(&mut self, reading: &Reading) -> Result<(), RegistryError> {
        let name = &reading.watch.name;
        let Some(strangers) = reread::unread(&mut self.registry, name)? else { return Ok(()) };
        self.lookup.refresh()?;
        if !self.others_know(reading) {
            return Ok(());
        }
        let known = ledger::offsets(&mut self.registry, name)?;
        let no_one: (Box<dyn Fn() + Send>, _) = (Box::new(|| {}), Arc::default());
        let to = (self.to.clone(), self.meter.clone());
        let lookup = self.lookup.clone();
        let reader = WatchReader::new(name.clone(), host(), lookup, &reading.matcher, to, no_one);
        let mut reader = reader.for_reading_again();
        let (stop, sink) = (&reading.stop, &mut reader);
        let reread = match &reading.watch.follow {
            Followed::Files(options) => follow::read_again(options, &known, BYTES_MAX, sink, stop),
            Followed::Git(options) => poll::read_again(options, &known, BYTES_MAX, sink, stop),
            Followed::Journald(options) => {
                match journald::read_again(options, &known, BYTES_MAX, sink, stop) {
                    Ok(reread) => reread,
                    Err(error) => {
                        warn!(watch = name, %error, "cannot read the journal again; trying again");
                        return Ok(());
                    }
                }
            }
            // What came through is kept nowhere.
            Followed::Pipe(_) | Followed::Stdin => Reread::default(),
        };
        if stop.is_stopped() || !reader.take_decided() || !self.is_written() {
            return Ok(());
        }
        reread::was_read(&mut self.registry, name, strangers)?;
        tell(name, reread);
        Ok(())
    }

    /// Waits until no item is being read that began before; `false`: the watch was stopped.
    fn others_know(&self, reading: &Reading) -> bool {
        let before = reading.turn.item();
        while before.is_some() && reading.turn.item() == before {
            if reading.stop.is_stopped() {
                return false;
            }
            std::thread::sleep(NAP);
        }
        self.is_written()
    }

    /// Waits until all that was handed on is written; `false`: the recorder is gone.
    fn is_written(&self) -> bool {
        let (held, written) = sync_channel::<()>(0);
        let batch = Batch::last(Box::new(held));
        self.meter.queued.add(1);
        // It is dropped when it is written, and so are all before it.
        self.to.send(batch).is_ok() && written.recv().is_err()
    }
}

fn tell(watch: &str, Reread { files, bytes, left }: Reread) {
    let mebibytes = bytes >> 20;
    info!(watch, files, mebibytes, "read again: keys came that were unknown when it was read");
    if left > 0 {
        let advice = "look for them with `leakwarden scan`";
        warn!(watch, left, advice, "not all was read again: the oldest were too much");
    }
}
