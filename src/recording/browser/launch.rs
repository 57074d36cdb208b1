//! Starts Chromium and finds its control connection.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::BrowserError;
use super::{BrowserConfig, Sandbox, Tier, flags};
use crate::recording::priority::NICE;
use crate::recording::process::{Child, Command, Guard, adopt_orphans};

/// From exec to DevTools: half a second warm, two and a half from cold files, and a busy machine on top.
const LAUNCH_BOUND: Duration = Duration::from_secs(25);
/// How often to look for DevTools' port file; nothing tells us.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// As much of standard error as fits an error message.
pub(super) const STDERR_BYTES: usize = 600;

/// Marks the lines about D-Bus, of which every start and every end has a dozen.
const NO_DESKTOP: &str = ":ERROR:dbus/";

/// A running Chromium and the way to it.
pub(super) struct Launched {
    /// The process.
    pub child: Child,
    /// DevTools' port on loopback.
    pub port: u16,
    /// The browser-wide DevTools address.
    pub address: String,
}

/// Starts Chromium and waits until it can be controlled.
pub(super) async fn launch(
    config: &BrowserConfig,
    tier: Tier,
    proxy: SocketAddr,
    guard: &Arc<Guard>,
) -> Result<Launched, BrowserError> {
    prepare(&config.run_dir)?;
    let sandboxed = flags::sandboxed(config);
    match start(config, tier, proxy, sandboxed, guard).await {
        Err(BrowserError::Exited { status, stderr }) if sandboxed && config.sandbox == Sandbox::Auto => {
            tracing::warn!(%status, stderr, "chromium ended in its sandbox, trying without");
            start(config, tier, proxy, false, guard).await
        }
        result => result,
    }
}

fn prepare(run_dir: &Path) -> Result<(), BrowserError> {
    let write = || {
        let (dirs, files) = flags::files();
        // What an earlier browser left would be restored, or believed to be still running.
        match std::fs::remove_dir_all(run_dir.join(flags::PROFILE)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        for dir in dirs {
            std::fs::create_dir_all(run_dir.join(dir))?;
        }
        for (file, content) in files {
            std::fs::write(run_dir.join(file), content.to_string())?;
        }
        Ok(())
    };
    write().map_err(|source| BrowserError::Directory { path: run_dir.to_owned(), source })
}

async fn start(
    config: &BrowserConfig,
    tier: Tier,
    proxy: SocketAddr,
    sandboxed: bool,
    guard: &Arc<Guard>,
) -> Result<Launched, BrowserError> {
    // A zygote's children outlive it by a moment, and the zygote the browser.
    adopt_orphans();
    let line = flags::command_line(config, tier, proxy, sandboxed);
    let mut command = Command::new(&config.chromium, "chromium").args(line).priority(NICE);
    for (key, value) in flags::environment(config) {
        command = command.env(key, value);
    }
    let mut child =
        command.spawn(guard).map_err(|source| BrowserError::Start { path: config.chromium.clone(), source })?;
    let file = config.run_dir.join(flags::PROFILE).join("DevToolsActivePort");
    let deadline = Instant::now() + LAUNCH_BOUND;
    loop {
        if let Some((port, path)) = std::fs::read_to_string(&file).ok().as_deref().and_then(endpoint) {
            return Ok(Launched { child, port, address: format!("ws://127.0.0.1:{port}{path}") });
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(BrowserError::Exited { status, stderr: last_words(&child.stderr_tail()) });
        }
        if Instant::now() >= deadline {
            return Err(BrowserError::NotReady { bound: LAUNCH_BOUND, stderr: last_words(&child.stderr_tail()) });
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Port and path from DevToolsActivePort: two lines, which may not be there yet.
fn endpoint(text: &str) -> Option<(u16, &str)> {
    let (port, path) = text.split_once('\n')?;
    let path = path.trim_end();
    // Chromium writes both lines at once, but not the whole file atomically: an identifier has 36 characters.
    let complete = path.strip_prefix("/devtools/browser/").is_some_and(|id| id.len() == 36);
    Some((port.parse().ok()?, path)).filter(|_| complete)
}

/// The end of what Chromium said, in whole lines where possible, without its complaints that there is no desktop.
pub(super) fn last_words(text: &str) -> String {
    let text: Vec<&str> = text.lines().filter(|line| !line.contains(NO_DESKTOP)).collect();
    let text = text.join("\n");
    let mut start = text.len().saturating_sub(STDERR_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = &text[start..];
    match tail.split_once('\n') {
        Some((_, rest)) if start > 0 && !rest.is_empty() => rest.to_owned(),
        _ => tail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_file_is_believed_only_when_complete() {
        let id = "0b1f2e3d-4c5b-6a79-8897-a6b5c4d3e2f1";
        let whole = format!("45123\n/devtools/browser/{id}");
        assert_eq!(endpoint(&whole), Some((45123, whole.split_once('\n').unwrap().1)));
        for cut in ["", "45", "45123\n", "45123\n/devtools/browser/0b1f2e3d"] {
            assert_eq!(endpoint(cut), None, "{cut}");
        }
    }

    #[test]
    fn last_words_are_whole_lines_and_short() {
        assert_eq!(last_words("one"), "one");
        assert_eq!(last_words("one\n[1:1:1123/1.2:ERROR:dbus/bus.cc:405] Failed\ntwo\n"), "one\ntwo");
        let long = format!("{}\nfatal: the last line", "é".repeat(STDERR_BYTES));
        assert_eq!(last_words(&long), "fatal: the last line");
        assert!(last_words(&"é".repeat(STDERR_BYTES)).len() <= STDERR_BYTES);
    }
}
