//! Page to segments: browser, display, sound and encoder of one generation.

pub mod browser;
pub mod bundle;
pub mod cadence;
pub mod capture;
pub mod clock;
pub mod display;
pub mod encoder;
pub mod priority;
pub mod process;
pub mod program;
pub mod sound;
pub mod stills;
