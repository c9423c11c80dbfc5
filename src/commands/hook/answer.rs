//! What a hook says to whoever commits or pushes: short, and with the ways on.

use std::time::Instant;

use serde_json::json;

use super::super::{Exit, output, scan};
use crate::cli::{RegistryArg, Report as Arguments, ReportFormat, Server};
use crate::finding::{Finding, Report};
use crate::source::push;
use crate::text::{grouped, plural};

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A commit.
    Commit,
    /// A push, before it leaves.
    Push,
    /// A push, on the server.
    Received,
    /// Nothing: commits were looked at.
    Range,
}

impl Refused {
    fn what(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Push | Self::Received => "push",
            Self::Range => "range",
        }
    }
}

/// What was read, and under which limits.
pub(super) struct Read {
    pub(super) started: Instant,
    pub(super) server: Option<Server>,
    /// Files that changed in any way.
    pub(super) changed: u64,
    /// New commits; `None`: there are none yet.
    pub(super) commits: Option<u64>,
}

/// Prints the report and draws the conclusion.
pub(super) fn give(
    mut report: Report,
    arguments: &Arguments,
    refused: Refused,
    read: &Read,
) -> anyhow::Result<Exit> {
    let text = arguments.format == ReportFormat::Text;
    report.seconds = read.started.elapsed().as_secs_f64();
    scan::write(&report, arguments, text)?;
    let exit = scan::conclusion(&report);
    let open = read.server.is_some_and(|server| server.fail_open);
    let mut lines = Vec::new();
    if text {
        let skipped = report.skipped.iter().take(SKIPPED_SHOWN);
        lines.extend(skipped.map(|skipped| format!("not read: {}: {}", skipped.path, skipped.why)));
        let more = report.skipped.len().saturating_sub(SKIPPED_SHOWN);
        if more > 0 {
            lines.push(format!("not read: {more} more; `--format jsonl` lists them all"));
        }
    }
    lines.push(summary(&report, read));
    match exit {
        Exit::Found => {
            let count = plural(report.findings.len() as u64, "key");
            lines.push(format!("leakwarden: {} refused, {count} in it", refused.what()));
            lines.extend(ways_on(&report.findings, refused, &arguments.registry));
        }
        Exit::Incomplete if open => {
            lines.push("leakwarden: NOT ALL CHECKED, let in (--fail-open)".to_owned());
        }
        Exit::Incomplete => {
            let what = refused.what();
            lines.push(format!("leakwarden: {what} refused, because not all of it could be read"));
        }
        Exit::Clean | Exit::Error => {}
    }
    if !(arguments.quiet && exit == Exit::Clean) {
        output::note(&lines.join("\n"));
    }
    Ok(if exit == Exit::Incomplete && open { Exit::Clean } else { exit })
}

/// Whoever reads documents gets one of an error, too.
pub(super) fn document_of(error: &anyhow::Error, arguments: &Arguments) -> anyhow::Result<()> {
    let why = super::super::explained(error);
    let document = json!({ "type": "error", "error": why });
    match arguments.format {
        ReportFormat::Text => Ok(()),
        ReportFormat::Json => {
            output::json(&json!({ "findings": [], "summary": null, "error": why }))
        }
        ReportFormat::Jsonl => output::print(&format!("{document}\n")),
    }
}

/// Things not read that are listed by name.
const SKIPPED_SHOWN: usize = 10;
/// Files that are named in a line to copy.
const FILES_SHOWN: usize = 5;

/// `registry: 2 keys; read the added lines of 1 file, 55 bytes`, and the limits that were in force.
fn summary(report: &Report, read: &Read) -> String {
    let known = crate::report::known_line(report);
    let bytes = grouped(report.bytes);
    let files = plural(report.files, "file");
    let what = match read.commits {
        _ if report.files == 0 && !report.skipped.is_empty() => "nothing was read".to_owned(),
        Some(0) => "nothing new to read".to_owned(),
        Some(commits) => {
            let commits = plural(commits, "new commit");
            format!("read {commits}: the added lines of {files}, names and messages, {bytes} bytes")
        }
        None if report.files > 0 => {
            format!(
                "read the added lines of {}, {bytes} bytes",
                plural(report.files, "staged file")
            )
        }
        None if read.changed > 0 => {
            let changed = plural(read.changed, "staged file");
            format!("no line is added by {changed}; nothing to read")
        }
        None => "nothing is staged; nothing to read".to_owned(),
    };
    let limits = read.server.map_or_else(String::new, |server| {
        let fails = if server.fail_open { "open" } else { "closed" };
        format!(", in {:.2} s of {} s; fails {fails}", report.seconds, server.budget)
    });
    format!("leakwarden: {known}; {what}{limits}")
}

/// What can be done now, each with its line to copy.
fn ways_on(findings: &[Finding], refused: Refused, registry: &RegistryArg) -> Vec<String> {
    let mut lines = vec![match refused {
        Refused::Commit => {
            let files = files(findings);
            format!(
                "  take it out:     edit, then `git add{files} && git commit`; a whole file: \
                 `git rm --cached{files}`"
            )
        }
        _ => take_out_of_commits(findings),
    }];
    let left = match refused {
        Refused::Received => "it has left your machine",
        _ => "if it ever left this machine",
    };
    lines.push(format!("  rotate it:       {left}: {}", rotate(findings, registry)));
    lines.push(match refused {
        Refused::Commit => {
            "  it is no key:    `git commit --no-verify` commits without this check".to_owned()
        }
        Refused::Push => {
            "  it is no key:    `git push --no-verify` pushes without this check".to_owned()
        }
        Refused::Received => "  it is no key:    tell the administrators of this server; \
             a false positive is theirs to let in"
            .to_owned(),
        Refused::Range => "  it is no key:    `SKIP=leakwarden` leaves this check out".to_owned(),
    });
    lines
}

fn rotate(findings: &[Finding], registry: &RegistryArg) -> String {
    let ids = distinct(findings.iter().filter_map(|finding| finding.key.as_ref().map(|k| &*k.id)));
    // What only a filter knows has no issuer that a rule could name.
    let of_filter = |finding: &Finding| finding.key.is_none() && finding.rule == "filter";
    let foreign = |finding: &&Finding| finding.key.is_none() && !of_filter(finding);
    let issuers = distinct(findings.iter().filter(foreign).map(|finding| &*finding.provider));
    // What the environment says, the next command finds by itself.
    let given = registry.registry.as_ref().filter(|dir| {
        std::env::var_os("LEAKWARDEN_REGISTRY").is_none_or(|known| known != dir.as_os_str())
    });
    let option = given.map_or_else(String::new, |dir| {
        format!(" --registry {}", super::script::word(&dir.to_string_lossy()))
    });
    let mut ways: Vec<String> = ids
        .iter()
        .map(|id| format!("make a new one, then `leakwarden key disable {id}{option}`"))
        .collect();
    if findings.iter().any(of_filter) {
        let whose = "make a new one, and tell who keeps your organisation's registry of keys";
        ways.push(whose.to_owned());
    }
    if !issuers.is_empty() {
        ways.push(format!("make a new one and revoke this one at {}", issuers.join(", ")));
    }
    ways.join("; ")
}

/// Where the keys stand in commits, a later commit does not take them out.
fn take_out_of_commits(findings: &[Finding]) -> String {
    let commits = distinct(findings.iter().filter_map(|finding| push::commit_of(&finding.path)));
    match commits.as_slice() {
        [] => "  take it out:     rename the ref or make the tag anew without it".to_owned(),
        [one] => format!(
            "  take it out:     the last commit: `git commit --amend`; else `git rebase -i {one}^` \
             (`git rebase -i --root` if it has no parent), mark {one} as `edit`"
        ),
        all => format!(
            "  take it out:     `git rebase -i` over {}; a later commit does not take it out",
            all.join(", ")
        ),
    }
}

/// The files of findings as words of a command line.
fn files(findings: &[Finding]) -> String {
    let files = distinct(findings.iter().map(|finding| &*finding.path));
    // What was written out or redacted cannot be typed as it stands.
    let typed = files.iter().all(|file| file.is_ascii() && !file.contains("\\u{"));
    if !typed || files.len() > FILES_SHOWN {
        return " FILE…".to_owned();
    }
    // git runs hooks at the top of the work tree, wherever it was called.
    let elsewhere = std::env::var_os("GIT_PREFIX").is_some_and(|prefix| !prefix.is_empty());
    let top = if elsewhere { ":/" } else { "" };
    files.iter().map(|file| format!(" {}", super::script::word(&format!("{top}{file}")))).collect()
}

fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for word in words {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all
}
