//! `hook pre-push`: what a push brings to the other side, and nothing else.

use std::process::Command;

use super::super::world::github_token;
use super::{Answer, Canary, Repository, answer};

impl Repository {
    /// With a server at `origin` and the hook.
    fn with_origin() -> Self {
        let repository = Self::bare_of_hooks();
        repository.git(&["init", "-q", "--bare", "-b", "main", "../server"]).expect(0);
        repository.git(&["remote", "add", "origin", "../server"]).expect(0);
        repository.hook(&["install", "pre-push"]).expect(0);
        repository
    }

    fn push(&self, arguments: &[&str]) -> Answer {
        self.git(&[&["push", "-q"], arguments].concat())
    }
}

#[test]
fn a_push_with_a_key_is_refused_and_says_in_which_commit() {
    let repository = Repository::with_origin();
    let key = repository.world.key("deploy", "disable", &["--like", "ibm"]);
    repository.write("a.txt", "fine\n");
    repository.force_commit();
    let clean = repository.push(&["origin", "main"]).expect(0);
    assert!(clean.err.contains("read 1 new commit: the added lines of 1 file"), "{}", clean.err);
    repository.write("src/b.txt", format!("one\n{key}\n"));
    let bad = repository.force_commit();
    // Taking it out again does not take it out of what is pushed.
    repository.write("src/b.txt", "one\n");
    repository.force_commit();
    let refused = repository.push(&["origin", "main"]).expect(1);
    let text = refused.both();
    let place = format!("{}:src/b.txt:2:1: registered", &bad[..12]);
    assert!(text.contains(&place) && text.contains("deploy@example.com"), "{text}");
    assert!(text.contains("push refused, 1 key in it") && text.contains("git rebase -i"), "{text}");
    assert!(text.contains("git push --no-verify") && !text.contains(&key), "{text}");
    assert_eq!(
        repository.ask(&["ls-remote", "origin", "main"])[..8],
        repository.ask(&["rev-parse", "main~2"])[..8]
    );
}

#[test]
fn what_the_other_side_has_is_not_read_again() {
    let repository = Repository::with_origin();
    repository.write("old.txt", format!("{}\nline\n", github_token()));
    repository.force_commit();
    repository.push(&["--no-verify", "origin", "main"]).expect(0);
    // A change beside an old key, a rename, and new names for what is there.
    repository.write("old.txt", format!("{}\nline\nmore\n", github_token()));
    repository.force_commit();
    repository.git(&["mv", "old.txt", "new.txt"]).expect(0);
    repository.force_commit();
    repository.push(&["origin", "main"]).expect(0);
    let nothing = repository.push(&["origin", "main:other", "main~1:refs/heads/third"]).expect(0);
    assert!(nothing.err.contains("nothing new to read"), "{}", nothing.err);
    repository.push(&["origin", ":other"]).expect(0);
    // Somebody else moved the branch to what is not here: everything since what is known.
    repository.git(&["clone", "-q", "../server", "../theirs"]).expect(0);
    repository.world.write("theirs/c.txt", "theirs\n");
    repository.git(&["-C", "../theirs", "add", "."]).expect(0);
    let author = ["-C", "../theirs", "-c", "user.name=x", "-c", "user.email=x@y.z"];
    repository.git(&[&author[..], &["commit", "-qm", "t"]].concat()).expect(0);
    repository.git(&["-C", "../theirs", "push", "-q"]).expect(0);
    repository.write("mine.txt", "mine\n");
    repository.force_commit();
    let forced = repository.push(&["-f", "origin", "main"]).expect(0);
    assert!(forced.err.contains("read 1 new commit:"), "{}", forced.err);
}

#[test]
fn of_a_merge_only_what_it_adds_itself() {
    let repository = Repository::with_origin();
    repository.write("a.txt", "base\n");
    repository.force_commit();
    repository.git(&["switch", "-q", "-c", "side"]).expect(0);
    repository.write("theirs.txt", format!("{}\n", github_token()));
    repository.write("a.txt", "theirs\n");
    repository.force_commit();
    repository.push(&["--no-verify", "origin", "main", "side"]).expect(0);
    repository.git(&["switch", "-q", "main"]).expect(0);
    repository.write("a.txt", "ours\n");
    repository.force_commit();
    repository.git(&["merge", "-q", "side"]).expect(1);
    repository.write("a.txt", "both\n");
    repository.force_commit();
    repository.push(&["origin", "main"]).expect(0);
    // A merge with a key that neither side has, in a text and in what attributes call binary.
    repository.git(&["reset", "-q", "--hard", "HEAD~1"]).expect(0);
    repository.git(&["merge", "-q", "side"]).expect(1);
    repository.write(".gitattributes", "* -diff\n");
    repository.write("a.txt", "both\n");
    repository.write("[x] :y.bin", format!("\0\n\0{}\0\n", github_token()));
    let other = github_token().replace("0a1B", "0a1C");
    let digits = leakwarden::rule::Checksum::Crc32Base62.digits(&other.as_bytes()[..34]);
    let other = format!("{}{}", &other[..34], String::from_utf8(digits).unwrap());
    repository.write("a.txt", format!("both\n{other}\n"));
    let merge = repository.force_commit();
    let refused = repository.push(&["-f", "origin", "main"]).expect(1);
    assert!(refused.both().contains(&format!("{}:a.txt:2:1", &merge[..12])), "{}", refused.both());
    let place = format!("{}:[x] :y.bin:2:2", &merge[..12]);
    assert!(refused.both().contains(&place), "{}", refused.both());
    assert!(refused.both().contains("2 keys in it"), "{}", refused.both());
}

#[test]
fn messages_names_and_tags_are_read() {
    let repository = Repository::with_origin();
    repository.write("a.txt", "fine\n");
    repository.force_commit();
    repository.push(&["origin", "main"]).expect(0);
    let token = github_token();
    let message = format!("a change\n\nwith {token} in it");
    repository.git(&["commit", "-q", "--allow-empty", "-m", &message]).expect(0);
    let refused = repository.push(&["origin", "main"]).expect(1);
    assert!(refused.both().contains("(message):3:6: high"), "{}", refused.both());
    repository.git(&["reset", "-q", "--hard", "HEAD~1"]).expect(0);
    let author = format!("{token} <x@example.com>");
    repository.git(&["commit", "-q", "--allow-empty", "-m", "fine", "--author", &author]).expect(0);
    let refused = repository.push(&["origin", "main"]).expect(1);
    assert!(refused.both().contains("(names)"), "{}", refused.both());
    repository.git(&["reset", "-q", "--hard", "HEAD~1"]).expect(0);
    repository.git(&["tag", "-a", "v1", "-m", &format!("release\n{token}")]).expect(0);
    let refused = repository.push(&["origin", "v1"]).expect(1);
    assert!(refused.both().contains("(message):2:1"), "{}", refused.both());
    repository.git(&["tag", "-a", "v2", "-m", "of a tag", "v1"]).expect(0);
    repository.push(&["origin", "v2"]).expect(1);
    let refused = repository.push(&["origin", &format!("main:refs/heads/{token}")]).expect(1);
    assert!(refused.both().contains("(names of refs)"), "{}", refused.both());
    assert!(!refused.both().contains(&token), "{}", refused.both());
    // A file that no commit holds.
    repository.world.write("loose", &token);
    let id = repository.ask(&["hash-object", "-w", "../loose"]);
    repository.git(&["tag", "file", &id]).expect(0);
    repository.push(&["origin", "file"]).expect(1);
    repository.git(&["tag", "folder", "main^{tree}"]).expect(0);
    let refused = repository.push(&["origin", "folder"]).expect(1);
    assert!(refused.err.contains("not all of it could be read"), "{}", refused.err);
}

#[test]
fn odd_input_is_one_clear_error() {
    let repository = Repository::with_origin();
    let run = |stdin: &[u8]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
        command.args(["hook", "pre-push", "origin", "https://user:secret@example.com/x"]);
        answer(repository.command(command), stdin)
    };
    let refused = run(b"refs/heads/main not-an-id refs/heads/main 0\n").expect(2);
    assert!(refused.err.contains("line 1: not what git writes"), "{}", refused.err);
    let zero = "0".repeat(40);
    let gone = "1".repeat(40);
    let refused = run(format!("refs/heads/x {gone} refs/heads/x {zero}\n").as_bytes()).expect(3);
    assert!(refused.err.contains("git says it is missing"), "{}", refused.err);
    let nothing = run(b"").expect(0);
    assert!(nothing.err.contains("nothing new to read"), "{}", nothing.err);
}

#[test]
fn a_password_in_the_url_of_a_remote_is_not_the_hooks_business() {
    let repository = Repository::with_origin();
    let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    let url = format!("https://x:{}@example.com/y", github_token());
    command.args(["hook", "pre-push", &url, &url]);
    let passed = answer(repository.command(command), b"").expect(0);
    assert!(!passed.both().contains(&github_token()));
}

#[test]
fn nothing_that_the_repository_says_is_run_by_a_push() {
    let repository = Repository::with_origin();
    let canary = Canary::new(&repository);
    repository.write(".gitattributes", "*.txt diff=evil filter=evil\n");
    repository.write("a.txt", format!("first\n{}\n", github_token()));
    repository.force_commit();
    for name in [
        "core.fsmonitor",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "filter.evil.clean",
        "filter.evil.smudge",
        "core.pager",
        "core.alternateRefsCommand",
        "gpg.program",
        "pager.log",
        "pager.diff",
    ] {
        canary.lies_in(&repository, name);
    }
    for (name, value) in [
        ("log.showRoot", "false"),
        ("log.showSignature", "true"),
        ("diff.renames", "copies"),
        ("core.bigFileThreshold", "1"),
    ] {
        repository.git(&["config", name, value]).expect(0);
    }
    canary.forget();
    let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    command.args(["hook", "pre-push", "origin", "../server"]);
    let head = repository.ask(&["rev-parse", "HEAD"]);
    let line = format!("refs/heads/main {head} refs/heads/main {}\n", "0".repeat(40));
    let refused = answer(repository.command(command), line.as_bytes()).expect(1);
    assert!(refused.out.contains("a.txt:2:1"), "{}", refused.both());
    canary.expect_silence();
}

#[test]
fn rewritten_and_repacked_history_is_read_the_same() {
    let repository = Repository::with_origin();
    repository.write("a.txt", "fine\n");
    repository.force_commit();
    repository.push(&["origin", "main"]).expect(0);
    repository.write("key.txt", format!("{}\n", github_token()));
    repository.force_commit();
    repository.write("b.txt", "fine\n");
    repository.force_commit();
    repository.git(&["commit", "-q", "--amend", "--no-verify", "-m", "other words"]).expect(0);
    repository.git(&["rebase", "-q", "--force-rebase", "HEAD~2"]).expect(0);
    repository.git(&["gc", "-q", "--prune=now"]).expect(0);
    repository.git(&["repack", "-q", "-a", "-d", "-f"]).expect(0);
    repository.push(&["origin", "main"]).expect(1);
    let tree = ["filter-branch", "-f", "--tree-filter", "echo more >> b.txt", "HEAD~2..HEAD"];
    repository.git(&tree).expect(0);
    let refused = repository.push(&["origin", "main"]).expect(1);
    assert!(refused.both().contains("key.txt:1:1"), "{}", refused.both());
    assert!(refused.both().contains("1 key in it"), "{}", refused.both());
    // Once it is rewritten without the key, nothing is left to refuse.
    let tree = ["filter-branch", "-f", "--tree-filter", "rm -f key.txt", "HEAD~2..HEAD"];
    repository.git(&tree).expect(0);
    repository.push(&["origin", "main"]).expect(0);
}

#[test]
fn documents_name_commit_author_and_date() {
    let repository = Repository::bare_of_hooks();
    repository.write("a.txt", format!("{}\n", github_token()));
    repository.git(&["add", "."]).expect(0);
    let author = ["--author", "Ann Other <ann@example.org>", "--date", "2024-06-02T10:00:00Z"];
    repository
        .git(&[&["commit", "-q", "-m", &github_token()], author.as_slice()].concat())
        .expect(0);
    repository.git(&["tag", "-a", "v1", "-m", &github_token()]).expect(0);
    let (commit, tag) =
        (repository.ask(&["rev-parse", "HEAD"]), repository.ask(&["rev-parse", "v1"]));
    let zeros = "0".repeat(40);
    let lines = [("heads/main", &commit), ("tags/v1", &tag)]
        .map(|(name, id)| format!("refs/{name} {id} refs/{name} {zeros}\n"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    command.args(["hook", "pre-push", "origin", "../server", "--format", "jsonl"]);
    let refused = answer(repository.command(command), lines.concat().as_bytes()).expect(1);
    let findings = refused.lines().into_iter().filter(|line| line["type"] == "finding");
    let findings: Vec<_> = findings.collect();
    assert_eq!(findings.len(), 3, "{}", refused.out);
    for finding in findings {
        let [id, author, email, date] =
            ["commit", "author", "email", "date"].map(|name| finding[name].as_str().unwrap());
        if finding["path"].as_str().unwrap().starts_with("tag ") {
            assert_eq!((id, author, email), (&*tag, "Test", "test@example.com"));
        } else {
            assert_eq!((id, author, email), (&*commit, "Ann Other", "ann@example.org"));
            assert_eq!(date, "2024-06-02T10:00:00Z");
        }
    }
}
