//! Serves pages on the loopback interface until it is ended, and prints their address: for `make record` and `make bench`.
//!
//! `serve DIRECTORY [PORT]`. Test videos are made if they are missing and lie under `/media/`; a `media` directory beside the pages
//! serves what is not among them.

#[allow(dead_code, reason = "this tool needs FFmpeg from the judge, no more")]
#[path = "../tests/e2e/judge/mod.rs"]
mod judge;
#[path = "../tests/e2e/media.rs"]
mod media;
#[allow(dead_code, reason = "the notes are for tests")]
#[path = "../tests/e2e/server.rs"]
mod server;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(directory) = args.next() else {
        eprintln!("usage: serve DIRECTORY [PORT]");
        return ExitCode::FAILURE;
    };
    let port = args.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    let started = media::directory()
        .and_then(|videos| server::Server::start(Path::new(&directory), &videos, port).map_err(|e| e.to_string()));
    match started {
        Ok(server) => {
            println!("{}", server.url(""));
            loop {
                std::thread::park();
            }
        }
        Err(e) => {
            eprintln!("serve: {e}");
            ExitCode::FAILURE
        }
    }
}
