//! What a scan responds: what it saw is recorded, what is due is carried out and told, and that is all.
//!
//! Two that act at once would act twice: where the daemon, or another scan, acts on the registry, what is
//! due is left to it, as the outbox is the same. What cannot be done now stays there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::{DaemonError, hold, lock, runtime};
use crate::clock;
use crate::ledger::{self, Batch, Incident, Sighting};
use crate::mail::{self, Templates};
use crate::registry::{Registry, RegistryError};
use crate::response::{self, local::LocalExecutor};
use crate::secret::Digest;

/// How a scan responds.
#[derive(Debug)]
pub struct Options {
    /// How leaks are recorded and decided.
    pub ledger: ledger::Options,
    /// Where mails go, and how.
    pub mail: mail::Settings,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Open incidents of the keys that were seen, oldest first.
    pub incidents: Vec<Incident>,
    /// Some of what was due was left to the daemon, or to another scan.
    pub left_to_others: bool,
    /// Something is due and not done.
    pub unfinished: bool,
}

/// So long is waited for what is due: a mail server may take its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Records sightings, in one transaction, and does what follows from them.
pub fn respond(
    registry: &mut Registry,
    dir: &Path,
    sightings: &[Sighting],
    options: Options,
) -> Result<Outcome, DaemonError> {
    let batch = Batch { sightings, offsets: &[], ready: &[], forgotten: 0 };
    ledger::record(registry, &batch, &options.ledger, clock::now())?;
    let mail = Arc::new(options.mail);
    let mut left_to_others = false;
    let end = Instant::now() + PATIENCE;
    while !is_idle(registry)? && Instant::now() < end {
        match lock(dir) {
            Ok(_lock) => {
                hold(registry, options.ledger.policy.mode)?;
                carry_out(registry, &mail, end)?;
            }
            Err(DaemonError::Running(_)) => {
                left_to_others = true;
                std::thread::sleep(LOOK_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
    let digests: Vec<Digest> = sightings.iter().map(|sighting| sighting.digest).collect();
    let incidents = registry.read(|tx| tx.incidents_of(&digests))?;
    Ok(Outcome { incidents, left_to_others, unfinished: !is_idle(registry)? })
}

/// Does what is due until nothing is, or time is over.
fn carry_out(
    registry: &mut Registry,
    mail: &Arc<mail::Settings>,
    end: Instant,
) -> Result<(), DaemonError> {
    let (mut acting, mut telling) = (registry.reopen()?, registry.reopen()?);
    let mut executor = LocalExecutor::new(registry.reopen()?);
    let templates = Templates::builtin()?;
    let (wake, acted) = (Notify::new(), Notify::new());
    let (ending, ended) = watch::channel(false);
    let (_mail, settings) = watch::channel(mail.clone());
    let ties =
        response::Ties { wake: &wake, acted: &acted, turned: &|| (), took: &|_: Duration| () };
    let outcome = runtime()?.block_on(async {
        let act = response::run(&mut acting, &mut executor, &ties, ended.clone());
        let tell = mail::run(&mut telling, &settings, &templates, &acted, ended);
        let end = async {
            let outcome = idle(registry, end).await;
            let _both = ending.send(true).is_ok();
            outcome
        };
        tokio::join!(act, tell, end).2
    });
    Ok(outcome?)
}

/// Until nothing is due, or time is over.
async fn idle(registry: &mut Registry, end: Instant) -> Result<(), RegistryError> {
    while !is_idle(registry)? && Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Whether nothing is due now. What was put off is due later.
fn is_idle(registry: &mut Registry) -> Result<bool, RegistryError> {
    registry.read(|tx| {
        let now = clock::now();
        Ok(tx.due_actions(now, 1)?.is_empty() && tx.due_notices(now, 1)?.is_empty())
    })
}
