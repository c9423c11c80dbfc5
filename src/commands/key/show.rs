//! What is known of keys: `list`, `show`, `export`, `verify`.

use std::fmt::Write as _;
use std::io::{self, BufRead, Read as _, Write};
use std::ops::ControlFlow;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::{Exit, Session, audit, output};
use super::{from_stdin, without_newline};
use crate::cli::{KeyArg, ListFormat, Listed};
use crate::clock::{self, display, rfc3339};
use crate::registry::access::{Act, Caller};
use crate::registry::audit::AuditRow;
use crate::registry::key::{Key, Status};
use crate::registry::{Filter, Registry, Result, Tx};
use crate::shape::KEY_MAX;

/// Keys that are looked up in one transaction.
const VERIFY_BATCH: usize = 1_000;
/// Rows of history that are shown.
const HISTORY_MAX: u32 = 200;

fn filter(tx: &Tx<'_>, list: &Listed, caller: &Caller, now: Timestamp) -> Result<Filter> {
    let identity = match &list.owner {
        None => None,
        Some(owner) => {
            let account = tx.one_account(caller)?;
            Some(tx.visible_identity(&account.id, owner, caller)?.id)
        }
    };
    Ok(Filter {
        with_deleted: list.all,
        view: list.view,
        status: list.state,
        identity,
        class: list.class,
        leak_action: list.action_if_leaked,
        leaked: list.leaked,
        expires_before: list.expires_within.map(|span| now.checked_add(span).unwrap_or(now)),
        origin: list.source.clone(),
    })
}

/// Writes each key of a list as it is read: there may be millions. Answers how many there were.
fn each(
    list: &Listed,
    out: &mut dyn Write,
    write: &mut dyn FnMut(&mut dyn Write, u64, &Key) -> io::Result<()>,
) -> anyhow::Result<u64> {
    let Session { mut registry, caller } = Session::open(&list.scope)?;
    let now = clock::now();
    let mut count = 0;
    let mut outcome = Ok(());
    registry.read(|tx| {
        let filter = filter(tx, list, &caller, now)?;
        tx.each_key(&filter, &caller, now, &mut |key| {
            outcome = write(out, count, key);
            count += 1;
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    })?;
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the list")
        }
        _ => Ok(count),
    }
}

/// Runs with standard output, and hands on what went wrong beside writing.
fn streamed(work: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<Exit> {
    let mut outcome = Ok(());
    output::to_stdout(|out| {
        outcome = work(out);
        Ok(())
    })?;
    outcome.map(|()| Exit::Clean)
}

pub(super) fn list(list: &Listed, format: ListFormat) -> anyhow::Result<Exit> {
    let now = clock::now();
    streamed(|out| match format {
        ListFormat::Json => {
            write!(out, "{{\n  \"keys\": [")?;
            let count = each(list, out, &mut |out, count, key| {
                let comma = if count == 0 { "" } else { "," };
                write!(out, "{comma}\n    {}", key_json(key, now))
            })?;
            writeln!(out, "{}]\n}}", if count == 0 { "" } else { "\n  " })?;
            Ok(())
        }
        ListFormat::Text => {
            let count = each(list, out, &mut |out, _, key| {
                let locked = if key.locked { " locked" } else { "" };
                let leaked = if key.leaked_at.is_some() { " LEAKED" } else { "" };
                writeln!(
                    out,
                    "{:<24} {:<9}{locked}{leaked} {}  {}  on leak: {}  {}",
                    key.name,
                    key.status(now),
                    key.hint,
                    key.owner,
                    key.leak_action,
                    key.id
                )
            })?;
            if count == 0 {
                writeln!(out, "no keys; make one with `leakwarden key create NAME`")?;
            }
            Ok(())
        }
    })
}

/// The columns of an export; those that an import reads have the same names there.
const COLUMNS: [&str; 23] = [
    "id",
    "name",
    "description",
    "kind",
    "class",
    "owner",
    "identity",
    "service",
    "state",
    "locked",
    "leak_action",
    "executor",
    "hint",
    "homes",
    "source",
    "import_source",
    "remote_id",
    "expires_at",
    "created_at",
    "modified_at",
    "leaked_at",
    "last_used_at",
    "use_count",
];

pub(super) fn export(list: &Listed, csv: bool) -> anyhow::Result<Exit> {
    let now = clock::now();
    streamed(|out| {
        if !csv {
            each(list, out, &mut |out, _, key| writeln!(out, "{}", key_json(key, now)))?;
            return Ok(());
        }
        let row = |fields: &[String]| -> io::Result<Vec<u8>> {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(fields)?;
            writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
        };
        out.write_all(&row(&COLUMNS.map(str::to_owned))?)?;
        each(list, out, &mut |out, _, key| {
            let values = key_json(key, now);
            let fields: Vec<String> = COLUMNS
                .iter()
                .map(|name| values.get(*name).map(cell).unwrap_or_default())
                .collect();
            out.write_all(&row(&fields)?)
        })?;
        Ok(())
    })
}

/// One value as a cell. One that a spreadsheet would take for a formula is quoted.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text }
}

pub(super) fn show(argument: &KeyArg) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(&argument.scope)?;
    let (key, history) = registry.read(|tx| {
        let key = tx.find_key(&argument.key, &caller)?;
        // Whoever sees the key sees what became of it.
        let anybody = Caller::operator(&caller.actor);
        let history = tx.audit_rows(Some(&key.id), HISTORY_MAX, &anybody)?;
        Ok((key, history))
    })?;
    match argument.format.format {
        ListFormat::Json => {
            let mut answer = key_json(&key, clock::now());
            let rows: Vec<Value> = history.iter().map(audit::row_json).collect();
            if let Some(fields) = answer.as_object_mut() {
                fields.insert("history".to_owned(), Value::Array(rows));
            }
            output::json(&answer)?;
        }
        ListFormat::Text => {
            let history = history_text(&history)?;
            output::print(&format!("{}history\n{history}", key_text(&key, clock::now())))?;
        }
    }
    Ok(Exit::Clean)
}

fn history_text(history: &[AuditRow]) -> anyhow::Result<String> {
    let text = audit::rows_text(history)?;
    Ok(text.lines().fold(String::new(), |mut out, line| {
        let line = line.rsplit_once("  ").map_or(line, |(line, _target)| line);
        out.push_str("             ");
        out.push_str(line);
        out.push('\n');
        out
    }))
}

pub(super) fn answer(key: &Key, format: ListFormat) -> anyhow::Result<Exit> {
    match format {
        ListFormat::Json => output::json(&key_json(key, clock::now()))?,
        ListFormat::Text => output::print(&key_text(key, clock::now()))?,
    }
    Ok(Exit::Clean)
}

/// What the registry says of one text.
struct Verdict {
    key: Option<Key>,
    status: Option<Status>,
}

impl Verdict {
    fn of(tx: &Tx<'_>, caller: &Caller, text: &[u8], now: Timestamp) -> Result<Self> {
        let digest = tx.keyring().digest(text);
        let key = tx.key_by_digest(&digest)?;
        // A key proves itself: within its account, everybody may ask whether it is valid.
        let key = key.filter(|key| caller.sees_account(&key.account_id));
        let status = key.as_ref().map(|key| key.status(now));
        Ok(Self { key, status })
    }

    fn word(&self) -> &'static str {
        self.status.map_or("unknown", Status::as_str)
    }

    fn text(&self, caller: &Caller) -> String {
        match &self.key {
            Some(key) if caller.may(Act::View, &key.whose()).is_ok() => {
                format!("{}  {} ({}), owner {}", self.word(), key.name, key.id, key.owner)
            }
            _ => self.word().to_owned(),
        }
    }

    fn json(&self, caller: &Caller, now: Timestamp) -> Value {
        let seen = self.key.as_ref().filter(|key| caller.may(Act::View, &key.whose()).is_ok());
        json!({ "status": self.word(), "key": seen.map(|key| key_json(key, now)) })
    }
}

/// Of the log, which counts of uses wait in.
const LOG_LEFT_BYTES: u64 = 64 * 1024;

pub(super) fn verify(
    mut session: Session,
    many: bool,
    count: bool,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let verify = if many { verify_many } else { verify_one };
    let exit = verify(&mut session, count, format)?;
    session.registry.leave(LOG_LEFT_BYTES);
    Ok(exit)
}

fn verify_one(session: &mut Session, count: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let secret = from_stdin()?;
    if secret.expose().contains(&b'\n') {
        anyhow::bail!("several lines on standard input; `--many` reads a key a line");
    }
    let now = clock::now();
    let verdict = registry.read(|tx| Verdict::of(tx, caller, secret.expose(), now))?;
    match format {
        ListFormat::Json => output::json(&verdict.json(caller, now))?,
        ListFormat::Text => output::print(&format!("{}\n", verdict.text(caller)))?,
    }
    let valid = verdict.status == Some(Status::Active);
    if count {
        count_uses(registry, &[verdict], now);
    }
    Ok(if valid { Exit::Clean } else { Exit::Found })
}

/// The answer is what matters: that a use cannot be counted, because somebody writes or nothing can
/// be written, is no reason to keep it back.
fn count_uses(registry: &mut Registry, verdicts: &[Verdict], now: Timestamp) {
    let valid = verdicts.iter().filter(|one| one.status == Some(Status::Active));
    let ids: Vec<String> =
        valid.filter_map(|one| one.key.as_ref()).map(|key| key.id.clone()).collect();
    if !ids.is_empty() && registry.hasten().is_ok() {
        let _counted = registry.write(|tx| tx.count_uses(&ids, now)).is_ok();
    }
}

fn verify_many(session: &mut Session, count: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let mut input = io::stdin().lock();
    let (mut number, mut all) = (0u64, true);
    loop {
        let lines = read_lines(&mut input)?;
        if lines.is_empty() {
            break;
        }
        let now = clock::now();
        let verdicts = registry.read(|tx| {
            lines.iter().map(|line| Verdict::of(tx, caller, line, now)).collect::<Result<Vec<_>>>()
        })?;
        let mut text = String::new();
        for verdict in &verdicts {
            number += 1;
            match format {
                ListFormat::Text => writeln!(text, "{}", verdict.text(caller))?,
                ListFormat::Json => {
                    let mut answer = verdict.json(caller, now);
                    if let Some(fields) = answer.as_object_mut() {
                        fields.insert("line".to_owned(), json!(number));
                    }
                    writeln!(text, "{answer}")?;
                }
            }
            all &= verdict.status == Some(Status::Active);
        }
        output::print(&text)?;
        if count {
            count_uses(registry, &verdicts, now);
        }
    }
    if number == 0 {
        anyhow::bail!("no key on standard input; `--many` reads one a line");
    }
    Ok(if all { Exit::Clean } else { Exit::Found })
}

/// Some lines; a line that is longer than every key is cut, and so unknown.
fn read_lines(input: &mut dyn BufRead) -> anyhow::Result<Vec<Zeroizing<Vec<u8>>>> {
    let mut lines = Vec::new();
    while lines.len() < VERIFY_BATCH {
        let mut line = Zeroizing::new(Vec::with_capacity(KEY_MAX + 2));
        let read = input
            .take(KEY_MAX as u64 + 2)
            .read_until(b'\n', &mut line)
            .context("cannot read standard input")?;
        if read == 0 {
            break;
        }
        if !line.ends_with(b"\n") && read > KEY_MAX {
            input.skip_until(b'\n').context("cannot read standard input")?;
        }
        let key = Zeroizing::new(without_newline(&line).to_vec());
        lines.push(key);
    }
    Ok(lines)
}

pub(in crate::commands) fn key_json(key: &Key, now: Timestamp) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "description": key.description,
        "kind": key.kind.as_str(),
        "class": key.class.as_str(),
        "owner": key.owner,
        "identity": key.identity,
        "identity_id": key.identity_id,
        "account_id": key.account_id,
        "service": key.service,
        "state": key.status(now).as_str(),
        "locked": key.locked,
        "leak_action": key.leak_action.as_str(),
        "executor": key.executor,
        "hint": key.hint,
        "homes": key.homes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "source": key.arrival.as_str(),
        "import_source": key.origin,
        "remote_id": key.remote_id,
        "replaces": key.replaces,
        "expires_at": key.expires_at.map(rfc3339),
        "created_at": rfc3339(key.created_at),
        "created_by": key.created_by,
        "modified_at": rfc3339(key.modified_at),
        "modified_by": key.modified_by,
        "leaked_at": key.leaked_at.map(rfc3339),
        "last_used_at": key.last_used_at.map(rfc3339),
        "use_count": key.use_count,
        "version": key.version,
    })
}

pub(super) fn key_text(key: &Key, now: Timestamp) -> String {
    let when = |time: Option<Timestamp>| time.map_or_else(|| "never".to_owned(), display);
    let locked = if key.locked { ", locked" } else { "" };
    let homes: Vec<String> = key.homes.iter().map(ToString::to_string).collect();
    let homes = if homes.is_empty() { "none".to_owned() } else { homes.join(", ") };
    let owner = match key.owner == key.identity {
        true => key.owner.clone(),
        false => format!("{} (of {})", key.owner, key.identity),
    };
    let service =
        if key.service.is_empty() { String::new() } else { format!(" ({})", key.service) };
    let from = match (&key.remote_id, key.origin.as_str()) {
        (_, "") => String::new(),
        (None, origin) => format!(" from {origin}"),
        (Some(id), origin) => format!(" from {origin}, {id} there"),
    };
    let by = match key.executor.as_str() {
        Key::OWN_EXECUTOR => String::new(),
        other => format!(", by {other}"),
    };
    format!(
        "{name}\n\
         id           {id}\n\
         description  {description}\n\
         kind         {kind}{service}, {class}\n\
         owner        {owner}\n\
         state        {state}{locked}\n\
         on leak      {leak_action}{by}\n\
         looks like   {hint}\n\
         homes        {homes}\n\
         expires      {expires}\n\
         created      {created} by {created_by} ({source}{from})\n\
         modified     {modified} by {modified_by}, version {version}\n\
         used         {used}\n\
         leaked       {leaked}\n",
        name = key.name,
        id = key.id,
        description = key.description,
        kind = key.kind,
        class = key.class,
        state = key.status(now),
        leak_action = key.leak_action,
        hint = key.hint,
        expires = when(key.expires_at),
        created = display(key.created_at),
        created_by = key.created_by,
        source = key.arrival,
        modified = display(key.modified_at),
        modified_by = key.modified_by,
        version = key.version,
        used = match key.last_used_at {
            None => "never".to_owned(),
            Some(at) =>
                format!("{}, last {}", crate::text::plural(key.use_count, "time"), display(at)),
        },
        leaked = when(key.leaked_at),
    )
}
