//! Which index a commit is made of, and what of it is read.

use std::fs;

use super::super::world::github_token;
use super::Repository;

#[test]
fn in_a_linked_worktree_and_with_all() {
    let repository = Repository::new();
    repository.write("a.txt", "one\n");
    repository.git(&["add", "."]).expect(0);
    repository.commit().expect(0);
    repository.git(&["worktree", "add", "-q", "../other"]).expect(0);
    repository.world.write("other/b.txt", github_token());
    repository.git(&["-C", "../other", "add", "."]).expect(0);
    repository.git(&["-C", "../other", "commit", "-q", "-m", "x"]).expect(1);
    repository.write("a.txt", format!("one\n{}\n", github_token()));
    repository.git(&["commit", "-q", "-a", "-m", "all"]).expect(1);
}

#[test]
fn a_commit_of_some_paths_or_some_hunks_is_what_is_read() {
    let repository = Repository::new();
    repository.write("a.txt", "one\n");
    repository.write("b.txt", "one\n");
    repository.force_commit();
    // Staged, but not in this commit; then the other way round.
    repository.write("a.txt", format!("one\n{}\n", github_token()));
    repository.git(&["add", "a.txt"]).expect(0);
    repository.write("b.txt", "two\n");
    repository.git(&["commit", "-q", "-m", "only b", "b.txt"]).expect(0);
    repository.git(&["reset", "-q"]).expect(0);
    repository.write("b.txt", "three\n");
    repository.git(&["add", "b.txt"]).expect(0);
    repository.git(&["commit", "-q", "-m", "a too", "-i", "a.txt"]).expect(1);
    repository.git(&["reset", "-q"]).expect(0);
    repository.git_with(&["commit", "-q", "-m", "chosen", "-p", "a.txt"], b"y\n").expect(1);
    repository.git_with(&["commit", "-q", "-m", "chosen", "-p"], b"n\ny\n").expect(0);
}

#[test]
fn an_index_that_is_named_is_the_one_that_is_read() {
    let repository = Repository::new();
    repository.write("a.txt", github_token());
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(arguments);
        let mut command = repository.command(command);
        command.env("GIT_INDEX_FILE", repository.world.path("other-index"));
        super::answer(command, b"")
    };
    git(&["add", "a.txt"]).expect(0);
    repository.git(&["commit", "-q", "--allow-empty", "-m", "its index is empty"]).expect(0);
    git(&["commit", "-q", "-m", "that one"]).expect(1);
}

#[test]
fn an_amended_commit_is_read_where_it_changes() {
    let repository = Repository::new();
    repository.write("a.txt", "one\n");
    repository.force_commit();
    repository.write("a.txt", format!("one\n{}\n", github_token()));
    repository.git(&["add", "."]).expect(0);
    repository.git(&["commit", "-q", "--amend", "-m", "more"]).expect(1);
    repository.git(&["commit", "-q", "--no-verify", "--amend", "-m", "more"]).expect(0);
    let reworded = repository.git(&["commit", "-q", "--amend", "-m", "other words"]).expect(0);
    assert!(reworded.both().contains("nothing is staged"), "{}", reworded.both());
}

#[test]
fn a_merge_is_read_with_what_it_brings() {
    let repository = Repository::new();
    repository.write("a.txt", "base\n");
    repository.force_commit();
    repository.git(&["switch", "-q", "-c", "side"]).expect(0);
    repository.write("a.txt", "theirs\n");
    repository.write("new.txt", "fine\n");
    repository.force_commit();
    repository.git(&["switch", "-q", "main"]).expect(0);
    repository.write("a.txt", "ours\n");
    repository.force_commit();
    repository.git(&["merge", "-q", "side"]).expect(1);
    let unmerged = repository.hook(&["pre-commit"]).expect(3);
    assert!(unmerged.err.contains("not read: a.txt: not merged yet"), "{}", unmerged.err);
    repository.write("a.txt", format!("both\n{}\n", github_token()));
    repository.git(&["add", "."]).expect(0);
    let refused = repository.git(&["commit", "-q", "-m", "merged"]).expect(1);
    assert!(refused.both().contains("a.txt:2:1"), "{}", refused.both());
    repository.write("a.txt", "both\n");
    repository.git(&["add", "."]).expect(0);
    let merged = repository.git(&["commit", "-q", "-m", "merged"]).expect(0);
    assert!(merged.both().contains("2 staged files"), "{}", merged.both());
}

/// The repository itself, as it is after a first commit, in `sub`.
fn add_submodule(repository: &Repository) {
    repository.write("a.txt", "one\n");
    repository.force_commit();
    let folder = repository.world.path("repo");
    let folder = folder.to_str().unwrap();
    let add = ["-c", "protocol.file.allow=always", "submodule", "add", "-q", folder, "sub"];
    repository.git(&add).expect(0);
}

#[test]
fn a_submodule_and_an_intention_to_add_are_no_lines_of_theirs() {
    let repository = Repository::new();
    add_submodule(&repository);
    repository.commit().expect(0);
    // What is in the submodule is its own commit's.
    repository.write("sub/a.txt", format!("{}\n", github_token()));
    repository
        .git(&["-C", "sub", "-c", "user.name=x", "-c", "user.email=x@y.z", "commit", "-qam", "y"])
        .expect(0);
    repository.git(&["add", "sub"]).expect(0);
    repository.commit().expect(0);
    repository.write("later.txt", github_token());
    repository.git(&["add", "-N", "later.txt"]).expect(0);
    repository.write("a.txt", "two\n");
    repository.git(&["add", "a.txt"]).expect(0);
    repository.commit().expect(0);
    repository.git(&["commit", "-q", "-a", "-m", "now it goes in"]).expect(1);
}

#[test]
fn a_hook_in_a_submodule_reads_its_index() {
    let repository = Repository::new();
    add_submodule(&repository);
    repository.hook_in("repo/sub", &["install"]).expect(0);
    assert!(super::exists(&repository.world.path("repo/.git/modules/sub/hooks/pre-commit")));
    repository.write("sub/b.txt", github_token());
    repository.git(&["-C", "sub", "add", "."]).expect(0);
    let author = ["-C", "sub", "-c", "user.name=x", "-c", "user.email=x@y.z"];
    repository.git(&[&author[..], &["commit", "-qm", "y"]].concat()).expect(1);
}

#[test]
fn it_says_how_much_it_read() {
    let repository = Repository::new();
    repository.write("a.txt", "one\ntwo\n");
    repository.write("b.bin", [0u8, 1, 2, 255, 10]);
    repository.write("empty", "");
    repository.git(&["add", "."]).expect(0);
    let committed = repository.commit().expect(0);
    let text = committed.both();
    assert!(text.contains("read the added lines of 2 staged files, 13 bytes"), "{text}");
    repository.write("a.txt", "one\n2\n");
    fs::remove_file(repository.world.path("repo/b.bin")).unwrap();
    repository.git(&["add", "."]).expect(0);
    let document = repository.hook(&["pre-commit", "--format", "json"]).expect(0).json();
    assert_eq!(document["summary"]["files"], 1);
    assert_eq!(document["summary"]["bytes"], 2);
    assert_eq!(document["summary"]["complete"], true);
}

#[test]
fn there_is_always_a_document() {
    let repository = Repository::new();
    repository.write("a.txt", "one\n");
    repository.git(&["add", "."]).expect(0);
    repository.commit().expect(0);
    let nothing = repository.hook(&["pre-commit", "--format", "json"]).expect(0).json();
    assert_eq!(nothing["findings"].as_array().unwrap().len(), 0);
    assert_eq!(
        (&nothing["summary"]["files"], &nothing["summary"]["complete"]),
        (&0.into(), &true.into())
    );
    repository.write("a.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    let found = repository.hook(&["pre-commit", "--format", "json"]).expect(1).json();
    assert_eq!(found["findings"][0]["path"], "a.txt");
    let broken = ["pre-commit", "--format", "json", "--registry", "/nowhere"];
    let error = repository.hook(&broken).expect(2);
    assert!(error.json()["error"].as_str().unwrap().contains("no registry in /nowhere"));
    assert!(error.err.contains("no registry in /nowhere"), "{}", error.err);
    fs::remove_file(repository.world.path("repo/a.txt")).unwrap();
    repository.git(&["add", "."]).expect(0);
    let removed = repository.hook(&["pre-commit"]).expect(0);
    assert!(removed.err.contains("no line is added by 1 staged file"), "{}", removed.err);
}

#[test]
fn a_damaged_index_is_no_clean_commit() {
    let repository = Repository::new();
    repository.write("a.txt", "one\n");
    repository.git(&["add", "."]).expect(0);
    let id = repository.ask(&["rev-parse", ":a.txt"]);
    let object = format!("repo/.git/objects/{}/{}", &id[..2], &id[2..]);
    fs::remove_file(repository.world.path(&object)).unwrap();
    // git takes a file of the work tree instead where it is the same.
    fs::remove_file(repository.world.path("repo/a.txt")).unwrap();
    let failed = repository.hook(&["pre-commit"]).expect(2);
    assert!(failed.err.contains("git diff --cached failed"), "{}", failed.err);
}

#[test]
fn a_file_that_only_looks_the_same_is_not_taken_for_what_is_staged() {
    let repository = Repository::new();
    for (name, value) in [("core.checkStat", "minimal"), ("core.trustctime", "false")] {
        repository.git(&["config", name, value]).expect(0);
    }
    let token = github_token();
    repository.write("a.txt", &token);
    repository.git(&["add", "."]).expect(0);
    let file = fs::File::options().write(true).open(repository.world.path("repo/a.txt")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    // Made long before the index, so that git does not look twice.
    let time = time - std::time::Duration::from_secs(1_000);
    file.set_modified(time).unwrap();
    repository.git(&["update-index", "--refresh"]).expect(0);
    repository.write("a.txt", "x".repeat(token.len()));
    file.set_modified(time).unwrap();
    repository.hook(&["pre-commit"]).expect(1);
}

#[test]
fn many_files_and_what_only_looks_like_keys() {
    let repository = Repository::new();
    let id = "3b18e512dba79e4c8300dd08aeb37f8e728b8dad";
    for number in 0..2_000 {
        repository.write(&format!("{}/{number}.txt", number % 50), format!("{id} {number}\n"));
    }
    repository.git(&["add", "."]).expect(0);
    let document = repository.hook(&["pre-commit", "--format", "json"]).expect(0).json();
    let bytes: usize = (0..2_000).map(|number| 42 + number.to_string().len()).sum();
    assert_eq!(document["summary"]["files"], 2_000);
    assert_eq!(document["summary"]["bytes"], bytes);
    repository.write("49/1999.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    let refused = repository.commit().expect(1);
    assert!(refused.both().contains("49/1999.txt:1:1"), "{}", refused.both());
}

#[test]
fn where_no_commit_is_made_the_hook_fails() {
    let repository = Repository::new();
    repository.git(&["init", "-q", "--bare", "../server"]).expect(0);
    for folder in ["server", "repo/.git"] {
        let failed = repository.hook_in(folder, &["pre-commit"]).expect(2);
        assert!(failed.err.contains("this is no work tree"), "{}", failed.err);
    }
}

#[test]
fn without_a_branch_and_with_long_ids() {
    let repository = Repository::new();
    repository.write("a.txt", "one\n");
    repository.force_commit();
    repository.git(&["checkout", "-q", "--detach"]).expect(0);
    repository.write("a.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    repository.commit().expect(1);
    repository.git(&["init", "-q", "--object-format=sha256", "../repo/long"]).expect(0);
    repository.write("long/a.txt", github_token());
    repository.git(&["-C", "long", "add", "."]).expect(0);
    repository.hook_in("repo/long", &["pre-commit"]).expect(1);
}
