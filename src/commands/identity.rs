//! `leakwarden identity`: whom keys stand for.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Exit, Session, output};
use crate::cli::{self, IdentityDescribed, ListFormat, Scope};
use crate::clock::{self, display, rfc3339};
use crate::registry::access::Caller;
use crate::registry::identity::{Identity, IdentityKind, IdentityUpdate, NewIdentity};
use crate::registry::{KeysOf, Tx};
use crate::text::plural;

pub(super) fn run(command: cli::Identity) -> anyhow::Result<Exit> {
    match command {
        cli::Identity::Create { name, kind, described, scope, format } => {
            create(&name, kind, &described, &scope, format.format)
        }
        cli::Identity::List { kind, group, scope, format } => {
            list(kind, group.as_deref(), &scope, format.format)
        }
        cli::Identity::Show { identity, scope, format } => {
            let Session { mut registry, caller } = Session::open(&scope)?;
            let identity = registry.read(|tx| visible(tx, &identity, &caller))?;
            answer(&identity, format.format)
        }
        cli::Identity::Update { identity, name, described, if_version, scope, format } => {
            let Session { mut registry, caller } = Session::open(&scope)?;
            let update = update(name, &described);
            let identity = registry.write(|tx| {
                let identity = visible(tx, &identity, &caller)?;
                tx.update_identity(&identity, &update, if_version, &caller, clock::now())
            })?;
            answer(&identity, format.format)
        }
        cli::Identity::Delete {
            identity,
            reassign,
            disable_keys,
            reason,
            force,
            scope,
            format,
        } => {
            let keys = (reassign.as_deref(), disable_keys);
            delete(&identity, keys, (reason.as_str(), force), &scope, format.format)
        }
    }
}

/// The identity that is meant, if the caller may see it.
fn visible(tx: &Tx<'_>, text: &str, caller: &Caller) -> crate::registry::Result<Identity> {
    let account = tx.one_account(caller)?;
    tx.visible_identity(&account.id, text, caller)
}

fn create(
    name: &str,
    kind: IdentityKind,
    described: &IdentityDescribed,
    scope: &Scope,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let new = NewIdentity {
        name,
        kind,
        // A user that is named by an address has it.
        email: described
            .email
            .as_deref()
            .or_else(|| Some(name).filter(|name| kind == IdentityKind::User && name.contains('@'))),
        contact: described.contact.as_deref(),
        description: described.description.as_deref().unwrap_or_default(),
        federated: described.federated.unwrap_or_default(),
        manager: described.manager.as_deref(),
        parent: described.parent.as_deref(),
        os_user: described.os_user.as_deref(),
        groups: &described.group,
    };
    let identity = registry.write(|tx| {
        caller.must_administer("make identities")?;
        let account = tx.one_account(&caller)?;
        tx.create_identity(&account.id, &new, &caller, clock::now())
    })?;
    answer(&identity, format)
}

fn update(name: Option<String>, described: &IdentityDescribed) -> IdentityUpdate {
    let groups = &described.group;
    IdentityUpdate {
        name,
        email: described.email.clone(),
        contact: described.contact.clone(),
        description: described.description.clone(),
        federated: described.federated,
        manager: described.manager.clone(),
        parent: described.parent.clone(),
        os_user: described.os_user.clone(),
        groups: (!groups.is_empty())
            .then(|| groups.iter().filter(|group| !group.is_empty()).cloned().collect()),
    }
}

fn list(
    kind: Option<IdentityKind>,
    group: Option<&str>,
    scope: &Scope,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let mut identities = registry.read(|tx| {
        let account = tx.one_account(&caller)?;
        tx.identities(&account.id)
    })?;
    let in_group = |one: &Identity, group: &str| {
        one.groups.iter().any(|name| name.eq_ignore_ascii_case(group))
    };
    identities.retain(|one| {
        caller.sees(one)
            && kind.is_none_or(|kind| kind == one.kind)
            && group.is_none_or(|group| in_group(one, group))
    });
    match format {
        ListFormat::Json => {
            let identities: Vec<Value> = identities.iter().map(identity_json).collect();
            output::json(&json!({ "identities": identities }))?;
        }
        ListFormat::Text => {
            let mut text = String::new();
            for one in &identities {
                let told = one.email.as_deref().or(one.contact.as_deref()).unwrap_or("nobody");
                writeln!(text, "{:<32} {:<13} {told}  {}", one.name, one.kind, one.id)?;
            }
            if identities.is_empty() {
                text.push_str("no identities\n");
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

fn delete(
    identity: &str,
    (reassign, disable): (Option<&str>, bool),
    (reason, force): (&str, bool),
    scope: &Scope,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(scope)?;
    let found = registry.read(|tx| visible(tx, identity, &caller))?;
    let question = format!("Delete the {} {} for good?", found.kind, found.name);
    if !force && !output::confirm(&question)? {
        output::note("nothing was changed");
        return Ok(Exit::Found);
    }
    let count = registry.write(|tx| {
        let to = reassign.map(|to| tx.find_identity(&found.account_id, to)).transpose()?;
        let keys = match (&to, disable) {
            (Some(to), _) => KeysOf::Reassigned(to),
            (None, true) => KeysOf::Disabled,
            (None, false) => KeysOf::Nobody,
        };
        tx.delete_identity(&found, keys, (&caller, reason), clock::now())
    })?;
    let done = if reassign.is_some() { "handed on" } else { "disabled" };
    let keys =
        if count == 0 { String::new() } else { format!("; {} {done}", plural(count, "key")) };
    let value = json!({ "id": found.id, "name": found.name, "keys": count });
    output::answer(format, &format!("deleted {}{keys}", found.name), &value)?;
    Ok(Exit::Clean)
}

fn identity_json(one: &Identity) -> Value {
    json!({
        "id": one.id,
        "name": one.name,
        "kind": one.kind.as_str(),
        "email": one.email,
        "contact": one.contact,
        "description": one.description,
        "federated": one.federated,
        "manager_id": one.manager_id,
        "parent_id": one.parent_id,
        "os_user": one.os_user,
        "groups": one.groups,
        "grants": one.grants.iter().map(|grant| grant.as_str()).collect::<Vec<_>>(),
        "created_at": rfc3339(one.created_at),
        "created_by": one.created_by,
        "modified_at": rfc3339(one.modified_at),
        "modified_by": one.modified_by,
        "version": one.version,
    })
}

fn answer(one: &Identity, format: ListFormat) -> anyhow::Result<Exit> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let list = |words: Vec<&str>| {
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    };
    match format {
        ListFormat::Json => output::json(&identity_json(one))?,
        ListFormat::Text => output::print(&format!(
            "{}\nid           {}\nkind         {}{}\nemail        {}\ncontact      {}\n\
             description  {}\nmanager      {}\nparent       {}\nsystem user  {}\ngroups       {}\n\
             grants       {}\ncreated      {} by {}\nmodified     {} by {}\nversion      {}\n",
            one.name,
            one.id,
            one.kind,
            if one.federated { ", federated" } else { "" },
            or_none(&one.email),
            or_none(&one.contact),
            one.description,
            or_none(&one.manager_id),
            or_none(&one.parent_id),
            or_none(&one.os_user),
            list(one.groups.iter().map(String::as_str).collect()),
            list(one.grants.iter().map(|grant| grant.as_str()).collect()),
            display(one.created_at),
            one.created_by,
            display(one.modified_at),
            one.modified_by,
            one.version,
        ))?,
    }
    Ok(Exit::Clean)
}
