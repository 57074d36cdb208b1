//! What shows only over minutes: drift, memory, the work at the end. `PANOREC_SOAK=1` (as `make soak` sets it) gives it the minutes;
//! without, a short form keeps it honest in every run.

use crate::checks;
use crate::judge::sync::{Pair, drift, offsets_by_clock};
use crate::run::{Outcome, Stage};
use std::time::Duration;

/// Over a minute: the promise of the README.
const DRIFT_MS: f64 = 5.0;
/// The short form divides the same scatter of single beeps by a third of the time.
const DRIFT_SHORT_MS: f64 = 15.0;
/// What may come on top between the beginning and the end: the sample tables of ten minutes are half a megabyte, the rest is the allocator's.
const GROWTH_KB: u64 = 4096;
/// Room for pictures that wait for the encoder is touched when it is first needed, and stays: all of it on a busy machine.
const WAITING_PICTURES_KB: u64 = 24 * 1024;
/// From the end of the recording to the finished file, whatever its length: the promise of the README; and on a busy machine.
const FINISH_MS: f64 = 1000.0;
const FINISH_BUSY_MS: f64 = 6000.0;

fn seconds() -> u32 {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let soak = std::env::var_os("PANOREC_SOAK").is_some();
    if soak { 600 } else { 20 }
}

/// Median memory in a stretch of the run.
fn memory_between(outcome: &Outcome, from: Duration, to: Duration) -> u64 {
    let inside = outcome.resident.iter().filter(|(at, _)| (from..to).contains(at));
    let mut kb: Vec<u64> = inside.map(|(_, kb)| *kb).collect();
    kb.sort_unstable();
    kb[kb.len() / 2]
}

#[test]
fn a_long_recording_neither_drifts_nor_grows() {
    let stage = Stage::new();
    let length = seconds();
    let duration = format!("{length}s");
    let outcome = stage.record("clock.html", &["--duration", &duration]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, f64::from(length));
    checks::said_truly(&outcome, &e);
    checks::pictures(&outcome, &e, 30.0);
    checks::sound_by_clock(&outcome, &e);
    checks::no_gaps(&outcome);
    checks::memory(&outcome);

    let offsets = offsets_by_clock(&e.pictures, &e.beeps);
    let pairs: Vec<Pair> = e.beeps.iter().zip(offsets).map(|(at, offset)| Pair { flash: *at, offset }).collect();
    let a_minute = drift(&pairs).unwrap() * 60_000.0;
    let allowed = if length >= 60 { DRIFT_MS } else { DRIFT_SHORT_MS };
    assert!(a_minute.abs() <= allowed, "sound drifts by {a_minute} ms a minute");

    let end = outcome.resident.last().unwrap().0;
    let early = memory_between(&outcome, end * 3 / 10, end * 5 / 10);
    let late = memory_between(&outcome, end * 7 / 10, end * 9 / 10);
    let allowed = GROWTH_KB + if outcome.quiet() { 0 } else { WAITING_PICTURES_KB };
    assert!(late <= early + allowed, "{early} kB grew to {late} kB with {:.2} of the machine idle", outcome.spare);

    let finish = outcome.number("/Timings/FinishMs");
    let allowed = if outcome.quiet() { FINISH_MS } else { FINISH_BUSY_MS };
    println!("drift {a_minute:.2} ms a minute, {early} kB, then {late} kB, {finish} ms to finish {length} s");
    assert!(finish <= allowed, "{finish} ms to finish {length} s with {:.2} of the machine idle", outcome.spare);
}
