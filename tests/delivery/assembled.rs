//! Assembled files against the encoder's own stream.

use crate::tools::{encode, pictures, probe, sound, split};
use panorec::delivery::mp4::Movie;
use panorec::delivery::mp4::validate::validate;
use panorec::task::segment::Segment;
use panorec::task::timeline::ticks;
use std::path::{Path, PathBuf};

/// Segment length at 30 fps.
const S: u64 = 76_800;

/// FFmpeg decodes the last AAC frame whole although the edit list and the frame's own duration end it earlier (it does so
/// with the files it writes itself), so decoded sound may be longer than the track by less than a frame.
const LAST_FRAME: usize = 1023;

fn write(dir: &Path, movie: &Movie, payload: &[u8], end: u64) -> PathBuf {
    let head = movie.head(end, 4096).unwrap();
    let file = [&head[..], payload].concat();
    validate(&file, file.len() as u64).unwrap();
    let path = dir.join("assembled.mp4");
    std::fs::write(&path, file).unwrap();
    path
}

fn push(movie: &mut Movie, segments: &[Segment]) -> Vec<u8> {
    segments.iter().flat_map(|s| movie.push(s).unwrap()).collect()
}

#[test]
fn every_picture_and_every_sample_comes_out_as_the_encoder_put_it_in() {
    let dir = tempfile::tempdir().unwrap();
    let source = encode(dir.path(), "source.mp4", "10", "null", "ultrafast");
    let (init, segments) = split(&source, 0, 0);
    assert_eq!(segments.len(), 7);
    let mut movie = Movie::new(&init).unwrap();
    let payload = push(&mut movie, &segments);
    let path = write(dir.path(), &movie, &payload, 480_000);
    let raw = dir.path().join("source.mp4");

    let own = pictures(&path, &[]);
    assert_eq!(own.len(), 300);
    assert_eq!(own, pictures(&raw, &[]), "pictures, their times and durations");
    let heard = sound(&path, &[]);
    let encoded = sound(&raw, &["-ignore_editlist", "1"]);
    assert!((480_000..=480_000 + LAST_FRAME).contains(&heard.len()));
    assert!(heard[..480_000] == encoded[1024..481_024], "priming off, nothing else changed");
    let length = probe(&path, &["-select_streams", "a"], "stream=duration_ts");
    assert_eq!(length, "480000", "the track ends at the very sample");
    assert_eq!(probe(&path, &[], "format=start_time,duration"), "0.000000,10.000000");
    for stream in ["v", "a"] {
        let times = probe(&path, &["-select_streams", stream], "stream=start_time,duration");
        assert_eq!(times, "0.000000,10.000000", "{stream}");
    }
    let colours = "stream=sample_aspect_ratio,color_range,color_space,color_transfer,color_primaries";
    assert_eq!(probe(&path, &["-select_streams", "v"], colours), "1:1,tv,bt709,bt709,bt709");
    assert_eq!(probe(&path, &[], "format_tags=encoder"), "panorec");
}

#[test]
fn seeking_finds_the_picture_of_that_time() {
    let dir = tempfile::tempdir().unwrap();
    let source = encode(dir.path(), "source.mp4", "10", "null", "ultrafast");
    let (init, segments) = split(&source, 0, 0);
    let mut movie = Movie::new(&init).unwrap();
    let payload = push(&mut movie, &segments);
    let path = write(dir.path(), &movie, &payload, 480_000);
    let all = pictures(&path, &[]);
    for picture in [0, 47, 48, 49, 200, 299] {
        let at = format!("{:.6}", (f64::from(picture as u32) - 0.25).max(0.0) / 30.0);
        let found = pictures(&path, &["-ss", &at]);
        assert_eq!(found[0].2, all[picture].2, "picture {picture}");
        assert_eq!(found.len(), 300 - picture);
    }
}

#[test]
fn still_pictures_last_as_long_as_they_stood_and_the_end_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    // Every seventh picture and those that open a segment: what a page that hardly changes gives.
    let filter = "select=not(mod(n\\,7))+not(mod(n\\,48))";
    let source = encode(dir.path(), "still.mp4", "7", filter, "ultrafast");
    let (init, segments) = split(&source, 0, 0);
    let mut movie = Movie::new(&init).unwrap();
    let payload = push(&mut movie, &segments);
    let end = 7 * 48_000 + 1600 * 5;
    let path = write(dir.path(), &movie, &payload, end);
    let own = pictures(&path, &[]);
    let raw = pictures(&dir.path().join("still.mp4"), &[]);
    assert_eq!(own.len(), raw.len());
    let times = |all: &[(i64, i64, String)]| all.iter().map(|p| (p.0, p.2.clone())).collect::<Vec<_>>();
    assert_eq!(times(&own), times(&raw));
    let last = own.last().unwrap();
    assert_eq!(last.0 + last.1, ticks(end) as i64, "the last picture is shown up to the end");
}

#[test]
fn an_encoder_with_other_parameters_takes_over_on_the_grid() {
    let dir = tempfile::tempdir().unwrap();
    let first = encode(dir.path(), "first.mp4", "4.8", "null", "ultrafast"); // three whole segments
    let second = encode(dir.path(), "second.mp4", "5", "negate", "veryfast"); // CABAC and 8×8: another PPS
    let (init, segments) = split(&first, 0, 0);
    let mut movie = Movie::new(&init).unwrap();
    let mut payload = push(&mut movie, &segments[..3]);
    let (init, more) = split(&second, 3, 3 * S);
    movie.init(&init).unwrap();
    payload.extend(push(&mut movie, &more));
    let end = 3 * S + 240_000;
    let path = write(dir.path(), &movie, &payload, end);

    let own = pictures(&path, &[]);
    let mut expected = pictures(&dir.path().join("first.mp4"), &[]);
    expected.truncate(144);
    let later = pictures(&dir.path().join("second.mp4"), &[]);
    expected.extend(later.into_iter().map(|p| (p.0 + ticks(3 * S) as i64, p.1, p.2)));
    assert_eq!(own, expected);
    let heard = sound(&path, &[]);
    assert!((end as usize..=end as usize + LAST_FRAME).contains(&heard.len()));
    // The frame in which the two meet overlaps halves of unlike frames; all others are the encoders' own.
    let meet = 3 * S as usize;
    let before = sound(&dir.path().join("first.mp4"), &[]);
    let after = sound(&dir.path().join("second.mp4"), &[]);
    assert!(heard[..meet] == before[..meet]);
    assert!(heard[meet + 1024..end as usize] == after[1024..240_000]);
    // Jumping right into the second encoder's part finds its parameters.
    let sought = pictures(&path, &["-ss", "6.0"]);
    assert_eq!(sought.last(), own.last().map(|p| (p.0 - 6 * 90_000, p.1, p.2.clone())).as_ref());
}
