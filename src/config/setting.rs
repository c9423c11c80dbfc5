//! The file as serde sees it: every field, none unknown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::clock;
use crate::incident;
use crate::mail;

/// The whole file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub(super) registry: Registry,
    #[serde(default)]
    pub(super) rules: Vec<PathBuf>,
    #[serde(default)]
    pub(super) watch: Vec<Watch>,
    #[serde(default)]
    pub(super) homes: Vec<String>,
    pub(super) response: Response,
    pub(super) mail: Option<Mail>,
    pub(super) listen: Option<Listen>,
}

/// `registry: ./var`, or with `create_if_missing`.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) dir: PathBuf,
    pub(super) create_if_missing: bool,
}

impl<'de> Deserialize<'de> for Registry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            dir: PathBuf,
            #[serde(default)]
            create_if_missing: bool,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Registry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a folder, or `{ dir: FOLDER, create_if_missing: true }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Registry, E> {
                Ok(Registry { dir: PathBuf::from(text), create_if_missing: false })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Registry, A::Error> {
                let long = Long::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Registry { dir: long.dir, create_if_missing: long.create_if_missing })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// An address and port of this host: what is told there is for those who are on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listen(pub(super) SocketAddr);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
        address.map(Self).ok_or_else(|| {
            de::Error::custom(format_args!(
                "listen: {text:?}: expected an address of this host with a port, 127.0.0.1:9464 or \
                 [::1]:9464 (others reach it through a proxy or a tunnel, which can ask who they are)"
            ))
        })
    }
}

/// Reads a mapping and checks it as a whole, so that a fault is told with its line and field.
fn checked<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    check: fn(&T) -> Result<(), String>,
) -> Result<T, D::Error> {
    struct Checked<T>(fn(&T) -> Result<(), String>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Checked<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            let value = T::deserialize(de::value::MapAccessDeserializer::new(map))?;
            (self.0)(&value).map_err(de::Error::custom)?;
            Ok(value)
        }
    }
    deserializer.deserialize_map(Checked(check))
}

/// One entry of `watch`, checked.
#[derive(Debug)]
pub(super) struct Watch(pub(super) WatchFields);

impl<'de> Deserialize<'de> for Watch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, WatchFields::check).map(Self)
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchFields {
    pub(super) files: Option<Vec<String>>,
    pub(super) logs: Option<Vec<String>>,
    pub(super) git: Option<Vec<String>>,
    pub(super) journald: Option<Journald>,
    pub(super) pipe: Option<PathBuf>,
    #[serde(default)]
    pub(super) stdin: bool,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    pub(super) start: Option<Start>,
    pub(super) poll: Option<Span>,
    pub(super) links: Option<Links>,
}

/// `journald: {}`, or with what narrows it.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journald {
    #[serde(default)]
    pub(super) units: Vec<String>,
    pub(super) directory: Option<PathBuf>,
}

impl WatchFields {
    fn check(&self) -> Result<(), String> {
        let patterns = match (&self.files, &self.logs, &self.git) {
            (None, None, None) => return self.check_other(),
            _ if self.others() > 0 => return Err(ONE_OF.to_owned()),
            (Some(_), None, None) if self.start.is_some() => {
                let why = "`start` is for logs, repositories and the journal; files are read as a \
                    whole";
                return Err(why.to_owned());
            }
            (None, None, Some(_)) if self.poll.is_some() => {
                return Err("`poll` is for files and logs".to_owned());
            }
            (None, None, Some(_)) if self.links.is_some() => {
                return Err("`links` is for files and logs".to_owned());
            }
            _ if self.poll.is_some_and(|poll| poll.0.is_zero()) => {
                return Err("poll: expected 1s or more".to_owned());
            }
            (Some(patterns), None, None)
            | (None, Some(patterns), None)
            | (None, None, Some(patterns)) => patterns,
            _ => return Err(ONE_OF.to_owned()),
        };
        if patterns.is_empty() {
            return Err("expected at least one path".to_owned());
        }
        let wrong = patterns.iter().chain(&self.exclude).find_map(|p| globset::Glob::new(p).err());
        wrong.map_or(Ok(()), |error| Err(error.to_string()))
    }

    /// How many of the sources that have no paths to match are named.
    fn others(&self) -> u32 {
        u32::from(self.journald.is_some()) + u32::from(self.pipe.is_some()) + u32::from(self.stdin)
    }

    fn check_other(&self) -> Result<(), String> {
        if self.others() != 1 {
            return Err(ONE_OF.to_owned());
        }
        if !self.exclude.is_empty() {
            return Err("`exclude` is for files, logs and repositories".to_owned());
        }
        let Some(journald) = &self.journald else {
            let why = "`start` is for logs, repositories and the journal; a pipe has no past";
            return if self.start.is_some() { Err(why.to_owned()) } else { Ok(()) };
        };
        let wrong = journald.units.iter().find(|unit| {
            let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*?[]".contains(c);
            unit.is_empty() || unit.starts_with('-') || !unit.chars().all(fits)
        });
        wrong.map_or(Ok(()), |unit| Err(format!("`{unit}` is not the name of a unit")))
    }
}

const ONE_OF: &str = "expected one of `files`, `logs`, `git`, `journald`, `pipe` and `stdin`";

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Start {
    End,
    Beginning,
}

/// Which symbolic links to files are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Links {
    Never,
    /// Those that root or the owner of the file behind them made.
    Owner,
    Any,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Response {
    pub(super) mode: Mode,
    pub(super) brake: Option<Brake>,
    #[serde(default)]
    pub(super) delete_grace: Span,
    #[serde(default)]
    pub(super) locked: Locked,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Observe,
    Act,
}

impl From<Mode> for incident::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Observe => Self::Observe,
            Mode::Act => Self::Act,
        }
    }
}

#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Brake {
    pub(super) max: Option<u32>,
    pub(super) per_owner: Option<u32>,
    pub(super) per_source: Option<u32>,
    pub(super) window: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Locked {
    #[default]
    Disable,
    Hold,
}

impl From<Locked> for incident::LockedPolicy {
    fn from(locked: Locked) -> Self {
        match locked {
            Locked::Disable => Self::Disable,
            Locked::Hold => Self::Hold,
        }
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    pub(super) directory: Option<PathBuf>,
    #[serde(default, deserialize_with = "smtp")]
    pub(super) smtp: Option<Smtp>,
    #[serde(default = "one_minute")]
    pub(super) retry_after: Span,
    #[serde(default = "five_days")]
    pub(super) give_up_after: Span,
}

impl Default for Mail {
    fn default() -> Self {
        Self { directory: None, smtp: None, retry_after: one_minute(), give_up_after: five_days() }
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Smtp {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) tls: Tls,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) from: String,
    #[serde(default = "one_minute")]
    pub(super) deadline: Span,
}

fn smtp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Smtp>, D::Error> {
    checked(deserializer, Smtp::check).map(Some)
}

impl Smtp {
    fn check(&self) -> Result<(), String> {
        if self.username.is_none() && self.password_file.is_some() {
            return Err(
                "`password_file` is the password of a `username`, which is missing".to_owned()
            );
        }
        if self.from.parse::<lettre::message::Mailbox>().is_err() {
            let from = crate::text::clean(self.from.as_bytes());
            return Err(format!("`from`: `{from}` is not a mail address"));
        }
        mail::Smtp::check(&self.host, self.tls.into()).map_err(|error| error.to_string())
    }
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tls {
    Implicit,
    Starttls,
    None,
}

impl From<Tls> for mail::Tls {
    fn from(tls: Tls) -> Self {
        match tls {
            Tls::Implicit => Self::Implicit,
            Tls::Starttls => Self::StartTls,
            Tls::None => Self::None,
        }
    }
}

/// A length of time: `90s`, `10m`, `4h`, `5d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

fn one_minute() -> Span {
    Span(Duration::from_secs(60))
}

fn five_days() -> Span {
    Span(Duration::from_secs(5 * 86_400))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor, so that a fault is told with its own line and field.
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as 90s, 10m, 4h or 5d")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                clock::parse_span(text).map(Span).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
