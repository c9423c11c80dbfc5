//! `leakwarden rule`: looking at rules, checking files, trying examples and texts.

use std::fs;
use std::os::unix::fs::symlink;

use super::world::{World, github_token};

const ACME: &str = r#"
rules:
  - id: acme-token
    provider: Acme
    name: access token
    prefixes: ["acme_"]
    pattern: 'acme_[0-9a-f]{32}'
    confidence: high
    min_entropy: 2.5
    examples: ["token = acme_<hex:32>"]
    negative_examples: ["acme_<hex:31>"]
    source: our own issuer
"#;

/// A world with one own rule, changed as asked.
fn world(from: &str, to: &str) -> World {
    let world = World::empty();
    assert!(ACME.contains(from), "{from}");
    world.write("rules/acme.yaml", ACME.replace(from, to));
    world
}

fn acme_key() -> String {
    format!("{}{}", "acme_", "02468ace13579bdf".repeat(2))
}

#[test]
fn a_list_holds_all_rules_and_can_be_narrowed() {
    let world = world("", "");
    let count = |arguments: &[&str]| world.run(arguments).expect(0).out.lines().count();
    let builtin = count(&["rule", "list"]);
    assert!(builtin >= 150, "{builtin}");
    assert_eq!(count(&["rule", "list", "--rules", "rules"]), builtin + 1);
    let own = world.run(&["rule", "list", "--own", "--rules", "rules"]).expect(0);
    assert_eq!(own.out, "acme-token  high    secret  rules/acme.yaml  Acme: access token\n");
    // In any case, in id, provider or name; all words.
    let github = count(&["rule", "list", "GITHUB"]);
    assert!((3..20).contains(&github), "{github}");
    assert_eq!(count(&["rule", "list", "github", "classic"]), 1);
    let none = world.run(&["rule", "list", "no-such-issuer"]).expect(0);
    assert!(none.out.is_empty() && none.err.starts_with("no such rule"), "{}", none.both());
    let none = world.run(&["rule", "list", "--own"]).expect(0);
    assert!(none.err.contains("--rules DIR"), "{}", none.err);
    let json =
        world.run(&["rule", "list", "--rules", "rules", "--format", "json"]).expect(0).json();
    let rules = json["rules"].as_array().unwrap();
    assert_eq!(rules.len(), builtin + 1);
    assert_eq!(rules[builtin]["id"], "acme-token");
    assert_eq!(rules[builtin]["builtin"], false);
    assert_eq!(rules[0]["builtin"], true);
}

#[test]
fn columns_are_aligned() {
    let out = World::empty().run(&["rule", "list"]).expect(0).out;
    let columns: Vec<_> = out.lines().map(|line| line.find("  built-in  ").unwrap()).collect();
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn one_rule_is_shown_with_its_templates() {
    let world = world("", "");
    let shown = world.run(&["rule", "show", "acme-token", "--rules", "rules"]).expect(0).out;
    for row in [
        "provider      Acme\n",
        "min_entropy   under 2.5 bits",
        "length        37 bytes\n",
        "lies in       a run of [A-Za-z0-9_.-]\n",
        "file          rules/acme.yaml\n",
        "source        our own issuer\n",
        "found in      token = acme_<hex:32>\n",
        "not found in  acme_<hex:31>\n",
    ] {
        assert!(shown.contains(row), "{row} in {shown}");
    }
    let show = ["rule", "show", "acme-token", "--rules", "rules", "--format", "json"];
    let json = world.run(&show).expect(0).json();
    assert_eq!(json["min_entropy"], 2.5);
    assert_eq!(json["match_min"], 37);
    assert_eq!(json["within"], "runs");
    assert_eq!(json["examples"][0], "token = acme_<hex:32>");
    let github = world.run(&["rule", "show", "github-pat-classic"]).expect(0).out;
    assert!(github.contains("(built-in)") && github.contains("crc32-base62"), "{github}");
    assert!(github.contains("<base62:30><check>"), "{github}");
}

#[test]
fn a_whole_key_in_an_example_is_not_shown() {
    let key = acme_key();
    let world = world("[\"token = acme_<hex:32>\"]", &format!("[\"token = {key}\"]"));
    for format in ["text", "json"] {
        let show = ["rule", "show", "acme-token", "--rules", "rules", "--format", format];
        let out = world.run(&show).expect(0).out;
        assert!(!out.contains("02468ace1357") && out.contains("acme_…9bdf"), "{out}");
    }
    let world = self::world("acme_<hex:31>", &key);
    let faults = [&["rule", "check", "rules"][..], &["rule", "test", "rules"]].map(|command| {
        let out = world.run(command).both();
        assert!(out.contains("found in its negative example"), "{out}");
        out
    });
    assert!(!faults.concat().contains("02468ace1357"), "{faults:?}");
}

#[test]
fn an_unknown_id_is_answered_with_the_nearest() {
    let world = World::empty();
    for arguments in
        [["rule", "show", "gihub-pat"].as_slice(), &["rule", "test", "--id", "gihub-pat"]]
    {
        let error = world.run(arguments).expect(2).err;
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("nearest: github-pat-"), "{error}");
    }
}

#[test]
fn a_check_tells_every_fault_with_its_place() {
    let world = world("", "");
    assert_eq!(
        world.run(&["rule", "check", "rules"]).expect(0).out,
        "1 rule in 1 file: no fault\n"
    );
    let builtin = world.run(&["rule", "check"]).expect(0).out;
    assert!(builtin.contains(" built-in rules: no fault"), "{builtin}");
    world.write("rules/acme.yaml", ACME.replace("{32}", "{32,}").replace("[\"acme_\"]", "[]"));
    world.write(
        "other.yaml",
        ACME.replace("<hex:32>", "<hex:30>").replace("acme-t", "acme-other-t"),
    );
    let faults = world.run(&["rule", "check", "rules", "other.yaml"]).expect(2);
    assert!(faults.out.is_empty());
    for fault in [
        "rules/acme.yaml:3: acme-token: give either prefixes, or keywords or beside\n",
        "rules/acme.yaml:3: acme-token: pattern: its longest match",
        "other.yaml:3: acme-other-token: not found in its example `token = acme_<hex:30>`\n",
        "error: 3 faults\n",
    ] {
        assert!(faults.err.contains(fault), "{fault} in {}", faults.err);
    }
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let world = World::empty();
    world.write("empty/readme.txt", "");
    world.write("binary.yaml", [0xff, 0xfe]);
    for (arguments, place) in [
        (["rule", "check", "missing.yaml"].as_slice(), "cannot read missing.yaml"),
        (&["rule", "check", "empty"], "empty holds no .yaml file"),
        (&["rule", "test", "binary.yaml"], "cannot read binary.yaml"),
        (&["rule", "test", "--rules", "missing"], "cannot read missing"),
        (&["rule", "list", "--rules", "missing"], "cannot read missing"),
        (&["rule", "show", "acme", "--rules", "missing"], "cannot read missing"),
    ] {
        let error = world.run(arguments).expect(2).err;
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn what_is_no_file_of_rules_is_not_read_to_its_end() {
    let world = World::empty();
    let fifo = world.path("fifo/a.yaml");
    fs::create_dir(fifo.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    fs::create_dir(world.path("link")).unwrap();
    symlink("/dev/zero", world.path("link/zero.yaml")).unwrap();
    let whole = format!("{ACME}{}", "#".repeat((1 << 20) - ACME.len()));
    world.write("long/a.yaml", whole.clone() + "#");
    for (folder, file, why) in [
        ("fifo", "fifo/a.yaml", "not a regular file"),
        ("link", "link/zero.yaml", "not a regular file"),
        ("long", "long/a.yaml", "a file of rules has 1 MiB at most"),
    ] {
        for arguments in
            [["rule", "check", folder], ["rule", "check", file], ["rule", "test", file]]
        {
            let error = world.run(&arguments).expect(2).err;
            assert!(error.contains(&format!("cannot read {file}: {why}")), "{error}");
        }
        let error = world.run(&["scan", "fifo", "--rules", folder]).expect(2).err;
        assert!(error.contains(file) && error.contains(why), "{error}");
    }
    world.write("whole/a.txt", whole);
    fs::create_dir(world.path("linked")).unwrap();
    symlink("../whole/a.txt", world.path("linked/a.yaml")).unwrap();
    assert!(world.run(&["rule", "check", "linked"]).expect(0).out.contains("no fault"));
}

#[test]
fn a_file_holds_one_document() {
    let world = world("", "");
    let two = format!("{ACME}---{ACME}");
    let line = ACME.lines().count() + 2;
    world.write("rules/acme.yaml", two);
    let error = world.run(&["rule", "check", "rules"]).expect(2).err;
    let told = format!("rules/acme.yaml:{line}: a second YAML document: write one a file\n");
    assert!(error.contains(&told), "{error}");
}

#[test]
fn all_examples_are_right() {
    let world = world("", "");
    let all = world.run(&["rule", "test"]).expect(0).out;
    assert!(all.contains(" examples: all right"), "{all}");
    for own in
        [["rules"].as_slice(), &["--rules", "rules"], &["rules/acme.yaml", "--rules", "rules"]]
    {
        let one = [&["rule", "test", "--id", "acme-token"], own].concat();
        assert_eq!(world.run(&one).expect(0).out, "1 rule, 2 examples: all right\n");
    }
}

#[test]
fn a_name_splits_no_line_of_a_report() {
    for (from, to, wanted) in [
        ("provider: Acme", r#"provider: "Ac\nme""#, r"  Ac\u{a}me: access token [acme-token]"),
        ("name: access token", r#"name: "a\e[1mb""#, r"  Acme: a\u{1b}[1mb [acme-token]"),
    ] {
        let world = world(from, to);
        world.write("a.txt", acme_key());
        let out = world.run(&["scan", "a.txt", "--rules", "rules"]).expect(1).out;
        assert!(out.lines().any(|line| line.ends_with(wanted)), "{out}");
    }
}

#[test]
fn a_wrong_example_is_told_with_its_rule() {
    let told = |from: &str, to: &str, wanted: &str| {
        let world = world(from, to);
        let out = world.run(&["rule", "test", "rules", "--id", "acme-token"]).expect(1).out;
        assert!(out.contains(&format!("rules/acme.yaml: acme-token: {wanted}\n")), "{out}");
        assert!(out.ends_with("1 rule, 2 examples: 1 wrong\n"), "{out}");
    };
    told("= acme_<hex:32>", "= acme_<hex:30>", "not found in its example: token = acme_<hex:30>");
    told("acme_<hex:31>", "acme_<hex:32>", "found in its negative example: acme_<hex:32>");
    told(
        "= acme_<hex:32>",
        "= acme_000000000000<hex:20>",
        "only low in its example (a word in it marks an example): token = acme_000000000000<hex:20>",
    );
    told(
        "prefixes: [\"acme_\"]",
        "prefixes: [\"acme_\"]\n    offsets: [1]",
        "not found in its example (its pattern matches, but has none of the prefixes at an offset): \
         token = acme_<hex:32>",
    );
}

#[test]
fn a_text_is_told_what_matches_and_why_it_is_doubted() {
    let world = world("", "");
    let flat = format!("acme_{}", "01".repeat(16));
    let (right, key) = (github_token(), acme_key());
    let wrong = right.replace("0a1B", "0a1C");
    let text = format!("{right}\n token {wrong}\n{key}\n{flat}\n");
    let answer = world.run_with(&["rule", "test", "rules", "--stdin"], text.as_bytes()).expect(0);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", answer.out);
    assert!(lines[0].starts_with("<stdin>:1:1: high ghp_…"), "{}", lines[0]);
    assert!(lines[0].ends_with("[github-pat-classic]"), "{}", lines[0]);
    assert!(lines[1].starts_with("<stdin>:2:8: low ghp_…"), "{}", lines[1]);
    assert!(lines[1].ends_with("[github-pat-classic]: its check digits are wrong"), "{}", lines[1]);
    assert_eq!(lines[2], "<stdin>:3:1: high acme_…9bdf  Acme: access token [acme-token]");
    assert!(lines[3].ends_with("its entropy is under the rule's min_entropy"), "{}", lines[3]);
    for secret in [&right[4..16], &wrong[4..16], &key[5..17], &flat[5..17]] {
        assert!(!answer.both().contains(secret));
    }
    let one = ["rule", "test", "rules", "--stdin", "--id", "acme-token"];
    assert_eq!(world.run_with(&one, text.as_bytes()).expect(0).out.lines().count(), 2);
    let none = world.run_with(&one, right.as_bytes()).expect(1).out;
    assert_eq!(none, "the rule does not match\n");
    world.run_with(&["rule", "test", "--stdin"], b"nothing\n").expect(1);
    world.run_with(&["rule", "test", "--stdin"], b"").expect(2);
    world.run_with(&["rule", "test", "--stdin"], &[b' '; (1 << 20) + 1]).expect(2);
}

#[test]
fn a_match_under_a_surer_one_is_told_apart() {
    let world = world("", "");
    let other =
        ACME.replace("acme-token", "acme-any").replace("confidence: high", "confidence: low");
    world.write("rules/other.yaml", other);
    let answer = world.run_with(&["rule", "test", "rules", "--stdin"], acme_key().as_bytes());
    let out = answer.expect(0).out;
    let beaten: Vec<&str> = out.lines().filter(|line| line.contains("another match")).collect();
    assert_eq!((out.lines().count(), beaten.len()), (2, 1), "{out}");
    assert!(beaten[0].contains("[acme-any]; a scan reports another match here"), "{out}");
}
