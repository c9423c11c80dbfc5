//! `leakwarden hook`: refuse commits that hold keys.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::{Exit, output, scan};
use crate::cli::{Hook, RegistryArg, Report};
use crate::source::git;

/// By this line an installed hook is recognised as ours.
const MARK: &str = "# installed by leakwarden";

pub(super) fn run(hook: &Hook) -> anyhow::Result<Exit> {
    match hook {
        Hook::PreCommit { report } => pre_commit(report),
        Hook::Install { registry } => install(registry),
    }
}

fn pre_commit(arguments: &Report) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let here = Path::new(".");
    let tree = git::WorkTree::open(here)?;
    let matcher = super::matcher(&arguments.rules)?;
    let scan = scan::start(arguments, &matcher)?;
    let mut reader = scan.reader();
    let outcome = git::staged(&tree, &mut reader)?;
    drop(reader);
    let report = scan.finish()?;
    let nothing_staged = outcome.headers == 0;
    // A commit that only removes lines, renames or is empty adds nothing to read.
    let complete = report.skipped.is_empty();
    let added = report.files;
    if complete && added == 0 {
        let what = if nothing_staged { "nothing is staged" } else { "no line is added" };
        output::note(&format!("leakwarden: {what}; nothing to read"));
        return Ok(Exit::Clean);
    }
    Ok(match scan::finish(report, arguments, started)? {
        Exit::Found => {
            output::note(
                "leakwarden: commit refused. Take the key out (`git restore --staged FILE`), and \
                 rotate it if it ever left this machine.\nA false positive: `git commit \
                 --no-verify` commits without this check.",
            );
            Exit::Found
        }
        Exit::Incomplete => {
            output::note("leakwarden: commit refused, because not all of it could be read");
            Exit::Incomplete
        }
        other => {
            let files = crate::text::plural(added, "staged file");
            output::note(&format!("leakwarden: read the added lines of {files}"));
            other
        }
    })
}

fn install(registry: &RegistryArg) -> anyhow::Result<Exit> {
    let here = Path::new(".");
    git::WorkTree::open(here)?;
    let folder = git::hooks_folder(here)?;
    let path = folder.join("pre-commit");
    if let Ok(existing) = std::fs::read(&path)
        && !String::from_utf8_lossy(&existing).contains(MARK)
    {
        bail!(
            "{} exists and is not ours; it is left as it is. Add this line to it:\n  {} || exit 1",
            path.display(),
            command(registry)?
        );
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let script = format!("#!/bin/sh\n{MARK}\nexec {}\n", command(registry)?);
    write_executable(&path, &script)?;
    output::note(&format!("installed {}", path.display()));
    Ok(Exit::Clean)
}

/// What the hook runs: this very binary, with the registry in force now.
fn command(registry: &RegistryArg) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = format!("{} hook pre-commit", quoted(&program)?);
    if let Some(dir) = &registry.registry {
        let dir = std::path::absolute(dir).context("cannot resolve the registry folder")?;
        command.push_str(&format!(" --registry {}", quoted(&dir)?));
    }
    Ok(command)
}

/// A path as one word of a shell script.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn write_executable(path: &Path, script: &str) -> anyhow::Result<()> {
    let shown = path.display();
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)
        .and_then(|mut file| {
            file.write_all(script.as_bytes())?;
            file.set_permissions(std::fs::Permissions::from_mode(0o755))
        })
        .with_context(|| format!("cannot write {shown}"))
}
