//! What becomes of keys: `update`, `rotate`, `lock`, `disable`, `delete` and their opposites.

use std::time::Duration;

use jiff::Timestamp;

use super::super::{Exit, Session, output};
use super::{Fresh, homes, show};
use crate::cli::{self, Expiry, KeyArg, ListFormat, Update};
use crate::clock;
use crate::registry::access::Caller;
use crate::registry::key::{Arrival, Key, KeyKind, State};
use crate::registry::{Change, KeyUpdate, NewKey, Registry, RegistryError, Result, Tx};

/// Changes a key and shows it as it is then.
fn change(
    argument: &KeyArg,
    work: impl FnOnce(&Tx<'_>, &Key, (&Caller, &str)) -> Result<Change>,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(&argument.scope)?;
    change_one(&mut registry, &caller, &argument.key, argument, work)
}

/// The same of the key with that name or id.
fn change_one(
    registry: &mut Registry,
    caller: &Caller,
    which: &str,
    argument: &KeyArg,
    work: impl FnOnce(&Tx<'_>, &Key, (&Caller, &str)) -> Result<Change>,
) -> anyhow::Result<Exit> {
    let (key, changed) = registry.write(|tx| {
        let key = tx.find_key(which, caller)?;
        let changed = work(tx, &key, (caller, &argument.reason))?;
        Ok((tx.key(&key.id)?, changed))
    })?;
    if changed == Change::Already {
        output::note(&format!("{} was so already; nothing was changed", key.name));
    }
    show::answer(&key, argument.format.format)
}

pub(super) fn lock(argument: &KeyArg, locked: bool) -> anyhow::Result<Exit> {
    change(argument, |tx, key, why| tx.set_locked(key, locked, why, clock::now()))
}

pub(super) fn set_state(argument: &KeyArg, state: State, force: bool) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(&argument.scope)?;
    // By its id from here on: another key may get that name while somebody thinks about it.
    let key = registry.read(|tx| tx.find_key(&argument.key, &caller))?;
    let ask = state == State::Deleted && !force && key.state != State::Deleted && !key.locked;
    if ask && !output::confirm(&format!("Delete {} ({}) for good?", key.name, key.id))? {
        output::note("nothing was changed");
        return Ok(Exit::Found);
    }
    change_one(&mut registry, &caller, &key.id, argument, |tx, key, why| {
        let changed = tx.set_state(key, state, why, clock::now())?;
        if state == State::Active {
            let told = format!("not done: {} enabled the key", why.0.actor);
            tx.close_enabled(key, &told, clock::now())?;
        }
        Ok(changed)
    })
}

pub(super) fn update(update: &Update) -> anyhow::Result<Exit> {
    let homes = (!update.home.is_empty()).then(|| homes(&update.home)).transpose()?;
    let wanted = KeyUpdate {
        name: update.name.clone(),
        description: update.description.clone(),
        expires_at: update.expires.map(|expiry| expiry.0),
        leak_action: update.action_if_leaked,
        class: update.class,
        homes,
        executor: update.executor.clone(),
        remote_id: update.remote_id.clone(),
    };
    change(&update.key, |tx, key, why| {
        tx.update_key(key, &wanted, update.if_version, why, clock::now())
    })
}

/// How a key is succeeded.
pub(super) struct Rotation<'a> {
    pub(super) key: &'a str,
    pub(super) overlap: Duration,
    pub(super) expires: Option<Expiry>,
    pub(super) reason: &'a str,
}

pub(super) fn rotate(
    session: &mut Session,
    rotation: &Rotation<'_>,
    made: &cli::Made,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let (old, prefix) = registry.read(|tx| {
        let key = tx.find_key(rotation.key, caller)?;
        let prefix = tx.account(&key.account_id)?.key_prefix;
        Ok((key, prefix))
    })?;
    let (fresh, material) = Fresh::generate(made, &prefix, old.kind)?;
    let now = clock::now();
    let key = fresh.keep(|| {
        registry.write(|tx| {
            let end = retire(tx, &old, rotation, caller, now)?;
            let homes: Vec<String> = old.homes.iter().map(|home| home.glob.clone()).collect();
            let new = NewKey {
                name: &old.name,
                description: &old.description,
                owner: &old.identity_id,
                kind: old.kind,
                class: old.class,
                service: &old.service,
                leak_action: old.leak_action,
                locked: false,
                expires_at: rotation.expires.map_or_else(|| end_of_successor(&old, now), |it| it.0),
                homes: &homes,
                executor: Key::OWN_EXECUTOR,
                arrival: Arrival::Created,
                origin: "",
                remote_id: None,
                import: None,
                replaces: Some(&old.id),
                hint: &fresh.hint,
            };
            let account = Caller { account: Some(old.account_id.clone()), ..caller.clone() };
            let key = tx.key(&tx.add_key(&new, &material, &account, now)?.id)?;
            output::note(&format!("{} ({}) is valid until {end}", old.name, old.id));
            Ok(key)
        })
    })?;
    fresh.answer(&key, format)
}

/// When nobody said otherwise, a successor lives for as long as the old key was made for.
fn end_of_successor(old: &Key, now: Timestamp) -> Option<Timestamp> {
    let span = old.expires_at?.duration_since(old.created_at);
    now.checked_add(span).ok()
}

/// The old key gets another name and an end.
fn retire(
    tx: &Tx<'_>,
    old: &Key,
    rotation: &Rotation<'_>,
    caller: &Caller,
    now: Timestamp,
) -> Result<String> {
    if old.kind == KeyKind::Classic {
        let why = "a classic infrastructure key cannot expire, and a user has one only: delete it \
                   and make another";
        return Err(RegistryError::Refused(why.to_owned()));
    }
    let end = now.checked_add(rotation.overlap).map_err(|_| {
        RegistryError::Refused("the overlap is longer than time goes on".to_owned())
    })?;
    let end = old.expires_at.map_or(end, |earlier| earlier.min(end));
    let date = now.strftime("%Y-%m-%d");
    let update = KeyUpdate {
        name: Some(format!("{} (replaced {date})", old.name)),
        expires_at: Some(Some(end)),
        ..KeyUpdate::default()
    };
    let reason = if rotation.reason.is_empty() { "rotated" } else { rotation.reason };
    tx.update_key(old, &update, None, (caller, reason), now)?;
    Ok(clock::display(end))
}
