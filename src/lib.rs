//! panorec records a web page, picture and sound, as a person sees and hears it.
//!
//! Rooms and the direction of knowledge: `main → cli/api → generation → { recording, delivery, platform } → task`.
//! Nothing points left; `recording`, `delivery` and `platform` never name each other. `task` is pure: no clock,
//! no I/O, no runtime. `tests/integration/layering.rs` holds this.

// Servers of the integration tests name the library as its users do; some unit tests need them, too.
#[cfg(test)]
extern crate self as panorec;

pub mod api;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod generation;
pub mod platform;
pub mod recording;
pub mod task;
