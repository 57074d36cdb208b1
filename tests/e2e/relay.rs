//! Recordings that outlive their invocation: the next one records along before it goes on, and the seam does not show; not to
//! whoever watches the growing playlist either, nor where a pause falls into the hand-over.
//! `PANOREC_SOAK=1` (as `make soak` sets it) makes twenty seams of what is otherwise two.

use crate::checks;
use crate::gateway::Gateway;
use crate::hls::{is_live, plays_to_the_end, until_shown};
use crate::judge::Evidence;
use crate::player::Player;
use crate::run::Stage;
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// Between successive pictures at a seam, frame intervals: the promise.
const SEAM_FRAMES: f64 = 2.0;
/// Page clock and time stamps are whole milliseconds, and a slot is not.
const ROUNDING_MS: f64 = 2.0;
/// A hole of the sound that is shorter is one AAC frame at most: the promise.
const HOLE_SECONDS: f64 = 0.0214;
/// Longest hole that a busy machine excuses at a seam, if there are such holes elsewhere: three AAC frames.
const EXCUSED_SECONDS: f64 = 0.064;
/// Where a hole counts for the seam's: the sink of the new page has settled long before.
const BESIDE_SECONDS: f64 = 0.5;
/// The same where the task was paused as soon as the next page was asked for: its browser was starting just before.
const BESIDE_PAUSE_SECONDS: f64 = 0.1;
/// A/V offset in front of a seam and behind it, ms apart: what differs from browser to browser without us (`checks`: 40), and
/// two medians of a few flashes (20).
const OFFSET_APART_MS: f64 = 60.0;

/// From a page that is there to a task that is its own, on two cores shared with others.
const HANDED_OVER: Duration = Duration::from_secs(30);

fn seams_wanted() -> usize {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let soak = std::env::var_os("PANOREC_SOAK").is_some();
    if soak { 20 } else { 2 }
}

/// File positions at which the page is another browser's: each time it is loaded it shows so.
fn seams(e: &Evidence) -> Vec<f64> {
    let coded = e.coded();
    coded.windows(2).filter(|w| w[1].1.stage != w[0].1.stage).map(|w| w[1].0).collect()
}

/// The page's clock jumps by more over the pause, which lasts 3 s at least, and at no other seam.
const PAUSE_MS: f64 = 2_500.0;

/// Steps of the page's clock against the file's, ms, but for the pause: position, and by how much more the page's went on.
fn steps(e: &Evidence) -> Vec<(f64, f64)> {
    let wall = |w: &[(f64, crate::judge::code::Code)]| f64::from(w[1].1.wall_ms) - f64::from(w[0].1.wall_ms);
    // The clock in the code begins anew once in a while.
    e.coded().windows(2).map(|w| (w[1].0, wall(w))).filter(|(_, step)| step.abs() < PAUSE_MS).collect()
}

/// At each seam the page's clock goes on by two pictures at most, and never back; on a machine where pages draw late elsewhere
/// in the file, it may go on, or back, by as much as they were late there: one of the two pages was.
fn picture_goes_on(e: &Evidence, seams: &[f64]) {
    let at_seam = |at: f64| seams.iter().any(|s| (s - at).abs() < 0.001);
    let (at, elsewhere): (Vec<_>, Vec<_>) = steps(e).into_iter().partition(|(at, _)| at_seam(*at));
    let usual = elsewhere.iter().map(|(_, step)| *step).fold(0.0, f64::max);
    let frame = 1000.0 / 30.0;
    let allowed = (frame - usual - ROUNDING_MS).min(0.0)..=(SEAM_FRAMES * frame).max(usual) + ROUNDING_MS;
    assert_eq!(at.len(), seams.len());
    for (at, step) in at {
        assert!(allowed.contains(&step), "the page's clock steps by {step} ms at the seam at {at} s");
    }
}

/// At no seam has the sound a hole that is longer than an AAC frame; on a machine where Chromium, late, puts in longer ones
/// elsewhere, none that is longer than they are, within a bound.
fn sound_goes_on(e: &Evidence, seams: &[f64], beside_seconds: f64) {
    let holes = e.bed_holes.as_ref().expect("the bed tone is missing");
    let beside = |at: f64| seams.iter().any(|s| (s - at).abs() < beside_seconds);
    let usual = holes.iter().filter(|(at, _)| !beside(*at)).map(|(_, length)| *length).fold(0.0, f64::max);
    let bound = usual.clamp(HOLE_SECONDS, EXCUSED_SECONDS);
    let torn: Vec<_> = holes.iter().filter(|(at, length)| beside(*at) && *length > bound).collect();
    assert!(torn.is_empty(), "{torn:?} at the seams {seams:?}, {usual} s elsewhere");
}

/// What is judged, seam by seam, for whoever reads a long run.
fn told(e: &Evidence, seams: &[f64]) {
    let (steps, holes) = (steps(e), e.bed_holes.as_deref().unwrap_or_default());
    let mut offsets = sections(e, seams).into_iter().map(|(from, to)| checks::offset_between(e, from, to));
    println!("A/V offset {:.1} ms", offsets.next().unwrap());
    println!("holes of the sound anywhere: {holes:?}");
    for (at, offset) in seams.iter().zip(offsets) {
        let step = steps.iter().find(|(to, _)| to == at).map_or(f64::NAN, |(_, step)| *step);
        let hole = holes.iter().filter(|h| (h.0 - at).abs() < BESIDE_SECONDS).map(|h| h.1).fold(0.0, f64::max);
        println!(
            "seam at {at:.3} s: clock {step:.0} ms on, hole of {:.1} ms, A/V offset {offset:.1} ms",
            hole * 1000.0
        );
    }
}

/// Spans of the file between seams.
fn sections(e: &Evidence, seams: &[f64]) -> Vec<(f64, f64)> {
    let ends: Vec<f64> = [&[0.0], seams, &[e.probe.duration]].concat();
    ends.windows(2).map(|w| (w[0], w[1])).collect()
}

/// A pause that begins when the next one has been asked for, and ends once the task is that one's: between two segments, and
/// between two frames of sound.
fn paused_through_a_hand_over(gateway: &Gateway<'_>, task: &str) {
    gateway.until_asked("room.html", 2);
    let held = gateway.generation(task);
    gateway.good("Pause", json!({"TaskID": task}));
    gateway.until(task, "paused");
    thread::sleep(Duration::from_secs(3));
    let since = Instant::now();
    while gateway.generation(task) == held {
        assert!(since.elapsed() < HANDED_OVER, "it is not handed over while it is paused");
        thread::sleep(Duration::from_millis(100));
    }
    gateway.good("Resume", json!({"TaskID": task}));
    gateway.until(task, "recording");
}

#[test]
fn a_recording_goes_on_beyond_its_invocation_and_nobody_sees_where() {
    let stage = Stage::new();
    // Its own player reads what is at another address.
    let cors = ("PANOREC_CORS_ORIGIN".to_string(), "*".to_string());
    let gateway = Gateway::start(&stage, &["--invocation-timeout", "30s"], &[cors]);
    let task = gateway.record("room.html", json!({"Output": {"Video": {"Muxer": "mp4,hls"}}}));
    gateway.until(&task, "recording");
    let mut player = Player::start(&stage);
    player.play(&until_shown(&gateway, &task));
    let wanted = seams_wanted();
    paused_through_a_hand_over(&gateway, &task);
    // Each is asked for when half of the one before is over.
    gateway.until_asked("room.html", wanted + 1);
    let asked = player.look().now_ms;
    while gateway.recorders().len() > 1 {
        thread::sleep(Duration::from_millis(200));
    }
    is_live(&mut player, Some(asked));
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    plays_to_the_end(&mut player, &done);
    let quality = &done["Result"]["Quality"];
    assert_eq!(quality["Gaps"], json!([]), "{quality}");
    let e = gateway.evidence(&done);
    let seams = seams(&e);
    assert!(seams.len() >= wanted, "{seams:?}");
    assert_eq!(quality["Generations"].as_u64().unwrap() as usize, seams.len() + 1);
    let pauses: Vec<f64> = checks::jumps(&e, PAUSE_MS).into_iter().map(|(at, _)| at).collect();
    assert_eq!(pauses, seams[..1], "the pause is where the first hand-over is");
    told(&e, &seams);
    picture_goes_on(&e, &seams[1..]);
    sound_goes_on(&e, &seams[..1], BESIDE_PAUSE_SECONDS);
    sound_goes_on(&e, &seams[1..], BESIDE_SECONDS);
    let last = *seams.last().unwrap();
    let (before, after) =
        (checks::offset_between(&e, 0.0, seams[0]), checks::offset_between(&e, last, e.probe.duration));
    assert!((before - after).abs() < OFFSET_APART_MS, "{before} ms in front of the seams, {after} ms behind them");
    player.seeks(done["Result"]["Videos"][0]["FileURL"].as_str().unwrap(), &e);
    // What every generation delivered is counted, and nothing twice.
    let delivered = quality["FramesDelivered"].as_f64().unwrap();
    let coded = e.coded().len() as f64;
    assert!((delivered - coded).abs() < 0.1 * coded, "{delivered} are said to be delivered, {coded} are there");
    gateway.end();
}
