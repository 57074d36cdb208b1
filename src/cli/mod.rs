//! The command line: `panorec VERB …`.

mod assemble;
mod record;
mod terminal;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::recording::process::{GUARD_VERB, run_guard};

/// Records any web page, picture and sound, as a person sees and hears it.
#[derive(Debug, Parser)]
#[command(name = "panorec", version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Record a page into an MP4 file
    Record(record::Args),
    /// Make an MP4 file of what a recording that was killed has left behind
    Assemble(assemble::Args),
}

/// Runs the verb on the command line.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|verb| verb == GUARD_VERB) {
        run_guard(std::io::stdin());
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    terminal::init_log();
    match cli.verb {
        Verb::Record(args) => record::run(&args),
        Verb::Assemble(args) => assemble::run(&args),
    }
}
