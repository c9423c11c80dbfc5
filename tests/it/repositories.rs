//! `watch` with `git:`: real repositories that are committed and pushed to.

use std::fs;

use super::history::Git;

fn configure(git: &Git, entry: &str) {
    let config = format!("registry: ./registry\nwatch: [{entry}]\nresponse: {{ mode: act }}\n");
    git.world.write("config.yaml", config);
}

fn done(leak: &serde_json::Value) -> bool {
    leak["action"]["result"] == "done"
}

fn sighted(leak: &serde_json::Value) -> String {
    leak["sightings"][0]["path"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_is_pushed_is_read_once_also_after_a_restart() {
    let git = Git::new();
    let keys: Vec<String> =
        (0..6).map(|n| git.world.key(&format!("k{n}"), "disable", &[])).collect();
    git.write("old.txt", &keys[0]);
    git.commit("first");
    fs::create_dir(git.world.path("srv")).unwrap();
    git.run(".", &["clone", "-q", "--bare", "repo", "srv/a.git"]).expect(0);
    git.git(&["remote", "add", "a", "../srv/a.git"]);
    configure(&git, "{ git: [./srv/*.git] }");
    let daemon = git.world.watch();
    // What was there before is read as well.
    let leak = git.world.leak_of("k0", done);
    assert!(sighted(&leak).ends_with("a.git: old.txt"), "{leak:#}");
    git.write("src/new.txt", format!("one\n{}\n", keys[1]));
    let commit = git.commit("second");
    git.git(&["push", "-q", "a", "main:other"]);
    let leak = git.world.leak_of("k1", done);
    assert!(sighted(&leak).ends_with("src/new.txt"), "{leak:#}");
    assert_eq!(leak["sightings"][0]["commit"], commit.as_str());
    let shown = git.world.run(&["leak", "show", leak["id"].as_str().unwrap()]).expect(0).out;
    assert!(shown.contains(&format!(", commit {})", &commit[..12])), "{shown}");
    assert_eq!(leak["sightings"][0]["line"], 2);
    // The same commit under other names, and packed, is nothing new; a message is.
    git.git(&["push", "-q", "a", "main", "main:third"]);
    git.run("srv/a.git", &["gc", "-q"]).expect(0);
    git.commit(&format!("third {}", keys[2]));
    git.git(&["push", "-q", "a", "main"]);
    git.world.leak_of("k2", done);
    daemon.stop();
    git.git(&["tag", "-a", "v1", "-m", &keys[3]]);
    git.git(&["push", "-q", "a", "v1"]);
    git.git(&["push", "-q", "a", ":other"]);
    let daemon = git.world.watch();
    git.world.leak_of("k3", done);
    git.git(&["branch", &format!("feature/{}", keys[4])]);
    git.git(&["push", "-q", "a", "--all"]);
    git.world.leak_of("k4", done);
    daemon.kill();
    git.world.watch().stop();
    for leak in git.world.leaks() {
        assert_eq!(leak["count"], 1, "{leak:#}");
    }
    assert_eq!(git.world.leaks().len(), 5);
}

#[test]
fn from_now_on_if_that_is_asked_for() {
    let git = Git::new();
    let [old, new, later] = ["old", "new", "later"].map(|name| git.world.key(name, "disable", &[]));
    git.write("a.txt", old);
    git.commit("first");
    configure(&git, "{ git: [./repo], start: end }");
    let daemon = git.world.watch();
    git.write("b.txt", new);
    git.commit("second");
    git.world.leak_of("new", done);
    daemon.stop();
    git.write("c.txt", later);
    git.commit("third");
    let daemon = git.world.watch();
    git.world.leak_of("later", done);
    assert_eq!(git.world.leaks().len(), 2, "what was there before the first start was read");
    daemon.stop();
}

#[test]
fn a_repository_that_comes_later_or_cannot_be_read_stops_nothing() {
    let git = Git::new();
    let key = git.world.key("k", "disable", &[]);
    fs::create_dir_all(git.world.path("srv/broken.git/objects")).unwrap();
    git.world.write("srv/broken.git/HEAD", "no repository");
    git.write("a.txt", key);
    git.commit("first");
    git.run(".", &["clone", "-q", "--bare", "repo", "srv/z.git"]).expect(0);
    configure(&git, "{ git: [\"./srv/**\"] }");
    let daemon = git.world.watch();
    git.world.leak_of("k", done);
    assert!(git.world.log().contains("broken.git"), "{}", git.world.log());
    // One that comes while the watch runs is seen at once.
    git.write("b.txt", git.world.key("later", "disable", &[]));
    git.commit("second");
    git.run(".", &["clone", "-q", "--bare", "repo", "srv/later.git"]).expect(0);
    git.world.leak_of("later", done);
    daemon.stop();
}
