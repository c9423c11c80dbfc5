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
        let answer = self.registry.write(|tx| {
            let key = tx.key(&action.key_id)?;
            tx.set_state(&key, state, (&Caller::operator(OWN_ACTOR), &reason), clock::now())
        });
        match answer {
            Ok(Change::Done) => Outcome::Done(format!("the key is {state} (registry)")),
            Ok(Change::Already) => Outcome::Done(format!("the key was {state} already (registry)")),
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
