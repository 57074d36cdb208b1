use super::track::Chunk;
use super::validate::{File, validate};
use super::*;
use crate::task::boxes::Boxes;
use crate::task::segment::{Sample, TrackRun};
use crate::task::timeline::{FrameRate, ticks};
use proptest::prelude::*;

/// FFmpeg's own output: 4 s of 64×64 at 15 fps, keyframes on the grid, silence in AAC.
const TINY: &[u8] = include_bytes!("../../../tests/fixtures/tiny.fmp4");
/// Segment length at 15 and 30 fps.
const S: u64 = 76_800;

/// The init segment and the segments of a fragmented file, placed as segments `first..` of the recording.
fn stored(file: &[u8], first: u64) -> (Vec<u8>, Vec<Segment>) {
    let starts: Vec<usize> =
        Boxes::new(file).map(Result::unwrap).filter(|b| matches!(&b.kind.0, b"moof" | b"mfra")).map(|b| b.at).collect();
    let init = Init::read(&file[..starts[0]]).unwrap();
    let segments = starts.windows(2).enumerate().map(|(n, w)| {
        let index = first + n as u64;
        let bytes = Bytes::copy_from_slice(&file[w[0]..w[1]]);
        init.segment(bytes, index, index * S).unwrap()
    });
    (file[..starts[0]].to_vec(), segments.collect())
}

/// A made-up segment: pictures with these (duration, size), sound on the grid from `audio` with these sizes; each track's
/// bytes are its sample's number and kind, so that a wrong place shows.
fn made(index: u64, start: u64, video: &[(u32, u32)], audio: i64, sound: &[u32]) -> Segment {
    let mut bytes = vec![0xEE; 40]; // stands for the moof and the mdat header
    let mut run = |kind, start, samples: Vec<Sample>| {
        let offset = bytes.len() as u32;
        for (n, sample) in samples.iter().enumerate() {
            let mark = n as u8 ^ if kind == TrackKind::Video { 0x80 } else { 0 };
            bytes.resize(bytes.len() + sample.size as usize, mark);
        }
        TrackRun { kind, start, chunks: vec![(offset, samples.len() as u32)], samples }
    };
    let pictures =
        video.iter().enumerate().map(|(n, (duration, size))| Sample { duration: *duration, size: *size, sync: n == 0 });
    let frames = sound.iter().map(|size| Sample { duration: 1024, size: *size, sync: true });
    let runs = vec![
        run(TrackKind::Video, ticks(start) as i64, pictures.collect()),
        run(TrackKind::Audio, audio, frames.collect()),
    ];
    let samples = video.iter().map(|v| u64::from(v.0)).sum::<u64>() * 8 / 15;
    Segment { index, bytes: bytes.into(), runs, samples }
}

fn finish(movie: &Movie, payload: &[u8], end: u64, alignment: u64) -> (Vec<u8>, File) {
    let head = movie.head(end, alignment).unwrap();
    assert_eq!(head.len() as u64 % alignment, 0);
    let file = [&head[..], payload].concat();
    let judged = validate(&file, file.len() as u64).unwrap();
    assert_eq!(judged.payload_at, head.len() as u64);
    (file, judged)
}

#[test]
fn a_recording_becomes_a_faststart_file_with_every_sample_unchanged() {
    let (init, segments) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    let payload: Vec<u8> = segments.iter().flat_map(|s| movie.push(s).unwrap()).collect();
    assert_eq!((movie.recorded(), movie.payload()), (192_000, payload.len() as u64));
    let (file, judged) = finish(&movie, &payload, 192_000, 4096);
    assert_eq!((judged.scale, judged.duration), (48_000, 192_000));
    for (n, track) in judged.tracks.iter().enumerate() {
        let source: Vec<&[u8]> = segments.iter().flat_map(|s| sample_bytes(s, n)).collect();
        let copied: Vec<&[u8]> = track.samples.iter().map(|s| &file[s.offset as usize..][..s.size as usize]).collect();
        assert!(source == copied, "track {n}");
        assert!(track.chunks >= 5, "a chunk holds at most a second: {}", track.chunks);
    }
    let [video, audio] = &judged.tracks[..] else { panic!() };
    assert_eq!((video.handler, video.media_start), (*b"vide", 0));
    assert_eq!((audio.handler, audio.media_start), (*b"soun", 1024));
    assert_eq!((video.shown, audio.shown), (192_000, 192_000));
    let keys: Vec<_> = (1..).zip(&video.samples).filter(|s| s.1.sync).map(|s| s.0).collect();
    assert_eq!(keys, [1, 25, 49]);
    let names: [&[u8]; 6] = [b"avcC", b"colr", b"pasp", b"esds", b"btrt", b"panorec"];
    for name in names {
        assert!(file.windows(name.len()).any(|w| w == name), "{}", name.escape_ascii());
    }
}

fn sample_bytes(segment: &Segment, run: usize) -> Vec<&[u8]> {
    let run = &segment.runs[run];
    let mut at = run.chunks[0].0 as usize;
    run.samples
        .iter()
        .map(|s| {
            at += s.size as usize;
            &segment.bytes[at - s.size as usize..at]
        })
        .collect()
}

#[test]
fn the_last_picture_lasts_up_to_the_end_whatever_the_encoder_said() {
    let (init, _) = stored(TINY, 0);
    let mut segment = made(0, 0, &[(90_000, 10), (90_000, 10), (3000, 10)], -1024, &[5; 97]);
    segment.runs[1].samples[96].duration = 320;
    let mut movie = Movie::new(&init).unwrap();
    let payload = movie.push(&segment).unwrap();
    let last = |end: u64| {
        let (_, judged) = finish(&movie, &payload, end, 1);
        let video = &judged.tracks[0];
        (video.samples[2].duration, video.shown, judged.tracks[1].shown)
    };
    assert_eq!(last(96_000 + 1600), (3000, 97_600, 97_600));
    assert_eq!(last(96_000 + 800).0, 1500);
    assert_eq!(last(96_000 + 48_000).0, 90_000);
    // An end before the last picture: it stays in the file, and the edit list ends the track before it.
    assert_eq!(last(90_000), (3000, 90_000, 90_000));
    let empty = movie.head(0, 1).unwrap_err().to_string();
    assert!(empty.contains("nothing"), "{empty}");
    let far = movie.head(1 << 50, 1).unwrap_err();
    assert!(matches!(far, Mp4Error::End { .. }), "{far}");
}

/// Lengths of the frames of sound, one after the other.
fn steps(judged: &File) -> Vec<u32> {
    judged.tracks[1].samples.iter().map(|s| s.duration).collect()
}

#[test]
fn sound_steps_evenly_through_hand_overs_between_two_frames_of_it() {
    let (init, _) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    let (mut payload, mut index) = (Vec::new(), 0);
    let nearest = |at: u64| ((at + 512) / 1024 * 1024) as i64;
    for slots in [7_u64, 1, 33, 2, 14, 47, 5] {
        // One that records a segment and is paused in the next, where another one takes over.
        movie.init(&init).unwrap();
        let (start, length) = (movie.recorded(), slots * 1600);
        let whole = made(index, start, &[(144_000, 9)], nearest(start) - 1024, &[5; 76]);
        let frames = vec![5; length.div_ceil(1024) as usize];
        let tail = made(index + 1, start + S, &[(ticks(length) as u32, 9)], nearest(start + S), &frames);
        payload.extend(movie.push(&whole).unwrap());
        payload.extend(movie.push(&tail).unwrap());
        index += 2;
        let end = movie.recorded();
        assert_eq!(end, start + S + length);
        let (_, judged) = finish(&movie, &payload, end, 1);
        let sound = steps(&judged);
        assert!(sound.iter().all(|step| *step == 1024), "{slots} slots: {sound:?}");
        // What has come is what there is to hear, to half a frame, however many there were.
        let off = (sound.len() as i64 - 1) * 1024 - end as i64;
        assert!(off.abs() <= 512, "{off} samples off the picture after {end}");
        assert_eq!(judged.tracks[0].shown, end);
    }
}

#[test]
fn sound_steps_evenly_where_it_goes_on_after_an_end_that_was_to_be_the_last() {
    let (init, segments) = stored(TINY, 0);
    let parsed = Init::read(&init).unwrap();
    for slots in 0..9_u64 {
        let mut movie = Movie::new(&init).unwrap();
        let mut payload: Vec<u8> = segments[..2].iter().flat_map(|s| movie.push(s).unwrap()).collect();
        // Killed before it could say so, and its last frame of sound is cut.
        let length = (slots + 1) * 1600;
        let mut last =
            made(2, 2 * S, &[(ticks(length) as u32, 9)], 2 * S as i64, &vec![5; length.div_ceil(1024) as usize]);
        let cut = length - (length - 1) / 1024 * 1024;
        last.runs[1].samples.last_mut().unwrap().duration = cut as u32;
        payload.extend(movie.push(&last).unwrap());
        let end = movie.recorded();
        let (_, judged) = finish(&movie, &payload, end, 1);
        assert_eq!([judged.tracks[0].shown, judged.tracks[1].shown], [end; 2], "as the last it is exact");
        movie.init(&init).unwrap();
        for (n, segment) in segments[..2].iter().enumerate() {
            let next = parsed.segment(segment.bytes.clone(), 3 + n as u64, end + n as u64 * S).unwrap();
            payload.extend(movie.push(&next).unwrap());
        }
        let (_, judged) = finish(&movie, &payload, end + 2 * S, 1);
        let sound = steps(&judged);
        assert!(sound.iter().all(|step| *step == 1024), "{sound:?}");
        let off = (sound.len() as i64 - 1) * 1024 - (end + 2 * S) as i64;
        assert!(off.abs() <= 512, "{off} samples off the picture");
    }
}

#[test]
fn a_second_encoder_goes_on_without_its_priming_and_with_its_own_parameters() {
    let (init, segments) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    let mut payload = movie.push(&segments[0]).unwrap().to_vec();
    // The same parameters: same description, and the priming frame (at S − 1024) is left out.
    movie.init(&init).unwrap();
    let (_, again) = stored(TINY, 1);
    payload.extend(movie.push(&again[0]).unwrap());
    // Other parameters: one byte of the SPS's level.
    let mut other = init.clone();
    let avcc = other.windows(4).position(|w| w == b"avcC").unwrap();
    other[avcc + 7] += 1;
    movie.init(&other).unwrap();
    let (_, third) = stored(TINY, 2);
    payload.extend(movie.push(&third[0]).unwrap());
    let (_, judged) = finish(&movie, &payload, 3 * S, 1);
    let [video, audio] = &judged.tracks[..] else { panic!() };
    assert_eq!((video.descriptions, audio.descriptions), (2, 1));
    assert_eq!((video.samples[47].description, video.samples[48].description), (1, 2));
    assert_eq!(audio.samples.len(), 226, "one priming frame and 3·75 on the grid");
    assert_eq!(audio.shown, 3 * S);
    // Without a new encoder there is no priming frame to drop: this would be an overlap.
    let (_, fourth) = stored(TINY, 3);
    let error = movie.push(&fourth[0]).unwrap_err().to_string();
    assert!(error.contains("begins at 229376"), "{error}");
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let (init, segments) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    let order = movie.push(&segments[1]).unwrap_err();
    assert_eq!(order.to_string(), "segment 1 was given where segment 0 follows");
    movie.push(&segments[0]).unwrap();
    let mut refuse = |change: &dyn Fn(&mut Segment), text: &str| {
        let mut segment = segments[1].clone();
        change(&mut segment);
        let error = movie.push(&segment).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    refuse(&|s| s.runs[0].start += 6000, "begins at 150000, but the track ends at 144000");
    refuse(&|s| s.runs[1].start += 1024, "begins at 77824, but the track ends at 76800");
    refuse(&|s| s.runs[1].start -= 1024, "begins at 75776");
    refuse(&|s| s.bytes = s.bytes.slice(..100), "outside");
    refuse(&|s| s.runs[1].chunks[0].1 += 1, "outside");
    refuse(&|s| s.runs[1].chunks[0].1 -= 1, "outside");
    refuse(&|s| s.runs.truncate(0), "0 runs of Video");
    refuse(&|s| s.runs.push(s.runs[1].clone()), "2 runs of Audio");
    refuse(&|s| s.samples = u64::MAX, "at most 3600 s");
    movie.push(&segments[1]).unwrap();
    assert!(Movie::new(b"not an init segment").is_err());
}

#[test]
fn a_segment_whose_payload_could_not_be_appended_has_not_happened() {
    let (init, segments) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    let mut payload = movie.push(&segments[0]).unwrap().to_vec();
    drop(movie.prepare(&segments[1]).unwrap()); // the disk was full
    let (_, judged) = finish(&movie, &payload, S, 1);
    assert_eq!((movie.recorded(), judged.tracks[0].samples.len()), (S, 24));
    let step = movie.prepare(&segments[1]).unwrap();
    payload.extend(step.payload());
    step.commit();
    let (_, judged) = finish(&movie, &payload, 2 * S, 1);
    assert_eq!(judged.tracks[0].samples.len(), 48);
}

#[test]
fn beyond_four_gigabytes_places_and_sizes_are_wide() {
    let (init, _) = stored(TINY, 0);
    let narrow = u64::from(u32::MAX);
    // (payload, width of places, length of the mdat header): all fits; the head pushes the places over; so is the mdat.
    for (payload, places, header) in
        [(narrow - 100_000, b"stco", 8), (narrow - 1000, b"co64", 8), (narrow + 1000, b"co64", 16)]
    {
        let mut movie = Movie::new(&init).unwrap();
        let first = made(0, 0, &[(144_000, 10)], -1024, &[5; 76]);
        movie.push(&first).unwrap();
        // Two pictures of gigabytes: in the tables only, no test wants them in memory.
        let half = (payload - movie.payload) / 2;
        for size in [half, payload - movie.payload - half] {
            let video = &mut movie.tracks[0];
            let duration = 3000;
            let (size, offset) = (size as u32, movie.payload);
            video.push(&Sample { duration, size, sync: false });
            video.chunks.push(Chunk { offset, samples: 1, description: 1 });
            movie.payload += u64::from(size);
        }
        let head = movie.head(S + 3200, 4096).unwrap();
        let judged = validate(&head, head.len() as u64 + payload).unwrap();
        assert_eq!(judged.payload_at, head.len() as u64);
        assert!(contains(&head, places), "{payload}");
        let mdat = head.windows(4).rposition(|w| w == b"mdat").unwrap();
        assert_eq!(head.len() - mdat + 4, header, "{payload}");
    }
}

#[test]
fn another_reader_understands_every_box_and_gives_it_back_alike() {
    use mp4_atom::{Decode, Encode, ReadFrom};
    let (init, segments) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    segments.iter().for_each(|s| drop(movie.push(s).unwrap()));
    let head = movie.head(192_000, 1).unwrap();
    let mut rest = &head[..];
    let ftyp = mp4_atom::Ftyp::read_from(&mut rest).unwrap();
    let moov = mp4_atom::Moov::read_from(&mut rest).unwrap();
    assert_eq!(ftyp.major_brand, mp4_atom::FourCC::new(b"isom"));
    assert_eq!((moov.mvhd.timescale, moov.mvhd.duration, moov.trak.len()), (48_000, 192_000, 2));
    let audio = &moov.trak[1];
    assert_eq!(audio.edts.as_ref().unwrap().elst.as_ref().unwrap().entries[0].media_time, Some(1024));
    let tables = &audio.mdia.minf.stbl;
    assert_eq!((tables.sbgp.len(), tables.sgpd.len()), (1, 1));
    let mut again = Vec::new();
    moov.encode(&mut again).unwrap();
    assert_eq!(mp4_atom::Moov::decode(&mut &again[..]).unwrap(), moov);
}

#[test]
fn the_judge_notices_what_is_wrong() {
    let (init, segments) = stored(TINY, 0);
    let mut movie = Movie::new(&init).unwrap();
    let payload = movie.push(&segments[0]).unwrap();
    let (file, _) = finish(&movie, &payload, S, 1);
    let wrong = |name: &[u8], ahead: usize, change: u8, text: &str| {
        let mut bad = file.clone();
        let at = bad.windows(4).position(|w| w == name).unwrap();
        bad[at + ahead] ^= change;
        let verdict = validate(&bad, bad.len() as u64).unwrap_err();
        assert!(verdict.contains(text), "{verdict}");
    };
    wrong(b"stsz", 19, 1, "belong to no chunk"); // first sample a byte longer
    wrong(b"stco", 15, 1, "belong to no chunk"); // first chunk a byte off
    wrong(b"stts", 19, 1, "sums to"); // first duration
    wrong(b"stss", 15, 2, "stss"); // first keyframe is not the first sample
    wrong(b"stsc", 19, 1, "chunks hold");
    wrong(b"elst", 15, 1, "tkhd says");
    wrong(b"elst", 19, 0x80, "outside the media");
    wrong(b"mvhd", 23, 1, "longest track");
    wrong(b"stbl", 4, 1, "stbl"); // a child that overruns
    wrong(b"mdat", 0, 0x20, "not ftyp, moov, mdat");
    let short = validate(&file, file.len() as u64 - 1).unwrap_err();
    assert!(short.contains("beyond the file"), "{short}");
}

fn contains(bytes: &[u8], name: &[u8]) -> bool {
    bytes.windows(name.len()).any(|w| w == name)
}

proptest! {
    #[test]
    fn any_recording_makes_a_valid_file(
        // Slots of each picture (30 fps) and its size, per segment; the last slot of a segment is filled up.
        plan in proptest::collection::vec(
            proptest::collection::vec((1u32..40, 1u32..50), 1..12), 1..6),
        sizes in proptest::collection::vec(1u32..30, 75),
        stop in 0u64..48,
        alignment in prop_oneof![Just(1u64), Just(2), Just(7), Just(512), Just(4096)],
    ) {
        let rate = FrameRate::default();
        let (init, _) = stored(TINY, 0);
        let mut movie = Movie::new(&init).unwrap();
        let (mut payload, mut pictures) = (Vec::new(), 0);
        for (index, slots) in plan.iter().enumerate() {
            let mut left = rate.slots_per_segment() as u32;
            let mut video = Vec::new();
            for (n, (slots_of, size)) in slots.iter().enumerate() {
                let own = if n + 1 == slots.len() { left } else { (*slots_of).min(left - 1) };
                if own > 0 {
                    video.push((own * 3000, *size));
                    left -= own;
                }
            }
            pictures += video.len();
            let start = index as u64 * S;
            let mut sound = sizes.clone();
            let audio = if index == 0 { sound.push(3); -1024 } else { start as i64 };
            payload.extend(movie.push(&made(index as u64, start, &video, audio, &sound)).unwrap());
        }
        let end = plan.len() as u64 * S - stop * rate.slot();
        prop_assume!(end > 0);
        let (file, judged) = finish(&movie, &payload, end, alignment);
        prop_assert_eq!(judged.duration, end);
        prop_assert_eq!(judged.tracks[0].samples.len(), pictures);
        prop_assert_eq!(judged.tracks[1].samples.len(), plan.len() * 75 + 1);
        for sample in &judged.tracks[0].samples {
            // The mark that `made` wrote: a picture, not sound.
            prop_assert!(file[sample.offset as usize] & 0x80 != 0);
        }
    }
}
