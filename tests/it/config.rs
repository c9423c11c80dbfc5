//! The configuration file.

use super::world::World;

#[track_caller]
fn refused(config: &str, expected: &[&str]) {
    let world = World::empty();
    world.write("c.yaml", config);
    let answer = world.run(&["config", "check", "c.yaml"]).expect(2);
    for word in expected {
        assert!(answer.err.contains(word), "`{word}` not in: {}", answer.err);
    }
}

#[test]
fn the_example_is_right_and_complete() {
    let world = World::empty();
    let example = include_str!("../../config.example.yaml");
    world.write("config.yaml", example);
    world.run(&["config", "check", "config.yaml"]).expect(0);
    for field in [
        "create_if_missing",
        "rules:",
        "files:",
        "logs:",
        "journald:",
        "units:",
        "pipe:",
        "stdin:",
        "exclude:",
        "start:",
        "homes:",
        "mode:",
        "brake:",
        "max:",
        "per_owner:",
        "per_source:",
        "window:",
        "delete_grace:",
        "locked:",
        "directory:",
        "retry_after:",
        "give_up_after:",
        "smtp:",
        "host:",
        "port:",
        "tls:",
        "username:",
        "password_file:",
        "from:",
        "deadline:",
        "listen:",
    ] {
        assert!(example.contains(field), "{field} is not explained");
    }
}

#[test]
fn faults_are_told_with_file_line_field_and_what_was_expected() {
    let base = "registry: ./r\nresponse: { mode: act }\n";
    refused(&format!("{base}wach: []\n"), &["c.yaml", "wach", "line 3", "expected one of"]);
    refused("registry: ./r\n", &["missing field `response`"]);
    refused("registry: ./r\nresponse: {}\n", &["response", "missing field `mode`", "line 2"]);
    refused(
        "registry: ./r\nresponse: { mode: maybe }\n",
        &["response.mode", "maybe", "`act`", "line 2"],
    );
    refused("registry: 7\nresponse: { mode: act }\n", &["registry", "a folder", "line 1"]);
    refused(&format!("{base}watch:\n  - files: ./x\n"), &["watch[0].files", "sequence", "line 4"]);
    refused(
        &format!("{base}watch:\n  - {{}}\n"),
        &["watch[0]", "one of `files`, `logs`, `git`, `journald`, `pipe` and `stdin`", "line 4"],
    );
    refused(&format!("{base}watch:\n  - files: ['/a/[']\n"), &["watch[0]", "[", "line 4"]);
    refused(
        "registry: ./r\nresponse: { mode: act, delete_grace: soon }\n",
        &["response.delete_grace", "soon", "10m", "line 2"],
    );
    refused(
        &format!("{base}mail: {{ smtp: {{ host: mx.example.com, tls: none, from: a@b.c }} }}\n"),
        &["mail.smtp", "this host only", "mx.example.com", "line 3"],
    );
    refused(
        &format!("{base}mail: {{ smtp: {{ host: localhost, tls: none, from: nobody }} }}\n"),
        &["mail.smtp", "from", "nobody", "line 3"],
    );
}

#[test]
fn a_daemon_without_a_registry_does_not_make_one() {
    let world = World::empty();
    world.write("c.yaml", "registry: ./r\nresponse: { mode: act }\n");
    let answer = world.run(&["watch", "--config", "c.yaml"]).expect(2);
    assert!(answer.err.contains("nothing is watched"), "{}", answer.err);
    world.write("c.yaml", "registry: ./r\nresponse: { mode: act }\nwatch: [{ files: [./x] }]\n");
    let answer = world.run(&["watch", "--config", "c.yaml"]).expect(2);
    assert!(answer.err.contains("leakwarden init --dir"), "{}", answer.err);
    assert!(!world.path("r").exists());
}
