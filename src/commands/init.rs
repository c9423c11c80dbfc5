//! `leakwarden init`: a new installation.

use std::path::Path;

use super::{Exit, actor, output, own_address};
use crate::cli::Init;
use crate::clock;
use crate::registry::{Registry, Setup, folder};

const CONFIG: &str = include_str!("init.yaml");

pub(super) fn run(arguments: &Init) -> anyhow::Result<Exit> {
    let dir = &arguments.dir;
    let config = dir.join("config.yaml");
    if config.exists() {
        anyhow::bail!(crate::registry::RegistryError::Exists(dir.clone()));
    }
    let admin = arguments.admin.clone().unwrap_or_else(own_address);
    create(dir, &arguments.account, &admin)?;
    folder::write_new(&config, CONFIG.as_bytes())?;
    let shown = dir.display();
    output::print(&format!(
        "made a registry in {shown}; its administrator is {admin}\n\n\
         Next:\n  \
         export LEAKWARDEN_REGISTRY={shown}\n  \
         leakwarden key create my-first-key -d 'what it is for' --owner you@example.com\n  \
         edit {shown}/config.yaml: say what is watched, and by whom mail is sent\n  \
         leakwarden watch --config {shown}/config.yaml     (observes; that file says how to go on)\n\n\
         Back up {shown}/pepper apart from the database: without it no key is ever recognised.\n"
    ))?;
    Ok(Exit::Clean)
}

/// Makes the registry alone.
pub(super) fn create(dir: &Path, account: &str, admin: &str) -> anyhow::Result<Registry> {
    let setup = Setup { account: account.to_owned(), admin: admin.to_owned(), actor: actor() };
    Ok(Registry::init(dir, &setup, clock::now())?)
}
