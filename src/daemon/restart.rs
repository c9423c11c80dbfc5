//! Sources that failed, and when they are started again. A source never retries by itself; how often
//! and when is decided here, for all of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Watch;

/// Before the first restart; doubled with each one that follows.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// What failed and waits.
#[derive(Default)]
pub(super) struct Restarts {
    waiting: Vec<(Instant, Watch)>,
    /// By name: when it was started, and how long the pause before that was.
    started: HashMap<String, (Instant, Duration)>,
}

impl Restarts {
    /// A watch failed: it waits from now on. Answers for how long.
    pub(super) fn add(&mut self, watch: Watch, now: Instant) -> Duration {
        let pause = match self.started.get(&watch.name) {
            // One that stood for as long as the longest pause is well again.
            Some((at, _)) if now.saturating_duration_since(*at) >= LONGEST => FIRST,
            Some((_, last)) => last.saturating_mul(2).min(LONGEST),
            None => FIRST,
        };
        self.started.insert(watch.name.clone(), (now + pause, pause));
        self.waiting.push((now + pause, watch));
        pause
    }

    /// Takes those whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Watch> {
        let waiting = std::mem::take(&mut self.waiting);
        let (due, rest) = waiting.into_iter().partition(|(at, _)| *at <= now);
        self.waiting = rest;
        due.into_iter().map(|(_, watch)| watch).collect()
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }

    /// Forgets everything: what is wanted is started at once.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Followed;

    fn watch() -> Watch {
        let follow = Followed::Stdin;
        Watch { name: "one".to_owned(), follow, said: String::new() }
    }

    #[test]
    fn pauses_grow_and_begin_anew() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = restarts.add(watch(), now);
            pauses.push(pause.as_secs());
            assert!(restarts.due(now).is_empty());
            now += pause;
            assert_eq!(restarts.due(now).len(), 1);
            assert_eq!(restarts.next(), None);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(restarts.add(watch(), now + LONGEST), FIRST);
    }
}
