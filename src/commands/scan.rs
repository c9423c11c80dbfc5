//! `leakwarden scan`: the front half over something that ends.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::respond::{self, Response};
use super::{Exit, output};
use crate::cli::{self, MinConfidence, ReportFormat};
use crate::finding::{self, Report};
use crate::matcher::Matcher;
use crate::pipeline::{self, Known, Scan};
use crate::registry::Registry;
use crate::registry::export::ExportedFilter;
use crate::registry::folder;
use crate::report::{self, Format};
use crate::rule::Confidence;
use crate::source::git::history::{History, Limits, Selection, Tally};
use crate::source::reader::{self, pump};
use crate::source::{End, Item, Kind, Sink, Stop, diff, files, git};

/// Findings that each thread holds in memory: some MB.
const AT_HAND: usize = 4096;
/// A scan may be ended at any time: what it has seen is recorded by then.
const RECORD_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(mut arguments: cli::Scan) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let (mut response, mut recording) = (None, None);
    if arguments.respond.respond {
        let (how, what) = Response::of(&mut arguments)?;
        (response, recording) = (Some(how), Some(what));
    }
    let arguments = &arguments;
    let matcher = super::matcher(&arguments.report.rules)?.with_deep(arguments.deep);
    // What git has is placed at the end, and so stays at hand.
    let at_hand = if arguments.history.git.is_some() { usize::MAX } else { AT_HAND };
    let mut scan = start(&arguments.report, &matcher, at_hand)?;
    if let Some(recording) = recording {
        scan = scan.recording(recording);
    }
    let read = read_recording(arguments, &scan);
    let (keys, recorded) = (scan.seen(), scan.record_rest());
    let (mut report, mut registry) = scan.finish()?;
    report.seconds = started.elapsed().as_secs_f64();
    // What was found before reading failed is responded to all the same.
    let wanted = read.is_ok() || !keys.is_empty();
    let outcome = response.filter(|_| wanted).zip(registry.as_mut()).map(|(response, registry)| {
        // Keys first: people can read when they are harmless.
        response.carry_out(registry, &keys)
    });
    let exit = read.and_then(|read| {
        report.ignored = read.ignored;
        report.commits = read.commits;
        report.empty = read.empty;
        report.history = read.history;
        finish(&report, &arguments.report)
    });
    if let Some(outcome) = outcome {
        let keys = recorded.is_ok().then_some(keys.len());
        respond::tell(&outcome?, keys, arguments.report.quiet);
    }
    leave(registry);
    let exit = exit?;
    recorded?;
    Ok(exit)
}

/// Reads. What is seen meanwhile is recorded at least so often, where it is recorded at all.
fn read_recording(arguments: &cli::Scan, scan: &Scan) -> anyhow::Result<Read> {
    if !arguments.respond.respond {
        return read(arguments, scan);
    }
    std::thread::scope(|scope| {
        let (reading, over) = mpsc::sync_channel::<()>(1);
        scope.spawn(move || {
            while over.recv_timeout(RECORD_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                scan.record_seen();
            }
        });
        let read = read(arguments, scan);
        drop(reading);
        read
    })
}

/// What a scan did with its registry is over; what it changed there, if it responded, is in the log.
pub(super) fn leave(registry: Option<Registry>) {
    if let Some(registry) = registry {
        registry.leave(0);
    }
}

/// A scan as the options of scans and hooks ask for it.
pub(super) fn start(
    arguments: &cli::Report,
    matcher: &Matcher,
    at_hand: usize,
) -> anyhow::Result<Scan> {
    let known = known(arguments)?;
    if arguments.only.is_some() && matches!(known, Known::Nothing) {
        anyhow::bail!("`--only registered` needs a registry: give --registry DIR");
    }
    let options = pipeline::Options {
        at_hand,
        only_registered: arguments.only.is_some(),
        min_confidence: match arguments.min_confidence {
            MinConfidence::Low => Confidence::Low,
            MinConfidence::Medium => Confidence::Medium,
            MinConfidence::High => Confidence::High,
        },
    };
    Ok(Scan::new(matcher, known, options, crate::clock::now())?)
}

/// The registry, which names keys; where it cannot be read and there is a filter, the filter.
fn known(arguments: &cli::Report) -> anyhow::Result<Known> {
    let folder = arguments.registry.registry.as_deref().filter(|_| !arguments.no_registry);
    let filter = arguments.filter.as_deref();
    match (folder, filter) {
        (Some(folder), Some(filter)) if !folder::is_readable(folder) => {
            Ok(Known::Exported(ExportedFilter::read(filter)?))
        }
        (Some(_), _) => Ok(Known::Registry(super::open(&arguments.registry)?)),
        (None, Some(filter)) => Ok(Known::Exported(ExportedFilter::read(filter)?)),
        (None, None) => Ok(Known::Nothing),
    }
}

/// Prints the report and draws the conclusion.
fn finish(report: &Report, arguments: &cli::Report) -> anyhow::Result<Exit> {
    if !arguments.quiet && (arguments.format != ReportFormat::Text || arguments.output.is_some()) {
        output::note(&report::known_line(report));
    }
    write(report, arguments, arguments.quiet)?;
    Ok(conclusion(report))
}

/// Prints the report; `findings_only` concerns people alone.
pub(super) fn write(
    report: &Report,
    arguments: &cli::Report,
    findings_only: bool,
) -> anyhow::Result<()> {
    let format = match arguments.format {
        ReportFormat::Text => Format::Text,
        ReportFormat::Json => Format::Json,
        ReportFormat::Jsonl => Format::Jsonl,
    };
    match &arguments.output {
        Some(path) => {
            output::to_file(path, |out| report::write(report, format, findings_only, out))
        }
        None => output::to_stdout(|out| report::write(report, format, findings_only, out)),
    }
}

/// How the command ends.
pub(super) fn conclusion(report: &Report) -> Exit {
    match (report.count() == 0, report.complete()) {
        (false, _) => Exit::Found,
        (true, true) => Exit::Clean,
        (true, false) => Exit::Incomplete,
    }
}

fn walk(arguments: &cli::Scan, scan: &Scan) -> anyhow::Result<u64> {
    let paths =
        if arguments.paths.is_empty() { vec![PathBuf::from(".")] } else { arguments.paths.clone() };
    let asked = arguments.threads;
    let options = files::Options {
        paths,
        exclude: globs(&arguments.exclude)?,
        no_ignore: arguments.no_ignore,
        threads: LazyLock::new(Box::new(move || threads(asked))),
        long: Mutex::default(),
    };
    Ok(files::run(&options, &|| scan.reader()))
}

fn threads(asked: Option<usize>) -> usize {
    asked.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1)
}

/// What of the report only those know who read.
#[derive(Default)]
struct Read {
    ignored: u64,
    commits: u64,
    empty: bool,
    history: Option<finding::History>,
}

fn read(arguments: &cli::Scan, scan: &Scan) -> anyhow::Result<Read> {
    let mut read = Read::default();
    if let Some(repository) = &arguments.history.git {
        return history(repository, arguments, scan);
    } else if arguments.diff {
        read_diff(scan)?;
    } else if arguments.stdin {
        read_stdin(&arguments.name, scan);
    } else {
        read.ignored = walk(arguments, scan)?;
    }
    Ok(read)
}

/// Reads a repository, or its index only.
fn history(repository: &Path, arguments: &cli::Scan, scan: &Scan) -> anyhow::Result<Read> {
    let asked = &arguments.history;
    if asked.staged {
        let outcome = git::Staged::start(repository)?.read(&mut scan.reader())?;
        return Ok(Read { empty: outcome.headers == 0, ..Read::default() });
    }
    let limits = Limits {
        threads: threads(arguments.threads),
        memory: asked.memory << 20,
        unpacked: asked.max_unpacked.map(|megabytes| megabytes << 20),
    };
    let history = History::open(repository, limits, asked.allow_shallow)?;
    scan.reads_repository(history.folder());
    let outcome =
        history.read(&selection(asked)?, (0..limits.threads).map(|_| scan.reader()).collect())?;
    let found = scan.objects();
    if !found.is_empty() {
        scan.place(&history.places(&found));
    }
    let Tally { objects, commits, submodules } = outcome.tally;
    let history = Some(finding::History { objects, submodules });
    Ok(Read { commits, empty: outcome.nothing_new, history, ..Read::default() })
}

fn selection(asked: &cli::History) -> anyhow::Result<Selection> {
    let (without, of) = match (&asked.range, &asked.since, &asked.branch) {
        (Some(range), _, _) => {
            let (a, b) =
                range.split_once("..").filter(|(_, b)| !b.starts_with('.')).with_context(|| {
                    format!("--range {range}: expected A..B, such as origin/main..HEAD")
                })?;
            (Some(a), b)
        }
        (None, since, Some(branch)) => (since.as_deref(), branch.as_str()),
        (None, Some(since), None) => (Some(since.as_str()), "HEAD"),
        (None, None, None) => return Ok(Selection::Everything),
    };
    // As git reads it: a side that is left out is HEAD.
    let named = |side: &str| if side.is_empty() { "HEAD".to_owned() } else { side.to_owned() };
    Ok(Selection::Commits { without: without.map(named), of: named(of) })
}

fn globs(patterns: &[String]) -> anyhow::Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).with_context(|| format!("--exclude {pattern}"))?);
    }
    builder.build().context("--exclude")
}

fn read_stdin(name: &Path, scan: &Scan) {
    let mut reader = scan.reader();
    let mut stdin = io::stdin().lock();
    let item = Item::whole(Kind::Stdin, name.to_owned());
    // An empty input is no stream: a scan that read nothing must not look clean.
    let first = match io::BufRead::fill_buf(&mut stdin) {
        Ok(bytes) => bytes.len(),
        Err(error) => return reader.skip(name, reader::describe(&error)),
    };
    if first == 0 {
        return reader.skip(name, "standard input is empty".to_owned());
    }
    reader.begin(&item);
    let outcome = pump(&mut stdin, &mut reader, &Stop::new());
    let _position = reader.end(End::Done);
    if let Err(error) = outcome {
        reader.skip(name, reader::describe(&error));
    }
}

fn read_diff(scan: &Scan) -> anyhow::Result<()> {
    let mut reader = scan.reader();
    let mut input = BufReader::with_capacity(64 * 1024, io::stdin().lock());
    let outcome = diff::run(&mut input, Kind::Diff, &mut reader)?;
    if outcome.headers == 0 {
        let why = if outcome.bytes == 0 {
            "the diff on standard input is empty"
        } else {
            "standard input is no unified diff; `--stdin` reads it as text"
        };
        reader.skip(Path::new("<diff>"), why.to_owned());
    }
    Ok(())
}
