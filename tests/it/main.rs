//! Everything that is seen from outside: the built binary on real files, real git, a real SMTP
//! server. Run by `tests/run`, which installs what is needed beyond Rust.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "helpers of tests are tests: what fails must fail loudly"
)]

mod folders;
mod followed;
mod fuzzing;
mod naive;
mod world;

mod access;
mod audit;
mod config;
mod contract;
mod crash;
mod decide;
mod demo;
mod differential;
mod exactness;
mod history;
mod hook;
mod hostile;
mod imports;
mod journald;
mod keys;
mod layers;
mod life;
mod mail;
mod manners;
mod many;
mod matching;
mod migration;
mod misses;
mod model;
mod pipes;
mod remembered;
mod repositories;
mod reread;
mod respond;
mod rights;
mod rotation;
mod rule;
mod rules;
mod scan;
mod secrecy;
mod seeds;
mod splits;
mod status;
mod streams;
mod systemd;
mod trouble;
mod unwanted;
mod watch;
mod watchdog;
