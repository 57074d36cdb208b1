//! `Quality`: what was delivered, measured.

use serde::Serialize;

/// Why wall time is missing from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum GapReason {
    /// The tab or the browser crashed and was relaunched.
    PageCrash,
    /// The encoder lost what it had in hand.
    EncoderLost,
}

/// A span of wall time that should be in the file and is not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Gap {
    /// Position in the file, seconds.
    pub start: f64,
    /// Missing wall time, seconds.
    pub duration: f64,
    /// Why.
    pub reason: GapReason,
}

/// A stretch of the file, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stretch {
    /// Position in the file.
    pub start: f64,
    /// Length.
    pub duration: f64,
}

/// Shortest silent or blank stretch that is listed, seconds (the wire contract's bound).
pub const STRETCH_SECONDS: f64 = 5.0;

/// What was delivered. Nothing in here is assumed: a value that was not measured is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Quality {
    /// Pictures in the file that the page drew (repeats of an unchanged picture not counted).
    pub frames_delivered: u64,
    /// Distinct pictures per recorded second.
    pub frame_rate: f64,
    /// Pictures the page drew in recorded time that are not in the file.
    pub frames_dropped: u64,
    /// Missing spans.
    pub gaps: Vec<Gap>,
    /// Time stamps of sound minus those of picture, both against their arrival; absent without either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub av_offset_ms: Option<f64>,
    /// Times a playing sound stream ran out of samples.
    pub underruns: u64,
    /// Seconds recorded at a frame rate that was stepped down for lack of CPU.
    pub reduced_rate_seconds: f64,
    /// Silent stretches longer than 5 s.
    pub silent: Vec<Stretch>,
    /// Stretches longer than 5 s in which the picture was of one colour.
    pub blank: Vec<Stretch>,
}
