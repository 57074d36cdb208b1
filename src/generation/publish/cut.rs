//! Chunks as segments for players: in their place in the stream, encrypted if that was ordered, under addresses relative to the
//! playlist that names them.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{PublishError, owner};
use crate::delivery::hls::cipher::{encrypt, sequence_iv};
use crate::delivery::hls::{Entry, KeyTag, Playlist, retime};
use crate::platform::ChunkStore;
use crate::task::init::Init;
use crate::task::record::TaskRecord;
use crate::task::segment::{ChunkName, chunk_key};

/// Media type of segments and their init segments.
pub(in crate::generation) const SEGMENT_TYPE: &str = "video/mp4";

/// A task's playlist, without segments.
pub(in crate::generation) fn playlist(record: &TaskRecord) -> Playlist {
    let key = record.order.encryption.as_ref().map(|e| KeyTag {
        uri: e.auth_url.clone(),
        iv: e.iv.map(|iv| iv.iter().map(|b| format!("{b:02x}")).collect()),
    });
    Playlist::new(owner(&record.id), record.order.rate.segment(), key)
}

/// Address of a segment.
pub(super) fn segment_uri(task: &str, generation: u32, index: u64) -> String {
    format!("segments-{}/{generation}-{index:08}.m4s", owner(task))
}

/// A segment.
pub(in crate::generation) struct Cut {
    /// What the playlist says of it; of the time of day nothing.
    pub entry: Entry,
    /// Its position, samples.
    pub position: u64,
    /// Address and content: of its init segment, if that is a new one, and its own.
    pub files: Vec<(String, Bytes)>,
}

/// What makes them, one after the other.
#[derive(Default)]
pub(in crate::generation) struct Cutter {
    /// Whose segments come; what they are read by, and its address.
    init: Option<(u32, Init, String)>,
}

impl Cutter {
    /// The segment that follows those of `list`; `fresh`: its chunk, where that is in memory.
    pub async fn cut(
        &mut self,
        chunks: &dyn ChunkStore,
        record: &TaskRecord,
        list: &Playlist,
        fresh: Option<Bytes>,
    ) -> Result<Cut, PublishError> {
        let (task, index) = (&record.id, list.entries.len() as u64);
        let unreadable = |source| PublishError::Segment { index, source };
        let Some(generation) = record.seams.generation_of(index) else { return Err(PublishError::Lost) };
        let mut files = Vec::new();
        if self.init.as_ref().is_none_or(|(of, ..)| *of != generation) {
            let bytes = chunks.get(&chunk_key(task, generation, ChunkName::Init)).await?;
            let digest: String = Sha256::digest(&bytes)[..4].iter().map(|b| format!("{b:02x}")).collect();
            let uri = format!("segments-{}/init-{digest}.mp4", owner(task));
            self.init = Some((generation, Init::read(&bytes).map_err(unreadable)?, uri.clone()));
            files.push((uri, bytes));
        }
        let stored = match fresh {
            Some(bytes) => bytes,
            None => chunks.get(&chunk_key(task, generation, ChunkName::Segment(index))).await?,
        };
        let Some((_, init, init_uri)) = &self.init else { return Err(PublishError::Lost) };
        let position = list.samples();
        let placed = retime::place(init, index, position, &stored).map_err(unreadable)?;
        let bytes = match &record.order.encryption {
            Some(e) => encrypt(&e.key, e.iv.unwrap_or_else(|| sequence_iv(index)), &placed.bytes),
            None => placed.bytes,
        };
        let new_init = (list.init() != Some(init_uri)).then(|| init_uri.clone());
        let new_generation = index > 0 && record.seams.generation_of(index - 1) != Some(generation);
        let entry = Entry {
            uri: segment_uri(task, generation, index),
            samples: placed.samples,
            bytes: bytes.len() as u64,
            wall_ms: None,
            discontinuity: new_generation && (new_init.is_some() || !placed.flush),
            init: new_init,
        };
        files.push((entry.uri.clone(), bytes));
        Ok(Cut { entry, position, files })
    }
}
