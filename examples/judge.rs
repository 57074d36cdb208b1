//! Prints as JSON what a recording holds: durations, frame rate, distinct pictures, jitter against the page's clock, A/V offset.
//!
//! `judge FILE`. Exit status 1 with a sentence on standard error if the file cannot be judged.

#[allow(dead_code, reason = "the tests ask the judge more than this tool does")]
#[path = "../tests/e2e/judge/mod.rs"]
mod judge;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: judge FILE");
        return ExitCode::FAILURE;
    };
    let judged =
        judge::Evidence::of(&path).and_then(|e| serde_json::to_string_pretty(&e.report()).map_err(|e| e.to_string()));
    match judged {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("judge: {e}");
            ExitCode::FAILURE
        }
    }
}
