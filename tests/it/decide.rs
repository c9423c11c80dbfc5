//! The decision, case by case: tests/data/decide.yaml.

use std::time::Duration;

use leakwarden::clock::from_millis;
use leakwarden::incident::{Brake, LockedPolicy, Mode, Place, Policy, Usage, decide};
use leakwarden::registry::key::{Arrival, Class, Key, KeyKind, LeakAction, State};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    key: KeyCase,
    #[serde(default)]
    policy: PolicyCase,
    #[serde(default)]
    place: Option<String>,
    #[serde(default)]
    used: Used,
    opens: Option<bool>,
    actions: Vec<String>,
    notices: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyCase {
    leak_action: String,
    #[serde(default)]
    locked: bool,
    #[serde(default)]
    expired: bool,
    state: Option<String>,
    class: Option<String>,
    kind: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyCase {
    mode: Option<String>,
    locked: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Used {
    installation: u32,
    owner: u32,
    source: u32,
}

fn key(case: &KeyCase) -> Key {
    Key {
        id: "ApiKey-1".into(),
        account_id: "a".into(),
        name: "k".into(),
        description: String::new(),
        kind: case.kind.as_deref().map_or(KeyKind::User, |word| KeyKind::parse(word).unwrap()),
        class: case.class.as_deref().map_or(Class::Live, |word| Class::parse(word).unwrap()),
        identity_id: "user-1".into(),
        identity: "o".into(),
        owner: "o@example.com".into(),
        contact: Some("o@example.com".into()),
        manager_id: None,
        service: String::new(),
        state: case.state.as_deref().map_or(State::Active, |word| State::parse(word).unwrap()),
        locked: case.locked,
        leak_action: LeakAction::parse(&case.leak_action).unwrap(),
        executor: "registry".into(),
        hint: "…".into(),
        expires_at: case.expired.then(|| from_millis(1)),
        created_at: from_millis(0),
        created_by: String::new(),
        modified_at: from_millis(0),
        modified_by: String::new(),
        leaked_at: None,
        last_used_at: None,
        use_count: 0,
        arrival: Arrival::Created,
        origin: String::new(),
        remote_id: None,
        replaces: None,
        homes: Vec::new(),
        version: 1,
    }
}

#[test]
fn every_case_of_the_table() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("../data/decide.yaml")).unwrap();
    for case in cases {
        let policy = Policy {
            mode: match case.policy.mode.as_deref() {
                Some("observe") => Mode::Observe,
                _ => Mode::Act,
            },
            brake: Brake::DEFAULT,
            delete_grace: Duration::ZERO,
            locked: match case.policy.locked.as_deref() {
                Some("hold") => LockedPolicy::Hold,
                _ => LockedPolicy::Disable,
            },
        };
        let place = match case.place.as_deref() {
            Some("home") => Place::Home,
            Some("open home") => Place::OpenHome,
            _ => Place::Leak,
        };
        let Used { installation, owner, source } = case.used;
        let usage = Usage { installation, owner, source };
        let decision = decide(&key(&case.key), place, &policy, usage, from_millis(1_000));
        let actions: Vec<String> =
            decision.actions.iter().map(|a| format!("{} {}", a.kind, a.state)).collect();
        let notices: Vec<String> =
            decision.notices.iter().map(|(role, kind)| format!("{role} {kind}")).collect();
        assert_eq!(actions, case.actions, "{}", case.name);
        assert_eq!(notices, case.notices, "{}", case.name);
        assert_eq!(decision.opens, case.opens.unwrap_or(true), "{}", case.name);
    }
}
