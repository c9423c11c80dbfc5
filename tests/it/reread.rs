//! Keys that no rule knows, and that were read before they were registered: watches read again.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use globset::GlobSet;
use leakwarden::source::follow::{self, Mode, Options, PathGlob, Reread};
use leakwarden::source::reader::Links;
use leakwarden::source::{End, Item, Position, Sink, Stop};
use serde_json::{Value, json};

use super::history::Git;
use super::world::{Daemon, World};

/// A key without a prefix, as IBM Cloud makes them; nobody's.
pub fn stranger(number: u32) -> String {
    let digits =
        leakwarden::secret::to_hex(&leakwarden::secret::identity_hash(&[&number.to_be_bytes()]));
    format!("{}-_zY{}", &digits[..30], &digits[30..40])
}

fn register(world: &World, name: &str, key: &str) {
    let register = ["key", "register", name, "--owner", "a@example.com"];
    let more = ["--action-if-leaked", "disable"];
    let answer = world.run_with(&[&register[..], &more].concat(), key.as_bytes()).expect(0);
    assert!(!answer.err.contains("seen before"), "{}", answer.err);
}

fn done(leak: &Value) -> bool {
    leak["action"]["result"] == "done"
}

/// Waits until what was written before is read: what comes behind it has been acted upon.
fn settle(world: &World, number: u32) {
    let name = format!("settled{number}");
    let key = world.key(&name, "disable", &[]);
    world.write(&format!("inbox/{name}"), &key);
    world.leak_of(&name, done);
    world.append(
        "logs/app.log",
        format!("{}\n", world.key(&format!("log{number}"), "disable", &[])),
    );
    world.leak_of(&format!("log{number}"), done);
}

fn watching(world: &World) -> Daemon {
    world.configure(
        "{ mode: act, brake: { max: 1000, per_owner: 1000, per_source: 1000 } }",
        "{ directory: ./mail }",
    );
    world.watch()
}

/// Writes a file and waits until another change could not bear the same time.
fn write_long_ago(world: &World, name: &str, content: &str) {
    let changed = world.write(name, content).metadata().unwrap().modified().unwrap();
    let passed = || changed.elapsed().ok().filter(|age| *age > Duration::from_millis(200));
    super::world::wait(passed).unwrap();
}

fn places(leak: &Value) -> Vec<String> {
    let places = leak["sightings"].as_array().unwrap().iter();
    let mut places: Vec<_> = places
        .map(|place| format!("{} {}", place["source"].as_str().unwrap(), place["line"]))
        .collect();
    places.sort();
    places
}

#[test]
fn what_was_read_before_is_read_again_once() {
    let world = World::new();
    let daemon = watching(&world);
    let keys: Vec<String> = (0..3).map(stranger).collect();
    world.write("inbox/a.txt", format!("one\nkey: {}\n", keys[0]));
    world.write("logs/app.log", format!("one\ntwo\n{} {}\n", keys[0], keys[1]));
    settle(&world, 1);
    register(&world, "first", &keys[0]);
    let leak = world.leak_of("first", |leak| leak["count"] == 2 && done(leak));
    assert_eq!(places(&leak), ["file 2", "log 3"]);
    assert_eq!(world.verify(&keys[0]), "disabled");
    // A second key of the same shape is looked for as well.
    register(&world, "second", &keys[1]);
    assert_eq!(places(&world.leak_of("second", done)), ["log 3"]);
    // New places of both are found as they come; nothing is counted twice.
    world.append("logs/app.log", format!("{}\n", keys[0]));
    world.leak_of("first", |leak| leak["count"] == 3);
    settle(&world, 2);
    daemon.stop();
    let daemon = world.watch();
    settle(&world, 3);
    daemon.stop();
    let count = |name: &str| world.leak_of(name, |_| true)["count"].clone();
    assert_eq!(
        (count("first"), count("second"), count("settled1")),
        (json!(3), json!(1), json!(1))
    );
    assert_eq!(world.leaks().len(), 8);
}

#[test]
fn what_was_compressed_meanwhile_is_read_again() {
    let world = World::new();
    let daemon = watching(&world);
    let key = stranger(1);
    world.append("logs/app.log", format!("one\n{key}\n"));
    settle(&world, 1);
    daemon.stop();
    let rest = world.key("rest", "disable", &[]);
    world.append("logs/app.log", format!("{rest}\n"));
    let rotated = world.path("logs/app.log.1");
    fs::rename(world.path("logs/app.log"), &rotated).unwrap();
    super::followed::gzip(&rotated);
    let daemon = world.watch();
    world.leak_of("rest", done);
    register(&world, "late", &key);
    let leak = world.leak_of("late", done);
    assert!(leak["sightings"][0]["path"].as_str().unwrap().ends_with("app.log.1.gz"), "{leak:#}");
    assert_eq!(places(&leak), ["log 2"]);
    daemon.stop();
}

#[test]
fn what_came_while_no_daemon_ran_is_looked_for_when_one_starts() {
    let world = World::new();
    let daemon = watching(&world);
    let key = stranger(1);
    world.write("inbox/a.txt", &key);
    settle(&world, 1);
    daemon.kill();
    register(&world, "late", &key);
    let daemon = world.watch();
    world.leak_of("late", done);
    daemon.stop();
}

#[test]
fn reading_again_goes_on_after_a_kill() {
    let world = World::new();
    let daemon = watching(&world);
    let keys: Vec<String> = (0..40).map(stranger).collect();
    for (number, key) in keys.iter().enumerate() {
        let filler = "word and another word\n".repeat(200_000);
        world.write(&format!("inbox/{number}.txt"), format!("{filler}{key}\n"));
    }
    settle(&world, 1);
    let lines: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(number, key)| json!({"name": format!("k{number}"), "key": key}).to_string())
        .collect();
    world.write("keys.jsonl", lines.join("\n"));
    world.run(&["key", "import", "keys.jsonl"]).expect(0);
    // Somewhere in the middle.
    world.leak_of("k39", |_| true);
    daemon.kill();
    let daemon = world.watch();
    for number in 0..40 {
        // They came by an import, which nobody has looked at.
        let leak = world.leak_of(&format!("k{number}"), |_| true);
        assert_eq!((&leak["count"], &leak["action"]["result"]), (&json!(1), &json!("none")));
    }
    daemon.stop();
}

#[test]
fn a_match_of_an_import_is_held() {
    let world = World::new();
    let key = stranger(1);
    // Long before the watch begins: what changed just before it was read is read a second time, and
    // what an import has made known by then is acted upon.
    write_long_ago(&world, "inbox/a.txt", &key);
    let daemon = watching(&world);
    settle(&world, 1);
    world
        .write("keys.jsonl", json!({"name": "k", "key": key, "leak_action": "delete"}).to_string());
    world.run(&["key", "import", "keys.jsonl"]).expect(0);
    let leak = world.leak_of("k", |_| true);
    assert_eq!(leak["action"]["result"], "held", "{leak:#}\n{}", world.log());
    assert!(leak["action"]["why"].as_str().unwrap().contains("import"), "{leak:#}");
    daemon.stop();
    assert_eq!(world.verify(&key), "active");
}

#[test]
fn what_was_not_to_be_read_is_not_read_later() {
    let git = Git::new();
    let world = &git.world;
    let [old, new] = [1, 2].map(stranger);
    git.write("old.txt", &old);
    git.commit("first");
    for folder in ["inbox", "logs"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    world.write("logs/app.log", format!("{old}\nmore\n"));
    let config = "registry: ./registry\nwatch:\n  - files: [./inbox/**]\n  - logs: [./logs/*.log]\n  \
         - { git: [./repo], start: end }\nresponse: { mode: act }\n";
    world.write("config.yaml", config);
    let daemon = world.watch();
    world.append("logs/app.log", format!("{new}\n"));
    git.write("new.txt", format!("one\n{new}\n"));
    let commit = git.commit("second");
    git.write("seen.txt", world.key("seen", "disable", &[]));
    git.commit("third");
    world.leak_of("seen", done);
    settle(world, 1);
    register(world, "old", &old);
    register(world, "new", &new);
    let leak = world.leak_of("new", |leak| leak["count"] == 2 && done(leak));
    assert_eq!(places(&leak), ["blob 2", "log 3"]);
    assert!(
        leak["sightings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|place| place["commit"] == commit.as_str())
    );
    settle(world, 2);
    daemon.stop();
    assert!(world.leaks().iter().all(|leak| leak["key"]["name"] != "old"));
}

/// Notes what it is given to read.
struct Noted {
    paths: Vec<PathBuf>,
    space: [u8; 4096],
}

impl Sink for Noted {
    fn begin(&mut self, item: &Item) {
        self.paths.push(item.path.clone());
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.space
    }

    fn filled(&mut self, _count: usize) {}

    fn end(&mut self, _end: End) -> ControlFlow<(), Position> {
        ControlFlow::Continue(Position::default())
    }

    fn skip(&mut self, path: &Path, why: String) {
        panic!("{}: {why}", path.display());
    }

    fn note(&mut self, _path: &Path, _what: &'static str) {}
}

#[test]
fn the_newest_are_read_first_and_what_is_too_much_is_told() {
    let world = World::empty();
    for (name, age) in [("b", 30), ("c", 10), ("a", 20)] {
        let path = world.write(&format!("inbox/{name}"), [b'x'; 1_000]);
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 - age);
        fs::File::options().append(true).open(path).unwrap().set_modified(changed).unwrap();
    }
    let include = PathGlob::new(&world.path("inbox"), ".").unwrap();
    let options = Options {
        include,
        exclude: GlobSet::empty(),
        mode: Mode::Files,
        links: Links::Refuse,
        poll: None,
    };
    let mut noted = Noted { paths: Vec::new(), space: [0; 4096] };
    let known = HashMap::new();
    let reread = follow::read_again(&options, &known, 2_500, &mut noted, &Stop::new());
    assert_eq!(reread, Reread { files: 2, bytes: 2_000, left: 1 });
    assert_eq!(noted.paths, [world.path("inbox/c"), world.path("inbox/a")]);
    // Logs that the watch has not read are none of its past.
    let options = Options { mode: Mode::Logs { from_beginning: true }, ..options };
    let reread = follow::read_again(&options, &known, 2_500, &mut noted, &Stop::new());
    assert_eq!(reread, Reread::default());
}
