//! The executor for keys whose truth is this registry: sets their state, which `key verify` answers
//! from.

use crate::clock;
use crate::incident::ActionKind;
use crate::ledger::DueAction;
use crate::registry::access::Caller;
use crate::registry::key::State;
use crate::registry::{Change, OWN_ACTOR, Registry, RegistryError};
use crate::response::{Execution, Executor, Outcome};

/// Acts on the registry through a connection of its own.
pub struct LocalExecutor {
    registry: Registry,
}

impl LocalExecutor {
    /// On this registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }

    fn act(&mut self, action: &DueAction) -> Outcome {
        let state = match action.kind {
            ActionKind::Disable => State::Disabled,
            ActionKind::Delete => State::Deleted,
        };
        let reason = format!("leak-{}", action.incident);
        // In one transaction: whoever closes the leak, or enables the key, comes before or after it.
        let answer = self.registry.write(|tx| {
            if !tx.is_wanted(action)? {
                return Ok(Outcome::Unwanted);
            }
            let (key, now) = (tx.key(&action.key_id)?, clock::now());
            let why = (&Caller::operator(OWN_ACTOR), &*reason);
            let told = match tx.set_state(&key, state, why, now)? {
                Change::Done => format!("the key is {state} (registry)"),
                Change::Already => format!("the key was {state} already (registry)"),
            };
            tx.action_done(action, &told, now)?;
            Ok(Outcome::Done(told))
        });
        match answer {
            Ok(outcome) => outcome,
            Err(error @ (RegistryError::Refused(_) | RegistryError::NotFound(_))) => {
                Outcome::GiveUp(error.to_string())
            }
            Err(error) => Outcome::Retry(error.to_string()),
        }
    }
}

impl Executor for LocalExecutor {
    fn execute<'a>(&'a mut self, action: &'a DueAction) -> Execution<'a> {
        Box::pin(async move { self.act(action) })
    }
}
