//! The sound track: beeps to a millisecond, holes in the bed tone, silence.

use super::tools::{Res, arg, run_ok};
use std::f64::consts::TAU;
use std::path::Path;

/// Samples a second.
pub const RATE: f64 = 48_000.0;
/// Tone of the beeps, see `code.js`.
pub const BEEP_HZ: f64 = 2000.0;
/// Tone that never stops, see `code.js`.
pub const BED_HZ: f64 = 440.0;
/// Window of the beep detector: ten periods, so that the onset is where the envelope has half its height.
const BEEP_WINDOW: usize = 240;
/// Window of the bed detector: long enough to keep the beeps out.
const BED_WINDOW: usize = 960;
/// Window of the level meter: 100 ms tell tones apart that are 10 Hz from each other.
const LEVEL_WINDOW: usize = 4800;
/// A beep quieter than this is none (full scale is 1).
const QUIETEST_BEEP: f32 = 0.02;
/// A beep lasts 80 ms; anything outside this is another sound.
const BEEP_SECONDS: std::ops::Range<f64> = 0.04..0.16;
/// −60 dB: below this the ear and we call it silence.
const SILENCE: f32 = 0.001;
/// Resolution of the silence detector.
const SILENCE_WINDOW: usize = 4800;

/// A stretch of the file in seconds: start, length.
pub type Stretch = (f64, f64);

/// The sound track as one channel; time stamp 0 is the first sample, missing samples are zeros.
pub struct Sound {
    samples: Vec<f32>,
}

impl Sound {
    /// Decodes the sound of a file.
    pub fn read(path: &Path) -> Res<Self> {
        let mut args = vec!["-v", "error", "-copyts", "-i", arg(path)?, "-vn"];
        args.extend(["-af", "aresample=48000:async=1:first_pts=0:ochl=mono:rematrix_maxval=1"]);
        args.extend(["-f", "f32le", "-"]);
        let said = run_ok("ffmpeg", &args)?;
        let samples = said.out.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Self { samples })
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / RATE
    }

    /// Amplitude of a tone around every sample.
    fn envelope(&self, hz: f64, window: usize) -> Vec<f32> {
        let n = self.samples.len();
        // Running sums of the tone's two quadratures.
        let mut sums = Vec::with_capacity(n + 1);
        let (mut i, mut q) = (0f64, 0f64);
        sums.push((i, q));
        for (k, s) in self.samples.iter().enumerate() {
            let phase = TAU * (hz * k as f64 / RATE).fract();
            i += f64::from(*s) * phase.cos();
            q += f64::from(*s) * phase.sin();
            sums.push((i, q));
        }
        (0..n)
            .map(|k| {
                let (a, b) = (sums[k.saturating_sub(window / 2)], sums[(k + window / 2).min(n)]);
                (2.0 * (b.0 - a.0).hypot(b.1 - a.1) / window as f64) as f32
            })
            .collect()
    }

    /// Usual amplitude of a tone: its median over the file.
    pub fn level(&self, hz: f64) -> f64 {
        let mut levels: Vec<f32> = self.envelope(hz, LEVEL_WINDOW).into_iter().step_by(LEVEL_WINDOW).collect();
        levels.sort_by(f32::total_cmp);
        levels.get(levels.len() / 2).copied().map_or(0.0, f64::from)
    }

    /// Onsets of the beeps in seconds.
    pub fn beeps(&self) -> Vec<f64> {
        let envelope = self.envelope(BEEP_HZ, BEEP_WINDOW);
        let loudest = envelope.iter().copied().fold(0f32, f32::max);
        if loudest < QUIETEST_BEEP {
            return Vec::new();
        }
        let half = loudest / 2.0;
        let (mut found, mut begin) = (Vec::new(), None);
        for k in 1..envelope.len() {
            let (a, b) = (envelope[k - 1], envelope[k]);
            if a < half && b >= half {
                let within = f64::from((half - a) / (b - a));
                begin = Some((k as f64 - 1.0 + within) / RATE);
            } else if a >= half && b < half {
                let end = k as f64 / RATE;
                found.extend(begin.take().filter(|t| BEEP_SECONDS.contains(&(end - t))));
            }
        }
        found
    }

    /// Stretches of at least `shortest` seconds in which the bed tone is missing, between its first and last sounding; `None` without a
    /// bed: when nothing sounds there, or something that is not steady, as music.
    pub fn bed_holes(&self, shortest: f64) -> Option<Vec<Stretch>> {
        let envelope = self.envelope(BED_HZ, BED_WINDOW);
        let mut sorted: Vec<f32> = envelope.iter().copied().step_by(48).collect();
        sorted.sort_by(f32::total_cmp);
        let usual = *sorted.get(sorted.len() * 3 / 4)?;
        let steady = sorted.iter().filter(|e| (**e - usual).abs() < usual * 0.3).count();
        if usual < SILENCE * 5.0 || steady * 5 < sorted.len() * 3 {
            return None;
        }
        let there = |e: &f32| *e >= usual / 2.0;
        let first = envelope.iter().position(there)?;
        let last = envelope.iter().rposition(there)?;
        Some(stretches(envelope[first..=last].iter().map(|e| !there(e)), first as f64 / RATE, 1.0 / RATE, shortest))
    }

    /// Stretches of at least `shortest` seconds without sound.
    pub fn silences(&self, shortest: f64) -> Vec<Stretch> {
        let quiet = self.samples.chunks(SILENCE_WINDOW).map(|w| {
            let power = w.iter().map(|s| s * s).sum::<f32>() / w.len() as f32;
            power.sqrt() < SILENCE
        });
        stretches(quiet, 0.0, SILENCE_WINDOW as f64 / RATE, shortest)
    }
}

/// Runs of `true` of at least `shortest` seconds.
fn stretches(flags: impl Iterator<Item = bool>, start: f64, step: f64, shortest: f64) -> Vec<Stretch> {
    let (mut found, mut begin) = (Vec::new(), None);
    for (k, on) in flags.chain([false]).enumerate() {
        match (on, begin) {
            (true, None) => begin = Some(k),
            (false, Some(from)) => {
                let length = (k - from) as f64 * step;
                if length >= shortest {
                    found.push((start + from as f64 * step, length));
                }
                begin = None;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bed tone and beeps as the pages play them, without a codec in between.
    fn sound(seconds: f64, beeps: &[f64]) -> Sound {
        let tone = |hz: f64, t: f64| (TAU * hz * t).sin() as f32;
        let samples = (0..(seconds * RATE) as usize)
            .map(|k| {
                let t = k as f64 / RATE;
                let on = beeps.iter().find(|b| t >= **b && t < **b + 0.08);
                0.05 * tone(BED_HZ, t) + on.map_or(0.0, |b| 0.5 * tone(BEEP_HZ, t - b))
            })
            .collect();
        Sound { samples }
    }

    #[test]
    fn onsets_are_found_to_half_a_millisecond() {
        let at = [0.3, 1.34, 2.3805];
        let found = sound(3.0, &at).beeps();
        assert_eq!(found.len(), at.len(), "{found:?}");
        for (a, b) in at.iter().zip(&found) {
            assert!((a - b).abs() < 0.0005, "{a} found at {b}");
        }
    }

    #[test]
    fn a_tone_that_stays_is_no_beep() {
        let samples = (0..48_000).map(|k| (TAU * BEEP_HZ * f64::from(k) / RATE).sin() as f32).collect();
        assert!(Sound { samples }.beeps().is_empty());
    }

    #[test]
    fn twenty_missing_milliseconds_are_a_hole() {
        let mut s = sound(2.0, &[0.5]);
        assert_eq!(s.bed_holes(0.005), Some(vec![]));
        s.samples[48_000..48_960].fill(0.0);
        let holes = s.bed_holes(0.005).unwrap();
        assert_eq!(holes.len(), 1, "{holes:?}");
        assert!((holes[0].0 - 1.005).abs() < 0.005, "{holes:?}");
    }

    #[test]
    fn a_melody_is_no_bed() {
        let mut s = sound(4.0, &[]);
        for (k, v) in s.samples.iter_mut().enumerate() {
            *v *= 1.0 - (k % 12_000) as f32 / 12_000.0; // four notes a second that die away
        }
        assert_eq!(s.bed_holes(0.005), None);
    }

    #[test]
    fn silence_is_found_and_has_no_bed() {
        let mut s = sound(2.0, &[]);
        assert!(s.silences(0.2).is_empty());
        s.samples[24_000..72_000].fill(0.0);
        let quiet = s.silences(0.2);
        assert_eq!(quiet.len(), 1);
        assert!((quiet[0].1 - 1.0).abs() < 0.11, "{quiet:?}");
        s.samples.fill(0.0);
        assert_eq!(s.bed_holes(0.005), None);
        assert!(s.beeps().is_empty());
    }
}
