//! `scan --respond`: what a scan finds is recorded, acted upon and told, as the daemon would do it.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Stdio;

use serde_json::Value;

use super::history::Git;
use super::mail::Server;
use super::world::{Answer, World, answer, wait};

/// Scans, as the configuration beside the registry folder says.
fn respond(world: &World, arguments: &[&str]) -> Answer {
    let words = ["scan", "--respond", "--config", "config.yaml"];
    world.run(&[words.as_slice(), arguments].concat())
}

fn world_that_acts() -> World {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    world
}

fn leak_of(world: &World, name: &str) -> Value {
    let leaks = world.leaks();
    leaks.into_iter().find(|leak| leak["key"]["name"] == name).unwrap_or_default()
}

#[test]
fn keys_that_leaked_are_disabled_and_deleted_and_their_owners_told() {
    let world = world_that_acts();
    let deploy = world.key("deploy", "disable", &[]);
    let billing = world.key("billing", "delete", &["--like", "ibm"]);
    let letter = world.key("letter", "none", &[]);
    let safe = world.key("safe", "delete", &[]);
    world.write("src/a.py", format!("x = '{deploy}'\n"));
    world.write("src/b.py", format!("\ny = '{billing}'; z = '{letter}'\n"));
    let answer = respond(&world, &["src"]).expect(1);
    assert!(answer.err.contains("open: 3 leaks of these keys"), "{}", answer.err);
    assert!([&deploy, &billing, &letter].iter().all(|key| !answer.both().contains(*key)));
    let states = [&deploy, &billing, &letter, &safe].map(|key| world.verify(key));
    assert_eq!(states, ["disabled", "deleted", "active", "active"]);
    let mails = world.mails();
    for to in ["deploy@example.com", "billing@example.com", "letter@example.com"] {
        assert_eq!(mails[to].len(), 1, "{to}");
    }
    let seen = &leak_of(&world, "billing")["sightings"][0];
    assert_eq!(seen["path"], world.path("src/b.py").to_str().unwrap());
    assert_eq!((&seen["line"], &seen["column"]), (&2.into(), &6.into()));
    // The same places again are nothing new, whatever the path is called.
    for folder in ["./src", "src/../src", world.path("src").to_str().unwrap()] {
        let again = respond(&world, &[folder]).expect(1);
        assert!(again.err.contains("open: 3 leaks"), "{}", again.err);
        assert_eq!(leak_of(&world, "letter")["count"], 1, "{folder}");
    }
    assert_eq!(world.mails().values().flatten().count(), mails.values().flatten().count());
}

#[test]
fn a_scan_without_it_records_nothing() {
    let world = world_that_acts();
    let key = world.key("deploy", "delete", &[]);
    world.write("a.txt", &key);
    world.run(&["scan", "a.txt"]).expect(1);
    assert!(world.leaks().is_empty());
    assert_eq!(world.verify(&key), "active");
    world.write("b.txt", "no key");
    let answer = respond(&world, &["b.txt"]).expect(0);
    assert!(answer.err.contains("no registered key was found"), "{}", answer.err);
}

#[test]
fn homes_are_left_alone_also_where_a_link_leads_to_them() {
    let world = World::new();
    world.configure("{ mode: act }\nhomes: [\"./home/.env\"]", "{ directory: ./mail }");
    let key = world.key("deploy", "delete", &[]);
    let env = world.write("home/.env", &key);
    fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
    symlink("home", world.path("link")).unwrap();
    let answer = respond(&world, &["home", "link/.env"]).expect(1);
    assert!(answer.err.contains("at their homes"), "{}", answer.err);
    assert_eq!((world.verify(&key).as_str(), world.leaks().len()), ("active", 0));
}

/// A home is one by whatever name the configuration, or the scan, calls it.
#[test]
fn homes_have_many_names() {
    for (home, folder, asked) in [
        ("./home/.env", "sub", "../home"),
        ("../w/home/.env", ".", "home"),
        ("./link/.env", ".", "."),
        ("./link/.env", "link", ".env"),
        ("./link/*.env", "sub", "../link/.env"),
        ("../w/home/.env", "../w[1]{a}/sub", "../home"),
        ("./home/.env", "../w[1]{a}/sub", "../home"),
    ] {
        let world = World::new();
        fs::create_dir(world.path("w[1]{a}")).unwrap();
        symlink("w[1]{a}", world.path("w")).unwrap();
        fs::create_dir(world.path("w/sub")).unwrap();
        let config = format!(
            "registry: ../registry\nwatch: []\nresponse: {{ mode: act }}\nhomes: [\"{home}\"]\n"
        );
        world.write("w/config.yaml", config);
        let at_home = world.key("home", "delete", &[]);
        let env = world.write("w/home/.env", &at_home);
        fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
        symlink("home", world.path("w/link")).unwrap();
        let leaked = world.key("leaked", "disable", &[]);
        world.write("w/home/notes", &leaked);
        let config = if folder == "." { "config.yaml" } else { "../config.yaml" };
        let notes = world.path("w/home/notes");
        let mut command = world.command(&["scan", "--respond", "--config", config, asked]);
        command.arg(notes).current_dir(world.path("w").join(folder));
        answer(command, b"").expect(1);
        let states = [world.verify(&at_home), world.verify(&leaked)];
        assert_eq!(states, ["active", "disabled"], "{home}, {folder}, {asked}");
    }
}

#[test]
fn a_home_of_one_key_may_be_named_by_a_link() {
    let world = world_that_acts();
    symlink("home", world.path("link")).unwrap();
    let home = world.path("link/.env");
    let key = world.key("deploy", "delete", &["--home", home.to_str().unwrap()]);
    let env = world.write("home/.env", &key);
    fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
    for path in ["home", "link/.env", "home/../link/.env"] {
        respond(&world, &[path]).expect(1);
        assert_eq!((world.verify(&key).as_str(), world.leaks().len()), ("active", 0), "{path}");
    }
}

/// What is a home to a scan is one to the daemon, and the same file is the same place to both.
#[test]
fn the_daemon_knows_homes_and_files_by_the_same_names() {
    let world = World::new();
    let homes = "{ mode: act }\nhomes: [\"./link/.env\"]";
    world.configure(homes, "{ directory: ./mail }");
    symlink("inbox", world.path("link")).unwrap();
    let at_home = world.key("home", "delete", &[]);
    let env = world.write("inbox/.env", &at_home);
    fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
    let leaked = world.key("leaked", "disable", &[]);
    world.write("inbox/a.txt", &leaked);
    let daemon = world.watch();
    world.leak_of("leaked", |leak| leak["action"]["result"] == "done");
    assert_eq!(world.verify(&at_home), "active");
    daemon.stop();
    let seen = leak_of(&world, "leaked")["count"].clone();
    for path in ["inbox", "link/a.txt", "link/../inbox"] {
        respond(&world, &[path]).expect(1);
        assert_eq!(leak_of(&world, "leaked")["count"], seen, "{path}");
        assert_eq!(world.verify(&at_home), "active", "{path}");
    }
}

/// A scan takes long; what the daemon is told meanwhile counts at once.
#[test]
fn a_policy_that_changes_meanwhile_counts() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    let mut command = world.command(&["scan", "--stdin", "--respond", "--config", "config.yaml"]);
    let trace = world.path("scan.err");
    command.stdin(Stdio::piped()).stderr(fs::File::create(trace).unwrap());
    let mut scan = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = scan.stdin.take().unwrap();
    // It has read its configuration once it reads this.
    stdin.write_all(&vec![b'\n'; 4 << 20]).unwrap();
    world.configure("{ mode: observe }", "{ directory: ./mail }");
    world.watch().stop();
    stdin.write_all(key.as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(scan.wait().unwrap().code(), Some(1));
    assert_eq!(world.verify(&key), "active");
    assert_eq!(leak_of(&world, "deploy")["action"]["result"], "held");
}

#[test]
fn a_lock_that_is_none_is_an_error() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let lock = world.path("registry/acting.lock");
    let no_mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, no_mode, 0).unwrap();
    let answer = respond(&world, &["a.txt"]).expect(2);
    assert!(answer.err.contains("acting.lock"), "{}", answer.err);
    fs::remove_file(&lock).unwrap();
    symlink("elsewhere", &lock).unwrap();
    respond(&world, &["a.txt"]).expect(2);
    assert!(!world.path("registry/elsewhere").exists());
    fs::remove_file(&lock).unwrap();
    respond(&world, &["a.txt"]).expect(1);
    assert_eq!(world.verify(&key), "disabled");
}

/// However many places are no leak, the one that is one is acted upon.
#[test]
fn one_leak_among_many_places_that_are_none_is_not_lost() {
    let world = World::new();
    world.configure("{ mode: act }\nhomes: [\"./home/.env\"]", "{ directory: ./mail }");
    let key = world.key("deploy", "disable", &[]);
    let env = world.write("home/.env", format!("{key}\n").repeat(1_500));
    fs::set_permissions(env, Permissions::from_mode(0o600)).unwrap();
    world.write("leak.txt", &key);
    respond(&world, &["home", "leak.txt"]).expect(1);
    assert_eq!(world.verify(&key), "disabled");
    assert_eq!(leak_of(&world, "deploy")["count"], 1);
    world.write("many.txt", format!("{key}\n").repeat(1_500));
    respond(&world, &["many.txt"]).expect(1);
    assert_eq!(leak_of(&world, "deploy")["count"], 1_501);
}

#[test]
fn who_observes_holds_what_would_be_done() {
    let world = World::new();
    world.configure("{ mode: observe }", "{ directory: ./mail }");
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let answer = respond(&world, &["a.txt"]).expect(1);
    assert!(answer.err.contains("leak approve"), "{}", answer.err);
    assert_eq!(world.verify(&key), "active");
    assert_eq!(leak_of(&world, "deploy")["action"]["result"], "held");
    // What was approved is carried out by the next one, if nobody else does.
    world.run(&["leak", "approve", "--all"]).expect(0);
    respond(&world, &["a.txt"]).expect(1);
    assert_eq!(world.verify(&key), "disabled");
}

#[test]
fn of_a_repository_the_commit_is_told() {
    let git = Git::new();
    git.world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = git.world.key("deploy", "disable", &[]);
    git.write("app/.env", format!("one\nKEY={key}\n"));
    let commit = git.commit("add settings");
    git.git(&["rm", "-q", "app/.env"]);
    git.commit("remove them");
    respond(&git.world, &["--git", "repo"]).expect(1);
    assert_eq!(git.world.verify(&key), "disabled");
    let seen = leak_of(&git.world, "deploy")["sightings"][0].clone();
    assert_eq!((&seen["source"], &seen["commit"]), (&"blob".into(), &commit.as_str().into()));
    let path = seen["path"].as_str().unwrap();
    assert!(path.starts_with('/') && path.ends_with("repo: app/.env"), "{path}");
    // From wherever it is read, it is the same repository.
    git.git(&["worktree", "add", "-q", "../tree"]);
    symlink("repo", git.world.path("link")).unwrap();
    for place in ["repo", "./repo/app", "repo/.git", "tree", "link"] {
        fs::create_dir_all(git.world.path("repo/app")).unwrap();
        respond(&git.world, &["--git", place]).expect(1);
        assert_eq!(leak_of(&git.world, "deploy")["count"], 1, "{place}");
    }
}

#[test]
fn names_of_branches_that_are_keys_stay_out_of_the_database() {
    let git = Git::new();
    git.world.configure("{ mode: act }", "{ directory: ./mail }");
    let key = git.world.key("deploy", "disable", &[]);
    git.write("a.txt", "a");
    git.commit("first");
    git.git(&["branch", &format!("feature/{key}")]);
    respond(&git.world, &["--git", "repo"]).expect(1);
    assert_eq!(git.world.verify(&key), "disabled");
    for file in fs::read_dir(git.world.path("registry")).unwrap().flatten() {
        let bytes = fs::read(file.path()).unwrap_or_default();
        assert!(memchr::memmem::find(&bytes, key.as_bytes()).is_none(), "{:?}", file.path());
    }
}

#[test]
fn what_has_no_place_that_lasts_is_seen_anew_each_time() {
    let world = world_that_acts();
    let key = world.key("deploy", "none", &[]);
    for count in 1..=2 {
        let words = ["scan", "--stdin", "--respond", "--config", "config.yaml"];
        world.run_with(&words, key.as_bytes()).expect(1);
        assert_eq!(leak_of(&world, "deploy")["count"], count);
    }
}

#[test]
fn the_daemon_of_the_registry_acts_itself() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    let daemon = world.watch();
    world.write("elsewhere/a.txt", &key);
    let answer = respond(&world, &["elsewhere"]).expect(1);
    assert!(answer.err.contains("left to the daemon"), "{}", answer.err);
    assert_eq!(world.verify(&key), "disabled");
    daemon.stop();
    assert_eq!(world.mails()["deploy@example.com"].len(), 1);
}

/// What the daemon was told last is how this installation responds; nobody acts by another policy.
#[test]
fn the_configuration_is_the_daemons() {
    let world = World::new();
    world.configure("{ mode: observe }", "{ directory: ./mail }");
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    world.watch().stop();
    world.write("other.yaml", "registry: ./registry\nwatch: []\nresponse: { mode: act }\n");
    let words = ["scan", "--respond", "--config", "other.yaml", "a.txt"];
    let refused = world.run(&words).expect(2);
    assert!(refused.err.contains("not what the daemon had"), "{}", refused.err);
    // Where none is named, it is the one that the daemon had, not the one beside the registry.
    world.configure("{ mode: observe, locked: hold }", "{ directory: ./mail }");
    let refused = world.run(&["scan", "--respond", "a.txt"]).expect(2);
    assert!(refused.err.contains("/config.yaml: `response`"), "{}", refused.err);
    world.watch().stop();
    world.run(&["scan", "--respond", "a.txt"]).expect(1);
    assert_eq!(leak_of(&world, "deploy")["action"]["result"], "held");
    assert!(world.leaks().len() == 1 && world.path("mail").exists());
}

#[test]
fn a_registry_that_cannot_be_read_is_an_error_also_beside_a_filter() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    world.run(&["registry", "export-filter", "keys.filter"]).expect(0);
    fs::rename(world.path("registry/pepper"), world.path("pepper")).unwrap();
    let answer = respond(&world, &["--filter", "keys.filter", "a.txt"]).expect(2);
    assert!(answer.err.contains("pepper"), "{}", answer.err);
}

#[test]
fn what_was_done_is_told_also_where_the_report_cannot_be_written() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let answer = respond(&world, &["--output", "missing/report", "a.txt"]).expect(2);
    assert!(answer.err.contains("deploy  disabled"), "{}", answer.err);
    assert_eq!(world.verify(&key), "disabled");
}

/// A daemon that starts meanwhile waits for its turn.
#[test]
fn the_daemon_waits_for_a_scan_that_responds() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("inbox/a.txt", &key);
    let lock = fs::File::create(world.path("registry/acting.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut daemon = world.command(&["watch", "--config", "config.yaml"]);
    let log = fs::File::create(world.path("log")).unwrap();
    let mut daemon = daemon.stderr(log).spawn().unwrap();
    wait(|| world.log().contains("waiting for a scan").then_some(())).expect("it waits");
    assert_eq!(world.verify(&key), "active");
    drop(lock);
    world.leak_of("deploy", |leak| leak["action"]["result"] == "done");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn mails_that_cannot_go_out_stay_in_the_outbox() {
    let world = World::new();
    let server = Server::start(&world, "smtp", &["--behaviour", "hang-greeting"]);
    let smtp = format!(
        "{{ smtp: {{ host: localhost, port: {}, tls: none, from: a@example.com, deadline: 1s }} }}",
        server.port
    );
    world.configure("{ mode: act }", &smtp);
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let answer = respond(&world, &["a.txt"]).expect(1);
    assert!(answer.err.contains("not all is done or told"), "{}", answer.err);
    assert_eq!(world.verify(&key), "disabled");
    let notices = leak_of(&world, "deploy")["notices"].clone();
    let notices = notices.as_array().unwrap();
    assert!(!notices.is_empty() && notices.iter().all(|notice| notice["state"] == "due"));
}

#[test]
fn what_says_how_to_respond_must_be_there_and_be_about_that_registry() {
    let world = World::new();
    world.write("a.txt", "no key");
    fs::remove_file(world.path("registry/config.yaml")).unwrap();
    let answer = world.run(&["scan", "--respond", "a.txt"]).expect(2);
    assert!(answer.err.contains("give --config FILE"), "{}", answer.err);
    let answer = world.run(&["scan", "--respond", "--no-registry", "a.txt"]).expect(2);
    assert!(answer.err.contains("cannot be used with"), "{}", answer.err);
    let answer = world.run(&["scan", "--config", "config.yaml", "a.txt"]).expect(2);
    assert!(answer.err.contains("--respond"), "{}", answer.err);
    world.run(&["init", "--dir", "other"]).expect(0);
    let answer = world.run(&["scan", "--respond", "--config", "other/config.yaml"]).expect(2);
    assert!(answer.err.contains("is about the registry in"), "{}", answer.err);
    // Beside the registry the configuration need not be named.
    fs::copy(world.path("other/config.yaml"), world.path("registry/config.yaml")).unwrap();
    world.run(&["scan", "--respond", "a.txt"]).expect(0);
}

/// The rules of a configuration count too, once, whoever names their folder.
#[test]
fn the_configuration_names_rules() {
    let world = World::new();
    world.configure("{ mode: act }\nrules: [./own]", "{ directory: ./mail }");
    let rule = "rules:\n  - {id: own-key, provider: A, name: n, prefixes: [\"ownkey_\"], \
         pattern: 'ownkey_[0-9a-f]{32}', examples: [\"ownkey_<hex:32>\"], \
         negative_examples: [\"ownkey_\"], confidence: high, source: s}\n";
    world.write("own/rules.yaml", rule);
    world.write("a.txt", format!("ownkey_{}", "02468ace13579bdf".repeat(2)));
    for more in [[].as_slice(), &["--rules", "own"]] {
        let answer = respond(&world, &[more, &["a.txt"]].concat()).expect(1);
        assert!(answer.out.contains("[own-key]"), "{}", answer.both());
    }
}

/// The registry of a configuration need not be named a second time.
#[test]
fn the_configuration_names_the_registry() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let mut command = world.command(&["scan", "--respond", "--config", "config.yaml", "a.txt"]);
    command.env_remove("LEAKWARDEN_REGISTRY");
    answer(command, b"").expect(1);
    assert_eq!(world.verify(&key), "disabled");
}

#[test]
fn no_async_runtime_is_started_but_to_respond() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    world.write("b.txt", "no key");
    let polls = |arguments: &[&str], code: i32| {
        let trace = world.path("trace");
        let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "epoll_create1"];
        answer(world.under(&strace, arguments), b"").expect(code);
        fs::read_to_string(trace).unwrap().contains("epoll_create1")
    };
    let respond = ["scan", "--respond", "--config", "config.yaml"];
    assert!(!polls(&["scan", "a.txt"], 1));
    assert!(!polls(&[respond.as_slice(), &["b.txt"]].concat(), 0));
    assert!(polls(&[respond.as_slice(), &["a.txt"]].concat(), 1));
}
