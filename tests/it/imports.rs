//! Imports that name their source.

use leakwarden::secret::to_hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::world::World;

fn key(number: u32) -> String {
    // As a key of IBM Cloud looks like; nobody's.
    let digits = to_hex(&leakwarden::secret::identity_hash(&[&number.to_le_bytes()]));
    format!("{}-_zY{}", &digits[..30], &digits[30..40])
}

fn file(world: &World, numbers: impl Iterator<Item = u32>, more: &Value) {
    let lines: Vec<String> = numbers
        .map(|number| {
            let mut line = json!({
                "name": format!("key {number}"), "key": key(number), "owner": "ann@example.com",
                "remote_id": format!("ApiKey-{number}"),
            });
            for (name, value) in more.as_object().unwrap() {
                line[name] = value.clone();
            }
            line.to_string()
        })
        .collect();
    world.write("keys.jsonl", lines.join("\n"));
}

fn import(world: &World, more: &[&str]) -> super::world::Answer {
    let command = ["key", "import", "keys.jsonl", "--source", "ibm", "--format", "json"];
    world.run(&[&command[..], more].concat())
}

#[test]
fn what_came_before_is_updated_by_its_remote_id() {
    let world = World::new();
    file(&world, 0..3, &json!({"action_when_leaked": "DISABLE"}));
    let told = import(&world, &[]).expect(0).json();
    assert_eq!((&told["imported"], &told["updated"]), (&json!(3), &json!(0)));
    let told = import(&world, &[]).expect(0).json();
    assert_eq!((&told["imported"], &told["unchanged"]), (&json!(0), &json!(3)));
    world.run(&["key", "lock", "key 1"]).expect(0);
    let told = import(&world, &[]).expect(0).json();
    assert_eq!(told["unchanged"], 3);
    file(&world, 0..4, &json!({"description": "new", "expires_at": "2049-10-04T12:28+0000"}));
    let told = import(&world, &[]).expect(3).json();
    assert_eq!((&told["imported"], &told["updated"]), (&json!(1), &json!(2)));
    assert_eq!(told["refused"][0]["line"], 2);
    assert!(told["refused"][0]["why"].as_str().unwrap().contains("key 1 is locked"));
    let shown = world.run(&["key", "show", "key 0", "--format", "json"]).expect(0).json();
    assert_eq!((&shown["description"], &shown["leak_action"]), (&json!("new"), &json!("disable")));
    assert_eq!(shown["expires_at"], "2049-10-04T12:28:00.000Z");
    assert_eq!((&shown["import_source"], &shown["remote_id"]), (&json!("ibm"), &json!("ApiKey-0")));
    let listed = world.run(&["key", "list", "--source", "ibm"]).expect(0).out;
    assert_eq!(listed.lines().count(), 4);
    // Another key under a known id is refused.
    file(&world, 7..8, &json!({"remote_id": "ApiKey-0"}));
    let told = import(&world, &[]).expect(3).json();
    assert!(told["refused"][0]["why"].as_str().unwrap().contains("is another key"));
}

#[test]
fn only_prune_removes_and_never_much() {
    let world = World::new();
    file(&world, 0..40, &json!({}));
    import(&world, &[]).expect(0);
    let count = || world.run(&["key", "list"]).expect(0).out.lines().count();
    file(&world, 2..40, &json!({}));
    import(&world, &[]).expect(0);
    assert_eq!(count(), 40);
    let answer = import(&world, &["--prune"]).expect(2);
    assert!(answer.err.contains("--force"), "{}", answer.err);
    let told = import(&world, &["--prune", "-f"]).expect(0).json();
    assert_eq!(told["pruned"], 2);
    assert_eq!(world.verify(&key(0)), "deleted");
    file(&world, 4..40, &json!({}));
    let answer = import(&world, &["--prune", "-f"]).expect(2);
    assert!(answer.err.contains("2 of 38 keys of ibm"), "{}", answer.err);
    assert!(answer.err.contains("more than 5 %"), "{}", answer.err);
    assert!(answer.err.contains("--prune-max 2"), "{}", answer.err);
    import(&world, &["--prune", "-f", "--prune-max", "1"]).expect(2);
    assert_eq!(count(), 38);
    // A line that was refused may have named a key.
    file(&world, 3..40, &json!({}));
    world.append("keys.jsonl", "\n{}\n");
    let answer = import(&world, &["--prune", "-f"]).expect(2);
    assert!(answer.err.contains("with lines refused"), "{}", answer.err);
    world.run(&["key", "lock", "key 2"]).expect(0);
    file(&world, 3..40, &json!({}));
    let told = import(&world, &["--prune", "-f"]).expect(0).json();
    assert_eq!((&told["pruned"], &told["kept_locked"]), (&json!(0), &json!(1)));
    file(&world, 3..20, &json!({}));
    let told = import(&world, &["--prune", "-f", "--prune-max", "21"]).expect(0).json();
    assert_eq!((&told["pruned"], &told["kept_locked"]), (&json!(20), &json!(1)));
    // Keys that came another way are not the source's.
    world.key("mine", "none", &[]);
    assert_eq!(count(), 19);
    // Without a source, an id names one key all the same.
    file(&world, 50..52, &json!({"remote_id": "same"}));
    let answer = world.run(&["key", "import", "keys.jsonl"]).expect(3);
    assert!(
        answer.err.contains("key 50") && answer.err.contains("has that remote id"),
        "{}",
        answer.err
    );
    let answer = world.run(&["key", "import", "keys.jsonl", "--prune"]).expect(2);
    assert!(answer.err.contains("--source"), "{}", answer.err);
}

#[test]
fn tables_are_read_as_well() {
    let world = World::new();
    let rows = [
        "Name,key,owner,kind,locked,leak_action,expires_at,homes,description".to_owned(),
        format!(
            "a,{},ann@example.com,user,true,delete,2099-01-01,/etc/a.env /etc/b.env,\"x, y\"",
            key(1)
        ),
        format!("b,{},bob@example.com,,,,,,", key(2)),
        format!("c,{},bob@example.com,,perhaps,,,,", key(3)),
        "d,,,,,,,,".to_owned(),
        format!("e,{}", key(4)),
    ];
    world.write("keys.csv", rows.join("\n"));
    let answer = world.run(&["key", "import", "keys.csv"]).expect(3);
    assert!(answer.out.contains("imported 2, refused 3"), "{}", answer.both());
    for fault in ["line 4: refused: locked: expected true", "line 5: refused: give", "line 6: "] {
        assert!(answer.err.contains(fault), "{}", answer.err);
    }
    assert!((1..5).all(|number| !answer.both().contains(&key(number))));
    let a = world.run(&["key", "show", "a", "--format", "json"]).expect(0).json();
    assert_eq!((&a["locked"], &a["description"]), (&json!(true), &json!("x, y")));
    assert_eq!(a["homes"], json!(["/etc/a.env", "/etc/b.env"]));
    world.write("keys.csv", "name,key,colour\n");
    let answer = world.run(&["key", "import", "keys.csv"]).expect(2);
    assert!(answer.err.contains("a column `colour`"), "{}", answer.err);
}

#[test]
fn a_refused_line_leaves_nothing_behind() {
    let world = World::new();
    let line =
        json!({"name": "k", "key": key(1), "owner": "ann@example.com", "homes": ["relative"]});
    world.write("keys.jsonl", line.to_string());
    let answer = world.run(&["key", "import", "keys.jsonl"]).expect(3);
    assert!(answer.err.contains("begins neither"), "{}", answer.err);
    assert!(!world.run(&["identity", "list"]).expect(0).out.contains("ann@example.com"));
    assert_eq!(world.verify(&key(1)), "unknown");
    let answer = world.run(&["key", "import", "keys.jsonl", "--as", "admin@example.com"]).expect(3);
    assert!(answer.out.contains("imported 0"), "{}", answer.out);
    world.run(&["identity", "create", "bob@example.com"]).expect(0);
    let answer = world.run(&["key", "import", "keys.jsonl", "--as", "bob@example.com"]).expect(2);
    assert!(answer.err.contains("takes an administrator"), "{}", answer.err);
}

#[test]
fn an_owner_whose_first_line_is_refused_comes_with_the_next_one() {
    let world = World::new();
    let lines = [json!("/a"), json!("no glob of a place"), json!("/b"), json!("/c")];
    let lines = lines.iter().enumerate().map(|(number, home)| {
        let number = u32::try_from(number).unwrap();
        let owner = if number == 0 { "ann@example.com" } else { "bob@example.com" };
        json!({
            "name": format!("key {number}"), "key": key(number), "owner": owner, "homes": [home],
        })
        .to_string()
    });
    world.write("keys.jsonl", lines.collect::<Vec<_>>().join("\n"));
    let told = import(&world, &[]).expect(3).json();
    assert_eq!((&told["imported"], &told["refused"][0]["line"]), (&json!(3), &json!(2)));
    let keys = world.run(&["key", "list", "--format", "json"]).expect(0).json();
    let owners: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|k| &k["owner"]).collect();
    assert_eq!(owners, ["ann@example.com", "bob@example.com", "bob@example.com"]);
    let people = world.run(&["identity", "list", "--format", "json"]).expect(0).out;
    assert_eq!(people.matches("\"name\": \"bob@example.com\"").count(), 1, "{people}");
    world.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_digest_comes_with_the_rule_that_its_key_is_of() {
    let world = World::new();
    let key = format!("AI{}{}", "za", &key(1)[..35]);
    let hash = to_hex(&Sha256::digest(&key));
    let line = |rule: &str| {
        json!({ "name": "maps", "sha256": hash, "rule": rule, "owner": "a@example.com" })
            .to_string()
    };
    for (rule, why) in [("nothing", "there is no such rule"), ("jwt", "of several lengths")] {
        world.write("keys.jsonl", line(rule));
        let refused = world.run(&["key", "import", "keys.jsonl"]).expect(3);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    world.write("keys.jsonl", line("google-api-key"));
    world.run(&["key", "import", "keys.jsonl"]).expect(0);
    world.write("leak.txt", format!("token={key}"));
    let found = world.run(&["scan", "leak.txt"]).expect(1);
    assert!(found.out.contains("registered") && found.out.contains("maps"), "{}", found.out);
}
