//! The configuration file: read strictly, checked as a whole, turned into the modules' options.

mod setting;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use zeroize::Zeroizing;

use crate::daemon::{self, Followed, Watch};
use crate::incident::{Brake, Policy};
use crate::ledger;
use crate::mail::{self, Mailer, Smtp, SmtpError};
use crate::registry::folder;
use crate::source::follow::{self, Mode, PathGlob, absolute_home, is_everything};
use crate::source::git::poll;
use crate::source::journald;
use crate::source::reader::Links;

pub use setting::Settings;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its syntax or a field; the text says line, field and what was expected.
    #[error("{path}: {source}")]
    Field {
        /// Which file.
        path: PathBuf,
        /// What is wrong where.
        source: serde_yaml::Error,
    },
    /// A glob.
    #[error("{path}: {field}: {source}")]
    Glob {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What is wrong.
        source: globset::Error,
    },
    /// The mail server.
    #[error("{path}: mail.smtp: {source}")]
    Smtp {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: SmtpError,
    },
    /// The sender.
    #[error("{path}: mail.smtp.from: `{from}` is not a mail address")]
    From {
        /// Which file.
        path: PathBuf,
        /// What it says.
        from: String,
    },
    /// A file that others can read.
    #[error(transparent)]
    Private(#[from] crate::registry::RegistryError),
    /// Two readings are possible, or none.
    #[error("{path}: {field}: {why}")]
    Choice {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What to write.
        why: &'static str,
    },
}

/// The name under which the service manager may hand over the password of the mail server.
pub const PASSWORD_CREDENTIAL: &str = "leakwarden.smtp-password";

fn password(file: &mut File, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn handed_over(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let file = File::open(path);
    let mut file = file.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    password(&mut file, path)
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Folder of the registry.
    pub registry: PathBuf,
    /// Make the registry when its folder is absent.
    pub create_if_missing: bool,
    /// Folders of own rules.
    pub rules: Vec<PathBuf>,
    /// The mail server wants a password, which the service manager has not handed over here.
    pub lacks_password: bool,
    /// Everything else.
    pub daemon: daemon::Options,
}

/// Reads and checks a configuration file. Relative paths are relative to its folder.
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let (settings, builder) = parse(path)?;
    builder.config(settings)
}

/// The homes of a configuration file.
pub fn homes(path: &Path) -> Result<ledger::Homes, ConfigError> {
    let (settings, builder) = parse(path)?;
    builder.homes(&settings)
}

fn parse(path: &Path) -> Result<(Settings, Builder), ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let owner = file.metadata().map_err(failed)?.uid();
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    let settings: Settings = serde_yaml::from_str(&text)
        .map_err(|source| ConfigError::Field { path: path.to_owned(), source })?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((settings, Builder { path: path.to_owned(), base, owner }))
}

struct Builder {
    path: PathBuf,
    base: PathBuf,
    /// To whom the file belongs.
    owner: u32,
}

impl Builder {
    fn config(&self, settings: Settings) -> Result<Config, ConfigError> {
        let watches: Vec<Watch> = settings
            .watch
            .iter()
            .enumerate()
            .map(|(index, watch)| self.watch(index, &watch.0))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        self.refuse_twice(&watches)?;
        let response = &settings.response;
        let brake = response.brake.clone().unwrap_or_default();
        let default = Brake::DEFAULT;
        let policy = Policy {
            mode: response.mode.into(),
            brake: Brake {
                max: brake.max.unwrap_or(default.max),
                per_owner: brake.per_owner.unwrap_or(default.per_owner),
                per_source: brake.per_source.unwrap_or(default.per_source),
                window: brake.window.map_or(default.window, |window| window.0),
            },
            delete_grace: response.delete_grace.0,
            locked: response.locked.into(),
        };
        let homes = self.homes(&settings)?;
        let mut lacks_password = false;
        let mail = self.mail(settings.mail.unwrap_or_default(), &mut lacks_password)?;
        Ok(Config {
            lacks_password,
            registry: self.resolve(&settings.registry.dir),
            create_if_missing: settings.registry.create_if_missing,
            rules: settings.rules.iter().map(|folder| self.resolve(folder)).collect(),
            daemon: daemon::Options {
                config: self.base.join(self.path.file_name().unwrap_or_default()),
                watches,
                ledger: ledger::Options { policy, homes },
                mail,
                listen: settings.listen.map(|listen| listen.0),
            },
        })
    }

    fn homes(&self, settings: &Settings) -> Result<ledger::Homes, ConfigError> {
        let homes = settings.homes.iter().map(|home| absolute_home(&self.base, home));
        let homes: Vec<String> = homes.collect();
        if homes.iter().any(|home| is_everything(home)) {
            return Err(ConfigError::Choice {
                path: self.path.clone(),
                field: "homes".to_owned(),
                why: "every file would be one, and no leak would ever be seen",
            });
        }
        ledger::Homes::new(homes).map_err(|source| ConfigError::Glob {
            path: self.path.clone(),
            field: "homes".to_owned(),
            source,
        })
    }

    /// One watch a pattern: offsets are kept by it, so that adding one leaves the others alone.
    fn watch(&self, index: usize, watch: &setting::WatchFields) -> Result<Vec<Watch>, ConfigError> {
        let field = format!("watch[{index}]");
        // That there is one of the two was checked when it was read.
        let (patterns, mode) = match (&watch.files, &watch.logs) {
            (Some(files), _) => (files.as_slice(), Some(Mode::Files)),
            (None, Some(logs)) => {
                let from_beginning = watch.start == Some(setting::Start::Beginning);
                (logs.as_slice(), Some(Mode::Logs { from_beginning }))
            }
            (None, None) => match &watch.git {
                Some(git) => (git.as_slice(), None),
                None => return Ok(vec![self.other(watch)]),
            },
        };
        // A folder that is left out is left out with all that is in it.
        let below = watch.exclude.iter().map(|glob| format!("{}/**", glob.trim_end_matches('/')));
        let exclude: Vec<String> = watch.exclude.iter().cloned().chain(below).collect();
        let exclude = self.globs(&format!("{field}.exclude"), &exclude)?;
        let kind = match mode {
            Some(Mode::Files) => "files",
            Some(Mode::Logs { .. }) => "logs",
            None => "git",
        };
        let one = |pattern: &String| {
            let absolute = self.resolve(Path::new(pattern));
            let absolute = absolute.to_string_lossy();
            let include = PathGlob::new(&self.base, pattern).map_err(|source| {
                ConfigError::Glob { path: self.path.clone(), field: field.clone(), source }
            })?;
            let exclude = exclude.clone();
            let follow = match mode {
                Some(mode) => {
                    let poll = watch.poll.map(|poll| poll.0);
                    let links = links(watch.links, mode);
                    Followed::Files(follow::Options { include, exclude, mode, links, poll })
                }
                None => {
                    let from_beginning = watch.start != Some(setting::Start::End);
                    Followed::Git(poll::Options { include, exclude, from_beginning })
                }
            };
            let setting::WatchFields { exclude, start, poll, links, .. } = watch;
            let said = format!("{exclude:?} {start:?} {poll:?} {links:?}");
            Ok(Watch { name: format!("{kind} {absolute}"), follow, said })
        };
        patterns.iter().map(one).collect()
    }

    /// A source without paths to match.
    fn other(&self, watch: &setting::WatchFields) -> Watch {
        if let Some(journald) = &watch.journald {
            let directory = journald.directory.as_deref().map(|folder| self.resolve(folder));
            // The units are no part of the name: where they change it goes on where it was.
            let name = match &directory {
                Some(folder) => format!("journald {}", folder.display()),
                None => "journald".to_owned(),
            };
            let said = format!("{:?} {:?}", journald.units, watch.start);
            let from_beginning = watch.start == Some(setting::Start::Beginning);
            let units = journald.units.clone();
            let options = journald::Options { units, directory, from_beginning };
            return Watch { name, follow: Followed::Journald(options), said };
        }
        match &watch.pipe {
            Some(path) => {
                let path = self.resolve(path);
                let name = format!("pipe {}", path.display());
                Watch { name, follow: Followed::Pipe(path), said: String::new() }
            }
            None => Watch::stdin(),
        }
    }

    /// Each of these remembers or reads what only one of its kind can.
    fn refuse_twice(&self, watches: &[Watch]) -> Result<(), ConfigError> {
        let alone = |watch: &&Watch| {
            matches!(watch.follow, Followed::Journald(_) | Followed::Pipe(_) | Followed::Stdin)
        };
        let mut names: Vec<&str> =
            watches.iter().filter(alone).map(|watch| watch.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|two| two.first() == two.last()) {
            return Err(ConfigError::Choice {
                path: self.path.clone(),
                field: "watch".to_owned(),
                why: "the same journal, pipe or standard input is watched twice; give each once, a \
                    journal with all its units",
            });
        }
        Ok(())
    }

    fn mail(
        &self,
        mail: setting::Mail,
        lacks_password: &mut bool,
    ) -> Result<mail::Settings, ConfigError> {
        let (mailer, from) = match (mail.directory, mail.smtp) {
            (Some(folder), None) => {
                (Mailer::Directory(self.resolve(&folder)), "leakwarden@localhost".to_owned())
            }
            (None, Some(smtp)) => {
                let from = smtp.from.clone();
                (Mailer::Smtp(self.smtp(smtp, lacks_password)?), from)
            }
            (None, None) => {
                let folder = self.resolve(Path::new("mail"));
                (Mailer::Directory(folder), "leakwarden@localhost".to_owned())
            }
            (Some(_), Some(_)) => {
                return Err(ConfigError::Choice {
                    path: self.path.clone(),
                    field: "mail".to_owned(),
                    why: "give either `directory` or `smtp`",
                });
            }
        };
        let from = from.parse().map_err(|_| ConfigError::From {
            path: self.path.clone(),
            from: crate::text::clean(from.as_bytes()),
        })?;
        let options = mail::Options {
            from,
            retry_first: mail.retry_after.0,
            retry_max: std::time::Duration::from_secs(3_600).max(mail.retry_after.0),
            give_up_after: mail.give_up_after.0,
        };
        Ok(mail::Settings { mailer, options })
    }

    fn smtp(&self, smtp: setting::Smtp, lacks_password: &mut bool) -> Result<Smtp, ConfigError> {
        let credentials = match (smtp.username, smtp.password_file) {
            (Some(user), Some(file)) => {
                let file = self.resolve(&file);
                Some((user, self.password(&file)?))
            }
            (Some(user), None) => match folder::credential(PASSWORD_CREDENTIAL) {
                Some(file) => Some((user, handed_over(&file)?)),
                None => {
                    *lacks_password = true;
                    None
                }
            },
            // A file without a name was refused when it was read.
            (None, _) => None,
        };
        let tls = smtp.tls.into();
        let port = smtp.port.unwrap_or(match tls {
            mail::Tls::Implicit => 465,
            mail::Tls::StartTls => 587,
            mail::Tls::None => 25,
        });
        Smtp::new(smtp.host, port, tls, credentials, smtp.deadline.0)
            .map_err(|source| ConfigError::Smtp { path: self.path.clone(), source })
    }

    /// Root may read any file: for somebody else's configuration it reads theirs alone.
    fn password(&self, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
        let mut file = folder::open_private(path)?;
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let is_root = rustix::process::geteuid().is_root();
        if is_root && ![0, file.metadata().map_err(failed)?.uid()].contains(&self.owner) {
            return Err(ConfigError::Choice {
                path: self.path.clone(),
                field: "mail.smtp.password_file".to_owned(),
                why: "the file belongs to another user than the configuration does; give both to one \
                    user, or the configuration to root",
            });
        }
        password(&mut file, path)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        crate::source::absolute(&self.base, path)
    }

    fn pattern(&self, pattern: &str) -> String {
        crate::source::absolute_pattern(&self.base, pattern)
    }

    fn globs(&self, field: &str, patterns: &[String]) -> Result<GlobSet, ConfigError> {
        let at =
            |source| ConfigError::Glob { path: self.path.clone(), field: field.to_owned(), source };
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = self.pattern(pattern);
            builder.add(GlobBuilder::new(&pattern).literal_separator(true).build().map_err(at)?);
        }
        builder.build().map_err(at)
    }
}

/// A log may be a link to the file that is written to now; elsewhere links are asked for.
fn links(asked: Option<setting::Links>, mode: Mode) -> Links {
    match (asked, mode) {
        (Some(setting::Links::Never), _) | (None, Mode::Files) => Links::Refuse,
        (Some(setting::Links::Owner), _) | (None, Mode::Logs { .. }) => Links::OfOwner,
        (Some(setting::Links::Any), _) => Links::Follow,
    }
}
