//! `scan --git`: real repositories, made by real git, with a key at every place there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::world::{Answer, World, answer, github_token};

/// A world with repositories.
pub struct Git {
    pub world: World,
}

impl Git {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// A repository in `repo`, made with more arguments.
    pub fn with(more: &[&str]) -> Self {
        let git = Self { world: World::new() };
        let mut arguments = vec!["init", "-q", "-b", "main", "repo"];
        arguments.extend(more);
        git.run(".", &arguments).expect(0);
        git
    }

    pub fn command(&self, folder: &str, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]);
        git.args(["-c", "protocol.file.allow=always", "-c", "gc.auto=0"]).args(arguments);
        git.current_dir(self.world.path(folder));
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git
    }

    pub fn run(&self, folder: &str, arguments: &[&str]) -> Answer {
        answer(self.command(folder, arguments), b"")
    }

    /// In `repo`; answers what it said.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.run("repo", arguments).expect(0).out.trim().to_owned()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.world.write(&format!("repo/{name}"), content)
    }

    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn scan(&self, more: &[&str]) -> Answer {
        self.scan_of("repo", more)
    }

    pub fn scan_of(&self, folder: &str, more: &[&str]) -> Answer {
        let mut arguments = vec!["scan", "--git", folder, "--format", "jsonl"];
        arguments.extend(more);
        self.world.run(&arguments)
    }
}

/// The findings of a scan by the name of the registered key.
pub fn found(answer: &Answer) -> BTreeMap<String, Value> {
    let findings = answer.lines().into_iter().filter(|line| line["type"] == "finding");
    findings
        .filter_map(|line| Some((line["key"]["name"].as_str()?.to_owned(), line.clone())))
        .collect()
}

pub fn summary(answer: &Answer) -> Value {
    answer.lines().pop().expect("a summary")
}

pub fn names(answer: &Answer) -> BTreeSet<String> {
    found(answer).into_keys().collect()
}

/// A repository with a key of that name at each of these places.
fn planted() -> (Git, BTreeSet<String>) {
    let git = Git::new();
    let mut places = BTreeSet::new();
    let mut key = |place: &str| {
        places.insert(place.to_owned());
        git.world.key_of("owner", place, "none", &[])
    };
    git.write("a.txt", format!("first\nkey = {}\n", key("file")));
    git.write("gone.txt", format!("{}\n", key("deleted file")));
    git.write(&format!("dir/{}/x.txt", key("folder name")), "x\n");
    git.write(&format!("dir/{}.txt", key("file name")), "y\n");
    git.write(
        "data.bin",
        [b"\0\x01\x02".as_slice(), key("binary file").as_bytes(), b"\0"].concat(),
    );
    std::os::unix::fs::symlink(key("link"), git.world.path("repo/link")).unwrap();
    git.commit("first");
    fs::remove_file(git.world.path("repo/gone.txt")).unwrap();
    git.commit(&format!("second\n\nsee {}", key("message")));
    let author = format!("--author=A {} B <a@example.com>", key("author name"));
    git.git(&["commit", "-q", "--allow-empty", "-m", "third", &author]);
    let email = format!("user.email={}@example.com", key("committer email"));
    git.git(&["-c", &email, "commit", "-q", "--allow-empty", "-m", "fourth"]);
    git.git(&["tag", "-a", "v1", "-m", &format!("one\n\n{}", key("tag message"))]);
    git.git(&["tag", &format!("x-{}", key("tag name")), "HEAD~1"]);
    git.git(&["branch", &format!("feature/{}", key("branch name")), "HEAD~1"]);
    git.git(&["notes", "add", "-m", &key("note"), "HEAD~1"]);
    git.write("a.txt", format!("stashed {}\n", key("stash")));
    git.write("new.txt", format!("{}\n", key("untracked stash")));
    git.git(&["stash", "-q", "-u"]);
    git.git(&["commit", "-q", "--allow-empty", "-m", &format!("oops {}", key("amended"))]);
    git.git(&["commit", "-q", "--allow-empty", "--amend", "-m", "fixed"]);
    git.write("loose", key("unreachable"));
    git.git(&["hash-object", "-w", "loose"]);
    git.write("loose", key("staged"));
    git.git(&["add", "loose"]);
    git.git(&["rm", "-q", "-f", "loose"]);
    git.git(&["checkout", "-q", "-b", "side", "HEAD~1"]);
    git.write("side.txt", key("other branch"));
    git.commit("side");
    git.git(&["checkout", "-q", "main"]);
    let reflog = format!("reset: {}", key("reflog"));
    git.git(&["update-ref", "-m", &reflog, "refs/heads/side", "HEAD"]);
    git.git(&["update-ref", "refs/original/side", "side@{1}"]);
    (git, places)
}

#[test]
fn a_key_is_found_at_every_place_and_after_every_rewriting() {
    let (git, places) = planted();
    let check = |when: &str| {
        let answer = git.scan(&[]).expect(1);
        assert_eq!(names(&answer), places, "{when}");
        let summary = summary(&answer);
        assert_eq!(
            (&summary["complete"], &summary["skipped"]),
            (&true.into(), &Value::Array(vec![]))
        );
    };
    check("loose");
    git.git(&["pack-refs", "--all"]);
    git.git(&["repack", "-q", "-a", "-d"]);
    check("packed");
    git.write("later.txt", "later\n");
    git.commit("later");
    git.git(&["repack", "-q", "-d"]);
    check("in two packs");
    git.git(&["gc", "-q"]);
    check("after gc");
    git.git(&["repack", "-q", "-a", "-d", "-f", "--depth=50", "--window=50"]);
    check("as differences");
    git.git(&["rebase", "-q", "--root", "--force-rebase"]);
    check("after rebase");
    let filter =
        ["filter-branch", "-f", "--index-filter", "git rm -q --cached --ignore-unmatch a.txt"];
    let mut command = git.command("repo", &filter);
    command.env("FILTER_BRANCH_SQUELCH_WARNING", "1");
    answer(command, b"").expect(0);
    check("after filter-branch");
}

#[test]
fn a_finding_tells_where_and_whose_it_is() {
    let git = Git::new();
    let [kept, gone, message, tag] =
        ["kept", "gone", "message", "tag"].map(|name| git.world.key(name, "none", &[]));
    git.write("src/old.txt", format!("one\ntwo {kept}\n"));
    git.write("gone.txt", &gone);
    let mut first =
        git.command("repo", &["commit", "-q", "-m", "first", "--author=Bob <bob@x.org>"]);
    first.env("GIT_AUTHOR_DATE", "2021-02-03T04:05:06Z");
    git.git(&["add", "."]);
    answer(first, b"").expect(0);
    let first = git.git(&["rev-parse", "HEAD"]);
    for n in 0..5 {
        git.write("src/old.txt", format!("one\ntwo {kept}\n{n}\n"));
        git.git(&["rm", "-q", "--ignore-unmatch", "gone.txt"]);
        git.commit("next");
    }
    let last = git.commit(&format!("subject\n\nline\nsee {message}"));
    git.git(&["tag", "-a", "v1", "-m", &format!("t {tag}")]);
    for _ in 0..2 {
        let findings = found(&git.scan(&[]).expect(1));
        let kept = &findings["kept"];
        assert_eq!(
            (&kept["path"], &kept["line"], &kept["column"]),
            (&"src/old.txt".into(), &2.into(), &5.into())
        );
        assert_eq!((&kept["commit"], &kept["author"]), (&first.clone().into(), &"Bob".into()));
        assert_eq!(
            (&kept["email"], &kept["date"]),
            (&"bob@x.org".into(), &"2021-02-03T04:05:06Z".into())
        );
        assert_eq!((&kept["in_head"], &kept["versions"]), (&true.into(), &6.into()));
        assert_eq!(kept["source"], "blob");
        assert_eq!(
            (&findings["gone"]["path"], &findings["gone"]["in_head"]),
            (&"gone.txt".into(), &false.into())
        );
        let message = &findings["message"];
        assert_eq!(
            (&message["path"], &message["line"], &message["column"]),
            (&"<commit message>".into(), &4.into(), &5.into())
        );
        assert_eq!(
            (&message["commit"], &message["source"]),
            (&last.clone().into(), &"commit".into())
        );
        assert_eq!(findings["tag"]["path"], "<tag message>");
        git.git(&["repack", "-q", "-a", "-d", "-f"]);
    }
    let text = git.world.run(&["scan", "--git", "repo"]).expect(1).out;
    let line = format!(
        "src/old.txt:2:5 ({}, 2021-02-03, Bob <bob@x.org>, in HEAD, 6 versions): registered",
        &first[..12]
    );
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("not in HEAD") && !text.contains(&kept), "{text}");
}

#[test]
fn a_part_of_the_history_is_read_on_demand() {
    let git = Git::new();
    let keys: Vec<String> = (0..4).map(|n| git.world.key(&format!("k{n}"), "none", &[])).collect();
    for (n, key) in keys.iter().take(3).enumerate() {
        git.write(&format!("{n}.txt"), key);
        git.commit(&format!("commit {n}"));
    }
    git.git(&["checkout", "-q", "-b", "side", "HEAD~1"]);
    git.write("3.txt", &keys[3]);
    git.commit("side");
    git.git(&["checkout", "-q", "main"]);
    let of = |more: &[&str]| names(&git.scan(more).expect(1)).into_iter().collect::<Vec<_>>();
    for _ in 0..2 {
        assert_eq!(of(&["--since", "HEAD~1"]), ["k2"]);
        assert_eq!(of(&["--since", "main", "--branch", "side"]), ["k3"]);
        assert_eq!(of(&["--range", "HEAD~2..HEAD~1"]), ["k1"]);
        assert_eq!(of(&["--range", "main..side"]), ["k3"]);
        assert_eq!(of(&["--branch", "side"]), ["k0", "k1", "k3"]);
        assert_eq!(of(&[]), ["k0", "k1", "k2", "k3"]);
        git.git(&["repack", "-q", "-a", "-d"]);
    }
    // A tag is part of what it is asked for by, and so is one that it points to.
    let in_tags = ["inner", "outer"].map(|name| git.world.key(name, "none", &[]));
    git.git(&["tag", "-a", "inner", "-m", &in_tags[0], "HEAD~2"]);
    git.git(&["tag", "-a", "outer", "-m", &in_tags[1], "inner"]);
    assert_eq!(of(&["--branch", "outer"]), ["inner", "k0", "outer"]);
    let nothing = git.world.run(&["scan", "--git", "repo", "--since", "HEAD"]).expect(0);
    assert!(nothing.out.contains("nothing is new"), "{}", nothing.out);
    for wrong in [["--since", "nowhere"], ["--branch", "--all"], ["--range", "main"]] {
        let refused = git.scan(&wrong).expect(2);
        assert!(refused.err.contains(wrong[1]), "{}", refused.err);
    }
    git.write("4.txt", &keys[3]);
    git.git(&["add", "."]);
    let staged = git.scan(&["--staged"]).expect(1);
    assert_eq!(found(&staged)["k3"]["path"], "4.txt");
    git.git(&["reset", "-q"]);
    git.scan(&["--staged"]).expect(0);
}

#[test]
fn every_kind_of_repository_is_read() {
    let git = Git::new();
    let key = git.world.key("k", "none", &[]);
    let borrowed = git.world.key("borrowed", "none", &[]);
    git.write("a.txt", &key);
    git.commit("first");
    git.run(".", &["clone", "-q", "--bare", "repo", "bare.git"]).expect(0);
    git.git(&["worktree", "add", "-q", "../linked"]);
    git.write("sub/b.txt", "b\n");
    git.commit("second");
    git.git(&["checkout", "-q", "--detach", "HEAD~1"]);
    for folder in ["repo", "repo/sub", "repo/.git", "bare.git", "linked"] {
        fs::create_dir_all(git.world.path("repo/sub")).unwrap();
        assert!(names(&git.scan_of(folder, &[]).expect(1)).contains("k"), "{folder}");
    }
    git.run(".", &["clone", "-q", "--shared", "repo", "shared"]).expect(0);
    git.world.write("shared/c.txt", &borrowed);
    git.run("shared", &["add", "."]).expect(0);
    git.run("shared", &["commit", "-q", "-m", "third"]).expect(0);
    git.run("shared", &["repack", "-q", "-a", "-d", "-l"]).expect(0);
    let all = names(&git.scan_of("shared", &[]).expect(1));
    assert_eq!(all.into_iter().collect::<Vec<_>>(), ["borrowed", "k"]);
    git.run(".", &["-c", "init.defaultBranch=x", "init", "-q", "empty"]).expect(0);
    let empty = git.world.run(&["scan", "--git", "empty"]).expect(3);
    assert!(empty.out.contains("an empty repository"), "{}", empty.out);
    git.world.write("plain/file", "x");
    for (folder, why) in [
        ("plain", "not a git repository"),
        ("nowhere", "does not exist"),
        ("config.yaml", "not a folder"),
    ] {
        git.world.write("config.yaml", "");
        let mut command = git.world.command(&["scan", "--git", folder]);
        command.env("GIT_CEILING_DIRECTORIES", git.world.path(""));
        let refused = answer(command, b"").expect(2);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    git.run(
        "repo",
        &[
            "-c",
            "advice.addEmbeddedRepo=false",
            "submodule",
            "--quiet",
            "add",
            "../bare.git",
            "mod",
        ],
    )
    .expect(0);
    git.run("repo", &["commit", "-q", "-m", "submodule"]).expect(0);
    let answer = git.scan(&[]).expect(1);
    assert_eq!(summary(&answer)["submodules"], 1);
    assert_eq!(summary(&answer)["complete"], true);
}

#[test]
fn objects_named_by_sha256_are_read() {
    let git = Git::with(&["--object-format=sha256"]);
    let keys = ["loose", "packed"].map(|name| git.world.key(name, "none", &[]));
    git.write("a.txt", &keys[1]);
    git.commit("first");
    git.git(&["repack", "-q", "-a", "-d"]);
    git.write("a.txt", &keys[0]);
    git.commit("second");
    let findings = found(&git.scan(&[]).expect(1));
    assert_eq!(findings.keys().collect::<Vec<_>>(), ["loose", "packed"]);
    assert_eq!(findings["packed"]["commit"].as_str().unwrap().len(), 64);
}

#[test]
fn what_a_clone_lacks_is_said() {
    let git = Git::new();
    let key = git.world.key("k", "none", &[]);
    git.write("a.txt", "old\n");
    git.commit("first");
    git.write("a.txt", &key);
    git.commit("second");
    git.git(&["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", git.world.path("repo").display());
    let clone = |more: &[&str], to: &str| {
        let mut arguments = vec!["clone", "-q", "--no-checkout"];
        arguments.extend(more);
        arguments.extend([url.as_str(), to]);
        git.run(".", &arguments).expect(0);
    };
    clone(&["--depth=1"], "shallow");
    clone(&["--filter=blob:none"], "partial");
    for (folder, word) in [("shallow", "a shallow clone"), ("partial", "a partial clone")] {
        let answer = git.scan_of(folder, &[]);
        let skipped = summary(&answer)["skipped"].to_string();
        assert!(skipped.contains(word), "{skipped}");
        assert_eq!(summary(&answer)["complete"], false);
        let allowed = git.scan_of(folder, &["--allow-shallow"]);
        assert_eq!(summary(&allowed)["complete"], true, "{}", allowed.out);
    }
    assert!(names(&git.scan_of("shallow", &[]).expect(1)).contains("k"));
    git.scan_of("partial", &[]).expect(3);
    git.scan_of("partial", &["--allow-shallow"]).expect(0);
}

#[test]
fn what_is_missing_or_broken_is_said_and_the_rest_is_read() {
    let git = Git::new();
    let key = git.world.key("k", "none", &[]);
    git.write("a.txt", &key);
    git.write("b.txt", "this one goes\n");
    git.write("c.txt", "this one breaks\n");
    git.write("d/e.txt", "and this folder goes\n");
    git.commit("first");
    let path = |id: &str| git.world.path(&format!("repo/.git/objects/{}/{}", &id[..2], &id[2..]));
    let [gone, broken, tree] =
        ["HEAD:b.txt", "HEAD:c.txt", "HEAD:d"].map(|name| git.git(&["rev-parse", name]));
    git.git(&["update-ref", "refs/heads/other", "HEAD"]);
    fs::remove_file(path(&gone)).unwrap();
    fs::remove_file(path(&tree)).unwrap();
    fs::remove_file(path(&broken)).unwrap();
    fs::write(path(&broken), b"no zlib").unwrap();
    git.write(".git/refs/heads/lost", format!("{}\n", "1".repeat(40)));
    let answer = git.scan(&[]).expect(1);
    assert!(names(&answer).contains("k"));
    let skipped = summary(&answer)["skipped"].to_string();
    for id in [&gone, &broken, &tree] {
        assert!(skipped.contains(id.as_str()), "{skipped}");
    }
    assert!(skipped.contains("refs/heads/lost"), "{skipped}");
    assert_eq!(summary(&answer)["complete"], false);
    // Where nothing is found, that is not clean.
    let git = Git::new();
    git.write("b.txt", "this one goes\n");
    git.commit("first");
    git.write("b.txt", "another\n");
    git.commit("second");
    let url = format!("file://{}", git.world.path("repo").display());
    git.git(&["clone", "-q", "--depth=1", &url, "../shallow"]);
    git.scan(&[]).expect(0);
    git.scan_of("shallow", &[]).expect(3);
    git.scan_of("shallow", &["--allow-shallow"]).expect(0);
    fs::remove_file(git.world.path(&format!("repo/.git/objects/{}/{}", &gone[..2], &gone[2..])))
        .unwrap();
    git.scan(&[]).expect(3);
}

#[test]
fn a_broken_pack_hides_no_more_than_what_is_broken() {
    let git = Git::new();
    let key = git.world.key("k", "none", &[]);
    let noise: String =
        (0..4_000u32).map(|n| format!("{:08x}\n", n.wrapping_mul(2_654_435_761))).collect();
    git.write("noise.txt", noise);
    for n in 0..20 {
        git.write(&format!("{n}.txt"), format!("{n}\n"));
    }
    git.write("a.txt", &key);
    git.commit("first");
    git.git(&["repack", "-q", "-a", "-d"]);
    let folder = git.world.path("repo/.git/objects/pack");
    let pack = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let pack = pack.into_iter().find(|path| path.extension().is_some_and(|e| e == "pack")).unwrap();
    let whole = fs::read(&pack).unwrap();
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    // In the middle is the noise, which is most of the pack.
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 64].fill(0xff);
    fs::write(&pack, &broken).unwrap();
    let answer = git.scan(&[]).expect(1);
    assert!(names(&answer).contains("k"), "{}", answer.out);
    assert_eq!(summary(&answer)["complete"], false);
    fs::write(&pack, &whole[..whole.len() / 3]).unwrap();
    assert_ne!(git.scan(&[]).code, 0);
    fs::write(&pack, b"PACK").unwrap();
    git.scan(&[]).expect(3);
    fs::remove_file(&pack).unwrap();
    git.scan(&[]).expect(3);
}

#[test]
fn names_of_objects_are_no_keys() {
    let git = Git::new();
    for word in ["datadog api key", "heroku secret token", "aws_secret_access_key = "] {
        git.write("a.txt", format!("{word}\n"));
        git.commit(word);
        git.git(&["tag", "-a", &word.replace([' ', '='], "-"), "-m", word]);
    }
    git.git(&["gc", "-q"]);
    let answer = git.scan(&["--min-confidence", "low"]).expect(0);
    assert_eq!(summary(&answer)["findings"], 0, "{}", answer.out);
}

#[test]
fn long_files_are_read_as_streams() {
    let git = Git::new();
    let keys = ["loose", "packed", "difference"].map(|name| git.world.key(name, "none", &[]));
    let long: String =
        (0..1_400_000u32).map(|n| format!("{:08x} some text\n", n.wrapping_mul(40_503))).collect();
    git.write("packed.txt", format!("{long}{}\n", keys[1]));
    git.commit("first");
    git.write("packed.txt", format!("{}\n{long}{}\n", keys[2], keys[1]));
    git.commit("second");
    git.git(&["repack", "-q", "-a", "-d"]);
    git.write("loose.txt", format!("{long}x\n{}\n", keys[0]));
    git.commit("third");
    let few = git.scan(&["--memory", "64", "--threads", "2"]).expect(1);
    let much = git.scan(&["--memory", "1024"]).expect(1);
    assert_eq!(found(&few), found(&much));
    assert_eq!(names(&few).into_iter().collect::<Vec<_>>(), ["difference", "loose", "packed"]);
    assert_eq!(summary(&few)["complete"], true, "{}", few.out);
}

#[test]
fn everything_that_the_log_shows_is_found() {
    let git = Git::new();
    let mut tokens = BTreeSet::new();
    let mut body = String::new();
    for n in 0..60 {
        body.push_str(&format!("line {n} of a file that grows, with some words in it\n"));
        if n % 7 == 0 {
            let key = git.world.key(&format!("k{n}"), "none", &[]);
            body.push_str(&format!("secret = {key}\n"));
            tokens.insert(format!("k{n}"));
        }
        git.write(&format!("d{}/file-{}.txt", n % 3, n % 4), &body);
        git.commit(&format!("commit {n}"));
        if n % 13 == 0 {
            git.git(&["checkout", "-q", "-b", &format!("b{n}")]);
        }
    }
    git.git(&["gc", "-q"]);
    let log = answer(git.command("repo", &["log", "-p", "--all"]), b"").expect(0).out;
    let by_diff = git.world.run_with(&["scan", "--diff", "--format", "jsonl"], log.as_bytes());
    assert_eq!(names(&by_diff.expect(1)), tokens);
    let by_git = git.scan(&[]).expect(1);
    assert_eq!(names(&by_git), tokens);
    let one = git.scan(&["--threads", "1"]).expect(1);
    assert_eq!(found(&by_git), found(&one));
}

#[test]
fn without_a_registry_rules_find_what_they_know() {
    let git = Git::new();
    git.write("a.txt", github_token());
    git.commit("first");
    git.git(&["rm", "-q", "a.txt"]);
    git.commit("second");
    let answer = git.scan(&["--no-registry"]).expect(1);
    let finding = &answer.lines()[0];
    assert_eq!(
        (&finding["rule"], &finding["in_head"]),
        (&"github-pat-classic".into(), &false.into())
    );
}
