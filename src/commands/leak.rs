//! `leakwarden leak`: what was seen, what was done, what waits.

use serde_json::json;

use super::{Exit, actor, open, output};
use crate::cli::{Leak, ListFormat};
use crate::clock;
use crate::registry::Registry;
use crate::review;

pub(super) fn run(command: &Leak) -> anyhow::Result<Exit> {
    match command {
        Leak::List { all, registry, format } => list(&mut open(registry)?, *all, format.format),
        Leak::Show { leak, registry, format } => show(&mut open(registry)?, leak, format.format),
        Leak::Approve { leaks, all, reason, registry } => {
            approve(&mut open(registry)?, leaks, *all, reason)
        }
        Leak::Resolve { leak, how, reason, registry } => {
            let id = open(registry)?.write(|tx| {
                let id = tx.find_incident(leak)?;
                tx.resolve(id, how, &actor(), reason, clock::now())?;
                Ok(id)
            })?;
            output::print(&format!("leak-{id} resolved as {how}\n"))?;
            Ok(Exit::Clean)
        }
    }
}

fn list(registry: &mut Registry, all: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let incidents = registry.read(|tx| {
        let ids = tx.incident_ids(all)?;
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

fn show(registry: &mut Registry, leak: &str, format: ListFormat) -> anyhow::Result<Exit> {
    let incident = registry.read(|tx| tx.incident(tx.find_incident(leak)?))?;
    let now = clock::now();
    match format {
        ListFormat::Json => output::json(&review::incident_json(&incident, now))?,
        ListFormat::Text => output::print(&review::show_text(&incident, now))?,
    }
    Ok(Exit::Clean)
}

fn approve(
    registry: &mut Registry,
    leaks: &[String],
    all: bool,
    reason: &str,
) -> anyhow::Result<Exit> {
    let released = registry.write(|tx| {
        let ids = if all {
            tx.incident_ids(false)?
        } else {
            leaks.iter().map(|leak| tx.find_incident(leak)).collect::<Result<_, _>>()?
        };
        let mut released = Vec::new();
        for id in ids {
            if tx.approve(id, &actor(), reason, clock::now())? > 0 {
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
        "released {}; a running `watch` carries it out\n",
        released.join(", ")
    ))?;
    Ok(Exit::Clean)
}
