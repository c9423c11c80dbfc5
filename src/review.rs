//! Incidents for those who look at them: text and JSON.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::{display, rfc3339};
use crate::incident::ActionState;
use crate::ledger::{Incident, SightingRow};
use crate::registry::key::Key;

/// What was, or is to be, done about an incident.
struct Summary<'a> {
    kind: &'static str,
    result: &'static str,
    why: &'a str,
    at: Option<Timestamp>,
}

fn summary(incident: &Incident) -> Summary<'_> {
    // Of disable and delete, the last says how far it went; a failure or a hold says more.
    let telling = incident
        .actions
        .iter()
        .find(|action| action.state == ActionState::Failed)
        .or_else(|| incident.actions.iter().find(|action| action.state != ActionState::Done))
        .or_else(|| incident.actions.last());
    let kind = incident.actions.last().map_or("none", |action| action.kind.as_str());
    let Some(action) = telling else {
        return Summary { kind, result: "none", why: "", at: None };
    };
    let result = match action.state {
        ActionState::Due => "pending",
        other => other.as_str(),
    };
    Summary { kind, result, why: &action.why, at: action.finished_at }
}

/// Whether some of its actions wait for an approval.
#[must_use]
pub fn is_held(incident: &Incident) -> bool {
    incident.actions.iter().any(|action| action.state == ActionState::Held)
}

/// Whether something of it is still to be done or told.
#[must_use]
pub fn is_due(incident: &Incident) -> bool {
    incident.actions.iter().any(|action| action.state == ActionState::Due)
        || incident.notices.iter().any(|notice| notice.state == "due")
}

fn key_json(key: &Key, now: Timestamp) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "state": key.status(now).as_str(),
        "leak_action": key.leak_action.as_str(),
        "hint": key.hint,
    })
}

/// One place as the contract has it.
#[must_use]
pub fn place_json(seen: &SightingRow) -> Value {
    json!({
        "source": seen.source, "path": seen.path, "line": seen.line, "column": seen.column,
        "commit": seen.commit, "host": seen.host, "seen_at": rfc3339(seen.seen_at),
    })
}

/// One place in a line: `src/a.txt:3:7 (blob on web1, commit 0123456789ab), 2026-11-21 …`.
#[must_use]
pub fn place_text(seen: &SightingRow) -> String {
    let place = format!("{}:{}", seen.line, seen.column);
    format!("{}, {}", seen.described(&place), display(seen.seen_at))
}

/// One incident as the contract has it, with notices and timeline beside.
#[must_use]
pub fn incident_json(incident: &Incident, now: Timestamp) -> Value {
    let Summary { kind, result, why, at } = summary(incident);
    json!({
        "id": format!("leak-{}", incident.id),
        "key": key_json(&incident.key, now),
        "state": if incident.open { "open" } else { "resolved" },
        "resolution": incident.resolution,
        "observed": incident.observed,
        "action": { "kind": kind, "result": result, "at": at.map(rfc3339), "why": why },
        "actions": incident.actions.iter().map(|a| json!({
            "kind": a.kind.as_str(), "result": a.state.as_str(), "why": a.why,
            "due_at": rfc3339(a.due_at), "at": a.finished_at.map(rfc3339),
        })).collect::<Vec<_>>(),
        "sightings": incident.sightings.iter().map(place_json).collect::<Vec<_>>(),
        "notices": incident.notices.iter().map(|n| json!({
            "kind": n.kind.as_str(), "to": n.recipient, "as": n.role.as_str(), "state": n.state,
            "why": n.why, "attempts": n.attempts, "at": n.finished_at.map(rfc3339),
        })).collect::<Vec<_>>(),
        "timeline": incident.timeline.iter().map(|t| json!({
            "at": rfc3339(t.at), "what": t.what,
        })).collect::<Vec<_>>(),
        "count": incident.count,
        "first_seen": rfc3339(incident.first_seen),
        "last_seen": rfc3339(incident.last_seen),
    })
}

/// `leak list`: two lines an incident.
#[must_use]
pub fn list_text(incidents: &[Incident], now: Timestamp) -> String {
    if incidents.is_empty() {
        return "no open leaks\n".to_owned();
    }
    let mut out = String::new();
    for incident in incidents {
        let Summary { kind, result, .. } = summary(incident);
        let state = if incident.open { "open" } else { "resolved" };
        let key = &incident.key;
        writeln!(
            out,
            "leak-{:<4} {state:<8} {}  {}, owner {}\n          {kind}: {result}; seen {} since {}, first in {}",
            incident.id,
            key.name,
            key.status(now),
            key.owner,
            crate::text::plural(incident.count, "time"),
            display(incident.first_seen),
            incident.sightings.first().map_or_else(String::new, |s| format!("{}:{}", s.path, s.line)),
        )
        .unwrap_or_default();
    }
    out
}

/// `leak show`: everything about one incident.
#[must_use]
pub fn show_text(incident: &Incident, now: Timestamp) -> String {
    let mut out = String::new();
    let key = &incident.key;
    let state = match &incident.resolution {
        Some(resolution) => format!("resolved as {resolution}"),
        None if incident.observed => "open (opened in observe mode)".to_owned(),
        None => "open".to_owned(),
    };
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("leak-{}: {state}", incident.id));
    line(format!("key       {} {} ({})", key.name, key.hint, key.id));
    line(format!("          {}{}", key.status(now), if key.locked { ", locked" } else { "" }));
    line(format!("owner     {}", key.owner));
    line(format!("on leak   {}", key.leak_action));
    line(format!("seen      {} in:", crate::text::plural(incident.count, "time")));
    for seen in &incident.sightings {
        line(format!("          {}", place_text(seen)));
    }
    for action in &incident.actions {
        let why = if action.why.is_empty() { String::new() } else { format!(": {}", action.why) };
        line(format!("action    {} {}{why}", action.kind, action.state));
    }
    if is_held(incident) {
        line(format!("          release it with `leakwarden leak approve leak-{}`", incident.id));
    }
    for notice in &incident.notices {
        let why = if notice.why.is_empty() { String::new() } else { format!(": {}", notice.why) };
        line(format!(
            "notice    {} to {} ({}) {}{why}",
            notice.kind, notice.recipient, notice.role, notice.state
        ));
    }
    line("timeline".to_owned());
    for row in &incident.timeline {
        line(format!("          {}  {}", display(row.at), row.what));
    }
    out
}
