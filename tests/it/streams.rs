//! Named pipes and standard input as what is watched, and sources that fail.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::status::{status_when, watch};
use super::world::{World, wait};

fn done(leak: &serde_json::Value) -> bool {
    leak["action"]["result"] == "done"
}

fn configure(world: &World, watch: &str) {
    let head = "registry: ./registry\nmail: { directory: ./mail }\nresponse: { mode: act }\n";
    world.write("config.yaml", format!("{head}watch: [{watch}]\n"));
}

fn fifo(world: &World, name: &str) {
    let path = world.path(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap();
}

#[test]
fn writers_of_a_pipe_come_and_go() {
    let world = World::new();
    configure(&world, "{ pipe: ./in }");
    fifo(&world, "in");
    let keys: Vec<String> = (0..4).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let daemon = world.watch();
    let write = || OpenOptions::new().write(true).open(world.path("in")).unwrap();
    let mut writer = write();
    writer.write_all(format!("first\n{}\n", keys[0]).as_bytes()).unwrap();
    let leak = world.leak_of("k0", done);
    assert_eq!(
        (&leak["sightings"][0]["source"], &leak["sightings"][0]["line"]),
        (&"pipe".into(), &2.into())
    );
    // A key in two writes, with a rest between them.
    let (one, other) = keys[1].split_at(12);
    let before = status_when(&world, |_| true)["read_bytes"].as_u64().unwrap();
    writer.write_all(one.as_bytes()).unwrap();
    status_when(&world, |status| status["read_bytes"].as_u64().unwrap() >= before + 12);
    writer.write_all(format!("{other}\n").as_bytes()).unwrap();
    let leak = world.leak_of("k1", done);
    assert_eq!((&leak["sightings"][0]["line"], &leak["count"]), (&3.into(), &1.into()));
    drop(writer);
    // Another writer, and one whose last line has no end.
    write().write_all(format!("x {}\n", keys[2]).as_bytes()).unwrap();
    world.leak_of("k2", done);
    write().write_all(keys[3].as_bytes()).unwrap();
    let leak = world.leak_of("k3", done);
    assert_eq!((&leak["sightings"][0]["line"], &leak["count"]), (&5.into(), &1.into()));
    let (_, code) = daemon.stop();
    assert_eq!(code, 0);
    for n in 0..4 {
        assert_eq!(world.leak_of(&format!("k{n}"), |_| true)["count"], 1);
    }
}

#[test]
fn a_pipe_that_never_rests_is_read_in_parts() {
    let world = World::new();
    configure(&world, "{ pipe: ./in }");
    fifo(&world, "in");
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch();
    let line = "nothing to be found in this line\n";
    let mut text = line.repeat((5 << 20) / line.len());
    text.push_str(&format!("{key}\n"));
    let mut writer = OpenOptions::new().write(true).open(world.path("in")).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    let leak = world.leak_of("k", done);
    assert_eq!(leak["sightings"][0]["line"], (text.lines().count()));
    drop(writer);
    daemon.stop();
}

#[test]
fn a_source_that_fails_is_started_again() {
    let world = World::new();
    fs::create_dir(world.path("inbox")).unwrap();
    configure(&world, "{ pipe: ./in }, { files: [\"./inbox/**\"] }");
    fifo(&world, "in");
    let keys: Vec<String> = (0..2).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let daemon = world.watch();
    world.run(&["status"]).expect(0);
    fs::remove_file(world.path("in")).unwrap();
    let status = status_when(&world, |status| watch(status, "pipe")["state"] == "failed");
    assert_eq!(status["ready"], false);
    let why = watch(&status, "pipe")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("cannot read") && why.contains("/in"), "{why}");
    let answer = world.run(&["status"]).expect(3);
    assert!(answer.out.contains("NOT READY") && answer.out.contains("FAILED"), "{}", answer.out);
    let log = world.log();
    assert!(log.contains("degraded: a watch failed and is started again"), "{log}");
    // The others go on.
    world.write("inbox/a.txt", &keys[0]);
    world.leak_of("k0", done);
    fifo(&world, "in");
    let status = status_when(&world, |status| status["ready"] == true);
    assert!(watch(&status, "pipe")["restarts"].as_u64().unwrap() >= 1, "{status:#}");
    let mut writer = OpenOptions::new().write(true).open(world.path("in")).unwrap();
    writer.write_all(format!("{}\n", keys[1]).as_bytes()).unwrap();
    world.leak_of("k1", done);
    daemon.stop();
}

#[test]
fn what_cannot_be_a_source_is_told_at_the_start() {
    let world = World::new();
    world.write("file", "");
    for (watch, words) in [
        ("{ pipe: ./nothing }", vec!["config.yaml", "/nothing", "No such file"]),
        ("{ pipe: ./file }", vec!["config.yaml", "/file: not a named pipe; make one with mkfifo"]),
    ] {
        configure(&world, watch);
        let answer = world.run(&["watch", "--config", "config.yaml"]).expect(2);
        assert!(words.iter().all(|word| answer.err.contains(word)), "{}", answer.err);
    }
    for (watch, words) in [
        ("{ pipe: ./a, stdin: true }", "expected one of `files`"),
        ("{ pipe: ./a, files: [b] }", "expected one of `files`"),
        ("{ stdin: true, start: end }", "a pipe has no past"),
        ("{ pipe: ./a, exclude: [b] }", "`exclude` is for files"),
        ("{ stdin: true }, { stdin: true }", "watched twice"),
        ("{ journald: { units: [--file] } }", "`--file` is not the name of a unit"),
        ("{ journald: {} }, { journald: { units: [a] } }", "watched twice"),
    ] {
        configure(&world, watch);
        let answer = world.run(&["config", "check", "config.yaml"]).expect(2);
        assert!(answer.err.contains(words), "{}", answer.err);
    }
}

#[test]
fn standard_input_is_read_to_its_end_and_what_follows_is_done() {
    let world = World::new();
    let head = "registry: ./registry\nmail: { directory: ./mail }\nresponse: { mode: act }\n";
    world.write("config.yaml", head);
    let keys: Vec<String> = (0..2).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let text = format!("one\nKEY={}\n{}", keys[0], keys[1]);
    let arguments = ["watch", "--config", "config.yaml", "--stdin"];
    world.run_with(&arguments, text.as_bytes()).expect(0);
    let leaks = world.leaks();
    assert_eq!(leaks.len(), 2);
    assert!(leaks.iter().all(done), "{leaks:#?}");
    let place = |n: usize| {
        let leak = leaks.iter().find(|leak| leak["key"]["name"] == format!("k{n}")).unwrap();
        let seen = &leak["sightings"][0];
        (seen["source"].clone(), seen["line"].clone(), seen["column"].clone())
    };
    assert_eq!(place(0), ("stdin".into(), 2.into(), 5.into()));
    assert_eq!(place(1), ("stdin".into(), 3.into(), 1.into()));
    assert_eq!(world.mails().len(), 3);
    // The same by the configuration.
    world.write("config.yaml", format!("{head}watch: [{{ stdin: true }}]\n"));
    let more = world.key("more", "disable", &[]);
    world.run_with(&["watch", "--config", "config.yaml"], more.as_bytes()).expect(0);
    assert_eq!(world.verify(&more), "disabled");
    world.run(&["watch", "--config", "config.yaml"]).expect(0);
}

#[test]
fn the_end_of_standard_input_ends_no_other_watch() {
    let world = World::new();
    fs::create_dir(world.path("inbox")).unwrap();
    configure(&world, "{ stdin: true }, { files: [\"./inbox/**\"] }");
    let key = world.key("k", "disable", &[]);
    // Its standard input is /dev/null.
    let daemon = world.watch();
    let status = status_when(&world, |status| watch(status, "stdin")["state"] == "ended");
    assert_eq!(status["ready"], true);
    world.write("inbox/a.txt", &key);
    world.leak_of("k", done);
    wait(|| world.run(&["status"]).out.contains("ended").then_some(())).unwrap();
    daemon.stop();
}
