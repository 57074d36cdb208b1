//! Films with known faults, made by FFmpeg: the judge must find what was put in, or it cannot be believed about the recorder.

use crate::judge::code::{self, Code, PERIOD_MS, Place};
use crate::judge::tools::{Res, arg, run_ok};
use crate::judge::{Evidence, sound};
use std::f64::consts::TAU;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const FPS: f64 = 30.0;
/// Flash and beep last this long.
const FLASH_MS: f64 = 120.0;
const BEEP_SECONDS: f64 = 0.08;
/// Wall clock of the first picture; anything that is not a multiple of the period.
const START_MS: f64 = 77_123_456.0;

/// A film and what is wrong with it.
struct Film {
    seconds: f64,
    place: Place,
    /// Sound is late by this much.
    late: f64,
    /// And by this much more per second.
    later: f64,
    /// Pictures that are left out.
    dropped: Vec<Range<usize>>,
    /// Pictures that show what the one before them shows.
    repeated: Vec<usize>,
    /// Time stamps are off by up to this, to and fro.
    jitter_ms: f64,
    /// A stretch without sound.
    mute: Range<f64>,
    /// Arguments for the container.
    movflags: &'static str,
    /// Low quality by default: the code must survive it.
    crf: &'static str,
}

impl Default for Film {
    fn default() -> Self {
        Self {
            seconds: 6.0,
            place: Place { x: 0, y: 0, cell: 16 },
            late: 0.0,
            later: 0.0,
            dropped: vec![],
            repeated: vec![],
            jitter_ms: 0.0,
            mute: 0.0..0.0,
            movflags: "+faststart",
            crf: "40",
        }
    }
}

impl Film {
    /// The file, in a directory that vanishes with the test.
    fn make(&self, dir: &Path) -> Res<PathBuf> {
        let (ivf, pcm, out) = (dir.join("v.ivf"), dir.join("a.f32"), dir.join("film.mp4"));
        self.write_pictures(&ivf).map_err(|e| e.to_string())?;
        self.write_sound(&pcm).map_err(|e| e.to_string())?;
        let mut args = vec!["-v", "error", "-y", "-f", "ivf", "-i", arg(&ivf)?];
        args.extend(["-f", "f32le", "-ar", "48000", "-ac", "1", "-i", arg(&pcm)?]);
        args.extend(["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
        args.extend(["-c:v", "libx264", "-preset", "ultrafast", "-crf", self.crf]);
        args.extend(["-bf", "0", "-video_track_timescale", "90000", "-c:a", "aac"]);
        args.extend(["-b:a", "128k", "-movflags", self.movflags, arg(&out)?]);
        run_ok("ffmpeg", &args)?;
        Ok(out)
    }

    fn write_pictures(&self, path: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        let mut head = [0u8; 32];
        head[..4].copy_from_slice(b"DKIF");
        head[6..8].copy_from_slice(&32u16.to_le_bytes());
        head[8..12].copy_from_slice(b"I420");
        head[12..14].copy_from_slice(&(WIDTH as u16).to_le_bytes());
        head[14..16].copy_from_slice(&(HEIGHT as u16).to_le_bytes());
        head[16..20].copy_from_slice(&1_000_000u32.to_le_bytes());
        head[20..24].copy_from_slice(&1u32.to_le_bytes());
        out.write_all(&head)?;
        let chroma = vec![128u8; WIDTH * HEIGHT / 2];
        for k in 0..(self.seconds * FPS) as usize {
            if self.dropped.iter().any(|r| r.contains(&k)) {
                continue;
            }
            let shown = if self.repeated.contains(&k) { k - 1 } else { k };
            let wobble = [0.0, 1.0, 0.0, -1.0][k % 4] * self.jitter_ms / 1000.0;
            let pts = ((k as f64 / FPS + wobble).max(0.0) * 1e6) as u64;
            out.write_all(&((WIDTH * HEIGHT * 3 / 2) as u32).to_le_bytes())?;
            out.write_all(&pts.to_le_bytes())?;
            out.write_all(&self.picture(shown))?;
            out.write_all(&chroma)?;
        }
        out.flush()
    }

    /// Brightness of picture `k`: noise that costs bits, the code, the patch.
    fn picture(&self, k: usize) -> Vec<u8> {
        let mut luma: Vec<u8> = (0..WIDTH * HEIGHT).map(|i| 60 + ((i * 7919 + k * 104_729) >> 5) as u8 % 90).collect();
        let now = START_MS + k as f64 * 1000.0 / FPS;
        let code = Code { counter: k as u32 + 1, wall_ms: now as u32, raf: (now * 10.0) as u32, stage: 0 };
        code.draw(&mut luma, WIDTH, self.place);
        // Nearest picture, as a media player would choose.
        let lit = (now + 500.0 / FPS).rem_euclid(PERIOD_MS) < FLASH_MS;
        for row in code::ROWS..code::ROWS + code::FLASH_ROWS {
            for column in 0..code::COLUMNS {
                let value = if lit { 235 } else { 30 };
                code::fill(&mut luma, WIDTH, self.place, (column, row), value);
            }
        }
        luma
    }

    fn write_sound(&self, path: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        for k in 0..(self.seconds * sound::RATE) as usize {
            let t = k as f64 / sound::RATE;
            let due = (START_MS / 1000.0 + t - self.late - self.later * t) % (PERIOD_MS / 1000.0);
            let mut s = 0.05 * (TAU * sound::BED_HZ * t).sin();
            if due < BEEP_SECONDS {
                s += 0.5 * (TAU * sound::BEEP_HZ * due).sin();
            }
            let s = if self.mute.contains(&t) { 0.0 } else { s };
            out.write_all(&(s as f32).to_le_bytes())?;
        }
        out.flush()
    }

    fn judged(&self) -> Evidence {
        let _turn = crate::turn::turn();
        let dir = tempfile::tempdir().unwrap();
        Evidence::of(&self.make(dir.path()).unwrap()).unwrap()
    }
}

/// AAC smears an onset over a few samples, and the flash is rounded to a picture (its median over five phases to a fifth of one).
const OFFSET_TOLERANCE_MS: f64 = 8.0;
/// The code's clock has 1 ms.
const JITTER_TOLERANCE_MS: f64 = 1.5;

#[test]
fn a_good_film_has_no_fault_at_the_worst_quality() {
    for place in Place::known(WIDTH) {
        let film = Film { place, crf: "51", ..Film::default() };
        let e = film.judged();
        let r = e.report();
        assert_eq!(e.place, Some(place));
        assert_eq!((r.frames, r.coded_frames), (180, 180), "{r:?}");
        assert_eq!((r.duplicates, r.lost_frames), (0, 0), "{r:?}");
        assert!((r.distinct_frame_rate.unwrap() - 30.0).abs() < 0.01, "{r:?}");
        assert!(r.jitter_p95_ms.unwrap() < JITTER_TOLERANCE_MS, "{r:?}");
        assert!(r.av_offset_ms.unwrap().abs() < OFFSET_TOLERANCE_MS, "{r:?}");
        assert_eq!(r.bed_holes, Some(vec![]), "{r:?}");
        assert!(r.silences.is_empty(), "{r:?}");
        e.in_order().unwrap();
    }
}

#[test]
fn late_and_early_sound_is_measured() {
    for late in [-0.1, -0.03, 0.03, 0.1] {
        let film = Film { late, ..Film::default() };
        let r = film.judged().report();
        let by_flash = r.av_offset_ms.unwrap() - late * 1000.0;
        assert!(by_flash.abs() < OFFSET_TOLERANCE_MS, "{late}: {r:?}");
        // The film is no page: its pictures are shown when they are drawn, not one interval later.
        let by_clock = r.av_offset_by_clock_ms.unwrap() - 1000.0 / FPS - late * 1000.0;
        assert!(by_clock.abs() < 3.0, "{late}: {r:?}");
    }
}

#[test]
fn sound_that_runs_away_is_drift() {
    let film = Film { seconds: 12.0, later: 0.01, ..Film::default() };
    let r = film.judged().report();
    let drift = r.av_drift_ms_per_minute.unwrap();
    assert!((drift - 600.0).abs() < 120.0, "{r:?}");
}

#[test]
fn missing_and_repeated_pictures_are_counted() {
    let film = Film { dropped: vec![20..21, 60..75], repeated: vec![100, 140], ..Film::default() };
    let e = film.judged();
    let r = e.report();
    // A repeated picture stands in the place of one that is missing.
    assert_eq!((r.lost_frames, r.duplicates), (18, 2), "{r:?}");
    assert!(r.distinct_frame_rate.unwrap() < 27.5, "{r:?}");
    e.in_order().unwrap();
}

#[test]
fn shaken_time_stamps_are_jitter() {
    let film = Film { jitter_ms: 12.0, ..Film::default() };
    let jitter = film.judged().report().jitter_p95_ms.unwrap();
    assert!((jitter - 12.0).abs() < 2.0, "{jitter}");
}

#[test]
fn muted_sound_is_a_hole_and_a_silence() {
    let film = Film { mute: 2.0..3.0, ..Film::default() };
    let r = film.judged().report();
    let holes = r.bed_holes.clone().unwrap();
    assert_eq!(holes.len(), 1, "{r:?}");
    assert!((holes[0].1 - 1.0).abs() < 0.05, "{r:?}");
    assert_eq!(r.silences.len(), 1, "{r:?}");
    let film = Film { mute: 2.0..2.03, ..Film::default() };
    let holes = film.judged().bed_holes.unwrap();
    assert_eq!(holes.len(), 1, "30 ms are heard: {holes:?}");
}

#[test]
fn the_container_is_told_apart() {
    use crate::judge::boxes::is_faststart;
    let of = |movflags| Film { movflags, seconds: 2.0, ..Film::default() };
    assert!(is_faststart(&of("+faststart").judged().probe.boxes));
    assert!(!is_faststart(&of("+write_colr").judged().probe.boxes));
    let fragmented = of("+frag_keyframe+empty_moov").judged();
    assert!(!is_faststart(&fragmented.probe.boxes));
}

#[test]
fn a_damaged_file_is_not_clean() {
    use crate::judge::probe::complaints;
    let _turn = crate::turn::turn();
    let dir = tempfile::tempdir().unwrap();
    let path = Film { seconds: 2.0, ..Film::default() }.make(dir.path()).unwrap();
    assert_eq!(complaints(&path).unwrap(), "");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() * 2 / 3;
    bytes[middle..middle + 2000].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    assert_ne!(complaints(&path).unwrap(), "");
}
