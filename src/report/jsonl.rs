//! JSON and JSON lines; the fields are a contract.

use std::io::{self, Write};

use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::finding::{Finding, KnownKeys, Report};

fn finding(finding: &Finding) -> Value {
    let key = finding.key.as_ref().map(|key| {
        json!({
            "id": key.id,
            "name": key.name,
            "owner": key.owner,
            "state": key.state.as_str(),
            "leak_action": key.leak_action.as_str(),
        })
    });
    let git = finding.git.as_ref();
    let commit = finding.commit.as_ref();
    json!({
        "type": "finding",
        "rule": finding.rule,
        "provider": finding.provider,
        "description": finding.description,
        "verdict": verdict(finding),
        "key": key,
        "confidence": finding.confidence.as_str(),
        "hint": finding.hint,
        "fingerprint": finding.fingerprint,
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "start": finding.start,
        "end": finding.end,
        "decoded_via": [],
        "commit": commit.map(|commit| &commit.id),
        "author": commit.map(|commit| &commit.author),
        "email": commit.map(|commit| &commit.email),
        "date": commit.and_then(|commit| commit.date).map(|date| date.to_string()),
        "object": git.map(|git| &git.object),
        "in_head": git.and_then(|git| git.in_head),
        "versions": git.map(|git| git.versions),
        "source": finding.source.as_str(),
    })
}

fn verdict(finding: &Finding) -> &'static str {
    match (&finding.key, finding.probable) {
        (Some(_), _) => "registered",
        (None, true) => "probable",
        (None, false) => "unregistered",
    }
}

fn summary(report: &Report) -> Value {
    let (registry, filter) = match report.known {
        KnownKeys::Registry(count) => (Some(count), None),
        KnownKeys::Filter { count, made } => {
            (None, Some(json!({ "keys": count, "made": made.to_string() })))
        }
        KnownKeys::Rules => (None, None),
    };
    let skipped: Vec<Value> =
        report.skipped.iter().map(|s| json!({ "path": s.path, "why": s.why })).collect();
    json!({
        "type": "summary",
        "registry": registry,
        "filter": filter,
        "files": report.files,
        "bytes": report.bytes,
        "objects": report.history.map(|history| history.objects),
        "commits": report.commits,
        "submodules": report.history.map(|history| history.submodules),
        "findings": report.count(),
        "registered": report.registered(),
        "below_confidence": report.below_confidence,
        "ignored": report.ignored,
        "skipped": skipped,
        "complete": report.complete(),
        "seconds": report.seconds,
    })
}

pub(super) fn write_lines(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    report.each(&mut |one| writeln!(out, "{}", finding(one)))?;
    writeln!(out, "{}", summary(report))
}

pub(super) fn write_document(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let document = Document { findings: Findings(report), summary: summary(report) };
    let mut out = Kept { out, error: None };
    let written = serde_json::to_writer_pretty(&mut out, &document);
    match out.error {
        // What it is says how the command ends.
        Some(error) => Err(error),
        None => written.map_err(Into::into).and_then(|()| writeln!(out.out)),
    }
}

/// Keeps the first error, of which a serializer passes on no more than the words.
struct Kept<'a> {
    out: &'a mut dyn Write,
    error: Option<io::Error>,
}

impl Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.error.get_or_insert(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    findings: Findings<'a>,
    summary: Value,
}

struct Findings<'a>(&'a Report);

impl Serialize for Findings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(usize::try_from(self.0.count()).ok())?;
        let mut add = |one: &Finding| {
            let added = list.serialize_element(&finding(one));
            added.map_err(|error| io::Error::other(error.to_string()))
        };
        self.0.each(&mut add).map_err(S::Error::custom)?;
        list.end()
    }
}
