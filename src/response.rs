//! What is done: takes due actions from the outbox, has an executor carry them out, records what
//! became of them.
//!
//! Calls are made at least once, effects happen once: an executor that finds a key in the wanted
//! state says so and changes nothing. An outcome that is not known is not a success.

pub mod local;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock;
use crate::ledger::DueAction;
use crate::registry::{Registry, Result};

/// Actions that are taken at once.
const BATCH: u32 = 32;
/// First pause before an attempt is repeated; it doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// After so many attempts an action is given up and admins are told.
const ATTEMPTS_MAX: u32 = 20;
/// Longest sleep: the outbox is looked at again even if nobody says so (the command line may have
/// approved something).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The end of the audit log is told this often, whether anything was done or not.
const TELL_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect; the text goes into the timeline.
    Done(String),
    /// Not known, or not possible now.
    Retry(String),
    /// Never possible.
    GiveUp(String),
    /// Nobody wants it any more; nothing was changed.
    Unwanted,
}

/// The future of [`Executor::execute`].
pub type Execution<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Carries out actions on keys of one system. Must be idempotent.
pub trait Executor {
    /// Carries out one action; must end by itself.
    fn execute<'a>(&'a mut self, action: &'a DueAction) -> Execution<'a>;
}

/// Who is told what.
pub struct Ties<'a> {
    /// Notified when there may be something to do.
    pub wake: &'a Notify,
    /// To be notified after each batch.
    pub acted: &'a Notify,
    /// The loop went round.
    pub turned: &'a dyn Fn(),
    /// An action took effect, so long after the sighting.
    pub took: &'a dyn Fn(Duration),
}

/// Carries out what is due until asked to stop.
pub async fn run(
    registry: &mut Registry,
    executor: &mut dyn Executor,
    ties: &Ties<'_>,
    mut stop: watch::Receiver<bool>,
) {
    let mut daily = tokio::time::interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
    loop {
        (ties.turned)();
        match step(registry, executor, ties.took).await {
            Ok(0) => {}
            Ok(_) => {
                ties.acted.notify_one();
                continue;
            }
            Err(error) => error.tell_trying_again("work on the outbox"),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            // An incident may need no action at all: its notices wait for nobody then.
            () = ties.wake.notified() => ties.acted.notify_one(),
            _ = daily.tick() => {
                if let Err(error) = tell_head(registry) {
                    error!(%error, "cannot read the end of the audit log");
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Carries out what is due now; answers how many actions were tried.
async fn step(
    registry: &mut Registry,
    executor: &mut dyn Executor,
    took: &dyn Fn(Duration),
) -> Result<usize> {
    let due = registry.read(|tx| tx.due_actions(clock::now(), BATCH))?;
    for action in &due {
        let outcome = executor.execute(action).await;
        record(registry, action, &outcome)?;
        if matches!(outcome, Outcome::Done(_)) {
            let since = clock::now().duration_since(action.since);
            took(Duration::try_from(since).unwrap_or_default());
        }
    }
    if !due.is_empty() {
        tell_head(registry)?;
    }
    Ok(due.len())
}

/// The end of the audit log, for the system's log: whoever cuts the audit log off cannot reach that.
pub fn tell_head(registry: &mut Registry) -> Result<()> {
    if let Some(head) = registry.read(|tx| tx.audit_head())? {
        info!(target: "leakwarden::audit", "{head}");
    }
    Ok(())
}

fn record(registry: &mut Registry, action: &DueAction, outcome: &Outcome) -> Result<()> {
    let now = clock::now();
    let again = action.attempts + 1 < ATTEMPTS_MAX;
    registry.write(|tx| match outcome {
        Outcome::Done(text) => tx.action_done(action, text, now),
        Outcome::Retry(why) if again => {
            let pause = RETRY_FIRST.saturating_mul(1 << action.attempts.min(16)).min(RETRY_MAX);
            tx.action_retry(action, why, now.checked_add(pause).unwrap_or(now))
        }
        Outcome::Retry(why) | Outcome::GiveUp(why) => tx.action_failed(action, why, now),
        Outcome::Unwanted => Ok(()),
    })?;
    // What is not written is done again, and told then.
    let (incident, kind) = (action.incident, action.kind);
    match outcome {
        Outcome::Done(_) => info!(incident, %kind, key = action.key_id, "leak action took effect"),
        Outcome::Retry(why) if again => warn!(incident, %kind, why, "leak action put off"),
        Outcome::Retry(why) | Outcome::GiveUp(why) => {
            error!(incident, %kind, why, "leak action failed");
        }
        Outcome::Unwanted => info!(incident, %kind, "leak action is not wanted any more"),
    }
    Ok(())
}
