//! Who is told: takes due notices from the outbox, renders and sends them, records the outcome.
//!
//! Act first, tell surely: nothing here can delay an action. A mail goes out at most twice, with
//! the same Message-ID, and only if nobody can know whether the first one arrived.

mod smtp;
mod template;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::clock;
use crate::ledger::{DueNotice, NoticeOutcome};
use crate::registry::{Registry, RegistryError, folder};

pub use smtp::{Smtp, SmtpError, Tls};
pub use template::{Mail, Templates};

/// Notices that are taken at once.
const BATCH: u32 = 16;
/// Between two attempts at least, whatever the settings say.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest sleep between looks at the outbox.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where mails go.
#[derive(Debug)]
pub enum Mailer {
    /// To a server.
    Smtp(Smtp),
    /// Into a folder, as .eml files.
    Directory(PathBuf),
}

/// How mails are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// The sender.
    pub from: Mailbox,
    /// First pause before another attempt; it doubles up to [`Self::retry_max`].
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// A notice older than this is given up.
    pub give_up_after: Duration,
}

/// Where mails go, and how.
#[derive(Debug)]
pub struct Settings {
    /// Where.
    pub mailer: Mailer,
    /// How.
    pub options: Options,
}

/// A mail that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// An address that cannot be written into a header.
    #[error("not a mail address: {0}")]
    Address(#[from] lettre::address::AddressError),
    /// lettre refused.
    #[error("cannot build the mail: {0}")]
    Build(#[from] lettre::error::Error),
    /// The template is broken.
    #[error("cannot render the mail: {0}")]
    Template(#[from] minijinja::Error),
}

/// What became of an attempt, before it is known when to try again.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Taken.
    Sent,
    /// Surely not delivered; may work later.
    Transient(String),
    /// Surely not delivered; never will be.
    Permanent(String),
    /// Nobody can know.
    Unknown(String),
}

/// Sends what is due until asked to stop.
pub async fn run(
    registry: &mut Registry,
    settings: &watch::Receiver<Arc<Settings>>,
    templates: &Templates,
    wake: &Notify,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let current = settings.borrow().clone();
        let Settings { mailer, options } = &*current;
        let sent = step(registry, mailer, templates, options, &mut stop).await;
        if *stop.borrow() {
            return;
        }
        match sent {
            Ok(0) => {}
            Ok(_) => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => error.tell_trying_again("work on the outbox"),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Sends what is due now; answers how many notices were tried.
async fn step(
    registry: &mut Registry,
    mailer: &Mailer,
    templates: &Templates,
    options: &Options,
    stop: &mut watch::Receiver<bool>,
) -> Result<usize, RegistryError> {
    let due = registry.read(|tx| tx.due_notices(clock::now(), BATCH))?;
    for notice in &due {
        if registry.write(|tx| tx.notice_exhausted(notice, clock::now()))? {
            continue;
        }
        let mail = render(registry, templates, notice)?;
        let message = mail.and_then(|mail| build(&mail, notice, &options.from));
        let mut doubted = false;
        let attempt = match message {
            Err(error) => Attempt::Permanent(error.to_string()),
            Ok(message) => match mailer {
                Mailer::Directory(folder) => write_eml(folder, notice, &message.formatted()),
                Mailer::Smtp(smtp) => {
                    let doubt = || {
                        doubted = true;
                        registry.write(|tx| tx.notice_in_doubt(notice))
                    };
                    tokio::select! {
                        attempt = smtp.send(&message, doubt) => attempt,
                        // Stopping: the server may take long, the outbox keeps the notice.
                        _ = stop.wait_for(|stop| *stop) => {
                            Attempt::Unknown("interrupted".to_owned())
                        }
                    }
                }
            },
        };
        record(registry, notice, attempt, doubted, options)?;
        if *stop.borrow() {
            break;
        }
    }
    Ok(due.len())
}

fn record(
    registry: &mut Registry,
    notice: &DueNotice,
    attempt: Attempt,
    doubted: bool,
    options: &Options,
) -> Result<(), RegistryError> {
    let now = clock::now();
    let outcome = outcome(notice, attempt, doubted, options, now);
    let (incident, to) = (notice.incident, notice.recipient.as_str());
    match &outcome {
        NoticeOutcome::Sent => info!(incident, to, "notice sent"),
        NoticeOutcome::Failed { why } => error!(incident, to, why, "notice given up"),
        NoticeOutcome::Retry { why, .. } | NoticeOutcome::Unknown { why, .. } => {
            warn!(incident, to, why, "notice put off");
        }
    }
    registry.write(|tx| tx.notice_outcome(notice, &outcome, doubted, now))
}

fn outcome(
    notice: &DueNotice,
    attempt: Attempt,
    doubted: bool,
    options: &Options,
    now: Timestamp,
) -> NoticeOutcome {
    let pause = options.retry_first.saturating_mul(1 << notice.attempts.min(16));
    let pause = pause.min(options.retry_max).max(RETRY_MIN);
    let at = now.checked_add(pause).unwrap_or(now);
    let too_old = notice.created_at.checked_add(options.give_up_after).is_ok_and(|end| end <= now);
    match attempt {
        Attempt::Sent => NoticeOutcome::Sent,
        Attempt::Permanent(why) => NoticeOutcome::Failed { why },
        Attempt::Transient(why) | Attempt::Unknown(why) if too_old => {
            NoticeOutcome::Failed { why: format!("given up after many attempts: {why}") }
        }
        Attempt::Unknown(why) if doubted => NoticeOutcome::Unknown { why, at },
        Attempt::Transient(why) | Attempt::Unknown(why) => NoticeOutcome::Retry { why, at },
    }
}

fn render(
    registry: &mut Registry,
    templates: &Templates,
    notice: &DueNotice,
) -> Result<Result<Mail, MailError>, RegistryError> {
    let incident = registry.read(|tx| tx.incident(notice.incident))?;
    Ok(templates.render(&incident, notice.kind, notice.role, clock::now()).map_err(Into::into))
}

fn build(mail: &Mail, notice: &DueNotice, from: &Mailbox) -> Result<Message, MailError> {
    let raw = |name: &'static str, value: String| {
        HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
    };
    let thread = format!("<leak-{}@leakwarden>", notice.incident);
    Ok(Message::builder()
        .from(from.clone())
        // The address alone: names come from other people, and a line break in one is a panic.
        .to(Mailbox::new(None, notice.recipient.parse()?))
        .subject(mail.subject.clone())
        .message_id(Some(format!("<{}>", notice.message_id)))
        .references(thread)
        .raw_header(raw("Auto-Submitted", "auto-generated".to_owned()))
        .raw_header(raw("X-Leakwarden-Incident", format!("leak-{}", notice.incident)))
        .multipart(
            MultiPart::alternative()
                .singlepart(part(ContentType::TEXT_PLAIN, &mail.text))
                .singlepart(part(ContentType::TEXT_HTML, &mail.html)),
        )?)
}

fn part(kind: ContentType, body: &str) -> SinglePart {
    SinglePart::builder().header(kind).body(body.to_owned())
}

/// One file a notice, whole or not at all; a second attempt replaces the first.
fn write_eml(folder: &Path, notice: &DueNotice, message: &[u8]) -> Attempt {
    let name = format!("{}.eml", notice.message_id.split('@').next().unwrap_or_default());
    let write = || -> std::io::Result<()> {
        folder::make(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        folder::give_to_owner(file.as_file(), folder)?;
        file.write_all(message)?;
        file.as_file().sync_all()?;
        file.persist(folder.join(name)).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    };
    match write() {
        Ok(()) => Attempt::Sent,
        Err(error) => Attempt::Transient(format!("cannot write to {}: {error}", folder.display())),
    }
}
