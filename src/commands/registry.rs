//! `leakwarden registry`: copies, checks, a new pepper, filters for other machines.

mod filter;

use serde_json::json;

use super::{Exit, Session, output};
use crate::cli::{self, ListFormat};
use crate::clock;
use crate::text::plural;

pub(super) fn run(command: &cli::Registry) -> anyhow::Result<Exit> {
    match command {
        cli::Registry::Backup { file, scope, format } => {
            let Session { registry, caller } = Session::open(scope)?;
            caller.must_operate("copy the registry")?;
            registry.backup(file)?;
            let keys = registry.key_count()?;
            let file = crate::text::clean(file.as_os_str().as_encoded_bytes());
            let text = format!(
                "copied {} to {file}, and checked the copy; the pepper is not in it",
                plural(keys, "key")
            );
            output::answer(format.format, &text, &json!({ "file": file, "keys": keys }))?;
            Ok(Exit::Clean)
        }
        cli::Registry::Check { scope, format } => check(scope, format.format),
        cli::Registry::ExportFilter { file, scope, format } => {
            filter::export(&mut Session::open(scope)?, file, format.format)
        }
        cli::Registry::RotatePepper { reason, force, scope, format } => {
            let Session { mut registry, caller } = Session::open(scope)?;
            let question = "Add a pepper to the registry? Its file has to be backed up again.";
            if !force && !output::confirm(question)? {
                output::note("nothing was changed");
                return Ok(Exit::Found);
            }
            let version = registry.rotate_pepper(&caller, reason, clock::now())?;
            let text = format!(
                "the registry has pepper {version} now. Back up the pepper file again: backups of \
                 the database from today on need it."
            );
            output::answer(format.format, &text, &json!({ "pepper": version }))?;
            Ok(Exit::Clean)
        }
    }
}

fn check(scope: &cli::Scope, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    caller.must_operate("check the registry")?;
    let problems = registry.check()?;
    let keys = registry.key_count()?;
    match format {
        ListFormat::Json => {
            let whole = problems.is_empty();
            output::json(&json!({ "whole": whole, "keys": keys, "problems": problems }))?;
        }
        ListFormat::Text => {
            let mut text = problems.join("\n");
            let keys = plural(keys, "key");
            match problems.len() as u64 {
                0 => text.push_str(&format!("the registry is whole: {keys}\n")),
                count => {
                    let found = plural(count, "problem");
                    text.push_str(&format!("\n{found}; keep these files, and restore a backup\n"));
                }
            }
            output::print(&text)?;
        }
    }
    Ok(if problems.is_empty() { Exit::Clean } else { Exit::Found })
}
