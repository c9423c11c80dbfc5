//! Who asks, and what was granted to them.

use std::collections::HashSet;

use jiff::Timestamp;

use super::access::{Caller, Grant};
use super::audit::Entry;
use super::identity::Identity;
use super::{RegistryError, Result, Tx};
use crate::clock::to_millis;
use crate::text::clean;

impl Tx<'_> {
    /// Who somebody is: the user who runs the registry, or the identity they act as.
    pub fn caller(
        &self,
        os_user: &str,
        acts_as: Option<&str>,
        account: Option<&str>,
    ) -> Result<Caller> {
        let mut caller = Caller::operator(os_user);
        caller.account = match account {
            None => None,
            Some(text) => Some(
                self.account_named(text)?
                    .ok_or_else(|| {
                        let shown = clean(text.as_bytes());
                        RegistryError::NotFound(format!("no account named `{shown}`"))
                    })?
                    .id,
            ),
        };
        let is_mapped = self.is_mapped(os_user)?;
        let mut mapped = if is_mapped {
            self.select("i.os_user = ?1 AND i.deleted_at IS NULL", &os_user)?
        } else {
            Vec::new()
        };
        mapped.retain(|identity| caller.sees_account(&identity.account_id));
        let identity = match (acts_as, mapped.as_slice()) {
            // Whoever is somebody in one account is nobody in the others.
            (_, []) if is_mapped => {
                let why = format!("{os_user} may act as nobody in that account");
                return Err(RegistryError::Refused(why));
            }
            (None, []) => return Ok(caller),
            (None, [only]) => only.clone(),
            (None, several) => {
                let names: Vec<_> = several.iter().map(|i| i.name.as_str()).collect();
                let names = names.join(", ");
                let why = format!("{os_user} may act as {names}; say as which by --as");
                return Err(RegistryError::Refused(why));
            }
            (Some(text), []) => {
                let account = self.one_account(&caller)?;
                self.find_identity(&account.id, text)?
            }
            (Some(text), several) => {
                let wanted = several.iter().find(|i| i.is_called(text));
                wanted.cloned().ok_or_else(|| {
                    let shown = clean(text.as_bytes());
                    RegistryError::Refused(format!(
                        "{os_user} may not act as {shown}: an administrator maps users of this \
                         system to identities (`identity update NAME --os-user USER`)"
                    ))
                })?
            }
        };
        let account = self.account(&identity.account_id)?;
        caller.actor = format!("{} ({os_user})", identity.name);
        caller.owns_account = account.owner_id.as_ref() == Some(&identity.id);
        caller.account = Some(account.id);
        caller.below = self.below(&identity.id)?;
        caller.grants = identity.grants;
        caller.identity = Some(identity.id);
        Ok(caller)
    }

    /// Whether a user of this system is anybody here. Most are not, and this is soon asked.
    fn is_mapped(&self, os_user: &str) -> Result<bool> {
        let sql = "SELECT EXISTS
             (SELECT 1 FROM identities WHERE os_user = ?1 AND deleted_at IS NULL)";
        Ok(self.sql().prepare_cached(sql)?.query_row([os_user], |row| row.get(0))?)
    }

    /// Ids of the users below one in the classic hierarchy.
    pub(super) fn below(&self, id: &str) -> Result<HashSet<String>> {
        let mut statement = self.sql().prepare_cached(
            "WITH RECURSIVE below (id) AS (
                 SELECT id FROM identities WHERE parent_id = ?1
                 UNION SELECT i.id FROM identities i JOIN below b ON i.parent_id = b.id)
             SELECT id FROM below",
        )?;
        let rows = statement.query_map([id], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Grants something; `false`: it was so already.
    pub fn grant(
        &self,
        identity: &Identity,
        grant: Grant,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<bool> {
        caller.must_administer("grant anything")?;
        let changed = self.sql().execute(
            "INSERT OR IGNORE INTO grants VALUES (?1, ?2, ?3, ?4)",
            (&identity.id, grant, to_millis(now), &caller.actor),
        )?;
        let (actor, target) = (&caller.actor, &identity.id);
        let (action, after) = ("access grant", grant.as_str());
        if changed > 0 {
            self.audit(&Entry { actor, action, target, after, ..Entry::at(now) })?;
        }
        Ok(changed > 0)
    }

    /// Takes it back; `false`: it was not granted.
    pub fn revoke(
        &self,
        identity: &Identity,
        grant: Grant,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<bool> {
        caller.must_administer("revoke anything")?;
        let changed = self.sql().execute(
            "DELETE FROM grants WHERE identity_id = ?1 AND word = ?2",
            (&identity.id, grant),
        )?;
        let (actor, target) = (&caller.actor, &identity.id);
        let (action, before) = ("access revoke", grant.as_str());
        if changed > 0 {
            self.audit(&Entry { actor, action, target, before, ..Entry::at(now) })?;
        }
        Ok(changed > 0)
    }

    /// Mail addresses of the administrators of an account.
    pub fn admins(&self, account: &str) -> Result<Vec<String>> {
        let mut statement = self.sql().prepare_cached(
            "SELECT DISTINCT coalesce(i.email, i.contact) FROM identities i
             WHERE i.account_id = ?1 AND i.deleted_at IS NULL
               AND coalesce(i.email, i.contact) IS NOT NULL
               AND (EXISTS (SELECT 1 FROM grants g
                       WHERE g.identity_id = i.id AND g.word = 'administrator')
                   OR EXISTS (SELECT 1 FROM accounts a WHERE a.owner_id = i.id))
             ORDER BY 1",
        )?;
        let rows = statement.query_map([account], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
