//! `leakwarden watch`: the daemon.

use std::path::Path;

use anyhow::Context as _;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use super::{Exit, init};
use crate::cli::{ListFormat, Watch};
use crate::config::Config;
use crate::daemon;
use crate::daemon::log;
use crate::registry::{Registry, folder};
use crate::shape::NoKeys;

pub(super) fn run(arguments: &Watch) -> anyhow::Result<Exit> {
    log::start(match arguments.log_format {
        ListFormat::Json => log::Form::Json,
        ListFormat::Text => log::Form::Text,
    });
    refuse_core_dumps()?;
    allow_many_files();
    let config = read(arguments)?;
    let mut files = super::all_rule_files(&config.rules)?;
    let matcher = super::matcher_of(files.clone())?;
    if config.create_if_missing && !config.registry.exists() {
        init::create(&config.registry, "default", &super::own_address())?;
        tracing::info!(folder = %config.registry.display(), "made a new registry");
    }
    if !folder::database(&config.registry).exists() {
        anyhow::bail!(crate::registry::RegistryError::Missing(config.registry));
    }
    let registry = Registry::open(&config.registry)?;
    let folder = config.registry;
    let shown = matcher.clone();
    let mut reread = || {
        reread(arguments, &folder, &mut files)
            .map_err(|error| shown.redact(super::explained(&error).as_bytes(), &NoKeys))
    };
    daemon::run(registry, &folder, matcher, config.daemon, &mut reread)?;
    Ok(Exit::Clean)
}

/// A configuration that watches something.
fn read(arguments: &Watch) -> anyhow::Result<Config> {
    let mut config = super::config::read_to_act(&arguments.config)?;
    let file = arguments.config.display();
    let watches = &mut config.daemon.watches;
    let stdin = daemon::Watch::stdin();
    if arguments.stdin && watches.iter().all(|watch| watch.name != stdin.name) {
        watches.push(stdin);
    }
    if watches.is_empty() {
        anyhow::bail!(
            "{file}: nothing is watched; add an entry with `files`, `logs`, `git`, `journald`, \
             `pipe` or `stdin` to `watch`"
        );
    }
    for watch in watches {
        watch.check().with_context(|| format!("{file}: watch"))?;
    }
    Ok(config)
}

/// What SIGHUP brings. `files` are the rules that are in use.
fn reread(
    arguments: &Watch,
    folder: &Path,
    files: &mut Vec<(String, String)>,
) -> anyhow::Result<daemon::Fresh> {
    let config = read(arguments)?;
    let now = super::all_rule_files(&config.rules)?;
    let changed = now != *files;
    let matcher = changed.then(|| super::matcher_of(now.clone())).transpose()?;
    *files = now;
    if config.registry != folder {
        tracing::warn!("`registry` changes with a restart only; the one that is open stays");
    }
    Ok(daemon::Fresh { options: config.daemon, matcher })
}

/// Logs stay open, each of them. What cannot be had is gone without.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// A core dump would hold the pepper and whatever was just read.
fn refuse_core_dumps() -> anyhow::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot switch off core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot switch off core dumps")
}
