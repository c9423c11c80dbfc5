//! Keys and identities as IBM Cloud's documents have them.

use serde_json::json;

use super::world::{World, github_token};

fn refused(world: &World, arguments: &[&str], why: &str) {
    let answer = world.run(arguments).expect(2);
    assert!(answer.err.contains(why), "{arguments:?}: {}", answer.err);
    assert_eq!(answer.err.trim().lines().count(), 1, "{}", answer.err);
}

#[test]
fn a_key_is_updated_and_its_history_says_so() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    let update = ["key", "update", "k", "--reason", "tidying"];
    let more = [
        "-n",
        "k2",
        "-d",
        "new",
        "--expires",
        "2049-01-02T18:30:00+0000",
        "--action-if-leaked",
        "DELETE",
        "--class",
        "test",
        "--home",
        "/etc/a.env",
    ];
    world.run(&[&update[..], &more].concat()).expect(0);
    let shown = world.run(&["key", "show", "k2", "--format", "json"]).expect(0).json();
    assert_eq!(shown["description"], "new");
    assert_eq!(shown["expires_at"], "2049-01-02T18:30:00.000Z");
    assert_eq!((&shown["leak_action"], &shown["class"]), (&json!("delete"), &json!("test")));
    assert_eq!(shown["homes"], json!(["/etc/a.env"]));
    assert_eq!(shown["version"], 2);
    let history = shown["history"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["action"], "key update");
    assert_eq!(history[1]["reason"], "tidying");
    assert!(history[1]["after"].as_str().unwrap().contains("leak_action=delete"));
    assert!(history[1]["before"].as_str().unwrap().contains("name=k"));
    let clear = ["-d", "", "--expires", "", "--home", "", "--action-when-leaked", "none"];
    world.run(&[&["key", "update", "k2"][..], &clear].concat()).expect(0);
    let shown = world.run(&["key", "show", "k2", "--format", "json"]).expect(0).json();
    assert_eq!(shown["description"], "");
    assert_eq!((&shown["expires_at"], &shown["homes"]), (&json!(null), &json!([])));
    let answer = world.run(&["key", "update", "k2", "-d", ""]).expect(0);
    assert!(answer.err.contains("nothing was changed"), "{}", answer.err);
    refused(&world, &["key", "update", "k2", "-d", "x", "--if-version", "2"], "its version is 3");
    world.run(&["key", "update", "k2", "-d", "x", "--if-version", "3"]).expect(0);
    refused(&world, &["key", "update", "k2", "-n", ""], "needs a name");
    refused(&world, &["key", "update", "k2", "--home", "**"], "every file would be one");
    world.run(&["key", "lock", "k2"]).expect(0);
    refused(&world, &["key", "update", "k2", "-d", "y"], "a locked key is not updated");
    refused(&world, &["key", "delete", "-f", "k2"], "a locked key is not deleted");
    world.run(&["key", "unlock", "k2"]).expect(0);
    world.run(&["key", "delete", "-f", "k2"]).expect(0);
    refused(&world, &["key", "update", "k2", "-d", "y"], "that is for good");
    refused(&world, &["key", "lock", "k2"], "that is for good");
    assert_eq!(world.verify(&key), "deleted");
}

#[test]
fn classic_keys_have_no_lock_no_expiry_and_no_disable_and_a_user_has_one() {
    let world = World::new();
    let create = |more: &[&str]| {
        let mut command = vec!["key", "create", "c", "--owner", "ann@example.com", "--kind"];
        command.push("classic-infrastructure");
        command.extend(more);
        world.run(&command)
    };
    for (more, why) in [
        (&["--lock"][..], "cannot be locked"),
        (&["--expires", "2099-01-01"], "cannot expire"),
        (&["--action-if-leaked", "disable"], "its leak action is none or delete"),
    ] {
        assert!(create(more).expect(2).err.contains(why));
    }
    create(&["--action-if-leaked", "delete"]).expect(0);
    assert!(create(&[]).expect(2).err.contains("one is the limit"));
    refused(&world, &["key", "lock", "c"], "cannot be locked");
    refused(&world, &["key", "disable", "c"], "cannot be disabled");
    refused(&world, &["key", "update", "c", "--expires", "2099-01-01"], "cannot expire");
    refused(&world, &["key", "rotate", "c"], "delete it");
    world.run(&["key", "delete", "-f", "c"]).expect(0);
    let made = create(&["--format", "json"]).expect(0).json();
    assert_eq!(made["leak_action"], "none");
}

#[test]
fn keys_of_services_belong_to_service_ids() {
    let world = World::new();
    let owner = ["--owner", "bob@example.com"];
    world.run(&[&["key", "create", "app", "--kind", "service-id"][..], &owner].concat()).expect(0);
    let shown = world.run(&["identity", "show", "app", "--format", "json"]).expect(0).json();
    assert_eq!(
        (&shown["kind"], &shown["contact"]),
        (&json!("service-id"), &json!("bob@example.com"))
    );
    let specific = ["key", "create", "db", "--kind", "service-specific", "--owner", "app"];
    refused(&world, &specific, "needs the service that made it");
    world.run(&[&specific[..], &["--service", "postgres"]].concat()).expect(0);
    refused(&world, &["key", "create", "x", "--owner", "app"], "its keys have --kind service-id");
    refused(&world, &["key", "create", "x", "--service", "y"], "only a service-specific key");
    let listed = world.run(&["key", "list", "--owner", "app", "--format", "json"]).expect(0).json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    assert_eq!(listed["keys"][0]["owner"], "bob@example.com");
    // Bob manages the service ID, and so its keys.
    world.run(&["key", "disable", "db", "--as", "bob@example.com"]).expect(0);
}

#[test]
fn identities_have_kinds_groups_and_contacts() {
    let world = World::new();
    let create = |more: &[&str]| world.run(&[&["identity", "create"][..], more].concat());
    create(&["ann@example.com", "--federated", "--group", "dev", "--group", "ops"]).expect(0);
    assert!(create(&["x"]).expect(2).err.contains("a user needs a mail address"));
    assert!(create(&["bot", "--kind", "service-id"]).expect(2).err.contains("needs a contact"));
    assert!(
        create(&["bot", "--kind", "service-id", "--contact", "no address"])
            .expect(2)
            .err
            .contains("is not a mail address")
    );
    let bot = ["bot", "--kind", "functional-id", "--contact", "team@example.com", "--manager"];
    create(&[&bot[..], &["ann@example.com"]].concat()).expect(0);
    assert!(create(&[&bot[..], &["ann@example.com"]].concat()).expect(2).err.contains("already"));
    let list = |more: &[&str]| world.run(&[&["identity", "list"][..], more].concat()).expect(0).out;
    assert!(list(&["--kind", "functional-id"]).contains("team@example.com"));
    assert!(list(&["--group", "OPS"]).contains("ann@example.com"));
    assert!(!list(&["--group", "none"]).contains("ann@example.com"));
    let update = |more: &[&str]| {
        world.run(&[&["identity", "update", "bot", "--format", "json"][..], more].concat())
    };
    let changed = update(&["--group", "ci", "-d", "builds"]).expect(0).json();
    assert_eq!((&changed["groups"], &changed["description"]), (&json!(["ci"]), &json!("builds")));
    let changed = update(&["--group", "", "--manager", ""]).expect(0).json();
    assert_eq!((&changed["groups"], &changed["manager_id"]), (&json!([]), &json!(null)));
    assert!(update(&["--if-version", "1", "-d", "y"]).expect(2).err.contains("changed meanwhile"));
    assert!(update(&["--contact", ""]).expect(2).err.contains("needs a contact"));
    assert!(update(&["--federated", "true"]).expect(2).err.contains("only users are federated"));
    create(&["bob@example.com"]).expect(0);
    let parent =
        |name: &str, parent: &str| world.run(&["identity", "update", name, "--parent", parent]);
    parent("bob@example.com", "ann@example.com").expect(0);
    assert!(
        parent("ann@example.com", "bob@example.com").expect(2).err.contains("above themselves")
    );
}

#[test]
fn an_identity_with_live_keys_is_not_deleted_by_itself() {
    let world = World::new();
    let keys = ["one", "two"].map(|name| world.key_of("ann", name, "none", &[]));
    let delete = ["identity", "delete", "-f", "ann@example.com"];
    refused(&world, &delete, "has 2 live keys; say what becomes of them");
    refused(&world, &["identity", "delete", "ann@example.com"], "--force");
    refused(&world, &[&delete[..], &["--reassign", "nobody"]].concat(), "no identity `nobody`");
    world.run(&["identity", "create", "bob@example.com"]).expect(0);
    world.run(&["key", "lock", "one"]).expect(0);
    let reassign = [&delete[..], &["--reassign", "bob@example.com"]].concat();
    refused(&world, &reassign, "a locked key is not handed on");
    world.run(&["key", "unlock", "one"]).expect(0);
    world.run(&reassign).expect(0);
    let shown = world.run(&["key", "show", "one", "--format", "json"]).expect(0).json();
    assert_eq!(shown["owner"], "bob@example.com");
    refused(&world, &["identity", "show", "ann@example.com"], "no identity");
    let delete = ["identity", "delete", "-f", "bob@example.com", "--disable-keys"];
    assert!(world.run(&delete).expect(0).out.contains("2 keys disabled"));
    assert!(keys.iter().all(|key| world.verify(key) == "disabled"));
    // The address is free again.
    world.key("bob", "none", &[]);
    refused(&world, &["identity", "delete", "-f", "admin@example.com"], "owns the account");
}

#[test]
fn settings_of_the_account() {
    let world = World::new();
    let update = |more: &[&str]| world.run(&[&["account", "update"][..], more].concat());
    update(&["--max-keys", "2", "--key-prefix", "acme", "-n", "acme"]).expect(0);
    let key = world.key("k", "none", &[]);
    assert!(key.starts_with("acme_user_"), "{}", key.len());
    world.key("k", "none", &[]);
    refused(&world, &["key", "create", "k", "--owner", "k@example.com"], "2 is the limit");
    // Registering is only warned about.
    let register = ["key", "register", "k3", "--owner", "k@example.com"];
    let answer = world.run_with(&register, github_token().as_bytes()).expect(0);
    assert!(answer.err.contains("more than the 2"), "{}", answer.err);
    assert!(update(&["--max-keys", "0"]).expect(2).err.contains("0"));
    assert!(update(&["--key-prefix", "A B"]).expect(2).err.contains("lower-case letters"));
    let shown = world.run(&["account", "show", "--format", "json"]).expect(0).json();
    assert_eq!((&shown["name"], &shown["max_keys"]), (&json!("acme"), &json!(2)));
    assert!(update(&["--max-keys", "3", "--if-version", "1"]).expect(2).err.contains("meanwhile"));
    world.run(&["identity", "create", "eve@example.com"]).expect(0);
    update(&["--admin", "eve@example.com"]).expect(0);
    let access = world.run(&["access", "list", "--as", "eve@example.com"]).expect(0).out;
    assert!(access.contains("eve@example.com"), "{access}");
    world.run(&["account", "create", "acme", "--owner", "x@example.com"]).expect(2);
}

#[test]
fn a_successor_takes_over_and_the_old_key_expires() {
    let world = World::new();
    let old = world.key("ci", "delete", &["--home", "/etc/ci.env"]);
    let answer =
        world.run(&["key", "rotate", "ci", "--overlap", "7d", "--format", "json"]).expect(0);
    let new = answer.json();
    assert_eq!((&new["name"], &new["leak_action"]), (&json!("ci"), &json!("delete")));
    assert_eq!(new["homes"], json!(["/etc/ci.env"]));
    assert_eq!(world.verify(&old), "active");
    assert_eq!(world.verify(new["key"].as_str().unwrap()), "active");
    let replaced = new["replaces"].as_str().unwrap();
    let shown = world.run(&["key", "show", replaced, "--format", "json"]).expect(0).json();
    assert!(shown["name"].as_str().unwrap().starts_with("ci (replaced "));
    assert!(shown["expires_at"].is_string());
    world.run(&["key", "rotate", "ci", "--overlap", "0s", "--file", "new.key"]).expect(0);
    assert_eq!(world.verify(new["key"].as_str().unwrap()), "expired");
    assert_eq!(world.verify(&std::fs::read_to_string(world.path("new.key")).unwrap()), "active");
    world.run(&["key", "lock", "ci"]).expect(0);
    refused(&world, &["key", "rotate", "ci"], "a locked key is not updated");
    let answer = world.run(&["key", "rotate", "ci", "--overlap", "7"]).expect(2);
    assert!(answer.err.contains("expected a span"), "{}", answer.err);
}

#[test]
fn many_keys_are_verified_line_by_line_and_uses_are_counted() {
    let world = World::new();
    let live = world.key("live", "none", &[]);
    let dead = world.key("dead", "none", &[]);
    world.run(&["key", "disable", "dead"]).expect(0);
    let input = format!("{live}\n{dead}\r\nnobody's\n\n{}\n{live}", "x".repeat(9_000));
    let many = ["key", "verify", "--many"];
    let answer = world.run_with(&many, input.as_bytes()).expect(1);
    let words: Vec<_> =
        answer.out.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(words, ["active", "disabled", "unknown", "unknown", "unknown", "active"]);
    let answer = world.run_with(&[&many[..], &["--format", "json"]].concat(), input.as_bytes());
    let lines = answer.expect(1).lines();
    assert_eq!((&lines[1]["line"], &lines[1]["status"]), (&json!(2), &json!("disabled")));
    world.run_with(&many, format!("{live}\n{live}\n").as_bytes()).expect(0);
    refused(&world, &many, "no key on standard input");
    let answer = world.run_with(&["key", "verify"], input.as_bytes()).expect(2);
    assert!(answer.err.contains("--many"), "{}", answer.err);
    let show = || world.run(&["key", "show", "live", "--format", "json"]).expect(0).json();
    assert_eq!(show()["use_count"], 6);
    assert!(show()["last_used_at"].is_string());
    world.run_with(&["key", "verify", "--no-count"], live.as_bytes()).expect(0);
    assert_eq!(show()["use_count"], 6);
    let dead = world.run(&["key", "show", "dead", "--format", "json"]).expect(0).json();
    assert_eq!((&dead["use_count"], &dead["last_used_at"]), (&json!(0), &json!(null)));
}

#[test]
fn lists_are_narrowed_and_exported_without_secrets() {
    let world = World::new();
    let key = world.key("soon", "disable", &["--expires", "2999-01-01"]);
    world.key("later", "none", &["--class", "test"]);
    world.key("gone", "delete", &[]);
    world.run(&["key", "delete", "-f", "gone"]).expect(0);
    let list = |more: &[&str]| world.run(&[&["key", "list"][..], more].concat()).expect(0).out;
    for (more, names) in [
        (&["--class", "test"][..], &["later"][..]),
        (&["--action-if-leaked", "disable"], &["soon"]),
        (&["--state", "deleted"], &["gone"]),
        (&["--all", "--action-if-leaked", "delete"], &["gone"]),
        (&["--expires-within", "999999d"], &["soon"]),
        (&["--expires-within", "30d"], &[]),
        (&["--leaked"], &[]),
        (&["--owner", "soon@example.com", "--state", "active"], &["soon"]),
    ] {
        let out = list(more);
        for name in ["soon", "later", "gone"] {
            let shown = out.lines().any(|line| line.starts_with(name));
            assert_eq!(shown, names.contains(&name), "{more:?}: {name}");
        }
    }
    let answer = world.run(&["key", "list", "--view", "theirs"]).expect(2);
    assert!(answer.err.contains("expected mine, user, service-id"), "{}", answer.err);
    for more in [&["--all"][..], &["--csv"]] {
        let out = world.run(&[&["key", "export"][..], more].concat()).expect(0).out;
        assert!(out.contains("soon@example.com") && !out.contains(&key) && !out.contains("digest"));
    }
    let csv = world.run(&["key", "export", "--csv"]).expect(0).out;
    assert!(csv.starts_with("id,name,description,kind,"), "{csv}");
    assert_eq!(csv.lines().count(), 3);
}

#[test]
fn a_stored_digest_is_no_key() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    let (digest, tag): (Vec<u8>, i64) = database
        .query_row("SELECT digest, tag FROM keys", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let hex = leakwarden::secret::to_hex(&digest);
    for offered in [&digest[..], hex.as_bytes(), &tag.to_le_bytes()] {
        let answer = world.run_with(&["key", "verify"], offered);
        assert_ne!(answer.code, 0, "{}", answer.both());
        assert!(!answer.out.starts_with("active"));
    }
    assert_eq!(world.verify(&key), "active");
}

#[test]
fn homes_are_suggested_accepted_and_removed() {
    let world = World::new();
    world.configure("{ mode: observe }", "{ directory: ./mail }");
    let key = world.key("app", "disable", &[]);
    let path = world.write("inbox/app.env", &key);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let daemon = world.watch();
    world.leak_of("app", |_| true);
    let suggest = ["home", "suggest", "--format", "json"];
    let suggestion = world.run(&suggest).expect(0).json()["suggestions"][0].clone();
    assert_eq!(suggestion["key"]["name"], "app");
    let glob = suggestion["glob"].as_str().unwrap();
    refused(&world, &["home", "accept", glob], "say whose home it is");
    refused(&world, &["home", "accept", "/**", "--all-keys"], "every file would be one");
    world.run(&["home", "accept", glob, "--key", "app", "--reason", "its place"]).expect(0);
    world.run(&["leak", "resolve", "1", "--as", "accepted"]).expect(0);
    world.append("inbox/app.env", "\n# changed\n");
    let other = world.key("other", "disable", &[]);
    world.write("inbox/other.txt", other);
    world.leak_of("other", |_| true);
    daemon.stop();
    assert!(world.leaks().iter().filter(|leak| leak["key"]["name"] == "app").count() == 1);
    let homes = world.run(&["home", "list", "--format", "json"]).expect(0).json();
    assert_eq!(homes["homes"][0]["key"]["name"], "app");
    world.run(&["identity", "create", "eve@example.com"]).expect(0);
    refused(
        &world,
        &["home", "accept", "/x", "--all-keys", "--as", "eve@example.com"],
        "administrator",
    );
    refused(&world, &["home", "remove", "1", "--as", "eve@example.com"], "no home 1");
    world.run(&["home", "remove", "1"]).expect(0);
    refused(&world, &["home", "remove", "1"], "no home 1");
    world
        .run(&["home", "accept", "/srv/**", "--owner", "app@example.com", "--host", "w1"])
        .expect(0);
    let shown = world.run(&["key", "show", "app"]).expect(0).out;
    assert!(shown.contains("/srv/** on w1"), "{shown}");
}

#[test]
fn a_key_has_an_executor_and_an_id_where_it_was_issued() {
    let world = World::new();
    let register = ["key", "register", "k", "--executor", "ibmcloud", "--remote-id", "ApiKey-1"];
    let answer = world
        .run_with(
            &[&register[..], &["--owner", "a@example.com"]].concat(),
            github_token().as_bytes(),
        )
        .expect(0);
    assert!(answer.out.contains("disable, by ibmcloud"), "{}", answer.out);
    let shown = || world.run(&["key", "show", "k", "--format", "json"]).expect(0).json();
    assert_eq!(
        (&shown()["executor"], &shown()["remote_id"]),
        (&json!("ibmcloud"), &json!("ApiKey-1"))
    );
    world.run(&["key", "update", "k", "--executor", "registry", "--remote-id", ""]).expect(0);
    assert_eq!((&shown()["executor"], &shown()["remote_id"]), (&json!("registry"), &json!(null)));
    refused(&world, &["key", "update", "k", "--executor", "No Name"], "the name of an executor");
    let line = json!({"name": "i", "key": "Abcdefgh-1234567_ABCDEFGH-7654321_zyxwvut-99",
                      "executor": "vault", "remote_id": "7"});
    world.write("keys.jsonl", line.to_string());
    world.run(&["key", "import", "keys.jsonl", "--source", "vault"]).expect(0);
    let csv = world.run(&["key", "export", "--csv", "--source", "vault"]).expect(0).out;
    assert!(csv.contains(",executor,") && csv.contains(",vault,"), "{csv}");
    world.write("keys.jsonl", line.to_string().replace("\"vault\"", "\"other\""));
    world.run(&["key", "import", "keys.jsonl", "--source", "vault"]).expect(0);
    let list =
        world.run(&["key", "list", "--format", "json", "--source", "vault"]).expect(0).json();
    assert_eq!(list["keys"][0]["executor"], "other");
    world.key("ann", "none", &["--remote-id", "ApiKey-2"]);
    refused(&world, &["key", "update", "k", "--remote-id", "ApiKey-2"], "has that remote id");
    refused(&world, &["key", "create", "x", "--remote-id", "ApiKey-2"], "has that remote id");
}

#[test]
fn a_successor_lives_as_long_as_the_old_key_was_made_for() {
    let world = World::new();
    world.key("k", "none", &["--expires", "2099-01-01"]);
    let rotate = |more: &[&str]| {
        let command = ["key", "rotate", "k", "--overlap", "0s", "--format", "json"];
        world.run(&[&command[..], more].concat()).expect(0).json()["expires_at"].clone()
    };
    let end = rotate(&[]);
    assert!(end.as_str().unwrap().starts_with("2099-01-01T00:00:0"), "{end}");
    assert_eq!(rotate(&["--expires", "2050-01-01"]), "2050-01-01T00:00:00.000Z");
    assert_eq!(rotate(&["--expires", ""]), json!(null));
    assert_eq!(rotate(&[]), json!(null));
}
