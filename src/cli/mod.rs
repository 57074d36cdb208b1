//! Command line.

use std::process::ExitCode;

/// Runs the verb on the command line.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|verb| verb == crate::recording::process::GUARD_VERB) {
        crate::recording::process::run_guard(std::io::stdin());
    }
    ExitCode::SUCCESS
}
