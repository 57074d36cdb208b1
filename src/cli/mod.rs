//! The command line: `panorec VERB …`.

mod assemble;
mod function;
pub mod gateway;
mod invoke;
mod record;
mod serve;
mod terminal;
mod tools;
mod values;
mod world;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::recording::process::{GUARD_VERB, keep_little_memory, run_guard};

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
    /// The service on this machine: an HTTP gateway, stores in a directory, recorders as processes
    Serve(serve::Args),
    /// Give one event to the service and print its answer
    Invoke(invoke::Args),
}

/// Runs the verb on the command line.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|verb| verb == GUARD_VERB) {
        run_guard(std::io::stdin());
        return ExitCode::SUCCESS;
    }
    keep_little_memory();
    if crate::config::is_function() {
        terminal::init_log("info", true);
        return function::run();
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let service = matches!(cli.verb, Verb::Serve(_) | Verb::Invoke(_));
    terminal::init_log(if service { "info" } else { "warn" }, service);
    match cli.verb {
        Verb::Record(args) => record::run(&args),
        Verb::Assemble(args) => assemble::run(&args),
        Verb::Serve(args) => serve::run(args),
        Verb::Invoke(args) => invoke::run(&args),
    }
}

/// The runtime of the service.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))
}
