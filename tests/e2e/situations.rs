//! Pages that do what pages do to whoever records them: dialogs, windows, popups, crashes, slow loading.

use crate::cdp;
use crate::checks;
use crate::judge::Evidence;
use crate::judge::picture::Colours;
use crate::run::{Outcome, Recording, Stage};
use std::time::Duration;

const SIZE: (usize, usize) = (1280, 720);
/// The page runs and its first second is in the file.
const SETTLED: Duration = Duration::from_millis(1500);
/// A page that goes on draws at least this often, whatever else the machine does: longer without a new picture means it stood still.
const STOOD_STILL: f64 = 1.0;

/// Attaches a DevTools client of our own to the recorded page.
fn devtools(recording: &mut Recording, page: &str) -> cdp::Page {
    let mut attached = None;
    recording.until(
        |r| {
            let browser = r.children("--user-data-dir=").into_iter().find_map(cdp::port);
            attached = browser.and_then(|port| cdp::Page::attach(port, page));
            attached.is_some()
        },
        "a DevTools connection",
    );
    attached.unwrap()
}

/// Records a page and runs a script in it with a user's gesture after a while.
fn with_gesture(stage: &Stage, page: &str, script: &str, seconds: &str) -> Outcome {
    let mut recording = stage.record(page, &["--duration", seconds]);
    recording.until_page(page, SETTLED);
    let answer = devtools(&mut recording, page).gesture(script);
    let outcome = recording.end();
    let answer = answer.unwrap_or_else(|| panic!("no answer to `{script}`"));
    assert!(answer.get("exceptionDetails").is_none(), "`{script}`: {answer}");
    outcome
}

/// Records the page of form controls and clicks on one.
fn with_click(stage: &Stage, at: (u32, u32)) -> Outcome {
    let mut recording = stage.record("select.html", &["--duration", "5s"]);
    recording.until_page("select.html", SETTLED);
    let clicked = devtools(&mut recording, "select.html").click(at);
    let outcome = recording.end();
    clicked.expect("the click was not answered");
    outcome
}

/// The page reached a stage and went on drawing to the end.
fn went_on(e: &Evidence, stage: u8) {
    let coded = e.coded();
    let reached = coded.iter().find(|(_, c)| c.stage == stage);
    let since = reached.unwrap_or_else(|| panic!("stage {stage} was never shown")).0;
    for w in coded.windows(2) {
        assert!(w[1].0 - w[0].0 < STOOD_STILL, "the page stood still from {} to {} s", w[0].0, w[1].0);
    }
    let last = coded.last().unwrap();
    assert_eq!(last.1.stage, stage, "the page ended elsewhere");
    assert!(last.0 > e.probe.duration - STOOD_STILL, "nothing after {} s", last.0);
    assert!(last.0 - since > 0.3, "stage {stage} came only at {since} s: nothing is proved");
}

/// Colour that only what must never be seen has.
const MAGENTA: [u8; 3] = [255, 0, 255];

fn never_magenta(outcome: &Outcome) {
    for (k, shown) in Colours::steadily(&outcome.file, SIZE, 4).unwrap().iter().enumerate() {
        let share = shown.share((0, 0, SIZE.0, SIZE.1), MAGENTA, 60);
        assert!(share < 0.001, "another window is in the picture at {} s", k as f64 / 4.0);
    }
}

#[test]
fn a_slow_page_is_recorded_from_its_own_first_picture() {
    let stage = Stage::shared();
    let outcome = stage.record("slow.html", &["--duration", "3s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 3.0);
    let first = Colours::at(&outcome.file, SIZE, 0.0).unwrap();
    let green = first.share((0, 300, 600, 400), [0, 0x66, 0x33], 30);
    let blue = first.share((710, 210, 380, 380), [0, 0, 255], 60);
    assert!(green > 0.95, "the first picture is not the loaded page: {green} green");
    assert!(blue > 0.95, "the first picture lacks the slow image: {blue} blue");
    assert!(outcome.number("/Timings/LoadMs") >= 2000.0, "{}", outcome.json);
}

#[test]
fn dialogs_are_answered_and_not_seen() {
    let stage = Stage::shared();
    let outcome = stage.record("alert.html", &["--duration", "5s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 5.0);
    went_on(&e, 1);
}

#[test]
fn a_page_that_asks_before_it_is_left_is_left() {
    let stage = Stage::shared();
    let mut recording = stage.record("beforeunload.html", &["--duration", "6s"]);
    // At once: the gesture must come before the page leaves.
    recording.until_page("beforeunload.html", Duration::ZERO);
    devtools(&mut recording, "beforeunload.html").gesture("1").unwrap();
    let outcome = recording.end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    let asked = stage.server.notes().iter().any(|(_, n)| n == "beforeunload");
    assert!(asked, "the page never asked");
    went_on(&e, 1);
}

#[test]
fn a_tab_opened_by_the_page_does_not_stop_it() {
    let stage = Stage::shared();
    let outcome = with_gesture(&stage, "open-tab.html", "openIt()", "6s");
    let e = outcome.good();
    checks::container(&outcome, &e);
    went_on(&e, 1);
    never_magenta(&outcome);
}

#[test]
fn a_window_opened_by_the_page_is_not_recorded() {
    let stage = Stage::shared();
    let outcome = with_gesture(&stage, "open-popup.html", "openIt()", "6s");
    let e = outcome.good();
    checks::container(&outcome, &e);
    went_on(&e, 1);
    never_magenta(&outcome);
}

#[test]
fn the_list_of_a_select_is_seen() {
    let stage = Stage::shared();
    let outcome = with_click(&stage, (200, 272));
    let e = outcome.good();
    checks::container(&outcome, &e);
    went_on(&e, 1);
    // Below (or, if Chromium chose so, above) the closed control at (100, 260).
    let shown = Colours::at(&outcome.file, SIZE, e.probe.duration - 0.2).unwrap();
    let share = shown.share((100, 112, 200, 330), MAGENTA, 60);
    assert!(share > 0.1, "{share} of the place is the list");
}

#[test]
fn the_calendar_of_a_date_field_is_seen() {
    /// Mean change of the place where the calendar opens; a cursor or a focus ring changes less than 2.
    const CHANGED: f64 = 10.0;
    let stage = Stage::shared();
    let outcome = with_click(&stage, (520, 272));
    let e = outcome.good();
    checks::container(&outcome, &e);
    went_on(&e, 2);
    let at = |seconds| Colours::at(&outcome.file, SIZE, seconds).unwrap();
    let changed = at(0.0).changed(&at(e.probe.duration - 0.2), (500, 300, 200, 200));
    assert!(changed > CHANGED, "{changed}");
}

#[test]
fn full_screen_is_the_page_alone() {
    let stage = Stage::shared();
    let outcome = with_gesture(&stage, "fullscreen.html", "enter()", "5s");
    let e = outcome.good();
    checks::container(&outcome, &e);
    went_on(&e, 1);
    let entered = e.coded().iter().find(|(_, c)| c.stage == 1).unwrap().0;
    for seconds in [entered + 0.5, e.probe.duration - 0.1] {
        let shown = Colours::at(&outcome.file, SIZE, seconds).unwrap();
        // All below the code: the browser's hint on how to leave would be in the upper half.
        let green = shown.share((0, 114, 1280, 606), [0, 0xaa, 0], 30);
        assert!(green > 0.995, "{green} of the picture is the page at {seconds} s");
    }
}

/// The page is back after a crash, and the span is listed and true.
fn came_back(outcome: &Outcome) {
    let e = outcome.good();
    checks::container(outcome, &e);
    let coded = e.coded();
    assert!(coded.iter().any(|(_, c)| c.stage == 1), "nothing from before the crash");
    assert_eq!(coded.last().unwrap().1.stage, 2, "the page did not come back");
    let gaps = outcome.list("/Quality/Gaps");
    assert_eq!(gaps.len(), 1, "{}", outcome.json);
    checks::crashes_are_listed(&e, &gaps);
}

#[test]
fn a_crashed_tab_comes_back_and_the_gap_is_listed() {
    let stage = Stage::shared();
    let mut recording = stage.record("crash.html", &["--duration", "9s"]);
    recording.until_page("crash.html", SETTLED);
    devtools(&mut recording, "crash.html").crash();
    recording.until(|r| r.asked("crash.html") > 1, "the page is loaded again");
    came_back(&recording.end());
}

#[test]
fn a_killed_browser_comes_back_and_the_gap_is_listed() {
    let stage = Stage::shared();
    let mut recording = stage.record("crash.html", &["--duration", "9s"]);
    recording.until_page("crash.html", SETTLED);
    recording.kill_child("--user-data-dir=");
    recording.until(|r| r.asked("crash.html") > 1, "the page is loaded again");
    came_back(&recording.end());
}
