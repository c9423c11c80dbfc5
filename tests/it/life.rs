//! The rules of keys, as a table that reads like the documents: `tests/data/rules-of-keys.yaml`.

use serde::Deserialize;

use super::world::{Answer, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rule: String,
    #[serde(default)]
    given: Vec<String>,
    when: String,
    code: i32,
    says: String,
    never: Option<String>,
}

fn run(world: &World, line: &str) -> Answer {
    let (command, stdin) = line.split_once(" < ").unwrap_or((line, ""));
    let words: Vec<&str> = command.split_whitespace().collect();
    world.run_with(&words, stdin.as_bytes())
}

#[test]
fn keys_live_by_the_rules() {
    let cases: Vec<Case> =
        serde_yaml::from_str(include_str!("../data/rules-of-keys.yaml")).unwrap();
    for case in cases {
        let world = World::new();
        for line in &case.given {
            let (times, line) = match line.split_once(" x ") {
                Some((times, line)) => (times.parse().unwrap(), line),
                None => (1, line.as_str()),
            };
            for _ in 0..times {
                let answer = run(&world, line);
                assert_eq!(answer.code, 0, "{}: {line}: {}", case.rule, answer.both());
            }
        }
        let answer = run(&world, &case.when);
        let told = answer.both();
        assert_eq!(answer.code, case.code, "{}: {told}", case.rule);
        assert!(told.contains(&case.says), "{}: {told}", case.rule);
        assert!(case.never.is_none_or(|never| !told.contains(&never)), "{}: {told}", case.rule);
    }
}
