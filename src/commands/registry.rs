//! `leakwarden registry`: care for the registry itself.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
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
        replace(file, &bytes)?;
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

/// Whoever reads the file meanwhile has the old one or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let written = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(FILTER_MODE))?;
            file.as_file().sync_all()?;
            Ok(file)
        })
        .and_then(|file| file.persist(path).map_err(|error| error.error));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
