//! `hook install` and `hook uninstall`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::super::{Exit, output};
use super::place::{self, Place, Whose};
use super::script::{self, Before, Kept};
use crate::cli::{HookName, Install};
use crate::source::git;

const EXECUTABLE: u32 = 0o755;

/// Hooks of a client or a server for which being there and doing nothing is the same as not being
/// there. Called for each repository, they hand over to its own.
const PASSED_ON: &[&str] = &[
    "applypatch-msg",
    "commit-msg",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-merge",
    "post-receive",
    "post-rewrite",
    "post-update",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "pre-receive",
    "prepare-commit-msg",
    "sendemail-validate",
    "update",
];

pub(super) fn install(arguments: &Install) -> anyhow::Result<Exit> {
    let place = if arguments.global { place::global()? } else { place::here()? };
    if place.whose == Whose::Shared {
        bail!(shared(&place));
    }
    let hooks = match (arguments.hooks.as_slice(), place.bare) {
        ([], false) => vec![HookName::PreCommit],
        ([], true) => vec![HookName::PreReceive],
        (named, _) => named.to_vec(),
    };
    fs::create_dir_all(&place.folder)
        .with_context(|| format!("cannot make {}", place.folder.display()))?;
    let own_folder = place.whose == Whose::Global && place.folder == place::own_global()?;
    if own_folder {
        pass_on_others(&place.folder)?;
    }
    for name in hooks {
        let path = place.folder.join(name.as_str());
        let said = match place.whose {
            Whose::Project => into_project(&path, name)?,
            _ => beside(&path, name, &command(arguments, name)?, own_folder)?,
        };
        output::note(&said);
    }
    if own_folder && git::global_hooks().is_none() {
        git::set_global_hooks(Some(&place.folder))?;
        let folder = place.folder.display();
        output::note(&format!(
            "set core.hooksPath to {folder} in your git configuration; the hooks of a repository \
             are called from there"
        ));
    }
    Ok(Exit::Clean)
}

fn shared(place: &Place) -> String {
    let folder = place.folder.display();
    let (scope, origin) =
        place.setting.as_ref().map_or(("", ""), |setting| (&*setting.scope, &*setting.origin));
    let mut text = format!(
        "core.hooksPath ({scope}, {origin}) sends git to {folder}, a folder that other repositories \
         use too; nothing was installed. "
    );
    if matches!(scope, "global" | "system") {
        text.push_str("`leakwarden hook install --global` installs there, for all of them");
    } else {
        text.push_str(
            "`git config --unset core.hooksPath` makes git look into the repository again",
        );
    }
    text
}

/// What the hook runs: this very binary, with the registry in force now.
fn command(arguments: &Install, name: HookName) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = format!("{} hook {}", script::quoted(&program)?, name.as_str());
    let paths = [("registry", &arguments.registry.registry), ("filter", &arguments.filter)];
    for (option, path) in paths {
        if let Some(path) = path {
            let path = path
                .canonicalize()
                .or_else(|_| std::path::absolute(path))
                .with_context(|| format!("cannot resolve {}", path.display()))?;
            command.push_str(&format!(" --{option} {}", script::quoted(&path)?));
        }
    }
    Ok(command)
}

/// A file of our own. A hook of somebody else is kept beside it, and called first: it may change
/// what is committed.
fn beside(path: &Path, name: HookName, command: &str, passes_on: bool) -> anyhow::Result<String> {
    let shown = path.display();
    let kept_path = path.with_file_name(script::kept_name(name));
    let there = read(path)?;
    let mut moved = false;
    match &there {
        Some(text) if script::is_ours(text) => {}
        Some(text) if script::calls(text, name) => {
            return Ok(format!("{shown} calls leakwarden already; it is left as it is"));
        }
        Some(text) => {
            match read(&kept_path)? {
                Some(before) if before != *text => bail!(
                    "{shown} is not ours, and {} is there from an earlier installation; nothing was \
                     changed. Remove the one that is not needed any more, and install again",
                    kept_path.display()
                ),
                _ => fs::rename(path, &kept_path)
                    .with_context(|| format!("cannot move {shown} aside"))?,
            }
            moved = true;
        }
        None => {}
    }
    let kept = read(&kept_path)?.map(|text| Kept::of(&text));
    let with = kept.is_some();
    let script = script::file(name, command, &Before { kept, passes_on });
    if let Err(error) = output::replace(path, script.as_bytes(), EXECUTABLE) {
        if moved {
            fs::rename(&kept_path, path)
                .with_context(|| format!("cannot put {} back to {shown}", kept_path.display()))?;
        }
        return Err(error);
    }
    Ok(if with {
        format!("installed {shown}; it calls first what was there, now {}", kept_path.display())
    } else {
        format!("installed {shown}")
    })
}

/// Lines in a file that is the project's: others get it, so it names no path of this machine,
/// unless that is the only way to this program.
fn into_project(path: &Path, name: HookName) -> anyhow::Result<String> {
    let shown = path.display();
    let program = std::env::current_exe().context("cannot find this program")?;
    let found = in_path("leakwarden").and_then(|path| path.canonicalize().ok());
    let everywhere = found.is_some() && found == program.canonicalize().ok();
    let program = if everywhere { "leakwarden".to_owned() } else { script::quoted(&program)? };
    let command = format!("{program} hook {}", name.as_str());
    if path.is_symlink() {
        bail!("{shown} is a link; it is left as it is. Install where it leads to, or remove it");
    }
    let there = read(path)?;
    let text = there.as_deref().map_or_else(|| b"#!/bin/sh\n".to_vec(), script::without_block);
    if there.is_some() && script::calls(&text, name) {
        return Ok(format!("{shown} calls leakwarden already; it is left as it is"));
    }
    let Some(with) = script::with_block(&text, name, &command) else {
        bail!(
            "{shown} is no shell script; it is left as it is. Let it call this, and stop when it \
             fails:\n  {command}"
        );
    };
    output::replace(path, &with, mode_of(path))?;
    let mut said = format!(
        "installed in {shown}, which is part of the project: whoever has it needs leakwarden, and \
         the registry is that of LEAKWARDEN_REGISTRY"
    );
    if !everywhere {
        said.push_str(&format!(
            "\nleakwarden is not in your PATH, so the file names {program}: others will not have it \
             there"
        ));
    }
    Ok(said)
}

/// The mode that a file keeps when it is replaced.
fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).map_or(EXECUTABLE, |meta| meta.permissions().mode() & 0o7777)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn pass_on_others(folder: &Path) -> anyhow::Result<()> {
    for name in PASSED_ON {
        let path = folder.join(name);
        if read(&path)?.is_none() {
            output::replace(&path, script::passes_on().as_bytes(), EXECUTABLE)?;
        }
    }
    Ok(())
}

pub(super) fn uninstall(global: bool) -> anyhow::Result<Exit> {
    let place = if global { place::global()? } else { place::here()? };
    let mut done = Vec::new();
    if place.whose != Whose::Shared {
        for name in HookName::ALL {
            done.extend(take_out(&place.folder, name)?);
        }
    }
    // What `core.hooksPath` shadows by now.
    if let Some(usual) = place.usual.as_ref().filter(|usual| **usual != place.folder) {
        for name in HookName::ALL {
            done.extend(take_out(usual, name)?);
        }
    }
    if global && place.folder == place::own_global()? {
        done.extend(take_out_global(&place.folder)?);
    }
    if done.is_empty() {
        done.push("no hook of leakwarden is installed here; nothing was changed".to_owned());
    }
    output::note(&done.join("\n"));
    Ok(Exit::Clean)
}

fn take_out(folder: &Path, name: HookName) -> anyhow::Result<Option<String>> {
    let path = folder.join(name.as_str());
    let shown = path.display();
    let Some(text) = read(&path)? else { return Ok(None) };
    if script::is_ours(&text) {
        let kept = folder.join(script::kept_name(name));
        if kept.symlink_metadata().is_ok() {
            fs::rename(&kept, &path)
                .with_context(|| format!("cannot put {} back to {shown}", kept.display()))?;
            return Ok(Some(format!("removed from {shown}; what was there before is back")));
        }
        remove(&path)?;
        return Ok(Some(format!("removed {shown}")));
    }
    if script::has_block(&text) {
        let rest = script::without_block(&text);
        if rest == b"#!/bin/sh\n" {
            remove(&path)?;
            return Ok(Some(format!("removed {shown}")));
        }
        output::replace(&path, &rest, mode_of(&path))?;
        return Ok(Some(format!("removed our lines from {shown}")));
    }
    if script::calls(&text, name) {
        return Ok(Some(format!("{shown} calls leakwarden; take that line out yourself")));
    }
    Ok(None)
}

/// The folder that we made for all repositories, and the setting that leads to it.
fn take_out_global(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    for name in PASSED_ON {
        let path = folder.join(name);
        if read(&path)?.is_some_and(|text| script::is_ours(&text)) {
            remove(&path)?;
        }
    }
    if git::global_hooks().is_some_and(|set| set == folder) {
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            let folder = folder.display();
            done.push(format!("{folder} holds other hooks; it stays, and so does core.hooksPath"));
            return Ok(done);
        }
        git::set_global_hooks(None)?;
        done.push("took core.hooksPath out of your git configuration".to_owned());
    }
    match fs::remove_dir(folder) {
        Ok(()) => done.push(format!("removed {}", folder.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
        }
    }
    Ok(done)
}

/// The content of a hook; `None`: there is none. A link that leads nowhere is none either, but
/// stands in the way.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                bail!("{} is a link that leads nowhere; remove it first", path.display());
            }
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}
