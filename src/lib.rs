#![doc = include_str!("../README.md")]
#![doc = ""]
#![doc = "See the source of this file for the map of the crate."]
pub mod secret;
pub mod clock;
pub mod text;
pub mod rule;
pub mod source;
pub mod shape;
pub mod matcher;
pub mod registry;
pub mod finding;
pub mod incident;
pub mod ledger;
pub mod pipeline;
