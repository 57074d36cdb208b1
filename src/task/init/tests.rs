use super::*;
use crate::task::timeline::FrameRate;
use proptest::prelude::*;

/// FFmpeg's own output: 4 s of 64×64 at 15 fps, keyframes on the grid, silence in AAC; `delay_moov`, so with edit lists.
const TINY: &[u8] = include_bytes!("../../../tests/fixtures/tiny.fmp4");

/// The init segment and the segments of a fragmented file.
fn split(file: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let starts: Vec<usize> =
        Boxes::new(file).map(Result::unwrap).filter(|b| matches!(&b.kind.0, b"moof" | b"mfra")).map(|b| b.at).collect();
    let segments = starts.windows(2).map(|w| &file[w[0]..w[1]]).collect();
    (&file[..starts[0]], segments)
}

#[test]
fn tracks_are_told_by_codec_and_carry_their_entry_whole() {
    let init = Init::read(split(TINY).0).unwrap();
    let video = init.track(TrackKind::Video).unwrap();
    assert_eq!((video.id, video.media_start), (1, 0));
    assert_eq!((video.width >> 16, video.height >> 16), (64, 64));
    let has = |entry: &[u8], kind: &[u8]| entry.windows(4).any(|w| w == kind);
    assert!(has(&video.entry, b"avcC") && has(&video.entry, b"colr"));
    let audio = init.track(TrackKind::Audio).unwrap();
    assert_eq!((audio.id, audio.media_start), (2, 1024));
    assert!(has(&audio.entry, b"esds"));
}

#[test]
fn stored_segments_get_their_place_on_the_recorded_scale() {
    let (init, parts) = split(TINY);
    let init = Init::read(init).unwrap();
    let s = FrameRate::try_from(15).unwrap().segment();
    let read = |n: usize, start: u64| init.segment(Bytes::copy_from_slice(parts[n]), n as u64, start).unwrap();
    let first = read(0, 0);
    assert_eq!((first.index, first.samples), (0, s));
    assert_eq!((first.runs[0].start, first.runs[0].samples.len()), (0, 24));
    assert_eq!((first.runs[1].start, first.runs[1].samples.len()), (-1024, 76));
    let second = read(1, s);
    assert_eq!((second.runs[0].start, second.runs[1].start), (144_000, 76_800));
    let last = read(2, 2 * s);
    assert_eq!(last.samples, 192_000 - 2 * s);
    assert!(last.runs[0].samples[0].sync && !last.runs[0].samples[1].sync);
    // The same bytes as the first of a second encoder that took over at segment 7.
    let later = read(0, 7 * s);
    assert_eq!(later.runs[0].start, 7 * 144_000);
    assert_eq!(later.runs[1].start, 7 * 76_800 - 1024);
}

#[test]
fn what_is_not_a_recording_is_refused_by_name() {
    let (init, parts) = split(TINY);
    let with = |kind: &[u8], ahead: usize, byte: u8| {
        let mut bytes = init.to_vec();
        let at = bytes.windows(4).position(|w| w == kind).unwrap();
        bytes[at + ahead] = byte;
        Init::read(&bytes).unwrap_err().to_string()
    };
    assert!(with(b"avc1", 0, b'h').contains("avc1"));
    assert!(with(b"mdhd", 18, 9).contains("time scale"));
    assert!(with(b"stsd", 11, 2).contains("more than one"));
    assert!(Init::read(parts[0]).unwrap_err().to_string().contains("moov"));
    let init = Init::read(init).unwrap();
    assert!(init.segment(Bytes::new(), 0, 0).is_err());
}

proptest! {
    #[test]
    fn garbage_never_panics(
        changes in proptest::collection::vec((0usize..TINY.len(), any::<u8>()), 1..20),
        start in any::<u64>(),
    ) {
        let mut bytes = TINY.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let cut = bytes.windows(4).position(|w| w == b"moof").unwrap_or(1304);
        if let Ok(init) = Init::read(&bytes[..cut]) {
            let _ = init.segment(Bytes::from(bytes).slice(cut.saturating_sub(4)..), 0, start);
        }
    }
}
