//! `scan`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::history::Git;
use super::world::{World, answer, github_token};

#[test]
fn a_registered_key_is_named_with_its_owner() {
    let world = World::new();
    let key = world.key("deploy", "disable", &["--like", "ibm"]);
    world.write("src/app.py", format!("import os\nKEY = '{key}'\n"));
    let report = world.run(&["scan", "src"]).expect(1);
    assert!(report.out.starts_with("registry: 1 key\n"), "{}", report.out);
    assert!(report.out.contains("src/app.py:2:8: registered"), "{}", report.out);
    assert!(report.out.contains("deploy (ApiKey-") && report.out.contains("deploy@example.com"));
    let lines = world.run(&["scan", "src", "--format", "jsonl"]).expect(1).lines();
    let finding = &lines[0];
    assert_eq!(finding["type"], "finding");
    assert_eq!(finding["verdict"], "registered");
    assert_eq!(finding["key"]["leak_action"], "disable");
    assert_eq!((&finding["line"], &finding["column"]), (&2.into(), &8.into()));
    assert_eq!((&finding["start"], &finding["end"]), (&17.into(), &61.into()));
    assert_eq!(finding["fingerprint"].as_str().unwrap().len(), 16);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["complete"]), (&"summary".into(), &true.into()));
    assert_eq!((&summary["files"], &summary["registered"]), (&1.into(), &1.into()));
    let again = world.run(&["scan", "src", "--format", "jsonl"]).lines();
    assert_eq!(again[0]["fingerprint"], finding["fingerprint"]);
}

#[test]
fn a_deleted_key_is_still_recognised() {
    let world = World::new();
    let key = world.key("gone", "none", &[]);
    world.run(&["key", "delete", "gone", "-f"]).expect(0);
    let report = world.run_with(&["scan", "--stdin", "--format", "jsonl"], key.as_bytes());
    let lines = report.expect(1).lines();
    assert_eq!(lines[0]["key"]["state"], "deleted");
    assert_eq!(lines[1]["registry"], 0, "a tombstone is not counted");
}

#[test]
fn without_a_registry_rules_alone_work_and_say_so() {
    let world = World::empty();
    world.write("a.txt", format!("token={}\n", github_token()));
    let report = world.run(&["scan", "a.txt"]).expect(1);
    assert!(report.out.starts_with("NO REGISTRY: rules only\n"), "{}", report.out);
    assert!(report.out.contains("[github-pat-classic]") && !report.out.contains(&github_token()));
    let answer = world.run(&["scan", "a.txt", "--only", "registered"]).expect(2);
    assert!(answer.err.contains("needs a registry"), "{}", answer.err);
    let world = World::new();
    world.write("a.txt", "nothing\n");
    let report = world.run(&["scan", "a.txt", "--no-registry"]).expect(0);
    assert!(report.out.starts_with("NO REGISTRY"), "{}", report.out);
}

#[test]
fn what_was_not_read_is_never_clean() {
    let world = World::empty();
    world.write("ok/a.txt", "nothing here\n");
    fs::create_dir(world.path("empty")).unwrap();
    world.run(&["scan", "ok"]).expect(0);
    world.run(&["scan", "empty"]).expect(3);
    world.run(&["scan", "missing"]).expect(3);
    let report = world.run(&["scan", "ok", "missing", "--format", "jsonl"]).expect(3);
    let summary = report.lines().pop().unwrap();
    assert_eq!(summary["complete"], false);
    assert_eq!(summary["skipped"][0]["why"], "no such file or directory");
    world.run(&["scan", "--stdin"]).expect(3);
    world.run(&["scan", "--diff"]).expect(3);
    world.run_with(&["scan", "--diff"], b"this is no diff\n").expect(3);
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("pipe"), 0o600.into()).unwrap();
    let report = world.run(&["scan", "pipe"]).expect(3);
    assert!(report.out.contains("not a regular file"), "{}", report.out);
    world.write("leak.txt", github_token());
    world.run(&["scan", "missing", "leak.txt"]).expect(1);
    world.run(&["scan", "--no-such-flag"]).expect(2);
}

/// As a user whom modes bind (root reads everything).
#[test]
fn an_unreadable_file_makes_a_scan_incomplete() {
    let world = World::empty();
    fs::set_permissions(world.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    world.write("tree/a.txt", "nothing here\n");
    let secret = world.write("tree/b.txt", "who knows\n");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).unwrap();
    let program = world.path("leakwarden");
    fs::copy(env!("CARGO_BIN_EXE_leakwarden"), &program).unwrap();
    let mut command = if rustix::process::getuid().is_root() {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command
    } else {
        std::process::Command::new(&program)
    };
    command.args(["scan", "tree"]).current_dir(world.path(".")).env_remove("LEAKWARDEN_REGISTRY");
    let report = answer(command, b"").expect(3);
    assert!(report.out.contains("not read: tree/b.txt: permission denied"), "{}", report.out);
}

/// Deep and wide, with more threads than there may be files.
#[test]
fn few_file_descriptors_are_enough() {
    let world = World::empty();
    let token = github_token();
    let mut folder = "tree".to_owned();
    for level in 0..120 {
        for leaf in 0..3 {
            world.write(&format!("{folder}/l{leaf}/a.txt"), format!("{token}\n"));
        }
        folder.push_str(if level % 2 == 0 { "/d" } else { "/m" });
    }
    let arguments = ["scan", "tree", "--threads", "64", "--format", "jsonl"];
    let answer = answer(world.under(&["prlimit", "--nofile=30:30"], &arguments), b"").expect(1);
    let lines = answer.lines();
    assert_eq!(lines.len(), 361, "{}", answer.both());
    assert_eq!(lines[360]["complete"], true);
}

#[test]
fn gitignore_is_honoured_in_a_work_tree_and_counted() {
    let world = World::empty();
    world.write("repo/.gitignore", "build/\n*.tmp\n");
    world.write("repo/.hidden", "x\n");
    world.write("repo/build/out.txt", github_token());
    world.write("repo/a.tmp", github_token());
    world.write("repo/.git/config", github_token());
    let report = world.run(&["scan", "repo", "--format", "jsonl"]).expect(0);
    let summary = report.lines().pop().unwrap();
    assert_eq!((&summary["files"], &summary["ignored"]), (&2.into(), &2.into()));
    let report = world.run(&["scan", "repo", "--no-ignore", "--format", "jsonl"]).expect(1);
    assert_eq!(report.lines().len(), 3);
    world
        .run(&["scan", "repo", "--no-ignore", "--exclude", "build", "--exclude", "*.tmp"])
        .expect(0);
}

#[test]
fn a_diff_reports_added_lines_with_their_numbers() {
    let world = World::empty();
    let token = github_token();
    let diff = format!(
        "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -10,2 +10,3 @@ def f():\n \
         context {token}\n-removed {token}\n+added = 1\n+token = '{token}'\n"
    );
    let report = world.run_with(&["scan", "--diff", "--format", "jsonl"], diff.as_bytes());
    let lines = report.expect(1).lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!((&lines[0]["path"], &lines[0]["line"]), (&"x.py".into(), &12.into()));
}

#[test]
fn a_diff_tells_paths_whatever_git_puts_before_them() {
    let git = Git::new();
    // Folders named as what git puts before names.
    let old = ["b/b.txt", "a/b/x.txt", "w/i.txt", "i/a b.txt", "b/é\t.txt", "i/old.txt"];
    for name in old {
        git.write(name, format!("{name}\n").repeat(9));
    }
    git.commit("first");
    for name in old {
        git.write(name, format!("{}{}\n", format!("{name}\n").repeat(9), github_token()));
    }
    git.write("b/new.txt", github_token());
    git.write("w/\"new\".txt", github_token());
    fs::rename(git.world.path("repo/i/old.txt"), git.world.path("repo/w/old.txt")).unwrap();
    git.git(&["add", "-A"]);
    let mut all = old.map(|name| name.replace('\t', "\\u{9}"));
    all[5] = "w/old.txt".to_owned();
    let mut all: Vec<String> = all.into();
    all.extend(["b/new.txt".to_owned(), "w/\"new\".txt".to_owned()]);
    all.sort();
    let told = |diff: &[u8]| {
        let report = git.world.run_with(&["scan", "--diff", "--format", "jsonl"], diff).expect(1);
        let findings = report.lines().into_iter().filter(|line| line["type"] == "finding");
        let paths = findings.map(|line| line["path"].as_str().unwrap().to_owned());
        paths.collect::<BTreeSet<String>>()
    };
    let diff = |arguments: &[&str]| git.command("repo", arguments).output().unwrap().stdout;
    for setting in ["diff.mnemonicPrefix=true", "diff.noprefix=true", "diff.renames=false"] {
        for arguments in [["diff", "--cached"], ["diff", "HEAD"]] {
            let diff = diff(&[["-c", setting], arguments].concat());
            let shown = String::from_utf8_lossy(&diff).into_owned();
            assert_eq!(told(&diff).into_iter().collect::<Vec<_>>(), all, "{setting} {shown}");
        }
    }
    git.git(&["reset", "-q"]);
    let diff = diff(&["-c", "diff.mnemonicPrefix=true", "diff", "--", "b/b.txt", "i/a b.txt"]);
    assert_eq!(told(&diff), ["b/b.txt", "i/a b.txt"].map(str::to_owned).into());
}

#[test]
fn a_diff_that_is_not_whole_is_not_clean() {
    let world = World::empty();
    let head = "diff --git a/x b/x\n--- a/x\n+++ b/x\n";
    for rest in [
        "@@ -1,2 +1,5 @@\n one\n+two\n",
        "@@ -1 +1,2 @@\n one\n+two\n+three, which the header does not count\n",
        "GIT binary patch\nliteral 3\n",
    ] {
        let diff = format!("{head}{rest}");
        let report = world.run_with(&["scan", "--diff"], diff.as_bytes());
        assert_eq!(report.code, 3, "{diff}\n{}", report.both());
    }
}

#[test]
fn stdin_has_the_name_it_is_given() {
    let world = World::empty();
    let report = world.run_with(
        &["scan", "--stdin", "--name", "mail.txt", "--format", "json"],
        github_token().as_bytes(),
    );
    let report = report.expect(1).json();
    assert_eq!(report["findings"][0]["path"], "mail.txt");
    assert_eq!(report["summary"]["findings"], 1);
}

#[test]
fn file_names_can_neither_forge_output_nor_leak() {
    let world = World::empty();
    let token = github_token();
    world.write(&format!("dir/\x1b[31m{token}\n.txt"), format!("{token}\n"));
    let report = world.run(&["scan", "dir", "--format", "jsonl"]).expect(1);
    assert!(!report.both().contains(&token) && !report.both().contains('\x1b'));
    assert_eq!(
        report.lines()[0]["path"],
        "dir/\\u{1b}[31mghp_…".to_owned() + &token[36..] + "\\u{a}.txt"
    );
    let report = world.run(&["scan", "dir"]).expect(1);
    assert!(!report.both().contains(&token) && !report.both().contains('\x1b'));
}

#[test]
fn a_reason_that_quotes_a_file_leaks_nothing() {
    let world = World::empty();
    let token = github_token();
    fs::create_dir_all(world.path("repo/.git")).unwrap();
    world.write("repo/.gitignore", format!("{{{token}[\n"));
    world.write("repo/a.txt", "nothing\n");
    let report = world.run(&["scan", "repo"]);
    assert!(!report.both().contains(&token), "{}", report.both());
}

#[test]
fn a_key_glued_to_letters_is_found_by_a_deep_scan() {
    let world = World::new();
    let key = world.key("deploy", "disable", &["--like", "ibm"]);
    world.write("a.txt", format!("glued{key}glued\n"));
    world.run(&["scan", "a.txt"]).expect(0);
    let report = world.run(&["scan", "a.txt", "--deep"]).expect(1);
    assert!(report.out.contains("a.txt:1:6: registered"), "{}", report.out);
}

/// Over 64 MiB: by one thread, and in pieces by several.
#[test]
fn a_long_file_gives_the_same_by_several_threads() {
    let world = World::new();
    let key = world.key("deploy", "disable", &["--like", "ibm"]);
    let mut text = "a line of a log, of no interest whatsoever\n".repeat(1_600_000);
    // Over borders of pieces, in the first line of one, in a line over several, and at the end.
    for at in [262_120, 524_300, 5_000_000, 40_000_000] {
        let at = at / 43 * 43;
        text.insert_str(at, &format!("{key} {}\n", github_token()));
    }
    text.insert_str(20_000_000, &format!("{} {key}", "no end ".repeat(100_000)));
    text.push_str(&key);
    assert!(text.len() > 64 << 20);
    world.write("long.log", text);
    let scan = |threads: &str| {
        let report = world.run(&["scan", "long.log", "--threads", threads, "--format", "jsonl"]);
        let mut lines = report.expect(1).lines();
        let summary = lines.pop().unwrap();
        assert_eq!(summary["registered"], 6);
        (lines, summary["bytes"].clone(), summary["files"].clone())
    };
    let one = scan("1");
    assert_eq!(one.0.len(), 10);
    assert_eq!(scan("2"), one);
    assert_eq!(scan("5"), one);
}

#[test]
fn own_rules_are_added_and_faulty_ones_refused() {
    let world = World::empty();
    let rule = "rules:\n  - id: acme-key\n    provider: Acme\n    name: API key\n    \
                prefixes: [acme_]\n    pattern: 'acme_[0-9a-f]{32}'\n    confidence: high\n    \
                examples: ['acme_<hex:32>']\n    negative_examples: ['acme_<hex:31>']\n    \
                source: us\n";
    world.write("rules/acme.yaml", rule);
    world.write("a.txt", format!("{}{}\n", "acme_", "02468ace13579bdf02468ace13579bdf"));
    let report = world.run(&["scan", "a.txt", "--rules", "rules"]).expect(1);
    assert!(report.out.contains("Acme: API key [acme-key]"), "{}", report.out);
    world.write("rules/acme.yaml", rule.replace("{32}'", "+'"));
    let report = world.run(&["scan", "a.txt", "--rules", "rules"]).expect(2);
    assert!(report.err.contains("rules/acme.yaml:2: acme-key: pattern"), "{}", report.err);
}
