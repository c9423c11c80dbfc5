//! `scan --respond`: what must not be done, and what must not be lost.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use super::history::Git;
use super::world::{World, answer, wait};

const RESPOND: [&str; 4] = ["scan", "--respond", "--config", "config.yaml"];

/// A world that observes, with a leak of each of these keys whose action was approved: it is due.
fn world_with_due(keys: &[(&str, &str)]) -> (World, Vec<String>) {
    let world = World::new();
    world.configure("{ mode: observe }", "{ directory: ./mail }");
    let keys: Vec<String> =
        keys.iter().map(|(name, action)| world.key(name, action, &[])).collect();
    world.write("leaks/a.txt", keys.join("\n"));
    world.write("other/b.txt", "nothing here");
    world.run(&[RESPOND.as_slice(), &["leaks"]].concat()).expect(1);
    for number in 1..=keys.len() {
        world.run(&["leak", "approve", &number.to_string(), "--reason", "seen"]).expect(0);
    }
    (world, keys)
}

#[test]
fn a_leak_that_was_closed_is_not_acted_upon() {
    for (action, resolution) in
        [("delete", "false-positive"), ("disable", "false-positive"), ("delete", "accepted")]
    {
        let (world, keys) = world_with_due(&[("deploy", action)]);
        world.run(&["leak", "resolve", "1", "--as", resolution, "--reason", "a test"]).expect(0);
        world.run(&[RESPOND.as_slice(), &["other"]].concat()).expect(0);
        assert_eq!(world.verify(&keys[0]), "active", "{action}, {resolution}");
        // Nor is its owner told to see to it.
        assert!(!world.mails().contains_key("deploy@example.com"), "{action}, {resolution}");
    }
}

#[test]
fn what_is_everywhere_is_no_home() {
    let world = World::new();
    for home in ["", "/", "/.", "/*", "**", "/**/."] {
        world.run(&["home", "accept", home, "--all-keys"]).expect(2);
    }
    for home in ["/", "/.", "**"] {
        world.configure(&format!("{{ mode: act }}\nhomes: [\"{home}\"]"), "{ directory: ./mail }");
        let refused = world.run(&["config", "check", "config.yaml"]).expect(2);
        assert!(refused.err.contains("homes: every file"), "{}", refused.err);
    }
    symlink("/", world.path("all")).unwrap();
    world.configure("{ mode: act }\nhomes: [\"./all\"]", "{ directory: ./mail }");
    world.run(&["home", "accept", "/etc/..", "--all-keys"]).expect(0);
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    world.run(&[RESPOND.as_slice(), &["a.txt"]].concat()).expect(1);
    assert_eq!(world.verify(&key), "disabled");
}

#[test]
fn what_was_due_about_other_keys_is_told() {
    let (world, keys) = world_with_due(&[("deploy", "disable")]);
    let told = world.run(&[RESPOND.as_slice(), &["other"]].concat()).expect(0);
    assert!(told.err.contains("due already about 1 leak of other keys"), "{}", told.err);
    assert_eq!(world.verify(&keys[0]), "disabled");
}

#[test]
fn a_scan_that_cannot_begin_does_nothing() {
    let (world, keys) = world_with_due(&[("deploy", "disable")]);
    for wrong in [["--exclude", "[", "other"].as_slice(), &["--git", "other"]] {
        world.run(&[RESPOND.as_slice(), wrong].concat()).expect(2);
        assert_eq!(world.verify(&keys[0]), "active", "{wrong:?}");
    }
}

/// Without the current folder nobody knows which file a relative path names.
#[test]
fn without_a_current_folder_nothing_is_done() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("deploy", "delete", &[]);
    world.write("w/a.txt", &key);
    fs::create_dir(world.path("w/gone")).unwrap();
    let config = world.path("config.yaml");
    let words = ["scan", "--respond", "--config", config.to_str().unwrap(), "../a.txt"];
    let script = "cd w/gone && rmdir ../gone && exec \"$0\" \"$@\"";
    let told = answer(world.under(&["sh", "-c", script], &words), b"").expect(2);
    assert!(told.err.contains("current folder"), "{}", told.err);
    assert_eq!((world.verify(&key).as_str(), world.leaks().len()), ("active", 0));
}

/// What the daemon takes for a home is one, whatever configuration a scan is given.
#[test]
fn homes_of_the_daemon_count_beside_another_configuration() {
    let world = World::new();
    world.configure("{ mode: act }\nhomes: [\"./app/.env\"]", "{ directory: ./mail }");
    let key = world.key("deploy", "delete", &[]);
    let env = world.write("app/.env", &key);
    fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
    world.watch().stop();
    world.write("other.yaml", "registry: ./registry\nwatch: []\nresponse: { mode: act }\n");
    world.run(&["scan", "--respond", "--config", "other.yaml", "app"]).expect(1);
    assert_eq!((world.verify(&key).as_str(), world.leaks().len()), ("active", 0));
}

#[test]
fn a_home_may_be_a_folder_or_written_as_nobody_would() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    fs::create_dir_all(world.path(r"a\b[1]")).unwrap();
    let folder = world.path(r"a\b[1]");
    let plain = folder.to_str().unwrap();
    let odd = |more: &str| format!("/{}{more}", globset::escape(&plain.replace('\\', r"\\")));
    let homes = [odd("/.env"), odd("//./.env"), odd("/"), odd("")];
    for (number, home) in homes.iter().enumerate() {
        let key = world.key(&format!("k{number}"), "delete", &["--home", home]);
        fs::write(folder.join(".env"), &key).unwrap();
        fs::set_permissions(folder.join(".env"), Permissions::from_mode(0o600)).unwrap();
        let answer = world.run(&[RESPOND.as_slice(), &[plain]].concat()).expect(1);
        assert!(answer.err.contains("at their homes"), "{home}: {}", answer.err);
        assert_eq!(world.verify(&key), "active", "{home}");
    }
}

#[test]
fn what_cannot_be_recorded_is_reported_all_the_same() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON sightings BEGIN
         SELECT RAISE(ABORT, 'refused'); END";
    database.execute_batch(refuse).unwrap();
    let told = world.run(&[RESPOND.as_slice(), &["a.txt"]].concat()).expect(2);
    assert!(told.out.contains("deploy"), "{}", told.out);
    assert!(told.err.contains("1 place of registered keys could not"), "{}", told.err);
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    world.run(&[RESPOND.as_slice(), &["a.txt"]].concat()).expect(1);
    assert_eq!(world.verify(&key), "disabled");
}

/// Nobody can read the standard input of a scan again that was ended.
#[test]
fn what_was_seen_is_recorded_while_the_scan_reads() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = world.key("deploy", "disable", &[]);
    let mut scan = world
        .command(&[RESPOND.as_slice(), &["--stdin"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let text = [key.as_bytes(), &vec![b'\n'; 1 << 20]].concat();
    scan.stdin.as_mut().unwrap().write_all(&text).unwrap();
    wait(|| world.leaks().pop()).unwrap();
    scan.kill().unwrap();
    scan.wait().unwrap();
    world.write("b.txt", "nothing");
    world.run(&[RESPOND.as_slice(), &["b.txt"]].concat()).expect(0);
    assert_eq!(world.verify(&key), "disabled");
}

#[test]
fn an_object_that_no_commit_has_is_told_with_its_repository() {
    let git = Git::new();
    git.world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = git.world.key("deploy", "disable", &[]);
    git.write("a.txt", "a");
    git.commit("first");
    git.write("b.txt", &key);
    git.git(&["hash-object", "-w", "b.txt"]);
    git.world.run(&[RESPOND.as_slice(), &["--git", "repo"]].concat()).expect(1);
    let path = git.world.leaks()[0]["sightings"][0]["path"].as_str().unwrap().to_owned();
    assert!(path.contains("repo: <blob ") && path.ends_with('>'), "{path}");
}

/// A scan and the daemon know a repository by one name, and so what an administrator let pass.
#[test]
fn a_repository_behind_a_link_is_the_same_one() {
    let git = Git::new();
    let world = &git.world;
    let config = "registry: ./registry\nwatch: [{ git: [\"./link\"] }]\n\
         response: { mode: act }\nmail: { directory: ./mail }\n";
    world.write("config.yaml", config);
    let key = world.key("deploy", "disable", &[]);
    git.write("a.txt", &key);
    git.commit("first");
    symlink("repo", world.path("link")).unwrap();
    let daemon = world.watch();
    world.leak_of("deploy", |leak| leak["action"]["result"] == "done");
    daemon.stop();
    world.run(&["key", "enable", "deploy", "--reason", "checked"]).expect(0);
    for place in ["link", "repo"] {
        world.run(&[RESPOND.as_slice(), &["--git", place]].concat()).expect(1);
        assert_eq!(world.verify(&key), "active", "{place}");
    }
}

/// Who owns the registry's folder may put there what they like: root gives nothing of it away.
#[test]
fn a_link_in_the_place_of_a_folder_or_a_lock_is_not_followed() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./registry/mail }");
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let victim = world.write("victim", "private");
    let before = fs::metadata(&victim).unwrap();
    symlink(&victim, world.path("registry/mail")).unwrap();
    let lock = world.path("registry/acting.lock");
    fs::hard_link(&victim, &lock).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(world.path("registry"), Some(65_534), Some(65_534)).unwrap();
    }
    let told = world.run(&[RESPOND.as_slice(), &["a.txt"]].concat()).expect(1);
    assert!(told.err.contains("not all is done or told"), "{}", told.err);
    let after = fs::metadata(&victim).unwrap();
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(fs::read(&victim).unwrap(), b"private");
}
