use std::io::Write;
use std::process::Stdio;

use proptest::prelude::*;

use super::*;

/// JPEG's own rounding, and that of what it was made of.
const COLOUR: u8 = 4;

fn plain(size: Size, [y, u, v]: [u8; 3]) -> Vec<u8> {
    let luma = (size.width * size.height) as usize;
    [vec![y; luma], vec![u; luma / 4], vec![v; luma / 4]].concat()
}

/// Pixels (R, G, B) of a JPEG as FFmpeg has them.
#[expect(clippy::disallowed_methods, reason = "FFmpeg is a judge here, not part of a recording")]
fn decoded(jpeg: &[u8]) -> Vec<u8> {
    let mut ffmpeg = std::process::Command::new(crate::config::ffmpeg_path().unwrap())
        .args(["-v", "error", "-f", "mjpeg", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    ffmpeg.stdin.take().unwrap().write_all(jpeg).unwrap();
    ffmpeg.wait_with_output().unwrap().stdout
}

fn assert_near(pixel: &[u8], expected: [u8; 3], what: &str) {
    let off = pixel.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max();
    assert!(off <= Some(COLOUR), "{what}: {pixel:?} is not {expected:?}");
}

#[test]
fn a_picture_of_the_recording_has_its_colours_as_jpeg() {
    let size = Size { width: 34, height: 18 };
    // BT.709 in limited range, computed from R'G'B' by the standard's own formulas.
    for (yuv, rgb) in [
        ([235, 128, 128], [255, 255, 255]),
        ([16, 128, 128], [0, 0, 0]),
        ([63, 102, 240], [255, 0, 0]),
        ([173, 42, 26], [0, 255, 0]),
        ([32, 240, 118], [0, 0, 255]),
        ([126, 128, 128], [128, 128, 128]),
    ] {
        let pixels = decoded(&jpeg(&plain(size, yuv), size));
        assert_eq!(pixels.len(), 34 * 18 * 3);
        for pixel in pixels.chunks(3) {
            assert_near(pixel, rgb, &format!("{yuv:?}"));
        }
    }
}

#[test]
fn thumbnails_keep_the_proportions_and_are_means() {
    for (of, to) in [
        ((1280, 720), (320, 180)),
        ((720, 1280), (102, 180)),
        ((2560, 64), (320, 8)),
        ((64, 64), (64, 64)),
        ((64, 2560), (4, 180)),
    ] {
        let size = thumbnail_size(Size { width: of.0, height: of.1 });
        assert_eq!((size.width, size.height), to, "{of:?}");
    }
    // Stripes of 4 pixels: 16 of them fall on each pixel of a thumbnail of a quarter.
    let size = Size { width: 1280, height: 720 };
    let mut picture = plain(size, [0, 60, 200]);
    picture[..1280 * 720].chunks_mut(1280).for_each(|row| {
        row.iter_mut().enumerate().for_each(|(x, p)| *p = if x % 4 < 2 { 20 } else { 220 });
    });
    let small = thumbnail(&picture, size);
    let luma = 320 * 180;
    assert_eq!(small.len(), luma * 3 / 2);
    assert!(small[..luma].iter().all(|p| *p == 120));
    assert!(small[luma..luma * 5 / 4].iter().all(|p| *p == 60) && small[luma * 5 / 4..].iter().all(|p| *p == 200));
}

#[test]
fn a_sheet_shows_each_thumbnail_where_it_says() {
    let tile = Size { width: 16, height: 16 };
    let mut sheet = Sheet::new(tile);
    let mut areas = Vec::new();
    for n in 0..7u8 {
        areas.push(sheet.push(&plain(tile, [30 + 25 * n, 128, 128])));
    }
    let pixels = decoded(&sheet.jpeg());
    assert_eq!(pixels.len(), 80 * 32 * 3, "two rows");
    for (n, area) in (0..).zip(&areas) {
        let gray = ((f64::from(30 + 25 * n) - 16.0) * 255.0 / 219.0) as u8;
        let at = |x: u32, y: u32| ((area.y + y) * 80 + area.x + x) as usize * 3;
        for (x, y) in [(0, 0), (15, 0), (0, 15), (15, 15), (8, 8)] {
            assert_near(&pixels[at(x, y)..at(x, y) + 3], [gray; 3], &format!("thumbnail {n} at {x},{y}"));
        }
    }
    while !sheet.is_full() {
        areas.push(sheet.push(&plain(tile, [128; 3])));
    }
    assert_eq!(areas.len(), 25);
    assert_eq!(areas[24], Area { x: 64, y: 64, size: tile });
}

#[test]
fn an_index_is_what_players_read() {
    let area = |x| Area { x, y: 0, size: Size { width: 320, height: 180 } };
    let cue = |at_ms, x| Cue { at_ms, sheet: "thumbnails-1-0000.jpg".into(), area: area(x) };
    let mut index = Index { cues: vec![cue(0, 0), cue(10_033, 320), cue(3_610_000, 640)] };
    let text = "WEBVTT\n\n00:00:00.000 --> 00:00:10.033\nthumbnails-1-0000.jpg#xywh=0,0,320,180\n\n\
                00:00:10.033 --> 01:00:10.000\nthumbnails-1-0000.jpg#xywh=320,0,320,180\n\n\
                01:00:10.000 --> 01:00:12.500\nthumbnails-1-0000.jpg#xywh=640,0,320,180\n";
    assert_eq!(index.text(3_612_500), text);
    index.truncate(10_033);
    assert_eq!(index.cues, [cue(0, 0)]);
    assert_eq!(Index::read("WEBVTT\n"), Some(Index::default()));
    for other in ["", "WEBVTT\n\nNOTE nothing\n", "WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n", "<html>"] {
        assert_eq!(Index::read(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn an_index_is_read_back(steps in prop::collection::vec((1u64..100_000, 0u32..2000, 0u32..2000), 0..40)) {
        let mut at_ms = 0;
        let cues = steps.into_iter().map(|(step, x, y)| {
            at_ms += step;
            Cue { at_ms, sheet: format!("thumbnails-{x}-{y:04}.jpg"), area: Area { x, y, size: Size { width: 320, height: 180 } } }
        });
        let index = Index { cues: cues.collect() };
        prop_assert_eq!(Index::read(&index.text(at_ms + 5)), Some(index));
    }
}
