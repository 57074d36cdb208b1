//! What a person sees while a recording runs.

use std::io::{IsTerminal, Write, stderr};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::generation::Progress;

/// Sends the log to standard error, readable on a terminal, JSON lines elsewhere if `lines` says so.
pub fn init_log(default: &str, lines: bool) {
    let filter = EnvFilter::try_new(crate::config::log_filter(default)).unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let _ = if lines && !stderr().is_terminal() {
        log.json().flatten_event(true).finish().with(filter_fn(is_discreet)).try_init()
    } else {
        log.with_ansi(stderr().is_terminal()).finish().with(filter_fn(is_discreet)).try_init()
    };
}

/// Whether an event can hold no secret. Ours do not; libraries write down whole requests, with tokens, keys and what is in a
/// task, and the one for CDP each message that it does not know, with the page's address.
fn is_discreet(event: &Metadata<'_>) -> bool {
    let of = |name: &str| event.target().split("::").next() == Some(name);
    of(env!("CARGO_CRATE_NAME")) || (*event.level() <= Level::WARN && !of("chromiumoxide"))
}

/// A line that is written over, on a terminal; nothing elsewhere.
pub struct ProgressLine {
    on: bool,
    width: usize,
}

impl ProgressLine {
    /// A line on standard error.
    pub fn new() -> Self {
        Self { on: stderr().is_terminal(), width: 0 }
    }

    /// Shows how things are.
    pub fn show(&mut self, progress: &Progress) {
        if self.on {
            let line = describe(progress);
            self.width = self.width.max(line.chars().count());
            let _ = write!(stderr(), "\r{line:<width$}", width = self.width);
        }
    }

    /// Leaves the line free for what follows.
    pub fn clear(&mut self) {
        if self.on && self.width > 0 {
            let _ = write!(stderr(), "\r{:width$}\r", "", width = self.width);
        }
    }
}

fn describe(p: &Progress) -> String {
    let elapsed = p.recorded_seconds as u64;
    let (hours, minutes, seconds) = (elapsed / 3600, elapsed / 60 % 60, elapsed % 60);
    let level = if p.peak > 0.0 { format!("{:.0} dB", 20.0 * p.peak.log10()) } else { "silent".into() };
    let reduced = if p.divisor > 1 { format!(", rate 1/{} (too little CPU)", p.divisor) } else { String::new() };
    format!(
        "{} {hours:02}:{minutes:02}:{seconds:02}  {:.0} fps{reduced}  {} dropped  {:.1} MB  sound {level}",
        p.state,
        p.frame_rate,
        p.dropped,
        p.bytes as f64 / 1e6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_time_rate_drops_size_and_level() {
        let progress = Progress {
            state: "recording",
            recorded_seconds: 3725.9,
            frame_rate: 29.6,
            dropped: 2,
            bytes: 12_345_678,
            peak: 0.1,
            divisor: 2,
            ..Progress::default()
        };
        assert_eq!(
            describe(&progress),
            "recording 01:02:05  30 fps, rate 1/2 (too little CPU)  2 dropped  12.3 MB  sound -20 dB"
        );
    }
}
