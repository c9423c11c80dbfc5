//! How the daemon does: gathered in one place, and written for Prometheus here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::incident::Mode;
use crate::ledger;
use crate::pipeline::Meter;
use crate::registry::{Registry, RegistryError};
use crate::secret::{identity_hash, to_hex};
use crate::vital::{BOUNDS, Histogram};
use crate::{clock, text};

/// How a watch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It looks at what is there.
    Starting,
    /// It misses nothing.
    Running,
    /// It failed and waits for its next start.
    Failed,
    /// It came to its end.
    Ended,
}

/// One watch.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct WatchStatus {
    /// What it is called where nothing of its paths may show.
    pub id: String,
    /// Its name, redacted.
    pub name: String,
    /// How it does.
    pub state: State,
    /// Why it failed, or why it does less than it is meant to.
    pub why: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
    /// Bytes that were gone before they were read, at least.
    pub lost_bytes: u64,
    /// Looks at everything because file events were lost.
    pub rescans: u64,
    /// From reading to writing, the last time.
    pub lag_seconds: f64,
}

impl WatchStatus {
    /// Whether it does all that it is meant to.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.why.is_none() && self.state != State::Failed
    }
}

/// How long leak actions took, from the sighting to the effect.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Took {
    /// How many took at most so many seconds.
    pub within: Vec<(f64, u64)>,
    /// All of them.
    pub count: u64,
    /// Together, in seconds.
    pub sum: f64,
}

/// How the daemon does.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Of leakwarden.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it was started.
    pub started_at: String,
    /// `observe` or `act`.
    pub mode: String,
    /// Whether every watch misses nothing.
    pub ready: bool,
    /// Parts that give no sign of life.
    pub stuck: Vec<String>,
    /// Live keys of the registry.
    pub keys: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Lines read.
    pub read_lines: u64,
    /// Files read, and parts of logs.
    pub read_files: u64,
    /// What looked like a key.
    pub candidates: u64,
    /// Candidates that are registered keys.
    pub registered: u64,
    /// Files and folders that could not be read.
    pub unreadable: u64,
    /// Refusals of the database.
    pub errors: u64,
    /// What was read and is not written.
    pub queued_batches: u64,
    /// From reading to writing, the last time.
    pub lag_seconds: f64,
    /// By what became of them.
    pub incidents: BTreeMap<String, u64>,
    /// By what became of them.
    pub actions: BTreeMap<String, u64>,
    /// By what became of them.
    pub notices: BTreeMap<String, u64>,
    /// How long they took.
    pub action_seconds: Took,
    /// What is watched.
    pub watches: Vec<WatchStatus>,
}

/// What the supervisor writes for all to see.
pub(super) struct Board {
    pub(super) started_at: Timestamp,
    /// Whether nothing can be missed; the service manager knows.
    pub(super) ready: AtomicBool,
    pub(super) took: Histogram,
    stuck: Mutex<Vec<String>>,
    watches: Mutex<BTreeMap<String, Line>>,
}

/// A watch on the board.
#[derive(Clone)]
struct Line {
    shown: String,
    state: State,
    why: Option<String>,
    starts: u64,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            started_at: clock::now(),
            ready: AtomicBool::new(false),
            took: Histogram::default(),
            stuck: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// A watch of that name was started.
    pub(super) fn starts(&self, name: &str, shown: String) {
        let mut watches = held(&self.watches);
        let starts = watches.get(name).map_or(0, |line| line.starts) + 1;
        let line = Line { shown, state: State::Starting, why: None, starts };
        watches.insert(name.to_owned(), line);
    }

    /// How it goes on.
    pub(super) fn set(&self, name: &str, state: State, why: Option<String>) {
        if let Some(line) = held(&self.watches).get_mut(name) {
            line.state = state;
            line.why = why;
        }
    }

    /// What people see of a watch's name.
    pub(super) fn shown(&self, name: &str) -> String {
        held(&self.watches).get(name).map(|line| line.shown.clone()).unwrap_or_default()
    }

    /// Forgets watches that are not configured any more.
    pub(super) fn keep(&self, wanted: impl Fn(&str) -> bool) {
        held(&self.watches).retain(|name, _| wanted(name));
    }

    pub(super) fn stuck(&self) -> Vec<String> {
        held(&self.stuck).clone()
    }

    pub(super) fn set_stuck(&self, stuck: Vec<String>) {
        *held(&self.stuck) = stuck;
    }

    /// For a line that people read: how many watches, and how many of them failed.
    pub(super) fn count(&self) -> (usize, usize) {
        let watches = held(&self.watches);
        let failed = watches.values().filter(|line| line.state == State::Failed).count();
        (watches.len(), failed)
    }
}

/// What can be seen from outside.
pub(super) struct View {
    pub(super) registry: Registry,
    pub(super) meter: Arc<Meter>,
    pub(super) board: Arc<Board>,
    pub(super) options: Arc<RwLock<ledger::Options>>,
}

impl View {
    /// Asks everybody.
    pub(super) fn status(&mut self) -> Result<Status, RegistryError> {
        let totals = ledger::totals(&mut self.registry)?;
        let of = |what: &str| {
            let of = totals.iter().filter(|total| total.what == what);
            of.map(|total| (total.state.to_owned(), total.count)).collect::<BTreeMap<_, _>>()
        };
        let mode = self.options.read().unwrap_or_else(PoisonError::into_inner).policy.mode;
        let (meter, board) = (&self.meter, &self.board);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: clock::rfc3339(board.started_at),
            mode: if mode == Mode::Act { "act" } else { "observe" }.to_owned(),
            ready: board.ready.load(Ordering::Acquire),
            stuck: board.stuck(),
            keys: self.registry.key_count()?,
            read_bytes: meter.bytes.get(),
            read_lines: meter.lines.get(),
            read_files: meter.files.get(),
            candidates: meter.candidates.get(),
            registered: meter.registered.get(),
            unreadable: meter.unreadable.get(),
            errors: meter.errors.get(),
            queued_batches: meter.queued.get(),
            lag_seconds: seconds(meter.lag_ms.get()),
            incidents: of("incidents"),
            actions: of("actions"),
            notices: of("notices"),
            action_seconds: took(&board.took),
            watches: self.watches(),
        })
    }

    fn watches(&self) -> Vec<WatchStatus> {
        let lines = held(&self.board.watches).clone();
        let status = |(name, line): (String, Line)| {
            let of = self.meter.of_watch(&name);
            WatchStatus {
                id: id(&name),
                name: line.shown,
                state: line.state,
                why: line.why.or_else(|| of.degraded().map(|why| text::clean(why.as_bytes()))),
                restarts: line.starts.saturating_sub(1),
                lost_bytes: of.lost_bytes.get(),
                rescans: of.rescans.get(),
                lag_seconds: seconds(of.lag_ms.get()),
            }
        };
        lines.into_iter().map(status).collect()
    }
}

/// The kind of a watch and a hash of all its name: paths do not show, and it stays what it is when
/// others come and go.
fn id(name: &str) -> String {
    let kind = name.split(' ').next().unwrap_or_default();
    let hash = to_hex(&identity_hash(&[name.as_bytes()]));
    format!("{kind}-{}", hash.get(..8).unwrap_or_default())
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

fn took(histogram: &Histogram) -> Took {
    let (counts, sum) = histogram.read();
    Took {
        within: BOUNDS.into_iter().zip(counts.iter().copied()).collect(),
        count: counts.last().copied().unwrap_or_default(),
        sum: sum.as_secs_f64(),
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Labels and a number.
type Sample = (String, String);

impl Status {
    /// As text for Prometheus. No label holds a path, a name or a key.
    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        for (name, help, count) in [
            ("read_bytes", "Bytes read.", self.read_bytes),
            ("read_lines", "Lines read.", self.read_lines),
            ("read_files", "Files read, and parts of logs.", self.read_files),
            ("candidates", "What looked like a key.", self.candidates),
            ("registered", "Candidates that are registered keys.", self.registered),
            ("unreadable", "Files and folders that could not be read.", self.unreadable),
            ("errors", "Refusals of the database; what they concern is tried again.", self.errors),
        ] {
            metric(&mut text, &format!("{name}_total"), "counter", help, &alone(&count));
        }
        for (what, counts) in
            [("incidents", &self.incidents), ("actions", &self.actions), ("notices", &self.notices)]
        {
            let sample = |(state, count): (&String, &u64)| {
                (format!("{{state=\"{state}\"}}"), count.to_string())
            };
            let samples: Vec<Sample> = counts.iter().map(sample).collect();
            let help = format!("How many {what} the registry holds, by what became of them.");
            metric(&mut text, what, "gauge", &help, &samples);
        }
        let ready = u8::from(self.ready);
        metric(
            &mut text,
            "keys",
            "gauge",
            "Live keys: the size of the filter.",
            &alone(&self.keys),
        );
        let help = "What was read and is not written.";
        metric(&mut text, "queued_batches", "gauge", help, &alone(&self.queued_batches));
        let help = "From reading to writing, the last time.";
        metric(&mut text, "lag_seconds", "gauge", help, &alone(&self.lag_seconds));
        metric(&mut text, "ready", "gauge", "Whether every watch misses nothing.", &alone(&ready));
        let help = "Parts that give no sign of life.";
        metric(&mut text, "stuck", "gauge", help, &alone(&self.stuck.len()));
        self.of_watches(&mut text);
        self.of_actions(&mut text);
        text
    }

    fn of_watches(&self, text: &mut String) {
        type Number = fn(&WatchStatus) -> String;
        let numbers: [(&str, &str, &str, Number); 6] = [
            ("up", "gauge", "Whether a watch runs.", |watch| {
                u8::from(matches!(watch.state, State::Starting | State::Running)).to_string()
            }),
            ("degraded", "gauge", "Whether a watch does less than it is meant to.", |watch| {
                u8::from(!watch.is_well()).to_string()
            }),
            ("restarts_total", "counter", "How often a watch was started again.", |watch| {
                watch.restarts.to_string()
            }),
            ("lost_bytes_total", "counter", "Bytes that were gone before they were read.", |w| {
                w.lost_bytes.to_string()
            }),
            ("rescans_total", "counter", "Looks at everything, as file events were lost.", |w| {
                w.rescans.to_string()
            }),
            ("lag_seconds", "gauge", "From reading to writing, the last time.", |watch| {
                watch.lag_seconds.to_string()
            }),
        ];
        for (name, kind, help, number) in numbers {
            let sample =
                |watch: &WatchStatus| (format!("{{watch=\"{}\"}}", watch.id), number(watch));
            let samples: Vec<Sample> = self.watches.iter().map(sample).collect();
            metric(text, &format!("watch_{name}"), kind, help, &samples);
        }
    }

    fn of_actions(&self, text: &mut String) {
        let Took { within, count, sum } = &self.action_seconds;
        let bucket =
            |(bound, count): &(f64, u64)| (format!("_bucket{{le=\"{bound}\"}}"), count.to_string());
        let mut samples: Vec<Sample> = within.iter().map(bucket).collect();
        samples.push(("_bucket{le=\"+Inf\"}".to_owned(), count.to_string()));
        samples.push(("_sum".to_owned(), sum.to_string()));
        samples.push(("_count".to_owned(), count.to_string()));
        let help = "From the sighting of a key to the effect of its leak action.";
        metric(text, "action_seconds", "histogram", help, &samples);
    }
}

fn alone(value: &impl ToString) -> [Sample; 1] {
    [(String::new(), value.to_string())]
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, samples: &[Sample]) {
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments<'_>| text.write_fmt(line).unwrap_or_default();
    line(format_args!("# HELP leakwarden_{name} {help}\n# TYPE leakwarden_{name} {kind}\n"));
    for (labels, value) in samples {
        line(format_args!("leakwarden_{name}{labels} {value}\n"));
    }
}
