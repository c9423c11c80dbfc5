//! The decision: what is to be done about a leaked key, and who is told. Pure; the heart.

use std::time::Duration;

use jiff::Timestamp;

use crate::registry::key::{Class, Key, KeyKind, LeakAction, Status, words};

words! {
    /// What an executor can do to a key.
    ActionKind {
        /// Make it unusable.
        Disable = "disable",
        /// Remove it.
        Delete = "delete",
    }
}

words! {
    /// Where an action of the outbox is.
    ActionState {
        /// To be carried out.
        Due = "due",
        /// Waits for `leak approve`.
        Held = "held",
        /// Took effect, or was so already.
        Done = "done",
        /// Given up.
        Failed = "failed",
    }
}

words! {
    /// What a notice is about.
    NoticeKind {
        /// A key leaked.
        Leak = "leak",
        /// Urgent: something waits for an administrator.
        Held = "held",
        /// Urgent: an action could not be carried out.
        Failed = "failed",
    }
}

words! {
    /// Why somebody is told.
    Role {
        /// The key is theirs.
        Owner = "owner",
        /// They administer the account.
        Admin = "admin",
    }
}

/// Whether leaks are acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// Everything but the actions.
    Observe,
    /// Leak actions are carried out.
    Act,
}

/// What happens to locked keys that leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LockedPolicy {
    /// A leak disables them: nothing is lost, and they are of no use to a thief.
    Disable,
    /// They are left alone, and admins are told at once.
    Hold,
}

/// The limits that stop a wave of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Brake {
    /// Incidents with actions per installation and window.
    pub max: u32,
    /// The same per owner.
    pub per_owner: u32,
    /// So many distinct live keys from one source within the window hold that source.
    pub per_source: u32,
    /// The window.
    pub window: Duration,
}

impl Brake {
    /// Where nothing else is said.
    pub const DEFAULT: Self =
        Self { max: 10, per_owner: 5, per_source: 5, window: Duration::from_secs(600) };
}

/// How an installation responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// Whether it acts at all.
    pub mode: Mode,
    /// Its limits.
    pub brake: Brake,
    /// Between disabling and deleting a key whose leak action is `delete`.
    pub delete_grace: Duration,
    /// What happens to locked keys.
    pub locked: LockedPolicy,
}

/// How much of the brake is used up, this sighting not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Incidents with actions within the window.
    pub installation: u32,
    /// The same, of this owner.
    pub owner: u32,
    /// Other live keys seen in this source within the window.
    pub source: u32,
}

/// Whether the key was seen where it is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere else.
    Leak,
    /// At home, and nobody else can read it there.
    Home,
    /// At home, but everybody on the host can read it.
    OpenHome,
}

/// One planned action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub kind: ActionKind,
    /// Due or held.
    pub state: ActionState,
    /// Why it is held.
    pub why: String,
    /// Not before.
    pub due_at: Timestamp,
}

/// What a first sighting leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether an incident is opened at all.
    pub opens: bool,
    /// What is done; empty: nothing.
    pub actions: Vec<Planned>,
    /// Who is told what.
    pub notices: Vec<(Role, NoticeKind)>,
    /// Held by the brake: admins are told once a window, not once a key.
    pub braked: bool,
    /// In words, for the timeline and the notices.
    pub because: String,
}

impl Decision {
    /// The same, but nothing is done before an administrator approves it.
    #[must_use]
    pub fn hold(mut self, why: &str) -> Self {
        let mut changed = false;
        for action in self.actions.iter_mut().filter(|one| one.state == ActionState::Due) {
            action.state = ActionState::Held;
            why.clone_into(&mut action.why);
            changed = true;
        }
        if changed {
            self.notices = vec![(Role::Admin, NoticeKind::Held)];
            self.because = format!("{}; held: {why}", self.because);
        }
        self
    }
}

/// Decides about the first sighting of a key that has no open incident.
#[must_use]
pub fn decide(key: &Key, place: Place, policy: &Policy, usage: Usage, now: Timestamp) -> Decision {
    if place == Place::Home || key.class == Class::Publishable {
        return Decision {
            opens: key.class == Class::Publishable && place != Place::Home,
            actions: Vec::new(),
            notices: Vec::new(),
            braked: false,
            because: "public by design: only recorded".to_owned(),
        };
    }
    let (kinds, because) = wanted(key, policy, now);
    let hold = if kinds.is_empty() { None } else { held(key, place, policy, usage) };
    let state = if hold.is_some() { ActionState::Held } else { ActionState::Due };
    let braked = hold.as_ref().is_some_and(|why| why.starts_with(BRAKE));
    let why = hold.unwrap_or_default();
    let actions = kinds
        .into_iter()
        .map(|kind| {
            let wait =
                if kind == ActionKind::Delete { policy.delete_grace } else { Duration::ZERO };
            Planned { kind, state, why: why.clone(), due_at: now.checked_add(wait).unwrap_or(now) }
        })
        .collect();
    let observing = policy.mode == Mode::Observe;
    let notices = match (observing, state) {
        (true, _) => vec![(Role::Admin, NoticeKind::Leak)],
        (false, ActionState::Held) => vec![(Role::Admin, NoticeKind::Held)],
        (false, _) => vec![(Role::Owner, NoticeKind::Leak), (Role::Admin, NoticeKind::Leak)],
    };
    let because = if why.is_empty() { because } else { format!("{because}; held: {why}") };
    Decision { opens: true, actions, notices, braked, because }
}

/// What the key's owner wants, as far as it makes sense in the key's state.
fn wanted(key: &Key, policy: &Policy, now: Timestamp) -> (Vec<ActionKind>, String) {
    use ActionKind::{Delete, Disable};
    let action = key.leak_action;
    let told = |because: &str| (Vec::new(), because.to_owned());
    if key.class == Class::Test {
        return told("a test key: never acted upon");
    }
    match key.status(now) {
        Status::Deleted => return told("the key was deleted before; no action is needed"),
        Status::Expired => return told("the key had expired; no action is needed"),
        Status::Disabled if action != LeakAction::Delete || key.locked => {
            return told("the key was disabled before; no further action is needed");
        }
        Status::Disabled | Status::Active => {}
    }
    let classic = key.kind == KeyKind::Classic;
    match action {
        LeakAction::Delete if classic => {
            (vec![Delete], "its leak action is delete, and a classic key cannot be disabled".into())
        }
        LeakAction::None => told("its leak action is none: people are told, nothing is done"),
        LeakAction::Disable => (vec![Disable], "its leak action is disable".to_owned()),
        LeakAction::Delete if key.locked => {
            let because = "its leak action is delete, but it is locked: disabled instead";
            (vec![Disable], because.to_owned())
        }
        LeakAction::Delete if policy.delete_grace.is_zero() => {
            (vec![Disable, Delete], "its leak action is delete".to_owned())
        }
        LeakAction::Delete => {
            let seconds = policy.delete_grace.as_secs();
            let because =
                format!("its leak action is delete: disabled now, deleted after {seconds} s");
            (vec![Disable, Delete], because)
        }
    }
}

/// How the reason begins for a key that was seen at its home only.
pub(crate) const AT_HOME: &str = "seen at its home";

/// How the reasons begin that the brake gives.
const BRAKE: &str = "brake";

/// Why actions wait for an administrator, if they do.
fn held(key: &Key, place: Place, policy: &Policy, usage: Usage) -> Option<String> {
    let brake = &policy.brake;
    let minutes = brake.window.as_secs().div_ceil(60);
    if policy.mode == Mode::Observe {
        return Some("observe mode: this is what would have been done".to_owned());
    }
    if key.locked && policy.locked == LockedPolicy::Hold {
        return Some(
            "the key is locked, and this installation leaves locked keys alone".to_owned(),
        );
    }
    if place == Place::OpenHome {
        let mend = "which everybody on the host can read: `chmod o-r` that file";
        return Some(format!("{AT_HOME}, {mend}"));
    }
    if usage.source.saturating_add(1) >= brake.per_source {
        let count = usage.source.saturating_add(1);
        return Some(format!(
            "{BRAKE}: {count} live keys from one source in {minutes} min; does it record keys?"
        ));
    }
    if usage.owner >= brake.per_owner {
        let count = brake.per_owner;
        return Some(format!("{BRAKE}: {count} keys of one owner acted upon in {minutes} min"));
    }
    if usage.installation >= brake.max {
        let count = brake.max;
        return Some(format!("{BRAKE}: {count} keys acted upon in {minutes} min"));
    }
    None
}
