//! FFmpeg's fragmented MP4, byte stream to frames.
//!
//! Takes bytes as they come and gives the init segment once, then every access unit and AAC frame with its time.
//! How FFmpeg distributes them over fragments does not matter to anybody behind this.

use super::boxes::{self, Fields, FourCc, Malformed};
use crate::task::segment::TrackKind;
use crate::task::timeline::{SAMPLE_RATE, VIDEO_TIMESCALE};
use bytes::{Bytes, BytesMut};

/// Largest box that is waited for. A fragment is a tenth of a second: 0.3 MB at the highest bit rate; a burst that fills
/// the decoder buffer in one picture stays below this ten times over.
const MAX_BOX_BYTES: u64 = 64 << 20;

/// Most frames of one run. Frames of equal size need no bytes in the index, so its length does not bound them; a
/// fragment of a tenth of a second has six.
const MAX_RUN_FRAMES: u32 = 10_000;

/// Track numbers in the init segment, and so in every segment.
pub(super) const VIDEO_TRACK: u32 = 1;
/// See [`VIDEO_TRACK`].
pub(super) const AUDIO_TRACK: u32 = 2;

/// What comes out.
#[derive(Debug)]
pub(super) enum Piece {
    /// `ftyp` + `moov`.
    Init(Bytes),
    /// The frames of one fragment.
    Frames(Vec<Frame>),
}

/// One access unit or AAC frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Its track.
    pub(super) kind: TrackKind,
    /// Its time in the track's time scale, counted from the track's own first frame's zero.
    pub(super) time: u64,
    /// Decoding can start here.
    pub(super) sync: bool,
    /// Its bytes.
    pub(super) data: Bytes,
}

/// A frame whose bytes have not come yet.
struct Planned {
    kind: TrackKind,
    time: u64,
    sync: bool,
    /// Offset of its first byte from the first byte of its `moof`.
    offset: u64,
    size: u32,
}

/// A fragment's index: its frames, and the length of the `moof` box.
struct Plan {
    frames: Vec<Planned>,
    moof_bytes: u64,
}

struct Track {
    id: u32,
    kind: TrackKind,
    /// Defaults of `trex`: duration, size, flags.
    defaults: [u32; 3],
}

/// The parser.
#[derive(Default)]
pub(super) struct Demuxer {
    buffer: BytesMut,
    ftyp: Option<Bytes>,
    tracks: Vec<Track>,
    plan: Option<Plan>,
}

impl Demuxer {
    /// Takes the next bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece that is complete.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Malformed> {
        loop {
            let Some((kind, size, header)) = boxes::header(&self.buffer)? else { return Ok(None) };
            if size > MAX_BOX_BYTES {
                let text = format!("box `{}` of {size} bytes exceeds {MAX_BOX_BYTES}", boxes::name(kind));
                return Err(Malformed::new(text));
            }
            let size = size as usize;
            if self.buffer.len() < size {
                return Ok(None);
            }
            let whole = self.buffer.split_to(size).freeze();
            if let Some(piece) = self.take(kind, &whole, header)? {
                return Ok(Some(piece));
            }
        }
    }

    fn take(&mut self, kind: FourCc, whole: &Bytes, header: usize) -> Result<Option<Piece>, Malformed> {
        match &kind {
            b"ftyp" => self.ftyp = Some(whole.clone()),
            b"moov" => {
                self.tracks = tracks(&whole[header..])?;
                let ftyp = self.ftyp.take().ok_or_else(|| Malformed::new("`moov` comes without `ftyp`"))?;
                return Ok(Some(Piece::Init([ftyp, whole.clone()].concat().into())));
            }
            b"moof" => {
                let frames = self.plan_of(&whole[header..])?;
                self.plan = Some(Plan { frames, moof_bytes: whole.len() as u64 });
            }
            b"mdat" => {
                let plan = self.plan.take().ok_or_else(|| Malformed::new("`mdat` comes without `moof`"))?;
                return plan.fill(whole, header).map(|frames| Some(Piece::Frames(frames)));
            }
            _ => {} // mfra, sidx, free: nothing that the index does not know
        }
        Ok(None)
    }

    fn plan_of(&self, moof: &[u8]) -> Result<Vec<Planned>, Malformed> {
        let mut frames = Vec::new();
        for item in boxes::children(moof) {
            let (kind, payload) = item?;
            if &kind == b"traf" {
                self.plan_track(payload, &mut frames)?;
            }
        }
        Ok(frames)
    }

    fn plan_track(&self, traf: &[u8], frames: &mut Vec<Planned>) -> Result<(), Malformed> {
        let mut fields = Fields(required(traf, b"tfhd")?);
        let (_, flags) = fields.full()?;
        let id = fields.u32()?;
        let track = self
            .tracks
            .iter()
            .find(|t| t.id == id)
            .ok_or_else(|| Malformed::new(format!("fragment names unknown track {id}")))?;
        if flags & 1 != 0 {
            return Err(Malformed::new("fragment addresses its media from the file's start"));
        }
        if flags & 2 != 0 {
            fields.u32()?; // sample description: there is one
        }
        let mut defaults = track.defaults;
        for (bit, value) in [8, 16, 32].into_iter().zip(&mut defaults) {
            if flags & bit != 0 {
                *value = fields.u32()?;
            }
        }
        let mut fields = Fields(required(traf, b"tfdt")?);
        let mut run = Run {
            kind: track.kind,
            defaults,
            time: if fields.full()?.0 == 1 { fields.u64()? } else { u64::from(fields.u32()?) },
            offset: None,
        };
        for item in boxes::children(traf) {
            let (kind, payload) = item?;
            if &kind == b"trun" {
                run.read(payload, frames)?;
            }
        }
        Ok(())
    }
}

/// Where reading a track's `trun` boxes stands.
struct Run {
    kind: TrackKind,
    defaults: [u32; 3],
    time: u64,
    offset: Option<u64>,
}

impl Run {
    fn read(&mut self, trun: &[u8], frames: &mut Vec<Planned>) -> Result<(), Malformed> {
        const OVERFLOW: &str = "times or sizes of a fragment overflow";
        let mut fields = Fields(trun);
        let (_, flags) = fields.full()?;
        let count = fields.u32()?;
        if flags & 1 != 0 {
            let offset = fields.i32()?;
            self.offset = Some(u64::try_from(offset).map_err(|_| Malformed::new("media lies before its `moof`"))?);
        }
        let mut offset = self.offset.ok_or_else(|| Malformed::new("fragment does not say where its media lies"))?;
        let first_flags = if flags & 4 != 0 { Some(fields.u32()?) } else { None };
        let per_sample = 4 * (flags >> 8 & 0xf).count_ones() as usize;
        if count > MAX_RUN_FRAMES || per_sample * count as usize > fields.0.len() {
            return Err(Malformed::new(format!("`trun` has no room for its {count} frames")));
        }
        for n in 0..count {
            let mut values = self.defaults;
            for (bit, value) in [0x100, 0x200, 0x400].into_iter().zip(&mut values) {
                if flags & bit != 0 {
                    *value = fields.u32()?;
                }
            }
            if flags & 0x800 != 0 && fields.u32()? != 0 {
                return Err(Malformed::new("pictures are not in display order"));
            }
            let [duration, size, own_flags] = values;
            let sample_flags = if n == 0 { first_flags.unwrap_or(own_flags) } else { own_flags };
            let sync = self.kind == TrackKind::Audio || sample_flags & 0x1_0000 == 0;
            frames.push(Planned { kind: self.kind, time: self.time, sync, offset, size });
            offset = offset.checked_add(u64::from(size)).ok_or_else(|| Malformed::new(OVERFLOW))?;
            self.time = self.time.checked_add(u64::from(duration)).ok_or_else(|| Malformed::new(OVERFLOW))?;
        }
        self.offset = Some(offset);
        Ok(())
    }
}

impl Plan {
    /// Cuts the `mdat` box that follows the `moof`.
    fn fill(self, mdat: &Bytes, header: usize) -> Result<Vec<Frame>, Malformed> {
        let cut = |p: Planned| {
            let outside = || Malformed::new(format!("a frame of {} bytes lies outside its `mdat`", p.size));
            let from = p.offset.checked_sub(self.moof_bytes).ok_or_else(outside)?;
            let to = from + u64::from(p.size);
            if from < header as u64 || to > mdat.len() as u64 {
                return Err(outside());
            }
            let data = mdat.slice(from as usize..to as usize);
            Ok(Frame { kind: p.kind, time: p.time, sync: p.sync, data })
        };
        self.frames.into_iter().map(cut).collect()
    }
}

fn required<'a>(parent: &'a [u8], kind: &FourCc) -> Result<&'a [u8], Malformed> {
    boxes::child(parent, kind)?.ok_or_else(|| Malformed::new(format!("box `{}` is missing", boxes::name(*kind))))
}

/// The tracks of a `moov`, with the defaults of their fragments.
fn tracks(moov: &[u8]) -> Result<Vec<Track>, Malformed> {
    let mut tracks = Vec::new();
    for item in boxes::children(moov) {
        let (kind, payload) = item?;
        if &kind == b"trak" {
            tracks.push(track(payload)?);
        }
    }
    for item in boxes::children(required(moov, b"mvex")?) {
        let (kind, payload) = item?;
        if &kind == b"trex" {
            let mut fields = Fields(payload);
            fields.full()?;
            let id = fields.u32()?;
            fields.u32()?; // sample description
            let defaults = [fields.u32()?, fields.u32()?, fields.u32()?];
            tracks.iter_mut().filter(|t: &&mut Track| t.id == id).for_each(|t| t.defaults = defaults);
        }
    }
    Ok(tracks)
}

fn track(trak: &[u8]) -> Result<Track, Malformed> {
    let version = |box_: &[u8]| Fields(box_).full().map(|(version, _)| version);
    let tkhd = required(trak, b"tkhd")?;
    let mut fields = Fields(tkhd);
    fields.skip(if version(tkhd)? == 1 { 20 } else { 12 })?;
    let id = fields.u32()?;
    let mdia = required(trak, b"mdia")?;
    let mdhd = required(mdia, b"mdhd")?;
    let mut fields = Fields(mdhd);
    fields.skip(if version(mdhd)? == 1 { 20 } else { 12 })?;
    let scale = fields.u32()?;
    let mut fields = Fields(required(mdia, b"hdlr")?);
    fields.skip(8)?;
    let (kind, wanted) = match &fields.four_cc()? {
        b"vide" => (TrackKind::Video, (VIDEO_TRACK, VIDEO_TIMESCALE)),
        b"soun" => (TrackKind::Audio, (AUDIO_TRACK, SAMPLE_RATE as u32)),
        other => return Err(Malformed::new(format!("track of unknown kind `{}`", boxes::name(*other)))),
    };
    if (id, scale) != wanted {
        let text = format!("{kind:?} has track number and time scale {:?}, not {wanted:?}", (id, scale));
        return Err(Malformed::new(text));
    }
    Ok(Track { id, kind, defaults: [0; 3] })
}
