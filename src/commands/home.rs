//! `leakwarden home`: files where keys are meant to be.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{Exit, Session, output};
use crate::cli::{Home, ListFormat, Scope};
use crate::clock::{self, display, rfc3339};
use crate::registry::home::HomeOf;
use crate::registry::{RegistryError, key};
use crate::text::plural;

pub(super) fn run(command: &Home) -> anyhow::Result<Exit> {
    match command {
        Home::Suggest { key, scope, format } => suggest(key.as_deref(), scope, format.format),
        Home::Accept { glob, key, owner, all_keys, host, reason, scope, format } => {
            let of = Of { key: key.as_deref(), owner: owner.as_deref(), all: *all_keys };
            let home = key::Home { host: host.clone(), glob: absolute(glob)? };
            accept(&of, &home, reason, scope, format.format)
        }
        Home::List { key, scope, format } => list(key.as_deref(), scope, format.format),
        Home::Remove { home, reason, scope, format } => {
            let Session { mut registry, caller } = Session::open(scope)?;
            let gone =
                registry.write(|tx| tx.remove_home(*home, (&caller, reason), clock::now()))?;
            let text = format!("{gone} is no home any more");
            let value = json!({ "number": home, "glob": gone.glob, "host": gone.host });
            output::answer(format.format, &text, &value)?;
            Ok(Exit::Clean)
        }
    }
}

/// A glob that does not depend on where the command was given.
pub(super) fn absolute(glob: &str) -> anyhow::Result<String> {
    if glob.starts_with("**") || glob.starts_with('/') {
        return Ok(glob.to_owned());
    }
    ensure!(!glob.is_empty(), "a home is empty: every file below the current folder would be one");
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    Ok(crate::source::follow::absolute_home(&here, glob))
}

/// Whose home it is to be.
struct Of<'a> {
    key: Option<&'a str>,
    owner: Option<&'a str>,
    all: bool,
}

fn accept(
    of: &Of<'_>,
    home: &key::Home,
    reason: &str,
    scope: &Scope,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let changed = registry.write(|tx| {
        let (why, now) = ((&caller, reason), clock::now());
        if let Some(key) = of.key {
            let key = tx.find_key(key, &caller)?;
            return tx.add_home(HomeOf::Key(&key), home, why, now);
        }
        let account = tx.one_account(&caller)?;
        if let Some(owner) = of.owner {
            let owner = tx.visible_identity(&account.id, owner, &caller)?;
            return tx.add_home(HomeOf::Identity(&owner), home, why, now);
        }
        if of.all {
            return tx.add_home(HomeOf::Account(&account.id), home, why, now);
        }
        let why = "say whose home it is: --key, --owner or --all-keys".to_owned();
        Err(RegistryError::Refused(why))
    })?;
    if !changed {
        output::note("it was one already; nothing was changed");
    }
    let value = json!({ "glob": home.glob, "host": home.host, "changed": changed });
    output::answer(format, &format!("{home} is a home now"), &value)?;
    Ok(Exit::Clean)
}

fn list(key: Option<&str>, scope: &Scope, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let homes = registry.read(|tx| {
        let key = key.map(|key| tx.find_key(key, &caller)).transpose()?;
        tx.homes(key.as_ref(), &caller)
    })?;
    match format {
        ListFormat::Json => {
            let homes: Vec<_> = homes
                .iter()
                .map(|row| {
                    json!({
                        "number": row.id,
                        "glob": row.home.glob,
                        "host": row.home.host,
                        "key": row.key.as_ref().map(|(name, id)| json!({ "id": id, "name": name })),
                        "owner": row.identity.as_ref().map(|(name, _)| name),
                        "created_at": rfc3339(row.created_at),
                        "created_by": row.created_by,
                    })
                })
                .collect();
            output::json(&json!({ "homes": homes }))?;
        }
        ListFormat::Text => {
            let mut text = String::new();
            for row in &homes {
                let whose = match (&row.key, &row.identity) {
                    (Some((name, _)), _) => format!("of {name}"),
                    (None, Some((owner, _))) => format!("of all keys of {owner}"),
                    (None, None) => "of all keys".to_owned(),
                };
                let (at, by) = (display(row.created_at), &row.created_by);
                writeln!(text, "{:<4} {}  {whose}, since {at} by {by}", row.id, row.home)?;
            }
            if homes.is_empty() {
                text.push_str("no homes; `home suggest` lists files in which keys were seen\n");
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

fn suggest(key: Option<&str>, scope: &Scope, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let seen = registry.read(|tx| {
        let key = key.map(|key| tx.find_key(key, &caller)).transpose()?;
        tx.home_suggestions(key.as_ref(), &caller)
    })?;
    match format {
        ListFormat::Json => {
            let seen: Vec<_> = seen
                .iter()
                .map(|one| {
                    json!({
                        "key": { "id": one.key_id, "name": one.key },
                        "glob": globset::escape(&one.path),
                        "host": one.host,
                        "count": one.count,
                        "leak": format!("leak-{}", one.incident),
                    })
                })
                .collect();
            output::json(&json!({ "suggestions": seen }))?;
        }
        ListFormat::Text => {
            let mut text = String::new();
            for one in &seen {
                let glob = globset::escape(&one.path);
                let times = plural(one.count, "time");
                let leak = one.incident;
                writeln!(
                    text,
                    "{}  {glob} on {}  seen {times}, leak-{leak}\n    leakwarden home accept '{}' --key {}",
                    one.key,
                    one.host,
                    glob.replace('\'', r"'\''"),
                    one.key_id
                )?;
            }
            if seen.is_empty() {
                text.push_str("nothing to suggest: no open leak was seen in a file\n");
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}
