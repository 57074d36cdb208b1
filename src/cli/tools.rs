//! Where Chromium and FFmpeg come from: a function's layers, or the system.

use crate::config;
use crate::generation::Tools;
use crate::recording::browser::{Sandbox, Tier, Tiers};
use crate::recording::bundle::{Bundle, INDEX};
use crate::recording::program::{Chromium, Program};

/// Finds them. What is in a layer begins to be unpacked, and whoever needs it waits for it.
pub fn find() -> Result<Tools, String> {
    let bundled = |name: &str, unless: &str| {
        let layer = config::layer(name, unless, INDEX)?;
        Some(Program::bundled(Bundle::unpack(&layer), name))
    };
    let tiers = tiers()?;
    // The encoder first: a recording waits for it first, and it is small.
    let ffmpeg = match bundled("ffmpeg", config::FFMPEG) {
        Some(program) => program,
        None => Program::installed(config::ffmpeg_path().map_err(|e| e.to_string())?),
    };
    let program = match bundled("chromium", config::CHROMIUM) {
        Some(program) => program,
        None => Program::installed(config::chromium_path().map_err(|e| e.to_string())?),
    };
    // The platform's own sandbox leaves no room for another, and holds one user's function anyway.
    let sandbox = if config::is_function() { Sandbox::Off } else { Sandbox::Auto };
    Ok(Tools { chromium: Chromium { program, sandbox, tiers }, ffmpeg })
}

fn tiers() -> Result<Tiers, String> {
    let words = [Tier::Zygote, Tier::InProcessGpu, Tier::SingleProcess].map(Tier::word);
    let said = config::launch(&words).map_err(|e| e.to_string())?;
    Ok(match said.and_then(Tier::of) {
        Some(tier) => Tiers::only(tier),
        None if said.is_some() || config::is_function() => Tiers::any(),
        None => Tiers::only(Tier::Zygote),
    })
}
