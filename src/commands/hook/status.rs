//! `hook status`: which hooks are installed, and whether git runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::{Exit, output};
use super::install::read;
use super::place::{self, Place, Whose};
use super::script;
use crate::cli::{HookName, ListFormat};
use crate::source::git;

/// Where a hook manager puts what it found, and whether it still calls it.
const MOVED_ASIDE: [(&str, bool); 2] = [(".legacy", true), (".old", false)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Installed,
    Absent,
    /// It is there, and is not run or cannot run.
    Dead,
}

struct Found {
    name: HookName,
    state: State,
    path: PathBuf,
    note: String,
}

pub(super) fn run(global: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let place = if global { place::global()? } else { place::here()? };
    let found =
        HookName::ALL.iter().map(|name| look(&place, *name)).collect::<anyhow::Result<Vec<_>>>()?;
    let setting = if global { elsewhere_here(&place) } else { setting_of(&place) };
    match format {
        ListFormat::Text => output::print(&text(&found, setting.as_deref()))?,
        ListFormat::Json => output::json(&document(&found, &place, setting.as_deref()))?,
    }
    let dead = found.iter().any(|found| found.state == State::Dead);
    let any = found.iter().any(|found| found.state == State::Installed);
    Ok(if any && !dead { Exit::Clean } else { Exit::Found })
}

fn setting_of(place: &Place) -> Option<String> {
    place.setting.as_ref().map(|setting| {
        let (scope, origin) = (&setting.scope, &setting.origin);
        format!("core.hooksPath ({scope}, {origin}) sends git to {}", place.looks.display())
    })
}

/// What keeps the hooks of all repositories from running in this one, if anything does.
fn elsewhere_here(global: &Place) -> Option<String> {
    let here = place::here().ok().filter(|here| !same(&here.looks, &global.looks))?;
    Some(format!("not run in this repository: {}", setting_of(&here)?))
}

fn same(one: &Path, other: &Path) -> bool {
    let plain = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    plain(one) == plain(other)
}

fn look(place: &Place, name: HookName) -> anyhow::Result<Found> {
    let path = place.folder.join(name.as_str());
    let text = read(&path)?.unwrap_or_default();
    let found =
        |state, path: &Path, note: String| Found { name, state, path: path.to_owned(), note };
    if script::calls(&text, name) {
        return Ok(match fault(&path, &text, name) {
            Some(why) => found(State::Dead, &path, why),
            None => found(State::Installed, &path, also(place, &path, &text, name)),
        });
    }
    for (ending, called) in MOVED_ASIDE {
        let aside = path.with_file_name(format!("{}{ending}", name.as_str()));
        if read(&aside)?.is_some_and(|text| script::calls(&text, name)) {
            return Ok(if called {
                found(State::Installed, &aside, format!("called by {}", path.display()))
            } else {
                let why = "moved aside by another installer; run `leakwarden hook install` again";
                found(State::Dead, &aside, why.to_owned())
            });
        }
    }
    // That of all repositories.
    let first = place.looks.join(name.as_str());
    let text = read(&first)?.unwrap_or_default();
    if script::calls(&text, name) {
        let note = "for all of your repositories".to_owned();
        return Ok(found(State::Installed, &first, note));
    }
    // git no longer looks where it was installed.
    if let Some(usual) = place.usual.as_ref().filter(|usual| **usual != place.folder) {
        let shadowed = usual.join(name.as_str());
        if read(&shadowed)?.is_some_and(|text| script::calls(&text, name)) {
            let why = "shadowed: git does not look there any more, see core.hooksPath below";
            return Ok(found(State::Dead, &shadowed, why.to_owned()));
        }
    }
    // Nor where it is installed for all repositories.
    if place.whose != Whose::Global
        && let Some(all) = git::global_hooks().filter(|all| !same(all, &place.looks))
        && read(&all.join(name.as_str()))?.is_some_and(|text| script::calls(&text, name))
    {
        let why = "shadowed: that of all repositories is not run here, see core.hooksPath below";
        return Ok(found(State::Dead, &all.join(name.as_str()), why.to_owned()));
    }
    Ok(found(State::Absent, &path, String::new()))
}

/// Why a hook that is there does not do its work.
fn fault(path: &Path, text: &[u8], name: HookName) -> Option<String> {
    let executable = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    // What husky calls need not be executable.
    if !executable && !path.parent().is_some_and(|folder| folder.ends_with(".husky")) {
        return Some(format!(
            "not executable, git leaves it out; run `chmod +x {}`",
            path.display()
        ));
    }
    let program = script::program(text, name)?;
    (!Path::new(&program).is_file()).then(|| {
        format!("it calls {program}, which is not there; run `leakwarden hook install` again")
    })
}

/// What else runs with it.
fn also(place: &Place, path: &Path, text: &[u8], name: HookName) -> String {
    let kept = path.with_file_name(script::kept_name(name));
    match place.whose {
        _ if script::is_ours(text) && kept.exists() => format!("it calls {} first", kept.display()),
        _ if script::hands_over(text) => "it calls the hook of the repository, too".to_owned(),
        Whose::Project => "a file of the project".to_owned(),
        _ => String::new(),
    }
}

fn text(found: &[Found], setting: Option<&str>) -> String {
    let mut text = String::new();
    for Found { name, state, path, note } in found {
        let state = match state {
            State::Installed => format!("installed in {}", path.display()),
            State::Absent => "not installed".to_owned(),
            State::Dead => format!("NOT RUN: {}", path.display()),
        };
        let note = if note.is_empty() { String::new() } else { format!("; {note}") };
        text.push_str(&format!("{:<12} {state}{note}\n", name.as_str()));
    }
    if let Some(setting) = setting {
        text.push_str(&format!("{setting}\n"));
    }
    text
}

fn document(found: &[Found], place: &Place, setting: Option<&str>) -> Value {
    let hooks: Vec<Value> = found
        .iter()
        .map(|Found { name, state, path, note }| {
            let state = match state {
                State::Installed => "installed",
                State::Absent => "absent",
                State::Dead => "not run",
            };
            let path = path.display().to_string();
            json!({ "hook": name.as_str(), "state": state, "path": path, "note": note })
        })
        .collect();
    let folder = place.folder.display().to_string();
    json!({ "folder": folder, "hooks_path": setting, "hooks": hooks })
}
