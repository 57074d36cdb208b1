//! `panorec assemble`: what a killed recording left behind into a file.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::generation;
use crate::platform::local::{DirectoryChunkStore, GrowingFile};

/// Arguments of `assemble`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory that the recording left, `.FILE.panorec` beside its output
    directory: PathBuf,
    /// File to write
    #[arg(long, short)]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    overwrite: bool,
}

/// Assembles. Exit status: 0 when there is a file, 1 otherwise.
pub fn run(args: &Args) -> ExitCode {
    match assemble(args) {
        Ok(saved) => {
            println!("{}: {:.2} s, {:.1} MB", saved.key, saved.duration, saved.size as f64 / 1e6);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("panorec: {message}");
            ExitCode::FAILURE
        }
    }
}

fn assemble(args: &Args) -> Result<generation::Saved, String> {
    if !args.directory.is_dir() {
        return Err(format!(
            "{} is not a directory; name the .FILE.panorec that a recording left",
            args.directory.display()
        ));
    }
    let chunks = DirectoryChunkStore::new(&args.directory).map_err(|e| generation::chain(&e))?;
    let target = GrowingFile::create(&args.output, args.overwrite).map_err(|e| generation::chain(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime
        .block_on(generation::assemble(&chunks, "raw/", None, Box::new(target), "", None))
        .map_err(|e| generation::chain(&e))
}
