//! Delivery, judged by FFmpeg: what a real encoder wrote, assembled by us, must decode to the very pictures and samples.
#![allow(clippy::unwrap_used)] // a test may panic, in its helpers too

mod assembled;
mod recovered;
mod tools;
