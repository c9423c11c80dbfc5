//! `leakwarden status`: the daemon says how it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::world::{World, exists, wait};

/// Waits until it says something.
#[track_caller]
pub fn status_when(world: &World, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    wait(|| {
        let answer = world.run(&["status", "--format", "json"]);
        last = serde_json::from_str(&answer.out).unwrap_or(Value::Null);
        Some(last.clone()).filter(&wanted)
    })
    .unwrap_or_else(|| panic!("no such status: {last:#}\n{}", world.log()))
}

/// The watch whose name begins so.
pub fn watch<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut watches = status["watches"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    watches.find(|watch| watch["name"].as_str().unwrap().starts_with(name)).unwrap_or(&Value::Null)
}

fn settled(leak: &Value) -> bool {
    leak["action"]["result"] == "done"
        && leak["notices"].as_array().unwrap().iter().all(|one| one["state"] == "sent")
}

#[test]
fn it_tells_a_person_and_a_program() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let answer = world.run(&["status"]).expect(1);
    assert!(answer.err.contains("no `leakwarden watch` runs on the registry in"), "{}", answer.err);
    let key = world.key("k", "disable", &[]);
    world.write("logs/app.log", "old\n");
    let daemon = world.watch();
    let mode = |name: &str| fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("registry/daemon.sock"), 0o600);
    let lines = format!("one\n{key}\n");
    world.append("logs/app.log", &lines);
    world.leak_of("k", settled);
    let status = status_when(&world, |status| status["action_seconds"]["count"] == 1);
    assert_eq!(status["ready"], true);
    assert_eq!(status["mode"], "act");
    assert_eq!(status["pid"], daemon.child.id());
    assert_eq!(status["keys"], 1);
    assert_eq!((&status["read_bytes"], &status["read_lines"]), (&lines.len().into(), &2.into()));
    assert_eq!(status["registered"], 1);
    assert_eq!(status["incidents"]["open"], 1);
    assert_eq!(status["actions"]["done"], 1);
    assert_eq!(status["notices"]["sent"], 2);
    for name in ["files ", "logs "] {
        let watch = watch(&status, name);
        assert_eq!((&watch["state"], &watch["why"]), (&"running".into(), &Value::Null));
        assert!(watch["name"].as_str().unwrap().contains(world.path("").to_str().unwrap()));
    }
    let answer = world.run(&["status"]).expect(0);
    for words in [
        ": ready, mode act\n",
        "registry  1 key\n",
        "2 lines",
        "1 open, 0 resolved",
        "1 done",
        "0 due, 0 failed, 2 sent",
        "  running   logs ",
        "1 of 1 within",
    ] {
        assert!(answer.out.contains(words), "no `{words}` in {}", answer.out);
    }
    assert!(!answer.out.contains(&key[5..17]), "{}", answer.out);
    // After a kill its socket lies there, and nobody answers.
    daemon.kill();
    assert!(exists(&world.path("registry/daemon.sock")));
    world.run(&["status"]).expect(1);
    let daemon = world.watch();
    world.run(&["status"]).expect(0);
    daemon.stop();
    assert!(!exists(&world.path("registry/daemon.sock")));
    world.run(&["status"]).expect(1);
}

#[test]
fn a_folder_with_a_long_name_serves_as_well() {
    let world = World::empty();
    let folder = format!("{}/registry", ["a-folder-with-a-long-name"; 8].join("/"));
    world.run(&["init", "--dir", &folder, "--admin", "admin@example.com"]).expect(0);
    fs::create_dir(world.path("inbox")).unwrap();
    let config = format!(
        "registry: ./{folder}\nwatch: [{{ files: [./inbox] }}]\nresponse: {{ mode: observe }}\n"
    );
    world.write("config.yaml", config);
    let daemon = world.watch();
    let answer = world.run(&["status", "--registry", &folder]).expect(0);
    assert!(answer.out.contains("mode observe"), "{}", answer.out);
    daemon.stop();
}

#[test]
fn a_key_in_the_name_of_a_watch_is_not_shown() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    fs::create_dir(world.path(&key)).unwrap();
    let config = format!(
        "registry: ./registry\nwatch: [{{ files: [\"./{key}/**\"] }}]\n\
         response: {{ mode: observe }}\n"
    );
    world.write("config.yaml", config);
    let daemon = world.watch();
    for format in ["text", "json"] {
        let answer = world.run(&["status", "--format", format]).expect(0);
        assert!(!answer.out.contains(&key[5..17]) && answer.out.contains("files "), "{format}");
    }
    daemon.stop();
    assert!(!world.log().contains(&key[5..17]), "{}", world.log());
}
