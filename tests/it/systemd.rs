//! The unit file.

use std::fs;
use std::process::Command;

use super::world::{World, answer};

#[test]
fn systemd_accepts_the_unit() {
    let world = World::empty();
    let unit = include_str!("../../systemd/leakwarden.service");
    assert!(unit.contains("Type=notify"));
    // The binary need not be installed for the unit to be checked.
    let program = env!("CARGO_BIN_EXE_leakwarden");
    let unit = unit.replace("/usr/bin/leakwarden", program);
    let path = world.write("leakwarden.service", unit);
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&path);
    let verdict = answer(verify, b"").expect(0);
    let own: Vec<&str> =
        verdict.err.lines().filter(|line| line.contains("leakwarden.service")).collect();
    assert!(own.is_empty(), "{own:?}");
    assert!(fs::metadata(path).unwrap().is_file());
}
