//! Imports run downwards only: a module imports from lower rows, never from its own.

use std::fs;
use std::path::Path;

const ROWS: &[&[&str]] = &[
    &["text"],
    &["secret", "clock", "vital"],
    &["rule", "source", "shape"],
    &["matcher", "registry"],
    &["incident", "finding"],
    &["ledger"],
    &["response", "mail", "review", "report", "pipeline"],
    &["daemon"],
    &["config", "cli"],
    &["commands"],
];

fn row(module: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("`{module}` has no row; give it one here"))
}

/// Modules named in `crate::…` paths, `use crate::{…}` lists included.
fn imports(source: &str) -> Vec<String> {
    source
        .split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .map(|item| item.trim().split("::").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>(),
            None => vec![rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn faults(module: &str, source: &str) -> Vec<String> {
    imports(source)
        .into_iter()
        .filter(|other| other != module)
        .filter(|other| row(other) >= row(module))
        .map(|other| format!("{module} imports {other}"))
        .collect()
}

fn sources(folder: &Path) -> Vec<(String, String, usize)> {
    let mut found = Vec::new();
    for entry in ignore::Walk::new(folder).flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let inner = path.strip_prefix(folder).unwrap();
            let module = inner.iter().next().unwrap().to_string_lossy().replace(".rs", "");
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().count();
            found.push((module, text, lines));
        }
    }
    found
}

#[test]
fn imports_run_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let faults: Vec<String> = sources(&src)
        .iter()
        .filter(|(module, _, _)| module != "lib" && module != "main")
        .flat_map(|(module, text, _)| faults(module, text))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn an_upward_import_is_seen() {
    assert_eq!(faults("matcher", "use crate::registry::Key;"), ["matcher imports registry"]);
    assert_eq!(faults("rule", "use crate::{secret, daemon::run};"), ["rule imports daemon"]);
    assert!(faults("ledger", "use crate::matcher::Matcher;").is_empty());
}

#[test]
fn files_stay_readable() {
    for folder in ["src", "tests"] {
        for (module, _, lines) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            assert!(lines <= 600, "a file of {module} has {lines} lines");
        }
    }
}

/// YAML is read in two modules only, so that its crate can be replaced.
#[test]
fn yaml_is_read_in_two_modules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, text, _) in sources(&src) {
        if text.contains("serde_yaml::") {
            assert!(["rule", "config"].contains(&module.as_str()), "{module} reads YAML");
        }
    }
}
