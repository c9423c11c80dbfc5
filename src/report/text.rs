//! For people: one line a finding, then what was read.

use std::io::{self, Write};

use crate::finding::{Finding, Report};
use crate::text::{clean, grouped, plural};

/// Skipped paths that are listed by name.
const SKIPPED_SHOWN: usize = 20;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Colours are written always; the stream strips them where they are not wanted.
pub(super) fn write(report: &Report, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
    if !quiet {
        writeln!(out, "{}", super::known_line(report))?;
    }
    report.each(&mut |finding| writeln!(out, "{}", line(finding)))?;
    if quiet { Ok(()) } else { summary(report, out) }
}

fn line(finding: &Finding) -> String {
    let Finding { path, line, column, hint, .. } = finding;
    let place = format!("{BOLD}{path}:{line}:{column}{PLAIN}");
    let place = format!("{place}{}", in_git(finding));
    match &finding.key {
        Some(key) => format!(
            "{place}: {RED}registered{PLAIN} {hint}  {} ({}), {}, owner {}, on leak: {}",
            key.name, key.id, key.state, key.owner, key.leak_action
        ),
        None if finding.probable => format!(
            "{place}: {RED}probable{PLAIN} {hint}  a live key, by the filter; the registry that it \
             was exported from knows whose [{}]",
            finding.rule
        ),
        None => format!(
            "{place}: {YELLOW}{}{PLAIN} {hint}  {}: {} [{}]",
            finding.confidence,
            // Rules of one's own may have anything there.
            clean(finding.provider.as_bytes()),
            clean(finding.description.as_bytes()),
            finding.rule
        ),
    }
}

/// Which commit, whose, when, and whether it is still there.
fn in_git(finding: &Finding) -> String {
    let Some(git) = &finding.git else { return String::new() };
    let mut words = Vec::new();
    match &finding.commit {
        Some(commit) => {
            words.push(commit.id.get(..12).unwrap_or_default().to_owned());
            words.extend(commit.date.map(|date| date.strftime("%Y-%m-%d").to_string()));
            words.push(format!("{} <{}>", commit.author, commit.email));
        }
        None => words.push("in no commit".to_owned()),
    }
    words.extend(git.in_head.map(|there| if there { "in HEAD" } else { "not in HEAD" }.to_owned()));
    if git.versions > 1 {
        words.push(plural(git.versions, "version"));
    }
    format!(" ({})", words.join(", "))
}

/// What was read, in words.
fn what_was_read(report: &Report) -> String {
    let Some(history) = report.history else { return plural(report.files, "file") };
    if report.empty {
        return "no object: nothing is new".to_owned();
    }
    let [objects, commits, files] = [
        plural(history.objects, "object"),
        plural(report.commits, "commit"),
        plural(report.files, "version"),
    ];
    format!("{objects} ({commits}, {files} of files)")
}

fn summary(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for skipped in report.skipped.iter().take(SKIPPED_SHOWN) {
        writeln!(out, "{YELLOW}not read{PLAIN}: {}: {}", skipped.path, skipped.why)?;
    }
    let more = report.skipped.len().saturating_sub(SKIPPED_SHOWN);
    if more > 0 {
        writeln!(out, "{YELLOW}not read{PLAIN}: {more} more; `--format jsonl` lists them all")?;
    }
    let mut read = format!(
        "read {}, {} bytes, in {:.2} s",
        what_was_read(report),
        grouped(report.bytes),
        report.seconds
    );
    if report.ignored > 0 {
        let entries = if report.ignored == 1 { "entry" } else { "entries" };
        let count = grouped(report.ignored);
        read.push_str(&format!(
            "; {count} {entries} named by .gitignore left out (--no-ignore reads them)"
        ));
    }
    writeln!(out, "{read}")?;
    if report.history.is_some_and(|history| history.submodules > 0) {
        let advice = "submodules are repositories of their own, which were not read";
        writeln!(out, "{YELLOW}note{PLAIN}: {advice}; scan each with --git")?;
    }
    let verdict = if report.count() == 0 {
        match (report.complete(), report.files) {
            (true, _) => "no leak found".to_owned(),
            (false, 0) if report.history.is_none_or(|history| history.objects == 0) => {
                "INCOMPLETE: nothing was read".to_owned()
            }
            (false, _) => "INCOMPLETE: no leak found in what was read".to_owned(),
        }
    } else {
        let registered = report.registered();
        let all = plural(report.count(), "leak");
        format!("{all} found, {registered} of them registered")
    };
    let below = match report.below_confidence {
        0 => String::new(),
        count => format!(
            " ({} of lower confidence not shown; --min-confidence low shows them)",
            grouped(count)
        ),
    };
    writeln!(out, "{verdict}{below}")
}
