//! `leakwarden audit`: what was changed, by whom, and whether the log of it is whole.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Exit, Session, output};
use crate::cli::{Audit, ListFormat, Scope};
use crate::clock::{display, rfc3339};
use crate::registry::RegistryError;
use crate::registry::audit::{AuditRow, Head, Verified};
use crate::text::plural;

pub(super) fn run(command: &Audit) -> anyhow::Result<Exit> {
    match command {
        Audit::Show { about, limit, scope, format } => {
            show(about.as_deref(), *limit, scope, format.format)
        }
        Audit::Verify { heads, scope, format } => verify(heads.as_deref(), scope, format.format),
    }
}

fn show(
    about: Option<&str>,
    limit: u32,
    scope: &Scope,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let rows = registry.read(|tx| {
        caller.must_administer("read the audit log")?;
        let target = match about {
            None => None,
            Some(text) => Some(target(tx, text, &caller)?),
        };
        tx.audit_rows(target.as_deref(), limit, &caller)
    })?;
    match format {
        ListFormat::Json => {
            let rows: Vec<Value> = rows.iter().map(row_json).collect();
            output::json(&json!({ "rows": rows }))?;
        }
        ListFormat::Text => output::print(&rows_text(&rows)?)?,
    }
    Ok(Exit::Clean)
}

/// The id of what is meant: a key, an identity, a leak.
fn target(
    tx: &crate::registry::Tx<'_>,
    text: &str,
    caller: &crate::registry::access::Caller,
) -> crate::registry::Result<String> {
    if text.starts_with("leak-") {
        return tx.find_incident(text, caller).map(|id| id.to_string());
    }
    match tx.find_key(text, caller) {
        Ok(key) => Ok(key.id),
        Err(RegistryError::NotFound(_)) => {
            let account = tx.one_account(caller)?;
            let found = tx.identity_named(&account.id, text)?;
            found.map(|identity| identity.id).ok_or_else(|| {
                let shown = crate::text::clean(text.as_bytes());
                RegistryError::NotFound(format!("no key, identity or leak named `{shown}`"))
            })
        }
        Err(other) => Err(other),
    }
}

pub(super) fn row_json(row: &AuditRow) -> Value {
    json!({
        "row": row.seq,
        "at": rfc3339(row.at),
        "actor": row.actor,
        "action": row.action,
        "target": row.target,
        "before": row.before,
        "after": row.after,
        "reason": row.reason,
    })
}

pub(super) fn rows_text(rows: &[AuditRow]) -> anyhow::Result<String> {
    let mut text = String::new();
    for row in rows {
        let change = match (row.before.as_str(), row.after.as_str()) {
            ("", "") => String::new(),
            ("", after) => format!(": {after}"),
            (before, "") => format!(": was {before}"),
            (before, after) => format!(": {before} → {after}"),
        };
        let why = if row.reason.is_empty() { String::new() } else { format!(" ({})", row.reason) };
        let at = display(row.at);
        writeln!(text, "{at}  {}  {}{change}{why}  {}", row.actor, row.action, row.target)?;
    }
    Ok(text)
}

fn verify(heads: Option<&Path>, scope: &Scope, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let heads = heads.map(read_heads).transpose()?.unwrap_or_default();
    let Verified { rows, heads, head, faults } = registry.read(|tx| {
        caller.must_administer("check the audit log")?;
        tx.audit_verify(&heads)
    })?;
    match format {
        ListFormat::Json => output::json(&json!({
            "whole": faults.is_empty(),
            "rows": rows,
            "heads": heads,
            "head": head.as_ref().map(|head| json!({ "row": head.seq, "hash": head.hash })),
            "faults": faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))?,
        ListFormat::Text => {
            let mut text = String::new();
            for fault in &faults {
                writeln!(text, "{fault}")?;
            }
            let compared = match heads {
                0 => String::new(),
                count => format!(", compared with {} kept elsewhere", plural(count, "head")),
            };
            let verdict = if faults.is_empty() { "whole" } else { "NOT whole" };
            writeln!(text, "the audit log is {verdict}: {}{compared}", plural(rows, "row"))?;
            if let Some(head) = head {
                writeln!(text, "{head}")?;
            }
            output::print(&text)?;
        }
    }
    Ok(if faults.is_empty() { Exit::Clean } else { Exit::Found })
}

/// The heads in a file: what else stands there does not matter.
fn read_heads(path: &Path) -> anyhow::Result<Vec<Head>> {
    let shown = path.display();
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).with_context(|| format!("cannot read {shown}"))?),
    };
    let mut heads = Vec::new();
    for line in BufReader::new(input).split(b'\n') {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        heads.extend(Head::find(&String::from_utf8_lossy(&line)));
    }
    if heads.is_empty() {
        anyhow::bail!("{shown} holds no line with `audit head NUMBER:HASH`");
    }
    Ok(heads)
}
