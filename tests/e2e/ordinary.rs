//! Ordinary pages, recorded as they happened.

use crate::checks::{self, AV_OFFSET_MS, AV_PHASE_MS};
use crate::judge::picture::{Area, Colours};
use crate::judge::sound::Sound;
use crate::run::Stage;

/// A WebRTC call plays late what arrives late: its own jitter buffers keep lips and voice together to this (ITU-R BT.1359's threshold of
/// acceptance is 90 to 185 ms; Chromium's synchroniser corrects what is more than 30), on top of what panorec adds.
const CALL_MS: f64 = AV_OFFSET_MS + AV_PHASE_MS + 45.0;

#[test]
fn a_page_with_flash_and_beep_is_recorded_as_it_happened() {
    let stage = Stage::new();
    let outcome = stage.record("clock.html", &["--duration", "8s"]).end();
    let e = outcome.good();
    checks::ordinary(&outcome, &e, 8.0, AV_OFFSET_MS + AV_PHASE_MS);
    checks::sound_by_clock(&outcome, &e);
    checks::memory(&outcome);
    assert_eq!(outcome.json["StopReason"], "duration");
    assert_eq!((e.probe.width, e.probe.height), (1280, 720));
    let told = outcome.number("/Quality/AvOffsetMs");
    assert!(told.abs() <= AV_OFFSET_MS, "{}", outcome.json);
}

#[test]
fn a_video_element_keeps_step_with_its_sound() {
    let stage = Stage::new();
    let outcome = stage.record("av-video.html", &["--duration", "8s"]).end();
    checks::ordinary(&outcome, &outcome.good(), 8.0, AV_OFFSET_MS);
}

#[test]
fn several_videos_are_all_seen_and_all_heard() {
    let stage = Stage::new();
    let outcome = stage.record("three-videos.html", &["--duration", "8s"]).end();
    let e = outcome.good();
    checks::ordinary(&outcome, &e, 8.0, AV_OFFSET_MS + AV_PHASE_MS);
    let sound = Sound::read(&outcome.file).unwrap();
    for (hz, gain) in [(440.0, 0.05), (300.0, 0.1), (500.0, 0.1)] {
        let level = sound.level(hz);
        assert!((level - gain).abs() < gain * 0.3, "{hz} Hz has {level} instead of {gain}");
    }
}

#[test]
fn a_call_inside_the_page_is_seen_and_heard_over_the_wire() {
    let stage = Stage::new();
    let outcome = stage.record("webrtc.html", &["--duration", "10s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 10.0);
    // The far picture is coded twice, by a codec that may give up detail: what can be read must be plenty and in order.
    let r = e.report();
    assert!(r.coded_frames as f64 > e.probe.duration * 5.0, "{r:?}");
    assert!(e.coded().iter().all(|(_, c)| c.stage <= 1), "{r:?}");
    let offset = checks::offset_between(&e, 3.0, 10.0);
    checks::in_step(&outcome, offset, CALL_MS);
    assert!(e.bed_holes.is_some(), "the far sound is missing: {r:?}");
}

/// A whole recording at another size; short, since every pixel costs.
fn at_size(width: usize, height: usize) {
    let stage = Stage::new();
    let (w, h) = (width.to_string(), height.to_string());
    let outcome = stage.record("clock.html", &["--duration", "4s", "--width", &w, "--height", &h]).end();
    let e = outcome.good();
    assert_eq!((e.probe.width, e.probe.height), (width, height));
    checks::container(&outcome, &e);
    checks::lasts(&e, 4.0);
    checks::said_truly(&outcome, &e);
    checks::no_gaps(&outcome);
    let r = e.report();
    assert!(r.coded_frames > 10 && e.pairs().len() >= 2, "{r:?}");
    assert!(e.pictures.iter().all(|p| p.code.is_some()), "{r:?}");
}

#[test]
fn full_hd_is_recorded() {
    at_size(1920, 1080);
}

#[test]
fn a_portrait_picture_is_recorded() {
    at_size(720, 1280);
}

#[test]
fn the_largest_picture_is_recorded() {
    at_size(2560, 2560);
}

#[test]
fn fifteen_pictures_a_second_lie_on_their_grid() {
    let stage = Stage::new();
    let outcome = stage.record("clock.html", &["--duration", "4s", "--fps", "15"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 4.0);
    checks::pictures(&outcome, &e, 15.0);
    for p in &e.pictures {
        let slot = p.pts * 15.0;
        assert!((slot - slot.round()).abs() < 0.01, "a picture at {} s", p.pts);
    }
}

#[test]
fn a_page_that_stands_still_costs_few_pictures_and_no_time() {
    /// One a second and one at each of the four segment starts, the first and the last, and what the page draws until it is laid out.
    const MOST: usize = 30;
    let stage = Stage::shared();
    let outcome = stage.record("static.html", &["--duration", "6s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::lasts(&e, 6.0);
    checks::said_truly(&outcome, &e);
    assert!(e.pictures.len() <= MOST, "{} pictures", e.pictures.len());
    for seconds in [0.0, 5.9] {
        let shown = Colours::at(&outcome.file, (1280, 720), seconds).unwrap();
        let paper = shown.share((0, 0, 1280, 720), [0xfd, 0xfc, 0xf8], 6);
        assert!((0.7..0.97).contains(&paper), "at {seconds} s {paper} of the picture is paper: the slide is not there");
    }
}

#[test]
fn silence_and_blankness_are_reported() {
    let stage = Stage::shared();
    let outcome = stage.record("blank.html", &["--duration", "7s"]).end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    assert!(e.beeps.is_empty() && e.silences.len() == 1, "{:?}", e.silences);
    for what in ["Silent", "Blank"] {
        let list = outcome.list(&format!("/Quality/{what}"));
        assert_eq!(list.len(), 1, "{what}: {}", outcome.json);
        let length = list[0]["Duration"].as_f64().unwrap();
        assert!((5.0..=7.1).contains(&length), "{what}: {}", outcome.json);
    }
}

#[test]
fn webgl_is_drawn() {
    let stage = Stage::shared();
    let outcome = stage.record("webgl.html", &["--duration", "3s"]).end();
    checks::container(&outcome, &outcome.good());
    let shown = Colours::at(&outcome.file, (1280, 720), 2.5).unwrap();
    let quadrants: [(Area, [u8; 3]); 4] = [
        ((110, 210, 180, 180), [255, 0, 0]),
        ((310, 210, 180, 180), [0, 255, 0]),
        ((110, 410, 180, 180), [0, 0, 255]),
        ((310, 410, 180, 180), [255, 255, 255]),
    ];
    for (area, colour) in quadrants {
        let share = shown.share(area, colour, 40);
        assert!(share > 0.95, "{share} of {area:?} is {colour:?}");
    }
}

#[test]
fn chinese_japanese_korean_and_emoji_are_not_boxes() {
    /// Two glyphs differ by more; the same glyph drawn twice by less.
    const DIFFERENT: f64 = 6.0;
    const CELL: usize = 80;
    let stage = Stage::shared();
    let outcome = stage.record("glyphs.html", &["--duration", "3s"]).end();
    checks::container(&outcome, &outcome.good());
    let shown = Colours::at(&outcome.file, (1280, 720), 2.5).unwrap();
    let cell = |column: usize, row: usize| (40 + column * CELL, 160 + row * CELL, CELL, CELL);
    assert!(shown.difference(cell(0, 0), cell(1, 0)) < DIFFERENT, "two missing glyphs look alike");
    let all: Vec<Area> = (1..4).flat_map(|row| (0..8).map(move |c| (c, row))).map(|(c, r)| cell(c, r)).collect();
    for (i, a) in all.iter().enumerate() {
        let box_off = shown.difference(*a, cell(0, 0));
        assert!(box_off > DIFFERENT, "cell {i} looks like a missing glyph ({box_off:.1})");
        for (j, b) in all.iter().enumerate().skip(i + 1) {
            let off = shown.difference(*a, *b);
            assert!(off > DIFFERENT, "cells {i} and {j} look alike ({off:.1})");
        }
    }
    for column in 0..8 {
        let colour = shown.colourful(cell(column, 3));
        assert!(colour > 0.05, "emoji {column} has no colour ({colour:.2})");
    }
}
