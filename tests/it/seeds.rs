//! The seeds of the fuzz targets (`fuzz/seeds`) run through them.

use std::fs;
use std::path::Path;

use super::fuzzing;

fn each(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        body(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn of_runs() {
    each("runs", fuzzing::runs);
}

#[test]
fn of_the_matcher() {
    each("matcher", fuzzing::matcher);
}

#[test]
fn of_the_rule_loader() {
    each("rules", fuzzing::rules);
}
