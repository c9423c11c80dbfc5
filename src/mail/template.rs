//! The words of a notice: subject, plain text, HTML. Names come from other people: the subject is
//! cleaned, the HTML escaped. Never in it: the key, its digest, the raw line.

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, context};

use crate::clock::display;
use crate::incident::{ActionState, NoticeKind, Role};
use crate::ledger::Incident;
use crate::text::clean;

/// Places that are listed in a mail.
const PLACES_MAX: usize = 10;
const TEXT: &str = include_str!("notice.txt");
const HTML: &str = include_str!("notice.html");

/// A rendered notice.
#[derive(Clone, Debug)]
pub struct Mail {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// The compiled templates.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// The built-in ones.
    pub fn builtin() -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|name| {
            if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
        });
        environment.add_template("notice.txt", TEXT)?;
        environment.add_template("notice.html", HTML)?;
        Ok(Self { environment })
    }

    /// Renders the notice of an incident for one kind of recipient.
    pub fn render(
        &self,
        incident: &Incident,
        kind: NoticeKind,
        role: Role,
        now: Timestamp,
    ) -> Result<Mail, minijinja::Error> {
        let key = &incident.key;
        let name = clean(key.name.as_bytes());
        let done = done(incident, now);
        let places: Vec<String> = incident
            .sightings
            .iter()
            .take(PLACES_MAX)
            .map(|s| {
                let when = display(s.seen_at);
                clean(format!("{}, {when}", s.described(&s.line.to_string())).as_bytes())
            })
            .collect();
        let more = incident.count.saturating_sub(places.len() as u64);
        let values = context! {
            id => incident.id,
            name => &name,
            key_id => &key.id,
            hint => &key.hint,
            description => clean(key.description.as_bytes()),
            owner => &key.owner,
            is_owner => role == Role::Owner,
            state => key.status(now).as_str(),
            leak_action => key.leak_action.as_str(),
            locked => key.locked,
            done => done,
            places => places,
            more => more,
            held => incident.actions.iter().any(|a| a.state == ActionState::Held),
            failed => incident.actions.iter().any(|a| a.state == ActionState::Failed),
            observed => incident.observed,
        };
        let urgent = match kind {
            NoticeKind::Leak => "",
            NoticeKind::Held => "URGENT, waits for you: ",
            NoticeKind::Failed => "URGENT, action failed: ",
        };
        Ok(Mail {
            subject: clean(
                format!("{urgent}key \"{name}\" leaked [leak-{}]", incident.id).as_bytes(),
            ),
            text: self.environment.get_template("notice.txt")?.render(&values)?,
            html: self.environment.get_template("notice.html")?.render(&values)?,
        })
    }
}

/// What was done, a sentence each.
fn done(incident: &Incident, now: Timestamp) -> Vec<String> {
    let mut lines: Vec<String> = incident
        .actions
        .iter()
        .map(|action| {
            let what = action.kind.as_str();
            let why = clean(action.why.as_bytes());
            match action.state {
                ActionState::Done => {
                    let when = action.finished_at.map(display).unwrap_or_default();
                    format!("{what}: done, {when}; {why}")
                }
                ActionState::Due if action.due_at > now => {
                    format!("{what}: will be done at {}", display(action.due_at))
                }
                ActionState::Due => format!("{what}: under way"),
                ActionState::Held => format!("{what}: NOT DONE, held: {why}"),
                ActionState::Failed => format!("{what}: NOT DONE, failed: {why}"),
            }
        })
        .collect();
    if let Some(opened) =
        incident.timeline.first().and_then(|row| row.what.strip_prefix("opened: "))
    {
        lines.push(format!("why: {}", clean(opened.as_bytes())));
    }
    lines
}
