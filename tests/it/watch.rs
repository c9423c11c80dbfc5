//! `watch`: folders, logs, decisions.

use std::fs;
use std::time::Duration;

use super::world::{World, wait};

const ACT: &str = "{ mode: act }";
const MAIL: &str = "{ directory: ./mail }";

fn done(leak: &serde_json::Value) -> bool {
    leak["action"]["result"] == "done"
}

/// Whether every notice of a leak is out.
fn told(leak: &serde_json::Value) -> bool {
    let notices = leak["notices"].as_array().unwrap();
    !notices.is_empty() && notices.iter().all(|notice| notice["state"] == "sent")
}

#[test]
fn the_leak_action_of_each_key_is_carried_out() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let none = world.key("none", "none", &[]);
    let daemon = world.watch();
    // Registered while the daemon runs, one of them in a shape that is new to it.
    let disable = world.key("disable", "disable", &["--like", "ibm"]);
    let delete = world.key("delete", "delete", &[]);
    world.write("inbox/a/b/c/none.txt", format!("{none}\n"));
    world.append("logs/app.log", format!("GET /?key={disable}&x=1\n"));
    world.write("inbox/.env", format!("KEY=\"{delete}\""));
    world.leak_of("none", told);
    let leak = world.leak_of("disable", |leak| done(leak) && told(leak));
    assert_eq!(leak["sightings"][0]["source"], "log");
    assert_eq!(
        (&leak["sightings"][0]["line"], &leak["sightings"][0]["column"]),
        (&1.into(), &11.into())
    );
    let leak = world.leak_of("delete", |leak| done(leak) && told(leak));
    assert_eq!(leak["key"]["state"], "deleted");
    assert_eq!(leak["action"]["kind"], "delete");
    assert_eq!(world.verify(&none), "active");
    assert_eq!(world.verify(&disable), "disabled");
    assert_eq!(world.verify(&delete), "deleted");
    let mails = world.mails();
    assert_eq!(mails["admin@example.com"].len(), 3);
    for name in ["none", "disable", "delete"] {
        assert_eq!(mails[&format!("{name}@example.com")].len(), 1);
    }
    let shown = world.run(&["leak", "show", leak["id"].as_str().unwrap()]).expect(0);
    assert!(
        shown.out.contains("inbox/.env:1:6") && shown.out.contains("timeline"),
        "{}",
        shown.out
    );
    let (time, code) = daemon.stop();
    assert!(time < Duration::from_secs(5) && code == 0, "{time:?}, {code}");
}

#[test]
fn what_is_there_at_start_moved_in_and_changed_is_read() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let keys: Vec<String> = (0..4).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    world.write("inbox/there.txt", &keys[0]);
    let daemon = world.watch();
    world.leak_of("k0", done);
    world.write("outside/deep/in.txt", &keys[1]);
    fs::rename(world.path("outside"), world.path("inbox/moved")).unwrap();
    world.leak_of("k1", done);
    world.write("inbox/there.txt", format!("now {}", keys[2]));
    world.leak_of("k2", done);
    world.append("inbox/there.txt", format!("\n{}", keys[3]));
    world.leak_of("k3", done);
    daemon.stop();
}

#[test]
fn logs_go_on_where_they_were_over_restart_and_rotation() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let keys: Vec<String> = (0..7).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    world.write("logs/app.log", format!("before the first start: {}\n", keys[0]));
    let daemon = world.watch();
    world.append("logs/app.log", format!("line two {}\n", keys[1]));
    let leak = world.leak_of("k1", done);
    assert_eq!(leak["sightings"][0]["line"], 2);
    daemon.kill();
    // While it is down: a line, then a rotation, then a line in the new file.
    world.append("logs/app.log", format!("line three {}\n", keys[2]));
    fs::rename(world.path("logs/app.log"), world.path("logs/app.log.1")).unwrap();
    world.append("logs/app.log", format!("{}\n", keys[3]));
    let daemon = world.watch();
    let leak = world.leak_of("k2", done);
    assert_eq!(leak["sightings"][0]["line"], 3);
    world.leak_of("k3", done);
    // A key in two writes, the second after the first was read; then the file is cut.
    let (head, tail) = keys[4].split_at(20);
    world.append("logs/app.log", format!("{}\n{head}", keys[6]));
    world.leak_of("k6", done);
    world.append("logs/app.log", format!("{tail}\n"));
    world.leak_of("k4", done);
    fs::write(world.path("logs/app.log"), format!("{}\n", keys[5])).unwrap();
    world.leak_of("k5", done);
    assert_eq!(world.leaks().len(), 6, "what stood there before the first start is not read");
    daemon.stop();
}

#[test]
fn a_log_that_is_rotated_again_is_not_read_again() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let keys: Vec<String> = (0..5).map(|n| world.key(&format!("k{n}"), "none", &[])).collect();
    let daemon = world.watch();
    for (n, key) in keys.iter().enumerate() {
        world.append("logs/app.log", format!("line {key}\n"));
        world.leak_of(&format!("k{n}"), |_| true);
        for number in (0..=n).rev() {
            let name = |number: usize| match number {
                0 => world.path("logs/app.log"),
                _ => world.path(&format!("logs/app.log.{number}")),
            };
            fs::rename(name(number), name(number + 1)).unwrap();
        }
    }
    world.write("logs/last.log", format!("{}\n", keys[0]));
    world.leak_of("k0", |leak| leak["count"] == 2);
    for n in 1..keys.len() {
        assert_eq!(world.leak_of(&format!("k{n}"), |_| true)["count"], 1, "k{n}");
    }
    daemon.stop();
}

#[test]
fn a_key_is_seen_many_times_and_acted_upon_once() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/a.txt", format!("{key}\n{key}\n"));
    world.leak_of("k", |leak| leak["count"] == 2 && done(leak) && told(leak));
    world.write("inbox/b.txt", format!("{key}\n"));
    world.leak_of("k", |leak| leak["count"] == 3);
    daemon.stop();
    // Reading the same again is nothing new.
    let daemon = world.watch();
    let marker = world.key("marker", "disable", &[]);
    world.write("inbox/marker.txt", marker);
    world.leak_of("marker", |leak| done(leak) && told(leak));
    assert_eq!(world.leak_of("k", |_| true)["count"], 3);
    // Resolved; the places that are known open nothing, a new one does.
    world.run(&["leak", "resolve", "leak-1", "--as", "rotated"]).expect(0);
    world.write("inbox/c.txt", format!("{key}\n"));
    wait(|| {
        let leaks = world.leaks();
        (leaks.len() == 3 && leaks.iter().all(told)).then_some(())
    })
    .expect("a third leak");
    daemon.stop();
    assert_eq!(world.mails()["k@example.com"].len(), 2);
}

#[test]
fn homes_raise_nothing_unless_everybody_can_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.configure(ACT, MAIL);
    let home = world.path("inbox/home.env");
    let key = world.key("k", "disable", &["--home", home.to_str().unwrap()]);
    let other = world.key("other", "disable", &[]);
    world.write("staged.env", &key);
    fs::set_permissions(world.path("staged.env"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(world.path("staged.env"), &home).unwrap();
    let daemon = world.watch();
    world.write("inbox/other.txt", other);
    world.leak_of("other", done);
    assert_eq!(world.leaks().len(), 1);
    fs::set_permissions(&home, fs::Permissions::from_mode(0o644)).unwrap();
    let leak = world.leak_of("k", |leak| leak["action"]["result"] == "held");
    assert!(leak["action"]["why"].as_str().unwrap().contains("chmod o-r"), "{leak:#}");
    assert_eq!(world.verify(&key), "active");
    daemon.stop();
}

#[test]
fn observe_mode_records_and_tells_admins_and_does_nothing() {
    let world = World::new();
    world.configure("{ mode: observe }", MAIL);
    let key = world.key("k", "delete", &[]);
    let daemon = world.watch();
    world.write("inbox/a.txt", &key);
    let leak = world.leak_of("k", |leak| leak["action"]["result"] == "held" && told(leak));
    assert_eq!(leak["observed"], true);
    assert_eq!(world.verify(&key), "active");
    assert_eq!(world.mails().keys().collect::<Vec<_>>(), ["admin@example.com"]);
    world.run(&["leak", "approve", "leak-1", "--reason", "seen"]).expect(0);
    world.leak_of("k", |leak| done(leak) && told(leak));
    assert_eq!(world.verify(&key), "deleted");
    assert_eq!(world.mails()["k@example.com"].len(), 1);
    world.run(&["leak", "approve", "leak-1"]).expect(1);
    daemon.stop();
}

#[test]
fn the_brake_holds_a_wave_until_it_is_approved() {
    let world = World::new();
    let brake = "{ mode: act, brake: { max: 3, per_owner: 2, per_source: 99, window: 10m } }";
    world.configure(brake, MAIL);
    let keys: Vec<String> = (0..6)
        .map(|n| {
            let owner = if n < 3 { "same".to_owned() } else { format!("k{n}") };
            world.key_of(&owner, &format!("k{n}"), "disable", &[])
        })
        .collect();
    let daemon = world.watch();
    for (n, key) in keys.iter().enumerate() {
        world.write(&format!("inbox/{n}.txt"), key);
        world.leak_of(&format!("k{n}"), |leak| leak["action"]["result"] != "pending");
    }
    let words: Vec<String> = keys.iter().map(|key| world.verify(key)).collect();
    // Two of one owner, one more of the installation; the rest is held.
    assert_eq!(words, ["disabled", "disabled", "active", "disabled", "active", "active"]);
    let held = world.leak_of("k2", |leak| leak["action"]["result"] == "held");
    assert!(held["action"]["why"].as_str().unwrap().contains("one owner"), "{held:#}");
    daemon.kill();
    let daemon = world.watch();
    assert_eq!(world.verify(&keys[4]), "active", "a restart does not release the brake");
    let urgent = |mails: &[String]| mails.iter().filter(|mail| mail.contains("URGENT")).count();
    assert_eq!(urgent(&world.mails()["admin@example.com"]), 1, "one urgent notice a wave");
    world.run(&["leak", "approve", "--all"]).expect(0);
    for n in [2, 4, 5] {
        world.leak_of(&format!("k{n}"), done);
    }
    daemon.stop();
}

#[test]
fn a_source_that_records_keys_is_held() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let keys: Vec<String> = (0..6).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let daemon = world.watch();
    world.append("logs/all.log", keys.join("\n") + "\n");
    world.leak_of("k5", |leak| leak["action"]["result"] == "held");
    for (n, key) in keys.iter().enumerate() {
        let leak = world.leak_of(&format!("k{n}"), |leak| leak["action"]["result"] != "pending");
        assert_eq!(world.verify(key), if n < 4 { "disabled" } else { "active" }, "{leak:#}");
    }
    daemon.stop();
}

#[test]
fn a_locked_key_is_disabled_instead_of_deleted() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let key = world.key("k", "delete", &["--lock"]);
    let daemon = world.watch();
    world.write("inbox/a.txt", &key);
    world.leak_of("k", |leak| done(leak) && told(leak));
    assert_eq!(world.verify(&key), "disabled");
    assert!(world.mails()["k@example.com"][0].contains("locked: disabled instead"));
    let answer = world.run(&["leak", "resolve", "1", "--as", "rotated"]).expect(0);
    assert!(answer.out.contains("resolved as rotated"));
    daemon.stop();
}

#[test]
fn rotated_is_refused_while_the_key_is_valid() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let key = world.key("k", "none", &[]);
    let daemon = world.watch();
    world.write("inbox/a.txt", &key);
    world.leak_of("k", told);
    let answer = world.run(&["leak", "resolve", "1", "--as", "rotated"]).expect(2);
    assert!(answer.err.contains("still valid"), "{}", answer.err);
    world.run(&["leak", "resolve", "1", "--as", "accepted", "--reason", "test"]).expect(0);
    assert!(world.run(&["leak", "list"]).expect(0).out.contains("no open leaks"));
    daemon.stop();
}

#[test]
fn a_deletion_that_waits_is_stopped_by_who_says_so() {
    let world = World::new();
    world.configure("{ mode: act, delete_grace: 3s }", MAIL);
    let names = ["resolved", "enabled", "left"];
    let keys: Vec<String> = names.iter().map(|name| world.key(name, "delete", &[])).collect();
    let daemon = world.watch();
    for (name, key) in names.iter().zip(&keys) {
        world.write(&format!("inbox/{name}.txt"), key);
        let leak = world.leak_of(name, |leak| leak["actions"][0]["result"] == "done");
        assert_eq!(leak["action"]["result"], "pending");
        assert_eq!(world.verify(key), "disabled");
    }
    let leak = world.leak_of("resolved", |_| true);
    let id = leak["id"].as_str().unwrap();
    world.run(&["leak", "resolve", id, "--as", "false-positive"]).expect(0);
    world.run(&["key", "enable", "enabled", "--reason", "test"]).expect(0);
    world.leak_of("left", |leak| leak["key"]["state"] == "deleted");
    assert_eq!(world.verify(&keys[0]), "disabled");
    assert_eq!(world.verify(&keys[1]), "active");
    let leak = world.leak_of("enabled", |_| true);
    assert!(leak["action"]["why"].as_str().unwrap().contains("enabled the key"), "{leak:#}");
    daemon.stop();
}

#[test]
fn a_single_file_is_followed_however_often_it_is_replaced() {
    let world = World::new();
    fs::create_dir(world.path("etc")).unwrap();
    world.write(
        "config.yaml",
        "registry: ./registry\nwatch: [{ files: [./etc/app.env] }]\nresponse: { mode: act }\n",
    );
    let keys: Vec<String> = (0..4).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let daemon = world.watch();
    for (n, key) in keys.iter().enumerate() {
        world.write("etc/new", key);
        fs::rename(world.path("etc/new"), world.path("etc/app.env")).unwrap();
        let started = std::time::Instant::now();
        world.leak_of(&format!("k{n}"), done);
        assert!(started.elapsed() < Duration::from_secs(10), "only a walk found it");
    }
    daemon.stop();
}

#[test]
fn a_log_that_came_while_nobody_watched_is_read_from_its_beginning() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let key = world.key("k", "disable", &[]);
    world.watch().stop();
    world.append("logs/later.log", format!("{key}\n"));
    let daemon = world.watch();
    world.leak_of("k", done);
    daemon.stop();
}

#[test]
fn a_log_that_is_renamed_first_and_made_anew_later_loses_nothing() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let keys: Vec<String> = (0..4).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    world.write("logs/app.log", "first\n");
    let daemon = world.watch();
    // Renamed before its last line was read, and written to under its new name.
    fs::rename(world.path("logs/app.log"), world.path("logs/app.log.1")).unwrap();
    world.append("logs/app.log.1", format!("{}\n", keys[0]));
    world.leak_of("k0", done);
    world.append("logs/app.log.1", format!("{}\n", keys[1]));
    world.leak_of("k1", done);
    world.append("logs/app.log", format!("{}\n", keys[2]));
    world.leak_of("k2", done);
    daemon.stop();
    // The same while nobody watches.
    world.append("logs/app.log", format!("{}\n", keys[3]));
    fs::rename(world.path("logs/app.log"), world.path("logs/app.log.2")).unwrap();
    let daemon = world.watch();
    world.leak_of("k3", done);
    daemon.stop();
}

#[test]
fn stopping_again_and_again_reads_nothing_twice_and_nothing_old() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let old = world.key("old", "disable", &[]);
    let new = world.key("new", "disable", &[]);
    world.write("logs/app.log", format!("{old}\n{}", "some line\n".repeat(50_000)));
    for _ in 0..12 {
        let daemon = world.watch();
        world.append("logs/app.log", "a line\n".repeat(1_000));
        daemon.stop();
    }
    let daemon = world.watch();
    world.append("logs/app.log", format!("{new}\n"));
    let leak = world.leak_of("new", done);
    assert_eq!(leak["sightings"][0]["line"], 1 + 50_000 + 12_000 + 1);
    assert_eq!(world.leaks().len(), 1, "what was there before the first start was read");
    daemon.stop();
}

#[test]
fn a_new_pattern_leaves_the_others_where_they_were() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let old = world.key("old", "disable", &[]);
    let new = world.key("new", "disable", &[]);
    world.write("logs/app.log", format!("{old}\n"));
    world.watch().stop();
    world.append("logs/app.log", format!("{new}\n"));
    world.write(
        "config.yaml",
        "registry: ./registry\nresponse: { mode: act }\n\
         watch: [{ logs: [\"./more/*.log\", \"./logs/*.log\"] }]\n",
    );
    let daemon = world.watch();
    world.leak_of("new", done);
    assert_eq!(world.leaks().len(), 1);
    daemon.stop();
}

#[test]
fn an_enabled_key_that_leaks_again_is_a_new_leak() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/a.txt", &key);
    world.leak_of("k", done);
    world.run(&["key", "enable", "k", "--reason", "test"]).expect(0);
    world.write("inbox/b.txt", &key);
    wait(|| (world.verify(&key) == "disabled").then_some(())).expect("disabled again");
    assert_eq!(world.leaks().len(), 2);
    daemon.stop();
}

#[test]
fn a_key_held_at_its_open_home_is_acted_upon_when_it_leaks() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let home = world.path("inbox/home.env");
    let key = world.key("k", "disable", &["--home", home.to_str().unwrap()]);
    let daemon = world.watch();
    world.write("inbox/home.env", &key);
    world.leak_of("k", |leak| leak["action"]["result"] == "held");
    world.append("logs/public.log", format!("{key}\n"));
    world.leak_of("k", |leak| done(leak) && told(leak));
    assert_eq!(world.verify(&key), "disabled");
    assert!(world.mails().contains_key("k@example.com"));
    daemon.stop();
}

#[test]
fn one_daemon_a_registry() {
    let world = World::new();
    world.configure(ACT, MAIL);
    let daemon = world.watch();
    let second = world.run(&["watch", "--config", "config.yaml"]).expect(2);
    assert!(second.err.contains("another `leakwarden watch` runs"), "{}", second.err);
    daemon.stop();
}

#[test]
fn folders_that_come_later_are_watched() {
    let world = World::new();
    world.configure(ACT, MAIL);
    fs::remove_dir(world.path("inbox")).unwrap();
    fs::remove_dir(world.path("logs")).unwrap();
    let a = world.key("a", "disable", &[]);
    let b = world.key("b", "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/x/a.txt", a);
    world.write("logs/new.log", format!("{b}\n"));
    world.leak_of("a", done);
    world.leak_of("b", done);
    daemon.stop();
}

/// Changes that leave size and time as they were: within one tick of the kernel's clock.
#[test]
fn a_quick_second_change_is_not_missed() {
    let world = World::new();
    world.configure("{ mode: observe }", MAIL);
    let keys: Vec<String> = (0..10).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let daemon = world.watch();
    for key in &keys {
        // Each overwrites the one before, in place, as fast as can be.
        let path = world.write(&format!("inbox/{}.txt", &key[30..]), "x".repeat(key.len()));
        fs::write(&path, key).unwrap();
    }
    for n in 0..10 {
        world.leak_of(&format!("k{n}"), |_| true);
    }
    daemon.stop();
}

/// Files in directories that are made just before them: where file events alone lose most.
#[test]
fn no_file_in_a_fresh_directory_is_lost() {
    let world = World::new();
    world.configure("{ mode: observe }", MAIL);
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch();
    for n in 0..300 {
        world.write(&format!("inbox/{n}/a/f.txt"), &key);
    }
    world.leak_of("k", |leak| leak["count"] == 300);
    daemon.stop();
}
