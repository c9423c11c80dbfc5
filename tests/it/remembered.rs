//! Keys that were seen before anybody said whose they are.

use serde_json::json;

use super::world::{World, github_token, wait};

/// A world in which a daemon has seen a token that nobody owns.
fn seen(mode: &str) -> (World, String) {
    let world = World::new();
    world.configure(&format!("{{ mode: {mode} }}"), "{ directory: ./mail }");
    let token = github_token();
    let daemon = world.watch();
    world.write("inbox/notes.txt", format!("first\nmy token: {token}\n"));
    world.write("logs/app.log", format!("GET /?t={token}\n"));
    let check = || world.run_with(&["leak", "check", "--format", "json"], token.as_bytes());
    wait(|| check().json()["places"].as_array().filter(|places| places.len() == 2).cloned())
        .unwrap_or_else(|| panic!("not remembered: {}", world.log()));
    daemon.stop();
    assert!(world.leaks().is_empty());
    (world, token)
}

#[test]
fn a_key_registered_later_raises_its_incident_at_once() {
    let (world, token) = seen("act");
    let register = ["key", "register", "bot", "--owner", "bob@example.com"];
    let answer = world.run_with(&register, token.as_bytes()).expect(0);
    assert!(answer.err.contains("was seen before"), "{}", answer.err);
    let leak = world.leaks().remove(0);
    assert_eq!((&leak["key"]["name"], &leak["count"]), (&json!("bot"), &json!(2)));
    assert_eq!(leak["action"]["result"], "pending");
    let daemon = world.watch();
    world.leak_of("bot", |leak| leak["action"]["result"] == "done");
    daemon.stop();
    assert_eq!(world.verify(&token), "disabled");
    // The daemon reads the same places again: nothing new.
    assert_eq!(world.leaks().len(), 1);
    assert_eq!(world.leaks()[0]["count"], 2);
}

#[test]
fn a_key_imported_later_raises_its_incident_and_is_held() {
    let (world, token) = seen("act");
    let line =
        json!({"name": "bot", "key": token, "owner": "b@example.com", "leak_action": "delete"});
    world.write("keys.jsonl", line.to_string());
    let answer = world.run(&["key", "import", "keys.jsonl"]).expect(0);
    assert!(answer.err.contains("their actions are held"), "{}", answer.err);
    let leak = world.leaks().remove(0);
    assert_eq!(leak["action"]["result"], "held");
    assert!(leak["action"]["why"].as_str().unwrap().contains("import"));
    assert_eq!(world.verify(&token), "active");
    let daemon = world.watch();
    world.run(&["leak", "approve", "1"]).expect(0);
    world.leak_of("bot", |leak| leak["action"]["result"] == "done");
    daemon.stop();
    assert_eq!(world.verify(&token), "deleted");
}

#[test]
fn while_observing_it_is_held_as_everything_is() {
    let (world, token) = seen("observe");
    world.run_with(&["key", "register", "bot"], token.as_bytes()).expect(0);
    let leak = world.leaks().remove(0);
    assert_eq!((&leak["action"]["result"], &leak["observed"]), (&json!("held"), &json!(true)));
}

#[test]
fn its_own_home_is_no_leak() {
    let (world, token) = seen("act");
    let homes = ["--home", "**/notes.txt"];
    let register = [&["key", "register", "bot", "--owner", "b@example.com"][..], &homes].concat();
    let notes = world.path("inbox/notes.txt");
    assert!(notes.exists());
    world.run_with(&register, token.as_bytes()).expect(0);
    // The log is a leak; the file would be home, but everybody can read it.
    let leak = world.leaks().remove(0);
    let paths: Vec<_> = leak["sightings"].as_array().unwrap().iter().collect();
    assert!(paths.iter().any(|place| place["source"] == "log"), "{paths:?}");
}

#[test]
fn leak_check_says_where_a_key_was_seen() {
    let (world, token) = seen("act");
    let answer = world.run_with(&["leak", "check"], token.as_bytes()).expect(1);
    assert!(answer.out.contains("seen in 2 places; nobody's key"), "{}", answer.out);
    assert!(answer.out.contains("inbox/notes.txt:2:11"), "{}", answer.out);
    assert!(!answer.both().contains(&token));
    world.run_with(&["key", "register", "bot"], token.as_bytes()).expect(0);
    let answer = world.run_with(&["leak", "check"], token.as_bytes()).expect(1);
    assert!(answer.out.contains("leak-1") && answer.out.contains("bot ("), "{}", answer.out);
    let other = world.key("other", "none", &[]);
    let answer = world.run_with(&["leak", "check"], other.as_bytes()).expect(0);
    assert!(answer.out.contains("never seen; other"), "{}", answer.out);
    let answer = world.run_with(&["leak", "check"], b"nobody's key at all").expect(0);
    assert!(answer.out.contains("never seen; nobody's key"), "{}", answer.out);
}

#[test]
fn no_more_is_remembered_than_there_is_room_for() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    // As many places as there is room for, the first half with right check digits.
    database
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             INSERT INTO remembered (identity, digest, checked, source, stream, path, line,
                 \"column\", offset, host, seen_at, world_readable)
             SELECT CAST(printf('%032d', i) AS BLOB), CAST(printf('%032d', i) AS BLOB), i <= 50000,
                 'file', 's', 'p', 1, 1, i, 'h', 0, 0 FROM n",
        )
        .unwrap();
    let token = github_token();
    let daemon = world.watch();
    world.write("inbox/notes.txt", &token);
    let check = || world.run_with(&["leak", "check", "--format", "json"], token.as_bytes()).json();
    let answer = wait(|| Some(check()).filter(|answer| answer["seen"] == true)).unwrap();
    daemon.stop();
    assert_eq!((&answer["remembered"], &answer["forgotten"]), (&json!(100_000), &json!(1)));
    let gone = "SELECT count(*) FROM remembered WHERE \"offset\" = 50001";
    assert_eq!(database.query_row(gone, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    let answer = world.run(&["registry", "check"]).expect(0);
    assert!(answer.out.contains("is whole"), "{}", answer.out);
}
