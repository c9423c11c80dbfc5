//! The journal, made by systemd's own tools: systemd-journal-remote writes it, journalctl reads it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::status::{status_when, watch};
use super::world::{World, answer, wait};

const REMOTE: [&str; 2] =
    ["/usr/lib/systemd/systemd-journal-remote", "/lib/systemd/systemd-journal-remote"];

fn done(leak: &serde_json::Value) -> bool {
    leak["action"]["result"] == "done"
}

/// A journal in the folder `journal`.
struct Journal<'a> {
    world: &'a World,
    /// Of the next entry.
    micros: std::cell::Cell<u64>,
}

impl<'a> Journal<'a> {
    fn new(world: &'a World) -> Self {
        fs::create_dir(world.path("journal")).unwrap();
        Self { world, micros: std::cell::Cell::new(1_763_750_000_000_000) }
    }

    /// Writes an entry.
    fn write(&self, unit: &str, fields: &[(&str, &[u8])]) {
        let micros = self.micros.replace(self.micros.get() + 1_000_000);
        let mut text = format!(
            "__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={}\n\
             _BOOT_ID=0123456789abcdef0123456789abcdef\n_SYSTEMD_UNIT={unit}\nPRIORITY=6\n",
            micros % 1_000_000_000_000
        )
        .into_bytes();
        for (name, value) in fields {
            text.extend_from_slice(format!("{name}\n").as_bytes());
            text.extend_from_slice(&(value.len() as u64).to_le_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        text.push(b'\n');
        let program = REMOTE.iter().find(|place| Path::new(place).exists());
        let program = program.expect("systemd-journal-remote is installed; run tests/run");
        let mut command = Command::new(program);
        command.arg(format!("--output={}/test.journal", self.world.path("journal").display()));
        command.arg("-");
        answer(command, &text).expect(0);
    }

    fn message(&self, unit: &str, text: &str) {
        self.write(unit, &[("MESSAGE", text.as_bytes())]);
    }
}

fn configure(world: &World, more: &str) {
    world.write(
        "config.yaml",
        format!(
            "registry: ./registry\nmail: {{ directory: ./mail }}\nresponse: {{ mode: act, brake: {{ per_source: 20 }} }}\n\
             watch:\n  - journald: {{ directory: ./journal{more}\n"
        ),
    );
}

/// The processes that a process started.
fn children(process: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
    let words: Vec<String> = tasks.filter_map(of).collect();
    words.iter().flat_map(|text| text.split_whitespace()).map(|id| id.parse().unwrap()).collect()
}

#[test]
fn what_programs_say_is_read_once() {
    let world = World::new();
    configure(&world, ", units: [app.service] }");
    let keys: Vec<String> = (0..8).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let journal = Journal::new(&world);
    journal.message("app.service", &format!("before the first start {}", keys[0]));
    let daemon = world.watch();
    journal.message("app.service", &format!("GET /?key={}", keys[1]));
    let leak = world.leak_of("k1", done);
    let seen = &leak["sightings"][0];
    assert_eq!(
        (&seen["source"], &seen["line"], &seen["column"]),
        (&"journald".into(), &1.into(), &11.into())
    );
    assert_eq!(seen["path"], "app.service at 2025-11-21T18:33:21.000Z");
    // Another unit is not asked for.
    journal.message("other.service", &keys[2]);
    // Bytes that are no text, several lines, and a field that is long.
    let mut bytes = vec![0xff, 0, b'\n'];
    bytes.extend_from_slice(keys[3].as_bytes());
    bytes.push(0);
    journal.write("app.service", &[("MESSAGE", &bytes)]);
    let mut long = b"word ".repeat(60_000);
    long.extend_from_slice(keys[4].as_bytes());
    journal.write("app.service", &[("MESSAGE", b"short"), ("STACK", &long)]);
    for _ in 0..3 {
        let command = format!("/usr/bin/app --key {}", keys[5]);
        journal.write("app.service", &[("MESSAGE", b"x"), ("_CMDLINE", command.as_bytes())]);
    }
    assert_eq!(world.leak_of("k3", done)["sightings"][0]["line"], 2);
    world.leak_of("k4", done);
    world.leak_of("k5", done);
    // Killed, and what came meanwhile.
    daemon.kill();
    journal.message("app.service", &format!("meanwhile {}", keys[6]));
    let daemon = world.watch();
    world.leak_of("k6", done);
    // journalctl dies: it is started again, and goes on where it was.
    let child = children(daemon.child.id());
    let [child] = child.as_slice() else { panic!("{child:?}") };
    let child = rustix::process::Pid::from_raw(*child).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    status_when(&world, |status| watch(status, "journald")["restarts"] == 1);
    journal.message("app.service", &keys[7]);
    world.leak_of("k7", done);
    assert!(world.log().contains("journalctl ended: signal: 9"), "{}", world.log());
    let (_, code) = daemon.stop();
    assert_eq!(code, 0);
    let mut found: Vec<String> = Vec::new();
    for leak in world.leaks() {
        assert_eq!(leak["count"], 1, "{leak:#}");
        found.push(leak["key"]["name"].as_str().unwrap().to_owned());
    }
    found.sort();
    assert_eq!(found, ["k1", "k3", "k4", "k5", "k6", "k7"]);
}

#[test]
fn from_the_beginning_and_with_other_units_later() {
    let world = World::new();
    configure(&world, " }\n    start: beginning");
    let keys: Vec<String> = (0..3).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let journal = Journal::new(&world);
    journal.message("one.service", &keys[0]);
    journal.message("two.service", "nothing");
    let mut daemon = world.watch();
    world.leak_of("k0", done);
    // A changed list of units goes on where the old one was.
    configure(&world, ", units: [two.service] }\n    start: beginning");
    journal.message("one.service", "nobody reads this any more");
    daemon.reload(&world);
    journal.message("two.service", &keys[1]);
    world.leak_of("k1", done);
    journal.message("one.service", &keys[2]);
    journal.message("two.service", &keys[1]);
    world.leak_of("k1", |leak| leak["count"] == 2);
    daemon.stop();
    assert_eq!(world.leaks().len(), 2);
}

#[test]
fn it_is_read_again_for_keys_that_came_later() {
    let world = World::new();
    configure(&world, " }");
    let journal = Journal::new(&world);
    let [old, new] = [1, 2].map(super::reread::stranger);
    journal.message("app.service", &format!("before the first start {old} {new}"));
    let daemon = world.watch();
    let command = format!("/usr/bin/app --key {new}");
    for word in ["one", "two"] {
        let message = format!("{word} {new}");
        let fields: [(&str, &[u8]); 2] =
            [("MESSAGE", message.as_bytes()), ("_CMDLINE", command.as_bytes())];
        journal.write("app.service", &fields);
    }
    let seen = world.key("seen", "disable", &[]);
    let command = format!("/usr/bin/other {seen}");
    journal.write("other.service", &[("MESSAGE", b"x"), ("_CMDLINE", command.as_bytes())]);
    world.leak_of("seen", done);
    for (name, key) in [("old", &old), ("new", &new)] {
        let register = ["key", "register", name, "--owner", "a@example.com"];
        let more = ["--action-if-leaked", "disable"];
        world.run_with(&[&register[..], &more].concat(), key.as_bytes()).expect(0);
    }
    // Two messages, and one command line that two entries have.
    let leak = world.leak_of("new", |leak| leak["count"] == 3 && done(leak));
    let places = leak["sightings"].as_array().unwrap().iter();
    let of_commands =
        |place: &&serde_json::Value| place["path"].as_str().unwrap().ends_with("Z (command line)");
    assert_eq!(places.filter(of_commands).count(), 1, "{leak:#}");
    wait(|| world.log().contains("read again: keys came").then_some(())).unwrap();
    daemon.stop();
    // What was there before the watch is none of its past, and nothing was counted twice.
    assert!(world.leaks().iter().all(|leak| leak["key"]["name"] != "old"));
    assert_eq!(world.leak_of("seen", |_| true)["count"], 1);
    assert!(!world.log().contains("cannot read the journal again"), "{}", world.log());
}

#[test]
fn without_journalctl_it_is_told_at_the_start() {
    let world = World::new();
    configure(&world, " }");
    world.write("empty", "");
    // For this process alone, a file that is no program lies over it.
    let hide = "for place in /usr/bin/journalctl /bin/journalctl; do \
        mount --bind empty $place || exit 9; done; exec \"$0\" \"$@\"";
    let program = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hide];
    let command = world.under(&program, &["watch", "--config", "config.yaml"]);
    let refused = answer(command, b"").expect(2);
    let words = "the journal is read by journalctl, which cannot be run: it is not at /usr/bin";
    assert!(refused.err.contains(words), "{}", refused.err);
}
