//! A part that hangs is told to the service manager; one that waits for another is not.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process_group};

use super::status::status_when;
use super::world::{Daemon, World, wait_for_end};

/// In microseconds. A part that gives no sign for half of that is stuck.
const WATCHDOG: &str = "6000000";
/// Signs that the daemon gives in more than that half.
const SIGNS: usize = 12;

/// A daemon for which each call of a kind that concerns a path takes ten minutes.
fn start(world: &World, call: &str, path: &str) -> Traced {
    let path = world.path(path).display().to_string();
    let (trace, hang) = (format!("trace={call}"), format!("inject={call}:delay_enter=600000000"));
    let strace = ["setsid", "strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &hang];
    let program = [&strace[..], &["-P", &path]].concat();
    Traced(world.watch_under(&program, vec![("WATCHDOG_USEC", PathBuf::from(WATCHDOG))]))
}

/// strace and what it watches; both end with it, whatever a test comes to.
struct Traced(Daemon);

impl Drop for Traced {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.child.id().cast_signed()).unwrap();
        // They may have ended by themselves.
        let _killed = kill_process_group(group, Signal::KILL).is_ok();
    }
}

#[test]
fn a_watch_that_hangs() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("k", "disable", &[]);
    let mut daemon = start(&world, "read", "logs/hangs.log");
    // Somebody holds the database, and there is something to write: everybody waits, nobody hangs.
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.write("inbox/a.txt", &key);
    for _ in 0..SIGNS {
        daemon.0.wait_told("WATCHDOG=1", &world);
    }
    database.execute_batch("ROLLBACK").unwrap();
    world.leak_of("k", |leak| leak["action"]["result"] == "done");
    assert!(!world.log().contains("stuck"), "{}", world.log());
    world.write("logs/hangs.log", "a line\n");
    daemon.0.wait_told("WATCHDOG=trigger", &world);
    let status = status_when(&world, |status| status["stuck"] != serde_json::json!([]));
    assert!(status["stuck"][0].as_str().unwrap().starts_with("logs "), "{status:#}");
    assert!(world.log().contains("stuck: it gives no sign of life"), "{}", world.log());
    world.run(&["status"]).expect(3);
}

#[test]
fn mail_that_hangs() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("k", "disable", &[]);
    let mut daemon = start(&world, "openat", "mail");
    world.write("inbox/a.txt", &key);
    daemon.0.wait_told("WATCHDOG=trigger", &world);
    // It holds up no action.
    world.leak_of("k", |leak| leak["action"]["result"] == "done");
    assert_eq!(status_when(&world, |_| true)["stuck"], serde_json::json!(["mail"]));
}

#[test]
fn a_recorder_that_hangs() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("k", "disable", &[]);
    // What the first start writes is written.
    world.watch().stop();
    let mut daemon = start(&world, "pwrite64", "registry/registry.db-wal");
    world.write("inbox/a.txt", &key);
    daemon.0.wait_told("WATCHDOG=trigger", &world);
    let words = "stuck: it gives no sign of life part=\"recorder\"";
    assert!(world.log().contains(words), "{}", world.log());
    drop(daemon);
    wait_for_end(&world.path("registry"));
    // Nothing is lost by that.
    let daemon = world.watch();
    world.leak_of("k", |leak| leak["action"]["result"] == "done");
    daemon.stop();
}
