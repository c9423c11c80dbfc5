//! `leakwarden registry`: care for the registry itself.

use serde_json::json;

use super::{Exit, output};
use crate::cli::{ListFormat, Registry};
use crate::text::plural;

/// The filter is no secret like the pepper: developers' machines need it.
const FILTER_MODE: u32 = 0o644;

pub(super) fn run(command: &Registry) -> anyhow::Result<Exit> {
    let Registry::ExportFilter { file, registry, format } = command;
    let mut registry = super::open(registry)?;
    let target = crate::text::clean(file.as_os_str().as_encoded_bytes());
    let (bytes, told) =
        registry.write(|tx| tx.export_filter(&target, &super::actor(), crate::clock::now()))?;
    if file.as_os_str() == "-" {
        output::to_stdout(|out| out.write_all(&bytes))?;
    } else {
        output::replace(file, &bytes, FILTER_MODE)?;
    }
    let text = format!(
        "wrote {}, {} bytes, to {target}; left out: {} under 80 bits, {} known by their SHA-256 alone",
        plural(told.keys, "live key"),
        bytes.len(),
        told.weak,
        told.hashed
    );
    match format.format {
        _ if file.as_os_str() == "-" => output::note(&text),
        ListFormat::Text => output::print(&format!("{text}\n"))?,
        ListFormat::Json => output::json(&json!({
            "file": target,
            "bytes": bytes.len(),
            "keys": told.keys,
            "weak": told.weak,
            "hashed": told.hashed,
        }))?,
    }
    Ok(Exit::Clean)
}
