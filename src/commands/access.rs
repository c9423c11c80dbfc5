//! `leakwarden access` and `whoami`: who may do what.

use std::fmt::Write as _;

use serde_json::json;

use super::{Exit, Session, actor, output};
use crate::cli::{Access, ListFormat, Scope};
use crate::clock;
use crate::registry::access::Grant;

pub(super) fn run(command: &Access) -> anyhow::Result<Exit> {
    match command {
        Access::Grant { grant, identity, scope, format } => {
            change(scope, *grant, identity, true, format.format)
        }
        Access::Revoke { grant, identity, scope, format } => {
            change(scope, *grant, identity, false, format.format)
        }
        Access::List { scope, format } => list(scope, format.format),
    }
}

fn change(
    scope: &Scope,
    grant: Grant,
    identity: &str,
    given: bool,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let (name, changed) = registry.write(|tx| {
        let account = tx.one_account(&caller)?;
        let identity = tx.find_identity(&account.id, identity)?;
        let changed = match given {
            true => tx.grant(&identity, grant, &caller, clock::now())?,
            false => tx.revoke(&identity, grant, &caller, clock::now())?,
        };
        Ok((identity.name, changed))
    })?;
    if !changed {
        output::note("it was so already; nothing was changed");
    }
    let word = if given { "has now" } else { "has no longer" };
    let text = format!("{name} {word} the grant {grant}");
    let value =
        json!({ "identity": name, "grant": grant.as_str(), "granted": given, "changed": changed });
    output::answer(format, &text, &value)?;
    Ok(Exit::Clean)
}

fn list(scope: &Scope, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let (account, identities) = registry.read(|tx| {
        caller.must_administer("list the rights of others")?;
        let account = tx.one_account(&caller)?;
        let mut identities = tx.identities(&account.id)?;
        let owner = account.owner_id.as_ref();
        identities.retain(|one| !one.grants.is_empty() || owner == Some(&one.id));
        Ok((account, identities))
    })?;
    let words = |one: &crate::registry::identity::Identity| {
        let mut words: Vec<&str> = one.grants.iter().map(|grant| grant.as_str()).collect();
        if account.owner_id.as_ref() == Some(&one.id) {
            words.insert(0, "account owner");
        }
        words
    };
    match format {
        ListFormat::Json => {
            let rows: Vec<_> = identities
                .iter()
                .map(|one| json!({ "id": one.id, "name": one.name, "rights": words(one) }))
                .collect();
            output::json(&json!({ "account": account.name, "access": rows }))?;
        }
        ListFormat::Text => {
            let mut text = String::new();
            for one in &identities {
                writeln!(text, "{:<32} {}", one.name, words(one).join(", "))?;
            }
            if identities.is_empty() {
                text.push_str("nobody has more rights than over their own keys\n");
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

pub(super) fn whoami(scope: &Scope, format: ListFormat) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let (identity, accounts) = registry.read(|tx| {
        let identity = caller.identity.as_ref().map(|id| tx.identity(id)).transpose()?;
        Ok((identity, tx.accounts(&caller)?))
    })?;
    let mut rights: Vec<&str> = caller.grants.iter().map(|grant| grant.as_str()).collect();
    if caller.owns_account {
        rights.insert(0, "account owner");
    }
    if caller.is_operator() {
        rights.push("operator");
    }
    let accounts: Vec<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
    match format {
        ListFormat::Json => output::json(&json!({
            "os_user": actor(),
            "recorded_as": caller.actor,
            "identity": identity.as_ref().map(|one| json!({
                "id": one.id, "name": one.name, "kind": one.kind.as_str(), "email": one.email,
            })),
            "accounts": accounts,
            "rights": rights,
        }))?,
        ListFormat::Text => {
            let who = match &identity {
                Some(one) => format!("{} ({}, {})", one.name, one.kind, one.id),
                None => "no identity: you run this registry, and may do everything".to_owned(),
            };
            let rights =
                if rights.is_empty() { "over own keys only".into() } else { rights.join(", ") };
            output::print(&format!(
                "system user  {}\nidentity     {who}\nrecorded as  {}\naccount      {}\nrights       {rights}\n",
                actor(),
                caller.actor,
                accounts.join(", "),
            ))?;
        }
    }
    Ok(Exit::Clean)
}
