//! A segment's place in the stream: each encoder counts from 0, the stream from the beginning of the recording. What
//! changes is `baseMediaDecodeTime` of each `tfdt` (ISO/IEC 14496-12, section 8.8.12) and nothing else.

use bytes::Bytes;

use crate::task::boxes::{BoxError, Boxes};
use crate::task::fragment::{FragmentError, read_fragment};
use crate::task::init::Init;
use crate::task::segment::{Segment, TrackKind};
use crate::task::timeline::{AAC_FRAME, ticks};

/// A segment in its place.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The segment.
    pub bytes: Bytes,
    /// Recorded samples.
    pub samples: u64,
    /// Picture and sound begin where those of the segment before end: not so with what a new encoder puts out first.
    pub flush: bool,
}

/// Puts a stored segment at recorded sample `start`.
pub fn place(init: &Init, index: u64, start: u64, stored: &Bytes) -> Result<Placed, FragmentError> {
    let segment: Segment = init.segment(stored.clone(), index, start)?;
    let before = read_fragment(stored)?;
    let mut shifts = Vec::new();
    for run in &segment.runs {
        let Some(track) = init.track(run.kind) else { continue };
        let Some(old) = before.run(track.id) else { continue };
        let new = run.start.saturating_add(track.media_start);
        shifts.push((track.id, i128::from(new) - i128::from(old.start)));
    }
    let audio = segment.runs.iter().find(|r| r.kind == TrackKind::Audio);
    let flush = start.is_multiple_of(AAC_FRAME) && audio.is_none_or(|a| a.start >= start.cast_signed());
    debug_assert!(segment.runs.iter().any(|r| r.kind == TrackKind::Video && r.start == ticks(start).cast_signed()));
    Ok(Placed { bytes: shifted(stored, &shifts)?, samples: segment.samples, flush })
}

fn shifted(stored: &Bytes, shifts: &[(u32, i128)]) -> Result<Bytes, BoxError> {
    let mut bytes = stored.to_vec();
    for moof in Boxes::new(stored) {
        let moof = moof?;
        if &moof.kind.0 != b"moof" {
            continue;
        }
        for traf in Boxes::new(moof.body) {
            let traf = traf?;
            if &traf.kind.0 != b"traf" {
                continue;
            }
            let mut tfhd = traf.child(b"tfhd")?.fields();
            tfhd.version()?;
            let track = tfhd.u32()?;
            let Some((_, shift)) = shifts.iter().find(|(id, _)| *id == track) else { continue };
            let tfdt = traf.child(b"tfdt")?;
            let (version, _) = tfdt.fields().version()?;
            // Version and flags come before the time.
            let at = moof.body_at() + traf.body_at() + tfdt.body_at() + 4;
            let width = if version == 0 { 4 } else { 8 };
            let field = &mut bytes[at..at + width];
            let old = field.iter().fold(0_i128, |all, byte| (all << 8) | i128::from(*byte));
            // A priming frame before the beginning of a recording that is not its encoder's first stays at the beginning.
            let new = (old + shift).max(0).to_be_bytes();
            field.copy_from_slice(&new[16 - width..]);
        }
    }
    Ok(bytes.into())
}
