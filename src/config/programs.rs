//! Where the programs are that panorec starts.

use std::env;
use std::path::{Path, PathBuf};

use super::{CHROMIUM, FFMPEG, given, is_function};

/// Where Lambda puts what layers hold.
const LAYERS: &str = "/opt";
/// Debian's binary behind its wrapper script, which adds flags of its own.
const DEBIAN_CHROMIUM: &str = "/usr/lib/chromium/chromium";

/// A program that is not there.
#[derive(Debug, thiserror::Error)]
#[error("{program} not found{at}; install it with {install} or set {variable} to its path")]
pub struct MissingTool {
    program: &'static str,
    at: String,
    install: &'static str,
    variable: &'static str,
}

/// Where Chromium is.
pub fn chromium_path() -> Result<PathBuf, MissingTool> {
    let missing = |at: String| MissingTool {
        program: "Chromium",
        at,
        install: "`make setup` or `apt-get install chromium`",
        variable: CHROMIUM,
    };
    if let Some(path) = given(CHROMIUM) {
        return if is_program(&path) { Ok(path) } else { Err(missing(format!(" at {}", path.display()))) };
    }
    let debian = PathBuf::from(DEBIAN_CHROMIUM);
    if is_program(&debian) {
        return Ok(debian);
    }
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| on_path(name))
        .ok_or_else(|| missing(" on PATH".into()))
}

/// Where FFmpeg is.
pub fn ffmpeg_path() -> Result<PathBuf, MissingTool> {
    let missing = |at: String| MissingTool {
        program: "FFmpeg",
        at,
        install: "`make setup` or `apt-get install ffmpeg`",
        variable: FFMPEG,
    };
    if let Some(path) = given(FFMPEG) {
        return if is_program(&path) { Ok(path) } else { Err(missing(format!(" at {}", path.display()))) };
    }
    beside_us("ffmpeg").or_else(|| on_path("ffmpeg")).ok_or_else(|| missing(" on PATH".into()))
}

/// The directory that a layer brought to a function, if it did and no other program is named.
pub fn layer(name: &str, unless: &str, index: &str) -> Option<PathBuf> {
    let layer = Path::new(LAYERS).join(name);
    (is_function() && given(unless).is_none() && layer.join(index).is_file()).then_some(layer)
}

fn beside_us(name: &str) -> Option<PathBuf> {
    let exe = env::current_exe().ok()?;
    exe.ancestors().skip(1).take(5).map(|dir| dir.join(".tools").join(name)).find(|p| is_program(p))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = given("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
