//! `leakwarden account`: tenants and their settings.

use serde_json::{Value, json};

use super::{Exit, Session, output};
use crate::cli::{self, AccountChange, ListFormat, Restricted};
use crate::clock::{self, display, rfc3339};
use crate::registry::access::{Grant, Restrictions};
use crate::registry::account::{Account, AccountUpdate};

pub(super) fn run(command: cli::Account) -> anyhow::Result<Exit> {
    match command {
        cli::Account::Create { name, owner, scope, format } => {
            let Session { mut registry, caller } = Session::open(&scope)?;
            let account =
                registry.write(|tx| tx.create_account(&name, &owner, &caller, clock::now()))?;
            answer(&account, format.format)
        }
        cli::Account::List { scope, format } => {
            let Session { mut registry, caller } = Session::open(&scope)?;
            let accounts = registry.read(|tx| tx.accounts(&caller))?;
            match format.format {
                ListFormat::Json => {
                    let accounts: Vec<Value> = accounts.iter().map(account_json).collect();
                    output::json(&json!({ "accounts": accounts }))?;
                }
                ListFormat::Text => {
                    let lines: String = accounts
                        .iter()
                        .map(|one| format!("{:<24} {}\n", one.name, one.id))
                        .collect();
                    output::print(&lines)?;
                }
            }
            Ok(Exit::Clean)
        }
        cli::Account::Show { scope, format } => {
            let Session { mut registry, caller } = Session::open(&scope)?;
            let account = registry.read(|tx| tx.one_account(&caller))?;
            answer(&account, format.format)
        }
        cli::Account::Update { change, scope, format } => {
            let Session { mut registry, caller } = Session::open(&scope)?;
            let update = update(&change)?;
            let account = registry.write(|tx| {
                let account = tx.one_account(&caller)?;
                let now = clock::now();
                for admin in &change.admin {
                    let admin = tx.find_identity(&account.id, admin)?;
                    tx.grant(&admin, Grant::Administrator, &caller, now)?;
                }
                tx.update_account(&account, &update, change.if_version, &caller, now)
            })?;
            answer(&account, format.format)
        }
    }
}

fn update(change: &AccountChange) -> anyhow::Result<AccountUpdate> {
    let said = &change.restrict_key_creation;
    if said.contains(&Restricted::None) && said.len() > 1 {
        anyhow::bail!("--restrict-key-creation: `none` goes with nothing else");
    }
    let restrictions = (!said.is_empty()).then(|| Restrictions {
        user_keys: said.contains(&Restricted::User),
        service_keys: said.contains(&Restricted::ServiceId),
    });
    Ok(AccountUpdate {
        name: change.name.clone(),
        owner: change.owner.clone(),
        max_keys: change.max_keys,
        key_prefix: change.key_prefix.clone(),
        restrictions,
    })
}

fn account_json(account: &Account) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "owner": account.owner,
        "key_prefix": account.key_prefix,
        "max_keys": account.max_keys,
        "restrict_key_creation": account.restricted(),
        "created_at": rfc3339(account.created_at),
        "version": account.version,
    })
}

fn answer(account: &Account, format: ListFormat) -> anyhow::Result<Exit> {
    let restricted = match account.restricted() {
        words if words.is_empty() => "none".to_owned(),
        words => words.join(", "),
    };
    match format {
        ListFormat::Json => output::json(&account_json(account))?,
        ListFormat::Text => output::print(&format!(
            "{}\nid           {}\nowner        {}\nkey prefix   {}\nmax keys     {} an identity\n\
             restricted   {restricted}\ncreated      {}\nversion      {}\n",
            account.name,
            account.id,
            account.owner.as_deref().unwrap_or("nobody"),
            account.key_prefix,
            account.max_keys,
            display(account.created_at),
            account.version,
        ))?,
    }
    Ok(Exit::Clean)
}
