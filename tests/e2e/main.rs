//! End to end: the real binary, real Chromium and FFmpeg, pages of our own, judged by decoding the file.
//!
//! `run` starts panorec and sees to it that it ends and leaves nothing; `judge` says what is in the file; `checks` says what must be.
//! The tests are named situations: `ordinary` pages, `situations` that pages bring about, `control` from outside and by the page,
//! `failures`, `hostile` pages, the `service`, the `function` under platforms that run it. They take turns, alone or in twos: recordings disturb each other. None asks for absolute speed unless the machine was idle enough to owe it.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "tests start servers and the program itself, and end them")]

mod cdp;
mod checks;
#[allow(dead_code, reason = "what the adapters' own tests need besides")]
#[path = "../aws/support/mod.rs"]
mod cloud;
mod control;
mod crashes;
mod deployment;
mod disk;
mod failures;
mod function;
mod gateway;
mod hls;
mod hostile;
mod jail;
mod judge;
mod media;
mod ordinary;
mod outage;
mod outcome;
mod pictures;
mod player;
mod relay;
mod run;
mod secrets;
mod server;
mod service;
mod situations;
mod soak;
mod synth;
mod turn;
mod vod;
mod watch;
