//! Writing the head: boxes with sizes patched in, tables from [`Track`].

use super::track::Track;
use super::{Movie, Mp4Error};
use crate::task::boxes::{BoxError, Boxes, FourCc};
use crate::task::segment::TrackKind;
use crate::task::timeline::{SAMPLE_RATE, VIDEO_TIMESCALE, ticks};
use bytes::Bytes;

/// What the file calls its maker (`©too`).
const TOOL: &[u8] = b"panorec";
/// Language `und`, three letters of five bits each.
const UNDETERMINED: u16 = 0x55c4;
/// Transformation matrix that changes nothing.
const IDENTITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Bytes under construction.
struct Writer(Vec<u8>);

impl Writer {
    fn boxed(&mut self, kind: &[u8; 4], body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.u32(0);
        self.0.extend_from_slice(kind);
        body(self);
        let size = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }
    fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Self)) {
        self.boxed(kind, |w| {
            w.u32(u32::from(version) << 24 | flags);
            body(w);
        });
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
    fn words(&mut self, words: &[u32]) {
        words.iter().for_each(|w| self.u32(*w));
    }
    /// 64 bits in version 1, 32 before.
    fn sized(&mut self, version: u8, value: u64) {
        match version {
            0 => self.u32(value as u32),
            _ => self.u64(value),
        }
    }
    /// Number of entries, then the entries.
    fn table<T>(&mut self, entries: impl IntoIterator<Item = T>, mut put: impl FnMut(&mut Self, T)) {
        let at = self.0.len();
        self.u32(0);
        let mut count = 0u32;
        for entry in entries {
            put(self, entry);
            count += 1;
        }
        self.0[at..at + 4].copy_from_slice(&count.to_be_bytes());
    }
}

/// Version of a box whose times must hold `value`.
fn version_for(value: u64) -> u8 {
    u8::from(u32::try_from(value).is_err())
}

/// How one track ends.
struct Ending<'a> {
    track: &'a Track,
    scale: u32,
    /// Duration of the last sample.
    last: u32,
    /// Length of the media in the track's time scale.
    media: u64,
    /// What is shown, in samples (the movie's time scale).
    shown: u64,
    /// Media time at which showing starts, where an edit list is needed.
    edit: Option<u64>,
}

fn ending(track: &Track, end: u64, recorded: u64) -> Result<Ending<'_>, Mp4Error> {
    if track.kind == TrackKind::Audio {
        let lead = (-track.first).max(0).cast_unsigned();
        return Ok(Ending {
            track,
            scale: SAMPLE_RATE as u32,
            last: track.last,
            media: track.media,
            shown: end.min(track.media.saturating_sub(lead)),
            edit: Some(lead),
        });
    }
    let before = track.media - u64::from(track.last);
    let wanted = ticks(end);
    // Pictures that begin at or after the end stay in the media; the edit list ends the track before them.
    let (last, edit) = if before < wanted {
        let last = u32::try_from(wanted - before);
        (last.map_err(|_| Mp4Error::End { end, recorded })?, None)
    } else {
        (track.last, Some(0))
    };
    Ok(Ending { track, scale: VIDEO_TIMESCALE, last, media: before + u64::from(last), shown: end, edit })
}

/// The file's head.
pub(super) fn head(movie: &Movie, end: u64, alignment: u64) -> Result<Bytes, Mp4Error> {
    let endings = movie
        .tracks
        .iter()
        .filter(|t| !t.sizes.is_empty())
        .map(|t| ending(t, end, movie.recorded))
        .collect::<Result<Vec<_>, _>>()?;
    if end == 0 || !endings.iter().any(|e| e.track.kind == TrackKind::Video) {
        return Err(Mp4Error::Empty { end });
    }
    let mdat_header = if version_for(movie.payload + 8) == 0 { 8 } else { 16 };
    // The length of the tables depends on how wide the places are, not on the places: measure, then place.
    let lengths = |wide: bool| {
        let bare = (front(&endings, end, 0, wide).len() + mdat_header) as u64;
        let padding = match bare.next_multiple_of(alignment) - bare {
            0 => 0,
            room @ 1..8 => room + alignment * (8 - room).div_ceil(alignment),
            room => room,
        };
        (bare + padding, padding)
    };
    let (narrow, _) = lengths(false);
    let wide = version_for(narrow + movie.payload) != 0;
    let (length, padding) = lengths(wide);
    let mut out = Writer(front(&endings, end, length, wide));
    if padding > 0 {
        out.boxed(b"free", |w| w.0.resize(w.0.len() + padding as usize - 8, 0));
    }
    match mdat_header {
        8 => out.u32((movie.payload + 8) as u32),
        _ => out.u32(1),
    }
    out.bytes(b"mdat");
    if mdat_header == 16 {
        out.u64(movie.payload + 16);
    }
    Ok(out.0.into())
}

/// `ftyp` and `moov` for a payload that begins at `base`.
fn front(endings: &[Ending<'_>], end: u64, base: u64, wide: bool) -> Vec<u8> {
    let mut out = Writer(Vec::new());
    out.boxed(b"ftyp", |w| {
        w.bytes(b"isom\0\0\x02\0isomiso2avc1mp41");
    });
    let shown = endings.iter().map(|e| e.shown).max().unwrap_or(end);
    out.boxed(b"moov", |w| {
        let version = version_for(shown);
        w.full(b"mvhd", version, 0, |w| {
            w.sized(version, 0);
            w.sized(version, 0);
            w.u32(SAMPLE_RATE as u32);
            w.sized(version, shown);
            w.words(&[0x1_0000, 0x0100_0000, 0, 0]); // rate 1, volume 1
            w.words(&IDENTITY);
            w.words(&[0; 6]);
            w.u32(endings.len() as u32 + 1); // next track ID
        });
        for (n, ending) in endings.iter().enumerate() {
            w.boxed(b"trak", |w| trak(w, ending, n as u32 + 1, base, wide));
        }
        w.boxed(b"udta", |w| w.full(b"meta", 0, 0, tool));
    });
    out.0
}

fn tool(w: &mut Writer) {
    w.full(b"hdlr", 0, 0, |w| {
        w.bytes(b"\0\0\0\0mdirappl\0\0\0\0\0\0\0\0\0");
    });
    w.boxed(b"ilst", |w| {
        w.boxed(b"\xa9too", |w| {
            w.full(b"data", 0, 1, |w| {
                w.u32(0);
                w.bytes(TOOL);
            });
        });
    });
}

fn trak(w: &mut Writer, ending: &Ending<'_>, id: u32, base: u64, wide: bool) {
    const ENABLED_IN_MOVIE: u32 = 3;
    let (track, is_audio) = (ending.track, ending.track.kind == TrackKind::Audio);
    let version = version_for(ending.shown);
    w.full(b"tkhd", version, ENABLED_IN_MOVIE, |w| {
        w.sized(version, 0);
        w.sized(version, 0);
        w.words(&[id, 0]);
        w.sized(version, ending.shown);
        w.words(&[0, 0, 0]); // reserved, layer, alternate group
        w.u32(if is_audio { 0x0100_0000 } else { 0 }); // volume
        w.words(&IDENTITY);
        w.words(&[track.width, track.height]);
    });
    if let Some(media_time) = ending.edit {
        w.boxed(b"edts", |w| {
            w.full(b"elst", version, 0, |w| {
                w.u32(1);
                w.sized(version, ending.shown);
                w.sized(version, media_time);
                w.u32(0x1_0000);
            });
        });
    }
    w.boxed(b"mdia", |w| {
        let version = version_for(ending.media);
        w.full(b"mdhd", version, 0, |w| {
            w.sized(version, 0);
            w.sized(version, 0);
            w.u32(ending.scale);
            w.sized(version, ending.media);
            w.u16(UNDETERMINED);
            w.u16(0);
        });
        w.full(b"hdlr", 0, 0, |w| {
            w.u32(0);
            w.bytes(if is_audio { b"soun" } else { b"vide" });
            w.words(&[0; 3]);
            w.bytes(if is_audio { b"SoundHandler\0" } else { b"VideoHandler\0" });
        });
        w.boxed(b"minf", |w| {
            if is_audio {
                w.full(b"smhd", 0, 0, |w| w.u32(0));
            } else {
                w.full(b"vmhd", 0, 1, |w| w.u64(0));
            }
            w.boxed(b"dinf", |w| {
                w.full(b"dref", 0, 0, |w| {
                    w.u32(1);
                    w.full(b"url ", 0, 1, |_| {}); // the media is in this file
                });
            });
            w.boxed(b"stbl", |w| stbl(w, ending, base, wide));
        });
    });
}

fn stbl(w: &mut Writer, ending: &Ending<'_>, base: u64, wide: bool) {
    let track = ending.track;
    let (bytes, most) = track.rates(ending.scale.into());
    let per_second = u128::from(bytes) * 8 * u128::from(ending.scale) / u128::from(ending.media.max(1));
    let largest = track.sizes.iter().copied().max().unwrap_or(0);
    let clamp = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
    let rates = [largest, clamp(u128::from(most) * 8), clamp(per_second)];
    w.full(b"stsd", 0, 0, |w| {
        w.table(&track.descriptions, |w, entry| with_btrt(w, entry, &rates));
    });
    w.full(b"stts", 0, 0, |w| {
        w.table(track.durations.runs(ending.last), |w, (count, value)| {
            w.words(&[count, value]);
        });
    });
    if track.kind == TrackKind::Video {
        w.full(b"stss", 0, 0, |w| w.table(&track.sync, |w, n| w.u32(*n)));
    }
    w.full(b"stsc", 0, 0, |w| {
        let mut before = None;
        let changes = track.chunks.iter().enumerate().filter(move |(_, chunk)| {
            let now = Some((chunk.samples, chunk.description));
            std::mem::replace(&mut before, now) != now
        });
        w.table(changes, |w, (n, chunk)| {
            w.words(&[n as u32 + 1, chunk.samples, chunk.description]);
        });
    });
    w.full(b"stsz", 0, 0, |w| {
        w.u32(0); // sizes differ
        w.table(&track.sizes, |w, size| w.u32(*size));
    });
    let places = track.chunks.iter().map(|c| base + c.offset);
    if wide {
        w.full(b"co64", 0, 0, |w| w.table(places, |w, at| w.u64(at)));
    } else {
        w.full(b"stco", 0, 0, |w| w.table(places, |w, at| w.u32(at as u32)));
    }
    if track.kind == TrackKind::Audio {
        roll(w, track.sizes.len() as u32);
    }
}

/// Every AAC frame needs the one before it to come out right: a player that seeks must begin one frame early.
fn roll(w: &mut Writer, samples: u32) {
    w.full(b"sgpd", 1, 0, |w| {
        w.bytes(b"roll");
        w.words(&[2, 1]); // length of an entry, number of entries
        w.u16((-1i16).cast_unsigned());
    });
    w.full(b"sbgp", 0, 0, |w| {
        w.bytes(b"roll");
        w.words(&[1, samples, 1]); // all samples are in group 1
    });
}

/// Length of the fixed fields of a sample entry, header included: child boxes follow.
fn fixed_fields(entry: &[u8]) -> usize {
    match entry.get(4..8) {
        Some(b"avc1") => 8 + 78,
        _ => 8 + 28,
    }
}

/// A sample entry without the encoder's bit-rate guess: it differs between like encoders and is not that of the file.
pub(super) fn without_btrt(entry: &[u8]) -> Result<Vec<u8>, BoxError> {
    let (fixed, children) =
        entry.split_at_checked(fixed_fields(entry)).ok_or(BoxError::Short { kind: FourCc(*b"stsd") })?;
    let mut out = fixed.to_vec();
    for child in Boxes::new(children) {
        let child = child?;
        if &child.kind.0 != b"btrt" {
            out.extend_from_slice(child.whole);
        }
    }
    let size = (out.len() as u32).to_be_bytes();
    out[..4].copy_from_slice(&size);
    Ok(out)
}

fn with_btrt(w: &mut Writer, entry: &[u8], rates: &[u32; 3]) {
    let start = w.0.len();
    w.bytes(entry);
    w.boxed(b"btrt", |w| w.words(rates));
    let size = ((w.0.len() - start) as u32).to_be_bytes();
    w.0[start..start + 4].copy_from_slice(&size);
}
