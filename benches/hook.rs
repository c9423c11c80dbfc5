//! How long a commit waits for the hook, git's own time included. `cargo bench --bench hook`.
//!
//! The hook is started as git starts it, by its file. The floors are taken in the same run: git's
//! own look at what is staged, without which no hook knows it, and a shell that does nothing.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should stop")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use criterion::{Criterion, criterion_group, criterion_main};

const PROGRAM: &str = env!("CARGO_BIN_EXE_leakwarden");

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("LEAKWARDEN_REGISTRY")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// A repository in which so many new files of 20 lines are staged, with the hook.
fn repository(folder: &Path, files: usize) {
    fs::create_dir(folder).unwrap();
    run(folder, "git", &["init", "-q"]);
    for number in 0..files {
        let text: String = (0..20)
            .map(|line| format!("    let value_{line} = compute({number}, \"some text\");\n"))
            .collect();
        fs::write(folder.join(format!("file_{number}.rs")), text).unwrap();
    }
    run(folder, "git", &["add", "."]);
    run(folder, PROGRAM, &["hook", "install", "--registry", "../registry"]);
}

fn commits(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, PROGRAM, &["init", "--dir", "registry"]);
    run(folder, PROGRAM, &["key", "create", "k", "--file", "k", "--registry", "registry"]);
    for files in [1, 100] {
        let place = folder.join(files.to_string());
        repository(&place, files);
        let mut group = criterion.benchmark_group(format!("{files} staged, 20 lines each"));
        group.bench_function("floor: a shell that does nothing", |bencher| {
            bencher.iter(|| run(&place, "sh", &["-c", "exit 0"]));
        });
        group.bench_function("floor: git diff --cached", |bencher| {
            bencher.iter(|| run(&place, "git", &["diff", "--cached"]));
        });
        group.bench_function("the hook, with a registry", |bencher| {
            bencher.iter(|| run(&place, ".git/hooks/pre-commit", &[]));
        });
        group.finish();
    }
}

criterion_group!(benches, commits);
criterion_main!(benches);
