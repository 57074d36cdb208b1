//! Poster and thumbnails of a recording, judged by the code that they show: it is that of the file at their time.

use crate::gateway::{Gateway, request};
use crate::judge::Evidence;
use crate::judge::code::{Code, Place};
use crate::judge::tools::{arg, run_ok};
use serde_json::Value;

/// Where a thumbnail is taken: on the picture that it shows, whose time the index gives in whole milliseconds.
const ROUNDING_SECONDS: f64 = 0.002;
/// Intervals between two thumbnails that a busy machine and a seam excuse: one that is late, and one whose generation counts its own
/// seconds.
const EXCUSED: f64 = 3.0;

/// Brightness of every pixel.
struct Gray {
    width: usize,
    pixels: Vec<u8>,
}

impl Gray {
    fn of(gateway: &Gateway, url: &str) -> Self {
        let answer = fetched(gateway, url, "image/jpeg");
        let file = gateway.data().join("picture.jpg");
        std::fs::write(&file, &answer).unwrap();
        let probe =
            run_ok("ffprobe", &["-v", "error", "-show_entries", "stream=width", "-of", "csv=p=0", arg(&file).unwrap()]);
        let width = String::from_utf8(probe.unwrap().out).unwrap().trim().parse().unwrap();
        let args = ["-v", "error", "-i", arg(&file).unwrap(), "-f", "rawvideo", "-pix_fmt", "gray", "-"];
        Self { width, pixels: run_ok("ffmpeg", &args).unwrap().out }
    }

    /// The code whose upper left corner is at (x, y), with cells of so many pixels.
    fn code(&self, (x, y): (usize, usize), cell: usize) -> Option<Code> {
        let place = Place { x: 0, y: 0, cell };
        let rows = (y..y + place.height()).flat_map(|row| &self.pixels[row * self.width + x..][..place.width()]);
        Code::read(&rows.copied().collect::<Vec<u8>>(), place)
    }
}

fn fetched(gateway: &Gateway, url: &str, kind: &str) -> Vec<u8> {
    let path = url.split_once(&gateway.address).unwrap_or_else(|| panic!("{url} is not ours")).1;
    let answer = request(&gateway.address, "GET", path, &[], b"");
    assert_eq!(answer.status, 200, "{url}");
    let header = format!("content-type: {kind}");
    assert!(answer.headers.iter().any(|h| h.starts_with(&header)), "{url}: {:?}", answer.headers);
    answer.body
}

/// The newest picture of a running task shows the page as it was a moment ago.
pub fn newest(gateway: &Gateway, task: &Value) -> Code {
    let url = task["Preview"]["PictureURL"].as_str().unwrap_or_else(|| panic!("nothing to see: {task}"));
    assert!(task["Preview"]["ExpireTime"].is_u64(), "{task}");
    Gray::of(gateway, url).code((0, 0), 16).expect("the newest picture has a code")
}

/// Seconds of a WebVTT time.
fn seconds(text: &str) -> f64 {
    text.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

/// Poster and thumbnails, one every `interval` seconds, of a 1280×720 page that moves.
pub fn are_those_of(gateway: &Gateway, done: &Value, e: &Evidence, interval: f64) {
    let video = &done["Result"]["Videos"][0];
    let url = |field: &str| video[field].as_str().unwrap_or_else(|| panic!("no {field}: {video}"));
    let poster = Gray::of(gateway, url("PosterURL"));
    assert_eq!((poster.width, poster.pixels.len()), (1280, 1280 * 720));
    assert_eq!(poster.code((0, 0), 16), e.pictures[0].code, "the poster is the first picture");
    let index = String::from_utf8(fetched(gateway, url("ThumbnailsURL"), "text/vtt")).unwrap();
    let base = url("ThumbnailsURL").rsplit_once('/').unwrap().0;
    let (mut sheet, mut before): (Option<(String, Gray)>, Option<f64>) = (None, None);
    for cue in index.split("\n\n").skip(1) {
        let (times, address) = cue.trim_end().split_once('\n').unwrap();
        let (begin, end) = times.split_once(" --> ").unwrap();
        let (name, area) = address.split_once("#xywh=").unwrap();
        let [x, y, width, height] = area.split(',').map(|n| n.parse().unwrap()).collect::<Vec<usize>>()[..] else {
            panic!("{cue}");
        };
        assert_eq!((width, height), (320, 180));
        if sheet.as_ref().is_none_or(|(of, _)| of != name) {
            sheet = Some((name.to_owned(), Gray::of(gateway, &format!("{base}/{name}"))));
        }
        let (begin, end) = (seconds(begin), seconds(end));
        assert_eq!(before.unwrap_or(0.0), begin, "cues follow each other: {cue}");
        assert!(begin < end && end - begin <= EXCUSED * interval, "{cue}");
        before = Some(end);
        let shown = e.pictures.iter().find(|p| (p.pts - begin).abs() < ROUNDING_SECONDS);
        let shown = shown.unwrap_or_else(|| panic!("no picture of the file is at {begin} s"));
        let code = sheet.as_ref().unwrap().1.code((x, y), 4);
        assert!(code.is_some() && code == shown.code, "at {begin} s: {code:?} instead of {:?}", shown.code);
    }
    let end = before.expect("there are thumbnails");
    assert!((end - e.probe.duration).abs() < 0.1, "they end at {end} s of {} s", e.probe.duration);
}
