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

/// Generation and name of a chunk by its key: what [`chunk_key`] made it from. `None` for any other key.
pub fn parse_chunk_key(key: &str) -> Option<(u32, ChunkName)> {
    let (rest, file) = key.rsplit_once('/')?;
    let (_, generation) = rest.rsplit_once('/')?;
    let name = match file.strip_suffix(".m4s") {
        Some(index) => ChunkName::Segment(index.parse().ok()?),
        None if file == "init.mp4" => ChunkName::Init,
        None => return None,
    };
    Some((generation.parse().ok()?, name))
}

/// Key of a page of the ledger: what `generation` knew of the growing file once it had so many segments.
pub fn page_key(task: &str, generation: u32, segments: u64) -> String {
    format!("raw/{task}/{generation}/{segments:08}.page")
}

/// Generation and number of segments of a page by its key; `None` for any other key.
pub fn parse_page_key(key: &str) -> Option<(u32, u64)> {
    let (rest, file) = key.rsplit_once('/')?;
    let (_, generation) = rest.rsplit_once('/')?;
    Some((generation.parse().ok()?, file.strip_suffix(".page")?.parse().ok()?))
}

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChunkName {
    /// `ftyp` + `moov` of a generation's encoder.
    Init,
    /// One segment.
    Segment(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_keys_are_read_back_as_they_were_made() {
        for name in [ChunkName::Init, ChunkName::Segment(7), ChunkName::Segment(123_456_789)] {
            assert_eq!(parse_chunk_key(&chunk_key("task", 3, name)), Some((3, name)));
        }
        for other in ["raw/task/0/index.json", "raw/task/x/init.mp4", "raw/task/0/1.mp4", "init.mp4", ""] {
            assert_eq!(parse_chunk_key(other), None, "{other}");
        }
        let page = page_key("task", 3, 70);
        assert_eq!((parse_page_key(&page), parse_chunk_key(&page)), (Some((3, 70)), None));
        assert_eq!(parse_page_key(&chunk_key("task", 3, ChunkName::Segment(7))), None);
    }
}
