//! `hook pre-receive` and `hook update`: pushes as a server receives them, in git's quarantine.

use std::fs;
use std::process::Command;

use super::super::world::github_token;
use super::{Answer, Repository, answer};

impl Repository {
    /// A clone in `repo` of a server in `server`, which has the hook.
    fn with_server(hook: &[&str]) -> Self {
        let repository = Self::bare_of_hooks();
        repository.git(&["init", "-q", "--bare", "-b", "main", "../server"]).expect(0);
        repository.git(&["remote", "add", "origin", "../server"]).expect(0);
        repository.on_server(&[&["hook", "install"], hook].concat(), b"").expect(0);
        repository
    }

    fn on_server(&self, arguments: &[&str], stdin: &[u8]) -> Answer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
        command.args(arguments);
        let mut command = self.command(command);
        command.current_dir(self.world.path("server"));
        answer(command, stdin)
    }

    fn send(&self, arguments: &[&str]) -> Answer {
        self.git(&[&["push"], arguments].concat())
    }
}

#[test]
fn a_pushed_key_is_refused_and_stays_in_the_quarantine() {
    // In a bare repository that is the hook without being named.
    let repository = Repository::with_server(&[]);
    let key = repository.world.key("deploy", "disable", &[]);
    repository.write("a.txt", "fine\n");
    repository.force_commit();
    let clean = repository.send(&["origin", "main"]).expect(0);
    assert!(
        clean.err.contains("read 1 new commit") && clean.err.contains("s of 20 s; fails closed"),
        "{}",
        clean.err
    );
    repository.write("b.txt", format!("{key}\n"));
    let bad = repository.force_commit();
    let refused = repository.send(&["origin", "main", "main:second"]).expect(1);
    let text = refused.err;
    assert!(text.contains(&format!("{}:b.txt:1:1: registered", &bad[..12])), "{text}");
    assert!(text.contains("push refused, 1 key in it"), "{text}");
    assert!(text.contains("it has left your machine") && text.contains("administrators"), "{text}");
    assert!(text.contains("pre-receive hook declined") && !text.contains(&key), "{text}");
    repository.git(&["-C", "../server", "cat-file", "-e", &bad]).expect(1);
    assert_eq!(
        repository.ask(&["-C", "../server", "for-each-ref", "--format=%(refname)"]),
        "refs/heads/main"
    );
    repository.git(&["reset", "-q", "--hard", "HEAD~1"]).expect(0);
    repository.write("b.txt", "clean\n");
    repository.force_commit();
    repository.send(&["origin", "main"]).expect(0);
}

#[test]
fn only_what_is_new_to_the_server_counts() {
    let repository = Repository::with_server(&["pre-receive"]);
    repository.write("old.txt", format!("{}\n", github_token()));
    repository.force_commit();
    fs::rename(
        repository.world.path("server/hooks/pre-receive"),
        repository.world.path("server/hooks/off"),
    )
    .unwrap();
    repository.send(&["origin", "main"]).expect(0);
    fs::rename(
        repository.world.path("server/hooks/off"),
        repository.world.path("server/hooks/pre-receive"),
    )
    .unwrap();
    repository.write("old.txt", format!("{}\nmore\n", github_token()));
    repository.force_commit();
    repository.send(&["origin", "main", "main:other"]).expect(0);
    let again = repository.send(&["origin", "main:third"]).expect(0);
    assert!(again.err.contains("nothing new to read"), "{}", again.err);
    repository.send(&["origin", ":third"]).expect(0);
    repository.git(&["tag", "-a", "v1", "-m", &github_token()]).expect(0);
    repository.send(&["origin", "v1"]).expect(1);
    repository.git(&["commit", "-q", "--allow-empty", "-m", &github_token()]).expect(0);
    repository.send(&["origin", "main"]).expect(1);
}

#[test]
fn packs_and_loose_objects_and_a_server_with_alternates() {
    let repository = Repository::with_server(&["pre-receive"]);
    repository.write("a.txt", "fine\n");
    repository.force_commit();
    repository.send(&["origin", "main"]).expect(0);
    // A server that borrows objects from another one.
    repository.git(&["clone", "-q", "--bare", "--shared", "../server", "../fork"]).expect(0);
    let hook = repository.read("server/hooks/pre-receive");
    repository.script("fork/hooks/pre-receive", &hook);
    for limit in ["1", "1000"] {
        repository.git(&["-C", "../fork", "config", "receive.unpackLimit", limit]).expect(0);
        repository.write("b.txt", format!("{}\n{limit}\n", github_token()));
        repository.force_commit();
        let refused = repository.send(&["../fork", "main"]).expect(1);
        assert!(refused.err.contains("b.txt:1:1"), "{}", refused.err);
        repository.git(&["reset", "-q", "--hard", "HEAD~1"]).expect(0);
    }
    repository.write("c.txt", "fine\n");
    repository.force_commit();
    repository.send(&["../fork", "main"]).expect(0);
}

#[test]
fn the_update_hook_refuses_ref_by_ref() {
    let repository = Repository::with_server(&["update"]);
    repository.write("a.txt", "fine\n");
    repository.force_commit();
    repository.git(&["switch", "-q", "-c", "bad"]).expect(0);
    repository.write("b.txt", format!("{}\n", github_token()));
    repository.force_commit();
    let refused = repository.send(&["origin", "main", "bad"]).expect(1);
    assert!(
        refused.err.contains("b.txt:1:1") && refused.err.contains("hook declined"),
        "{}",
        refused.err
    );
    let refs = repository.ask(&["-C", "../server", "for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main");
    let usage = repository.on_server(&["hook", "update", "refs/heads/x"], b"").expect(2);
    assert!(usage.err.contains("called by git with a ref"), "{}", usage.err);
}

#[test]
fn what_cannot_be_read_is_refused_unless_the_administrator_says_otherwise() {
    let repository = Repository::with_server(&["pre-receive"]);
    let zero = "0".repeat(40);
    let missing = "2".repeat(40);
    let line = format!("{zero} {missing} refs/heads/x\n");
    let closed = repository.on_server(&["hook", "pre-receive"], line.as_bytes());
    assert!(closed.code >= 2, "{}", closed.both());
    let open =
        repository.on_server(&["hook", "pre-receive", "--fail-open"], line.as_bytes()).expect(0);
    assert!(open.err.contains("NOT CHECKED, let in"), "{}", open.err);
    let no_registry = ["hook", "pre-receive", "--registry", "/nowhere"];
    repository.on_server(&no_registry, b"").expect(2);
    let open = repository.on_server(&[&no_registry[..], &["--fail-open"]].concat(), b"").expect(0);
    assert!(open.err.contains("no registry in /nowhere"), "{}", open.err);
    // A key is refused whatever is said of errors.
    repository.write("a.txt", format!("{}\n", github_token()));
    let id = repository.force_commit();
    repository.git(&["-C", "../server", "fetch", "-q", "../repo", "main"]).expect(0);
    let line = format!("{zero} {id} refs/heads/x\n");
    repository.on_server(&["hook", "pre-receive", "--fail-open"], line.as_bytes()).expect(1);
    repository.on_server(&["hook", "pre-receive", "--fail-open", "--fail-closed"], b"").expect(2);
}

#[test]
fn the_time_budget_holds() {
    let repository = Repository::with_server(&["pre-receive"]);
    repository.write("a.txt", "fine\n");
    let id = repository.force_commit();
    repository.git(&["-C", "../server", "fetch", "-q", "../repo", "main"]).expect(0);
    // A git that never answers when it is asked for commits.
    let git = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    repository.script(
        "slow/git",
        &format!(
            "#!/bin/sh\nfor word; do [ \"$word\" != rev-list ] || exec tail -f /dev/null; done\n\
             exec '{}' \"$@\"\n",
            git.display()
        ),
    );
    let line = format!("{} {id} refs/heads/x\n", "0".repeat(40));
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakwarden"));
        command.args(["hook", "pre-receive", "--budget", "1"]).args(more);
        let mut command = repository.command(command);
        let path = format!(
            "{}:{}",
            repository.world.path("slow").display(),
            std::env::var("PATH").unwrap()
        );
        command.current_dir(repository.world.path("server")).env("PATH", path);
        answer(command, line.as_bytes())
    };
    let late = run(&[]).expect(3);
    assert!(late.err.contains("the time budget of 1 s was used up"), "{}", late.err);
    assert!(late.err.contains("push refused, because not all of it could be read"), "{}", late.err);
    let open = run(&["--fail-open"]).expect(0);
    assert!(open.err.contains("NOT ALL CHECKED, let in"), "{}", open.err);
}
