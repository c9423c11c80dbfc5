//! The plain key appears nowhere.

use std::fs;
use std::path::Path;

use super::world::{World, github_token};

/// Inner pieces of a key of 12 characters, its public prefix left out.
fn pieces(key: &str) -> Vec<&str> {
    let start = key.find("user_").map_or(4, |at| at + 5);
    (start..=key.len() - 12).map(|at| &key[at..at + 12]).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    ignore::WalkBuilder::new(folder)
        .standard_filters(false)
        .build()
        .flatten()
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(ignore::DirEntry::into_path)
        .collect()
}

#[test]
fn no_file_no_output_no_log_holds_a_key() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let mut outputs = String::new();
    let mut keys =
        vec![world.key("a", "delete", &[]), world.key("b", "disable", &["--like", "ibm"])];
    let token = github_token();
    let register = ["key", "register", "c", "--owner", "c@example.com"];
    outputs += &world.run_with(&register, token.as_bytes()).expect(0).both();
    outputs += &world.run_with(&register, token.as_bytes()).expect(2).both();
    keys.push(token);
    let daemon = world.watch();
    world.append("logs/app.log", format!("first {}\nsecond {}\n", keys[0], keys[1]));
    // A key as a file name, and in one that cannot be read as text.
    world.write(&format!("inbox/{}/x.txt", keys[2]), format!("\u{1}{}\n", keys[2]));
    for name in ["a", "b", "c"] {
        world.leak_of(name, |leak| {
            leak["action"]["result"] == "done"
                && leak["notices"].as_array().unwrap().iter().all(|n| n["state"] == "sent")
        });
    }
    // While the daemon runs, the write-ahead log holds what was written last.
    assert!(world.path("registry/registry.db-wal").exists());
    for key in &keys {
        outputs += &world.run_with(&["key", "verify"], key.as_bytes()).both();
        outputs += &world.run_with(&["scan", "--stdin"], key.as_bytes()).expect(1).both();
        outputs += &world.run_with(&["key", "verify", "--format", "json"], key.as_bytes()).both();
        outputs += &world.run(&["key", "show", key]).expect(2).both();
    }
    for command in [
        &["key", "list", "--all"][..],
        &["key", "list", "--format", "json"],
        &["leak", "list"],
        &["leak", "list", "--format", "json"],
        &["leak", "show", "1"],
        &["leak", "show", "2"],
        &["leak", "show", "3"],
        &["scan", "inbox", "logs"],
        &["scan", "inbox", "logs", "--format", "jsonl"],
        &["scan", "inbox", "--format", "json"],
    ] {
        outputs += &world.run(command).both();
    }
    let grep = |text: &str, place: &str| {
        for piece in keys.iter().flat_map(|key| pieces(key)) {
            assert!(!text.contains(piece), "a piece of a key in {place}");
        }
    };
    grep(&outputs, "the output of commands");
    let look = || {
        for path in files(&world.path(".")) {
            let inner = path.strip_prefix(world.path(".")).unwrap();
            if !inner.starts_with("inbox") && !inner.starts_with("logs") {
                let bytes = fs::read(&path).unwrap();
                grep(&String::from_utf8_lossy(&bytes), &inner.display().to_string());
            }
        }
    };
    look();
    let pid = daemon.child.id();
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        grep(&String::from_utf8_lossy(&bytes), file);
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    daemon.stop();
    look();
    assert!(world.log().contains("TRACE") || world.log().contains("INFO"), "there is a log");
}
