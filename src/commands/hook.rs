//! `leakwarden hook`: refuse commits and pushes that hold keys.

mod answer;
mod install;
mod place;
mod script;
mod status;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Exit, scan};
use crate::cli::{Hook, Report, Server};
use crate::finding::{Finding, Report as Findings};
use crate::source::diff::Outcome;
use crate::source::push::{self, Known, Update};
use crate::source::{Sink as _, SourceError, git};
use answer::{Read, Refused};

/// Longest list of refs that is read, in bytes.
const REFS_MAX: u64 = 64 << 20;

pub(super) fn run(hook: &Hook) -> anyhow::Result<Exit> {
    let outcome = dispatch(hook);
    if let (Err(error), Some(report)) = (&outcome, report_of(hook)) {
        answer::document_of(error, report)?;
    }
    outcome
}

/// How a hook reports that reads something.
fn report_of(hook: &Hook) -> Option<&Report> {
    match hook {
        Hook::PreCommit { report }
        | Hook::PrePush { report, .. }
        | Hook::PreReceive { report, .. }
        | Hook::Update { report, .. } => Some(report),
        Hook::Install(_) | Hook::Uninstall { .. } | Hook::Status { .. } => None,
    }
}

fn dispatch(hook: &Hook) -> anyhow::Result<Exit> {
    match hook {
        Hook::PreCommit { report } => match framework_range()? {
            Some((updates, known)) => {
                pushed(&updates, &known, &Asked { report, server: None, refused: Refused::Range })
            }
            None => pre_commit(report),
        },
        Hook::PrePush { remote, report } => pre_push(remote.first(), report),
        Hook::PreReceive { server, report } => on_server(*server, report, updates_on_stdin),
        Hook::Update { change, server, report } => {
            on_server(*server, report, || Ok(vec![one_update(change)?]))
        }
        Hook::Install(arguments) => install::install(arguments),
        Hook::Uninstall { global } => install::uninstall(*global),
        Hook::Status { global, format } => status::run(*global, format.format),
    }
}

fn pre_commit(arguments: &Report) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let staged = git::Staged::start(Path::new("."))?;
    let matcher = super::matcher(&arguments.rules)?;
    let scan = scan::start(arguments, &matcher, usize::MAX)?;
    let mut reader = scan.reader();
    let outcome = match staged.read(&mut reader) {
        Err(error @ SourceError::Idle { .. }) => {
            reader.skip(Path::new("(the index)"), error.to_string());
            Outcome::default()
        }
        other => other?,
    };
    if outcome.files == 0 && is_framework_by_hand() {
        let why = "nothing is staged, and no commit is made; the hook `leakwarden-files` reads \
                   files, and `--from-ref` with `--to-ref` makes this one read commits";
        reader.skip(Path::new("(the index)"), why.to_owned());
    }
    drop(reader);
    let (mut report, registry) = scan.finish()?;
    // A commit that only removes lines, renames or is empty adds nothing to read.
    report.empty = report.files == 0 && report.skipped.is_empty();
    if report.empty {
        git::Repository::open(Path::new("."))?.need_work_tree()?;
    }
    let read = Read { started, server: None, changed: outcome.files, commits: None };
    let exit = answer::give(report, arguments, Refused::Commit, &read)?;
    scan::leave(registry);
    Ok(exit)
}

/// What the pre-commit framework wants to have looked at, where it does not go by the index.
fn framework_range() -> anyhow::Result<Option<(Vec<Update>, Known)>> {
    // Of a first push it names the branch alone.
    let to = of_framework("PRE_COMMIT_TO_REF").or_else(|| of_framework("PRE_COMMIT_LOCAL_BRANCH"));
    let Some(to) = to else { return Ok(None) };
    let repository = git::Repository::open(Path::new("."))?;
    let new = repository.commit(&to)?;
    let old = match of_framework("PRE_COMMIT_FROM_REF").filter(|from| !push::is_nothing(from)) {
        Some(from) => repository.commit(&from)?,
        None => "0".repeat(new.len()),
    };
    let name = of_framework("PRE_COMMIT_REMOTE_BRANCH").unwrap_or(to);
    // Of a push, what the remote has is known; of a range in a build, its ends.
    let known = of_framework("PRE_COMMIT_REMOTE_NAME").map_or(Known::Old, Known::Remote);
    Ok(Some((vec![Update { name, old, new }], known)))
}

fn of_framework(name: &str) -> Option<String> {
    std::env::var_os("PRE_COMMIT")?;
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a person runs the framework: no commit is being made, so there need be nothing to read.
fn is_framework_by_hand() -> bool {
    std::env::var_os("PRE_COMMIT").is_some() && std::env::var_os("GIT_INDEX_FILE").is_none()
}

fn pre_push(remote: Option<&String>, report: &Report) -> anyhow::Result<Exit> {
    let asked = Asked { report, server: None, refused: Refused::Push };
    // The framework has read what git says, and hands it on in another way.
    if let Some((updates, known)) = framework_range()? {
        return pushed(&updates, &known, &asked);
    }
    let known = Known::Remote(remote.cloned().unwrap_or_default());
    let text = stdin()?;
    let updates = lines(&text, |words| match words {
        [_, new, name, old] => Some((*name, *old, *new)),
        _ => None,
    })?;
    pushed(&updates, &known, &asked)
}

/// A hook of the receiving side. What goes wrong lets the push in only if the administrator said so.
fn on_server(
    server: Server,
    report: &Report,
    updates: impl FnOnce() -> anyhow::Result<Vec<Update>>,
) -> anyhow::Result<Exit> {
    let asked = Asked { report, server: Some(server), refused: Refused::Received };
    match updates().and_then(|updates| pushed(&updates, &Known::AllRefs, &asked)) {
        Err(error) if server.fail_open => {
            let why = super::explained(&error);
            super::output::note(&format!("leakwarden: NOT CHECKED, let in (--fail-open): {why}"));
            Ok(Exit::Clean)
        }
        other => other,
    }
}

fn updates_on_stdin() -> anyhow::Result<Vec<Update>> {
    lines(&stdin()?, |words| match words {
        [old, new, name] => Some((*name, *old, *new)),
        _ => None,
    })
}

fn one_update(words: &[String]) -> anyhow::Result<Update> {
    let [name, old, new] = words else {
        bail!("`hook update` is called by git with a ref, its old id and its new id");
    };
    update(name, old, new).context("`hook update` was given something else than git gives")
}

fn stdin() -> anyhow::Result<String> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(REFS_MAX + 1)
        .read_to_end(&mut text)
        .context("cannot read standard input")?;
    if text.len() as u64 > REFS_MAX {
        bail!("more refs than the {REFS_MAX} bytes of names that are read");
    }
    // Names of refs are bytes; only ids matter beyond showing them.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The lines that git writes to a hook. `of` picks name, old id and new id.
fn lines<'a>(
    text: &'a str,
    of: impl Fn(&[&'a str]) -> Option<(&'a str, &'a str, &'a str)>,
) -> anyhow::Result<Vec<Update>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let words: Vec<&str> = line.split(' ').collect();
            of(&words).and_then(|(name, old, new)| update(name, old, new)).with_context(|| {
                format!("standard input, line {}: not what git writes to this hook", at + 1)
            })
        })
        .collect()
}

fn update(name: &str, old: &str, new: &str) -> Option<Update> {
    let update = || Update { name: name.to_owned(), old: old.to_owned(), new: new.to_owned() };
    (push::is_id(old) && push::is_id(new)).then(update)
}

/// How a push is looked at.
struct Asked<'a> {
    report: &'a Report,
    server: Option<Server>,
    refused: Refused,
}

fn pushed(updates: &[Update], known: &Known, asked: &Asked<'_>) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let until = asked.server.map(|server| started + Duration::from_secs(server.budget));
    let matcher = super::matcher(&asked.report.rules)?;
    let scan = scan::start(asked.report, &matcher, usize::MAX)?;
    let mut reader = scan.reader();
    let repository = git::Repository::open(Path::new("."))?;
    let brought = match push::read(&repository, updates, known, until, &mut reader) {
        Ok(brought) => brought,
        Err(SourceError::Late) => {
            let seconds = asked.server.map_or(0, |server| server.budget);
            let why = format!("the time budget of {seconds} s was used up before all was read");
            reader.skip(Path::new("(the push)"), why);
            push::Brought::default()
        }
        Err(error @ SourceError::Idle { .. }) => {
            reader.skip(Path::new("(the push)"), error.to_string());
            push::Brought::default()
        }
        Err(error) => return Err(error.into()),
    };
    drop(reader);
    let found = scan.pushed();
    if !found.is_empty() {
        // Without it the findings are told all the same.
        scan.name_pushed(&push::origins(&repository, &found, until).unwrap_or_default());
    }
    let (mut report, registry) = scan.finish()?;
    in_all_comparisons(&mut report, &brought.parents_of());
    report.commits = brought.commits;
    report.empty = report.files == 0 && report.skipped.is_empty();
    let read = Read {
        started,
        server: asked.server,
        changed: report.files,
        commits: Some(report.commits),
    };
    let exit = answer::give(report, asked.report, asked.refused, &read)?;
    scan::leave(registry);
    Ok(exit)
}

/// Of a merge, keeps what is new against each of its parents.
fn in_all_comparisons(report: &mut Findings, parents: &HashMap<&str, usize>) {
    if parents.is_empty() {
        return;
    }
    let place = |finding: &Finding| {
        (finding.path.clone(), finding.line, finding.column, finding.fingerprint.clone())
    };
    let mut seen: HashMap<_, usize> = HashMap::new();
    for finding in &report.findings {
        *seen.entry(place(finding)).or_default() += 1;
    }
    report.findings.retain(|finding| {
        let commit = finding.path.split(':').next().unwrap_or_default();
        let Some(wanted) = parents.get(commit) else { return true };
        // The first of those that are the same is kept.
        seen.remove(&place(finding)).is_some_and(|count| count >= *wanted)
    });
}
