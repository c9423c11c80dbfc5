//! Where a hook belongs, and whose place that is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::source::git::{self, HookPlaces, HooksPath};

/// Whose a folder of hooks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This clone's alone.
    Clone,
    /// The project's: it lies in the work tree, and others get it.
    Project,
    /// Somebody else's: other repositories use it too.
    Shared,
    /// All repositories of the user.
    Global,
}

/// A folder of hooks.
#[derive(Debug)]
pub(super) struct Place {
    /// Where ours belong.
    pub(super) folder: PathBuf,
    /// Where git looks; what is there leads on to `folder`.
    pub(super) looks: PathBuf,
    pub(super) whose: Whose,
    /// `core.hooksPath`, where it is set.
    pub(super) setting: Option<HooksPath>,
    /// Where git looks when it is not set.
    pub(super) usual: Option<PathBuf>,
    pub(super) bare: bool,
}

/// Where hooks of the repository around the current folder belong.
pub(super) fn here() -> anyhow::Result<Place> {
    let current = std::env::current_dir().context("cannot find the current folder")?;
    // Says it when there is no repository, or when it is somebody else's.
    git::Repository::open(&current)?;
    let places = HookPlaces::of(&current)?;
    let hooks = plain(&places.hooks);
    let whose = if hooks.starts_with(plain(&places.common)) {
        Whose::Clone
    } else if places.top.as_deref().is_some_and(|top| hooks.starts_with(plain(top))) {
        Whose::Project
    } else {
        Whose::Shared
    };
    let usual = plain(&places.common.join("hooks"));
    let ours = own_global().is_ok_and(|folder| plain(&folder) == hooks);
    let (folder, whose) = match (whose, of_husky(&hooks)) {
        (Whose::Project, Some(folder)) => (folder, whose),
        // Those call what is in the usual place.
        (Whose::Shared, _) if ours => (usual.clone(), Whose::Clone),
        _ => (hooks.clone(), whose),
    };
    let (setting, bare) = (places.setting, places.top.is_none());
    Ok(Place { folder, looks: hooks, whose, setting, usual: Some(usual), bare })
}

/// The folder for hooks of all repositories, made by `core.hooksPath` or to be made.
pub(super) fn global() -> anyhow::Result<Place> {
    let folder = match git::global_hooks() {
        Some(folder) => folder,
        None => own_global()?,
    };
    let looks = folder.clone();
    Ok(Place { folder, looks, whose: Whose::Global, setting: None, usual: None, bare: false })
}

/// Our own folder for hooks of all repositories.
pub(super) fn own_global() -> anyhow::Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = of("XDG_CONFIG_HOME").map(PathBuf::from);
    let Some(config) =
        config.or_else(|| of("HOME").map(|home| PathBuf::from(home).join(".config")))
    else {
        bail!("neither HOME nor XDG_CONFIG_HOME is set; nobody knows where your settings are");
    };
    Ok(config.join("leakwarden").join("hooks"))
}

/// husky makes the files in `.husky/_` anew as it likes; what they call stands one folder above.
fn of_husky(hooks: &Path) -> Option<PathBuf> {
    let parent = hooks.parent()?;
    (hooks.ends_with("_") && parent.ends_with(".husky")).then(|| parent.to_owned())
}

/// A path without links and dots, as far as it is there.
fn plain(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut at = path;
    loop {
        if let Ok(found) = at.canonicalize() {
            return rest.iter().rev().fold(found, |path: PathBuf, name| path.join(name));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                at = parent;
            }
            _ => return path.to_owned(),
        }
    }
}
