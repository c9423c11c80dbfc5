//! One line of an import file: JSON objects, or rows of a CSV table.

use std::io::{BufRead, BufReader, Read};
use std::sync::LazyLock;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::clock;
use crate::registry::key::{Class, KeyKind, LeakAction};
use crate::registry::{Material, RegistryError, Result};
use crate::rule::{Facts, RuleSet};
use crate::secret::{Secret, decode_hex};
use crate::shape::{Alphabet, KEY_MAX, KEY_MIN, Shape};

/// Longest line, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// One line. Keys are kept out of error texts: serde's would repeat what it could not read.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) name: String,
    key: Option<Zeroizing<String>>,
    sha256: Option<String>,
    shape: Option<String>,
    rule: Option<String>,
    pub(super) owner: Option<String>,
    kind: Option<String>,
    class: Option<String>,
    #[serde(default)]
    pub(super) service: String,
    pub(super) description: Option<String>,
    #[serde(alias = "action_when_leaked", alias = "action_if_leaked")]
    leak_action: Option<String>,
    pub(super) locked: Option<bool>,
    expires_at: Option<String>,
    pub(super) homes: Option<Vec<String>>,
    pub(super) executor: Option<String>,
    pub(super) remote_id: Option<String>,
}

const FIELDS: &str = "name, key or sha256 with shape or rule, owner, kind, class, service, description, \
    leak_action, locked, expires_at, homes, executor, remote_id";

const COLUMNS: [&str; 18] = [
    "name",
    "key",
    "sha256",
    "shape",
    "rule",
    "owner",
    "kind",
    "class",
    "service",
    "description",
    "leak_action",
    "action_when_leaked",
    "action_if_leaked",
    "locked",
    "expires_at",
    "homes",
    "executor",
    "remote_id",
];

pub(super) fn refusal(why: &str) -> RegistryError {
    RegistryError::Refused(why.to_owned())
}

fn word<T>(
    text: Option<&str>,
    field: &str,
    parse: impl Fn(&str) -> Option<T>,
    words: &[&str],
) -> Result<Option<T>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = parse(&text.to_lowercase());
    let why = || refusal(&format!("{field}: expected one of {}", words.join(", ")));
    parsed.ok_or_else(why).map(Some)
}

impl Line {
    pub(super) fn kind(&self) -> Result<KeyKind> {
        let kind = word(self.kind.as_deref(), "kind", KeyKind::parse, KeyKind::WORDS)?;
        Ok(kind.unwrap_or(KeyKind::User))
    }

    pub(super) fn class(&self) -> Result<Option<Class>> {
        word(self.class.as_deref(), "class", Class::parse, Class::WORDS)
    }

    pub(super) fn leak_action(&self) -> Result<Option<LeakAction>> {
        let action = self.leak_action.as_deref();
        word(action, "leak_action", LeakAction::parse, LeakAction::WORDS)
    }

    pub(super) fn expires_at(&self) -> Result<Option<Timestamp>> {
        let Some(text) = self.expires_at.as_ref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let why = "expires_at: expected a date or a time, such as 2027-01-31T12:00:00Z";
        clock::parse(text).ok_or_else(|| refusal(why)).map(Some)
    }

    pub(super) fn material(&self) -> Result<Material> {
        match (&self.key, &self.sha256, &self.shape, &self.rule) {
            (Some(key), None, None, None) => Ok(Material::Plain(Secret::copy_of(key.as_bytes()))),
            (None, Some(hex), Some(shape), None) => {
                let shape = parse_shape(shape).ok_or_else(|| {
                    refusal("shape: expected `alphabet:length`, such as base64url:44")
                })?;
                Ok(Material::Sha256(parse_hash(hex)?, shape))
            }
            (None, Some(hex), None, Some(rule)) => {
                Ok(Material::Sha256(parse_hash(hex)?, shape_of_rule(rule)?))
            }
            _ => Err(refusal(
                "give either `key`, or `sha256` with `shape` (such as base64url:44) or `rule` \
                 (such as google-api-key)",
            )),
        }
    }

    fn from_json(line: &[u8]) -> Result<Self> {
        serde_json::from_slice(line).map_err(|error| {
            let column = error.column();
            refusal(&format!("column {column}: expected an object with the fields {FIELDS}"))
        })
    }

    /// From a row of a table; an empty cell says nothing.
    fn from_row(header: &[String], row: &csv::StringRecord) -> Result<Self> {
        let mut line = Self::default();
        for (name, cell) in header.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            let text = || Some(cell.to_owned());
            match name.as_str() {
                "name" => cell.clone_into(&mut line.name),
                "key" => line.key = Some(Zeroizing::new(cell.to_owned())),
                "sha256" => line.sha256 = text(),
                "shape" => line.shape = text(),
                "rule" => line.rule = text(),
                "owner" => line.owner = text(),
                "kind" => line.kind = text(),
                "class" => line.class = text(),
                "service" => cell.clone_into(&mut line.service),
                "description" => line.description = text(),
                "locked" => {
                    let locked = cell.to_lowercase().parse::<bool>();
                    line.locked =
                        Some(locked.map_err(|_| refusal("locked: expected true or false"))?);
                }
                "expires_at" => line.expires_at = text(),
                "homes" => {
                    line.homes = Some(cell.split_whitespace().map(str::to_owned).collect());
                }
                "executor" => line.executor = text(),
                "remote_id" => line.remote_id = text(),
                _ => line.leak_action = text(),
            }
        }
        Ok(line)
    }
}

fn parse_hash(hex: &str) -> Result<[u8; 32]> {
    let mut hash = [0; 32];
    decode_hex(&hex.to_ascii_lowercase(), &mut hash)
        .ok_or_else(|| refusal("sha256: expected 64 hex digits"))?;
    Ok(hash)
}

/// What the keys of a built-in rule look like, if all are of one length.
fn shape_of_rule(id: &str) -> Result<Shape> {
    static RULES: LazyLock<RuleSet> = LazyLock::new(RuleSet::builtin);
    let Some(rule) = RULES.rules().find(|rule| rule.id == id) else {
        return Err(refusal("rule: there is no such rule; `leakwarden rule list` lists them"));
    };
    let Facts { match_min, match_max, alphabet, .. } = rule.facts;
    let holds = |one: &Alphabet| {
        *one != Alphabet::Uuid && (0..128u8).all(|b| alphabet >> b & 1 == 0 || one.holds(b))
    };
    let len = Some(match_min).filter(|len| *len == match_max && (KEY_MIN..=KEY_MAX).contains(len));
    match (Alphabet::ALL.iter().copied().find(holds), len) {
        (Some(alphabet), Some(len)) => Ok(Shape { alphabet, len }),
        _ => Err(refusal("rule: its keys are of several lengths; give their `shape` instead")),
    }
}

fn parse_shape(text: &str) -> Option<Shape> {
    let (alphabet, len) = text.split_once(':')?;
    let shape = Shape { alphabet: Alphabet::parse(alphabet)?, len: len.parse().ok()? };
    let fits = shape.alphabet != Alphabet::Uuid || shape.len == 36;
    (fits && (KEY_MIN..=KEY_MAX).contains(&shape.len)).then_some(shape)
}

/// The lines of an import file, with their numbers.
pub(super) enum Lines {
    Json { input: BufReader<Box<dyn Read>>, number: u64 },
    Csv { input: Box<csv::Reader<Box<dyn Read>>>, header: Vec<String> },
}

/// A line as it was read, or why it cannot be.
pub(super) type Numbered = (u64, Result<Line>);

impl Lines {
    pub(super) fn json(input: Box<dyn Read>) -> Self {
        Self::Json { input: BufReader::new(input), number: 0 }
    }

    /// The first row names the columns.
    pub(super) fn csv(input: Box<dyn Read>) -> anyhow::Result<Self> {
        let mut input = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
        let header: Vec<String> = input
            .headers()
            .context("the first row of the table cannot be read")?
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').to_lowercase())
            .collect();
        if let Some(name) = header.iter().find(|name| !COLUMNS.contains(&name.as_str())) {
            let shown = crate::text::clean(name.as_bytes());
            anyhow::bail!("the table has a column `{shown}`; known are {}", COLUMNS.join(", "));
        }
        Ok(Self::Csv { input: Box::new(input), header })
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Result<Option<Numbered>> {
        match self {
            Self::Json { input, number } => loop {
                let mut line = Zeroizing::new(Vec::new());
                let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
                read.map_err(|error| refusal(&format!("cannot read on: {error}")))?;
                *number += 1;
                if line.is_empty() {
                    return Ok(None);
                }
                if !line.trim_ascii().is_empty() {
                    return Ok(Some((*number, Line::from_json(&line))));
                }
            },
            Self::Csv { input, header } => {
                let mut row = csv::StringRecord::new();
                let line = match input.read_record(&mut row) {
                    Ok(false) => return Ok(None),
                    Ok(true) => Line::from_row(header, &row),
                    // Its words may hold a key.
                    Err(_) => {
                        Err(refusal("the row cannot be read: wrong quotes, or cells missing"))
                    }
                };
                let number = row.position().map_or(0, csv::Position::line);
                Ok(Some((number, line)))
            }
        }
    }
}
