//! Whole recordings in a world that forgets, on a clock that stands still while nothing waits: the real task, desk, lease,
//! media and assembly code under a studio without a browser.

mod calls;
mod faults;
mod gallery;
mod growth;
mod hls;
mod life;
mod outage;
mod relay;
mod schedules;
pub mod studio;
mod town;
mod vod;
pub mod world;
