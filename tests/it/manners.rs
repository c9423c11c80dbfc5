//! The manners of the daemon: signals, and taking in a changed configuration.

use std::fs;

use rustix::process::Signal;

use super::world::{World, wait};

fn done(leak: &serde_json::Value) -> bool {
    leak["action"]["result"] == "done"
}

/// Watches `inbox` and some logs, acting.
fn configure(world: &World, mode: &str, more: &str) {
    for folder in ["inbox", "logs", "more"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    let head = "registry: ./registry\nmail: { directory: ./mail }\n";
    let watch = format!("watch:\n  - logs: [\"./logs/*.log\"]\n{more}");
    world.write("config.yaml", format!("{head}response: {{ mode: {mode} }}\n{watch}"));
}

#[test]
fn what_is_added_is_watched_and_what_is_taken_away_is_not() {
    let world = World::new();
    configure(&world, "act", "  - files: [\"./inbox/**\"]\n");
    let keys: Vec<String> = (0..5).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    world.write("logs/app.log", "before\n");
    let mut daemon = world.watch();
    world.append("logs/app.log", format!("{}\n", keys[0]));
    world.leak_of("k0", done);
    configure(&world, "act", "  - files: [\"./more/**\"]\n");
    world.write("more/there.txt", &keys[1]);
    daemon.reload(&world);
    world.leak_of("k1", done);
    world.write("inbox/nobody-looks.txt", &keys[2]);
    // The log that stayed goes on where it was, and no line of it is read again.
    world.append("logs/app.log", format!("{}\n{}\n", keys[0], keys[3]));
    let leak = world.leak_of("k3", done);
    assert_eq!(leak["sightings"][0]["line"], 4);
    assert_eq!(world.leak_of("k0", |_| true)["count"], 2);
    // It comes back: what was written meanwhile is found, what was read is not read again.
    configure(&world, "act", "  - files: [\"./inbox/**\"]\n");
    daemon.reload(&world);
    world.leak_of("k2", done);
    assert_eq!(world.leaks().len(), 4);
    let (_, code) = daemon.stop();
    assert_eq!(code, 0);
}

#[test]
fn a_changed_watch_goes_on_where_it_was() {
    let world = World::new();
    configure(&world, "act", "");
    let old = world.key("old", "disable", &[]);
    let keys: Vec<String> = (0..8).map(|n| world.key(&format!("k{n}"), "none", &[])).collect();
    world.write("logs/app.log", format!("{old}\n"));
    let mut daemon = world.watch();
    for (n, key) in keys.iter().enumerate() {
        world.append("logs/app.log", format!("{key}\n"));
        let exclude = format!("    exclude: [\"**/other-{n}.log\"]\n");
        configure(&world, "act", &exclude);
        daemon.reload(&world);
    }
    for n in 0..keys.len() {
        let leak = world.leak_of(&format!("k{n}"), |_| true);
        assert_eq!((&leak["count"], &leak["sightings"][0]["line"]), (&1.into(), &(n + 2).into()));
    }
    assert_eq!(world.leaks().len(), keys.len(), "what was there before the first start was read");
    daemon.stop();
}

#[test]
fn a_broken_configuration_keeps_the_old_one_and_is_told() {
    let world = World::new();
    configure(&world, "act", "");
    let keys: Vec<String> = (0..2).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let mut daemon = world.watch();
    configure(&world, "act", "    wach: 1\n");
    daemon.reload(&world);
    let log = world.log();
    assert!(log.contains("all stays as it was"), "{log}");
    assert!(log.contains("unknown field `wach`") && log.contains("at line 6"), "{log}");
    world.append("logs/app.log", format!("{}\n", keys[0]));
    world.leak_of("k0", done);
    // A broken rule as well.
    configure(&world, "act", "rules: [./rules]\n");
    world.write("rules/mine.yaml", "rules:\n  - id: x\n    colour: red\n");
    daemon.reload(&world);
    assert!(world.log().contains("rules/mine.yaml"), "{}", world.log());
    configure(&world, "act", "registry: ./other\n");
    let config = fs::read_to_string(world.path("config.yaml")).unwrap();
    world.write("config.yaml", config.replacen("registry: ./registry\n", "", 1));
    daemon.reload(&world);
    assert!(world.log().contains("changes with a restart only"), "{}", world.log());
    world.append("logs/app.log", format!("{}\n", keys[1]));
    world.leak_of("k1", done);
    daemon.stop();
}

#[test]
fn the_policy_and_the_mail_folder_change_without_a_restart() {
    let world = World::new();
    configure(&world, "act", "");
    let key = world.key("k", "disable", &[]);
    let mut daemon = world.watch();
    configure(&world, "observe", "");
    let config = fs::read_to_string(world.path("config.yaml")).unwrap();
    world.write("config.yaml", config.replace("./mail", "./letters"));
    daemon.reload(&world);
    world.append("logs/app.log", format!("{key}\n"));
    world.leak_of("k", |leak| leak["action"]["result"] == "held");
    assert_eq!(world.verify(&key), "active");
    wait(|| fs::read_dir(world.path("letters")).ok()?.flatten().next()).expect("a mail");
    daemon.stop();
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new();
    configure(&world, "act", "");
    let key = world.key("k", "disable", &[]);
    let mut daemon = world.watch();
    // Somebody holds the database: what was read cannot be written.
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.append("logs/app.log", format!("{key}\n"));
    daemon.signal(Signal::TERM);
    daemon.wait_told("STOPPING=1", &world);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(3), "{}", world.log());
    database.execute_batch("ROLLBACK").unwrap();
    // Nothing is lost.
    let daemon = world.watch();
    world.leak_of("k", done);
    daemon.stop();
}
