//! `leakwarden key import`: many keys, a JSON object or a row of a table each.

mod line;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::json;

use self::line::{Line, Lines, Numbered, refusal};
use super::super::{Exit, Session, output, own_address};
use super::is_known_to_rules;
use crate::cli::ListFormat;
use crate::clock;
use crate::registry::access::Caller;
use crate::registry::key::{Arrival, Class, Key, LeakAction, State};
use crate::registry::{
    Change, Holders, KeyUpdate, Material, NewKey, Registry, RegistryError, Result, Tx,
};
use crate::rule::RuleSet;
use crate::text::{grouped, plural};

/// Lines that are written in one transaction: each writes nearly all pages of the indexes, as ids
/// and digests are random. Others wait that long, a second or two.
const COMMIT_LINES: usize = 50_000;
/// A source of which more than one in so many keys is missing is not pruned.
const PRUNE_ONE_IN: u64 = 20;

/// How to import.
pub(super) struct Options<'a> {
    pub(super) all_or_nothing: bool,
    pub(super) source: Option<&'a str>,
    pub(super) prune: Prune,
    pub(super) csv: bool,
}

/// Whether to delete what the file does not name.
#[derive(Clone, Copy)]
pub(super) struct Prune {
    pub(super) asked: bool,
    /// So many at most, although they are more than the brake allows.
    pub(super) max: Option<u64>,
    /// Without asking.
    pub(super) force: bool,
}

pub(super) fn run(
    session: &mut Session,
    file: &Path,
    options: &Options<'_>,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let Session { registry, caller } = session;
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let is_csv =
        options.csv || file.extension().is_some_and(|name| name.eq_ignore_ascii_case("csv"));
    let lines = if is_csv { Lines::csv(input)? } else { Lines::json(input) };
    registry.make_room()?;
    let account = registry.read(|tx| {
        caller.must_administer("import keys")?;
        tx.one_account(caller)
    })?;
    caller.account = Some(account.id);
    let mut import = Import {
        lines,
        caller,
        rules: RuleSet::builtin(),
        owner: own_address(),
        source: options.source.unwrap_or_default(),
        run: None,
        holders: Holders::default(),
        strangers: false,
        done: Counts::default(),
        refused: Vec::new(),
    };
    if !import.source.is_empty() {
        import.run =
            Some(registry.write(|tx| tx.begin_import(import.source, import.caller, clock::now()))?);
    }
    if options.all_or_nothing {
        import.all_or_nothing(registry)?;
    } else {
        while import.some(registry)? {}
    }
    let pruned = match options.prune.asked {
        true => import.prune(registry, options.prune),
        false => Ok(Pruned::default()),
    };
    let shown = pruned.as_ref().copied().unwrap_or_default();
    import.tell(format, shown)?;
    pruned?;
    Ok(if import.refused.is_empty() { Exit::Clean } else { Exit::Incomplete })
}

#[derive(Clone, Copy, Default)]
struct Counts {
    imported: u64,
    /// Known by their remote id, and changed.
    updated: u64,
    /// Known, and as the line says.
    unchanged: u64,
    /// Of the imported ones: only the SHA-256 is known.
    hashed: u64,
    /// Of the imported ones: seen before.
    seen: u64,
}

#[derive(Clone, Copy, Default)]
struct Pruned {
    deleted: u64,
    locked: u64,
}

struct Import<'a> {
    lines: Lines,
    caller: &'a Caller,
    rules: RuleSet,
    owner: String,
    source: &'a str,
    run: Option<i64>,
    /// Of the transaction that is open.
    holders: Holders,
    /// Whether keys came with it that no rule knows.
    strangers: bool,
    done: Counts,
    refused: Vec<(u64, String)>,
}

impl Import<'_> {
    /// Imports some lines in one transaction; `false`: that was all.
    fn some(&mut self, registry: &mut Registry) -> anyhow::Result<bool> {
        // Read first: a slow input must not hold up the daemon with an open transaction.
        let mut lines = Vec::new();
        while lines.len() < COMMIT_LINES
            && let Some(line) = self.lines.next()?
        {
            lines.push(line);
        }
        let more = lines.len() == COMMIT_LINES;
        if !self.at_once(registry, &lines)? {
            registry.write(|tx| self.one_by_one(tx, &lines))?;
        }
        Ok(more)
    }

    /// Imports lines in one transaction if there is no fault in any; `false`: nothing was done. To
    /// be able to take back each line by itself costs far more than the lines.
    fn at_once(&mut self, registry: &mut Registry, lines: &[Numbered]) -> Result<bool> {
        let before = self.done;
        self.holders = Holders::default();
        let outcome = registry.write(|tx| {
            lines.iter().try_for_each(|(_, line)| match line {
                Ok(line) => self.take(tx, line),
                Err(_) => Err(refusal("a line cannot be read")),
            })?;
            self.tell_watches(tx)
        });
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if is_fault_of_line(&error) => {
                self.done = before;
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    fn all_or_nothing(&mut self, registry: &mut Registry) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        while let Some(line) = self.lines.next()? {
            lines.push(line);
        }
        if self.at_once(registry, &lines)? {
            return Ok(());
        }
        let outcome = registry.write(|tx| {
            self.one_by_one(tx, &lines)?;
            if self.refused.is_empty() { Ok(()) } else { Err(refusal("nothing imported")) }
        });
        if !self.refused.is_empty() {
            self.done = Counts::default();
            return Ok(());
        }
        Ok(outcome?)
    }

    fn one_by_one(&mut self, tx: &Tx<'_>, lines: &[Numbered]) -> Result<()> {
        self.holders = Holders::default();
        lines.iter().try_for_each(|line| self.one(tx, line))?;
        self.tell_watches(tx)
    }

    fn tell_watches(&mut self, tx: &Tx<'_>) -> Result<()> {
        if std::mem::take(&mut self.strangers) { tx.meet_strangers() } else { Ok(()) }
    }

    /// One line; a fault of the line is noted, one of the database ends the import.
    fn one(&mut self, tx: &Tx<'_>, (number, line): &Numbered) -> Result<()> {
        let before = self.done;
        let outcome = match line {
            Ok(line) => tx.part(|tx| self.take(tx, line)),
            Err(fault) => Err(refusal(&fault.to_string())),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if is_fault_of_line(&error) => {
                self.done = before;
                // Whoever was made for the line is gone again.
                self.holders = Holders::default();
                let why = error.to_string();
                let why = why.strip_prefix("refused: ").filter(|_| line.is_err()).unwrap_or(&why);
                self.refused.push((*number, why.to_owned()));
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn take(&mut self, tx: &Tx<'_>, line: &Line) -> Result<()> {
        let material = line.material()?;
        if let (Some(id), Some(account), false) =
            (&line.remote_id, &self.caller.account, self.source.is_empty())
            && let Some(known) = tx.key_by_remote_id(account, self.source, id)?
        {
            let digest = match &material {
                Material::Plain(key) => tx.keyring().digest(key.expose()),
                Material::Sha256(hash, _) => tx.keyring().digest_of_sha256(hash),
            };
            if !tx.is_digest_of(&digest, &known)? {
                return Err(refusal(&format!(
                    "{} has this remote id and is another key; delete it first",
                    known.name
                )));
            }
            return self.update(tx, &known, line);
        }
        let hint = match &material {
            Material::Plain(key) => key.hint(self.rules.public_prefix(key.expose())),
            Material::Sha256(..) => "…".to_owned(),
        };
        let new = NewKey {
            name: &line.name,
            description: line.description.as_deref().unwrap_or_default(),
            owner: line.owner.as_deref().unwrap_or(&self.owner),
            kind: line.kind()?,
            class: line.class()?.unwrap_or(Class::Live),
            service: &line.service,
            leak_action: line.leak_action()?.unwrap_or(LeakAction::None),
            locked: line.locked.unwrap_or_default(),
            expires_at: line.expires_at()?,
            homes: line.homes.as_deref().unwrap_or_default(),
            executor: line.executor.as_deref().unwrap_or(Key::OWN_EXECUTOR),
            arrival: Arrival::Imported,
            origin: self.source,
            remote_id: line.remote_id.as_deref(),
            import: self.run,
            replaces: None,
            hint: &hint,
        };
        let now = clock::now();
        let added = tx.add_one_of(&mut self.holders, &new, &material, self.caller, now)?;
        self.done.seen += u64::from(tx.raise_remembered(&added, now)?);
        self.done.imported += 1;
        self.strangers |= !is_known_to_rules(&hint);
        self.done.hashed += u64::from(matches!(material, Material::Sha256(..)));
        Ok(())
    }

    /// A key that came from this source before: what the line says of it holds.
    fn update(&mut self, tx: &Tx<'_>, known: &Key, line: &Line) -> Result<()> {
        let now = clock::now();
        let reason = format!("import from {}", self.source);
        let why = (self.caller, reason.as_str());
        if line.locked == Some(false) && known.locked {
            let name = &known.name;
            return Err(refusal(&format!("{name} is locked, and an import unlocks nothing")));
        }
        let wanted = KeyUpdate {
            name: Some(line.name.clone()),
            description: line.description.clone(),
            expires_at: line.expires_at()?.map(Some),
            leak_action: line.leak_action()?,
            class: line.class()?,
            homes: line.homes.clone(),
            executor: line.executor.clone(),
            remote_id: None,
        };
        let mut changed = match tx.update_key(known, &wanted, None, why, now) {
            // A locked key that is as the line says needs no change.
            Err(RegistryError::Refused(_)) if known.locked && is_so(known, &wanted) => {
                Change::Already
            }
            other => other?,
        };
        if line.locked == Some(true) && !known.locked {
            changed = tx.set_locked(known, true, why, now)?;
        }
        tx.note_import(known, self.run)?;
        match changed {
            Change::Done => self.done.updated += 1,
            Change::Already => self.done.unchanged += 1,
        }
        Ok(())
    }

    /// Deletes keys of the source that no line named; not if that are many.
    fn prune(&self, registry: &mut Registry, how: Prune) -> anyhow::Result<Pruned> {
        if !self.refused.is_empty() {
            bail!("nothing is pruned: with lines refused, nobody knows what the file names");
        }
        let (missing, total) =
            registry.read(|tx| tx.missing_from(self.run, self.source, self.caller))?;
        let count = missing.len() as u64;
        if count == 0 {
            return Ok(Pruned::default());
        }
        let keys = format!("{} of {} of {}", grouped(count), plural(total, "key"), self.source);
        if count > how.max.unwrap_or(total / PRUNE_ONE_IN) {
            let limit = how.max.map_or("5 %".to_owned(), grouped);
            bail!(
                "nothing is pruned: the file does not name {keys}, and that is more than {limit}; \
                 if they are to go, say so with --prune-max {count}"
            );
        }
        if !how.force && !output::confirm(&format!("Delete {keys}, which the file does not name?"))?
        {
            output::note("nothing was pruned");
            return Ok(Pruned::default());
        }
        let reason = format!("not in the import from {}", self.source);
        let mut pruned = Pruned::default();
        registry.write(|tx| {
            for id in &missing {
                let key = tx.key(id)?;
                if key.locked {
                    pruned.locked += 1;
                } else {
                    tx.set_state(&key, State::Deleted, (self.caller, &reason), clock::now())?;
                    pruned.deleted += 1;
                }
            }
            Ok(())
        })?;
        Ok(pruned)
    }

    fn tell(&self, format: ListFormat, pruned: Pruned) -> anyhow::Result<()> {
        let Counts { imported, updated, unchanged, hashed, seen } = self.done;
        let refused = self.refused.len();
        if format == ListFormat::Json {
            let lines: Vec<_> = self
                .refused
                .iter()
                .map(|(line, why)| json!({ "line": line, "why": why }))
                .collect();
            return output::json(&json!({
                "imported": imported, "updated": updated, "unchanged": unchanged, "hashed": hashed,
                "seen_before": seen, "pruned": pruned.deleted, "kept_locked": pruned.locked,
                "refused": lines,
            }));
        }
        for (line, why) in &self.refused {
            output::note(&format!("line {line}: {why}"));
        }
        if hashed > 0 {
            let keys = plural(hashed, "key");
            output::note(&format!(
                "{keys} known by the SHA-256 only: texts of the same length are hashed to look \
                 them up, which costs several times the filter; import keys in plain where you can"
            ));
        }
        if seen > 0 {
            let keys = plural(seen, "key");
            output::note(&format!(
                "{keys} seen before, when nobody owned them: their actions are held, see \
                 `leakwarden leak list`"
            ));
        }
        let mut text = format!("imported {imported}, refused {refused}");
        if !self.source.is_empty() {
            text = format!(
                "imported {imported}, updated {updated}, unchanged {unchanged}, refused {refused}"
            );
        }
        if pruned.deleted + pruned.locked > 0 {
            let (deleted, locked) = (pruned.deleted, pruned.locked);
            text = format!("{text}, pruned {deleted}, kept {locked} that are locked");
        }
        output::print(&format!("{text}\n"))
    }
}

/// Whether a line was refused; any other error ends the import.
fn is_fault_of_line(error: &RegistryError) -> bool {
    use RegistryError::{NotFound, Refused, Unfit};
    matches!(error, Refused(_) | Unfit(_) | NotFound(_))
}

/// Whether a key is as an update wants it.
fn is_so(key: &Key, wanted: &KeyUpdate) -> bool {
    let homes: Vec<&str> = key.homes.iter().map(|home| home.glob.as_str()).collect();
    wanted.name.as_ref().is_none_or(|name| name.trim() == key.name)
        && wanted.description.as_ref().is_none_or(|text| *text == key.description)
        && wanted.expires_at.is_none_or(|at| at == key.expires_at)
        && wanted.leak_action.is_none_or(|action| action == key.leak_action)
        && wanted.class.is_none_or(|class| class == key.class)
        && wanted.executor.as_ref().is_none_or(|name| *name == key.executor)
        && wanted.homes.as_ref().is_none_or(|globs| homes == *globs)
}
