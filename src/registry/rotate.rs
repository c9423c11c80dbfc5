//! A new pepper, without plain keys: each digest is hashed once more.
//!
//! The new pepper is in its file before the database knows it, and the old ones stay in front of
//! it: at every moment database and file fit together, and so does an older copy of the database.

use jiff::Timestamp;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;

use super::access::Caller;
use super::audit::Entry;
use super::{Registry, RegistryError, Result, Tx, folder, sqlite};

impl Registry {
    /// Rotates the pepper; answers its new version. No daemon may run.
    pub fn rotate_pepper(
        &mut self,
        caller: &Caller,
        reason: &str,
        now: Timestamp,
    ) -> Result<usize> {
        caller.must_operate("rotate the pepper")?;
        let _alone = sqlite::without_daemon(&self.folder)?;
        let all = folder::open(&self.folder)?;
        let used = self.keyring.version();
        // One that was cut short left its pepper in the file: it is taken up again.
        let (next, fresh) = match all.version() > used {
            true => (all.at_version(used + 1), false),
            false => (all.rotated()?, true),
        };
        if fresh {
            folder::replace_pepper(&self.folder, &next)?;
        }
        let hasher = next.clone();
        self.connection.create_scalar_function(
            "next_digest",
            1,
            FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
            move |arguments| {
                let digest: [u8; 32] = arguments.get(0)?;
                Ok(Value::Blob(hasher.next_digest(&digest).to_vec()))
            },
        )?;
        let version = next.version();
        self.write(|tx| {
            tx.rehash(version)?;
            tx.set_setting("pepper_check", &next.check_value())?;
            tx.audit(&Entry {
                actor: &caller.actor,
                action: "registry rotate-pepper",
                target: "registry",
                before: &format!("version={used}"),
                after: &format!("version={version}"),
                reason,
                ..Entry::at(now)
            })
        })?;
        self.keyring = std::sync::Arc::new(next);
        Ok(version)
    }
}

impl Tx<'_> {
    fn rehash(&self, version: usize) -> Result<()> {
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let sql = "UPDATE keys SET digest = next_digest(digest), pepper_version = ?1";
        let keys = self.sql().execute(sql, [version])?;
        self.sql().execute("UPDATE remembered SET digest = next_digest(digest)", [])?;
        let wrong: i64 = self.sql().query_row(
            "SELECT count(*) FROM keys WHERE pepper_version <> ?1",
            [version],
            |row| row.get(0),
        )?;
        if wrong > 0 {
            let why = format!("{wrong} of {keys} keys were left out");
            return Err(RegistryError::Damaged(why));
        }
        Ok(())
    }
}
