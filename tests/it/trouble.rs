//! Disks that are full, broken or read-only, several users at once, and a stolen database.

use std::fs;
use std::process::Command;

use rusqlite::Connection;

use super::world::{World, answer, exists};

/// A command whose calls of one kind fail from the first or the second on.
fn failing(world: &World, call: &str, error: &str, arguments: &[&str]) -> super::world::Answer {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:error={error}:when=1+")]);
    command.arg(env!("CARGO_BIN_EXE_leakwarden")).args(arguments);
    command.current_dir(world.path("")).env("LEAKWARDEN_REGISTRY", world.path("registry"));
    answer(command, b"")
}

#[test]
fn without_a_durable_row_nothing_is_changed() {
    for (call, error) in [
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("pwrite64", "EROFS"),
        ("fdatasync,fsync", "EIO"),
    ] {
        let world = World::new();
        let key = world.key("k", "none", &[]);
        for arguments in [&["key", "disable", "k"][..], &["key", "lock", "k"]] {
            let answer = failing(&world, call, error, arguments);
            assert_eq!(answer.code, 2, "{call} {error}: {}", answer.both());
            assert!(answer.err.contains("nothing was changed"), "{error}: {}", answer.err);
        }
        let create = ["key", "create", "new", "--owner", "a@example.com", "--file", "new.key"];
        let answer = failing(&world, call, error, &create);
        assert_eq!(answer.code, 2, "{call} {error}: {}", answer.both());
        assert!(!exists(&world.path("new.key")), "a key file without a key");
        // And when the disk is well again, everything works.
        assert_eq!(world.verify(&key), "active");
        world.run(&["key", "show", "new"]).expect(2);
        world.run(&["registry", "check"]).expect(0);
        world.run(&["key", "disable", "k"]).expect(0);
        assert_eq!(world.verify(&key), "disabled");
    }
}

/// Files with so many lines in each of which stands a key that a rule finds, or a registered one.
fn leaky(world: &World, files: usize, lines: usize) {
    let key = world.key("k", "none", &[]);
    for file in 0..files {
        let token = |line: usize| match line % 1000 {
            7 => key.clone(),
            // No key of anybody: assembled here, and without a check digit.
            _ => format!("{}-{line:08}aBcDeFgHiJkL", "glpat"),
        };
        let text: String = (0..lines).map(|line| format!("{}\n", token(line))).collect();
        world.write(&format!("leaky/{file}.log"), text);
    }
}

#[test]
fn findings_that_fit_into_no_memory_are_told_in_order() {
    let world = World::new();
    leaky(&world, 3, 6_000);
    let scan = ["scan", "leaky", "--threads", "2", "--min-confidence", "low", "--format"];
    let told = |answer: super::world::Answer| {
        let mut lines = answer.expect(1).lines();
        assert_eq!(lines.pop().unwrap()["findings"], 18_000);
        lines
    };
    let command = |format| [&scan[..], &[format]].concat();
    let all = told(world.run(&command("jsonl")));
    let place = |line: &serde_json::Value| {
        (line["path"].as_str().unwrap().to_owned(), line["line"].as_u64().unwrap())
    };
    assert!(all.is_sorted_by(|one, next| place(one) < place(next)));
    let registered = all.iter().filter(|line| line["verdict"] == "registered");
    assert!(registered.clone().all(|line| line["key"]["name"] == "k"));
    assert_eq!(registered.count(), 18);
    let document = world.run(&command("json")).expect(1).json();
    assert_eq!(document["findings"].as_array().unwrap(), &all);
    let text = world.run(&command("text")).expect(1).out;
    assert_eq!(text.lines().filter(|line| line.starts_with("leaky/")).count(), 18_000);
    assert!(text.contains("18,000 leaks found, 18 of them registered"), "{text}");
    // Where they cannot be written, they stay in memory. (A registry could not be read, either.)
    let command = [&command("jsonl")[..], &["--no-registry"]].concat();
    for error in ["ENOSPC", "EIO"] {
        let held = told(failing(&world, "pwrite64", error, &command));
        assert!(held.iter().map(place).eq(all.iter().map(place)), "{error}");
    }
}

/// A scan of `leaky/0.log` under a limit on resources.
fn limited(world: &World, limit: &str) -> super::world::Answer {
    let mut command = Command::new("prlimit");
    command.args([limit, env!("CARGO_BIN_EXE_leakwarden"), "scan", "--no-registry"]);
    command.args(["--min-confidence", "low", "--quiet", "leaky/0.log"]);
    command.current_dir(world.path(""));
    answer(command, b"")
}

#[test]
fn any_number_of_findings_takes_little_memory() {
    let world = World::new();
    leaky(&world, 1, 600_000);
    // In memory they would be more.
    assert_eq!(limited(&world, "--as=536870912").expect(1).out.lines().count(), 600_000);
}

/// Each beginning of a token within a token is one as well: copies of all would be gigabytes.
#[test]
fn matches_within_matches_take_little_memory() {
    let world = World::new();
    let token =
        [100, 450, 170].map(|count| format!("{}{}", "eyJ-", "eyJ-".repeat(count))).join(".");
    let quiet = "a line of a log, of no interest whatsoever\n".repeat(800_000);
    let text = [&*quiet, &format!("{token} ").repeat(700), &quiet].concat();
    assert!(text.len() > 64 << 20, "read in parts, by several threads");
    world.write("leaky/0.log", text);
    let found = limited(&world, "--as=402653184").expect(1).out.lines().count();
    assert!((700..2_000).contains(&found), "{found}");
}

#[test]
fn a_limit_on_the_size_of_files_ends_no_scan() {
    let world = World::new();
    leaky(&world, 1, 10_000);
    assert_eq!(limited(&world, "--fsize=100000").expect(1).out.lines().count(), 10_000);
}

#[test]
fn a_report_that_nobody_reads_on_ends_as_if_it_was() {
    let world = World::new();
    leaky(&world, 1, 10_000);
    for format in ["text", "jsonl", "json"] {
        let mut command = Command::new("bash");
        let scan = format!("{} scan leaky --format {format}", env!("CARGO_BIN_EXE_leakwarden"));
        let script = format!("{scan} --min-confidence low | head -1; exit ${{PIPESTATUS[0]}}");
        command.args(["-c", &script]).current_dir(world.path(""));
        let answer = answer(command, b"").expect(1);
        assert_eq!(answer.out.lines().count(), 1, "{format}");
        assert!(!answer.err.contains("error"), "{format}: {}", answer.err);
    }
}

#[test]
fn a_daemon_whose_disk_fails_goes_on_by_itself_when_it_is_well() {
    std::thread::scope(|scope| {
        for failure in [
            "pwrite64:error=ENOSPC:when=60..66",
            "pwrite64:error=EIO:when=60..66",
            "pwrite64:error=EROFS:when=60..66",
            "fdatasync,fsync:error=EIO:when=12..16",
        ] {
            let work = move || goes_on_after(failure);
            std::thread::Builder::new().spawn_scoped(scope, work).unwrap();
        }
    });
}

fn goes_on_after(failure: &str) {
    let world = World::new();
    let brake = "{ mode: act, brake: { max: 99, per_owner: 99, per_source: 99 } }";
    world.configure(brake, "{ directory: ./mail }");
    let names: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    let keys: Vec<String> = names.iter().map(|name| world.key(name, "disable", &[])).collect();
    let daemon = world.watch_where_calls_fail(failure);
    for (name, key) in names.iter().zip(&keys) {
        world.write(&format!("inbox/{name}.txt"), key);
        world.leak_of(name, |leak| leak["action"]["result"] == "done");
    }
    assert!(world.log().contains("trying again"), "{failure}: {}", world.log());
    daemon.stop();
    for (name, key) in names.iter().zip(&keys) {
        assert_eq!(world.verify(key), "disabled");
        assert_eq!(world.leak_of(name, |_| true)["count"], 1, "{failure}");
    }
    let told = world.log().matches("leak action took effect").count();
    assert_eq!(told, names.len(), "{failure}: told of what was not written");
    world.run(&["registry", "check"]).expect(0);
}

/// Every kind of use at once: nobody is told that the database is busy.
#[test]
fn a_thousand_uses_at_once_wait_for_each_other() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    world.run(&["account", "update", "--max-keys", "9999"]).expect(0);
    let key = world.key("shared", "none", &[]);
    let daemon = world.watch();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (world, key) = (&world, &key);
            let work = move || {
                for round in 0..21 {
                    let name = format!("k{worker}-{round}");
                    let create = ["key", "create", &name, "--owner", "a@example.com", "--file"];
                    world.run(&[&create[..], &[&format!("{name}.key")]].concat()).expect(0);
                    world.run(&["key", "lock", &name]).expect(0);
                    world.run(&["key", "show", &name]).expect(0);
                    assert_eq!(world.verify(key), "active");
                    world.run(&["scan", &format!("{name}.key"), "--quiet"]).expect(1);
                    world.append("logs/app.log", format!("line {round} of {worker}\n"));
                    world.run(&["leak", "list"]).expect(0);
                }
            };
            std::thread::Builder::new().spawn_scoped(scope, work).unwrap();
        }
    });
    let late = world.key("late", "disable", &[]);
    world.write("inbox/x.txt", &late);
    world.leak_of("late", |leak| leak["action"]["result"] == "done");
    daemon.stop();
    let answer = world.run(&["registry", "check"]).expect(0);
    assert!(answer.out.contains("whole: 170 keys"), "{}", answer.out);
    assert!(!world.log().contains("cannot write"), "{}", world.log());
}

#[test]
fn a_stolen_database_confirms_no_key() {
    let world = World::new();
    let mut keys = Vec::new();
    let mut lines = String::new();
    for number in 0..1_000u32 {
        let text =
            leakwarden::secret::to_hex(&leakwarden::secret::identity_hash(
                &[&number.to_le_bytes()],
            ));
        let key = format!("{}-Zz_{}", &text[..24], &text[24..40]);
        lines.push_str(&serde_json::json!({"name": number.to_string(), "key": key}).to_string());
        lines.push('\n');
        keys.push(key);
    }
    world.write("keys.jsonl", lines);
    world.run(&["key", "import", "keys.jsonl"]).expect(0);
    let thief = World::new();
    let loot = thief.path("registry/registry.db");
    world.run(&["registry", "backup", "copy.db"]).expect(0);
    fs::copy(world.path("copy.db"), &loot).unwrap();
    assert!(thief.run(&["key", "list"]).expect(2).err.contains("not the one"));
    // Even one who bends the check value to a pepper of their own confirms nothing.
    let own = World::new();
    let check: Vec<u8> = Connection::open(own.path("registry/registry.db"))
        .unwrap()
        .query_row("SELECT value FROM meta WHERE name = 'pepper_check'", [], |row| row.get(0))
        .unwrap();
    fs::copy(own.path("registry/pepper"), thief.path("registry/pepper")).unwrap();
    Connection::open(&loot)
        .unwrap()
        .execute("UPDATE meta SET value = ?1 WHERE name = 'pepper_check'", [check])
        .unwrap();
    let many = thief.run_with(&["key", "verify", "--many"], keys.join("\n").as_bytes()).expect(1);
    assert_eq!(many.out.lines().filter(|line| *line == "unknown").count(), 1_000);
    // And no digest or tag is a plain hash of a key.
    let text = fs::read(&loot).unwrap();
    for key in keys.iter().take(50) {
        let hash = <sha2::Sha256 as sha2::Digest>::digest(key.as_bytes());
        assert!(memchr::memmem::find(&text, &hash).is_none());
        assert!(memchr::memmem::find(&text, key.as_bytes()).is_none());
    }
}

#[test]
fn rows_with_high_numbers_are_loaded_like_others() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    let numbered = Connection::open(world.path("registry/registry.db"))
        .unwrap()
        .execute("UPDATE keys SET seq = ?1", [i64::MAX]);
    assert_eq!(numbered, Ok(1));
    // So long a text that all keys are loaded for it.
    let lines = format!("key: {key}\n{}", "a line without a key\n".repeat(100));
    let long = world.write("long.txt", lines);
    fs::OpenOptions::new().write(true).open(long).unwrap().set_len(65 << 20).unwrap();
    let found = world.run(&["scan", "long.txt"]).expect(1);
    assert!(found.both().contains("registered"), "{}", found.both());
}
