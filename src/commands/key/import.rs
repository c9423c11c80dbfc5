//! `leakwarden key import`: many keys, a JSON object a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Exit, actor, output, own_address};
use crate::cli::ListFormat;
use crate::clock;
use crate::registry::key::{KeyKind, LeakAction};
use crate::registry::{Material, NewKey, Registry, RegistryError, Result};
use crate::rule::RuleSet;
use crate::secret::{Secret, decode_hex};
use crate::shape::{Alphabet, KEY_MAX, KEY_MIN, Shape};
use crate::text::plural;

/// Longest line, in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// Lines that are written in one transaction.
const COMMIT_LINES: usize = 1_000;

/// One line. Keys are kept out of error texts: serde's would repeat what it could not read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    key: Option<Zeroizing<String>>,
    sha256: Option<String>,
    shape: Option<String>,
    owner: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(alias = "action_when_leaked", alias = "action_if_leaked")]
    leak_action: Option<String>,
    #[serde(default)]
    locked: bool,
    expires_at: Option<String>,
    #[serde(default)]
    homes: Vec<String>,
}

const FIELDS: &str = "name, key or sha256 with shape, owner, kind, description, leak_action, \
    locked, expires_at, homes";

pub(super) fn run(
    registry: &mut Registry,
    file: &Path,
    all_or_nothing: bool,
    format: ListFormat,
) -> anyhow::Result<Exit> {
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let mut import = Import {
        input: BufReader::new(input),
        rules: RuleSet::builtin(),
        number: 0,
        imported: 0,
        hashed: 0,
        refused: Vec::new(),
    };
    if all_or_nothing {
        import.all_or_nothing(registry)?;
    } else {
        while import.some(registry)? {}
    }
    let refused: Vec<_> =
        import.refused.iter().map(|(line, why)| json!({ "line": line, "why": why })).collect();
    match format {
        ListFormat::Json => {
            let (imported, hashed) = (import.imported, import.hashed);
            output::json(&json!({ "imported": imported, "hashed": hashed, "refused": refused }))?;
        }
        ListFormat::Text => {
            for (line, why) in &import.refused {
                output::note(&format!("line {line}: {why}"));
            }
            if import.hashed > 0 {
                let keys = plural(import.hashed, "key");
                output::note(&format!(
                    "{keys} known by the SHA-256 only: texts of the same length are hashed to look \
                     them up, which costs several times the filter; import keys in plain where you can"
                ));
            }
            let count = import.refused.len();
            output::print(&format!("imported {}, refused {count}\n", import.imported))?;
        }
    }
    Ok(if import.refused.is_empty() { Exit::Clean } else { Exit::Incomplete })
}

struct Import {
    input: BufReader<Box<dyn Read>>,
    rules: RuleSet,
    number: u64,
    imported: u64,
    /// Of these, the ones of which only the SHA-256 is known.
    hashed: u64,
    refused: Vec<(u64, String)>,
}

impl Import {
    /// Imports some lines in one transaction; `false`: that was all.
    fn some(&mut self, registry: &mut Registry) -> anyhow::Result<bool> {
        // Read first: a slow input must not hold up the daemon with an open transaction.
        let mut lines = Vec::new();
        while lines.len() < COMMIT_LINES
            && let Some(line) = self.next()?
        {
            lines.push((self.number, line));
        }
        let more = lines.len() == COMMIT_LINES;
        registry.write(|tx| lines.iter().try_for_each(|(at, line)| self.one(tx, *at, line)))?;
        Ok(more)
    }

    fn all_or_nothing(&mut self, registry: &mut Registry) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        while let Some(line) = self.next()? {
            lines.push((self.number, line));
        }
        let outcome = registry.write(|tx| {
            lines.iter().try_for_each(|(at, line)| self.one(tx, *at, line))?;
            if self.refused.is_empty() { Ok(()) } else { Err(refusal("nothing imported")) }
        });
        if !self.refused.is_empty() {
            (self.imported, self.hashed) = (0, 0);
            return Ok(());
        }
        Ok(outcome?)
    }

    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let mut line = Zeroizing::new(Vec::new());
        let read = (&mut self.input).take(LINE_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| refusal(&format!("cannot read on: {error}")))?;
        self.number += 1;
        Ok(if line.is_empty() { None } else { Some(line) })
    }

    /// One line; a fault of the line is noted, one of the database ends the import.
    fn one(&mut self, tx: &crate::registry::Tx<'_>, number: u64, line: &[u8]) -> Result<()> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        match self.add(tx, line) {
            Ok(hashed) => {
                self.imported += 1;
                self.hashed += u64::from(hashed);
            }
            Err(error @ (RegistryError::Refused(_) | RegistryError::Unfit(_))) => {
                self.refused.push((number, error.to_string()));
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Answers whether only the SHA-256 of the key is known.
    fn add(&self, tx: &crate::registry::Tx<'_>, line: &[u8]) -> Result<bool> {
        let line: Line = serde_json::from_slice(line).map_err(|error| {
            let column = error.column();
            refusal(&format!("column {column}: expected an object with the fields {FIELDS}"))
        })?;
        let (material, hint) = self.material(&line)?;
        let kind =
            word(line.kind.as_deref(), KeyKind::User, "kind", KeyKind::parse, KeyKind::WORDS)?;
        let action = line.leak_action.as_deref();
        let leak_action =
            word(action, LeakAction::None, "leak_action", LeakAction::parse, LeakAction::WORDS)?;
        let expires_at = match &line.expires_at {
            None => None,
            Some(text) => Some(clock::parse(text).ok_or_else(|| {
                refusal("expires_at: expected a date or a time, such as 2027-01-31T12:00:00Z")
            })?),
        };
        let owner = line.owner.clone().unwrap_or_else(own_address);
        let new = NewKey {
            name: &line.name,
            description: &line.description,
            owner: &owner,
            kind,
            leak_action,
            locked: line.locked,
            expires_at,
            homes: &line.homes,
            source: "import",
            hint: &hint,
        };
        tx.add_key(&new, &material, &actor(), clock::now())?;
        Ok(matches!(material, Material::Sha256(..)))
    }

    fn material(&self, line: &Line) -> Result<(Material, String)> {
        match (&line.key, &line.sha256, &line.shape) {
            (Some(key), None, None) => {
                let secret = Secret::copy_of(key.as_bytes());
                let hint = secret.hint(self.rules.public_prefix(secret.expose()));
                Ok((Material::Plain(secret), hint))
            }
            (None, Some(hex), Some(shape)) => {
                let mut hash = [0; 32];
                decode_hex(&hex.to_ascii_lowercase(), &mut hash)
                    .ok_or_else(|| refusal("sha256: expected 64 hex digits"))?;
                let shape = parse_shape(shape).ok_or_else(|| {
                    refusal("shape: expected `alphabet:length`, such as base64url:44")
                })?;
                Ok((Material::Sha256(hash, shape), "…".to_owned()))
            }
            _ => Err(refusal("give either `key`, or `sha256` with `shape` (such as base64url:44)")),
        }
    }
}

fn refusal(why: &str) -> RegistryError {
    RegistryError::Refused(why.to_owned())
}

fn word<T>(
    text: Option<&str>,
    default: T,
    field: &str,
    parse: impl Fn(&str) -> Option<T>,
    words: &[&str],
) -> Result<T> {
    match text {
        None => Ok(default),
        Some(text) => parse(text)
            .ok_or_else(|| refusal(&format!("{field}: expected one of {}", words.join(", ")))),
    }
}

fn parse_shape(text: &str) -> Option<Shape> {
    let (alphabet, len) = text.split_once(':')?;
    let shape = Shape { alphabet: Alphabet::parse(alphabet)?, len: len.parse().ok()? };
    let fits = shape.alphabet != Alphabet::Uuid || shape.len == 36;
    (fits && (KEY_MIN..=KEY_MAX).contains(&shape.len)).then_some(shape)
}
