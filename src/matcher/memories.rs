//! What is remembered of one text, for each rule on its own: what one costs is its own affair.

use crate::rule::{Memory, Rule};

/// By rule and offset: of each, starts come one after the other.
#[derive(Default)]
pub(super) struct Memories {
    /// By rule: one more than where those of its offsets begin; 0: nowhere yet.
    firsts: Vec<usize>,
    all: Vec<Memory>,
}

impl Memories {
    /// For a rule, by its index, and one of its offsets, by their order.
    pub(super) fn of(
        &mut self,
        (index, rule): (usize, &Rule),
        offset: usize,
    ) -> Option<&mut Memory> {
        if self.firsts.len() <= index {
            self.firsts.resize(index + 1, 0);
        }
        let first = self.firsts.get_mut(index)?;
        if *first == 0 {
            *first = self.all.len() + 1;
            self.all.resize_with(self.all.len() + rule.offsets.len(), Memory::default);
        }
        self.all.get_mut(*first - 1 + offset)
    }
}
