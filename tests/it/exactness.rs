//! Whole scans by the built program miss no key and invent none: `benches/exactness`, with few keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::world::{Answer, World, answer, python};

const PROGRAM: &str = env!("CARGO_BIN_EXE_leakwarden");

fn count(program: &Path) -> Answer {
    let mut command = python();
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/exactness"));
    command.arg("--binary").arg(program).args(["--keys", "60", "--line-mib", "8"]);
    answer(command, b"")
}

#[test]
fn of_whole_scans() {
    let told = count(Path::new(PROGRAM)).expect(0).out;
    // A table of nothing would be right, too.
    for row in
        ["| 20 contexts, `--threads 1` | 1,200 | 0 |", "| near misses | 6,", "| 15 | 0 | 0 |"]
    {
        assert!(told.contains(row), "{row} is not in\n{told}");
    }
}

#[test]
fn a_program_that_misses_a_key_is_caught() {
    let world = World::new();
    let program = world.path("program");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nscan) {PROGRAM} \"$@\" | sed 1d;;\n*) exec {PROGRAM} \"$@\";;\nesac\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let told = count(&program).expect(1).out;
    assert!(told.contains("| 20 contexts, `--threads 1` | 1,200 | 1 | 0 |"), "{told}");
}
