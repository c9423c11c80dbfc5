//! Rights, case by case (tests/data/access.yaml), and what they look like on the command line.

use leakwarden::registry::access::{Act, Caller, Denied, Grant, Restrictions, Whose};
use leakwarden::registry::key::KeyKind;
use serde::Deserialize;

use super::world::World;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    who: Who,
    #[serde(default)]
    key: KeyOf,
    #[serde(default)]
    restricted: Vec<String>,
    view: String,
    update: String,
    delete: String,
    create: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    identity: Option<String>,
    account: Option<String>,
    #[serde(default)]
    owns_account: bool,
    #[serde(default)]
    grants: Vec<String>,
    #[serde(default)]
    below: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOf {
    identity: String,
    manager: Option<String>,
    kind: String,
}

impl Default for KeyOf {
    fn default() -> Self {
        Self { identity: "ann".into(), manager: None, kind: "user".into() }
    }
}

fn word(answer: Result<(), Denied>) -> &'static str {
    match answer {
        Ok(()) => "yes",
        Err(Denied::Unseen) => "unseen",
        Err(Denied::Forbidden) => "forbidden",
        Err(Denied::Restricted) => "restricted",
        Err(Denied::ForOthers) => "others",
    }
}

#[test]
fn every_case_of_the_table() {
    let cases: Vec<Case> = serde_yaml::from_str(include_str!("../data/access.yaml")).unwrap();
    for case in cases {
        let operator = case.who.identity.is_none();
        let account = case.who.account.unwrap_or_else(|| "main".into());
        let caller = Caller {
            actor: "who".into(),
            identity: case.who.identity,
            account: (!operator).then_some(account),
            owns_account: case.who.owns_account,
            grants: case.who.grants.iter().map(|word| Grant::parse(word).unwrap()).collect(),
            below: case.who.below.into_iter().collect(),
        };
        let whose = Whose {
            account: "main",
            identity: &case.key.identity,
            manager: case.key.manager.as_deref(),
            kind: KeyKind::parse(&case.key.kind).unwrap(),
        };
        let restricted = |word: &str| case.restricted.iter().any(|one| one == word);
        let restrictions =
            Restrictions { user_keys: restricted("user"), service_keys: restricted("service-id") };
        let answers = [
            (word(caller.may(Act::View, &whose)), case.view, "view"),
            (word(caller.may(Act::Update, &whose)), case.update, "update"),
            (word(caller.may(Act::Delete, &whose)), case.delete, "delete"),
            (word(caller.may_create(&whose, restrictions)), case.create, "create"),
        ];
        for (answer, expected, what) in answers {
            assert_eq!(answer, expected, "{}: {what}", case.name);
        }
    }
}

/// A registry with some people; Ann is above Bob in the classic hierarchy.
fn people() -> World {
    let world = World::new();
    for name in ["ann", "bob", "cy"] {
        let email = format!("{name}@example.com");
        world.run(&["identity", "create", name, "--email", &email]).expect(0);
    }
    world.run(&["identity", "update", "bob", "--parent", "ann"]).expect(0);
    world
}

#[test]
fn what_one_may_not_see_is_not_there() {
    let world = people();
    world.key("ann", "none", &[]);
    world.key("bob", "none", &["--kind", "classic-infrastructure"]);
    for command in [
        &["key", "show", "ann", "--as", "bob"][..],
        &["key", "disable", "ann", "--as", "bob"],
        &["key", "delete", "-f", "ann", "--as", "bob"],
        &["key", "update", "ann", "-d", "x", "--as", "bob"],
        &["key", "show", "bob", "--as", "cy"],
    ] {
        let answer = world.run(command).expect(2);
        assert!(answer.err.contains("no key named"), "{}", answer.err);
    }
    let list = |who: &str| world.run(&["key", "list", "--as", who]).expect(0).out;
    assert!(list("ann").contains("ann@example.com") && list("ann").contains("bob@example.com"));
    assert!(!list("bob").contains("ann@example.com"));
    assert!(list("cy").contains("no keys"));
    assert!(list("admin@example.com").contains("bob@example.com"));
    world.run(&["key", "show", "bob", "--as", "ann"]).expect(0);
    let answer = world.run(&["key", "lock", "bob", "--as", "ann"]).expect(2);
    assert!(answer.err.contains("may not update"), "{}", answer.err);
    world.run(&["key", "delete", "-f", "bob", "--as", "ann"]).expect(0);
}

#[test]
fn views_show_a_part_of_what_one_may_see() {
    let world = people();
    world.key("ann", "none", &[]);
    world.key("bob", "none", &[]);
    world.key_of("bob", "classic", "none", &["--kind", "classic-infrastructure"]);
    world.key_of("ann", "deploy", "none", &["--kind", "service-id"]);
    let names = |arguments: &[&str]| {
        let mut command = vec!["key", "list", "--format", "json"];
        command.extend(arguments);
        let keys = world.run(&command).expect(0).json();
        let keys = keys["keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["--view", "user"]), ["ann", "bob"]);
    assert_eq!(names(&["--view", "service-id"]), ["deploy"]);
    assert_eq!(names(&["--view", "classic"]), ["classic"]);
    assert_eq!(names(&["--view", "mine", "--as", "ann"]), ["ann", "deploy"]);
    assert_eq!(names(&["--view", "classic", "--as", "ann"]), ["classic"]);
    assert_eq!(names(&["--view", "user", "--as", "ann"]), ["ann"]);
    assert_eq!(names(&["--owner", "bob"]), ["bob", "classic"]);
}

#[test]
fn making_keys_can_be_restricted_and_granted() {
    let world = people();
    let create = |who: &str, owner: &str| {
        world.run(&["key", "create", "k", "--as", who, "--owner", owner, "--lock"])
    };
    create("bob", "bob").expect(0);
    let answer = create("bob", "ann").expect(2);
    assert!(answer.err.contains("takes the grant `issue`"), "{}", answer.err);
    world.run(&["access", "grant", "issue", "bob"]).expect(0);
    create("bob", "ann").expect(0);
    world.run(&["access", "revoke", "issue", "bob"]).expect(0);
    create("bob", "ann").expect(2);
    let restrict = ["account", "update", "--restrict-key-creation", "user", "--as"];
    let answer = world.run(&[&restrict[..], &["bob"]].concat()).expect(2);
    assert!(answer.err.contains("takes an administrator"), "{}", answer.err);
    world.run(&[&restrict[..], &["admin@example.com"]].concat()).expect(0);
    for who in ["bob", "admin@example.com"] {
        let answer = create(who, who).expect(2);
        assert!(answer.err.contains("is restricted in the account"), "{}", answer.err);
    }
    let answer = world.run(&["key", "create", "k", "--owner", "bob"]).expect(2);
    assert!(answer.err.contains("is restricted"), "{}", answer.err);
    // It stops making keys only.
    world.run(&["key", "unlock", "k", "--as", "bob"]).expect(0);
    world.run(&["key", "update", "k", "-d", "x", "--as", "bob"]).expect(0);
    world.run(&["access", "grant", "create", "bob"]).expect(0);
    create("bob", "bob").expect(0);
    world.run(&["account", "update", "--restrict-key-creation", "none"]).expect(0);
    create("cy", "cy").expect(0);
}

#[test]
fn accounts_never_see_each_other() {
    let world = World::new();
    let key = world.key("secret-project", "none", &[]);
    world.run(&["account", "create", "other", "--owner", "boss@example.com"]).expect(0);
    let answer = world.run(&["key", "create", "k", "--owner", "x@example.com"]).expect(2);
    assert!(answer.err.contains("say which by --account"), "{}", answer.err);
    let other = |arguments: &[&str], stdin: &str| {
        let mut command = arguments.to_vec();
        command.extend(["--account", "other", "--as", "boss@example.com"]);
        world.run_with(&command, stdin.as_bytes())
    };
    assert!(other(&["key", "list"], "").expect(0).out.contains("no keys"));
    other(&["key", "show", "secret-project"], "").expect(2);
    assert_eq!(other(&["key", "verify"], &key).expect(1).out, "unknown\n");
    let answer = other(&["key", "register", "mine"], &key).expect(2);
    assert!(answer.err.contains("registered already"), "{}", answer.err);
    assert!(!answer.err.contains("secret-project"), "{}", answer.err);
    assert!(!other(&["audit", "show"], "").expect(0).out.contains("secret-project"));
    assert!(!other(&["identity", "list"], "").expect(0).out.contains("secret-project"));
    other(&["key", "create", "k"], "").expect(0);
    let both = world.run(&["key", "list"]).expect(0).out;
    assert!(both.contains("secret-project") && both.contains("boss@example.com"));
    let answer = other(&["registry", "check"], "").expect(2);
    assert!(answer.err.contains("whoever runs the registry"), "{}", answer.err);
}

#[test]
fn users_of_the_system_are_mapped_to_identities() {
    let world = people();
    let user = world.run(&["whoami", "--format", "json"]).expect(0).json();
    assert_eq!(user["rights"], serde_json::json!(["operator"]));
    let user = user["os_user"].as_str().unwrap().to_owned();
    let who = world.run(&["whoami", "--as", "ann"]).expect(0).out;
    assert!(who.contains("over own keys only"), "{who}");
    world.run(&["identity", "update", "bob", "--os-user", &user]).expect(0);
    let who = world.run(&["whoami", "--format", "json"]).expect(0).json();
    assert_eq!(who["identity"]["name"], "bob");
    let answer = world.run(&["key", "list", "--as", "ann"]).expect(2);
    assert!(answer.err.contains("may not act as ann"), "{}", answer.err);
    let answer = world.run(&["identity", "update", "bob", "--os-user", ""]).expect(2);
    assert!(answer.err.contains("takes an administrator"), "{}", answer.err);
    let made = world.run(&["key", "create", "k", "--format", "json"]).expect(0).json();
    assert_eq!(made["created_by"], format!("bob ({user})"));
    assert_eq!(made["owner"], "bob@example.com");
}

#[test]
fn what_a_leak_disabled_is_enabled_by_an_administrator_who_says_why() {
    let world = people();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("ann", "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/x.txt", &key);
    world.leak_of("ann", |leak| leak["action"]["result"] == "done");
    daemon.stop();
    let answer = world.run(&["key", "enable", "ann", "--as", "ann", "--reason", "mine"]).expect(2);
    assert!(answer.err.contains("takes an administrator"), "{}", answer.err);
    let enable = ["key", "enable", "ann", "--as", "admin@example.com"];
    assert!(world.run(&enable).expect(2).err.contains("--reason"));
    world.run(&[&enable[..], &["--reason", "a test"]].concat()).expect(0);
    assert_eq!(world.verify(&key), "active");
    // Owners see and resolve their own leaks; others do not.
    assert!(world.run(&["leak", "list", "--all", "--as", "bob"]).expect(0).out.contains("no open"));
    world.run(&["leak", "show", "1", "--as", "bob"]).expect(2);
    world.run(&["leak", "show", "1", "--as", "ann"]).expect(0);
}
