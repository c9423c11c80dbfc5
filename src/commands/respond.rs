//! `leakwarden scan --respond`: by which configuration a scan responds, and what people hear of it.

use std::path::PathBuf;

use anyhow::Context as _;

use super::output;
use crate::daemon::once::{self, Options, Outcome};
use crate::ledger::Sighting;
use crate::pipeline::Whereabouts;
use crate::registry::Registry;
use crate::text::plural;
use crate::{cli, clock, daemon, review};

/// Where `init` puts the configuration, in the registry's folder.
const CONFIG: &str = "config.yaml";

/// How a scan responds, and to which registry's keys.
pub(super) struct Response {
    pub(super) registry: PathBuf,
    options: Options,
}

impl Response {
    /// By the options of a scan that asks for it.
    pub(super) fn of(arguments: &cli::Scan) -> anyhow::Result<Self> {
        let asked = arguments.report.registry.registry.as_ref();
        let beside = || asked.map(|folder| folder.join(CONFIG)).filter(|file| file.exists());
        let file = arguments.respond.config.clone().or_else(beside).context(
            "nothing says how to respond: give --config FILE, the configuration that `leakwarden \
             watch` has",
        )?;
        let config = super::config::read_to_act(&file)?;
        if let Some(asked) = asked {
            let real = |folder: &PathBuf| {
                std::fs::canonicalize(folder)
                    .with_context(|| format!("cannot open the registry in {}", folder.display()))
            };
            anyhow::ensure!(
                real(asked)? == real(&config.registry)?,
                "{} is about the registry in {}, but the scan asks the one in {}; leave --registry \
                 and LEAKWARDEN_REGISTRY out, or give that registry's configuration",
                file.display(),
                config.registry.display(),
                asked.display(),
            );
        }
        let options = Options { ledger: config.daemon.ledger, mail: config.daemon.mail };
        Ok(Self { registry: config.registry, options })
    }

    /// Records what was seen, and does what follows.
    pub(super) fn carry_out(
        self,
        registry: &mut Registry,
        sightings: &[Sighting],
    ) -> anyhow::Result<Outcome> {
        Ok(once::respond(registry, &self.registry, sightings, self.options)?)
    }
}

/// Where a scan with these options reads.
pub(super) fn whereabouts(arguments: &cli::Scan) -> anyhow::Result<Whereabouts> {
    Ok(Whereabouts {
        host: daemon::host(),
        folder: std::env::current_dir().context("cannot find the current folder")?,
        repository: arguments.history.git.clone(),
    })
}

/// Tells people what was done. `seen`: at how many places; `quiet`: only what is not done.
pub(super) fn tell(outcome: &Outcome, seen: usize, quiet: bool) {
    let Outcome { incidents, left_to_others, unfinished } = outcome;
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
    let text = match (incidents.len() as u64, seen) {
        (0, 0) => "no registered key was found: nothing to respond to".to_owned(),
        (0, _) => {
            "registered keys were seen at their homes, or where they were seen before: nothing \
             to respond to"
                .to_owned()
        }
        (count, _) => {
            let leaks = review::list_text(incidents, clock::now());
            format!("open: {} of these keys\n{}", plural(count, "leak"), leaks.trim_end())
        }
    };
    output::note(&text);
    if incidents.iter().any(review::is_held) {
        output::note("`leakwarden leak approve` releases what is held");
    }
}
