//! How many incidents, actions and notices there are, by what became of them.

use super::from_stored;
use crate::registry::{Registry, Result};

/// Tables, and the states that their rows may be in.
const STATES: [(&str, &[&str]); 3] = [
    ("incidents", &["open", "resolved"]),
    ("actions", &["due", "held", "done", "failed"]),
    ("notices", &["due", "sent", "failed"]),
];

/// How many rows of a table are in a state.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    /// The table.
    pub what: &'static str,
    /// The state.
    pub state: &'static str,
    /// How many.
    pub count: u64,
}

/// All totals, those that are 0 as well.
pub fn totals(registry: &mut Registry) -> Result<Vec<Total>> {
    registry.read(|tx| {
        let mut totals = Vec::new();
        for (what, states) in STATES {
            let sql = format!("SELECT count(*) FROM {what} WHERE state = ?1");
            let mut statement = tx.sql().prepare_cached(&sql)?;
            for state in states {
                let count = statement.query_row([state], |row| row.get(0)).map(from_stored)?;
                totals.push(Total { what, state, count });
            }
        }
        Ok(totals)
    })
}
