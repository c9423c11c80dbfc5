//! The log on standard error: text or JSON, with levels, and no flood of the same.
//!
//! One place of the program may say so much a minute. What it says beyond that is counted, and told
//! as "and so many more" when the minute is over.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, error, info, warn};
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as lines};

/// The time that counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Warnings and errors of one place within it.
const TROUBLE_MAX: u32 = 10;
/// What else one place says within it.
const NEWS_MAX: u32 = 100;
/// What is told with these targets is never left out: heads of the audit log, and what is said here.
const ALWAYS: [&str; 2] = ["leakwarden::audit", REPEATS];
const REPEATS: &str = "leakwarden::repeats";

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What each place of the program said within its minute.
static SAID: OnceLock<Arc<Repeats>> = OnceLock::new();

/// Starts the log. LEAKWARDEN_LOG chooses the level: error, warn, info (the default), debug, trace. It
/// is that of leakwarden itself: libraries log file names, which are not redacted, and stay at warn.
pub fn start(form: Form) {
    let level = std::env::var("LEAKWARDEN_LOG").ok();
    let level = level.as_deref().and_then(|level| level.parse::<Level>().ok());
    let level = level.unwrap_or(Level::INFO);
    let levels = EnvFilter::new(format!("warn,leakwarden={level}"));
    let said = SAID.get_or_init(Arc::default).clone();
    let registry = tracing_subscriber::registry();
    match form {
        Form::Json => {
            let layer = lines::layer().json().with_writer(std::io::stderr);
            registry.with(layer.with_filter(levels.and(Unrepeated(said)))).init();
        }
        Form::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = lines::layer().with_ansi(colour).with_writer(std::io::stderr);
            registry.with(layer.with_filter(levels.and(Unrepeated(said)))).init();
        }
    }
}

/// Tells how much was left out in the minutes that are over; to be called now and then.
pub(super) fn tell_repeats() {
    let Some(said) = SAID.get() else { return };
    for Repeated { level, message, more } in said.over(Instant::now()) {
        match level {
            Level::ERROR => error!(target: REPEATS, more, "{message}: and {more} more like it"),
            Level::WARN => warn!(target: REPEATS, more, "{message}: and {more} more like it"),
            _ => info!(target: REPEATS, more, "{message}: and {more} more like it"),
        }
    }
}

/// Lets pass what is not said too often.
struct Unrepeated(Arc<Repeats>);

impl<S: Subscriber> Filter<S> for Unrepeated {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let place = event.metadata();
        // Whoever asks for all details gets them.
        if ALWAYS.contains(&place.target()) || *place.level() > Level::INFO {
            return true;
        }
        let max = if *place.level() == Level::INFO { NEWS_MAX } else { TROUBLE_MAX };
        let message = || {
            let mut message = Message::default();
            event.record(&mut message);
            message.0
        };
        self.0.passes(place.callsite(), (*place.level(), max), &message, Instant::now())
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            write!(self.0, "{value:?}").unwrap_or_default();
        }
    }
}

/// What was left out of one place.
#[derive(Debug, PartialEq, Eq)]
struct Repeated {
    level: Level,
    message: String,
    more: u32,
}

/// How often each place of the program said something.
#[derive(Default)]
struct Repeats(Mutex<HashMap<Identifier, Place>>);

struct Place {
    since: Instant,
    said: u32,
    left_out: Option<Repeated>,
}

impl Repeats {
    fn passes(
        &self,
        place: Identifier,
        (level, max): (Level, u32),
        message: &dyn Fn() -> String,
        now: Instant,
    ) -> bool {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Place { since: now, said: 0, left_out: None };
        let place = places.entry(place).or_insert_with(new);
        // What is left to tell of an older minute is told first; until then nothing begins anew.
        if now.saturating_duration_since(place.since) >= WINDOW && place.left_out.is_none() {
            *place = new();
        }
        if place.said < max {
            place.said += 1;
            return true;
        }
        let none = || Repeated { level, message: message(), more: 0 };
        place.left_out.get_or_insert_with(none).more += 1;
        false
    }

    /// Takes what was left out in minutes that are over.
    fn over(&self, now: Instant) -> Vec<Repeated> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |place: &&mut Place| now.saturating_duration_since(place.since) >= WINDOW;
        places.values_mut().filter(over).filter_map(|place| place.left_out.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_too_often_is_counted_and_told() {
        use tracing::Callsite as _;
        let callsite = tracing::callsite! {
            name: "here", kind: tracing::metadata::Kind::EVENT, fields: message
        };
        let here = || callsite.metadata().callsite();
        let (said, start) = (Repeats::default(), Instant::now());
        let say = |at: u64| {
            let at = start + Duration::from_secs(at);
            said.passes(here(), (Level::WARN, 2), &|| "no".to_owned(), at)
        };
        assert_eq!([say(0), say(1), say(2), say(3)], [true, true, false, false]);
        assert!(said.over(start + Duration::from_secs(59)).is_empty());
        assert!(!say(61), "what was left out is told first");
        let left_out = said.over(start + Duration::from_secs(61));
        let expected = Repeated { level: Level::WARN, message: "no".to_owned(), more: 3 };
        assert_eq!(left_out, [expected]);
        assert!(said.over(start + Duration::from_secs(62)).is_empty());
        assert_eq!([say(62), say(63), say(64)], [true, true, false]);
    }
}
