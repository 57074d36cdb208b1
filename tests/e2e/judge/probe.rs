//! Containers and streams, as ffprobe sees them.

use super::boxes;
use super::tools::{Res, arg, run, run_ok};
use serde_json::Value;
use std::path::Path;

/// What the file says of itself.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Seconds, of the file.
    pub duration: f64,
    /// Seconds, of the picture track.
    pub video_duration: f64,
    /// Seconds, of the sound track.
    pub audio_duration: f64,
    /// Seconds at which the picture track starts.
    pub video_start: f64,
    /// Seconds at which the sound track starts.
    pub audio_start: f64,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Codec names, pixel format, sample rate, colour: everything ffprobe said, for exact questions.
    pub video: Value,
    /// The same of the sound track.
    pub audio: Value,
    /// Outer boxes in file order.
    pub boxes: Vec<String>,
}

impl Probe {
    /// Asks ffprobe. A file without exactly one picture and one sound track is an error.
    pub fn of(path: &Path) -> Res<Self> {
        let args = ["-v", "error", "-show_format", "-show_streams"];
        let mut args = args.to_vec();
        args.extend(["-of", "json", arg(path)?]);
        let said = run_ok("ffprobe", &args)?;
        let all: Value = serde_json::from_slice(&said.out).map_err(|e| format!("ffprobe: {e}"))?;
        let stream = |kind: &str| -> Res<Value> {
            let list = all["streams"].as_array().into_iter().flatten();
            let mut of_kind = list.filter(|s| s["codec_type"] == kind);
            match (of_kind.next(), of_kind.next()) {
                (Some(one), None) => Ok(one.clone()),
                (None, _) => Err(format!("{}: no {kind} track", path.display())),
                _ => Err(format!("{}: more than one {kind} track", path.display())),
            }
        };
        let (video, audio) = (stream("video")?, stream("audio")?);
        Ok(Self {
            duration: seconds(&all["format"]["duration"]),
            video_duration: seconds(&video["duration"]),
            audio_duration: seconds(&audio["duration"]),
            video_start: seconds(&video["start_time"]),
            audio_start: seconds(&audio["start_time"]),
            width: video["width"].as_u64().unwrap_or(0) as usize,
            height: video["height"].as_u64().unwrap_or(0) as usize,
            video,
            audio,
            boxes: boxes::top_level(path)?,
        })
    }
}

/// ffprobe writes seconds as text; what it does not know it leaves out.
fn seconds(value: &Value) -> f64 {
    value.as_str().and_then(|s| s.parse().ok()).unwrap_or(f64::NAN)
}

/// Decodes everything and returns the decoder's complaints; none means clean.
pub fn complaints(path: &Path) -> Res<String> {
    let args = ["-v", "warning", "-xerror", "-i", arg(path)?];
    let mut args = args.to_vec();
    args.extend(["-map", "0", "-f", "null", "-"]);
    let said = run("ffmpeg", &args)?;
    Ok(match (said.ok, said.err.is_empty()) {
        (true, _) => said.err,
        (false, true) => "the decoder failed without a word".into(),
        (false, false) => said.err,
    })
}

/// A packet of a track: time stamp and duration in seconds, and whether decoding can start here.
pub type Packet = (f64, f64, bool);

/// Packets of a track (`v` or `a`) in file order.
pub fn packets(path: &Path, track: &str) -> Res<Vec<Packet>> {
    let args = ["-v", "error", "-select_streams", track, "-show_entries"];
    let mut args = args.to_vec();
    args.extend(["packet=pts_time,duration_time,flags", "-of", "json"]);
    args.push(arg(path)?);
    let said = run_ok("ffprobe", &args)?;
    let all: Value = serde_json::from_slice(&said.out).map_err(|e| format!("ffprobe: {e}"))?;
    let list = all["packets"].as_array().cloned().unwrap_or_default();
    Ok(list
        .iter()
        .map(|p| {
            let key = p["flags"].as_str().is_some_and(|f| f.contains('K'));
            (seconds(&p["pts_time"]), seconds(&p["duration_time"]), key)
        })
        .collect())
}
