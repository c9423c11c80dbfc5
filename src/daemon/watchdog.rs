//! Whether every part of the daemon turns. One that does not is told to the service manager, which
//! starts the daemon again.
//!
//! A part that waits for another one is well as long as that one is: a watch whose queue is full, the
//! recorder while somebody holds the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{error, info};

use super::tell;
use crate::vital::{Pulse, Sign};

/// Without a service manager that says how long it waits.
const PATIENCE: Duration = Duration::from_secs(120);
/// A part that gives no sign for so many looks is stuck. Looks are counted, not time: the process may
/// have been stopped as a whole.
const LOOKS_MAX: u32 = 8;
/// Longest time between looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Watchdog {
    /// Whether the service manager waits for signs.
    wanted: bool,
    /// Time between looks.
    pub(super) every: Duration,
    /// Looks without a sign until a part is stuck.
    looks_max: u32,
    /// What each part showed last, and at how many looks since.
    seen: HashMap<String, (Sign, u32)>,
}

impl Watchdog {
    /// As the service manager wants it.
    pub(super) fn new() -> Self {
        let wanted = sd_notify::watchdog_enabled();
        // Stuck parts are told at half time: then the service manager still hears why.
        let half = wanted.unwrap_or(PATIENCE) / 2;
        let every = (half / LOOKS_MAX).min(LOOK_EVERY).max(Duration::from_millis(10));
        let looks_max = u32::try_from(half.as_millis() / every.as_millis()).unwrap_or(u32::MAX);
        Self { wanted: wanted.is_some(), every, looks_max, seen: HashMap::new() }
    }

    /// Looks at all parts, tells the service manager that they turn, or which do not, and answers
    /// those.
    pub(super) fn look(&mut self, parts: &[(String, Arc<Pulse>)], stuck: &[String]) -> Vec<String> {
        self.seen.retain(|name, _| parts.iter().any(|(part, _)| part == name));
        let mut now_stuck = Vec::new();
        for (name, pulse) in parts {
            let Some(sign) = pulse.sign() else {
                self.seen.remove(name);
                continue;
            };
            let looks = match self.seen.get(name) {
                Some((last, looks)) if *last == sign => looks + 1,
                _ => 0,
            };
            self.seen.insert(name.clone(), (sign, looks));
            if looks >= self.looks_max {
                now_stuck.push(name.clone());
            }
        }
        for part in now_stuck.iter().filter(|part| !stuck.contains(part)) {
            let seconds = (self.every * self.looks_max).as_secs();
            error!(part, seconds, "stuck: it gives no sign of life");
            if self.wanted {
                tell(&[
                    NotifyState::Status(&format!("stuck: {part}")),
                    NotifyState::WatchdogTrigger,
                ]);
            }
        }
        for part in stuck.iter().filter(|part| !now_stuck.contains(part)) {
            info!(part, "it turns again");
        }
        if self.wanted && now_stuck.is_empty() {
            tell(&[NotifyState::Watchdog]);
        }
        now_stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_without_a_sign_is_stuck_until_it_gives_one() {
        let mut dog = Watchdog {
            wanted: false,
            every: Duration::from_secs(1),
            looks_max: 3,
            seen: HashMap::new(),
        };
        let pulses = [Arc::new(Pulse::default()), Arc::new(Pulse::default())];
        let parts = [("a".to_owned(), pulses[0].clone()), ("b".to_owned(), pulses[1].clone())];
        let mut stuck = Vec::new();
        let mut look = |times: usize| {
            for _ in 0..times {
                pulses[1].beat();
                stuck = dog.look(&parts, &stuck);
            }
            stuck.clone()
        };
        assert!(look(3).is_empty());
        assert_eq!(look(1), ["a"]);
        let rest = pulses[0].rest();
        assert!(look(10).is_empty(), "who waits for another one is not stuck");
        drop(rest);
        assert!(look(3).is_empty());
        assert_eq!(look(2), ["a"]);
        pulses[0].beat();
        assert!(look(1).is_empty());
    }
}
