//! `leakwarden watch`: the daemon.

use anyhow::Context as _;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing_subscriber::EnvFilter;

use super::{Exit, init};
use crate::cli::{ListFormat, Watch};
use crate::registry::{Registry, folder};
use crate::{config, daemon};

pub(super) fn run(arguments: &Watch) -> anyhow::Result<Exit> {
    log_to_stderr(arguments.log_format);
    refuse_core_dumps()?;
    let config = config::read(&arguments.config)?;
    if config.daemon.watches.is_empty() {
        let file = arguments.config.display();
        anyhow::bail!(
            "{file}: nothing is watched; add an entry with `files`, `logs` or `git` to `watch`"
        );
    }
    let matcher = super::matcher(&config.rules)?;
    if config.create_if_missing && !config.registry.exists() {
        init::create(&config.registry, "default", &super::own_address())?;
        tracing::info!(folder = %config.registry.display(), "made a new registry");
    }
    if !folder::database(&config.registry).exists() {
        anyhow::bail!(crate::registry::RegistryError::Missing(config.registry));
    }
    let registry = Registry::open(&config.registry)?;
    daemon::run(registry, &config.registry, &matcher, config.daemon)?;
    Ok(Exit::Clean)
}

/// LEAKWARDEN_LOG chooses the level: error, warn, info (the default), debug, trace. It is that of
/// leakwarden itself: libraries log file names, which are not redacted, and stay at warn.
fn log_to_stderr(format: ListFormat) {
    let level = std::env::var("LEAKWARDEN_LOG").ok();
    let level = level.as_deref().and_then(|level| level.parse::<tracing::Level>().ok());
    let level = level.unwrap_or(tracing::Level::INFO);
    let filter = EnvFilter::new(format!("warn,leakwarden={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        ListFormat::Json => builder.json().init(),
        ListFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).init();
        }
    }
}

/// A core dump would hold the pepper and whatever was just read.
fn refuse_core_dumps() -> anyhow::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot switch off core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot switch off core dumps")
}
