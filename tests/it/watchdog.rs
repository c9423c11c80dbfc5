//! A part that hangs is told to the service manager; one that waits for another is not.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process_group};

use super::status::status_when;
use super::world::{Daemon, World};

/// In microseconds. A part that gives no sign for half of that is stuck.
const WATCHDOG: &str = "6000000";
/// Signs that the daemon gives in more than that half.
const SIGNS: usize = 12;

/// A daemon for which each call that names a path takes ten minutes.
fn start(world: &World, path: &str) -> Daemon {
    let path = world.path(path).display().to_string();
    let hang = "inject=openat:delay_enter=600000000";
    let strace =
        ["setsid", "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=openat", "-e", hang];
    let program = [&strace[..], &["-P", &path]].concat();
    world.watch_under(&program, vec![("WATCHDOG_USEC", PathBuf::from(WATCHDOG))])
}

/// Ends strace and what it watches.
fn end(daemon: Daemon) {
    let group = Pid::from_raw(daemon.child.id().cast_signed()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    drop(daemon);
}

#[test]
fn a_watch_that_hangs() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("k", "disable", &[]);
    let mut daemon = start(&world, "logs/hangs.log");
    // Somebody holds the database, and there is something to write: everybody waits, nobody hangs.
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.write("inbox/a.txt", &key);
    for _ in 0..SIGNS {
        daemon.wait_told("WATCHDOG=1", &world);
    }
    database.execute_batch("ROLLBACK").unwrap();
    world.leak_of("k", |leak| leak["action"]["result"] == "done");
    assert!(!world.log().contains("stuck"), "{}", world.log());
    world.write("logs/hangs.log", "a line\n");
    daemon.wait_told("WATCHDOG=trigger", &world);
    let status = status_when(&world, |status| status["stuck"] != serde_json::json!([]));
    assert!(status["stuck"][0].as_str().unwrap().starts_with("logs "), "{status:#}");
    assert!(world.log().contains("stuck: it gives no sign of life"), "{}", world.log());
    world.run(&["status"]).expect(3);
    end(daemon);
}

#[test]
fn mail_that_hangs() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("k", "disable", &[]);
    let mut daemon = start(&world, "mail");
    world.write("inbox/a.txt", &key);
    daemon.wait_told("WATCHDOG=trigger", &world);
    // It holds up no action.
    world.leak_of("k", |leak| leak["action"]["result"] == "done");
    assert_eq!(status_when(&world, |_| true)["stuck"], serde_json::json!(["mail"]));
    end(daemon);
}
