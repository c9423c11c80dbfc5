//! `registry export-filter` and `--filter`: live keys, recognised without the registry.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::super::world::{Answer, World, answer};
use super::Repository;

fn without_registry(world: &World, arguments: &[&str]) -> Answer {
    let mut command = world.command(arguments);
    command.env_remove("LEAKWARDEN_REGISTRY");
    answer(command, b"")
}

#[test]
fn a_live_key_is_probable_by_the_filter_and_named_by_the_registry() {
    let world = World::new();
    let key = world.key("deploy", "disable", &["--like", "ibm"]);
    let gone = world.key("gone", "disable", &["--like", "ibm"]);
    world.run(&["key", "disable", "gone"]).expect(0);
    let old = world.key("old", "disable", &["--expires", "2001-01-01"]);
    let told = world.run(&["registry", "export-filter", "filter"]).expect(0);
    assert!(told.out.contains("wrote 1 live key"), "{}", told.out);
    world.write("a.txt", format!("x={key}\ny={gone}\nz={old}\n"));
    let scan = ["scan", "--filter", "filter", "--format", "jsonl", "a.txt"];
    let found = without_registry(&world, &scan).expect(1);
    let lines = found.lines();
    let probable: Vec<_> = lines.iter().filter(|line| line["verdict"] == "probable").collect();
    assert_eq!(probable.len(), 1, "{}", found.out);
    assert_eq!((&probable[0]["line"], &probable[0]["key"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(lines.last().unwrap()["filter"]["keys"], 1);
    assert!(found.err.contains("filter of 20") && !found.both().contains(&key), "{}", found.err);
    // Where the registry is readable it is used, and names the key.
    let named = world.run(&["scan", "--filter", "filter", "a.txt"]).expect(1);
    assert!(named.out.contains("registered") && named.out.contains("deploy@"), "{}", named.out);
    let mut fallback = world.command(&["scan", "--filter", "filter", "a.txt"]);
    fallback.env("LEAKWARDEN_REGISTRY", "/nowhere");
    let fallback = answer(fallback, b"").expect(1);
    assert!(fallback.out.contains("a.txt:1:3: probable …"), "{}", fallback.out);
    // Nothing was done to the key, and who exported is on record.
    assert_eq!(world.verify(&key), "active");
    let audit = rusqlite::Connection::open(world.path("registry/registry.db")).unwrap();
    let sql = "SELECT after FROM audit WHERE action = 'registry export-filter'";
    let after: String = audit.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(after, "keys=1 weak=0 hashed=0");
}

#[test]
fn the_filter_holds_no_key_that_can_be_guessed() {
    let world = World::new();
    let register = |name: &str, key: &str| {
        let arguments = ["key", "register", name, "--owner", "a@example.com"];
        world.run_with(&arguments, key.as_bytes()).expect(0);
    };
    // 64 bits of hex digits and some regular text behind them: enough for the registry.
    let weak = ["0f1e2d3c4b5a", "6978"].concat() + "aaaa";
    register("weak", &weak);
    let strong = ["Zx81Qw92Er03Ty14", "Ui25Op36As47Df58"].concat();
    register("strong", &strong);
    let line = format!(
        "{{\"name\":\"hashed\",\"sha256\":\"{}\",\"shape\":\"hex:64\",\"owner\":\"a@example.com\"}}\n",
        "5".repeat(64)
    );
    world.run_with(&["key", "import", "-"], line.as_bytes()).expect(0);
    let told =
        world.run(&["registry", "export-filter", "filter", "--format", "json"]).expect(0).json();
    assert_eq!((&told["keys"], &told["weak"], &told["hashed"]), (&1.into(), &1.into(), &1.into()));
    world.write("a.txt", format!("{weak}\n{strong}\n"));
    let found = without_registry(&world, &["scan", "--filter", "filter", "a.txt"]).expect(1);
    assert!(
        found.out.contains("a.txt:2:1: probable") && !found.out.contains("a.txt:1:"),
        "{}",
        found.out
    );
    let filter = fs::read(world.path("filter")).unwrap();
    let pepper = fs::read_to_string(world.path("registry/pepper")).unwrap();
    let holds = |what: &str| filter.windows(what.len()).any(|part| part == what.as_bytes());
    let secrets: Vec<&str> =
        pepper.lines().skip(1).map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert!(!holds(secrets[0]) && !holds(secrets[1]) && holds(secrets[2]));
    assert!(!holds("strong") && !holds("example.com") && !holds(&strong));
}

#[test]
fn a_file_that_is_no_filter_or_damaged_is_refused() {
    let world = World::new();
    world.key("deploy", "disable", &[]);
    world.run(&["registry", "export-filter", "filter"]).expect(0);
    let mode = fs::metadata(world.path("filter")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let good = fs::read(world.path("filter")).unwrap();
    world.write("a.txt", "nothing\n");
    let refused = |content: &[u8], why: &str| {
        world.write("filter", content);
        let answer = without_registry(&world, &["scan", "--filter", "filter", "a.txt"]).expect(2);
        assert!(answer.err.contains(why), "{}", answer.err);
    };
    for at in 0..good.len() {
        if at % 7 == 0 || at + 24 > good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            refused(
                &bad,
                if at < 18 {
                    "is no filter"
                } else if at < 19 {
                    "newer"
                } else {
                    "filter"
                },
            );
            refused(&good[..at], if at < 19 { "is no filter" } else { "damaged" });
        }
    }
    refused(b"leakwarden-filter 2\n", "newer leakwarden");
    refused(b"", "is no filter of leakwarden");
    refused(&[&good[..], b"x"].concat(), "damaged");
    let missing = without_registry(&world, &["scan", "--filter", "nowhere", "a.txt"]).expect(2);
    assert!(missing.err.contains("nowhere"), "{}", missing.err);
    world.write("filter", good);
    without_registry(&world, &["scan", "--filter", "filter", "a.txt"]).expect(0);
}

#[test]
fn a_hook_goes_by_the_filter() {
    let repository = Repository::bare_of_hooks();
    let key = repository.world.key("deploy", "disable", &["--like", "ibm"]);
    repository.world.run(&["registry", "export-filter", "filter"]).expect(0);
    let mut install = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    install.args(["hook", "install", "--filter", "../filter"]);
    let mut install = repository.command(install);
    install.env_remove("LEAKWARDEN_REGISTRY");
    answer(install, b"").expect(0);
    repository.write("a.txt", format!("{key}\n"));
    repository.git(&["add", "."]).expect(0);
    let mut commit = Command::new("git");
    commit.args(["commit", "-qm", "x"]);
    let mut commit = repository.command(commit);
    commit.env_remove("LEAKWARDEN_REGISTRY");
    let refused = answer(commit, b"").expect(1);
    assert!(refused.err.contains("a.txt:1:1: probable"), "{}", refused.err);
    assert!(!refused.err.contains("deploy"), "{}", refused.err);
    assert!(refused.err.contains("tell who keeps your organisation's registry"), "{}", refused.err);
}
