//! `scan --git` of repositories that mean harm: nothing that they say is run, nothing is fetched,
//! reading stays bounded, and the key in them is found all the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::history::{Git, names, summary};
use super::world::{Answer, answer, exists};

/// Settings that name a program.
const PROGRAMS: &[&str] = &[
    "core.fsmonitor",
    "core.alternateRefsCommand",
    "core.askPass",
    "core.editor",
    "core.gitProxy",
    "core.pager",
    "core.sshCommand",
    "credential.helper",
    "diff.evil.command",
    "diff.evil.textconv",
    "diff.external",
    "difftool.evil.cmd",
    "filter.evil.clean",
    "filter.evil.process",
    "filter.evil.smudge",
    "gpg.program",
    "gpg.ssh.program",
    "interactive.diffFilter",
    "merge.evil.driver",
    "pager.cat-file",
    "pager.for-each-ref",
    "pager.rev-list",
    "pager.rev-parse",
    "remote.origin.receivepack",
    "remote.origin.uploadpack",
    "sequence.editor",
    "uploadpack.packObjectsHook",
    "url.ext::sh.insteadOf",
];

/// Hooks that git could start.
const HOOKS: &[&str] =
    &["fsmonitor-watchman", "post-checkout", "post-index-change", "reference-transaction"];

/// A repository with a key, and a program that leaves a trace when it is started.
struct Trap {
    git: Git,
    program: String,
}

impl Trap {
    fn new() -> Self {
        let git = Git::new();
        let key = git.world.key("k", "none", &[]);
        git.write("a.txt", format!("{key}\n"));
        git.write(".gitattributes", "*.txt diff=evil filter=evil merge=evil\n");
        git.commit("first");
        let canary = git.world.path("canary");
        let script = format!("#!/bin/sh\necho \"$0 $@\" >> '{}'\n", canary.display());
        let program = git.world.write("program", script);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.to_str().unwrap().to_owned();
        Self { git, program }
    }

    /// Sets a trap by what git would run.
    fn set(&self, name: &str) {
        self.git.git(&["config", "--file", ".git/config", name, &self.program]);
    }

    #[track_caller]
    fn is_quiet(&self, what: &str) {
        let canary = self.git.world.path("canary");
        let said = fs::read_to_string(&canary).unwrap_or_default();
        assert!(!exists(&canary), "{what}: {said}");
    }

    /// Scans in all ways; in each the key is found, and nothing is run.
    #[track_caller]
    fn check(&self, folder: &str, what: &str) {
        let all: [&[&str]; 3] = [&[], &["--branch", "HEAD"], &["--memory", "64", "--threads", "1"]];
        for more in all {
            let answer = self.git.scan_of(folder, more);
            assert!(names(&answer).contains("k"), "{what} {more:?}: {}", answer.both());
            self.is_quiet(what);
        }
    }
}

#[test]
fn no_program_of_the_configuration_is_run() {
    let trap = Trap::new();
    trap.git.write("b.txt", format!("{}\n", trap.git.world.key("staged", "none", &[])));
    trap.git.git(&["add", "."]);
    for name in PROGRAMS {
        trap.set(name);
    }
    for name in ["core.attributesFile", "core.excludesFile"] {
        trap.git.git(&["config", "--file", ".git/config", name, "/proc/self/environ"]);
    }
    for name in HOOKS {
        fs::copy(&trap.program, trap.git.world.path(&format!("repo/.git/hooks/{name}"))).unwrap();
    }
    trap.check("repo", "programs");
    assert!(names(&trap.git.scan(&["--staged"]).expect(1)).contains("staged"));
    trap.is_quiet("--staged");
    // The trap is one: git as it is usually called steps into it.
    let _status = trap.git.run("repo", &["status"]);
    assert!(exists(&trap.git.world.path("canary")));
}

#[test]
fn hooks_aliases_and_includes_lead_nowhere() {
    let trap = Trap::new();
    let hooks = trap.git.world.path("hooks");
    fs::create_dir(&hooks).unwrap();
    for name in HOOKS {
        fs::copy(&trap.program, hooks.join(name)).unwrap();
    }
    let program = &trap.program;
    let included = format!(
        "[core]\n\tfsmonitor = {program}\n\thooksPath = {}\n[alias]\n\trev-parse = !{program}\n\
         \tcat-file = !{program}\n\tfor-each-ref = !{program}\n[pager]\n\tcat-file = {program}\n",
        hooks.display()
    );
    let included = trap.git.world.write("included", included);
    let text = format!(
        "[include]\n\tpath = {0}\n[includeIf \"gitdir:**\"]\n\tpath = {0}\n",
        included.display()
    );
    trap.git.world.append("repo/.git/config", text);
    trap.check("repo", "include.path");
}

#[test]
fn redirects_and_embedded_repositories_are_read_as_what_they_are() {
    let trap = Trap::new();
    for name in PROGRAMS {
        trap.set(name);
    }
    // A `.git` file that leads to the trap, a linked work tree, and a bare repository in a folder.
    trap.git.world.write(
        "redirect/.git",
        format!("gitdir: {}\n", trap.git.world.path("repo/.git").display()),
    );
    trap.check("redirect", "a .git file");
    let tree = trap.git.world.path("repo/.git/worktrees/w");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(tree.join("commondir"), "../..\n").unwrap();
    fs::write(tree.join("gitdir"), trap.git.world.path("linked/.git").to_str().unwrap()).unwrap();
    trap.git.world.write("linked/.git", format!("gitdir: {}\n", tree.display()));
    trap.check("linked", "a linked work tree");
    let inner = trap.git.world.path("outer/data.git");
    fs::create_dir_all(inner.parent().unwrap()).unwrap();
    trap.git.run(".", &["init", "-q", "outer"]).expect(0);
    fs::rename(trap.git.world.path("repo/.git"), &inner).unwrap();
    fs::write(
        inner.join("config"),
        fs::read_to_string(inner.join("config")).unwrap().replace("bare = false", "bare = true"),
    )
    .unwrap();
    trap.check("outer/data.git", "an embedded bare repository");
    // The outer one has nothing, and what lies in it is not taken for its own.
    trap.git.scan_of("outer", &[]).expect(3);
    trap.is_quiet("the outer repository");
}

#[test]
fn nothing_is_fetched_from_a_promisor() {
    let trap = Trap::new();
    let git = &trap.git;
    git.write("gone.txt", "left with the remote\n");
    git.commit("second");
    let id = git.git(&["rev-parse", "HEAD:gone.txt"]);
    fs::remove_file(git.world.path(&format!("repo/.git/objects/{}/{}", &id[..2], &id[2..])))
        .unwrap();
    for url in [
        format!("ext::{} %S", trap.program),
        "ssh://localhost/x".to_owned(),
        "evil::x".to_owned(),
        format!("file://{}", git.world.path("nowhere").display()),
    ] {
        for (name, value) in [
            ("core.repositoryFormatVersion", "1"),
            ("extensions.partialClone", "origin"),
            ("remote.origin.promisor", "true"),
            ("remote.origin.vcs", "evil"),
            ("protocol.allow", "always"),
            ("protocol.ext.allow", "always"),
            ("remote.origin.url", &url),
            ("core.sshCommand", &trap.program),
            ("remote.origin.uploadpack", &trap.program),
        ] {
            git.git(&["config", "--file", ".git/config", name, value]);
        }
        if !url.starts_with("evil") {
            git.git(&["config", "--file", ".git/config", "--unset", "remote.origin.vcs"]);
        }
        let path = git.world.path("");
        fs::copy(&trap.program, path.join("git-remote-evil")).unwrap();
        for more in [&[][..], &["--branch", "HEAD"]] {
            let mut arguments = vec!["scan", "--git", "repo", "--format", "jsonl"];
            arguments.extend(more);
            let mut command = git.world.command(&arguments);
            let old = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{old}", path.display()));
            let answer = answer(command, b"");
            assert!(names(&answer).contains("k"), "{url}: {}", answer.both());
            assert_eq!(summary(&answer)["complete"], false, "{url}: {}", answer.out);
            trap.is_quiet(&url);
        }
    }
}

/// As before git 2.44, which does not know that nothing is to be fetched.
#[test]
fn an_older_git_fetches_nothing_either() {
    let trap = Trap::new();
    let git = &trap.git;
    git.write("gone.txt", "left with the remote\n");
    git.commit("second");
    let id = git.git(&["rev-parse", "HEAD:gone.txt"]);
    git.write("gone.txt", "another text\n");
    git.git(&["add", "."]);
    fs::remove_file(git.world.path(&format!("repo/.git/objects/{}/{}", &id[..2], &id[2..])))
        .unwrap();
    for (name, value) in [
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("protocol.ext.allow", "always"),
        ("remote.origin.url", &format!("ext::{} %S", trap.program)),
    ] {
        git.git(&["config", "--file", ".git/config", name, value]);
    }
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|git| git.is_file());
    let old =
        format!("#!/bin/sh\nunset GIT_NO_LAZY_FETCH\nexec {} \"$@\"\n", real.unwrap().display());
    let old = git.world.write("old/git", old);
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{path}", old.parent().unwrap().display());
    for arguments in [
        &["scan", "--git", "."][..],
        &["scan", "--git", ".", "--staged"],
        &["scan", "--git", ".", "--branch", "HEAD"],
        &["hook", "pre-commit"],
    ] {
        let mut command = git.world.command(arguments);
        command.env("PATH", &path).current_dir(git.world.path("repo"));
        let answer = answer(command, b"");
        assert_ne!(answer.code, 0, "{arguments:?}: {}", answer.both());
        trap.is_quiet(&arguments.join(" "));
    }
    // Left to itself, this git would have run it.
    let mut command = Command::new(&old);
    command.current_dir(git.world.path("repo")).args(["cat-file", "-p", &id]);
    let _failed = answer(command, b"");
    assert!(exists(&git.world.path("canary")));
}

#[test]
fn the_environment_leads_to_no_other_repository() {
    let trap = Trap::new();
    trap.git.run(".", &["init", "-q", "other"]).expect(0);
    let mut command = trap.git.world.command(&["scan", "--git", "repo", "--format", "jsonl"]);
    command.env("GIT_DIR", trap.git.world.path("other/.git"));
    command.env("GIT_EXTERNAL_DIFF", &trap.program).env("GIT_PAGER", &trap.program);
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "core.fsmonitor");
    command.env("GIT_CONFIG_VALUE_0", &trap.program);
    assert!(names(&answer(command, b"").expect(1)).contains("k"));
    trap.is_quiet("the environment");
}

#[test]
fn the_repository_of_another_owner_is_refused_until_it_is_trusted() {
    if !rustix::process::getuid().is_root() {
        return; // Only root can give a folder to somebody else.
    }
    let trap = Trap::new();
    let folder = trap.git.world.path("repo");
    for place in [folder.clone(), folder.join(".git")] {
        std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
    }
    // That the repository trusts itself does not count.
    trap.git.world.append("repo/.git/config", "[safe]\n\tdirectory = *\n");
    let refused = trap.git.scan(&[]).expect(2);
    assert!(refused.err.contains("dubious ownership"), "{}", refused.err);
    let config = format!("[safe]\n\tdirectory = {}\n", folder.canonicalize().unwrap().display());
    let config = trap.git.world.write("gitconfig", config);
    let mut command = trap.git.world.command(&["scan", "--git", "repo", "--format", "jsonl"]);
    command.env("GIT_CONFIG_GLOBAL", config);
    assert!(names(&answer(command, b"").expect(1)).contains("k"));
    trap.is_quiet("another owner");
}

#[test]
fn names_and_authors_cannot_speak_to_the_terminal() {
    let trap = Trap::new();
    let key = trap.git.world.key("odd", "none", &[]);
    trap.git.write("od\x1b[31md\n.txt", key);
    trap.git.git(&["add", "."]);
    trap.git.git(&["commit", "-q", "-m", "odd", "--author=A\u{202e}\x1b]8;;x <a\x07@x.org>"]);
    let text = trap.git.world.run(&["scan", "--git", "repo"]).expect(1).out;
    assert!(text.contains("od\\u{1b}[31md\\u{a}.txt:1:1"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text}");
}

/// Runs with no more memory than that, in MB, so that what is not bounded fails.
fn within(git: &Git, megabytes: u64, more: &[&str]) -> Answer {
    let mut command = Command::new("sh");
    let limit = format!("ulimit -v {}; exec \"$@\"", megabytes * 1024);
    command.args(["-c", &limit, "sh", env!("CARGO_BIN_EXE_leakwarden")]);
    command.args(["scan", "--git", "repo", "--format", "jsonl"]).args(more);
    command.current_dir(git.world.path(""));
    command.env("LEAKWARDEN_REGISTRY", git.world.path("registry"));
    answer(command, b"")
}

#[test]
fn a_tree_of_trees_without_an_end_is_read_once() {
    let trap = Trap::new();
    let git = &trap.git;
    let blob = git.git(&["rev-parse", "HEAD:a.txt"]);
    let mut entries: String = (0..10).map(|n| format!("100644 blob {blob}\tf{n}\n")).collect();
    let mut tree = String::new();
    for _ in 0..10 {
        let made = answer(git.command("repo", &["mktree"]), entries.as_bytes()).expect(0);
        tree = made.out.trim().to_owned();
        entries = (0..10).map(|n| format!("040000 tree {tree}\td{n}\n")).collect();
    }
    let commit = git.git(&["commit-tree", &tree, "-m", "10^10 files"]);
    git.git(&["update-ref", "refs/heads/main", &commit]);
    let answer = within(git, 1_024, &[]);
    assert!(names(&answer).contains("k"), "{}", answer.both());
    within(git, 1_024, &["--branch", "HEAD"]).expect(1);
}

#[test]
fn bombs_of_bytes_stay_within_the_memory() {
    let trap = Trap::new();
    let git = &trap.git;
    // 300 MiB of zeros, as one file, and as the difference of one.
    let zeros = git.world.path("zeros");
    fs::File::create(&zeros).unwrap().set_len(300 << 20).unwrap();
    let add = ["-c", "core.bigFileThreshold=1g", "hash-object", "-w", "../zeros"];
    git.git(&add);
    fs::write(git.world.path("small"), "x\n").unwrap();
    let answer = within(git, 1_024, &["--memory", "256"]);
    assert!(names(&answer).contains("k"), "{}", answer.both());
    assert!(summary(&answer)["bytes"].as_u64().unwrap() >= 300 << 20, "{}", answer.out);
    git.git(&["-c", "core.bigFileThreshold=1g", "repack", "-q", "-a", "-d", "-k"]);
    let answer = within(git, 1_024, &["--memory", "256"]);
    assert!(names(&answer).contains("k"), "{}", answer.both());
}

/// One object that unpacks to much, as a file of its own and in a pack; and many that do, as a chain
/// of differences that is as deep as git makes it.
#[test]
fn bombs_end_as_incomplete() {
    let git = Git::new();
    fs::File::create(git.world.path("zeros")).unwrap().set_len(100 << 20).unwrap();
    let one_file = ["-c", "core.bigFileThreshold=1g", "hash-object", "-w", "../zeros"];
    git.git(&one_file);
    is_cut(&git, 100 << 20);
    git.git(&["-c", "core.bigFileThreshold=1g", "repack", "-q", "-a", "-d", "-k"]);
    is_cut(&git, 100 << 20);

    let git = Git::new();
    let mut versions = Vec::new();
    let mut text = vec![b'x'; 1 << 16];
    for n in 0..4_000 {
        let end = text.len() - n % 64;
        text[end - 5..end].copy_from_slice(format!("{n:05}").as_bytes());
        versions.extend_from_slice(format!("blob\ndata {}\n", text.len()).as_bytes());
        versions.extend_from_slice(&text);
        versions.push(b'\n');
    }
    let import = git.command("repo", &["fast-import", "--quiet", "--depth=4095"]);
    answer(import, &versions).expect(0);
    is_cut(&git, 3_990 << 16);
}

/// Whether a scan with a limit ends early and says so, and one without reads it all.
#[track_caller]
fn is_cut(git: &Git, bytes: u64) {
    let cut = within(git, 1_024, &["--max-unpacked", "32"]).expect(3);
    let said = summary(&cut);
    assert_eq!(said["complete"], false, "{}", cut.out);
    assert!(said["bytes"].as_u64().unwrap() <= 33 << 20, "{}", cut.out);
    assert!(cut.both().contains("unpack to more than 32 MB"), "{}", cut.both());
    let whole = within(git, 1_024, &[]).expect(0);
    assert!(summary(&whole)["bytes"].as_u64().unwrap() >= bytes, "{}", whole.out);
}

#[test]
fn many_references_are_listed() {
    let trap = Trap::new();
    let head = trap.git.git(&["rev-parse", "HEAD"]);
    let last = trap.git.world.key_of("owner", "in the last name", "none", &[]);
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for n in 0..100_000 {
        packed.push_str(&format!("{head} refs/heads/branch-number-{n:06}\n"));
    }
    packed.push_str(&format!("{head} refs/heads/z-{last}\n"));
    trap.git.write(".git/packed-refs", packed);
    let answer = within(&trap.git, 1_024, &[]);
    assert!(names(&answer).contains("in the last name"), "{}", answer.both());
}
