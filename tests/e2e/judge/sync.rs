//! Picture against page clock, picture against sound.

use super::code::{Code, PERIOD_MS};
use super::picture::Picture;

/// The flash lasts 120 ms; less than this is a glitch of one picture, more is another bright thing.
const FLASH_SECONDS: std::ops::Range<f64> = 0.03..0.35;
/// Flash and beep further apart than this do not belong together (they come 1.03 s apart).
const PAIR_WITHIN: f64 = 0.45;
/// Least difference between a lit and a dark patch.
const CONTRAST: u8 = 60;

/// A flash and its beep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Time stamp of the first lit picture.
    pub flash: f64,
    /// Onset of the beep minus that: positive when the sound is late.
    pub offset: f64,
}

/// Onsets of the flashes in seconds.
pub fn flashes(pictures: &[Picture]) -> Vec<f64> {
    let darkest = pictures.iter().map(|p| p.patch).min().unwrap_or(0);
    let lightest = pictures.iter().map(|p| p.patch).max().unwrap_or(0);
    if lightest - darkest < CONTRAST {
        return Vec::new();
    }
    let half = darkest + (lightest - darkest) / 2;
    let (mut found, mut begin) = (Vec::new(), None);
    for two in pictures.windows(2) {
        match (two[0].patch >= half, two[1].patch >= half) {
            (false, true) => begin = Some(two[1].pts),
            (true, false) => {
                let whole = |t: &f64| FLASH_SECONDS.contains(&(two[1].pts - t));
                found.extend(begin.take().filter(whole));
            }
            _ => {}
        }
    }
    found
}

/// Every flash with the beep nearest to it.
pub fn pairs(flashes: &[f64], beeps: &[f64]) -> Vec<Pair> {
    let nearest = |flash: &f64| beeps.iter().map(|beep| beep - flash).min_by(|a, b| a.abs().total_cmp(&b.abs()));
    flashes
        .iter()
        .filter_map(|flash| nearest(flash).map(|offset| Pair { flash: *flash, offset }))
        .filter(|p| p.offset.abs() < PAIR_WITHIN)
        .collect()
}

/// Offsets of sound against picture without the rounding to pictures, in seconds, for pages that beep by the clock in their code: every
/// beep against the file time at which the page's pictures say it was due. A picture drawn at an animation frame is shown one interval
/// later, as Chromium itself assumes when it chooses a video's frame.
pub fn offsets_by_clock(pictures: &[Picture], beeps: &[f64]) -> Vec<f64> {
    let coded = coded(pictures);
    let Some((_, first)) = coded.first().copied() else {
        return Vec::new();
    };
    let base = f64::from(first.wall_ms);
    let drawn = |code: &Code| {
        let since = f64::from(code.wall_ms.wrapping_sub(first.wall_ms));
        // Signed: the millisecond is rounded down, the time stamp is not.
        let waited = code.wall_ms.wrapping_mul(10).wrapping_sub(code.raf) as i32;
        let waited = f64::from(waited) / 10.0;
        since - waited
    };
    let steps: Vec<f64> = coded.windows(2).map(|w| drawn(&w[1].1) - drawn(&w[0].1)).collect();
    let Some(interval) = median(&steps) else {
        return Vec::new();
    };
    let shifts: Vec<f64> = coded.iter().map(|(pts, code)| pts * 1000.0 - (drawn(code) + interval)).collect();
    let shift = median(&shifts).unwrap_or(0.0);
    let late = |beep: &f64| {
        let due = base + beep * 1000.0 - shift;
        ((due + PERIOD_MS / 2.0).rem_euclid(PERIOD_MS) - PERIOD_MS / 2.0) / 1000.0
    };
    beeps.iter().map(late).collect()
}

/// Pictures with a code, the first of each counter only.
pub fn coded(pictures: &[Picture]) -> Vec<(f64, Code)> {
    let mut all: Vec<(f64, Code)> = Vec::new();
    for p in pictures {
        let Some(code) = p.code else { continue };
        if all.last().is_none_or(|(_, last)| last.counter != code.counter) {
            all.push((p.pts, code));
        }
    }
    all
}

/// Time stamp minus page clock of each picture in ms, the first one's subtracted.
pub fn lags(coded: &[(f64, Code)]) -> Vec<f64> {
    let Some((first_pts, first)) = coded.first() else {
        return Vec::new();
    };
    coded
        .iter()
        .map(|(pts, code)| (pts - first_pts) * 1000.0 - f64::from(code.wall_ms.wrapping_sub(first.wall_ms)))
        .collect()
}

/// 95th percentile of the distance from the median.
pub fn jitter_p95(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let mut off: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    off.sort_by(f64::total_cmp);
    off.get((off.len() * 95).div_ceil(100).saturating_sub(1)).copied()
}

/// Median; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let high = *sorted.get(n / 2)?;
    Some(if n % 2 == 1 { high } else { (high + sorted[n / 2 - 1]) / 2.0 })
}

/// Slope of the offsets, seconds per second: the median of the slopes of all couples, which single outliers do not move.
pub fn drift(pairs: &[Pair]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (i, a) in pairs.iter().enumerate() {
        for b in &pairs[i + 1..] {
            slopes.push((b.offset - a.offset) / (b.flash - a.flash));
        }
    }
    median(&slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures at 30 a second whose file time is the page's plus `lag` ms; the patch is lit by the rule of `code.js`.
    fn pictures(lag: f64) -> Vec<Picture> {
        let start = 5_000_000.0;
        let interval = 1000.0 / 30.0;
        (0..300u32)
            .map(|k| {
                let raf = start + f64::from(k) * interval;
                let lit = (raf + 1.5 * interval).rem_euclid(PERIOD_MS) < 120.0;
                Picture {
                    pts: (raf - start + lag) / 1000.0,
                    code: Some(Code { counter: k, wall_ms: (raf + 1.0) as u32, raf: (raf * 10.0) as u32, stage: 0 }),
                    patch: if lit { 250 } else { 20 },
                }
            })
            .collect()
    }

    /// When the beeps of that page are shown in a file whose sound is `late` seconds late.
    fn beeps(lag: f64, late: f64) -> Vec<f64> {
        let start = 5_000_000.0f64;
        let first = (start / PERIOD_MS).ceil() * PERIOD_MS;
        (0..9)
            .map(|k| {
                let due = first + f64::from(k) * PERIOD_MS;
                (due - start + lag - 1000.0 / 30.0) / 1000.0 + late
            })
            .collect()
    }

    #[test]
    fn both_offsets_tell_what_was_put_in() {
        for late in [-0.15, -0.02, 0.0, 0.02, 0.15] {
            let (pictures, beeps) = (pictures(70.0), beeps(70.0, late));
            let by_clock = median(&offsets_by_clock(&pictures, &beeps)).unwrap();
            assert!((by_clock - late).abs() < 0.002, "{late}: {by_clock}");
            let pairs = pairs(&flashes(&pictures), &beeps);
            assert!(pairs.len() >= 8, "{pairs:?}");
            let offsets: Vec<f64> = pairs.iter().map(|p| p.offset).collect();
            let by_flash = median(&offsets).unwrap();
            assert!((by_flash - late).abs() < 0.008, "{late}: {by_flash}");
        }
    }

    #[test]
    fn a_clock_that_runs_away_is_drift() {
        let pair = |k: u32| Pair { flash: f64::from(k), offset: 0.01 + 0.0005 * f64::from(k) };
        let mut all: Vec<Pair> = (0..20).map(pair).collect();
        all[7].offset = 0.4; // an outlier
        assert!((drift(&all).unwrap() - 0.0005).abs() < 1e-5);
        assert_eq!(drift(&[]), None);
    }

    #[test]
    fn jitter_is_measured_around_the_median() {
        let mut values: Vec<f64> = vec![40.0; 100];
        assert_eq!(jitter_p95(&values), Some(0.0));
        values[..10].fill(55.0);
        assert_eq!(jitter_p95(&values), Some(15.0));
        assert_eq!(jitter_p95(&[]), None);
    }

    #[test]
    fn a_constant_patch_has_no_flashes() {
        let mut all = pictures(0.0);
        for p in &mut all {
            p.patch = 200;
        }
        assert!(flashes(&all).is_empty());
    }
}
