//! The init segment (`ftyp` + `moov`) of an encoder, and with its help what a stored segment holds.
//!
//! FFmpeg's time stamps inside fragments are its own: they begin at 0 whatever the input began at, and the AAC priming
//! is part of them. The init's edit lists say which media time is shown at 0; the position of the segment on the
//! recorded scale is known from outside. Together they give the times of a [`Segment`].

use crate::task::boxes::{BoxError, BoxRef, Boxes, FourCc};
use crate::task::fragment::{FragmentError, Run, read_fragment};
use crate::task::segment::{Segment, TrackKind, TrackRun};
use crate::task::timeline::{AAC_FRAME, SAMPLE_RATE, VIDEO_TIMESCALE, ticks};
use bytes::Bytes;

/// One track of an init segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitTrack {
    /// Track ID, by which fragments refer to it.
    pub id: u32,
    /// Picture or sound.
    pub kind: TrackKind,
    /// Media time shown at presentation time 0, in the track's time scale. Negative where an empty edit delays it.
    pub media_start: i64,
    /// Presentation width, 16.16 fixed point; 0 for sound.
    pub width: u32,
    /// Presentation height, 16.16 fixed point; 0 for sound.
    pub height: u32,
    /// The sample entry (`avc1`, `mp4a`) as it is, with all that it contains.
    pub entry: Vec<u8>,
}

/// An init segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Its tracks, at most one of each kind.
    pub tracks: Vec<InitTrack>,
}

impl Init {
    /// Reads `ftyp` + `moov`. What a recording never has (other codecs or time scales, two tracks of a kind) is an error.
    pub fn read(bytes: &[u8]) -> Result<Self, FragmentError> {
        let moov = top(bytes, b"moov")?;
        let mut mvhd = moov.child(b"mvhd")?.fields();
        let (version, _) = mvhd.version()?;
        mvhd.skip(if version == 0 { 8 } else { 16 })?;
        let movie_scale = mvhd.u32()?;
        let mut tracks: Vec<InitTrack> = Vec::new();
        for found in Boxes::new(moov.body) {
            let found = found?;
            if &found.kind.0 == b"trak" {
                let track = read_track(&found, movie_scale)?;
                if tracks.iter().any(|t| t.kind == track.kind) {
                    return Err(unsupported(track.id, "a second track of its kind"));
                }
                tracks.push(track);
            }
        }
        Ok(Self { tracks })
    }

    /// The track of a kind.
    pub fn track(&self, kind: TrackKind) -> Option<&InitTrack> {
        self.tracks.iter().find(|t| t.kind == kind)
    }

    /// Reads a stored segment: `index` on the grid, which begins at recorded sample `start`.
    ///
    /// The first picture is at `start`; sound keeps its distance from it, and its frames lie on the grid of 1024
    /// samples, so a distance that the init's edit list gives only in milliseconds comes out exact.
    pub fn segment(&self, bytes: Bytes, index: u64, start: u64) -> Result<Segment, FragmentError> {
        let fragment = read_fragment(&bytes)?;
        let shown = |kind: TrackKind| -> Option<(&Run, i64)> {
            let track = self.track(kind)?;
            let run = fragment.run(track.id)?;
            Some((run, i64::try_from(run.start).ok()?.checked_sub(track.media_start)?))
        };
        let video_track = self.track(TrackKind::Video).map_or(0, |t| t.id);
        let (video, video_at) =
            shown(TrackKind::Video).ok_or_else(|| unsupported(video_track, "a segment without a picture"))?;
        let late = "a time beyond 63 bits";
        let video_start = start
            .checked_mul(15) // what `ticks` does
            .and_then(|_| i64::try_from(ticks(start)).ok())
            .ok_or_else(|| unsupported(video_track, late))?;
        let mut runs = vec![track_run(TrackKind::Video, video, video_start)];
        if let Some((audio, audio_at)) = shown(TrackKind::Audio) {
            let scale = i128::from(SAMPLE_RATE);
            let offset = i128::from(audio_at) - i128::from(video_at) * scale / i128::from(VIDEO_TIMESCALE);
            let frames = (i128::from(start) + offset + i128::from(AAC_FRAME / 2)).div_euclid(i128::from(AAC_FRAME));
            let at = i64::try_from(frames * i128::from(AAC_FRAME)).map_err(|_| unsupported(audio.track, late))?;
            runs.push(track_run(TrackKind::Audio, audio, at));
        }
        let samples = (u128::from(video.duration()) * 8).div_ceil(15);
        Ok(Segment {
            index,
            samples: u64::try_from(samples).map_err(|_| unsupported(video.track, late))?,
            bytes: bytes.clone(),
            runs,
        })
    }
}

fn unsupported(track: u32, what: &'static str) -> FragmentError {
    FragmentError::Unsupported { track, what }
}

fn track_run(kind: TrackKind, run: &Run, start: i64) -> TrackRun {
    TrackRun { kind, start, chunks: run.chunks.clone(), samples: run.samples.clone() }
}

fn top<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Result<BoxRef<'a>, FragmentError> {
    for found in Boxes::new(bytes) {
        let found = found?;
        if &found.kind.0 == kind {
            return Ok(found);
        }
    }
    Err(BoxError::Missing { kind: FourCc(*kind), parent: FourCc(*b"file") }.into())
}

fn read_track(trak: &BoxRef<'_>, movie_scale: u32) -> Result<InitTrack, FragmentError> {
    let (id, width, height) = read_tkhd(&trak.child(b"tkhd")?)?;
    let mdia = trak.child(b"mdia")?;
    let mut mdhd = mdia.child(b"mdhd")?.fields();
    let (version, _) = mdhd.version()?;
    mdhd.skip(if version == 0 { 8 } else { 16 })?;
    let scale = mdhd.u32()?;
    let mut hdlr = mdia.child(b"hdlr")?.fields();
    hdlr.skip(8)?;
    let stsd = mdia.child(b"minf")?.child(b"stbl")?.child(b"stsd")?;
    let mut fields = stsd.fields();
    fields.skip(4)?;
    let entries = fields.u32()?;
    let entry =
        Boxes::new(fields.rest()).next().ok_or(BoxError::Missing { kind: FourCc(*b"avc1"), parent: stsd.kind })??;
    if entries != 1 {
        return Err(unsupported(id, "more than one sample description"));
    }
    let (kind, expected_scale) = match (&hdlr.take::<4>()?, &entry.kind.0) {
        (b"vide", b"avc1") => (TrackKind::Video, u64::from(VIDEO_TIMESCALE)),
        (b"soun", b"mp4a") => (TrackKind::Audio, SAMPLE_RATE),
        _ => {
            return Err(unsupported(id, "a codec other than H.264 (avc1) and AAC (mp4a)"));
        }
    };
    if u64::from(scale) != expected_scale {
        return Err(unsupported(id, "a time scale other than 90000 for video and 48000 for audio"));
    }
    let media_start = match trak.find(b"edts")? {
        Some(edts) => read_elst(&edts.child(b"elst")?, id, movie_scale, scale)?,
        None => 0,
    };
    Ok(InitTrack { id, kind, media_start, width, height, entry: entry.whole.to_vec() })
}

/// Track ID, width and height.
fn read_tkhd(tkhd: &BoxRef<'_>) -> Result<(u32, u32, u32), FragmentError> {
    let mut fields = tkhd.fields();
    let (version, _) = fields.version()?;
    fields.skip(if version == 0 { 8 } else { 16 })?;
    let id = fields.u32()?;
    fields.skip(4 + if version == 0 { 4 } else { 8 })?; // reserved, duration
    fields.skip(8 + 8 + 36)?; // reserved, layer to volume, matrix
    Ok((id, fields.u32()?, fields.u32()?))
}

/// Media time shown at 0: that of the media edit, less what an empty edit before it delays it by.
fn read_elst(elst: &BoxRef<'_>, id: u32, movie_scale: u32, scale: u32) -> Result<i64, FragmentError> {
    let mut fields = elst.fields();
    let (version, _) = fields.version()?;
    let mut delay: i128 = 0;
    for _ in 0..fields.u32()? {
        let duration = fields.sized(version)?;
        let media_time = match version {
            0 => i64::from(fields.i32()?),
            _ => fields.u64()?.cast_signed(),
        };
        fields.skip(4)?;
        if media_time >= 0 {
            let delay = delay * i128::from(scale) / i128::from(movie_scale.max(1));
            return i64::try_from(i128::from(media_time) - delay).map_err(|_| unsupported(id, "a time beyond 63 bits"));
        }
        delay += i128::from(duration);
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
