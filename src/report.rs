//! What people and programs read of a scan.

mod jsonl;
mod text;

use std::io::{self, Write};

use crate::finding::{KnownKeys, Report};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One document.
    Json,
    /// One object per line; the summary is the last.
    Jsonl,
}

/// Writes a report. `quiet`: findings only.
pub fn write(report: &Report, format: Format, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => text::write(report, quiet, out),
        Format::Json => jsonl::write_document(report, out),
        Format::Jsonl => jsonl::write_lines(report, out),
    }
}

/// `registry: 41,203 keys`, the same of a filter, or a warning that there is none.
#[must_use]
pub fn known_line(report: &Report) -> String {
    match report.known {
        KnownKeys::Registry(count) => format!("registry: {}", crate::text::plural(count, "key")),
        KnownKeys::Filter { count, made } => {
            let day = made.strftime("%Y-%m-%d");
            format!("filter of {day}: {}", crate::text::plural(count, "key"))
        }
        KnownKeys::Rules => "NO REGISTRY: rules only".to_owned(),
    }
}
