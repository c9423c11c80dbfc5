//! `scan --respond`: what a scan finds is recorded, acted upon and told, as the daemon would do it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;

use super::history::Git;
use super::mail::Server;
use super::world::{Answer, World};

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
    respond(&git.world, &["--git", "repo"]).expect(1);
    assert_eq!(leak_of(&git.world, "deploy")["count"], 1);
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

/// The registry of a configuration need not be named a second time.
#[test]
fn the_configuration_names_the_registry() {
    let world = world_that_acts();
    let key = world.key("deploy", "disable", &[]);
    world.write("a.txt", &key);
    let mut command = world.command(&["scan", "--respond", "--config", "config.yaml", "a.txt"]);
    command.env_remove("LEAKWARDEN_REGISTRY");
    super::world::answer(command, b"").expect(1);
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
        super::world::answer(world.under(&strace, arguments), b"").expect(code);
        fs::read_to_string(trace).unwrap().contains("epoll_create1")
    };
    let respond = ["scan", "--respond", "--config", "config.yaml"];
    assert!(!polls(&["scan", "a.txt"], 1));
    assert!(!polls(&[respond.as_slice(), &["b.txt"]].concat(), 0));
    assert!(polls(&[respond.as_slice(), &["a.txt"]].concat(), 1));
}
