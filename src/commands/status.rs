//! `leakwarden status`: how the daemon does, for people and as JSON.

use std::collections::BTreeMap;

use super::Exit;
use super::output;
use crate::cli::{ListFormat, RegistryArg};
use crate::daemon::{self, AskError, State, Status, Took, WatchStatus};
use crate::text::{clean, grouped, plural};

pub(super) fn run(registry: &RegistryArg, format: ListFormat) -> anyhow::Result<Exit> {
    let Some(dir) = &registry.registry else {
        anyhow::bail!("no registry: give --registry DIR, or set LEAKWARDEN_REGISTRY");
    };
    let status = match daemon::ask(dir) {
        Ok(status) => status,
        Err(error @ AskError::NoDaemon(_)) => {
            output::error(&error.to_string());
            return Ok(Exit::Found);
        }
        Err(error) => return Err(error.into()),
    };
    match format {
        ListFormat::Json => output::json(&serde_json::to_value(&status)?)?,
        ListFormat::Text => output::print(&text(&status))?,
    }
    let well = status.ready && status.stuck.is_empty() && status.watches.iter().all(is_well);
    Ok(if well { Exit::Clean } else { Exit::Incomplete })
}

fn is_well(watch: &WatchStatus) -> bool {
    watch.why.is_none() && watch.state != State::Failed
}

fn text(status: &Status) -> String {
    let state = if status.ready { "ready" } else { "NOT READY" };
    let Status { version, pid, mode, started_at, .. } = status;
    let mut lines = vec![format!(
        "leakwarden {version}, process {pid}, since {started_at}: {state}, mode {mode}"
    )];
    lines.extend(status.stuck.iter().map(|part| format!("STUCK     {}", clean(part.as_bytes()))));
    lines.push(format!("registry  {}", plural(status.keys, "key")));
    lines.push(format!(
        "read      {}, {}, {}; {} could not be read",
        plural(status.read_bytes, "byte"),
        plural(status.read_lines, "line"),
        plural(status.read_files, "file"),
        grouped(status.unreadable)
    ));
    let candidates = plural(status.candidates, "candidate");
    lines.push(format!("seen      {candidates}, {} registered", grouped(status.registered)));
    lines.push(format!("leaks     {}", by_state(&status.incidents)));
    lines.push(format!("actions   {}", by_state(&status.actions)));
    let Took { within, count, sum } = &status.action_seconds;
    if *count > 0 {
        let mean = sum / f64::from(u32::try_from(*count).unwrap_or(u32::MAX));
        let soon = within.iter().find(|(bound, _)| *bound >= 1.0).map_or(0, |(_, count)| *count);
        let mean = format!("{mean:.2} s on average");
        lines.push(format!("          {soon} of {count} within 1 s of the sighting, {mean}"));
    }
    lines.push(format!("mail      {}", by_state(&status.notices)));
    lines.push(format!(
        "queue     {} waiting to be written, the last one was written after {:.3} s",
        grouped(status.queued_batches),
        status.lag_seconds,
    ));
    if status.errors > 0 {
        lines.push(format!("database  refused {}", plural(status.errors, "time")));
    }
    lines.push("watches".to_owned());
    lines.extend(status.watches.iter().flat_map(of_watch));
    lines.push(String::new());
    lines.join("\n")
}

fn of_watch(watch: &WatchStatus) -> Vec<String> {
    let state = match watch.state {
        State::Failed => "FAILED",
        _ if watch.why.is_some() => "DEGRADED",
        State::Starting => "starting",
        State::Running => "running",
        State::Ended => "ended",
    };
    let mut lines = vec![format!("  {state:<9} {}", clean(watch.name.as_bytes()))];
    lines.extend(watch.why.as_ref().map(|why| format!("            {}", clean(why.as_bytes()))));
    let numbers = [
        (watch.restarts, plural(watch.restarts, "restart")),
        (watch.lost_bytes, format!("{} lost unread", plural(watch.lost_bytes, "byte"))),
        (watch.rescans, plural(watch.rescans, "rescan")),
    ];
    let told: Vec<&str> =
        numbers.iter().filter(|(count, _)| *count > 0).map(|(_, text)| text.as_str()).collect();
    if !told.is_empty() {
        lines.push(format!("            {}", told.join(", ")));
    }
    lines
}

fn by_state(counts: &BTreeMap<String, u64>) -> String {
    let part = |(state, count): (&String, &u64)| format!("{} {state}", grouped(*count));
    counts.iter().map(part).collect::<Vec<_>>().join(", ")
}
