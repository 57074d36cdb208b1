//! Segments: the unit that is cut, uploaded and kept, and the index that lets a file be assembled without its media.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The two tracks of every recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrackKind {
    /// H.264, time scale 90,000.
    Video,
    /// AAC-LC, time scale 48,000.
    Audio,
}

/// One access unit or AAC frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Length in the track's time scale. Of a segment's last picture: up to the segment's end.
    pub duration: u32,
    /// Bytes.
    pub size: u32,
    /// Decoding can start here.
    pub sync: bool,
}

/// The samples of one track in one segment, contiguous in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackRun {
    /// Which track.
    pub kind: TrackKind,
    /// Time of the first sample in the track's time scale, on the recorded scale. AAC priming makes the very first
    /// audio sample of an encoder start at −1024.
    pub start: i64,
    /// Chunks of this run inside the segment's bytes: (offset of the first byte, number of samples). Samples of a
    /// chunk lie back to back.
    pub chunks: Vec<(u32, u32)>,
    /// The samples in decoding order, which is display order (no B-frames).
    pub samples: Vec<Sample>,
}

/// One segment: `moof` + `mdat` boxes exactly as they are stored, and what is in them.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Position on the grid: recorded samples `index·S .. (index+1)·S`, where S is the rate's segment length.
    pub index: u64,
    /// The CMAF bytes.
    pub bytes: Bytes,
    /// What the bytes hold.
    pub runs: Vec<TrackRun>,
    /// Recorded samples covered; shorter than the grid's only for the last one.
    pub samples: u64,
}

/// Key of an init segment or a segment in the chunk store.
pub fn chunk_key(task: &str, generation: u32, name: ChunkName) -> String {
    match name {
        ChunkName::Init => format!("raw/{task}/{generation}/init.mp4"),
        ChunkName::Segment(index) => format!("raw/{task}/{generation}/{index:08}.m4s"),
    }
}

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkName {
    /// `ftyp` + `moov` of a generation's encoder.
    Init,
    /// One segment.
    Segment(u64),
}
