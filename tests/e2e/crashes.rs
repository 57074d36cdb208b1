//! Recorders that are killed as the system kills when memory is out, at moments of chance, again and again in one recording.
//! `PANOREC_SOAK=1` (as `make soak` sets it) makes fifty kills of what is otherwise two.

use crate::checks::{self, Missing};
use crate::gateway::Gateway;
use crate::run::Stage;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A segment: the promise.
const LOST_SECONDS: f64 = 2.2;
/// What is on its way through encoder and store at the moment of a kill, on a busy machine.
const ON_ITS_WAY_SECONDS: f64 = 1.5;
/// The clock in the pictures jumps by more at each restart: a lease has to run out first. No lateness of a page comes near.
const RESTART_MS: f64 = 2_000.0;

fn kills_wanted() -> usize {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let soak = std::env::var_os("PANOREC_SOAK").is_some();
    if soak { 50 } else { 2 }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The gaps that are listed must be the jumps of the page's clock, and nothing else.
fn gaps_are_true(gaps: &[Value], seen: &[Missing]) {
    assert_eq!(gaps.len(), seen.len(), "listed: {gaps:?}, seen: {seen:?}");
    for (gap, seen) in gaps.iter().zip(seen) {
        assert_eq!(gap["Reason"], "RecorderLost");
        for (what, truth) in [("Start", seen.at), ("Duration", seen.seconds)] {
            let off = (gap[what].as_f64().unwrap() - truth).abs();
            assert!(off < checks::GAP_SECONDS, "{what} of {gap} is {off} s off {seen:?}");
        }
    }
}

#[test]
fn a_recorder_that_is_killed_at_any_moment_costs_a_segment_and_a_restart() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("room.html", json!({}));
    gateway.until(&task, "recording");
    let mut kills = Vec::new();
    for number in 1..=kills_wanted() {
        let chance = uuid::Uuid::new_v4().as_u64_pair().0;
        // Each stores something first: the page shows by turns which browser it is in, and a judge has to tell them apart.
        thread::sleep(Duration::from_millis(7_000 + chance % 4_000));
        let recorders = gateway.recorders();
        assert_eq!(recorders.len(), 1, "{recorders:?}");
        kill_process(Pid::from_raw(recorders[0] as i32).unwrap(), Signal::KILL).unwrap();
        kills.push(now_ms());
        gateway.until_asked("room.html", number + 1);
    }
    thread::sleep(Duration::from_secs(6));
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    let quality = &done["Result"]["Quality"];
    assert_eq!(quality["Generations"].as_u64().unwrap() as usize, kills.len() + 1);
    let e = gateway.evidence(&done);
    let seen = checks::missing(&e, RESTART_MS);
    let gaps = quality["Gaps"].as_array().unwrap();
    println!("gaps: {gaps:?}\nseen: {seen:?}");
    gaps_are_true(gaps, &seen);
    let mut kills = kills.into_iter();
    for gap in &seen {
        let of = |kill: &u64| f64::from((*kill as u32).wrapping_sub(gap.last_ms).cast_signed()) / 1000.0;
        // Kills before anything was stored belong to the gap before.
        let kill = kills.find(|kill| of(kill) > 0.0).expect("each gap has a kill");
        println!("at {:.3} s: {:.3} s before the kill are lost, {:.3} s in all", gap.at, of(&kill), gap.seconds);
        assert!(of(&kill) < LOST_SECONDS + ON_ITS_WAY_SECONDS, "{} s lost of {gap:?}", of(&kill));
    }
    // What each recorder delivered is counted, the lost segments are not.
    let delivered = quality["FramesDelivered"].as_f64().unwrap();
    let there = e.coded().len() as f64;
    println!("{delivered} pictures are said to be delivered, {there} are there");
    assert!((delivered - there).abs() < 0.05 * there, "{delivered} are said to be delivered, {there} are there");
    gateway.end();
}
