//! `leakwarden config check`.

use std::path::Path;

use super::{Exit, output};
use crate::cli::Config;
use crate::config;
use crate::incident::Mode;

pub(super) fn run(command: &Config) -> anyhow::Result<Exit> {
    let Config::Check { file } = command;
    let config = config::read(file)?;
    let rules = super::matcher(&config.rules)?.rules().rules().len();
    let mode = match config.daemon.ledger.policy.mode {
        Mode::Observe => "observe",
        Mode::Act => "act",
    };
    let watches = config.daemon.watches.len();
    output::print(&format!(
        "{} is right: mode {mode}, {}, {rules} rules, registry in {}\n",
        file.display(),
        if watches == 1 { "1 watch".to_owned() } else { format!("{watches} watches") },
        config.registry.display()
    ))?;
    if config.lacks_password {
        output::note(&format!(
            "note: mail.smtp has no `password_file`; the service manager has to hand over the \
             credential {}",
            config::PASSWORD_CREDENTIAL
        ));
    }
    if watches == 0 {
        output::note("note: nothing is watched; add a `watch` entry");
    }
    Ok(Exit::Clean)
}

/// A configuration that is acted by: nothing is left for the service manager to hand over.
pub(super) fn read_to_act(file: &Path) -> anyhow::Result<config::Config> {
    let config = config::read(file)?;
    if config.lacks_password {
        anyhow::bail!(
            "{}: mail.smtp: `username` needs a `password_file`, or the credential {} of the \
             service manager",
            file.display(),
            config::PASSWORD_CREDENTIAL
        );
    }
    Ok(config)
}
