//! `leakwarden key`: issue, register and manage keys.

mod import;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Exit, actor, open, output, own_address};
use crate::cli::{self, Described, KeyArg, ListFormat};
use crate::clock::{self, display, rfc3339};
use crate::registry::key::{Key, State, Status};
use crate::registry::{
    Change, Material, NewKey, Registry, folder, generate_ibm_like, generate_own,
};
use crate::rule::RuleSet;
use crate::secret::Secret;
use crate::shape::KEY_MAX;

pub(super) fn run(command: cli::Key) -> anyhow::Result<Exit> {
    match command {
        cli::Key::Create(create) => self::create(&create),
        cli::Key::Register(register) => self::register(&register.described),
        cli::Key::Import { file, all_or_nothing, registry, format } => {
            import::run(&mut open(&registry)?, &file, all_or_nothing, format.format)
        }
        cli::Key::List { all, registry, format } => list(&mut open(&registry)?, all, format.format),
        cli::Key::Show(argument) => show(&argument),
        cli::Key::Verify { registry, format } => verify(&mut open(&registry)?, format.format),
        cli::Key::Lock(argument) => lock(&argument, true),
        cli::Key::Unlock(argument) => lock(&argument, false),
        cli::Key::Disable(argument) => set_state(&argument, State::Disabled, true),
        cli::Key::Enable(argument) => set_state(&argument, State::Active, true),
        cli::Key::Delete { key, force } => set_state(&key, State::Deleted, force),
    }
}

/// Homes as absolute globs: a key's home does not depend on where the command was given.
fn homes(described: &Described) -> anyhow::Result<Vec<String>> {
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    let absolute = |glob: &String| match glob.starts_with("**") {
        true => glob.clone(),
        false => crate::source::absolute(&here, Path::new(glob)).to_string_lossy().into_owned(),
    };
    Ok(described.home.iter().map(absolute).collect())
}

fn new_key<'a>(
    described: &'a Described,
    owner: &'a str,
    homes: &'a [String],
    source: &'a str,
    hint: &'a str,
) -> NewKey<'a> {
    NewKey {
        name: &described.name,
        description: &described.description,
        owner,
        kind: described.kind,
        leak_action: described.action_if_leaked,
        locked: described.lock,
        expires_at: described.expires,
        homes,
        source,
        hint,
    }
}

fn create(arguments: &cli::Create) -> anyhow::Result<Exit> {
    let described = &arguments.described;
    let mut registry = open(&described.registry)?;
    let prefix = registry.read(|tx| tx.key_prefix())?;
    let (secret, public) = match arguments.like {
        Some(cli::Like::Ibm) => (generate_ibm_like()?, String::new()),
        None => generate_own(&prefix, described.kind)?,
    };
    let hint = secret.hint(&public);
    let owner = described.owner.clone().unwrap_or_else(own_address);
    let shown = Zeroizing::new(
        std::str::from_utf8(secret.expose()).context("a key is made of ASCII")?.to_owned(),
    );
    // The file comes first: a key that nobody can read must not be in the registry.
    if let Some(file) = &arguments.file {
        folder::write_new(file, format!("{}\n", &*shown).as_bytes())?;
    }
    let homes = homes(described)?;
    let new = new_key(described, &owner, &homes, "created", &hint);
    let material = Material::Plain(secret);
    let added = registry.write(|tx| tx.add_key(&new, &material, &actor(), clock::now()));
    let key = match (added, &arguments.file) {
        (Ok(key), _) => key,
        (Err(error), Some(file)) => {
            std::fs::remove_file(file).context("cannot remove the key file again")?;
            return Err(error.into());
        }
        (Err(error), None) => return Err(error.into()),
    };
    match described.format.format {
        ListFormat::Json => {
            let mut answer = key_json(&key, clock::now());
            if arguments.file.is_none()
                && let Some(fields) = answer.as_object_mut()
            {
                fields.insert("key".to_owned(), Value::String(shown.to_string()));
            }
            output::json(&answer)?;
        }
        ListFormat::Text => {
            let mut text = Zeroizing::new(show_text(&key, clock::now()));
            match &arguments.file {
                Some(file) => writeln!(text, "\nThe key is in {}.", file.display())?,
                None => writeln!(text, "\nThe key, shown this once:\n{}", &*shown)?,
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

fn register(described: &Described) -> anyhow::Result<Exit> {
    let mut registry = open(&described.registry)?;
    let secret = key_from_stdin()?;
    let hint = hint_of(&secret)?;
    let owner = described.owner.clone().unwrap_or_else(own_address);
    let homes = homes(described)?;
    let new = new_key(described, &owner, &homes, "registered", &hint);
    let material = Material::Plain(secret);
    let key = registry.write(|tx| tx.add_key(&new, &material, &actor(), clock::now()))?;
    answer(&key, described.format.format)
}

/// The hint of a key that was issued elsewhere: with its prefix where a rule knows it.
fn hint_of(secret: &Secret) -> anyhow::Result<String> {
    let rules = RuleSet::builtin();
    Ok(secret.hint(rules.public_prefix(secret.expose())))
}

/// One key from standard input, without the newline behind it.
fn key_from_stdin() -> anyhow::Result<Secret> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_MAX + 2));
    std::io::stdin()
        .take(KEY_MAX as u64 + 2)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    if key.is_empty() {
        bail!("no key on standard input; for example `printf %s \"$KEY\" | leakwarden key …`");
    }
    Ok(Secret::copy_of(key))
}

fn list(registry: &mut Registry, all: bool, format: ListFormat) -> anyhow::Result<Exit> {
    let keys = registry.read(|tx| tx.keys(all))?;
    let now = clock::now();
    match format {
        ListFormat::Json => {
            let keys: Vec<Value> = keys.iter().map(|key| key_json(key, now)).collect();
            output::json(&json!({ "keys": keys }))?;
        }
        ListFormat::Text => {
            let mut text = String::new();
            for key in &keys {
                let locked = if key.locked { " locked" } else { "" };
                let leaked = if key.leaked_at.is_some() { " LEAKED" } else { "" };
                writeln!(
                    text,
                    "{:<24} {:<9}{locked}{leaked} {}  {}  on leak: {}  {}",
                    key.name,
                    key.status(now),
                    key.hint,
                    key.owner,
                    key.leak_action,
                    key.id
                )?;
            }
            if keys.is_empty() {
                text.push_str("no keys; make one with `leakwarden key create NAME`\n");
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

fn show(argument: &KeyArg) -> anyhow::Result<Exit> {
    let key = open(&argument.registry)?.read(|tx| tx.find_key(&argument.key))?;
    answer(&key, argument.format.format)
}

fn answer(key: &Key, format: ListFormat) -> anyhow::Result<Exit> {
    match format {
        ListFormat::Json => output::json(&key_json(key, clock::now()))?,
        ListFormat::Text => output::print(&show_text(key, clock::now()))?,
    }
    Ok(Exit::Clean)
}

fn verify(registry: &mut Registry, format: ListFormat) -> anyhow::Result<Exit> {
    let secret = key_from_stdin()?;
    let key = registry.read(|tx| {
        let digest = tx.keyring().digest(secret.expose());
        tx.key_by_digest(&digest)
    })?;
    let now = clock::now();
    let status = key.as_ref().map(|key| key.status(now));
    let word = status.map_or("unknown", Status::as_str);
    match (format, &key) {
        (ListFormat::Json, _) => {
            let key = key.as_ref().map(|key| key_json(key, now));
            output::json(&json!({ "status": word, "key": key }))?;
        }
        (ListFormat::Text, Some(key)) => {
            output::print(&format!("{word}  {} ({}), owner {}\n", key.name, key.id, key.owner))?;
        }
        (ListFormat::Text, None) => output::print("unknown\n")?,
    }
    Ok(if status == Some(Status::Active) { Exit::Clean } else { Exit::Found })
}

fn lock(argument: &KeyArg, locked: bool) -> anyhow::Result<Exit> {
    change(argument, |registry, key| {
        registry.write(|tx| tx.set_locked(key, locked, &actor(), clock::now()))
    })
}

fn set_state(argument: &KeyArg, state: State, force: bool) -> anyhow::Result<Exit> {
    let mut registry = open(&argument.registry)?;
    let key = registry.read(|tx| tx.find_key(&argument.key))?;
    let ask = state == State::Deleted && key.state != State::Deleted && !key.locked;
    if ask && !force && !output::confirm(&format!("Delete {} ({}) for good?", key.name, key.id))? {
        output::note("nothing was changed");
        return Ok(Exit::Found);
    }
    change(argument, |registry, key| {
        registry.write(|tx| {
            let changed = tx.set_state(key, state, &actor(), "command line", clock::now())?;
            if state == State::Active {
                let why = format!("not done: {} enabled the key", actor());
                tx.close_enabled(key, &why, clock::now())?;
            }
            Ok(changed)
        })
    })
}

/// Changes a key and shows it as it is then.
fn change(
    argument: &KeyArg,
    work: impl FnOnce(&mut Registry, &Key) -> crate::registry::Result<Change>,
) -> anyhow::Result<Exit> {
    let mut registry = open(&argument.registry)?;
    let key = registry.read(|tx| tx.find_key(&argument.key))?;
    if work(&mut registry, &key)? == Change::Already {
        output::note(&format!("{} was so already; nothing was changed", key.name));
    }
    let key = registry.read(|tx| tx.key(&key.id))?;
    answer(&key, argument.format.format)
}

fn key_json(key: &Key, now: Timestamp) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "description": key.description,
        "kind": key.kind.as_str(),
        "class": key.class.as_str(),
        "owner": key.owner,
        "state": key.status(now).as_str(),
        "locked": key.locked,
        "leak_action": key.leak_action.as_str(),
        "hint": key.hint,
        "homes": key.homes,
        "source": key.source,
        "expires_at": key.expires_at.map(rfc3339),
        "created_at": rfc3339(key.created_at),
        "created_by": key.created_by,
        "modified_at": rfc3339(key.modified_at),
        "modified_by": key.modified_by,
        "leaked_at": key.leaked_at.map(rfc3339),
    })
}

fn show_text(key: &Key, now: Timestamp) -> String {
    let when = |time: Option<Timestamp>| time.map_or_else(|| "never".to_owned(), display);
    let locked = if key.locked { ", locked" } else { "" };
    let homes = if key.homes.is_empty() { "none".to_owned() } else { key.homes.join(", ") };
    format!(
        "{name}\n\
         id           {id}\n\
         description  {description}\n\
         kind         {kind}, {class}\n\
         owner        {owner}\n\
         state        {state}{locked}\n\
         on leak      {leak_action}\n\
         looks like   {hint}\n\
         homes        {homes}\n\
         expires      {expires}\n\
         created      {created} by {created_by} ({source})\n\
         modified     {modified} by {modified_by}\n\
         leaked       {leaked}\n",
        name = key.name,
        id = key.id,
        description = key.description,
        kind = key.kind,
        class = key.class,
        owner = key.owner,
        state = key.status(now),
        leak_action = key.leak_action,
        hint = key.hint,
        expires = when(key.expires_at),
        created = display(key.created_at),
        created_by = key.created_by,
        source = key.source,
        modified = display(key.modified_at),
        modified_by = key.modified_by,
        leaked = when(key.leaked_at),
    )
}
