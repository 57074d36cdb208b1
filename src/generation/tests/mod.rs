//! Whole recordings in a world that forgets, on a clock that stands still while nothing waits: the real task, desk, lease,
//! media and assembly code under a studio without a browser.

mod calls;
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what the adapters' own tests need besides"
)]
#[path = "../../../tests/aws/support/mod.rs"]
mod cloud;
mod crash;
mod elsewhere;
mod faults;
mod gallery;
mod growth;
mod guarded;
mod hls;
mod hours;
mod life;
mod outage;
mod relay;
mod schedules;
pub mod studio;
mod town;
mod vod;
pub mod world;
