//! The run finder and the windows of registered keys, against every window.
#![no_main]

// Shared with the tests, which run the seeds through it.
#[allow(dead_code, reason = "each target uses one body")]
#[path = "../../tests/it/fuzzing.rs"]
mod fuzzing;
#[allow(dead_code, reason = "each body uses a part of it")]
#[path = "../../tests/it/naive.rs"]
mod naive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::runs(data));
