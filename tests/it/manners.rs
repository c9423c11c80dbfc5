//! The manners of the daemon: signals, and taking in a changed configuration.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;

use super::world::{World, wait};

fn done(leak: &serde_json::Value) -> bool {
    leak["action"]["result"] == "done"
}

/// Watches `inbox` and some logs, acting.
fn configure(world: &World, mode: &str, more: &str) {
    for folder in ["inbox", "logs", "more"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    let head = "registry: ./registry\nmail: { directory: ./mail }\n";
    let watch = format!("watch:\n  - logs: [\"./logs/*.log\"]\n{more}");
    world.write("config.yaml", format!("{head}response: {{ mode: {mode} }}\n{watch}"));
}

#[test]
fn what_is_added_is_watched_and_what_is_taken_away_is_not() {
    let world = World::new();
    configure(&world, "act", "  - files: [\"./inbox/**\"]\n");
    let keys: Vec<String> = (0..5).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    world.write("logs/app.log", "before\n");
    let mut daemon = world.watch();
    world.append("logs/app.log", format!("{}\n", keys[0]));
    world.leak_of("k0", done);
    configure(&world, "act", "  - files: [\"./more/**\"]\n");
    world.write("more/there.txt", &keys[1]);
    daemon.reload(&world);
    world.leak_of("k1", done);
    world.write("inbox/nobody-looks.txt", &keys[2]);
    // The log that stayed goes on where it was, and no line of it is read again.
    world.append("logs/app.log", format!("{}\n{}\n", keys[0], keys[3]));
    let leak = world.leak_of("k3", done);
    assert_eq!(leak["sightings"][0]["line"], 4);
    assert_eq!(world.leak_of("k0", |_| true)["count"], 2);
    // It comes back: what was written meanwhile is found, what was read is not read again.
    configure(&world, "act", "  - files: [\"./inbox/**\"]\n");
    daemon.reload(&world);
    world.leak_of("k2", done);
    assert_eq!(world.leaks().len(), 4);
    let (_, code) = daemon.stop();
    assert_eq!(code, 0);
}

#[test]
fn a_changed_watch_goes_on_where_it_was() {
    let world = World::new();
    configure(&world, "act", "");
    let old = world.key("old", "disable", &[]);
    let keys: Vec<String> = (0..8).map(|n| world.key(&format!("k{n}"), "none", &[])).collect();
    world.write("logs/app.log", format!("{old}\n"));
    let mut daemon = world.watch();
    for (n, key) in keys.iter().enumerate() {
        world.append("logs/app.log", format!("{key}\n"));
        let exclude = format!("    exclude: [\"**/other-{n}.log\"]\n");
        configure(&world, "act", &exclude);
        daemon.reload(&world);
    }
    for n in 0..keys.len() {
        let leak = world.leak_of(&format!("k{n}"), |_| true);
        assert_eq!((&leak["count"], &leak["sightings"][0]["line"]), (&1.into(), &(n + 2).into()));
    }
    assert_eq!(world.leaks().len(), keys.len(), "what was there before the first start was read");
    daemon.stop();
}

#[test]
fn a_broken_configuration_keeps_the_old_one_and_is_told() {
    let world = World::new();
    configure(&world, "act", "");
    let keys: Vec<String> = (0..2).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    let mut daemon = world.watch();
    configure(&world, "act", "    wach: 1\n");
    daemon.reload(&world);
    let log = world.log();
    assert!(log.contains("all stays as it was"), "{log}");
    assert!(log.contains("unknown field `wach`") && log.contains("at line 6"), "{log}");
    world.append("logs/app.log", format!("{}\n", keys[0]));
    world.leak_of("k0", done);
    // A broken rule as well.
    configure(&world, "act", "rules: [./rules]\n");
    world.write("rules/mine.yaml", "rules:\n  - id: x\n    colour: red\n");
    daemon.reload(&world);
    let log = world.log();
    assert!(log.contains("rules/mine.yaml") && log.contains("line 3"), "{log}");
    configure(&world, "act", "registry: ./other\n");
    let config = fs::read_to_string(world.path("config.yaml")).unwrap();
    world.write("config.yaml", config.replacen("registry: ./registry\n", "", 1));
    daemon.reload(&world);
    assert!(world.log().contains("changes with a restart only"), "{}", world.log());
    world.append("logs/app.log", format!("{}\n", keys[1]));
    world.leak_of("k1", done);
    daemon.stop();
}

#[test]
fn the_policy_and_the_mail_folder_change_without_a_restart() {
    let world = World::new();
    configure(&world, "act", "");
    let key = world.key("k", "disable", &[]);
    let mut daemon = world.watch();
    configure(&world, "observe", "");
    let config = fs::read_to_string(world.path("config.yaml")).unwrap();
    world.write("config.yaml", config.replace("./mail", "./letters"));
    daemon.reload(&world);
    world.append("logs/app.log", format!("{key}\n"));
    world.leak_of("k", |leak| leak["action"]["result"] == "held");
    assert_eq!(world.verify(&key), "active");
    wait(|| fs::read_dir(world.path("letters")).ok()?.flatten().next()).expect("a mail");
    daemon.stop();
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new();
    configure(&world, "act", "");
    let key = world.key("k", "disable", &[]);
    let mut daemon = world.watch();
    // Somebody holds the database: what was read cannot be written.
    let database = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.append("logs/app.log", format!("{key}\n"));
    daemon.signal(Signal::TERM);
    daemon.wait_told("STOPPING=1", &world);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(3), "{}", world.log());
    database.execute_batch("ROLLBACK").unwrap();
    // Nothing is lost.
    let daemon = world.watch();
    world.leak_of("k", done);
    daemon.stop();
}

/// What is answered to some bytes at the address that the daemon said.
fn ask(world: &World, request: &str) -> String {
    let log = world.log();
    let address = log.rsplit_once("listening address=").expect("an address").1;
    let address = address.split_whitespace().next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::world::PATIENCE)).unwrap();
    // A request that is refused early may not be taken as a whole.
    let _written = stream.write_all(request.as_bytes()).is_ok();
    let mut answer = String::new();
    let _ended = stream.read_to_string(&mut answer).is_ok();
    answer
}

fn get(world: &World, path: &str) -> String {
    ask(world, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn it_tells_how_it_does() {
    let world = World::new();
    configure(&world, "act", "listen: \"127.0.0.1:0\"\n");
    let key = world.key("k", "disable", &[]);
    world.write("logs/app.log", "old\n");
    let mut daemon = world.watch();
    assert!(get(&world, "/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get(&world, "/readyz").ends_with("\r\n\r\nready\n"));
    let lines = format!("one\n{key}\n");
    world.append("logs/app.log", &lines);
    let leak = world.leak_of("k", |leak| {
        done(leak) && leak["notices"].as_array().unwrap().iter().all(|one| one["state"] == "sent")
    });
    let metrics = get(&world, "/metrics");
    let notices = leak["notices"].as_array().unwrap().len();
    for line in [
        &format!("leakwarden_read_bytes_total {}", lines.len()),
        "leakwarden_read_lines_total 2",
        "leakwarden_registered_total 1",
        "leakwarden_incidents{state=\"open\"} 1",
        "leakwarden_actions{state=\"done\"} 1",
        "leakwarden_actions{state=\"failed\"} 0",
        &format!("leakwarden_notices{{state=\"sent\"}} {notices}"),
        "leakwarden_keys 1",
        "leakwarden_queued_batches 0",
        "leakwarden_errors_total 0",
        "leakwarden_ready 1",
        "leakwarden_stuck 0",
        "leakwarden_action_seconds_count 1",
        "leakwarden_action_seconds_bucket{le=\"+Inf\"} 1",
        "# TYPE leakwarden_action_seconds histogram",
        "# TYPE leakwarden_read_bytes_total counter",
    ] {
        assert!(metrics.lines().any(|one| one == line), "no `{line}` in {metrics}");
    }
    for (name, number) in [
        ("up", 1),
        ("degraded", 0),
        ("restarts_total", 0),
        ("lost_bytes_total", 0),
        ("rescans_total", 0),
    ] {
        let head = format!("leakwarden_watch_{name}{{watch=\"logs-");
        let line = metrics.lines().find(|line| line.starts_with(&head)).expect("a line");
        assert!(line.ends_with(&format!("\"}} {number}")), "{line}");
    }
    assert!(!metrics.contains(&key) && !metrics.contains("app.log"), "{metrics}");
    assert!(!metrics.contains("/logs"), "{metrics}");
    assert!(get(&world, "/status").starts_with("HTTP/1.1 404"), "it names paths");
    for (request, status) in [
        ("GET /other HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 404"),
        ("POST /metrics HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 405"),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000)), ""),
    ] {
        let answer = ask(&world, &request);
        assert!(answer.starts_with(status) && answer.is_empty() == status.is_empty(), "{answer}");
    }
    // More who say nothing than there are places: those who ask are answered all the same.
    let address = world.log().rsplit_once("listening address=").unwrap().1.to_owned();
    let address = address.split_whitespace().next().unwrap().to_owned();
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert!(get(&world, "/readyz").ends_with("ready\n"));
    drop(silent);
    // Another address needs a restart, and that is said.
    configure(&world, "act", "listen: \"127.0.0.1:1\"\n");
    daemon.reload(&world);
    assert!(world.log().contains("`listen` changes with a restart only"), "{}", world.log());
    assert!(get(&world, "/readyz").ends_with("ready\n"));
    daemon.stop();
}

#[test]
fn only_this_host_is_listened_to() {
    let world = World::new();
    for address in ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "localhost"] {
        configure(&world, "act", &format!("listen: \"{address}\"\n"));
        let answer = world.run(&["config", "check", "config.yaml"]).expect(2);
        let words = ["config.yaml", "listen", address, "an address of this host with a port"];
        assert!(words.iter().all(|word| answer.err.contains(word)), "{}", answer.err);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    configure(&world, "act", &format!("listen: \"{address}\"\n"));
    let answer = world.run(&["watch", "--config", "config.yaml"]).expect(2);
    assert!(answer.err.contains(&format!("cannot listen on {address}")), "{}", answer.err);
}

#[test]
fn the_log_repeats_itself_only_so_often() {
    let world = World::new();
    let watch = "watch: [{ stdin: true }]\nresponse: { mode: act }\nregistry: ./registry\n";
    // Nobody listens there.
    let smtp = "mail: { smtp: { host: 127.0.0.1, port: 1, tls: none, from: lw@example.com } }\n";
    world.write("config.yaml", format!("{watch}{smtp}"));
    let keys: Vec<String> = (0..12).map(|n| world.key(&format!("k{n}"), "none", &[])).collect();
    let arguments = ["watch", "--config", "config.yaml", "--log-format", "json"];
    let answer = world.run_with(&arguments, keys.join("\n").as_bytes()).expect(0);
    let lines: Vec<serde_json::Value> =
        answer.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let message = |line: &&serde_json::Value| line["fields"]["message"] == "notice put off";
    assert_eq!(lines.iter().filter(message).count(), 10, "{}", answer.err);
    assert!(lines.iter().filter(message).all(|line| line["level"] == "WARN"));
    // Each of them was tried.
    let tried =
        |notice: &serde_json::Value| notice["why"].as_str().is_some_and(|why| !why.is_empty());
    for leak in world.leaks() {
        assert!(leak["notices"].as_array().unwrap().iter().all(tried), "{leak:#}");
    }
}

#[test]
fn it_tells_the_service_manager_what_it_does() {
    let world = World::new();
    configure(&world, "act", "");
    let key = world.key("k", "disable", &[]);
    let mut daemon = world.watch_with(vec![("WATCHDOG_USEC", "2000000".into())]);
    daemon.wait_told(
        "STATUS=ready, 1 watched; 0 bytes and 0 lines read; registered keys seen 0 times",
        &world,
    );
    let line = format!("{key}\n");
    world.append("logs/app.log", &line);
    let told = format!(
        "STATUS=ready, 1 watched; {} bytes and 1 line read; registered keys seen 1 time",
        line.len()
    );
    daemon.wait_told(&told, &world);
    daemon.stop();
}
