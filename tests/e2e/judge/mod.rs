//! The judge: says from a finished file alone what it holds.
//!
//! It decodes with FFmpeg and trusts nothing that the recorder said. The pages in `tests/pages` carry what it looks for: a bar code with
//! frame counter and clock, a flash, a beep, a bed tone. It measures and never decides: tolerances belong to the tests. It is used by the
//! end-to-end tests and, as `examples/judge.rs`, by `make record` and `make bench`.

pub mod boxes;
pub mod code;
pub mod picture;
pub mod probe;
pub mod sound;
pub mod sync;
pub mod tools;

use code::{Code, Place};
use picture::Picture;
use probe::Probe;
use serde::Serialize;
use sound::{Sound, Stretch};
use std::path::Path;
use sync::Pair;
use tools::Res;

/// Everything that was decoded, for tests that ask more than the summary.
pub struct Evidence {
    /// Containers and streams.
    pub probe: Probe,
    /// Where the bar code is, if there is one.
    pub place: Option<Place>,
    /// Every picture.
    pub pictures: Vec<Picture>,
    /// Onsets of beeps, seconds.
    pub beeps: Vec<f64>,
    /// Holes of the bed tone; `None` without a bed.
    pub bed_holes: Option<Vec<Stretch>>,
    /// Stretches without sound.
    pub silences: Vec<Stretch>,
    /// Length of the decoded sound, seconds.
    pub sound_seconds: f64,
}

/// Where another browser goes on, its page may be drawn a picture later than the one before; on a busy machine Chromium shows pictures up to
/// four slots of 30 a second late (43 ms were seen at a seam).
const OTHER_BROWSER_MS: u32 = 134;
/// A hole of the bed tone shorter than this is not heard and not told apart from a beep's edge.
const SHORTEST_HOLE: f64 = 0.010;
/// A silence shorter than this is a pause between words.
const SHORTEST_SILENCE: f64 = 0.5;

impl Evidence {
    /// Decodes a file.
    pub fn of(path: &Path) -> Res<Self> {
        let probe = Probe::of(path)?;
        let (place, pictures) = picture::read(path, probe.width)?;
        let sound = Sound::read(path)?;
        Ok(Self {
            place,
            pictures,
            beeps: sound.beeps(),
            bed_holes: sound.bed_holes(SHORTEST_HOLE),
            silences: sound.silences(SHORTEST_SILENCE),
            sound_seconds: sound.seconds(),
            probe,
        })
    }

    /// Pictures with a code, the first of each counter only.
    pub fn coded(&self) -> Vec<(f64, Code)> {
        sync::coded(&self.pictures)
    }

    /// Flashes with their beeps.
    pub fn pairs(&self) -> Vec<Pair> {
        sync::pairs(&sync::flashes(&self.pictures), &self.beeps)
    }

    /// Pictures with a code that show what the one before them showed.
    pub fn duplicates(&self) -> Vec<f64> {
        let coded: Vec<&Picture> = self.pictures.iter().filter(|p| p.code.is_some()).collect();
        let same = |w: &&[&Picture]| w[0].code.map(|c| c.counter) == w[1].code.map(|c| c.counter);
        coded.windows(2).filter(same).map(|w| w[1].pts).collect()
    }

    /// Pictures that the page drew between the first and the last one in the file, and that are not in it.
    pub fn lost(&self) -> u32 {
        self.coded().windows(2).map(|w| step(&w[0].1, &w[1].1)).sum()
    }

    /// Whether counters and time stamps only ever grow. A reload begins a new count, and another browser may be a little late.
    pub fn in_order(&self) -> Result<(), String> {
        for w in self.pictures.windows(2) {
            if w[1].pts <= w[0].pts {
                return Err(format!("time stamp {} after {}", w[1].pts, w[0].pts));
            }
        }
        for w in self.coded().windows(2) {
            let ((at, a), (_, b)) = (w[0], w[1]);
            let other = b.stage != a.stage;
            let back = a.wall_ms.wrapping_sub(b.wall_ms);
            let allowed = if other { OTHER_BROWSER_MS } else { 0 };
            if (allowed + 1..u32::MAX / 2).contains(&back) || (b.counter < a.counter && !other) {
                return Err(format!("after {at:.3} s {b:?} follows {a:?}"));
            }
        }
        Ok(())
    }

    /// The summary.
    pub fn report(&self) -> Report {
        let coded = self.coded();
        let span = match (coded.first(), coded.last()) {
            (Some((a, _)), Some((b, _))) if b > a => Some(b - a),
            _ => None,
        };
        let pairs = self.pairs();
        let ms = |s: f64| s * 1000.0;
        let offsets: Vec<f64> = pairs.iter().map(|p| p.offset).collect();
        let by_clock = sync::offsets_by_clock(&self.pictures, &self.beeps);
        Report {
            duration: self.probe.duration,
            video_duration: self.probe.video_duration,
            audio_duration: self.probe.audio_duration,
            width: self.probe.width,
            height: self.probe.height,
            frames: self.pictures.len(),
            frame_rate: self.pictures.len() as f64 / self.probe.video_duration.max(0.001),
            coded_frames: coded.len(),
            distinct_frame_rate: span.map(|s| (coded.len() - 1) as f64 / s),
            duplicates: self.duplicates().len(),
            lost_frames: self.lost(),
            jitter_p95_ms: sync::jitter_p95(&sync::lags(&coded)),
            flashes: sync::flashes(&self.pictures).len(),
            beeps: self.beeps.len(),
            av_offset_ms: sync::median(&offsets).map(ms),
            av_pairs: pairs.iter().map(|p| (p.flash, ms(p.offset))).collect(),
            av_offset_by_clock_ms: sync::median(&by_clock).map(ms),
            av_drift_ms_per_minute: sync::drift(&pairs).map(|d| d * 60_000.0),
            bed_holes: self.bed_holes.clone(),
            silences: self.silences.clone(),
        }
    }
}

/// Pictures missing between two codes: none across a reload, where counting starts again.
fn step(a: &Code, b: &Code) -> u32 {
    b.counter.saturating_sub(a.counter + 1)
}

/// What a file holds, in numbers. A value that the file cannot tell is absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Seconds, of the file.
    pub duration: f64,
    /// Seconds, of the picture track.
    pub video_duration: f64,
    /// Seconds, of the sound track.
    pub audio_duration: f64,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Pictures in the file.
    pub frames: usize,
    /// Pictures a second.
    pub frame_rate: f64,
    /// Distinct pictures with a readable code.
    pub coded_frames: usize,
    /// The same, a second.
    pub distinct_frame_rate: Option<f64>,
    /// Pictures that repeat the one before.
    pub duplicates: usize,
    /// Pictures that the page drew and that are missing.
    pub lost_frames: u32,
    /// Time stamps against the page's clock, around the median.
    pub jitter_p95_ms: Option<f64>,
    /// Flashes seen.
    pub flashes: usize,
    /// Beeps heard.
    pub beeps: usize,
    /// Sound minus picture as seen and heard, median; positive when the sound is late.
    pub av_offset_ms: Option<f64>,
    /// Each flash with its beep: time in the file, offset in ms.
    pub av_pairs: Vec<(f64, f64)>,
    /// The median against the page's clock, free of rounding to pictures; means something on pages that beep by the clock in their code.
    pub av_offset_by_clock_ms: Option<f64>,
    /// How that changes.
    pub av_drift_ms_per_minute: Option<f64>,
    /// Holes of the bed tone; absent without one.
    pub bed_holes: Option<Vec<Stretch>>,
    /// Silent stretches.
    pub silences: Vec<Stretch>,
}
