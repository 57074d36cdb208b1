//! `panorec invoke`: one event, one answer. Also what recorders of `serve` are: processes that get the recorder event.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::world;
use crate::config;
use crate::generation::Invocation;

/// Arguments of `invoke`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with the event as JSON, `-` for standard input
    event: PathBuf,
    #[command(flatten)]
    world: world::Args,
}

/// Answers on standard output. Exit status: 0 when there is an answer, 1 when the event should be given again, 2 for an
/// event that is not JSON.
pub fn run(args: &Args) -> ExitCode {
    let event = match read(args) {
        Ok(event) => event,
        Err(message) => {
            eprintln!("panorec: {message}");
            return ExitCode::from(2);
        }
    };
    match answer(args, &event) {
        Ok(answer) => {
            // Who does not read it does not want it.
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("panorec: {message}");
            ExitCode::FAILURE
        }
    }
}

fn read(args: &Args) -> Result<Value, String> {
    let name = args.event.display();
    let mut text = String::new();
    if args.event.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map_err(|e| format!("standard input: {e}"))?;
    } else {
        text = std::fs::read_to_string(&args.event).map_err(|e| format!("{name}: {e}"))?;
    }
    serde_json::from_str(&text).map_err(|e| format!("{name} is not JSON: {e}"))
}

fn answer(args: &Args, event: &Value) -> Result<Value, String> {
    let settings = config::settings().map_err(|e| e.to_string())?;
    let runtime = super::runtime()?;
    let limit = args.world.invocation_timeout;
    end_hard_after(limit)?;
    runtime.block_on(async {
        let invocation = Invocation::new(uuid::Uuid::new_v4(), Some(limit));
        let service = world::on_this_machine(&settings, &args.world).await?;
        service.answer(event, &invocation).await
    })
}

/// Kills this process at its deadline, as a platform does: without warning. Its guard then ends what it started.
fn end_hard_after(limit: Duration) -> Result<(), String> {
    let wait = move || {
        std::thread::sleep(limit);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    };
    std::thread::Builder::new().name("deadline".into()).spawn(wait).map(drop).map_err(|e| format!("cannot start: {e}"))
}
