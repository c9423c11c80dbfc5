//! The binary: hands the command line over and answers with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    leakwarden::commands::run(&arguments).into()
}
