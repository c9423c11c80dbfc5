//! Work that threads take and add to, until nothing is left and nobody can add any.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is first is taken first; of both, the last that came: so little waits.
pub(super) struct Queue<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
}

struct State<W> {
    first: Vec<W>,
    rest: Vec<W>,
    busy: usize,
    waiting: usize,
}

/// Held while a thread may still add work.
pub(super) struct Busy<'a, W>(&'a Queue<W>);

impl<W> Drop for Busy<'_, W> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.busy -= 1;
        if state.busy == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl<W> Queue<W> {
    pub(super) fn new(rest: Vec<W>) -> Self {
        let state = State { first: Vec::new(), rest, busy: 0, waiting: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, first: Vec<W>, rest: Vec<W>) {
        let mut state = self.state();
        state.first.extend(first);
        state.rest.extend(rest);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// `None`: there is no more, and nobody is left to add any.
    pub(super) fn next(&self) -> Option<(W, Busy<'_, W>)> {
        let mut state = self.state();
        loop {
            if let Some(work) = state.first.pop().or_else(|| state.rest.pop()) {
                state.busy += 1;
                return Some((work, Busy(self)));
            }
            if state.busy == 0 {
                return None;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }
}
