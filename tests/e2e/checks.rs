//! What every good recording must hold, and how exactly. Tolerances have names and reasons; nothing here asks how fast the machine is
//! unless the machine had CPU to spare.

use crate::judge::boxes::is_faststart;
use crate::judge::probe::{complaints, packets};
use crate::judge::sync::median;
use crate::judge::{Evidence, sync};
use crate::run::Outcome;
use serde_json::Value;
use std::path::Path;

/// Both tracks and the asked-for length: one picture at 30 a second and one AAC frame, rounded up.
pub const DURATION_SECONDS: f64 = 0.06;
/// What Chromium itself may merge without panorec seeing it: under load it draws two animation frames as one picture.
const MERGED_SHARE: f64 = 0.05;
/// A/V offset, median: the 20 ms that `make bench` holds, and 40 for a stage of Chromium's drawing that is late once in the middle of a
/// recording: it stays a picture late from then on (`browser/load.rs` has the story), and knows nothing of it.
pub const AV_OFFSET_MS: f64 = 60.0;
/// Added where flash and picture grid keep one phase for the whole recording: the flash is rounded to the nearest picture.
pub const AV_PHASE_MS: f64 = 17.0;
/// Added when the machine is not quiet: Chromium then shows pictures some slots after the instant it chose them for, and knows nothing
/// of it, so it does not hold the sound back. Four slots of 30 a second; 100 ms were seen with the machine overbooked four times.
const AV_BUSY_MS: f64 = 134.0;
/// A gap is listed this near to what is missing: the promise, and the picture that it is read from.
pub const GAP_SECONDS: f64 = 0.1 + 1.0 / 30.0;
/// Two medians of three or four flashes, each rounded to a picture, differ by up to half of one anyway.
const AV_SAME_MS: f64 = 20.0;
/// Jitter against the page's clock, p95: a picture that Chromium draws late belongs to a later slot, three at 30 a second. The tight
/// number, like the frame rate, is the benchmark's: a test machine may be busy.
const JITTER_MS: f64 = 100.0;
/// The 80 MB of the README at 1280×720.
const MEMORY_KB: u64 = 80 * 1024;
/// An AAC frame.
const AAC_SECONDS: f64 = 1024.0 / 48_000.0;

/// Container, codecs, times: what holds for any file that panorec finishes.
pub fn container(outcome: &Outcome, e: &Evidence) {
    container_of(&outcome.file, e);
}

/// The same of any file.
pub fn container_of(file: &Path, e: &Evidence) {
    assert!(is_faststart(&e.probe.boxes), "{:?}", e.probe.boxes);
    assert_eq!(complaints(file).unwrap(), "", "the file does not decode cleanly");
    let v = &e.probe.video;
    let a = &e.probe.audio;
    for (of, field, is) in [
        (v, "codec_name", "h264"),
        (v, "pix_fmt", "yuv420p"),
        (v, "color_space", "bt709"),
        (v, "color_range", "tv"),
        (v, "time_base", "1/90000"),
        (a, "codec_name", "aac"),
        (a, "profile", "LC"),
        (a, "sample_rate", "48000"),
    ] {
        assert_eq!(of[field], is, "{field}");
    }
    assert_eq!(v["has_b_frames"], 0);
    assert_eq!(a["channels"], 2);
    assert_eq!(e.probe.video_start, 0.0, "picture begins late");
    assert_eq!(e.probe.audio_start, 0.0, "sound begins late");
    let apart = (e.probe.video_duration - e.probe.audio_duration).abs();
    assert!(
        apart <= DURATION_SECONDS,
        "{} s of picture, {} s of sound",
        e.probe.video_duration,
        e.probe.audio_duration
    );
    let decoded = (e.sound_seconds - e.probe.audio_duration).abs();
    assert!(decoded <= DURATION_SECONDS, "{} s of sound decoded of {}", e.sound_seconds, e.probe.audio_duration);
    let last = e.pictures.last().expect("no pictures").pts;
    assert!(last < e.probe.video_duration + 0.001, "the last picture at {last} is cut off");
    let sound = packets(file, "a").unwrap();
    for w in sound.windows(2) {
        let step = w[1].0 - w[0].0;
        assert!((step - AAC_SECONDS).abs() < 0.0005, "sound jumps by {step} s at {} s", w[0].0);
    }
    assert!(packets(file, "v").unwrap()[0].2, "the first picture is no keyframe");
    e.in_order().unwrap();
}

/// The file is as long as asked for.
pub fn lasts(e: &Evidence, seconds: f64) {
    let off = (e.probe.duration - seconds).abs();
    assert!(off <= DURATION_SECONDS, "{} s instead of {seconds} s", e.probe.duration);
}

/// The final object says the same as the file.
pub fn said_truly(outcome: &Outcome, e: &Evidence) {
    let off = (outcome.number("/FileDuration") - e.probe.duration).abs();
    assert!(off < 0.01, "{} against {}", outcome.json, e.probe.duration);
    assert_eq!(outcome.number("/FileSize") as u64, std::fs::metadata(&outcome.file).unwrap().len());
    assert_eq!(outcome.json["Output"].as_str().map(Path::new), Some(outcome.file.as_path()));
    for timing in ["LoadMs", "FirstFrameMs", "FinishMs"] {
        assert!(outcome.number(&format!("/Timings/{timing}")) >= 0.0);
    }
}

/// Every picture the page drew is in the file or counted as dropped; the clock of the file is the page's.
pub fn pictures(outcome: &Outcome, e: &Evidence, rate: f64) {
    let r = e.report();
    let coded = e.coded();
    assert!(coded.len() > 10, "only {} pictures have a code: {r:?}", coded.len());
    let unreadable = e.pictures.iter().filter(|p| p.code.is_none()).count();
    assert_eq!(unreadable, 0, "pictures without a code: {r:?}");
    let dropped = outcome.number("/Quality/FramesDropped");
    let merged = (coded.len() as f64 * MERGED_SHARE).ceil();
    assert!(f64::from(r.lost_frames) <= dropped + merged, "{} pictures lost, {dropped} admitted: {r:?}", r.lost_frames);
    let jitter = r.jitter_p95_ms.unwrap();
    assert!(jitter <= JITTER_MS, "jitter {jitter} ms with {:.2} of the machine idle: {r:?}", outcome.spare);
    let told = outcome.number("/Quality/FrameRate");
    let distinct = r.distinct_frame_rate.unwrap();
    assert!((told - distinct).abs() < 1.5, "{told} told, {distinct} in the file: {r:?}");
    assert!(distinct <= rate * 1.02, "more pictures than asked for: {r:?}");
}

/// Sound and picture are together, and the sound is whole.
pub fn sound(outcome: &Outcome, e: &Evidence, allowed_ms: f64) {
    let r = e.report();
    let due = (e.probe.duration / 1.04).floor() - 2.0;
    assert!(e.pairs().len() as f64 >= due.max(2.0), "flashes or beeps are missing: {r:?}");
    in_step(outcome, r.av_offset_ms.unwrap(), allowed_ms);
    whole_sound(outcome, e);
}

/// The bed tone has no holes that are not admitted as underruns, but for those that Chromium makes before the sound reaches us.
pub fn whole_sound(outcome: &Outcome, e: &Evidence) {
    /// A player that starts stutters once in a while.
    const STARTED: f64 = 1.0;
    /// Chromium's audio service puts in zeros when a renderer is late, and tells nobody.
    const CHROMIUMS_OWN: usize = 2;
    let holes = e.bed_holes.as_ref().expect("the bed tone is missing");
    let later = holes.iter().filter(|(at, _)| *at > STARTED).count();
    let own = if outcome.quiet() { 0 } else { CHROMIUMS_OWN };
    let underruns = outcome.number("/Quality/Underruns");
    assert!(later as f64 <= underruns + own as f64, "{holes:?}, {underruns} underruns admitted");
}

/// The page's own estimate is free of rounding to pictures.
pub fn sound_by_clock(outcome: &Outcome, e: &Evidence) {
    in_step(outcome, e.report().av_offset_by_clock_ms.unwrap(), AV_OFFSET_MS);
}

/// An A/V offset is within what is promised.
pub fn in_step(outcome: &Outcome, offset_ms: f64, allowed_ms: f64) {
    let allowed = allowed_ms + if outcome.quiet() { 0.0 } else { AV_BUSY_MS };
    assert!(offset_ms.abs() <= allowed, "A/V offset {offset_ms} ms with {:.2} of the machine idle", outcome.spare);
}

/// The A/V offset is the same after something happened as before, and within what is promised.
pub fn still_in_step(outcome: &Outcome, before_ms: f64, after_ms: f64, allowed_ms: f64) {
    in_step(outcome, before_ms, allowed_ms);
    in_step(outcome, after_ms, allowed_ms);
    let allowed = AV_SAME_MS + if outcome.quiet() { 0.0 } else { AV_BUSY_MS };
    let off = (before_ms - after_ms).abs();
    assert!(off <= allowed, "{before_ms} ms before, {after_ms} ms after, {:.2} of the machine idle", outcome.spare);
}

/// panorec itself stays small.
pub fn memory(outcome: &Outcome) {
    assert!(outcome.peak_kb <= MEMORY_KB, "{} kB", outcome.peak_kb);
}

/// Nothing is missing from the file.
pub fn no_gaps(outcome: &Outcome) {
    assert!(outcome.list("/Quality/Gaps").is_empty(), "{}", outcome.json);
}

/// Everything that holds for an ordinary recording of a page with code, flash and beep.
pub fn ordinary(outcome: &Outcome, e: &Evidence, seconds: f64, allowed_ms: f64) {
    container(outcome, e);
    lasts(e, seconds);
    said_truly(outcome, e);
    pictures(outcome, e, 30.0);
    sound(outcome, e, allowed_ms);
    no_gaps(outcome);
}

/// Median offset of the pairs whose flash lies within a stretch of the file, ms.
pub fn offset_between(e: &Evidence, from: f64, to: f64) -> f64 {
    let pairs = e.pairs();
    let inside: Vec<f64> = pairs.iter().filter(|p| (from..to).contains(&p.flash)).map(|p| p.offset * 1000.0).collect();
    median(&inside).unwrap_or_else(|| panic!("no flash with a beep from {from} to {to} s: {pairs:?}"))
}

/// Where wall time is missing: file position and length of every jump of the page's clock beyond `least` ms.
pub fn jumps(e: &Evidence, least: f64) -> Vec<(f64, f64)> {
    let coded = e.coded();
    let lags = sync::lags(&coded);
    let steps = coded.windows(2).zip(lags.windows(2));
    steps.filter(|(_, l)| l[0] - l[1] > least).map(|(c, l)| (c[1].0, (l[0] - l[1]) / 1000.0)).collect()
}

/// What is missing at one place of the file, by the page's clock.
#[derive(Debug)]
pub struct Missing {
    /// File position.
    pub at: f64,
    /// How much, judged by all pictures on either side: a single one may be late.
    pub seconds: f64,
    /// What the last picture before says.
    pub last_ms: u32,
    /// What the first one after says.
    pub next_ms: u32,
}

/// Where the page's clock jumps by more than `least` ms.
pub fn missing(e: &Evidence, least: f64) -> Vec<Missing> {
    let coded = e.coded();
    let lags = sync::lags(&coded);
    let mut cuts: Vec<usize> = (1..lags.len()).filter(|i| lags[i - 1] - lags[*i] > least).collect();
    cuts.push(lags.len());
    let middle = |from: usize, to: usize| median(&lags[from..to]).unwrap();
    let mut begin = 0;
    let mut found = Vec::new();
    for ends in cuts.windows(2) {
        let seconds = (middle(begin, ends[0]) - middle(ends[0], ends[1])) / 1000.0;
        let (last, (at, next)) = (coded[ends[0] - 1].1, coded[ends[0]]);
        found.push(Missing { at, seconds, last_ms: last.wall_ms, next_ms: next.wall_ms });
        begin = ends[0];
    }
    found
}

/// What is missing where `crash.html` was loaded anew is listed there, as long as it was, and nothing else is listed or missing.
pub fn crashes_are_listed(e: &Evidence, gaps: &[Value]) {
    /// The page's clock jumps by more only where it was gone, however busy the machine is.
    const GONE_MS: f64 = 1500.0;
    /// The gap is told in grid steps and seen in pictures.
    const NEAR: f64 = 0.5;
    let coded = e.coded();
    let loads = coded.windows(2).filter(|w| w[0].1.stage != w[1].1.stage);
    let missing = loads.map(|w| {
        let wall = f64::from(w[1].1.wall_ms.wrapping_sub(w[0].1.wall_ms)) / 1000.0;
        (w[1].0, wall - (w[1].0 - w[0].0))
    });
    let missing: Vec<_> = missing.collect();
    let told = |gap: &Value, field: &str| gap[field].as_f64().unwrap();
    let near = |gap: &Value, at: f64| (told(gap, "Start") - at).abs() < NEAR;
    for (at, seconds) in &missing {
        // A page that crashed again before it was seen has more than one.
        let listed: f64 = gaps.iter().filter(|gap| near(gap, *at)).map(|gap| told(gap, "Duration")).sum();
        assert!((listed - seconds).abs() < NEAR, "{seconds} s missing at {at} s, listed: {gaps:?}");
    }
    let jumps = self::missing(e, GONE_MS);
    let unlisted = jumps.iter().find(|jump| !gaps.iter().any(|gap| near(gap, jump.at)));
    assert!(unlisted.is_none(), "{unlisted:?} is not listed: {gaps:?}");
    let unseen = gaps.iter().find(|gap| !missing.iter().any(|(at, _)| near(gap, *at)));
    assert!(unseen.is_none() && gaps.iter().all(|gap| gap["Reason"] == "PageCrash"), "seen: {missing:?}, {gaps:?}");
}
