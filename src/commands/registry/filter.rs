//! `leakwarden registry export-filter`.

use std::path::Path;

use serde_json::json;

use super::super::{Exit, Session, output};
use crate::cli::ListFormat;
use crate::text::plural;

/// The filter is no secret like the pepper: developers' machines need it.
const FILTER_MODE: u32 = 0o644;

pub(super) fn export(
    session: &mut Session,
    file: &Path,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    caller.must_operate("hand on a filter of all keys")?;
    let target = crate::text::clean(file.as_os_str().as_encoded_bytes());
    let now = crate::clock::now();
    let (bytes, told) = registry.write(|tx| tx.export_filter(&target, &caller.actor, now))?;
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
    match format {
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
