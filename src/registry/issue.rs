//! How keys come into the registry: made, registered, imported.

use std::collections::HashMap;

use jiff::Timestamp;

use super::access::{Act, Caller, Denied, Whose};
use super::account::{Account, check_name};
use super::audit::Entry;
use super::identity::{Identity, IdentityKind, NewIdentity, address};
use super::key::{Arrival, Class, KeyKind, LeakAction, kind_prefix};
use super::words::parts;
use super::{RegistryError, Result, Tx};
use crate::clock::{rfc3339, to_millis};
use crate::rule::Checksum;
use crate::secret::{Digest, Keyring, Secret, random_text};
use crate::shape::{EXPORT_MIN_BITS, Shape, is_strong, strength_bits};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE64URL: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-";

/// Longest name of an executor.
const EXECUTOR_MAX: usize = 40;

/// What is known of a key that comes into the registry.
pub enum Material {
    /// The key itself.
    Plain(Secret),
    /// Only its SHA-256, with the shape that its owner declares.
    Sha256([u8; 32], Shape),
}

/// A key that comes into the registry.
#[derive(Clone, Copy)]
pub struct NewKey<'a> {
    /// Not unique.
    pub name: &'a str,
    /// Free text.
    pub description: &'a str,
    /// Name, id or mail address of its identity; one with that address is made when unknown.
    pub owner: &'a str,
    /// Whom it stands for.
    pub kind: KeyKind,
    /// How much it matters.
    pub class: Class,
    /// The service that made it, if it is service-specific.
    pub service: &'a str,
    /// What happens when it leaks.
    pub leak_action: LeakAction,
    /// Whether it starts locked.
    pub locked: bool,
    /// Invalid from then on.
    pub expires_at: Option<Timestamp>,
    /// Globs of places where it is meant to be.
    pub homes: &'a [String],
    /// What carries its leak action out.
    pub executor: &'a str,
    /// How it comes here.
    pub arrival: Arrival,
    /// The source that its import named, and its id there.
    pub origin: &'a str,
    /// Its id there.
    pub remote_id: Option<&'a str>,
    /// The import that brings it.
    pub import: Option<i64>,
    /// Id of the key that it succeeds.
    pub replaces: Option<&'a str>,
    /// What people may see of it.
    pub hint: &'a str,
}

/// What became of a key that came into the registry.
#[derive(Debug)]
pub struct Added {
    /// Its id.
    pub id: String,
    /// Its digest.
    pub digest: Digest,
}

/// Who was asked for before in the same transaction: an import has many keys of few people.
#[derive(Default)]
pub struct Holders {
    account: Option<Account>,
    users: HashMap<String, Identity>,
}

/// A key in our own format: `<prefix>_<kind>_<30 base62><6 check digits>`, with its public prefix.
pub fn generate_own(prefix: &str, kind: KeyKind) -> Result<(Secret, String)> {
    let public = format!("{prefix}_{}_", kind_prefix(kind));
    let body = random_text(BASE62, 30)?;
    let mut key = Vec::with_capacity(public.len() + 36);
    key.extend_from_slice(public.as_bytes());
    key.extend_from_slice(body.expose());
    let digits = Checksum::Leakwarden.digits(&key);
    key.extend(digits);
    Ok((Secret::new(key), public))
}

/// 44 characters base64url without a prefix, as IBM Cloud makes them.
pub fn generate_ibm_like() -> Result<Secret> {
    Ok(random_text(BASE64URL, 44)?)
}

/// Refuses words about a key that hold the key: they are stored as they are.
fn refuse_if_told(new: &NewKey<'_>, material: &Material, keyring: &Keyring) -> Result<()> {
    let words = [
        new.name,
        new.description,
        new.owner,
        new.hint,
        new.service,
        new.remote_id.unwrap_or_default(),
    ];
    let mut all = words.into_iter().chain(new.homes.iter().map(String::as_str));
    let told = |word: &str| match material {
        Material::Plain(key) => memchr::memmem::find(word.as_bytes(), key.expose()).is_some(),
        Material::Sha256(hash, _) => {
            let digest = keyring.digest_of_sha256(hash);
            parts(word.as_bytes())
                .iter()
                .any(|part| digest.matches(keyring.digest(part).as_bytes()))
        }
    };
    if all.any(told) {
        let why = "the name, the description or another word about the key holds the key itself";
        return Err(RegistryError::Refused(why.to_owned()));
    }
    Ok(())
}

/// Refuses what is no name of an executor.
pub(super) fn check_executor(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=EXECUTOR_MAX).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    let why = "the name of an executor is 1 to 40 lower-case letters, digits, `-` and `_`";
    Err(RegistryError::Refused(why.to_owned()))
}

/// What a key of that kind cannot have.
pub(super) fn check_kind(
    kind: KeyKind,
    locked: bool,
    expires: bool,
    action: LeakAction,
) -> Result<()> {
    let why = match kind {
        KeyKind::Classic if locked => "be locked",
        KeyKind::Classic if expires => "expire",
        KeyKind::Classic if action == LeakAction::Disable => {
            "be disabled: its leak action is none or delete"
        }
        _ => return Ok(()),
    };
    Err(RegistryError::Refused(format!("a classic infrastructure key cannot {why}")))
}

impl Tx<'_> {
    /// Puts a key into the registry. A second one with the same digest is refused.
    pub fn add_key(
        &self,
        new: &NewKey<'_>,
        material: &Material,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Added> {
        self.add_one_of(&mut Holders::default(), new, material, caller, now)
    }

    /// The same for one of many keys. What was asked for before counts until a change of accounts or
    /// identities, or a rollback.
    pub fn add_one_of(
        &self,
        holders: &mut Holders,
        new: &NewKey<'_>,
        material: &Material,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Added> {
        let (digest, tags, shape, strong) = match material {
            Material::Plain(key) => {
                let bytes = key.expose();
                let tags = (self.keyring().tag(bytes), self.export_tag(bytes, new.hint));
                let strong = bytes.iter().filter(|byte| is_strong(**byte)).count();
                (self.keyring().digest(bytes), Some(tags), Shape::of(bytes)?, strong)
            }
            Material::Sha256(hash, shape) => {
                (self.keyring().digest_of_sha256(hash), None, *shape, 0)
            }
        };
        self.check_new(new, material, &digest, caller)?;
        let (account, identity) = self.holder_among(holders, new, caller, now)?;
        self.check_rights(&account, &identity, new, caller, now)?;
        self.check_quota(&account, &identity, new, now)?;
        if let Some(id) = new.remote_id {
            self.refuse_remote_id(&account.id, new.origin, id, None)?;
        }
        // Ids grow with time: an import of many keys writes to one end of their indexes.
        let id = format!("ApiKey-{}", uuid::Uuid::now_v7());
        let as_stored = |tag: u64| i64::from_le_bytes(tag.to_le_bytes());
        self.sql()
            .prepare_cached(
                "INSERT INTO keys (id, account_id, identity_id, kind, name, description, locked,
                     leak_action, hint, digest, tag, export_tag, alphabet, length, source,
                     expires_at, created_at, created_by, modified_at, modified_by, class, service,
                     origin, remote_id, import_id, replaces, pepper_version, executor)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                     ?17, ?18, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)",
            )?
            .execute(rusqlite::params![
                id,
                account.id,
                identity.id,
                new.kind,
                new.name.trim(),
                new.description,
                new.locked,
                new.leak_action,
                new.hint,
                digest.as_bytes(),
                tags.map(|(tag, _)| as_stored(tag)),
                tags.and_then(|(_, export)| export).map(as_stored),
                shape.alphabet.as_str(),
                i64::try_from(shape.len).unwrap_or(i64::MAX),
                new.arrival,
                new.expires_at.map(to_millis),
                to_millis(now),
                caller.actor,
                new.class,
                new.service,
                new.origin,
                new.remote_id,
                new.import,
                new.replaces,
                i64::try_from(self.keyring().version()).unwrap_or(i64::MAX),
                new.executor,
            ])?;
        self.sql().prepare_cached("UPDATE totals SET live = live + 1")?.execute([])?;
        self.add_shape(shape, tags.is_none(), strong)?;
        self.add_homes(&account.id, &id, new.homes, caller, now)?;
        self.audit_new(&id, &identity, new, caller, now)?;
        Ok(Added { id, digest })
    }

    /// What must hold of every key that comes, whoever brings it.
    fn check_new(
        &self,
        new: &NewKey<'_>,
        material: &Material,
        digest: &Digest,
        caller: &Caller,
    ) -> Result<()> {
        if let Some(known) = self.key_by_digest(digest)? {
            // Whose it is is told to those alone who see it anyway.
            let seen = caller.may(Act::View, &known.whose()).is_ok();
            let shown =
                if seen { format!(", as {} ({})", known.name, known.id) } else { String::new() };
            let why = format!("this key is registered already{shown}");
            return Err(RegistryError::Refused(why));
        }
        if new.name.trim().is_empty() {
            return Err(RegistryError::Refused("a key needs a name".to_owned()));
        }
        self.refuse_words(&[new.name, new.description, new.owner, new.service])?;
        refuse_if_told(new, material, self.keyring())?;
        check_kind(new.kind, new.locked, new.expires_at.is_some(), new.leak_action)?;
        check_executor(new.executor)
    }

    fn audit_new(
        &self,
        id: &str,
        identity: &Identity,
        new: &NewKey<'_>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<()> {
        let action = match new.arrival {
            Arrival::Created => "key create",
            Arrival::Registered => "key register",
            Arrival::Imported => "key import",
        };
        let (name, owner, kind, class) = (new.name, &identity.name, new.kind, new.class);
        let action_then = new.leak_action;
        let mut after = format!(
            "name={name} owner={owner} kind={kind} class={class} leak_action={action_then}"
        );
        // What most keys have not is told of the others.
        let more = [
            ("locked", new.locked.then(|| "true".to_owned())),
            ("expires_at", new.expires_at.map(rfc3339)),
            ("homes", Some(new.homes.join(",")).filter(|homes| !homes.is_empty())),
            ("service", Some(new.service.to_owned()).filter(|service| !service.is_empty())),
            ("replaces", new.replaces.map(str::to_owned)),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                after.push_str(&format!(" {name}={value}"));
            }
        }
        let actor = &caller.actor;
        self.audit(&Entry { actor, action, target: id, after: &after, ..Entry::at(now) })
    }

    /// The tag for filters that leave the host; none for a key that might be guessed by it. What is
    /// public of the key, the beginning of its hint, does not count.
    fn export_tag(&self, key: &[u8], hint: &str) -> Option<u64> {
        let public = hint.split('…').next().unwrap_or_default();
        let hidden = key.strip_prefix(public.as_bytes()).unwrap_or(key);
        let strong = strength_bits(hidden) >= EXPORT_MIN_BITS;
        strong.then(|| self.keyring().export_key().tag(key))
    }

    /// `strong`: digits and capitals of the key; 0 where nobody knows.
    fn add_shape(&self, shape: Shape, untagged: bool, strong: usize) -> Result<()> {
        let len = i64::try_from(shape.len).unwrap_or(i64::MAX);
        self.sql()
            .prepare_cached("INSERT OR IGNORE INTO shapes VALUES (?1, ?2, ?3)")?
            .execute((shape.alphabet.as_str(), len, untagged))?;
        let strong = i64::try_from(strong).unwrap_or(i64::MAX);
        self.sql()
            .prepare_cached(
                "INSERT INTO strong VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET least = ?3 WHERE least > ?3",
            )?
            .execute((shape.alphabet.as_str(), len, strong))?;
        Ok(())
    }

    fn holder_among(
        &self,
        holders: &mut Holders,
        new: &NewKey<'_>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(Account, Identity)> {
        let account = match &holders.account {
            Some(known) => known.clone(),
            None => holders.account.insert(self.one_account(caller)?).clone(),
        };
        let of_user = new.kind == KeyKind::User && new.service.is_empty();
        if let Some(known) = holders.users.get(new.owner).filter(|_| of_user) {
            return Ok((account, known.clone()));
        }
        let identity = self.holder(&account, new, caller, now)?;
        if of_user {
            holders.users.insert(new.owner.to_owned(), identity.clone());
        }
        Ok((account, identity))
    }

    /// The identity that a new key stands for. A key of a service whose owner is a person belongs
    /// to a service ID of the key's name, which that person looks after.
    fn holder(
        &self,
        account: &Account,
        new: &NewKey<'_>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Identity> {
        let known = self.identity_named(&account.id, new.owner)?;
        let of_service = matches!(new.kind, KeyKind::ServiceId | KeyKind::ServiceSpecific);
        if new.kind == KeyKind::ServiceSpecific && new.service.is_empty() {
            let why = "a service-specific key needs the service that made it (--service)";
            return Err(RegistryError::Refused(why.to_owned()));
        }
        if new.kind != KeyKind::ServiceSpecific && !new.service.is_empty() {
            let why = "only a service-specific key has a service that made it";
            return Err(RegistryError::Refused(why.to_owned()));
        }
        match known {
            Some(known) if of_service == (known.kind == IdentityKind::ServiceId) => {
                if new.kind == KeyKind::Classic && known.kind != IdentityKind::User {
                    let why = format!("{} is no user; classic keys are for users", known.name);
                    return Err(RegistryError::Refused(why));
                }
                Ok(known)
            }
            Some(known) if !of_service => {
                let why =
                    format!("{} is a service ID; its keys have --kind service-id", known.name);
                Err(RegistryError::Refused(why))
            }
            Some(person) => self.service_of(account, new, &person, caller, now),
            None if of_service => {
                let person = self.user(&account.id, new.owner, caller, now)?;
                self.service_of(account, new, &person, caller, now)
            }
            None => self.user(&account.id, new.owner, caller, now),
        }
    }

    fn service_of(
        &self,
        account: &Account,
        new: &NewKey<'_>,
        person: &Identity,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Identity> {
        let name = new.name.trim();
        match self.identity_named(&account.id, name)? {
            Some(known)
                if known.kind == IdentityKind::ServiceId
                    && known.manager_id.as_ref() == Some(&person.id) =>
            {
                Ok(known)
            }
            Some(known) => Err(RegistryError::Refused(format!(
                "a key of this kind needs a service ID, and {name} is taken by a {}; make one \
                 (`identity create`) and give it as the owner",
                known.kind
            ))),
            None => {
                let email = person.email.as_deref().or(person.contact.as_deref());
                let contact = address(email.unwrap_or_default())?;
                let service = NewIdentity {
                    contact: Some(&contact),
                    manager: Some(&person.id),
                    ..NewIdentity::new(name, IdentityKind::ServiceId)
                };
                self.create_identity(&account.id, &service, caller, now)
            }
        }
    }

    fn check_rights(
        &self,
        account: &Account,
        identity: &Identity,
        new: &NewKey<'_>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<()> {
        if new.arrival == Arrival::Imported {
            return caller.must_administer("import keys");
        }
        let whose = Whose {
            account: &account.id,
            identity: &identity.id,
            manager: identity.manager_id.as_deref(),
            kind: new.kind,
        };
        if self.is_handed_on(new, now)? {
            return Ok(());
        }
        let actor = &caller.actor;
        Err(RegistryError::Refused(match caller.may_create(&whose, account.restrictions) {
            Ok(()) => return Ok(()),
            Err(Denied::Restricted) => format!(
                "making {} keys is restricted in the account {}, and {actor} has neither the \
                 grant `create` nor `issue` (`access grant`)",
                new.kind, account.name
            ),
            Err(Denied::ForOthers | Denied::Forbidden | Denied::Unseen) => format!(
                "{actor} may not make keys for {}: that takes the grant `issue`",
                crate::text::clean(new.owner.as_bytes())
            ),
        }))
    }

    /// Whether a key takes the place of another, which was granted: two are valid for a while, but no
    /// third one beside them.
    fn is_handed_on(&self, new: &NewKey<'_>, now: Timestamp) -> Result<bool> {
        let Some(old) = new.replaces else { return Ok(false) };
        let sql = "SELECT EXISTS (SELECT 1 FROM keys k WHERE k.replaces = ?1
                 AND k.state = 'active')
             OR EXISTS (SELECT 1 FROM keys k JOIN keys o ON o.id = k.replaces
                 WHERE k.id = ?1 AND o.state = 'active' AND o.expires_at > ?2)";
        let mut statement = self.sql().prepare_cached(sql)?;
        let third: bool = statement.query_row((old, to_millis(now)), |row| row.get(0))?;
        Ok(!third)
    }

    fn check_quota(
        &self,
        account: &Account,
        identity: &Identity,
        new: &NewKey<'_>,
        now: Timestamp,
    ) -> Result<()> {
        let name = &identity.name;
        if new.kind == KeyKind::Classic && self.key_count_of(identity, Some(new.kind))? > 0 {
            let why = format!("{name} has a classic infrastructure key, and one is the limit");
            return Err(RegistryError::Refused(why));
        }
        if new.arrival != Arrival::Created || self.is_handed_on(new, now)? {
            return Ok(());
        }
        let count = self.key_count_of(identity, None)?;
        if count < account.max_keys {
            return Ok(());
        }
        Err(RegistryError::Refused(format!(
            "{name} has {count} keys, and {} is the limit of the account; delete one first",
            account.max_keys
        )))
    }

    /// How many keys of an identity are no tombstones.
    pub fn key_count_of(&self, identity: &Identity, kind: Option<KeyKind>) -> Result<i64> {
        let sql = "SELECT count(*) FROM keys
             WHERE identity_id = ?1 AND state <> 'deleted' AND (?2 IS NULL OR kind = ?2)";
        Ok(self.sql().prepare_cached(sql)?.query_row((&identity.id, kind), |row| row.get(0))?)
    }

    /// Begins an import from a named source.
    pub fn begin_import(&self, origin: &str, caller: &Caller, now: Timestamp) -> Result<i64> {
        check_name("the name of the source", origin)?;
        let account = self.one_account(caller)?;
        self.sql().execute(
            "INSERT INTO imports (account_id, origin, at, actor) VALUES (?1, ?2, ?3, ?4)",
            (&account.id, origin, to_millis(now), &caller.actor),
        )?;
        Ok(self.sql().last_insert_rowid())
    }

    /// Ids of the live keys of a source that an import did not name, and how many the source has.
    pub fn missing_from(
        &self,
        import: Option<i64>,
        origin: &str,
        caller: &Caller,
    ) -> Result<(Vec<String>, u64)> {
        let account = self.one_account(caller)?;
        let mut statement = self.sql().prepare(
            "SELECT id, import_id IS NOT ?3 FROM keys
             WHERE account_id = ?1 AND origin = ?2 AND state <> 'deleted'",
        )?;
        let rows = statement.query_map((&account.id, origin, import), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
        })?;
        let (mut missing, mut total) = (Vec::new(), 0);
        for row in rows {
            let (id, is_missing) = row?;
            total += 1;
            if is_missing {
                missing.push(id);
            }
        }
        Ok((missing, total))
    }
}
