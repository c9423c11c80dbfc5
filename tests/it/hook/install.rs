//! Where hooks go, what they keep, and what keeps them from running.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::super::world::{Answer, exists, github_token};
use super::{Repository, answer, path_with_program};

const HOOK: &str = "repo/.git/hooks/pre-commit";

/// Stages a key and tries to commit it.
fn try_key(repository: &Repository) -> Answer {
    repository.write("key.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    let answer = repository.commit();
    repository.git(&["rm", "-q", "--cached", "key.txt"]).expect(0);
    answer
}

fn try_fine(repository: &Repository) -> Answer {
    repository.write("key.txt", "");
    repository.git(&["commit", "-q", "--allow-empty", "-m", "fine"])
}

#[test]
fn installing_twice_changes_nothing_and_uninstalling_leaves_nothing() {
    let repository = Repository::new();
    let before = repository.read(HOOK);
    repository.hook(&["install"]).expect(0);
    assert_eq!(repository.read(HOOK), before);
    assert!(repository.hook(&["status"]).expect(0).out.contains("pre-commit   installed in"));
    assert!(repository.hook(&["uninstall"]).expect(0).err.contains("removed"));
    assert!(!exists(&repository.world.path(HOOK)));
    let again = repository.hook(&["uninstall"]).expect(0);
    assert!(again.err.contains("nothing was changed"), "{}", again.err);
    assert!(repository.hook(&["status"]).expect(1).out.contains("pre-commit   not installed"));
}

#[test]
fn a_hook_that_is_there_is_called_first_and_comes_back() {
    let repository = Repository::bare_of_hooks();
    // Goes by its name, as hooks of several managers do.
    let foreign = "#!/usr/bin/env bash\necho \"$(basename \"$0\") of old\" >> ../calls\n\
                   [ ! -e ../refuse ] || exit 7\n";
    repository.script(HOOK, foreign);
    let said = repository.hook(&["install"]).expect(0);
    assert!(said.err.contains("it calls first what was there"), "{}", said.err);
    repository.hook(&["install"]).expect(0);
    try_key(&repository).expect(1);
    try_fine(&repository).expect(0);
    assert_eq!(repository.read("calls"), "pre-commit of old\npre-commit of old\n");
    let status = repository.hook(&["status"]).expect(0);
    assert!(status.out.contains("before-leakwarden first"), "{}", status.out);
    repository.world.write("refuse", "");
    try_fine(&repository).expect(1);
    repository.hook(&["uninstall"]).expect(0);
    assert_eq!(repository.read(HOOK), foreign);
    let mode = fs::metadata(repository.world.path(HOOK)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert!(!exists(&repository.world.path("repo/.git/hooks/pre-commit.before-leakwarden")));
}

#[test]
fn a_hook_that_is_a_link_or_no_shell_script_is_called_too() {
    let repository = Repository::bare_of_hooks();
    repository.script("repo/tools/check.py", "#!/usr/bin/env python3\nopen('../called', 'w')\n");
    let hook = repository.world.path(HOOK);
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    symlink("../../tools/check.py", &hook).unwrap();
    repository.hook(&["install"]).expect(0);
    try_key(&repository).expect(1);
    assert!(exists(&repository.world.path("called")));
    repository.hook(&["uninstall"]).expect(0);
    assert_eq!(fs::read_link(&hook).unwrap().to_str(), Some("../../tools/check.py"));
}

#[test]
fn a_hook_that_git_leaves_out_is_not_called_by_ours_either() {
    let repository = Repository::bare_of_hooks();
    repository.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n");
    repository.hook(&["install"]).expect(0);
    try_fine(&repository).expect(0);
}

#[test]
fn a_hook_that_calls_leakwarden_is_left_as_it_is() {
    let repository = Repository::bare_of_hooks();
    let own =
        format!("#!/bin/sh\n{} hook pre-commit || exit 1\n", env!("CARGO_BIN_EXE_leakwarden"));
    repository.script(HOOK, &own);
    let said = repository.hook(&["install"]).expect(0);
    assert!(said.err.contains("calls leakwarden already"), "{}", said.err);
    repository.hook(&["status"]).expect(0);
    let said = repository.hook(&["uninstall"]).expect(0);
    assert!(said.err.contains("take that line out yourself"), "{}", said.err);
    assert_eq!(repository.read(HOOK), own);
}

#[test]
fn what_another_installer_did_since_is_seen() {
    let repository = Repository::bare_of_hooks();
    let other = "#!/bin/sh\nexit 0 # LEFTHOOK\n";
    repository.script(HOOK, other);
    repository.hook(&["install"]).expect(0);
    // As lefthook does: ours goes aside, its own file comes back.
    let hook = repository.world.path(HOOK);
    fs::rename(&hook, repository.world.path("repo/.git/hooks/pre-commit.old")).unwrap();
    repository.script(HOOK, other);
    let status = repository.hook(&["status"]).expect(1);
    assert!(status.out.contains("NOT RUN") && status.out.contains("moved aside"), "{}", status.out);
    repository.hook(&["install"]).expect(0);
    try_key(&repository).expect(1);
    // A third one in the place of what is kept: nobody's hook is thrown away.
    repository.script(HOOK, "#!/bin/sh\nexit 0 # another\n");
    let refused = repository.hook(&["install"]).expect(2);
    assert!(refused.err.contains("nothing was changed"), "{}", refused.err);
    assert_eq!(repository.read(HOOK), "#!/bin/sh\nexit 0 # another\n");
}

#[test]
fn status_says_what_keeps_a_hook_from_running() {
    let repository = Repository::new();
    let hook = repository.world.path(HOOK);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o644)).unwrap();
    let status = repository.hook(&["status"]).expect(1);
    assert!(status.out.contains("not executable"), "{}", status.out);
    repository.hook(&["install"]).expect(0);
    let moved =
        repository.read(HOOK).replace(env!("CARGO_BIN_EXE_leakwarden"), "/nowhere/leakwarden");
    repository.script(HOOK, &moved);
    let status = repository.hook(&["status"]).expect(1);
    assert!(status.out.contains("/nowhere/leakwarden, which is not there"), "{}", status.out);
    repository.hook(&["install"]).expect(0);
    repository.git(&["config", "core.hooksPath", "/somewhere/else"]).expect(0);
    let status = repository.hook(&["status", "--format", "json"]).expect(1).json();
    assert_eq!(status["hooks"][0]["state"], "not run");
    assert!(status["hooks"][0]["note"].as_str().unwrap().contains("shadowed"), "{status}");
    assert!(status["hooks_path"].as_str().unwrap().contains("(local, file:"), "{status}");
    // It can still be taken out.
    repository.hook(&["uninstall"]).expect(0);
    assert!(!exists(&hook));
}

#[test]
fn a_folder_that_others_share_is_not_written_to() {
    let repository = Repository::bare_of_hooks();
    fs::create_dir(repository.world.path("shared")).unwrap();
    let shared = repository.world.path("shared");
    repository.git(&["config", "core.hooksPath", shared.to_str().unwrap()]).expect(0);
    let refused = repository.hook(&["install"]).expect(2);
    assert!(
        refused.err.contains("other repositories") && refused.err.contains("--unset"),
        "{}",
        refused.err
    );
    repository.git(&["config", "--unset", "core.hooksPath"]).expect(0);
    repository.git(&["config", "--global", "core.hooksPath", shared.to_str().unwrap()]).expect(0);
    let refused = repository.hook(&["install"]).expect(2);
    assert!(refused.err.contains("hook install --global"), "{}", refused.err);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    repository.script("shared/pre-commit", "#!/bin/sh\necho shared >> ../calls\n");
    repository.hook(&["install", "--global"]).expect(0);
    try_key(&repository).expect(1);
    assert_eq!(repository.read("calls"), "shared\n");
    repository.hook(&["status"]).expect(0);
    repository.hook(&["uninstall", "--global"]).expect(0);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 1);
    try_key(&repository).expect(0);
    assert_eq!(repository.ask(&["config", "--global", "core.hooksPath"]), shared.to_str().unwrap());
}

#[test]
fn for_all_repositories_and_each_keeps_its_own_hooks() {
    let repository = Repository::bare_of_hooks();
    repository.script(HOOK, "#!/bin/sh\necho commit >> ../calls\n");
    repository.script("repo/.git/hooks/commit-msg", "#!/bin/sh\necho message >> ../calls\n");
    repository.script("repo/.git/hooks/pre-push", "#!/bin/sh\ncat >> ../calls\nexit 1\n");
    let said = repository.hook(&["install", "--global"]).expect(0);
    assert!(said.err.contains("set core.hooksPath"), "{}", said.err);
    repository.hook(&["install", "--global", "pre-push"]).expect(0);
    try_key(&repository).expect(1);
    try_fine(&repository).expect(0);
    assert_eq!(repository.read("calls"), "commit\ncommit\nmessage\n");
    repository.git(&["init", "-q", "--bare", "../server"]).expect(0);
    fs::remove_file(repository.world.path("calls")).unwrap();
    repository.git(&["push", "-q", "../server", "main"]).expect(1);
    assert!(repository.read("calls").starts_with("refs/heads/main "), "its own hook had its refs");
    let status = repository.hook(&["status"]).expect(0);
    assert!(status.out.contains("for all of your repositories"), "{}", status.out);
    // A repository that sends git elsewhere.
    repository.git(&["config", "core.hooksPath", ".x"]).expect(0);
    let shadowed = repository.hook(&["status"]).expect(1).out;
    assert!(shadowed.contains("NOT RUN") && shadowed.contains("shadowed"), "{shadowed}");
    let global = repository.hook(&["status", "--global"]).expect(0).out;
    assert!(global.contains("not run in this repository: core.hooksPath (local"), "{global}");
    repository.git(&["config", "--unset", "core.hooksPath"]).expect(0);
    let global = repository.hook(&["status", "--global"]).expect(0).out;
    assert!(!global.contains("not run"), "{global}");
    // Beside it, one repository has another registry.
    repository.hook(&["install"]).expect(0);
    assert!(repository.read(HOOK).contains("before-leakwarden"));
    try_key(&repository).expect(1);
    repository.hook(&["uninstall"]).expect(0);
    assert_eq!(repository.read(HOOK), "#!/bin/sh\necho commit >> ../calls\n");
    repository.hook(&["uninstall", "--global"]).expect(0);
    assert!(!exists(&repository.world.path("config/leakwarden/hooks")));
    repository.git(&["config", "--global", "core.hooksPath"]).expect(1);
    try_key(&repository).expect(0);
}

#[test]
fn in_a_folder_of_the_project_lines_go_into_its_hook() {
    let repository = Repository::bare_of_hooks();
    let theirs = "#!/bin/sh\necho theirs >> ../calls\nexit 0\n";
    repository.script("repo/.githooks/pre-commit", theirs);
    repository.git(&["config", "core.hooksPath", ".githooks"]).expect(0);
    let said = repository.hook(&["install"]).expect(0);
    assert!(said.err.contains("part of the project"), "{}", said.err);
    repository.hook(&["install"]).expect(0);
    assert_eq!(repository.read("repo/.githooks/pre-commit").matches("hook pre-commit").count(), 1);
    try_key(&repository).expect(1);
    try_fine(&repository).expect(0);
    assert_eq!(repository.read("calls"), "theirs\n");
    repository.hook(&["status"]).expect(0);
    repository.hook(&["uninstall"]).expect(0);
    assert_eq!(repository.read("repo/.githooks/pre-commit"), theirs);
    fs::remove_file(repository.world.path("repo/.githooks/pre-commit")).unwrap();
    let elsewhere = repository.world.write("profile", "# mine\n");
    symlink(&elsewhere, repository.world.path("repo/.githooks/pre-commit")).unwrap();
    let refused = repository.hook(&["install"]).expect(2);
    assert!(refused.err.contains("is a link"), "{}", refused.err);
    assert_eq!(repository.read("profile"), "# mine\n");
    fs::remove_file(repository.world.path("repo/.githooks/pre-commit")).unwrap();
    repository.script("repo/.githooks/pre-commit", "#!/usr/bin/env python3\n");
    let refused = repository.hook(&["install"]).expect(2);
    assert!(refused.err.contains("is no shell script"), "{}", refused.err);
}

#[test]
fn with_husky_the_hook_goes_where_husky_keeps_it() {
    let repository = Repository::bare_of_hooks();
    // What husky 9 writes: each file in `_` reads `h`, which calls the file above of that name.
    repository.script("repo/.husky/_/pre-commit", "#!/usr/bin/env sh\n. \"$(dirname \"$0\")/h\"\n");
    repository.write(
        ".husky/_/h",
        "#!/usr/bin/env sh\nn=$(basename \"$0\")\ns=$(dirname \"$(dirname \"$0\")\")/$n\n\
         [ ! -f \"$s\" ] && exit 0\nsh -e \"$s\" \"$@\"\nexit $?\n",
    );
    repository.write(".husky/pre-commit", "echo tests >> ../calls\n");
    repository.git(&["config", "core.hooksPath", ".husky/_"]).expect(0);
    let mut install = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    install.args(["hook", "install"]);
    let mut install = repository.command(install);
    install.env("PATH", path_with_program());
    let said = answer(install, b"").expect(0);
    assert!(!said.err.contains("not in your PATH"), "{}", said.err);
    let hook = repository.read("repo/.husky/pre-commit");
    assert!(hook.contains("\nleakwarden hook pre-commit || exit $?\n"), "{hook}");
    repository.write("key.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    let mut commit = Command::new("git");
    commit.args(["commit", "-qm", "x"]);
    let mut commit = repository.command(commit);
    commit.env("PATH", path_with_program());
    let refused = answer(commit, b"").expect(1);
    assert!(refused.err.contains("commit refused"), "{}", refused.both());
    assert!(!exists(&repository.world.path("calls")));
    repository.hook(&["uninstall"]).expect(0);
    assert_eq!(repository.read("repo/.husky/pre-commit"), "echo tests >> ../calls\n");
}

#[test]
fn a_linked_worktree_has_the_hooks_of_its_repository() {
    let repository = Repository::bare_of_hooks();
    try_fine(&repository).expect(0);
    repository.git(&["worktree", "add", "-q", "../other"]).expect(0);
    let mut install = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    install.args(["hook", "install"]);
    let mut install = repository.command(install);
    install.current_dir(repository.world.path("other"));
    answer(install, b"").expect(0);
    assert!(exists(&repository.world.path(HOOK)));
    try_key(&repository).expect(1);
    repository.world.write("other/b.txt", github_token());
    repository.git(&["-C", "../other", "add", "."]).expect(0);
    repository.git(&["-C", "../other", "commit", "-q", "-m", "x"]).expect(1);
}
