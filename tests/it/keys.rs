//! `init` and `key`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use super::world::{World, answer, github_token, wait};

#[test]
fn init_makes_a_closed_folder_and_refuses_to_do_it_twice() {
    let world = World::new();
    let mode = |name: &str| fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("registry"), 0o700);
    for file in ["registry.db", "pepper", "config.yaml"] {
        assert_eq!(mode(&format!("registry/{file}")), 0o600, "{file}");
    }
    let config = fs::read_to_string(world.path("registry/config.yaml")).unwrap();
    assert!(config.contains("mode: observe"));
    world.run(&["config", "check", "registry/config.yaml"]).expect(0);
    let before = fs::read(world.path("registry/pepper")).unwrap();
    let answer = world.run(&["init", "--dir", "registry"]).expect(2);
    assert!(answer.err.contains("nothing was changed"), "{}", answer.err);
    assert_eq!(fs::read(world.path("registry/pepper")).unwrap(), before);
}

#[test]
fn a_registry_that_cannot_be_trusted_is_refused() {
    let world = World::new();
    world.key("one", "none", &[]);
    let pepper = world.path("registry/pepper");
    fs::set_permissions(&pepper, fs::Permissions::from_mode(0o640)).unwrap();
    let answer = world.run(&["key", "list"]).expect(2);
    assert!(answer.err.contains("chmod 0600"), "{}", answer.err);
    fs::set_permissions(&pepper, fs::Permissions::from_mode(0o600)).unwrap();
    let other = World::new();
    fs::copy(other.path("registry/pepper"), &pepper).unwrap();
    let answer = world.run(&["key", "list"]).expect(2);
    assert!(answer.err.contains("not the one this registry was made with"), "{}", answer.err);
    let answer = world.run(&["key", "list", "--registry", "elsewhere"]).expect(2);
    assert!(answer.err.contains("leakwarden init --dir elsewhere"), "{}", answer.err);
    assert!(!world.path("elsewhere").exists());
}

#[test]
fn a_key_is_shown_once_and_verifies() {
    let world = World::new();
    let key = world.key("ci", "delete", &[]);
    assert!(key.starts_with("lw_user_") && key.len() == 44, "{}", key.len());
    assert_eq!(world.verify(&key), "active");
    assert_eq!(world.verify(&format!("{key}\n")), "active");
    assert_eq!(world.verify(&key.to_lowercase()), "unknown");
    for command in
        [&["key", "list"][..], &["key", "show", "ci"], &["key", "list", "--format", "json"]]
    {
        assert!(!world.run(command).expect(0).both().contains(&key));
    }
    let shown = world.run(&["key", "show", "ci", "--format", "json"]).expect(0).json();
    assert_eq!(shown["leak_action"], "delete");
    assert_eq!(shown["owner"], "ci@example.com");
    let uuid = shown["id"].as_str().unwrap().strip_prefix("ApiKey-").unwrap();
    world.run(&["key", "show", uuid]).expect(0);
}

#[test]
fn the_ibm_form_has_no_prefix() {
    let world = World::new();
    let key = world.key("ibm", "disable", &["--like", "ibm"]);
    assert_eq!(key.len(), 44);
    assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    assert_eq!(world.verify(&key), "active");
}

#[test]
fn files_are_closed_whatever_the_umask() {
    let world = World::empty();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "umask 000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_leakwarden")]);
        command.args(arguments).current_dir(world.path(""));
        answer(command, b"").expect(0);
    };
    run(&["init", "--dir", "registry", "--admin", "admin@example.com"]);
    run(&["key", "create", "f", "--file", "f.key", "--registry", "registry"]);
    run(&["registry", "backup", "copy.db", "--registry", "registry"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&world.path("registry")), 0o700);
    let mut files = vec![world.path("f.key"), world.path("copy.db")];
    files.extend(fs::read_dir(world.path("registry")).unwrap().map(|entry| entry.unwrap().path()));
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_key_file_is_closed_and_never_overwritten() {
    let world = World::new();
    let create = ["key", "create", "f", "--owner", "f@example.com", "--file", "f.key"];
    let answer = world.run(&create).expect(0);
    let key = fs::read_to_string(world.path("f.key")).unwrap();
    assert!(!answer.both().contains(key.trim()));
    let mode = fs::metadata(world.path("f.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    world.run(&create).expect(2);
    assert_eq!(fs::read_to_string(world.path("f.key")).unwrap(), key);
    let keys = world.run(&["key", "list", "--format", "json"]).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn states_and_the_lock() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    world.run(&["key", "disable", "k"]).expect(0);
    assert_eq!(world.verify(&key), "disabled");
    world.run(&["key", "enable", "k"]).expect(0);
    assert_eq!(world.verify(&key), "active");
    world.run(&["key", "lock", "k"]).expect(0);
    let answer = world.run(&["key", "delete", "k", "--force"]).expect(2);
    assert!(answer.err.contains("k is locked"), "{}", answer.err);
    assert_eq!(world.verify(&key), "active");
    world.run(&["key", "unlock", "k"]).expect(0);
    let answer = world.run(&["key", "delete", "k"]).expect(2);
    assert!(answer.err.contains("--force"), "{}", answer.err);
    world.run(&["key", "delete", "k", "-f"]).expect(0);
    assert_eq!(world.verify(&key), "deleted");
    let answer = world.run(&["key", "enable", "k"]).expect(2);
    assert!(answer.err.contains("for good"), "{}", answer.err);
    let expired = world.key("old", "none", &["--expires", "2020-01-01"]);
    assert_eq!(world.verify(&expired), "expired");
}

#[test]
fn a_name_that_two_keys_have_is_refused_with_their_ids() {
    let world = World::new();
    world.key("same", "none", &[]);
    world.key("same", "none", &[]);
    let answer = world.run(&["key", "disable", "same"]).expect(2);
    assert_eq!(answer.err.matches("ApiKey-").count(), 2, "{}", answer.err);
}

#[test]
fn twenty_keys_an_identity() {
    let world = World::new();
    for _ in 0..20 {
        world.key("many", "none", &[]);
    }
    let answer = world.run(&["key", "create", "many", "--owner", "many@example.com"]).expect(2);
    assert!(answer.err.contains("20 is the limit"), "{}", answer.err);
}

#[test]
fn keys_from_elsewhere_are_registered_once_and_only_if_strong() {
    let world = World::new();
    let token = github_token();
    let register = |name: &str, key: &str| {
        world.run_with(&["key", "register", name, "--owner", "a@example.com"], key.as_bytes())
    };
    register("github", &token).expect(0);
    assert_eq!(world.verify(&token), "active");
    let shown = world.run(&["key", "show", "github"]).expect(0);
    assert!(shown.out.contains("ghp_…"), "{}", shown.out);
    assert!(register("again", &token).expect(2).err.contains("registered already, as github"));
    let other = token.replace("0a1B", "9z8Y");
    world.write("keys.jsonl", json!({"name": format!("the {other}"), "key": other}).to_string());
    let answer = world.run(&["key", "import", "keys.jsonl"]).expect(3);
    assert!(answer.err.contains("holds the key itself"), "{}", answer.err);
    assert!(register("weak", "").expect(2).err.contains("no key on standard input"));
    assert!(register("weak", "hunter2").expect(2).err.contains("can be guessed"));
    assert!(register("weak", &"ab".repeat(20)).expect(2).err.contains("too regular"));
    assert!(register("weak", "a key with spaces in it, thirty").expect(2).err.contains("visible"));
}

#[test]
fn import_takes_the_good_lines_and_says_what_is_wrong_with_the_others() {
    let world = World::new();
    let secret = "Zx81-Qw92_Er03+Ty14/Ui25=Op36.As47";
    let hash = "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592";
    let lines = [
        json!({"name": "a", "key": github_token(), "owner": "a@example.com",
               "leak_action": "delete", "locked": true, "expires_at": "2099-01-01",
               "homes": ["/etc/a.env"]})
        .to_string(),
        json!({"name": "b", "sha256": hash, "shape": "base64url:44"}).to_string(),
        json!({"name": "c", "key": secret, "leak_action": "explode"}).to_string(),
        json!({"name": "d", "key": secret, "color": "red"}).to_string(),
        format!("{{\"name\": \"e\", \"key\": {{\"{secret}\": 1}}}}"),
        json!({"name": "f"}).to_string(),
    ];
    world.write("keys.jsonl", lines.join("\n"));
    let answer = world.run(&["key", "import", "keys.jsonl"]).expect(3);
    assert!(answer.out.contains("imported 2, refused 4"), "{}", answer.both());
    assert!(answer.err.contains("1 key known by the SHA-256 only"), "{}", answer.err);
    assert!(
        answer.err.contains("line 3: refused: leak_action: expected one of none, disable, delete")
    );
    assert!(!answer.both().contains(secret), "a key in an error text");
    let a = world.run(&["key", "show", "a", "--format", "json"]).expect(0).json();
    assert_eq!((&a["leak_action"], &a["locked"]), (&json!("delete"), &json!(true)));
    let b = world.run(&["key", "show", "b", "--format", "json"]).expect(0).json();
    assert_eq!(b["leak_action"], "none");
    let other = World::new();
    other.write("keys.jsonl", lines.join("\n"));
    other.run(&["key", "import", "--all-or-nothing", "keys.jsonl"]).expect(3);
    let keys = other.run(&["key", "list", "--format", "json"]).json();
    assert!(keys["keys"].as_array().unwrap().is_empty());
}

#[test]
fn a_key_of_which_only_the_hash_is_known_is_found() {
    use std::fmt::Write as _;
    let world = World::new();
    let key = "Abcdefgh-1234567_ABCDEFGH-7654321_zyxwvut-99";
    let hash = openssl_sha256(key);
    let mut line = String::new();
    writeln!(line, "{}", json!({"name": "h", "sha256": hash, "shape": "base64url:44"})).unwrap();
    world.write("keys.jsonl", line);
    world.run(&["key", "import", "keys.jsonl"]).expect(0);
    assert_eq!(world.verify(key), "active");
    world.write("leak.txt", format!("x={key};\n"));
    let answer = world.run(&["scan", "leak.txt", "--format", "jsonl"]).expect(1);
    assert_eq!(answer.lines()[0]["key"]["name"], "h");
}

fn openssl_sha256(text: &str) -> String {
    let mut command = std::process::Command::new("sha256sum");
    command.arg("-");
    let answer = answer(command, text.as_bytes()).expect(0);
    answer.out.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_key_as_an_argument_is_refused_and_not_repeated() {
    let world = World::new();
    // One that begins with `-` would be taken for an option.
    let own = (0..)
        .map(|number| world.key(&format!("ibm{number}"), "none", &["--like", "ibm"]))
        .find(|key| !key.starts_with('-'))
        .unwrap();
    let token = github_token();
    for arguments in [
        vec!["key", "show", own.as_str()],
        vec!["key", "create", token.as_str()],
        vec!["scan", "--no-such-flag", token.as_str()],
        vec!["key", "create", "x", "-d", own.as_str()],
    ] {
        let answer = world.run(&arguments).expect(2);
        assert!(answer.err.contains("an argument is an API key"), "{}", answer.both());
        assert!(!answer.both().contains(&own) && !answer.both().contains(&token));
    }
}

#[test]
fn counting_uses_leaves_no_log_that_grows() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    let log = || fs::metadata(world.path("registry/registry.db-wal")).map_or(0, |meta| meta.len());
    let mut longest = 0;
    for _ in 0..150 {
        assert_eq!(world.verify(&key), "active");
        longest = longest.max(log());
    }
    // Some counts wait in it, as nobody waits for the disk; the next one has to read them.
    assert!((1..400 * 1024).contains(&longest), "{longest}");
    let shown = world.run(&["key", "show", "k", "--format", "json"]).expect(0).json();
    assert_eq!(shown["use_count"], 150);
}

/// It ends without closing the database; who comes next finds all as it was.
#[test]
fn a_scan_leaves_an_empty_log() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    fs::write(world.path("leak.txt"), &key).unwrap();
    for _ in 0..2 {
        let found = world.run(&["scan", "leak.txt"]).expect(1);
        assert!(found.out.contains("1 of them registered"), "{}", found.both());
        assert_eq!(fs::metadata(world.path("registry/registry.db-wal")).unwrap().len(), 0);
    }
    world.run(&["registry", "check"]).expect(0);
    assert_eq!(world.verify(&world.key("later", "none", &[])), "active");
}

/// What others wrote meanwhile is taken into the database by who ends last.
#[test]
fn a_scan_leaves_no_changes_in_the_log() {
    let world = World::new();
    let mut scan = world
        .command(&["scan", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = world.path("registry/registry.db-wal");
    wait(|| log.exists().then_some(())).unwrap();
    world.key("k", "none", &[]);
    assert!(fs::metadata(&log).unwrap().len() > 0);
    scan.stdin.take().unwrap().write_all(b"nothing").unwrap();
    assert_eq!(scan.wait().unwrap().code(), Some(0));
    assert!(!log.exists());
}

/// The registry knows the fewest digits and capitals of any key of a shape: what has fewer is not
/// looked up.
#[test]
fn keys_of_few_digits_and_capitals_are_found_beside_strong_ones() {
    let world = World::new();
    let strong = "7Qz4Xk9-Lm2Rt8-Wv5Yb3-Hd6Jf1Gs0";
    let plain = "kqzvxwj-plmrtns-wvyibhc-hdajfegs";
    let import = |name: &str, key: &str| {
        world.write("keys.jsonl", json!({"name": name, "key": key, "owner": "a@b.cd"}).to_string());
        world.run(&["key", "import", "keys.jsonl"]).expect(0);
    };
    world.write("leak.txt", format!("names: {plain}\nkey: {strong}\n"));
    let found = || world.run(&["scan", "leak.txt", "--only", "registered"]);
    import("strong", strong);
    let answer = found().expect(1);
    assert!(answer.out.contains("leak.txt:2:6") && !answer.out.contains("leak.txt:1:"));
    import("plain", plain);
    let answer = found().expect(1);
    assert!(answer.out.contains("leak.txt:1:8") && answer.out.contains("leak.txt:2:6"));
}
