//! `hook`, in real repositories with real git.

mod filter;
mod framework;
mod index;
mod install;
mod push;
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::{Answer, World, answer, exists, github_token};

/// A repository in `repo`.
struct Repository {
    world: World,
}

impl Repository {
    /// With the hook.
    fn new() -> Self {
        let repository = Self::bare_of_hooks();
        repository.hook(&["install"]).expect(0);
        repository
    }

    fn bare_of_hooks() -> Self {
        let world = World::new();
        fs::create_dir(world.path("repo")).unwrap();
        let repository = Self { world };
        repository.git(&["init", "-q", "-b", "main"]).expect(0);
        repository.git(&["config", "user.name", "Test"]).expect(0);
        repository.git(&["config", "user.email", "test@example.com"]).expect(0);
        repository
    }

    fn command(&self, mut command: Command) -> Command {
        command
            .current_dir(self.world.path("repo"))
            .env("LEAKWARDEN_REGISTRY", self.world.path("registry"))
            .env("GIT_CONFIG_GLOBAL", self.world.path("gitconfig"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("XDG_CONFIG_HOME", self.world.path("config"))
            .env("PRE_COMMIT_HOME", self.world.path("pre-commit"))
            .env_remove("LEAKWARDEN_FILTER");
        for name in ["GIT_DIR", "GIT_INDEX_FILE", "PRE_COMMIT"] {
            command.env_remove(name);
        }
        command
    }

    fn git(&self, arguments: &[&str]) -> Answer {
        self.git_with(arguments, b"")
    }

    fn git_with(&self, arguments: &[&str], stdin: &[u8]) -> Answer {
        let mut git = Command::new("git");
        git.args(arguments);
        answer(self.command(git), stdin)
    }

    /// The only line that git prints.
    fn ask(&self, arguments: &[&str]) -> String {
        self.git(arguments).expect(0).out.trim().to_owned()
    }

    fn hook(&self, arguments: &[&str]) -> Answer {
        self.hook_in("repo", arguments)
    }

    fn hook_in(&self, folder: &str, arguments: &[&str]) -> Answer {
        let mut program = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
        program.arg("hook").args(arguments);
        let mut program = self.command(program);
        program.current_dir(self.world.path(folder));
        answer(program, b"")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.world.write(&format!("repo/{name}"), content);
    }

    fn commit(&self) -> Answer {
        self.git(&["commit", "-q", "-m", "change"])
    }

    /// Stages everything and commits it without asking anybody; answers the commit's id.
    fn force_commit(&self) -> String {
        self.git(&["add", "."]).expect(0);
        self.git(&["commit", "-q", "--no-verify", "-m", "change"]).expect(0);
        self.ask(&["rev-parse", "HEAD"])
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.world.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.world.path(name)).unwrap()
    }
}

/// A program that leaves a trace when it is run.
struct Canary {
    trace: PathBuf,
    program: PathBuf,
}

impl Canary {
    fn new(repository: &Repository) -> Self {
        let trace = repository.world.path("canary");
        let text =
            format!("#!/bin/sh\necho \"$0 $@\" >> '{}'\ncat \"$1\" 2>/dev/null\n", trace.display());
        repository.script("program", &text);
        Self { trace, program: repository.world.path("program") }
    }

    /// The repository names it at this place of its configuration.
    fn lies_in(&self, repository: &Repository, name: &str) {
        repository.git(&["config", name, self.program.to_str().unwrap()]).expect(0);
    }

    fn forget(&self) {
        if exists(&self.trace) {
            fs::remove_file(&self.trace).unwrap();
        }
    }

    #[track_caller]
    fn expect_silence(&self) {
        assert!(!exists(&self.trace), "{}", fs::read_to_string(&self.trace).unwrap());
    }
}

/// The folder of the program under test, before the others in PATH.
fn path_with_program() -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_leakwarden")).parent().unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_commit_with_a_key_is_refused() {
    let repository = Repository::new();
    let key = repository.world.key("deploy", "disable", &["--like", "ibm"]);
    repository.write("a.txt", "fine\n");
    repository.git(&["add", "."]).expect(0);
    let clean = repository.commit().expect(0);
    assert!(clean.both().contains("read the added lines of 1 staged file"), "{}", clean.both());
    repository.write("a.txt", format!("fine\nkey = {key}\n"));
    repository.git(&["add", "."]).expect(0);
    let refused = repository.commit().expect(1);
    let text = refused.both();
    assert!(
        text.contains("a.txt:2:7: registered") && text.contains("deploy@example.com"),
        "{text}"
    );
    assert!(text.contains("commit refused, 1 key in it") && !text.contains(&key), "{text}");
    for way in ["`git add a.txt && git commit`", "key disable ApiKey-", "git commit --no-verify"] {
        assert!(text.contains(way), "{text}");
    }
    assert!(text.lines().count() <= 7, "{text}");
    assert_eq!(repository.git(&["rev-list", "--count", "HEAD"]).out.trim(), "1");
}

/// The line between the first backquotes behind a word of a refusal.
fn way(text: &str, word: &str) -> String {
    let line = text.lines().find(|line| line.contains(word)).unwrap();
    line.split('`').nth(1).unwrap().to_owned()
}

#[test]
fn the_ways_on_can_be_copied_as_they_stand() {
    let repository = Repository::bare_of_hooks();
    let registry = repository.world.path("registry").display().to_string();
    repository.hook(&["install", "--registry", &registry]).expect(0);
    let key = repository.world.key("deploy", "disable", &["--like", "ibm"]);
    repository.write("sub/a b.txt", format!("key = {key}\n"));
    repository.git(&["add", "."]).expect(0);
    let sh = |text: &str, folder: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", text]);
        let mut shell = repository.command(shell);
        shell.current_dir(repository.world.path(folder)).env_remove("LEAKWARDEN_REGISTRY");
        shell.env("PATH", path_with_program()).env("EDITOR", "true");
        answer(shell, b"")
    };
    // From a folder within, and with a registry that only the hook knows.
    let refused = sh("git commit -qm change", "repo/sub").expect(1).both();
    assert!(refused.contains("deploy@example.com"), "{refused}");
    repository.write("sub/a b.txt", "fine\n");
    let added = way(&refused, "take it out");
    assert!(added.starts_with("git add ") && added.ends_with(" && git commit"), "{added}");
    sh(&added.replace("git commit", "git commit -qm fine"), "repo/sub").expect(0);
    let (_, rotate) = refused.split_once("rotate it").unwrap();
    sh(&way(rotate, "key disable"), "repo/sub").expect(0);
    assert_eq!(repository.world.verify(&key), "disabled");
    // The first commit of all has no parent.
    repository.git(&["checkout", "-q", "--orphan", "new"]).expect(0);
    repository.write("sub/a b.txt", github_token());
    repository.force_commit();
    repository.git(&["init", "-q", "--bare", "../server"]).expect(0);
    repository.hook(&["install", "pre-push"]).expect(0);
    let refused = repository.git(&["push", "-q", "../server", "new"]).expect(1).both();
    assert!(refused.contains("`git rebase -i --root` if it has no parent"), "{refused}");
    sh("git rebase -i --root", "repo").expect(0);
}

#[test]
fn the_index_counts_not_the_work_tree() {
    let repository = Repository::new();
    let token = github_token();
    repository.write("a.txt", &token);
    repository.git(&["add", "."]).expect(0);
    repository.write("a.txt", "cleaned up\n");
    repository.commit().expect(1);
    repository.git(&["add", "."]).expect(0);
    repository.write("a.txt", &token);
    repository.commit().expect(0);
}

#[test]
fn only_added_lines_count() {
    let repository = Repository::new();
    let token = github_token();
    let text: String = (0..40).map(|n| format!("line {n}\n")).collect();
    repository.write("old.txt", format!("{text}{token}\n"));
    repository.git(&["add", "."]).expect(0);
    repository.git(&["commit", "-q", "--no-verify", "-m", "leak"]).expect(0);
    // A change beside it, a rename, and its removal add nothing.
    repository.write("old.txt", format!("{text}{token}\nmore\n"));
    repository.git(&["add", "."]).expect(0);
    repository.commit().expect(0);
    repository.git(&["mv", "old.txt", "new.txt"]).expect(0);
    repository.commit().expect(0);
    repository.write("new.txt", text);
    repository.git(&["add", "."]).expect(0);
    repository.commit().expect(0);
    let empty = repository.git(&["commit", "-q", "--allow-empty", "-m", "nothing"]).expect(0);
    assert!(empty.both().contains("nothing is staged"), "{}", empty.both());
    assert!(!empty.both().contains("INCOMPLETE"), "{}", empty.both());
}

#[test]
fn binary_files_and_odd_names_are_read() {
    let repository = Repository::new();
    let token = github_token();
    repository.write("-q \"odd\"\tname.bin", format!("\0\0\x01{token}\0"));
    repository.write(".gitattributes", "*.bin binary -diff\n");
    repository.git(&["add", "."]).expect(0);
    let refused = repository.commit().expect(1);
    assert!(refused.both().contains("-q \"odd\"\\u{9}name.bin"), "{}", refused.both());
}

#[test]
fn nothing_that_the_repository_says_is_run() {
    let repository = Repository::new();
    let canary = Canary::new(&repository);
    repository.write("a.txt", "first\n");
    repository.write(".gitattributes", "*.txt diff=evil filter=evil\n");
    repository.git(&["add", "."]).expect(0);
    repository.git(&["commit", "-q", "-m", "first"]).expect(0);
    repository.write("a.txt", format!("first\n{}\n", github_token()));
    repository.git(&["add", "."]).expect(0);
    for name in [
        "core.fsmonitor",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.askPass",
        "credential.helper",
        "gpg.program",
        "interactive.diffFilter",
        "pager.diff",
    ] {
        canary.lies_in(&repository, name);
    }
    canary.forget();
    let refused = repository.hook(&["pre-commit"]).expect(1);
    assert!(refused.out.contains("a.txt:2:1"), "{}", refused.both());
    canary.expect_silence();
}

#[test]
fn the_settings_of_a_repository_cannot_hide_a_key() {
    let repository = Repository::new();
    for (name, value) in [
        ("diff.noprefix", "true"),
        ("diff.mnemonicPrefix", "true"),
        ("color.ui", "always"),
        ("diff.context", "9"),
        ("diff.wordRegex", "."),
        ("diff.renames", "copies"),
        ("diff.ignoreSubmodules", "all"),
        ("diff.suppressBlankEmpty", "true"),
        ("diff.relative", "true"),
        ("core.quotePath", "false"),
        ("diff.interHunkContext", "100"),
        ("diff.algorithm", "patience"),
        ("diff.colorMoved", "zebra"),
        ("diff.statGraphWidth", "3"),
    ] {
        repository.git(&["config", name, value]).expect(0);
    }
    repository.write("x/y.txt", format!("a\n{}\n", github_token()));
    repository.git(&["add", "."]).expect(0);
    let refused = repository.commit().expect(1);
    assert!(refused.both().contains("x/y.txt:2:1"), "{}", refused.both());
}

#[test]
fn outside_a_repository_the_hook_fails() {
    let world = World::empty();
    for arguments in [["hook", "pre-commit"], ["hook", "install"]] {
        let mut command = world.command(&arguments);
        command.env("GIT_CEILING_DIRECTORIES", world.path(".."));
        let answer = answer(command, b"").expect(2);
        assert!(answer.err.contains("not a git repository"), "{}", answer.both());
    }
}

#[test]
fn a_repository_that_makes_git_talk_does_not_hang_the_hook() {
    let repository = Repository::new();
    repository.write(".gitattributes", "bad//attribute !!x=y -!z\n".repeat(5_000));
    repository.write("a.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    repository.hook(&["pre-commit"]).expect(1);
}

#[test]
fn a_repository_of_another_owner_needs_the_users_trust() {
    if !rustix::process::getuid().is_root() {
        return; // Only root can give a folder to somebody else.
    }
    let repository = Repository::new();
    repository.write("a.txt", github_token());
    repository.git(&["add", "."]).expect(0);
    let folder = repository.world.path("repo");
    for place in [folder.clone(), folder.join(".git")] {
        std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
    }
    let refused = repository.hook(&["pre-commit"]).expect(2);
    assert!(refused.err.contains("dubious ownership"), "{}", refused.err);
    assert!(!refused.err.contains("\\u{a}"), "{}", refused.err);
    let config = format!("[safe]\n\tdirectory = {}\n", folder.canonicalize().unwrap().display());
    let config = repository.world.write("gitconfig", config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
    command.args(["hook", "pre-commit"]);
    let mut command = repository.command(command);
    command.env("GIT_CONFIG_GLOBAL", config);
    assert!(answer(command, b"").expect(1).out.contains("a.txt:1:1"));
}
