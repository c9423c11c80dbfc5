//! `leakwarden key`: issue, register and manage keys.

mod change;
mod import;
mod show;

use std::io::Read as _;

use anyhow::{Context as _, bail};
use serde_json::Value;
use zeroize::Zeroizing;

use super::home::absolute;
use super::{Exit, Session, output, own_address};
use crate::cli::{self, Described, ListFormat};
use crate::clock;
use crate::registry::access::Caller;
use crate::registry::key::{Arrival, Key, KeyKind, LeakAction, State};
use crate::registry::{Material, NewKey, Registry, folder, generate_ibm_like, generate_own};
use crate::rule::RuleSet;
use crate::secret::Secret;
use crate::shape::KEY_MAX;

pub(super) use show::key_json;

pub(super) fn run(command: cli::Key) -> anyhow::Result<Exit> {
    match command {
        cli::Key::Create(create) => self::create(&create),
        cli::Key::Register { described } => register(&described),
        cli::Key::Import {
            file,
            all_or_nothing,
            source,
            prune,
            prune_max,
            force,
            csv,
            scope,
            format,
        } => {
            let source = source.as_deref();
            let prune = import::Prune { asked: prune, max: prune_max, force };
            let options = import::Options { all_or_nothing, source, prune, csv };
            import::run(&mut Session::open(&scope)?, &file, &options, format.format)
        }
        cli::Key::Export { list, csv } => show::export(&list, csv),
        cli::Key::Rotate { key, overlap, made, expires, reason, scope, format } => {
            let rotation = change::Rotation { key: &key, overlap, expires, reason: &reason };
            change::rotate(&mut Session::open(&scope)?, &rotation, &made, format.format)
        }
        cli::Key::List { list, format } => show::list(&list, format.format),
        cli::Key::Show(argument) => show::show(&argument),
        cli::Key::Update(update) => change::update(&update),
        cli::Key::Verify { many, no_count, scope, format } => {
            show::verify(Session::open(&scope)?, many, !no_count, format.format)
        }
        cli::Key::Lock(switched) => change::lock(&switched.key, true),
        cli::Key::Unlock(switched) => change::lock(&switched.key, false),
        cli::Key::Disable(switched) => change::set_state(&switched.key, State::Disabled, true),
        cli::Key::Enable(switched) => change::set_state(&switched.key, State::Active, true),
        cli::Key::Delete { key, force } => change::set_state(&key, State::Deleted, force),
    }
}

/// What nobody said otherwise: a leak disables; of a classic key it can only be told.
fn default_action(kind: KeyKind) -> LeakAction {
    if kind == KeyKind::Classic { LeakAction::None } else { LeakAction::Disable }
}

/// The owner who was given; without one, whoever calls.
fn owner_of(described: &Described, caller: &Caller) -> String {
    let own = || caller.identity.clone().unwrap_or_else(own_address);
    described.owner.clone().unwrap_or_else(own)
}

fn new_key<'a>(
    described: &'a Described,
    owner: &'a str,
    homes: &'a [String],
    arrival: Arrival,
    hint: &'a str,
) -> NewKey<'a> {
    let action = described.action_if_leaked;
    NewKey {
        name: &described.name,
        description: &described.description,
        owner,
        kind: described.kind,
        class: described.class,
        service: &described.service,
        leak_action: action.unwrap_or_else(|| default_action(described.kind)),
        locked: described.lock,
        expires_at: described.expires,
        homes,
        executor: &described.executor,
        arrival,
        origin: "",
        remote_id: described.remote_id.as_deref(),
        import: None,
        replaces: None,
        hint,
    }
}

/// A new key on its way to whoever asked for it: shown once, or in a file.
struct Fresh<'a> {
    shown: Zeroizing<String>,
    hint: String,
    made: &'a cli::Made,
}

impl<'a> Fresh<'a> {
    fn generate(
        made: &'a cli::Made,
        prefix: &str,
        kind: KeyKind,
    ) -> anyhow::Result<(Self, Material)> {
        let (secret, public) = match made.like {
            Some(cli::Like::Ibm) => (generate_ibm_like()?, String::new()),
            None => generate_own(prefix, kind)?,
        };
        let shown = std::str::from_utf8(secret.expose()).context("a key is made of ASCII")?;
        let shown = Zeroizing::new(shown.to_owned());
        let hint = secret.hint(&public);
        Ok((Self { shown, hint, made }, Material::Plain(secret)))
    }

    /// Puts it into the registry. The file comes first: a key that nobody can read must not be
    /// there.
    fn keep(&self, add: impl FnOnce() -> crate::registry::Result<Key>) -> anyhow::Result<Key> {
        let Some(file) = &self.made.file else { return Ok(add()?) };
        folder::write_new(file, format!("{}\n", &*self.shown).as_bytes())?;
        match add() {
            Ok(key) => Ok(key),
            Err(error) => {
                std::fs::remove_file(file).context("cannot remove the key file again")?;
                Err(error.into())
            }
        }
    }

    fn answer(&self, key: &Key, format: ListFormat) -> anyhow::Result<Exit> {
        match format {
            ListFormat::Json => {
                let mut answer = key_json(key, clock::now());
                if self.made.file.is_none()
                    && let Some(fields) = answer.as_object_mut()
                {
                    fields.insert("key".to_owned(), Value::String(self.shown.to_string()));
                }
                output::json(&answer)?;
            }
            ListFormat::Text => {
                let mut text = Zeroizing::new(show::key_text(key, clock::now()));
                match &self.made.file {
                    Some(file) => text.push_str(&format!("\nThe key is in {}.\n", file.display())),
                    None => {
                        text.push_str("\nThe key, shown this once:\n");
                        text.push_str(&self.shown);
                        text.push('\n');
                    }
                }
                output::print(&text)?;
            }
        }
        Ok(Exit::Clean)
    }
}

/// Homes as absolute globs: a key's home does not depend on where the command was given.
fn homes(globs: &[String]) -> anyhow::Result<Vec<String>> {
    globs.iter().filter(|glob| !glob.is_empty()).map(|glob| absolute(glob)).collect()
}

fn create(arguments: &cli::Create) -> anyhow::Result<Exit> {
    let described = &arguments.described;
    let Session { mut registry, caller } = Session::open(&described.scope)?;
    let account = registry.read(|tx| tx.one_account(&caller))?;
    let (fresh, material) = Fresh::generate(&arguments.made, &account.key_prefix, described.kind)?;
    let owner = owner_of(described, &caller);
    let homes = homes(&described.home)?;
    let new = new_key(described, &owner, &homes, Arrival::Created, &fresh.hint);
    let key = fresh.keep(|| {
        registry.write(|tx| tx.key(&tx.add_key(&new, &material, &caller, clock::now())?.id))
    })?;
    fresh.answer(&key, described.format.format)
}

fn register(described: &Described) -> anyhow::Result<Exit> {
    let Session { mut registry, caller } = Session::open(&described.scope)?;
    let secret = from_stdin()?;
    let hint = hint_of(&secret);
    let owner = owner_of(described, &caller);
    let homes = homes(&described.home)?;
    let new = new_key(described, &owner, &homes, Arrival::Registered, &hint);
    let material = Material::Plain(secret);
    let now = clock::now();
    let (key, raised) = registry.write(|tx| {
        let added = tx.add_key(&new, &material, &caller, now)?;
        let raised = tx.raise_remembered(&added, now)?;
        if !is_known_to_rules(&hint) {
            tx.meet_strangers()?;
        }
        Ok((tx.key(&added.id)?, raised))
    })?;
    warn_of_many(&mut registry, &key)?;
    if raised {
        output::note("this key was seen before it was registered: see `leakwarden leak list`");
    }
    show::answer(&key, described.format.format)
}

/// Only `create` refuses more keys than an identity may have.
fn warn_of_many(registry: &mut Registry, key: &Key) -> anyhow::Result<()> {
    let (count, max) = registry.read(|tx| {
        let identity = tx.identity(&key.identity_id)?;
        Ok((tx.key_count_of(&identity, None)?, tx.account(&key.account_id)?.max_keys))
    })?;
    if count > max {
        let owner = &key.identity;
        output::note(&format!("{owner} has {count} keys now, more than the {max} of the account"));
    }
    Ok(())
}

/// The hint of a key that was issued elsewhere: with its prefix where a rule knows it.
fn hint_of(secret: &Secret) -> String {
    secret.hint(RuleSet::builtin().public_prefix(secret.expose()))
}

/// Whether a rule recognises the key with this hint. One that none does is remembered by nobody who
/// sees it before it is registered.
fn is_known_to_rules(hint: &str) -> bool {
    !hint.starts_with('…')
}

/// One key from standard input, without the newline behind it.
pub(super) fn from_stdin() -> anyhow::Result<Secret> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_MAX + 2));
    std::io::stdin()
        .take(KEY_MAX as u64 + 2)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    let key = without_newline(&bytes);
    if key.is_empty() {
        bail!("no key on standard input; for example `printf %s \"$KEY\" | leakwarden key …`");
    }
    Ok(Secret::copy_of(key))
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let key = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    key.strip_suffix(b"\r").unwrap_or(key)
}
