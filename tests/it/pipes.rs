//! Repositories with a pipe in the place of a file: git waits for it for ever, leakwarden does not.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::history::{Git, names, summary};
use super::world::{Answer, answer};

/// Puts a pipe in the place of a file.
fn pipe(path: PathBuf) {
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap();
}

/// The index of the only pack of `repo`.
fn index(git: &Git) -> PathBuf {
    let packs = fs::read_dir(git.world.path("repo/.git/objects/pack")).unwrap().flatten();
    let mut paths = packs.map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "idx")).unwrap()
}

/// A hook of `repo`.
fn hook(git: &Git, name: &str, stdin: &str) -> Answer {
    let mut command = git.world.command(&["hook", name]);
    command.current_dir(git.world.path("repo"));
    answer(command, stdin.as_bytes())
}

#[test]
fn configuration() {
    let git = Git::new();
    git.commit("first");
    pipe(git.world.path("repo/.git/config"));
    let refused = git.scan(&[]).expect(2);
    assert!(refused.err.contains("git rev-parse did nothing for 10 s"), "{}", refused.err);
}

#[test]
fn index_of_a_pack() {
    let git = Git::new();
    git.write("packed.txt", git.world.key("packed", "none", &[]));
    let commit = git.commit("first");
    git.git(&["repack", "-q", "-a", "-d"]);
    git.write("loose.txt", git.world.key("loose", "none", &[]));
    git.commit("second");
    pipe(index(&git));
    // What can be read is, and the rest is told.
    let answer = git.scan(&[]).expect(1);
    assert_eq!(Vec::from_iter(names(&answer)), ["loose"]);
    let summary = summary(&answer);
    assert_eq!(summary["complete"], false);
    let skipped = summary["skipped"].as_array().unwrap();
    let ours = |skipped: &Value| skipped["path"].as_str().unwrap().ends_with(".idx");
    assert!(skipped.iter().any(ours), "{summary:#}");
    let zeros = "0".repeat(40);
    let line = format!("refs/heads/main {commit} refs/heads/main {zeros}\n");
    let refused = hook(&git, "pre-push", &line).expect(3);
    assert!(refused.err.contains("did nothing for 10 s"), "{}", refused.err);
    assert!(refused.err.contains("push refused"), "{}", refused.err);
}

#[test]
fn index_of_the_work_tree() {
    let git = Git::new();
    git.commit("first");
    git.write("a.txt", "a\n");
    git.git(&["add", "a.txt"]);
    pipe(git.world.path("repo/.git/index"));
    let refused = hook(&git, "pre-commit", "").expect(3);
    assert!(refused.err.contains("did nothing for 10 s"), "{}", refused.err);
    assert!(refused.err.contains("commit refused"), "{}", refused.err);
}

#[test]
fn a_watch_goes_on_with_other_repositories() {
    let git = Git::new();
    git.write("a.txt", git.world.key("k", "disable", &[]));
    git.commit("first");
    for name in ["a.git", "b.git"] {
        git.run(".", &["clone", "-q", "--bare", "repo", &format!("srv/{name}")]).expect(0);
    }
    pipe(git.world.path("srv/a.git/config"));
    let config = "registry: ./registry\nwatch: [{ git: [./srv/*.git] }]\nresponse: { mode: act }\n";
    git.world.write("config.yaml", config);
    let daemon = git.world.watch();
    let leak = git.world.leak_of("k", |leak| leak["action"]["result"] == "done");
    let path = leak["sightings"][0]["path"].as_str().unwrap();
    assert!(path.ends_with("b.git: a.txt"), "{leak:#}");
    assert!(leak["sightings"][0]["commit"].is_string(), "{leak:#}");
    assert!(git.world.log().contains("did nothing for 10 s"), "{}", git.world.log());
    daemon.stop();
}
