//! Recorders that are killed as the system kills when memory is out, at moments of chance, again and again in one recording.
//! `PANOREC_SOAK=1` (as `make soak` sets it) makes fifty kills of what is otherwise two.

use crate::gateway::Gateway;
use crate::judge::sync::{lags, median};
use crate::run::Stage;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A gap is listed this near to the truth: the promise.
const GAP_SECONDS: f64 = 0.1;
/// What reading the truth from pictures costs: the page's clock stands in them as it was when they were drawn.
const FRAME_SECONDS: f64 = 1.0 / 30.0;
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

/// What is missing at one place of the file, by the page's clock: where, how much, and what its last picture before says.
#[derive(Debug)]
struct Missing {
    at: f64,
    seconds: f64,
    last_ms: u32,
}

/// Where the page's clock jumps, judged by all pictures on either side: a single one may be late.
fn missing(coded: &[(f64, crate::judge::code::Code)]) -> Vec<Missing> {
    let lags = lags(coded);
    let jump = |i: &usize| lags[i - 1] - lags[*i] > RESTART_MS;
    let mut cuts: Vec<usize> = (1..lags.len()).filter(jump).collect();
    cuts.push(lags.len());
    let mut begin = 0;
    let mut found = Vec::new();
    for ends in cuts.windows(2) {
        let middle = |from: usize, to: usize| median(&lags[from..to]).unwrap();
        let seconds = (middle(begin, ends[0]) - middle(ends[0], ends[1])) / 1000.0;
        found.push(Missing { at: coded[ends[0]].0, seconds, last_ms: coded[ends[0] - 1].1.wall_ms });
        begin = ends[0];
    }
    found
}

/// The gaps that are listed must be the jumps of the page's clock, and nothing else.
fn gaps_are_true(gaps: &[Value], seen: &[Missing]) {
    assert_eq!(gaps.len(), seen.len(), "listed: {gaps:?}, seen: {seen:?}");
    for (gap, seen) in gaps.iter().zip(seen) {
        assert_eq!(gap["Reason"], "RecorderLost");
        for (what, truth) in [("Start", seen.at), ("Duration", seen.seconds)] {
            let off = (gap[what].as_f64().unwrap() - truth).abs();
            assert!(off < GAP_SECONDS + FRAME_SECONDS, "{what} of {gap} is {off} s off {seen:?}");
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
        thread::sleep(Duration::from_millis(3_000 + chance % 6_000));
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
    let seen = missing(&e.coded());
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
