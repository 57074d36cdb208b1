//! Recordings through the service: real HTTP, real recorder processes, real stores.

use crate::checks;
use crate::gateway::{Gateway, request};
use crate::judge::Evidence;
use crate::run::Stage;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::thread;
use std::time::Duration;

/// A command shows in the status within this on a busy machine. The 500 ms of the README are the benchmark's.
const COMMAND: Duration = Duration::from_secs(5);

#[test]
fn a_recording_is_started_steered_stopped_described_and_fetched() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task =
        gateway.record("clock.html", json!({"Output": {"Cos": {"TargetDir": "class/7b", "TargetName": "algebra"}}}));
    let id = || json!({"TaskID": task});
    gateway.until(&task, "recording");
    thread::sleep(Duration::from_secs(3));
    gateway.good("Pause", id());
    assert!(gateway.until(&task, "paused").1 < COMMAND);
    thread::sleep(Duration::from_secs(3));
    gateway.good("Resume", id());
    assert!(gateway.until(&task, "recording").1 < COMMAND);
    thread::sleep(Duration::from_secs(2));
    gateway.good("Refresh", id());
    thread::sleep(Duration::from_secs(3));
    let listed = gateway.good("List", json!({"Status": "running"}));
    assert_eq!(listed["Tasks"][0]["TaskID"], task.as_str());
    gateway.good("Stop", id());
    let (done, _) = gateway.until(&task, "finished");
    assert_eq!(stage.server.asked("room.html"), 2, "loaded once and refreshed once");
    let video = &done["Result"]["Videos"][0];
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    assert_eq!(video["Filename"], "algebra.mp4");
    let times: Vec<_> =
        ["CreateTime", "StartTime", "CancelTime", "StopTime", "FinishTime"].map(|t| done[t].as_u64().unwrap()).into();
    assert!(times.is_sorted(), "{done}");
    let file = gateway.download(video["FileURL"].as_str().unwrap());
    assert_eq!(file.metadata().unwrap().len(), video["FileSize"].as_u64().unwrap());
    let e = Evidence::of(&file).unwrap();
    checks::container_of(&file, &e);
    checks::lasts(&e, video["FileDuration"].as_f64().unwrap());
    assert!((6.5..14.0).contains(&e.probe.duration), "{} s of about 8", e.probe.duration);
    let jumps = checks::jumps(&e, 1500.0);
    assert_eq!(jumps.len(), 1, "one pause: {jumps:?}");
    assert_eq!(gateway.good("Stop", id())["TaskID"], task.as_str(), "a second Stop succeeds");
    assert_eq!(gateway.act("Pause", id()).status, 409);
    let chunks = gateway.data().join("chunks");
    assert_eq!(std::fs::read_dir(&chunks).unwrap().count(), 0, "chunks are removed once the file is there");
    gateway.end();
}

#[test]
fn a_stop_before_the_recorder_is_up_ends_the_task() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("never", json!({}));
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    assert_eq!(done["Result"]["Videos"], json!([]));
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    gateway.end();
}

#[test]
fn a_page_that_cannot_be_opened_ends_the_task_with_its_reason() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("there-is-no-such-page.html", json!({}));
    let (done, _) = gateway.until(&task, "finished");
    assert_eq!(done["Result"]["ErrorCode"], "InternalErr");
    assert!(done["Result"]["ErrorMessage"].as_str().unwrap().contains("404"), "{done}");
    gateway.end();
}

#[test]
fn a_killed_gateway_loses_no_task() {
    let stage = Stage::new();
    let mut gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("clock.html", json!({"ClientToken": "once"}));
    gateway.until(&task, "recording");
    gateway.restart(&[]);
    assert_eq!(gateway.describe(&task)["Status"], "recording", "the recorder is not the gateway's child");
    let again = gateway.record("clock.html", json!({"ClientToken": "once"}));
    assert_eq!(again, task, "the token is remembered");
    thread::sleep(Duration::from_secs(3));
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    let file = gateway.download(done["Result"]["Videos"][0]["FileURL"].as_str().unwrap());
    let e = Evidence::of(&file).unwrap();
    checks::container_of(&file, &e);
    assert!(e.probe.duration > 3.0, "{} s", e.probe.duration);
    assert_eq!(stage.server.asked("clock.html"), 1, "one recorder");
    gateway.end();
}

#[test]
fn recordings_are_served_in_ranges_and_nothing_else_is() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("stop.html", json!({}));
    let (done, _) = gateway.until(&task, "finished");
    let url = done["Result"]["Videos"][0]["FileURL"].as_str().unwrap();
    let path = url.split_once(&gateway.address).unwrap().1;
    let part = request(&gateway.address, "GET", path, &["range: bytes=4-7"], b"");
    assert_eq!((part.status, &part.body[..]), (206, &b"ftyp"[..]));
    let size = done["Result"]["Videos"][0]["FileSize"].as_u64().unwrap();
    assert!(part.headers.contains(&format!("content-range: bytes 4-7/{size}")), "{:?}", part.headers);
    for path in ["/recordings/", "/recordings/../tasks.db", "/recordings/%2e%2e/tasks.db", "/recordings/none.mp4"] {
        let answer = request(&gateway.address, "GET", path, &[], b"");
        assert!(matches!(answer.status, 400..=405), "{path}: {}", answer.status);
    }
    gateway.end();
}

#[test]
fn what_a_killed_recorder_had_recorded_is_delivered() {
    let stage = Stage::new();
    let gateway = Gateway::start(&stage, &[], &[]);
    let task = gateway.record("clock.html", json!({}));
    gateway.until(&task, "recording");
    thread::sleep(Duration::from_secs(6));
    let recorders = gateway.recorders();
    assert_eq!(recorders.len(), 1, "{recorders:?}");
    kill_process(Pid::from_raw(recorders[0] as i32).unwrap(), Signal::KILL).unwrap();
    let (done, _) = gateway.until(&task, "finished");
    assert_eq!(done["Result"]["ErrorCode"], "RetriesExhausted", "{done}");
    let file = gateway.download(done["Result"]["Videos"][0]["FileURL"].as_str().unwrap());
    let e = Evidence::of(&file).unwrap();
    checks::container_of(&file, &e);
    // Only what was still in the encoder is lost: a segment is 2.1 s.
    assert!(e.probe.duration > 3.0, "{} s of 6", e.probe.duration);
    gateway.end();
}
