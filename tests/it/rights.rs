//! What somebody may not do: every command of somebody else, and what would get around a rule.

use serde_json::json;

use super::world::{World, github_token};

/// Ann has a key with a leak and a home; Eve is nobody to her. Another account has Boss.
fn world() -> World {
    let world = World::new();
    for name in ["ann", "eve", "child"] {
        let email = format!("{name}@example.com");
        world.run(&["identity", "create", name, "--email", &email]).expect(0);
    }
    world.run(&["identity", "update", "child", "--parent", "eve"]).expect(0);
    world.key("ann", "none", &["--home", "/etc/ann.env"]);
    world.run(&["home", "accept", "/srv/**", "--owner", "ann"]).expect(0);
    world.configure("{ mode: observe }", "{ directory: ./mail }");
    let leaked = world.key_of("ann", "leaked", "disable", &[]);
    let child = world.key_of("child", "classic", "delete", &["--kind", "classic-infrastructure"]);
    world.write("inbox/x.txt", format!("{leaked}\n{child}\n"));
    let daemon = world.watch();
    world.leak_of("leaked", |_| true);
    world.leak_of("classic", |_| true);
    daemon.stop();
    world.run(&["account", "create", "other", "--owner", "boss@example.com"]).expect(0);
    world
}

/// What is asked of Ann's key, her homes, her leak and herself, or takes the operator.
const OF_OTHERS: &[&[&str]] = &[
    &["key", "show", "ann"],
    &["key", "update", "ann", "-d", "mine"],
    &["key", "update", "ann", "--class", "test"],
    &["key", "rotate", "ann"],
    &["key", "lock", "ann"],
    &["key", "unlock", "ann"],
    &["key", "disable", "ann"],
    &["key", "enable", "ann"],
    &["key", "delete", "-f", "ann"],
    &["key", "list", "--owner", "ann"],
    &["home", "accept", "/x", "--key", "ann"],
    &["home", "accept", "/x", "--owner", "ann"],
    &["home", "list", "ann"],
    &["home", "suggest", "ann"],
    &["home", "remove", "1"],
    &["home", "remove", "2"],
    &["identity", "show", "ann"],
    &["identity", "update", "ann", "--description", "mine"],
    &["identity", "delete", "-f", "ann", "--disable-keys"],
    &["leak", "show", "LEAK"],
    &["leak", "approve", "LEAK"],
    &["registry", "check"],
    &["registry", "backup", "copy.db"],
    &["registry", "rotate-pepper", "-f"],
    &["registry", "export-filter", "filter"],
];

/// What takes an administrator, or a grant.
const OF_ADMINISTRATORS: &[&[&str]] = &[
    &["identity", "create", "x@example.com"],
    &["access", "grant", "administrator", "eve"],
    &["access", "revoke", "administrator", "admin@example.com"],
    &["access", "list"],
    &["account", "update", "--owner", "eve"],
    &["account", "update", "--admin", "eve"],
    &["account", "create", "third", "--owner", "x@example.com"],
    &["audit", "show"],
    &["audit", "verify"],
    &["key", "import", "keys.jsonl"],
    &["key", "create", "k", "--owner", "ann"],
];

fn head(world: &World) -> String {
    let told = world.run(&["audit", "verify"]).expect(0).out;
    told.lines().find(|line| line.contains("audit head")).unwrap().to_owned()
}

#[test]
fn nothing_of_somebody_else_is_changed_or_shown() {
    let world = world();
    let leaked = world.run(&["leak", "list", "--account", "default", "--format", "json"]).expect(0);
    let leak = leaked.json()["incidents"].as_array().unwrap().iter().find_map(|leak| {
        (leak["key"]["name"] == "leaked").then(|| leak["id"].as_str().unwrap().to_owned())
    });
    let leak = leak.unwrap();
    let before = head(&world);
    world.write("keys.jsonl", "{}");
    for who in [
        ["--as", "eve", "--account", "default"],
        ["--as", "boss@example.com", "--account", "other"],
    ] {
        for command in OF_OTHERS {
            let word = |word: &&str| if *word == "LEAK" { leak.clone() } else { (*word).into() };
            let command: Vec<String> = command.iter().chain(&who).map(word).collect();
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let answer = world.run(&command).expect(2);
            assert!(!answer.both().contains("/etc/ann.env"), "{command:?}: {}", answer.both());
        }
        let [_, name, _, account] = who;
        let resolve = ["leak", "resolve", &leak, "--as", "accepted", "--by", name];
        let answer = world.run(&[&resolve[..], &["--account", account]].concat()).expect(2);
        assert!(answer.err.contains("no incident"), "{}", answer.err);
        for command in
            [&["key", "list"][..], &["home", "list"], &["leak", "list"], &["identity", "list"]]
        {
            let told = world.run(&[command, &who].concat()).expect(0).both();
            for secret in ["ann", "leaked", "/srv/"] {
                assert!(!told.contains(secret), "{command:?}: {told}");
            }
        }
    }
    for command in OF_ADMINISTRATORS {
        let answer =
            world.run(&[*command, &["--as", "eve", "--account", "default"]].concat()).expect(2);
        assert!(answer.err.contains("may not"), "{command:?}: {}", answer.err);
    }
    assert_eq!(head(&world), before, "something was changed");
    assert!(!world.path("copy.db").exists() && !world.path("filter").exists());
}

#[test]
fn who_is_above_sees_and_deletes_and_does_no_more() {
    let world = world();
    let eve = ["--as", "eve", "--account", "default"];
    let all = |command: &[&str]| world.run(&[command, &eve].concat());
    let leaks = all(&["leak", "list", "--format", "json"]).expect(0).json();
    let id = leaks["incidents"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(leaks["incidents"].as_array().unwrap().len(), 1);
    let resolve =
        ["leak", "resolve", &id, "--as", "accepted", "--by", "eve", "--account", "default"];
    let answer = world.run(&resolve).expect(2);
    assert!(answer.err.contains("may not update classic"), "{}", answer.err);
    assert!(all(&["home", "accept", "/x", "--key", "classic"]).expect(2).err.contains("may not"));
    all(&["key", "show", "classic"]).expect(0);
    all(&["key", "delete", "-f", "classic"]).expect(0);
}

#[test]
fn a_mapped_user_of_the_system_is_nobody_elsewhere() {
    let world = World::new();
    let user = world.run(&["whoami", "--format", "json"]).expect(0).json();
    let user = user["os_user"].as_str().unwrap().to_owned();
    world.run(&["account", "create", "other", "--owner", "boss@example.com"]).expect(0);
    let bob = ["identity", "create", "bob@example.com", "--os-user", &user, "--account", "default"];
    world.run(&bob).expect(0);
    for more in [&[][..], &["--as", "boss@example.com"]] {
        let answer =
            world.run(&[&["key", "list", "--account", "other"][..], more].concat()).expect(2);
        assert!(answer.err.contains("may act as nobody in that account"), "{}", answer.err);
    }
    assert!(world.run(&["whoami"]).expect(0).out.contains("bob@example.com"));
}

#[test]
fn rotation_gives_no_third_key() {
    let world = World::new();
    world.run(&["account", "update", "--max-keys", "2"]).expect(0);
    world.key("ann", "none", &[]);
    let rotate = |key: &str, more: &[&str]| {
        let command = ["key", "rotate", key, "--as", "ann@example.com", "--format", "json"];
        world.run(&[&command[..], more].concat())
    };
    let old = rotate("ann", &[]).expect(0).json()["replaces"].as_str().unwrap().to_owned();
    // Neither the successor nor the old key once more, beyond what is allowed without.
    assert!(rotate("ann", &[]).expect(2).err.contains("2 is the limit"));
    assert!(rotate(&old, &[]).expect(2).err.contains("2 is the limit"));
    world.run(&["key", "delete", "-f", &old]).expect(0);
    rotate("ann", &["--overlap", "0s"]).expect(0);
    // Where making keys is restricted, too.
    world.run(&["account", "update", "--max-keys", "9"]).expect(0);
    world.run(&["account", "update", "--restrict-key-creation", "user"]).expect(0);
    rotate("ann", &[]).expect(0);
    assert!(rotate("ann", &[]).expect(2).err.contains("is restricted"));
}

#[test]
fn a_lock_holds_for_homes_as_well() {
    let world = World::new();
    world.key("k", "delete", &["--lock", "--home", "/etc/k.env"]);
    let answer = world.run(&["home", "accept", "/srv/**", "--key", "k"]).expect(2);
    assert!(answer.err.contains("k is locked"), "{}", answer.err);
    assert!(world.run(&["home", "remove", "1"]).expect(2).err.contains("k is locked"));
    world.run(&["key", "unlock", "k"]).expect(0);
    world.run(&["home", "accept", "/srv/**", "--key", "k"]).expect(0);
    let shown = world.run(&["key", "show", "k", "--format", "json"]).expect(0).json();
    // Another version: who read the key before has not seen its homes.
    assert_eq!(shown["version"], 3);
    assert!(
        world
            .run(&["key", "update", "k", "-d", "x", "--if-version", "2"])
            .expect(2)
            .err
            .contains("meanwhile")
    );
}

#[test]
fn a_key_that_leaked_and_expired_is_not_brought_back_by_its_owner() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("ann", "disable", &["--expires", "2020-01-01"]);
    world.write("inbox/x.txt", &key);
    let daemon = world.watch();
    world.leak_of("ann", |_| true);
    daemon.stop();
    let update = ["key", "update", "ann", "--expires", "2099-01-01"];
    let own = [&update[..], &["--as", "ann@example.com", "--reason", "mine"]].concat();
    assert!(world.run(&own).expect(2).err.contains("takes an administrator"));
    assert!(world.run(&update).expect(2).err.contains("--reason"));
    world.run(&[&update[..], &["--reason", "only a test key"]].concat()).expect(0);
    assert_eq!(world.verify(&key), "active");
}

#[test]
fn no_registered_key_stands_in_words() {
    let world = World::new();
    let key = (0..)
        .map(|number| world.key_of("ann", &format!("k{number}"), "none", &["--like", "ibm"]))
        .find(|key| !key.starts_with('-'))
        .unwrap();
    let text = format!("was ({key}), see there");
    for command in [
        &["key", "create", "x", "-d", &text][..],
        &["key", "update", "k0", "-d", &text],
        &["key", "disable", "k0", "--reason", &text],
        &["identity", "create", "x@example.com", "--description", &text],
        &["home", "accept", "/srv/x", "--key", "k0", "--reason", &text],
    ] {
        let answer = world.run(command).expect(2);
        assert!(answer.err.contains("an argument is an API key"), "{command:?}: {}", answer.err);
        assert!(!answer.both().contains(&key));
    }
    let hash =
        <sha2::Sha256 as sha2::Digest>::digest(b"Abcdefgh-1234567_ABCDEFGH-7654321_zyxwvut-99");
    let lines = [
        json!({"name": "a", "key": github_token(), "description": text}),
        json!({"name": "b", "sha256": leakwarden::secret::to_hex(&hash), "shape": "base64url:44",
               "description": "is Abcdefgh-1234567_ABCDEFGH-7654321_zyxwvut-99"}),
    ];
    world.write("keys.jsonl", lines.map(|line| line.to_string()).join("\n"));
    let answer = world.run(&["key", "import", "keys.jsonl"]).expect(3);
    assert!(
        answer.err.contains("line 1: refused") && answer.err.contains("line 2: refused"),
        "{}",
        answer.err
    );
    assert!(!answer.both().contains(&key));
    let database = std::fs::read(world.path("registry/registry.db")).unwrap();
    assert!(memchr::memmem::find(&database, key.as_bytes()).is_none());
}
