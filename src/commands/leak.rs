//! `leakwarden leak`: what was seen, what was done, what waits.

use std::fmt::Write as _;

use serde_json::json;

use super::{Exit, Session, key, output};
use crate::cli::{Leak, ListFormat};
use crate::clock;
use crate::registry::access::Act;
use crate::review;
use crate::text::plural;

pub(super) fn run(command: &Leak) -> anyhow::Result<Exit> {
    match command {
        Leak::List { all, scope, format } => list(&mut Session::open(scope)?, *all, format.format),
        Leak::Show { leak, scope, format } => show(&mut Session::open(scope)?, leak, format.format),
        Leak::Approve { leaks, all, reason, scope } => {
            approve(&mut Session::open(scope)?, leaks, *all, reason)
        }
        Leak::Check { scope, format } => check(&mut Session::open(scope)?, format.format),
        Leak::Resolve { leak, how, reason, by, account, registry } => {
            let Session { mut registry, caller } =
                Session::of(registry, by.as_deref(), account.as_deref())?;
            let id = registry.write(|tx| {
                let id = tx.find_incident(leak, &caller)?;
                tx.resolve(id, how, &caller, reason, clock::now())?;
                Ok(id)
            })?;
            output::print(&format!("leak-{id} resolved as {how}\n"))?;
            Ok(Exit::Clean)
        }
    }
}

fn list(session: &mut Session, all: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let incidents = registry.read(|tx| {
        let ids = tx.incident_ids(all, caller)?;
        ids.into_iter().map(|id| tx.incident(id)).collect::<Result<Vec<_>, _>>()
    })?;
    let now = clock::now();
    match format {
        ListFormat::Json => {
            let incidents: Vec<_> =
                incidents.iter().map(|incident| review::incident_json(incident, now)).collect();
            output::json(&json!({ "incidents": incidents }))?;
        }
        ListFormat::Text => output::print(&review::list_text(&incidents, now))?,
    }
    Ok(Exit::Clean)
}

fn show(session: &mut Session, leak: &str, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let incident = registry.read(|tx| tx.incident(tx.find_incident(leak, caller)?))?;
    let now = clock::now();
    match format {
        ListFormat::Json => output::json(&review::incident_json(&incident, now))?,
        ListFormat::Text => output::print(&review::show_text(&incident, now))?,
    }
    Ok(Exit::Clean)
}

/// Whether the key on standard input was ever seen, as somebody's key or before it was anybody's.
fn check(session: &mut Session, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let secret = key::from_stdin()?;
    let (known, places, memory) = registry.read(|tx| {
        let digest = tx.keyring().digest(secret.expose());
        let known = tx.key_by_digest(&digest)?;
        let known = known.filter(|key| caller.may(Act::View, &key.whose()).is_ok());
        let places = tx.places_of(known.as_ref(), &digest)?;
        Ok((known, places, tx.memory()?))
    })?;
    let now = clock::now();
    match format {
        ListFormat::Json => output::json(&json!({
            "seen": !places.is_empty(),
            "key": known.as_ref().map(|key| key::key_json(key, now)),
            "places": places.iter().map(|seen| {
                let mut place = review::place_json(&seen.place);
                if let Some(fields) = place.as_object_mut() {
                    let leak = json!(seen.incident.map(|id| format!("leak-{id}")));
                    fields.insert("leak".to_owned(), leak);
                }
                place
            }).collect::<Vec<_>>(),
            "remembered": memory.kept,
            "forgotten": memory.evicted,
        }))?,
        ListFormat::Text => {
            let whose = known.as_ref().map_or_else(
                || "nobody's key".to_owned(),
                |key| format!("{} ({}), owner {}", key.name, key.id, key.owner),
            );
            let mut text = match places.len() as u64 {
                0 => format!("never seen; {whose}\n"),
                count => format!("seen in {}; {whose}\n", plural(count, "place")),
            };
            for seen in &places {
                let leak = seen.incident.map_or_else(
                    || "before it was registered".to_owned(),
                    |id| format!("leak-{id}"),
                );
                writeln!(text, "  {}, {leak}", review::place_text(&seen.place))?;
            }
            if memory.evicted > 0 && places.is_empty() {
                let forgotten = plural(memory.evicted, "place");
                writeln!(text, "  {forgotten} of unregistered keys had to be forgotten")?;
            }
            output::print(&text)?;
        }
    }
    Ok(if places.is_empty() { Exit::Clean } else { Exit::Found })
}

fn approve(
    session: &mut Session,
    leaks: &[String],
    all: bool,
    reason: &str,
) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let released = registry.write(|tx| {
        let ids = if all {
            tx.incident_ids(false, caller)?
        } else {
            leaks.iter().map(|leak| tx.find_incident(leak, caller)).collect::<Result<_, _>>()?
        };
        let mut released = Vec::new();
        for id in ids {
            if tx.approve(id, caller, reason, clock::now())? > 0 {
                released.push(format!("leak-{id}"));
            }
        }
        Ok(released)
    })?;
    if released.is_empty() {
        output::note("nothing of that is held");
        return Ok(Exit::Found);
    }
    output::print(&format!(
        "released {}; a running `watch`, or the next `scan --respond`, carries it out\n",
        released.join(", ")
    ))?;
    Ok(Exit::Clean)
}
