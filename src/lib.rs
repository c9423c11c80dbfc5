//! leakwarden finds leaked API keys in files, diffs and logs, knows whose they are, and acts.
//!
//! # The way of the data
//!
//! ```text
//!   blocking threads, as fast as the disk                            tokio tasks, at their own pace
//! source ──bytes──▶ matcher ──candidates──▶ look-up ──commit──▶ ledger ──due──▶ response ─▶ key
//! files, git,       rules, shapes           registry,           SQLite:         disabled, deleted
//! logs, stdin       (pure)                  decide() (pure)     incidents,      mail ─▶ owner,
//!    ▲                                                          outbox, offsets         admins
//!    └────────── offset: committed in the transaction of the sightings found before it
//! ```
//!
//! `scan` and `hook` are the front half over something that ends; `watch` is both halves until a
//! signal.
//!
//! # Invariants
//!
//! - The plain key lives in [`secret::Secret`] and nowhere else; paths and other foreign strings pass
//!   [`matcher::Matcher::redact`] or [`text::clean`] before anybody sees them.
//! - Only registered keys are acted upon; a rule's match is a hint.
//! - What a sighting leads to and the offset behind it are one transaction ([`ledger`]). Actions
//!   are called at least once and take effect once; a mail goes out at most twice ([`mail`]).
//! - A clean answer proves coverage: what was not read is in the [`finding::Report`].
//! - Imports run downwards only, in the order of the modules below; a test checks it. So the core
//!   sees neither the configuration nor the command line: each module has its own plain `Options`.
//! - Queues are bounded and stand in [`pipeline`]; a full one holds the readers back.

// What everything rests on.
pub mod text;

pub mod clock;
pub mod secret;
pub mod vital;

// What goes in, and what is looked for.
pub mod rule;
pub mod shape;
pub mod source;

pub mod matcher;
pub mod registry;

// What is decided, told and remembered.
pub mod finding;
pub mod incident;

pub mod ledger;

// What is done, who is told, what is read of it, what moves it.
pub mod mail;
pub mod pipeline;
pub mod report;
pub mod response;
pub mod review;

pub mod daemon;

// What the user says.
pub mod cli;
pub mod config;

pub mod commands;
