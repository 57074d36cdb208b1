//! Recordings that are started, paused, reloaded and ended from outside or by the page itself.

use crate::checks::{self, AV_OFFSET_MS, AV_PHASE_MS};
use crate::judge::Evidence;
use crate::judge::picture::Colours;
use crate::run::Stage;
use std::time::Duration;

const SIZE: (usize, usize) = (1280, 720);
const RED: [u8; 3] = [255, 0, 0];
/// From Ctrl-C to a finished file: the promise of the README, for a quiet machine.
const FINISH_QUIET: Duration = Duration::from_secs(1);
/// And for a busy one: more means that the work grows with something.
const FINISH_BUSY: Duration = Duration::from_secs(6);
fn never_red(file: &std::path::Path) {
    for (k, shown) in Colours::steadily(file, SIZE, 10).unwrap().iter().enumerate() {
        let share = shown.share((700, 300, 500, 300), RED, 60);
        assert!(share < 0.01, "red at {} s", k as f64 / 10.0);
    }
}

#[test]
fn ctrl_c_gives_a_complete_file() {
    let stage = Stage::new();
    let mut recording = stage.record("clock.html", &[]);
    recording.until_page("clock.html", Duration::from_secs(6));
    recording.interrupt();
    let outcome = recording.end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::said_truly(&outcome, &e);
    checks::pictures(&outcome, &e, 30.0);
    checks::sound(&outcome, &e, AV_OFFSET_MS + AV_PHASE_MS);
    assert_eq!(outcome.json["StopReason"], "interrupted");
    assert!(e.probe.duration > 2.0, "{} s", e.probe.duration);
    let took = outcome.finished_after.unwrap();
    let allowed = if outcome.quiet() { FINISH_QUIET } else { FINISH_BUSY };
    assert!(took <= allowed, "finished after {took:?} with {:.2} of the machine idle", outcome.spare);
}

#[test]
fn ctrl_c_before_the_page_is_there_ends_at_once_and_says_so() {
    let stage = Stage::shared();
    let mut recording = stage.record("never", &[]);
    recording.until_page("never", Duration::from_millis(500));
    recording.interrupt();
    let outcome = recording.end();
    // Nothing went wrong: the user changed his mind. But there is no file, and he must not look for one.
    assert_eq!(outcome.json["StopReason"], "interrupted");
    assert!(outcome.err.contains("no file"), "{}", outcome.err);
    assert!(!outcome.file.exists());
}

#[test]
fn a_page_starts_its_recording_itself() {
    let stage = Stage::shared();
    let outcome = stage.record("manual.html", &["--duration", "4s", "--manual-start"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 4.0);
    never_red(&outcome.file);
    assert!(e.coded().iter().all(|(_, c)| c.stage == 1), "pictures from before startRecord");
}

#[test]
fn a_page_that_never_starts_its_recording_fails_in_time() {
    let stage = Stage::aside();
    let outcome = stage.record("clock.html", &["--duration", "4s", "--manual-start", "--ready-timeout", "2s"]).end();
    outcome.failed(&["startRecord", "2"]);
    assert_eq!(outcome.json["ErrorCode"], "PageNotReady");
    assert!(!outcome.file.exists());
}

/// Records a page that pauses and resumes. Whether the machine was busy and the sound has a hole where the ends meet.
fn pause_with_a_hole(stage: &Stage) -> bool {
    /// The page's two calls reach the recorder within this on a busy machine; on a quiet one within a picture or two.
    const NEAR: f64 = 0.5;
    let outcome = stage.record("pause.html", &["--duration", "8s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 8.0);
    checks::no_gaps(&outcome);
    checks::whole_sound(&outcome, &e);
    never_red(&outcome.file);
    let jumps = checks::jumps(&e, 500.0);
    assert_eq!(jumps.len(), 1, "{jumps:?}");
    let (at, missing) = jumps[0];
    assert!((missing - 2.0).abs() < NEAR, "{missing} s are missing of a pause of 2 s");
    // Neither a frozen picture nor a hole in the sound.
    let around: Vec<f64> = e.pictures.iter().map(|p| p.pts).filter(|t| (t - at).abs() < 0.5).collect();
    assert!(around.windows(2).all(|w| w[1] - w[0] < 0.6), "a frozen span around {at} s: {around:?}");
    let (before, after) = (checks::offset_between(&e, 0.0, at), checks::offset_between(&e, at + 0.3, 8.0));
    checks::still_in_step(&outcome, before, after, AV_OFFSET_MS + AV_PHASE_MS);
    let holes = e.bed_holes.clone().unwrap();
    let whole = !holes.iter().any(|(t, _)| (t - at).abs() < 0.2);
    assert!(whole || !outcome.quiet(), "a hole at the splice at {at} s: {holes:?}");
    !whole
}

#[test]
fn a_pause_leaves_no_trace() {
    /// What a busy Chromium leaves out falls on the splice by chance, what panorec leaves out falls there each time.
    const TRIES: u32 = 3;
    let stage = Stage::new();
    assert!((0..TRIES).any(|_| !pause_with_a_hole(&stage)), "a hole at the splice each time");
}

#[test]
fn a_reload_keeps_sound_and_picture_together() {
    let stage = Stage::new();
    let outcome = stage.record("reload.html", &["--duration", "10s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 10.0);
    let coded = e.coded();
    let at = coded.iter().find(|(_, c)| c.stage == 1).expect("never reloaded").0;
    assert!(coded[0].1.stage == 0 && at > 2.0, "reloaded at {at} s");
    assert!(stage.server.asked("reload.html") == 2, "loaded {} times", stage.server.asked("reload.html"));
    let (before, after) = (checks::offset_between(&e, 0.0, at), checks::offset_between(&e, at + 0.5, 10.0));
    checks::still_in_step(&outcome, before, after, AV_OFFSET_MS);
    // Picture time goes on as wall time does: a reload is no pause.
    assert!(checks::jumps(&e, 150.0).is_empty(), "{:?}", checks::jumps(&e, 150.0));
}

#[test]
fn a_page_ends_its_recording_itself() {
    let stage = Stage::shared();
    let outcome = stage.record("stop.html", &["--duration", "20s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    assert_eq!(outcome.json["StopReason"], "page");
    let told = stage.server.notes();
    assert!(told.iter().any(|(_, n)| n == "stop"), "{told:?}");
    assert!(told.iter().any(|(_, n)| n == "stopped"), "the callback was never called: {told:?}");
    assert!((1.5..6.0).contains(&e.probe.duration), "{} s", e.probe.duration);
}

#[test]
fn a_killed_panorec_leaves_no_process_and_what_makes_a_file() {
    let stage = Stage::shared();
    let mut recording = stage.record("clock.html", &[]);
    recording.until_page("clock.html", Duration::from_secs(6));
    assert!(recording.children("").len() > 3, "Chromium and FFmpeg are not running");
    recording.kill();
    recording.end_by_force();
    let left = stage.out().join(".film.mp4.panorec");
    stage.run(&["assemble", left.to_str().unwrap(), "--output", stage.file().to_str().unwrap()]);
    let e = Evidence::of(&stage.file()).unwrap();
    checks::container_of(&stage.file(), &e);
    // Only what was still in the encoder is lost: a segment is 1.6 s.
    assert!(e.probe.duration > 2.0, "only {} s were saved", e.probe.duration);
}
