//! `leakwarden scan --respond`: by which configuration a scan responds, and what people hear of it.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use super::output;
use crate::daemon::once::{self, Outcome};
use crate::incident::Mode;
use crate::pipeline::Recording;
use crate::registry::Registry;
use crate::secret::Digest;
use crate::text::plural;
use crate::{cli, clock, config, daemon, ledger, mail, review};

/// Where `init` puts the configuration, in the registry's folder.
const CONFIG: &str = "config.yaml";

/// Leaks that are told of; more are counted.
const SHOWN: usize = 20;

/// How a scan responds.
pub(super) struct Response {
    folder: PathBuf,
    mode: Mode,
    mail: mail::Settings,
}

impl Response {
    /// By the options of a scan that asks for it, which are completed by what the configuration says;
    /// and what the scan is to record.
    pub(super) fn of(arguments: &mut cli::Scan) -> anyhow::Result<(Self, Recording)> {
        let file = configuration(arguments)?;
        let asked_for = super::config::read_to_act(&file)?;
        let report = &mut arguments.report;
        let real = |folder: &PathBuf| {
            let shown = folder.display();
            std::fs::canonicalize(folder).with_context(|| format!("cannot open {shown}"))
        };
        if let Some(asked) = &report.registry.registry {
            ensure!(
                real(asked)? == real(&asked_for.registry)?,
                "{} is about the registry in {}, but the scan asks the one in {}; leave --registry \
                 and LEAKWARDEN_REGISTRY out, or give that registry's configuration",
                file.display(),
                asked_for.registry.display(),
                asked.display(),
            );
        }
        report.registry.registry = Some(asked_for.registry.clone());
        // A filter stands in for a registry that cannot be read; nothing could be recorded in that.
        report.filter = None;
        let asked = report.rules.iter().map(real).collect::<anyhow::Result<Vec<_>>>()?;
        for folder in &asked_for.rules {
            if !asked.contains(&real(folder)?) {
                report.rules.push(folder.clone());
            }
        }
        let (policy, kept) = ledger::kept(&mut super::open(&report.registry)?)?;
        ensure!(
            policy.is_none_or(|policy| policy == asked_for.daemon.ledger.policy),
            "{}: `response` is not what the daemon had when it last read its configuration; give the \
             daemon's, or have the daemon take this one in first: `leakwarden watch --config {}`, or \
             SIGHUP",
            file.display(),
            file.display(),
        );
        let daemon::Options { ledger: mut options, mail, .. } = asked_for.daemon;
        // What the daemon takes for a home is one, whatever this configuration says.
        if let Some(kept) = kept.filter(|kept| kept != &file) {
            let shown = kept.display();
            if kept.try_exists().with_context(|| format!("cannot look at {shown}"))? {
                let homes = config::homes(&kept).context("cannot read the daemon's homes")?;
                options.homes = options.homes.and(&homes)?;
            } else {
                output::note(&format!("{shown} is gone, which told the daemon's homes"));
            }
        }
        let mode = options.policy.mode;
        let recording = Recording {
            host: daemon::host(),
            // Without it nobody knows which files are homes.
            folder: std::env::current_dir().context("cannot tell the current folder")?,
            options,
        };
        Ok((Self { folder: asked_for.registry, mode, mail }, recording))
    }

    /// Does what follows, now that these keys were recorded.
    pub(super) fn carry_out(
        self,
        registry: &mut Registry,
        keys: &[Digest],
    ) -> anyhow::Result<Outcome> {
        let how = (self.mode, self.mail);
        Ok(once::respond(registry, &self.folder, how, keys)?)
    }
}

/// The configuration that counts: the one that was given, the one that the daemon had last, or the one in
/// the registry's folder.
fn configuration(arguments: &cli::Scan) -> anyhow::Result<PathBuf> {
    if let Some(file) = &arguments.respond.config {
        return Ok(file.clone());
    }
    let nothing = "nothing says how to respond: give --config FILE, the configuration that \
         `leakwarden watch` has";
    let folder = arguments.report.registry.registry.as_ref().context(nothing)?;
    let (_, kept) = ledger::kept(&mut super::open(&arguments.report.registry)?)?;
    let file = kept.unwrap_or_else(|| folder.join(CONFIG));
    ensure!(file.exists(), "{nothing} ({} is not there)", file.display());
    Ok(file)
}

/// Tells people what was done, where so many keys were recorded; `None`: not all could be. `quiet`: only
/// what is not done.
pub(super) fn tell(outcome: &Outcome, keys: Option<usize>, quiet: bool) {
    let Outcome { incidents, left_to_others, unfinished, others } = outcome;
    if *unfinished || incidents.iter().any(review::is_due) {
        output::note("not all is done or told yet: `leakwarden watch` goes on with it");
    }
    if quiet {
        return;
    }
    if *left_to_others {
        output::note(
            "what was due was left to the daemon, or another scan, that acts on this registry",
        );
    }
    let text = match (incidents.len() as u64, keys) {
        (0, None) => "nothing was responded to".to_owned(),
        (0, Some(0)) => "no registered key was found: nothing to respond to".to_owned(),
        (0, _) => {
            "registered keys were seen at their homes, or where they were seen before: nothing \
             to respond to"
                .to_owned()
        }
        (count, _) => {
            let (shown, others) = incidents.split_at(incidents.len().min(SHOWN));
            let leaks = review::list_text(shown, clock::now());
            let more = match others.len() as u64 {
                0 => String::new(),
                others => {
                    format!("\nand {}: see `leakwarden leak list`", plural(others, "more leak"))
                }
            };
            format!("open: {} of these keys\n{}{more}", plural(count, "leak"), leaks.trim_end())
        }
    };
    output::note(&text);
    if *others > 0 {
        let leaks = plural(*others as u64, "leak");
        output::note(&format!(
            "something was due already about {leaks} of other keys: see `leakwarden leak list --all`"
        ));
    }
    if incidents.iter().any(review::is_held) {
        output::note("`leakwarden leak approve` releases what is held");
    }
}
