//! FFmpeg and ffprobe, found and run within a time limit.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// An error of the judge is a sentence.
pub type Res<T> = Result<T, String>;

/// Longest silence of a tool: a 10-minute recording of 2560×2560 decodes in less on two busy cores; what hangs, hangs for ever.
const TOOL_LIMIT: Duration = Duration::from_secs(300);
/// Blocks that wait for whoever takes them.
const WAITING: usize = 8;
/// Read at once where nobody asks for another length.
const BLOCK_BYTES: usize = 1 << 16;

/// Path of `ffmpeg` or `ffprobe`: the environment's word, else what set-up installed.
pub fn tool(name: &str) -> Res<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "the judge is no part of panorec and has no config.rs")]
    let named = std::env::var_os(format!("PANOREC_{}", name.to_uppercase()));
    let path = named.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name), PathBuf::from);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{name} is not at {}; install it with: make setup", path.display()))
    }
}

/// What a tool said.
#[derive(Debug)]
pub struct Said {
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
    /// Whether it ended well.
    pub ok: bool,
}

/// Runs a tool to its end; an error if it cannot be started or does not end.
pub fn run(name: &str, args: &[&str]) -> Res<Said> {
    let mut out = Vec::new();
    let said = run_in_blocks(name, args, BLOCK_BYTES, |block| out.extend_from_slice(block))?;
    Ok(Said { out, ..said })
}

/// The same of a tool that says more than fits into memory: its output is taken as it comes, in blocks of this length, and
/// is not in what is returned.
pub fn run_in_blocks(name: &str, args: &[&str], length: usize, mut take: impl FnMut(&[u8])) -> Res<Said> {
    #[allow(clippy::disallowed_methods, reason = "the judge is no part of panorec and watches its own children")]
    let mut child = Command::new(tool(name)?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {name}: {e}"))?;
    let blocks = blocks(child.stdout.take(), length);
    let err = drain(child.stderr.take());
    let hangs = loop {
        match blocks.recv_timeout(TOOL_LIMIT) {
            Ok(block) => take(&block),
            Err(error) => break error == RecvTimeoutError::Timeout,
        }
    };
    if hangs {
        child.kill().ok();
    }
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    if hangs {
        return Err(format!("{name} {args:?} said nothing for {TOOL_LIMIT:?}"));
    }
    let err = err.recv().unwrap_or_default();
    Ok(Said { out: Vec::new(), err: String::from_utf8_lossy(&err).into_owned(), ok: status.success() })
}

/// Runs a tool that must end well.
pub fn run_ok(name: &str, args: &[&str]) -> Res<Said> {
    let said = run(name, args)?;
    if said.ok { Ok(said) } else { Err(format!("{name} {args:?} failed: {}", said.err)) }
}

/// What comes out of a pipe, in blocks of the same length but for the last.
fn blocks(pipe: Option<impl Read + Send + 'static>, length: usize) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::sync_channel(WAITING);
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        loop {
            let mut block = Vec::with_capacity(length);
            let read = pipe.by_ref().take(length as u64).read_to_end(&mut block);
            if read.is_err() || block.is_empty() || send.send(block).is_err() {
                return;
            }
        }
    });
    receive
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut all).ok();
        }
        send.send(all).ok();
    });
    receive
}

/// A path as an argument.
pub fn arg(path: &Path) -> Res<&str> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))
}
