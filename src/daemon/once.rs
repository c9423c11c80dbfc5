//! What a scan responds: what is due is carried out and told, and that is all.
//!
//! Two that act at once would act twice: where the daemon, or another scan, acts on the registry, what is
//! due is left to it, as the outbox is the same. What cannot be done now stays there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::{DaemonError, Lock, hold, lock, runtime};
use crate::clock;
use crate::incident::Mode;
use crate::ledger::{self, Incident};
use crate::mail::{self, Templates};
use crate::registry::{Registry, RegistryError};
use crate::response::{self, local::LocalExecutor};
use crate::secret::Digest;

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Open incidents of the keys that were seen, oldest first.
    pub incidents: Vec<Incident>,
    /// Some of what was due was left to the daemon, or to another scan.
    pub left_to_others: bool,
    /// Something is due and not done.
    pub unfinished: bool,
    /// Incidents of other keys about which something was due.
    pub others: usize,
}

/// So long is waited for what is due: a mail server may take its time.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// So many actions that were due before are counted.
const COUNTED: u32 = 1_000;
/// Between looks whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does what is due, now that these keys were seen and recorded.
pub fn respond(
    registry: &mut Registry,
    dir: &Path,
    (mode, mail): (Mode, mail::Settings),
    keys: &[Digest],
) -> Result<Outcome, DaemonError> {
    let mail = Arc::new(mail);
    let mut left_to_others = false;
    let due = registry.read(|tx| tx.due_actions(clock::now(), COUNTED))?;
    let end = Instant::now() + PATIENCE;
    while !is_idle(registry)? && Instant::now() < end {
        match lock(dir, Lock::Acting) {
            Ok(_lock) => {
                left_to_others = false;
                let (policy, _) = ledger::kept(registry)?;
                hold(registry, policy.map_or(mode, |policy| policy.mode))?;
                carry_out(registry, &mail, end)?;
            }
            Err(DaemonError::Acting(_)) => {
                left_to_others = true;
                std::thread::sleep(LOOK_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
    let incidents = registry.read(|tx| tx.incidents_of(keys))?;
    let mut ids = BTreeSet::new();
    for digest in keys {
        ids.extend(registry.read(|tx| tx.key_by_digest(digest))?.map(|key| key.id));
    }
    let others = due.iter().filter(|action| !ids.contains(&action.key_id));
    let others: BTreeSet<i64> = others.map(|action| action.incident).collect();
    let (others, unfinished) = (others.len(), !is_idle(registry)?);
    Ok(Outcome { incidents, left_to_others, unfinished, others })
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
