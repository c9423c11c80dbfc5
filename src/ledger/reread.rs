//! Watches that read again what they read before, because keys came later that nobody could have
//! seen then: a text that no rule takes for a key is not remembered.

use rusqlite::OptionalExtension;

use crate::registry::{Registry, Result, Tx};

/// How many such keys came, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strangers(i64);

/// Takes note of a watch that begins: what it reads from now on it reads with all keys in mind.
pub fn begins(registry: &mut Registry, watch: &str) -> Result<()> {
    registry.write(|tx| {
        let sql =
            "INSERT OR IGNORE INTO read_for (watch, strangers) SELECT ?1, count FROM strangers";
        tx.sql().execute(sql, [watch])?;
        Ok(())
    })
}

/// Whether a watch has to read again what it read before, and for how many keys.
pub fn unread(registry: &mut Registry, watch: &str) -> Result<Option<Strangers>> {
    registry.read(|tx| {
        let sql = "SELECT s.count FROM read_for r JOIN strangers s ON r.strangers < s.count
             WHERE r.watch = ?1";
        let mut statement = tx.sql().prepare_cached(sql)?;
        Ok(statement.query_row([watch], |row| row.get(0).map(Strangers)).optional()?)
    })
}

/// A watch has read everything again.
pub fn was_read(registry: &mut Registry, watch: &str, strangers: Strangers) -> Result<()> {
    registry.write(|tx| {
        let sql = "UPDATE read_for SET strangers = ?2 WHERE watch = ?1";
        tx.sql().execute(sql, (watch, strangers.0))?;
        Ok(())
    })
}

impl Tx<'_> {
    /// Keys came that no rule knows: every watch reads again what it read before.
    pub fn meet_strangers(&self) -> Result<()> {
        self.sql().prepare_cached("UPDATE strangers SET count = count + 1")?.execute([])?;
        Ok(())
    }
}
