//! Recorders that are killed as the system kills when memory is out, at moments of chance, again and again in one recording.
//! `PANOREC_SOAK=1` (as `make soak` sets it) makes fifty kills of what is otherwise two; `PANOREC_KILLS` says another number.

use crate::checks::{self, Missing};
use crate::gateway::Gateway;
use crate::hls::SEGMENT_SECONDS;
use crate::judge::sync::median;
use crate::judge::tools::tool;
use crate::player::Player;
use crate::run::{GONE_WITHIN, Stage};
use crate::watch::Watch;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is on its way through encoder and store at the moment of a kill, on a busy machine.
const ON_ITS_WAY_SECONDS: f64 = 1.5;
/// The clock in the pictures jumps by more at each restart: it takes 1.1 s at least to see that nobody renews the lease, and the
/// page has to load. No lateness of a page comes near.
const RESTART_MS: f64 = 1_200.0;
/// A lease that nobody renews has to be seen, and a browser has to start.
const ANOTHER: Duration = Duration::from_secs(60);

fn kills_wanted() -> usize {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let (soak, kills) = (std::env::var_os("PANOREC_SOAK").is_some(), std::env::var("PANOREC_KILLS"));
    kills.map_or(if soak { 50 } else { 2 }, |kills| kills.parse().expect("PANOREC_KILLS is a number"))
}

/// Unix milliseconds, as the pages' clock counts them.
fn now_ms() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u32
}

/// From one moment of the pages' clock to another, seconds.
fn between(from_ms: u32, to_ms: u32) -> f64 {
    f64::from(to_ms.wrapping_sub(from_ms).cast_signed()) / 1000.0
}

/// A recorder's end.
struct Kill {
    at_ms: u32,
    /// The next one's process was seen.
    next_ms: u32,
}

/// The one recorder that there is. After a kill the platform's retry and a sweep may both bring one, and that which comes too late
/// looks at the other's lease for some seconds before it goes.
fn recorder(gateway: &Gateway<'_>) -> u32 {
    let since = Instant::now();
    loop {
        match gateway.recorders()[..] {
            [recorder] => return recorder,
            ref recorders => assert!(since.elapsed() < ANOTHER, "recorders: {recorders:?}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Kills the one recorder that there is, and waits for the page of the next.
fn kill(gateway: &Gateway<'_>, stage: &Stage) -> Kill {
    let recorder = recorder(gateway);
    let asked = stage.server.asked("room.html");
    kill_process(Pid::from_raw(recorder as i32).unwrap(), Signal::KILL).unwrap();
    let (at_ms, since) = (now_ms(), Instant::now());
    while gateway.recorders().iter().all(|pid| *pid == recorder) {
        assert!(since.elapsed() < ANOTHER, "no other recorder");
        thread::sleep(Duration::from_millis(50));
    }
    let next_ms = now_ms();
    gateway.until_asked("room.html", asked + 1);
    Kill { at_ms, next_ms }
}

/// The gaps that are listed must be the jumps of the page's clock, and nothing else.
fn gaps_are_true(gaps: &[Value], seen: &[Missing]) {
    assert_eq!(gaps.len(), seen.len(), "listed: {gaps:?}, seen: {seen:?}");
    let mut worst = [0.0_f64; 2];
    for (gap, seen) in gaps.iter().zip(seen) {
        assert_eq!(gap["Reason"], "RecorderLost");
        for (worst, (what, truth)) in worst.iter_mut().zip([("Start", seen.at), ("Duration", seen.seconds)]) {
            let off = (gap[what].as_f64().unwrap() - truth).abs();
            assert!(off < checks::GAP_SECONDS, "{what} of {gap} is {off} s off {seen:?}");
            *worst = worst.max(off);
        }
    }
    println!("listed gaps are off by {:.3} s at most, their lengths by {:.3} s", worst[0], worst[1]);
}

/// What the kills cost, for whoever reads a long run; and no more than a segment and a restart.
fn cost_little(kills: Vec<Kill>, seen: &[Missing]) {
    let (mut lost, mut restart, mut start) = (Vec::new(), Vec::new(), Vec::new());
    let mut kills = kills.into_iter();
    for gap in seen {
        // Kills before anything was stored belong to the gap before.
        let kill = kills.find(|kill| between(gap.last_ms, kill.at_ms) > 0.0).expect("each gap has a kill");
        lost.push(between(gap.last_ms, kill.at_ms));
        restart.push(between(kill.at_ms, gap.next_ms));
        start.push(between(kill.next_ms, gap.next_ms));
        assert!(
            *lost.last().unwrap() < SEGMENT_SECONDS + ON_ITS_WAY_SECONDS,
            "{} s lost of {gap:?}",
            lost.last().unwrap()
        );
    }
    for (what, seconds) in [
        ("lost before the kill", lost),
        ("from the kill to the first new picture", restart),
        ("from the next recorder's process to it", start),
    ] {
        let most = seconds.iter().copied().fold(f64::NAN, f64::max);
        let middle = median(&seconds).unwrap_or(f64::NAN);
        println!("{what}, s: median {middle:.3}, most {most:.3} of {}: {seconds:.3?}", seconds.len());
    }
}

/// A recorder is held up for so long before its event comes again. Its renewal is late 0.7 s later then at the latest.
const HELD_UP: Duration = Duration::from_millis(700);
/// From then on it goes on after so long at the latest: it is watched for a tenth of a second more before it is taken for lost.
const GOES_ON: Duration = Duration::from_millis(1_200);

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Another invocation with a task's event, as a platform may deliver it twice, with a temporary directory of its own.
fn again(stage: &Stage, task: &str, temp: &Path) -> Child {
    #[allow(clippy::disallowed_methods, reason = "the tests start panorec themselves and watch what it leaves")]
    let mut child = Command::new(env!("CARGO_BIN_EXE_panorec"))
        .args(["invoke", "--allow-address", "127.0.0.0/8", "--data"])
        .arg(stage.out().join("data"))
        .arg("-")
        .env("TMPDIR", temp)
        .env("PANOREC_FFMPEG", tool("ffmpeg").unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let event = json!({"Recorder": {"TaskID": task}}).to_string();
    child.stdin.take().unwrap().write_all(event.as_bytes()).unwrap();
    child
}

/// Holds the recorder up until somebody has started a browser to go on in its place, and lets it go on then. Says whether that
/// came to it in time; nothing of it may be left in any case.
fn held_up(gateway: &Gateway<'_>, stage: &Stage, task: &str) -> bool {
    let temp = tempfile::tempdir().unwrap();
    let recorder = recorder(gateway);
    let serve = Watch::parent(recorder).unwrap();
    let asked = stage.server.asked("room.html");
    // Nobody else may look for lost recorders meanwhile.
    signal(serve, Signal::STOP);
    signal(recorder, Signal::STOP);
    thread::sleep(HELD_UP);
    let (mut child, since) = (again(stage, task, temp.path()), Instant::now());
    let watch = Watch::start(child.id(), temp.path());
    let starts = || !watch.running("--user-data-dir=").is_empty();
    while !starts() && since.elapsed() < GOES_ON {
        thread::sleep(Duration::from_millis(5));
    }
    let stood_by = starts();
    signal(recorder, Signal::CONT);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    signal(serve, Signal::CONT);
    assert!(said.contains("not ours"), "{said}");
    let left = watch.left_after(GONE_WITHIN);
    assert!(left.is_empty(), "processes left behind: {left:?}");
    let files: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    assert!(files.is_empty(), "files left behind: {files:?}");
    assert_eq!(stage.server.asked("room.html"), asked, "times that the page was asked for");
    stood_by
}

#[test]
fn whoever_gets_ready_in_place_of_a_recorder_that_is_only_late_leaves_nothing() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("room.html", json!({}));
    gateway.until(&task, "recording");
    // A machine may be too busy to start an invocation and its browser in the time that there is.
    assert!((0..5).any(|_| held_up(&gateway, &stage, &task)), "nobody got ready in time");
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    assert_eq!(done["Result"]["Quality"]["Generations"], 1, "{done}");
    gateway.end();
}

#[test]
fn a_recorder_that_is_killed_at_any_moment_costs_a_segment_and_a_restart() {
    let stage = Stage::new();
    let cors = ("PANOREC_CORS_ORIGIN".to_string(), "*".to_string());
    let gateway = Gateway::start(&stage, &[], &[cors]);
    let task = gateway.record("room.html", json!({}));
    gateway.until(&task, "recording");
    let kills: Vec<Kill> = (0..kills_wanted())
        .map(|_| {
            let chance = uuid::Uuid::new_v4().as_u64_pair().0;
            // Each stores something first, or two kills are one gap.
            thread::sleep(Duration::from_millis(7_000 + chance % 4_000));
            kill(&gateway, &stage)
        })
        .collect();
    let generations = kills.len() + 1;
    thread::sleep(Duration::from_secs(6));
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    let quality = &done["Result"]["Quality"];
    assert_eq!(quality["Generations"].as_u64().unwrap() as usize, generations);
    let e = gateway.evidence(&done);
    let seen = checks::missing(&e, RESTART_MS);
    gaps_are_true(quality["Gaps"].as_array().unwrap(), &seen);
    cost_little(kills, &seen);
    Player::start(&stage).seeks(done["Result"]["Videos"][0]["FileURL"].as_str().unwrap(), &e);
    // What each recorder delivered is counted, the lost segments are not.
    let delivered = quality["FramesDelivered"].as_f64().unwrap();
    let there = e.coded().len() as f64;
    println!("{delivered} pictures are said to be delivered, {there} are there");
    assert!((delivered - there).abs() < 0.05 * there, "{delivered} are said to be delivered, {there} are there");
    gateway.end();
}
