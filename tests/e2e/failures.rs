//! Everything that can fail fails in one clear sentence, with a status, without leftovers, and keeps what was recorded.

use crate::checks;
use crate::disk::SmallDisk;
use crate::run::Stage;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// A file that runs ahead of the page's clock by this much at once skips something; a busy machine alone draws pictures up to some
/// slots late and then in time again (0.6 s seen with three test suites at once).
const FAST_FORWARD_MS: f64 = 1000.0;
const LOCAL: [&str; 2] = ["--allow-address", "127.0.0.0/8"];

#[test]
fn a_missing_chromium_is_named_with_its_cure() {
    let stage = Stage::shared();
    let url = stage.server.url("clock.html");
    let nowhere = [("PANOREC_CHROMIUM", "/nowhere/chromium")];
    let outcome = stage.command(&url, &stage.file(), &LOCAL, &nowhere).end();
    outcome.failed(&["chromium", "/nowhere/chromium", "PANOREC_CHROMIUM"]);
    assert!(!outcome.file.exists());
}

#[test]
fn a_missing_ffmpeg_is_named_with_its_cure() {
    let stage = Stage::shared();
    let url = stage.server.url("clock.html");
    let nowhere = [("PANOREC_FFMPEG", "/nowhere/ffmpeg")];
    let outcome = stage.command(&url, &stage.file(), &LOCAL, &nowhere).end();
    outcome.failed(&["ffmpeg", "/nowhere/ffmpeg", "PANOREC_FFMPEG"]);
    assert!(!outcome.file.exists());
}

#[test]
fn a_chromium_that_ends_at_once_is_not_waited_for() {
    let stage = Stage::shared();
    let url = stage.server.url("clock.html");
    let outcome = stage.command(&url, &stage.file(), &LOCAL, &[("PANOREC_CHROMIUM", "/bin/false")]).end();
    outcome.failed(&["chromium"]);
    assert!(!outcome.file.exists());
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_anything_starts() {
    let stage = Stage::shared();
    let file = stage.out().join("missing/film.mp4");
    let outcome = stage.record_url(&stage.server.url("clock.html"), &file, &LOCAL).end();
    outcome.failed(&["missing"]);
    assert_eq!(stage.server.asked("clock.html"), 0, "the page was opened for nothing");
}

#[test]
fn an_existing_output_is_not_overwritten() {
    let stage = Stage::shared();
    std::fs::write(stage.file(), b"precious").unwrap();
    let outcome = stage.record("clock.html", &["--duration", "2s"]).end();
    outcome.failed(&["exists"]);
    assert_eq!(std::fs::read(stage.file()).unwrap(), b"precious");
}

#[test]
fn a_loopback_address_needs_leave() {
    let stage = Stage::shared();
    let outcome = stage.record_url(&stage.server.url("clock.html"), &stage.file(), &["--duration", "2s"]).end();
    outcome.failed(&["127.0.0.1", "--allow-address"]);
    assert_eq!(stage.server.asked("clock.html"), 0, "the page was fetched all the same");
    assert!(!outcome.file.exists());
}

#[test]
fn an_error_page_is_no_page() {
    let stage = Stage::shared();
    let outcome = stage.record("status/500", &["--duration", "2s"]).end();
    outcome.failed(&["500"]);
    assert_eq!(outcome.json["ErrorCode"], "InternalErr");
    assert!(!outcome.file.exists());
}

#[test]
fn a_refused_connection_is_told_as_such() {
    let stage = Stage::shared();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let outcome = stage.record_url(&url, &stage.file(), &LOCAL).end();
    outcome.failed(&["refused"]);
    assert_eq!(outcome.json["ErrorCode"], "InternalErr");
    assert!(!outcome.file.exists());
}

#[test]
fn a_server_that_says_nothing_is_given_up_and_a_page_without_end_is_recorded() {
    // Both wait as long as a patient person does, so they wait together.
    let silent = Stage::aside();
    let beside = silent.beside();
    let never = silent.record("never", &["--duration", "2s"]);
    let half = beside.record("half", &["--duration", "2s"]);
    let outcome = half.end();
    checks::container(&outcome, &outcome.good());
    let outcome = never.end();
    outcome.failed(&["did not answer within"]);
    assert_eq!(outcome.json["ErrorCode"], "InternalErr");
    assert!(!outcome.file.exists());
}

#[test]
fn a_killed_ffmpeg_loses_little_and_says_so() {
    let stage = Stage::shared();
    let mut recording = stage.record("clock.html", &["--duration", "10s"]);
    recording.until_page("clock.html", Duration::from_secs(6));
    recording.kill_child("ivf");
    let outcome = recording.end();
    let e = outcome.evidence();
    checks::container(&outcome, &e);
    assert!(e.probe.duration > 2.0, "only {} s were kept", e.probe.duration);
    outcome.failed(&["ffmpeg", "film.mp4"]);
    assert_eq!(outcome.json["StopReason"], "failed");
    checks::said_truly(&outcome, &e);
}

#[test]
fn a_stuck_ffmpeg_does_not_hang_the_recording() {
    let stage = Stage::shared();
    let mut recording = stage.record("clock.html", &["--duration", "8s"]);
    recording.until_page("clock.html", Duration::from_secs(5));
    recording.stop_child("ivf");
    let outcome = recording.end();
    let e = outcome.evidence();
    checks::container(&outcome, &e);
    checks::memory(&outcome);
    assert!(e.probe.duration > 1.5, "only {} s were kept", e.probe.duration);
    outcome.failed(&["ffmpeg", "film.mp4"]);
}

#[test]
fn a_slow_encoder_lowers_the_rate_and_spares_the_sound() {
    let stage = Stage::new();
    let mut recording = stage.record("animation.html", &["--duration", "14s"]);
    recording.until_page("animation.html", Duration::from_secs(2));
    recording.slow_child("ivf", Duration::from_secs(6));
    let outcome = recording.end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 14.0);
    checks::memory(&outcome);
    checks::no_gaps(&outcome);
    assert!(outcome.number("/Quality/ReducedRateSeconds") > 0.0, "{}", outcome.json);
    assert!(outcome.number("/Quality/FrameRate") < 29.0, "{}", outcome.json);
    checks::whole_sound(&outcome, &e);
    // Never a fast-forward: the clock of the file stays that of the page.
    assert!(checks::jumps(&e, FAST_FORWARD_MS).is_empty(), "{:?}", checks::jumps(&e, FAST_FORWARD_MS));
    // And back: the last pictures come as close as the first.
    let last: Vec<f64> = e.coded().iter().map(|(at, _)| *at).filter(|at| *at > 13.0).collect();
    assert!(last.len() >= 10, "only {} pictures in the last second", last.len());
}

#[test]
fn a_full_disk_keeps_what_was_recorded() {
    let stage = Stage::shared();
    // Segments of the clock page at this ceiling fill it after a few seconds.
    let disk = SmallDisk::mount(&stage.out(), 5).unwrap();
    let outcome = stage.record("animation.html", &["--duration", "20s", "--bitrate", "4000k"]).end();
    outcome.failed(&["space"]);
    assert_eq!(outcome.json["ErrorCode"], "UploadFailed");
    if outcome.file.exists() {
        let e = outcome.evidence();
        checks::container(&outcome, &e);
    } else {
        panic!("nothing was kept of what fitted: {}", outcome.err);
    }
    drop(disk);
}
