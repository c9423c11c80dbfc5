//! The audit log: whole, or it says where it is not.

use rusqlite::Connection;

use super::world::World;

fn world() -> World {
    let world = World::new();
    for name in ["a", "b", "c", "d"] {
        world.key(name, "none", &[]);
    }
    world
}

/// Changes the log as somebody would who can write the file.
fn tamper(world: &World, sql: &str) {
    let database = Connection::open(world.path("registry/registry.db")).unwrap();
    database
        .execute_batch(&format!(
            "DROP TRIGGER audit_is_append_only_u; DROP TRIGGER audit_is_append_only_d; {sql}"
        ))
        .unwrap();
}

#[test]
fn changed_missing_and_reordered_rows_are_found() {
    for (sql, fault) in [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 4", "row 4 was changed"),
        ("UPDATE audit SET at = at + 1 WHERE seq = 1", "row 1 was changed"),
        ("UPDATE audit SET reason = 'because' WHERE seq = 5", "row 5 was changed"),
        ("DELETE FROM audit WHERE seq = 4", "row 4 is missing"),
        ("DELETE FROM audit WHERE seq < 3", "row 1 is missing"),
        ("DELETE FROM audit", "emptied"),
        (
            "UPDATE audit SET seq = 99 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5;
             UPDATE audit SET seq = 5 WHERE seq = 99",
            "row 4 was changed or moved",
        ),
        ("INSERT INTO audit SELECT seq + 1, at, actor, action, target, before, after, reason, hash
             FROM audit ORDER BY seq DESC LIMIT 1", "was changed"),
    ] {
        let world = world();
        let whole = world.run(&["audit", "verify"]).expect(0).out;
        assert!(whole.contains("the audit log is whole"), "{whole}");
        tamper(&world, sql);
        let answer = world.run(&["audit", "verify"]).expect(1);
        assert!(answer.out.contains(fault), "{sql}: {}", answer.out);
        assert!(answer.out.contains("NOT whole"), "{}", answer.out);
        let answer = world.run(&["registry", "check"]).expect(1);
        assert!(answer.out.contains(fault), "{sql}: {}", answer.out);
        assert!(answer.out.contains("the trigger audit_is_append_only_d is missing"));
        let json = world.run(&["audit", "verify", "--format", "json"]).expect(1).json();
        assert_eq!(json["whole"], false);
    }
}

#[test]
fn the_database_itself_refuses_to_change_the_log() {
    let world = world();
    let database = Connection::open(world.path("registry/registry.db")).unwrap();
    for sql in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"] {
        let error = database.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[test]
fn a_log_that_was_cut_off_or_written_anew_shows_beside_a_head_kept_elsewhere() {
    let world = world();
    let before = world.run(&["audit", "verify"]).expect(0).out;
    let head = before.lines().find(|line| line.contains("audit head")).unwrap().to_owned();
    world.write("heads", format!("some log: {head} and more\n"));
    world.key("e", "none", &[]);
    let verify = ["audit", "verify", "--heads", "heads"];
    let answer = world.run(&verify).expect(0);
    assert!(answer.out.contains("1 head kept elsewhere"), "{}", answer.out);
    let other = World::new();
    other.write("heads", format!("{head}\n"));
    // The end is gone: by itself the log is whole.
    tamper(&world, "DELETE FROM audit WHERE seq > 5");
    world.run(&["audit", "verify"]).expect(0);
    let answer = world.run(&verify).expect(1);
    assert!(answer.out.contains("cut off"), "{}", answer.out);
    for name in ["a", "b", "c", "d", "e", "f"] {
        other.key(name, "none", &[]);
    }
    let answer = other.run(&verify).expect(1);
    assert!(answer.out.contains("written anew"), "{}", answer.out);
    world.write("heads", "nothing of that kind\n");
    let answer = world.run(&verify).expect(2);
    assert!(answer.err.contains("audit head NUMBER:HASH"), "{}", answer.err);
}

#[test]
fn the_daemon_tells_the_head_to_its_log() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/x.txt", key);
    world.leak_of("k", |leak| leak["action"]["result"] == "done");
    daemon.stop();
    let answer = world.run(&["audit", "verify", "--heads", "log"]).expect(0);
    assert!(answer.out.contains("3 heads kept elsewhere"), "{}", answer.out);
}

#[test]
fn the_log_is_shown_to_administrators() {
    let world = world();
    world.run(&["key", "disable", "a", "--reason", "because"]).expect(0);
    let rows = world.run(&["audit", "show", "a", "--format", "json"]).expect(0).json();
    let rows = rows["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1]["action"], "key disable");
    assert_eq!((&rows[1]["before"], &rows[1]["after"]), (&"active".into(), &"disabled".into()));
    assert_eq!(rows[1]["reason"], "because");
    assert_eq!(world.run(&["audit", "show", "--limit", "3"]).expect(0).out.lines().count(), 3);
    let answer = world.run(&["audit", "show", "--as", "a@example.com"]).expect(2);
    assert!(answer.err.contains("administrator"), "{}", answer.err);
    let answer = world.run(&["audit", "show", "nobody"]).expect(2);
    assert!(answer.err.contains("no key, identity or leak"), "{}", answer.err);
}
