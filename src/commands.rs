//! The commands: build the parts, call them, print, answer with an exit code.

mod access;
mod account;
mod audit;
mod config;
mod demo;
mod home;
mod hook;
mod identity;
mod init;
mod key;
mod leak;
mod output;
mod registry;
mod respond;
mod rule;
mod scan;
mod status;
mod watch;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::Parser;

use crate::cli::{Cli, Command, Late, RegistryArg, Scope};
use crate::matcher::Matcher;
use crate::registry::Registry;
use crate::registry::access::Caller;
use crate::rule::{Confidence, RuleSet};
use crate::shape::{KEY_MIN, NoKeys, ShapeSet};
use crate::source::reader::{self, Links};

/// Longest file of rules, in bytes.
const RULE_FILE_MAX: u64 = 1 << 20;

/// How a command ends; the numbers are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; everything read, no leak.
    Clean = 0,
    /// A leak, or an answer that is "no".
    Found = 1,
    /// Usage, configuration or registry error.
    Error = 2,
    /// No leak, but something could not be read.
    Incomplete = 3,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command line.
#[must_use]
pub fn run(arguments: &[OsString]) -> Exit {
    match dispatch(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            output::error(&explained(&error));
            Exit::Error
        }
    }
}

/// An error with its causes; one that repeats its cause is not followed by it.
fn explained(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn dispatch(arguments: &[OsString]) -> anyhow::Result<Exit> {
    if !are_of_git(arguments) {
        refuse_keys(arguments)?;
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            answer.print().context("cannot print")?;
            return Ok(if answer.use_stderr() { Exit::Error } else { Exit::Clean });
        }
    };
    match cli.command {
        Command::Scan(scan) => scan::run(scan),
        Command::Hook(Late(hook)) => hook::run(&hook),
        Command::Watch(watch) => watch::run(&watch),
        Command::Status { registry, format } => status::run(&registry, format.format),
        Command::Config(Late(config)) => config::run(&config),
        Command::Demo => demo::run(),
        Command::Init(init) => init::run(&init),
        Command::Key(Late(key)) => key::run(key),
        Command::Identity(Late(identity)) => identity::run(identity),
        Command::Account(Late(account)) => account::run(account),
        Command::Access(Late(access)) => access::run(&access),
        Command::Home(Late(home)) => home::run(&home),
        Command::Whoami { scope, format } => access::whoami(&scope, format.format),
        Command::Audit(Late(audit)) => audit::run(&audit),
        Command::Registry(Late(registry)) => registry::run(&registry),
        Command::Leak(Late(leak)) => leak::run(&leak),
        Command::Rule(Late(rule)) => rule::run(&rule),
    }
}

/// The name under which changes are recorded: the user of the operating system.
fn actor() -> String {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    let uid = rustix::process::getuid().as_raw();
    match (name.as_str(), uid) {
        ("", 0) => "root".to_owned(),
        ("", uid) => format!("uid {uid}"),
        (name, _) => crate::text::clean(name.as_bytes()),
    }
}

/// The mail address that stands for the user who gives none.
fn own_address() -> String {
    let name: String = actor()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    let host = crate::daemon::host();
    format!("{name}@{}", if host.is_empty() { "localhost" } else { &host })
}

/// A matcher with the built-in rules and those of some folders.
fn matcher(folders: &[PathBuf]) -> anyhow::Result<Matcher> {
    matcher_of(all_rule_files(folders)?)
}

/// A matcher with the built-in rules and those of some files, each with its name.
fn matcher_of(files: Vec<(String, String)>) -> anyhow::Result<Matcher> {
    let rules = RuleSet::with_files(files).context("rules")?;
    Ok(Matcher::new(Arc::new(rules), ShapeSet::default()))
}

/// The built-in rules and those of some folders.
fn rules(folders: &[PathBuf]) -> anyhow::Result<RuleSet> {
    RuleSet::with_files(all_rule_files(folders)?).context("rules")
}

fn all_rule_files(folders: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for folder in folders {
        files.extend(rule_files(folder)?);
    }
    Ok(files)
}

fn rule_files(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let shown = folder.display();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))? {
        let path = entry.with_context(|| format!("cannot read {shown}"))?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push((path.display().to_string(), rule_file(&path)?));
        }
    }
    if files.is_empty() {
        bail!("{shown} holds no .yaml file with rules");
    }
    files.sort();
    Ok(files)
}

/// The text of one file of rules: what is long, or no file, is never read to its end.
fn rule_file(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let (file, _) = reader::open(path, Links::Follow).with_context(cannot)?;
    let mut text = Vec::new();
    file.take(RULE_FILE_MAX + 1).read_to_end(&mut text).with_context(cannot)?;
    if text.len() as u64 > RULE_FILE_MAX {
        bail!("{}: a file of rules has 1 MiB at most; divide it", cannot());
    }
    String::from_utf8(text).map_err(|_| anyhow!("{}: it is no UTF-8", cannot()))
}

/// Opens the registry that a command needs. Words of the command line that are a registered key
/// are refused before anything can echo them.
fn open(registry: &RegistryArg) -> anyhow::Result<Registry> {
    let Some(dir) = &registry.registry else {
        bail!("no registry: give --registry DIR, or set LEAKWARDEN_REGISTRY");
    };
    let mut registry = Registry::open(dir)?;
    let is_key = registry.read(|tx| {
        for word in std::env::args_os().skip(1) {
            if tx.is_key_in(word.as_encoded_bytes())? {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    if is_key {
        bail!(KEY_IN_ARGUMENT);
    }
    Ok(registry)
}

/// A registry, and who works on it.
struct Session {
    registry: Registry,
    caller: Caller,
}

impl Session {
    fn open(scope: &Scope) -> anyhow::Result<Self> {
        Self::of(&scope.registry, scope.acts_as.as_deref(), scope.account.as_deref())
    }

    fn of(
        registry: &RegistryArg,
        acts_as: Option<&str>,
        account: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut registry = open(registry)?;
        let caller = registry.read(|tx| tx.caller(&actor(), acts_as, account))?;
        Ok(Self { registry, caller })
    }
}

const KEY_IN_ARGUMENT: &str = "an argument is an API key: keys are read from standard input or a \
    file, never from the command line, where others can see them (and this one should be rotated)";

/// Whether git gave the arguments: what pushes to a URL with a password in it has not put it there
/// for us, and `hook` repeats none of them.
fn are_of_git(arguments: &[OsString]) -> bool {
    let words = arguments.get(1).zip(arguments.get(2));
    words.is_some_and(|(first, second)| {
        first == "hook" && (second == "pre-push" || second == "update")
    })
}

/// Refuses arguments in which a rule sees a key, without repeating them.
fn refuse_keys(arguments: &[OsString]) -> anyhow::Result<()> {
    let suspicious: Vec<&[u8]> = arguments
        .iter()
        .skip(1)
        .map(|argument| argument.as_encoded_bytes())
        .filter(|word| word.len() >= KEY_MIN && RuleSet::may_concern(word))
        .collect();
    if suspicious.is_empty() {
        return Ok(());
    }
    let matcher = matcher(&[])?;
    let mut hits = Vec::new();
    for word in suspicious {
        matcher.find(word, 0..word.len(), &NoKeys, &mut hits);
    }
    if hits.iter().any(|hit| hit.confidence >= Confidence::Medium) {
        bail!(KEY_IN_ARGUMENT);
    }
    Ok(())
}
