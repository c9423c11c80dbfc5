//! The pre-commit framework, the real one: it finds our hooks by `.pre-commit-hooks.yaml`.

use std::fs;
use std::process::Command;

use super::super::world::{github_token, python};
use super::{Answer, Repository, answer, path_with_program};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.pre-commit-hooks.yaml");

impl Repository {
    /// With a configuration of the framework that names these hooks of ours.
    fn with_framework(hooks: &[&str]) -> Self {
        let repository = Self::bare_of_hooks();
        let ours = repository.world.path("leakwarden");
        fs::create_dir(&ours).unwrap();
        fs::copy(MANIFEST, ours.join(".pre-commit-hooks.yaml")).unwrap();
        let git = |arguments: &[&str]| {
            let author = ["-C", "../leakwarden", "-c", "user.name=x", "-c", "user.email=x@y.z"];
            repository.git(&[&author[..], arguments].concat()).expect(0)
        };
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "hooks"]);
        let rev = git(&["rev-parse", "HEAD"]).out;
        let hooks: String = hooks.iter().map(|id| format!("      - id: {id}\n")).collect();
        let config = format!(
            "repos:\n  - repo: ../leakwarden\n    rev: {}\n    hooks:\n{hooks}",
            rev.trim()
        );
        repository.write(".pre-commit-config.yaml", config);
        repository.git(&["add", "."]).expect(0);
        repository
    }

    fn framework(&self, arguments: &[&str]) -> Answer {
        let mut command = python();
        command.args(["-m", "pre_commit"]).args(arguments);
        let mut command = self.command(command);
        command.env("PATH", path_with_program());
        answer(command, b"")
    }

    fn git_in_path(&self, arguments: &[&str]) -> Answer {
        let mut command = Command::new("git");
        command.args(arguments);
        let mut command = self.command(command);
        command.env("PATH", path_with_program());
        answer(command, b"")
    }
}

#[test]
fn the_manifest_is_one() {
    Repository::with_framework(&[]).framework(&["validate-manifest", MANIFEST]).expect(0);
}

#[test]
fn a_commit_goes_by_the_index_and_a_run_by_hand_is_not_clean_for_nothing() {
    let repository = Repository::with_framework(&["leakwarden-system"]);
    repository.framework(&["install"]).expect(0);
    repository.write("a.txt", "fine\n");
    repository.git(&["add", "."]).expect(0);
    repository.git_in_path(&["commit", "-m", "fine"]).expect(0);
    repository.write("a.txt", format!("fine\n{}\n", github_token()));
    repository.git(&["add", "."]).expect(0);
    // What is not staged is put aside by the framework.
    repository.write("a.txt", "cleaned up\n");
    let refused = repository.git_in_path(&["commit", "-m", "key"]).expect(1);
    assert!(refused.both().contains("a.txt:2:1"), "{}", refused.both());
    repository.git(&["reset", "-q", "--hard"]).expect(0);
    let reworded = repository.git_in_path(&["commit", "--amend", "-m", "other words"]);
    reworded.expect(0);
    let by_hand = repository.framework(&["run", "--all-files"]).expect(1);
    assert!(by_hand.out.contains("leakwarden-files"), "{}", by_hand.both());
}

#[test]
fn a_range_of_commits_and_all_files() {
    let repository = Repository::with_framework(&["leakwarden-system", "leakwarden-files"]);
    repository.write("a.txt", "fine\n");
    let first = repository.force_commit();
    repository.write("b.txt", format!("{}\n", github_token()));
    let second = repository.force_commit();
    let refused = repository
        .framework(&["run", "leakwarden-system", "--from-ref", &first, "--to-ref", "HEAD"])
        .expect(1);
    assert!(refused.out.contains(&format!("{}:b.txt:1:1", &second[..12])), "{}", refused.out);
    let refused = repository.framework(&["run", "leakwarden-files", "--all-files"]).expect(1);
    assert!(refused.out.contains("b.txt:1:1"), "{}", refused.out);
    repository.write("b.txt", "clean\n");
    repository.force_commit();
    repository.framework(&["run", "leakwarden-files", "--all-files"]).expect(0);
    let range = ["run", "leakwarden-system", "--from-ref", &second, "--to-ref", "HEAD"];
    repository.framework(&range).expect(0);
}

#[test]
fn a_push_is_read() {
    let repository = Repository::with_framework(&["leakwarden-pre-push-system"]);
    repository.framework(&["install", "-t", "pre-push"]).expect(0);
    repository.git(&["init", "-q", "--bare", "../server"]).expect(0);
    repository.git(&["remote", "add", "origin", "../server"]).expect(0);
    repository.write("a.txt", format!("{}\n", github_token()));
    repository.force_commit();
    // The first push, of everything; then one of a part.
    let refused = repository.git_in_path(&["push", "origin", "main"]).expect(1);
    assert!(refused.both().contains("a.txt:1:1"), "{}", refused.both());
    repository.git(&["push", "-q", "--no-verify", "origin", "main"]).expect(0);
    repository.write("a.txt", format!("{}\nfine\n", github_token()));
    repository.force_commit();
    repository.git_in_path(&["push", "origin", "main"]).expect(0);
    repository.write("b.txt", format!("{}\n", github_token()));
    repository.force_commit();
    repository.git_in_path(&["push", "origin", "main"]).expect(1);
}

#[test]
fn beside_the_framework_our_own_hook_calls_it() {
    let repository = Repository::with_framework(&["leakwarden-system"]);
    repository.framework(&["install"]).expect(0);
    repository.hook(&["install"]).expect(0);
    repository.write("a.txt", "fine\n");
    repository.git(&["add", "."]).expect(0);
    let both = repository.git_in_path(&["commit", "-m", "fine"]).expect(0);
    assert!(both.both().contains("Passed"), "{}", both.both());
    repository.write("b.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    repository.git_in_path(&["commit", "-m", "key"]).expect(1);
    // The other way round: the framework keeps ours and calls it.
    repository.hook(&["uninstall"]).expect(0);
    repository.framework(&["uninstall"]).expect(0);
    repository.hook(&["install"]).expect(0);
    repository.framework(&["install"]).expect(0);
    let status = repository.hook(&["status"]).expect(0);
    assert!(status.out.contains("pre-commit.legacy"), "{}", status.out);
}
