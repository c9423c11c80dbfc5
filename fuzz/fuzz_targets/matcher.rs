//! The matcher with all built-in rules and keys of every alphabet, against the naive search.
#![no_main]

// Shared with the tests, which run the seeds through it.
#[allow(dead_code, reason = "each target uses one body")]
#[path = "../../tests/it/fuzzing.rs"]
mod fuzzing;
#[allow(dead_code, reason = "each body uses a part of it")]
#[path = "../../tests/it/naive.rs"]
mod naive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::matcher(data));
