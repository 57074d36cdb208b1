//! Which thumbnail belongs to which time: WebVTT (W3C, <https://www.w3.org/TR/webvtt1/>) whose cues are addresses of parts of
//! pictures (Media Fragments URI 1.0, 4.2.2), as players read it.

use std::fmt::Write;

use super::sheet::Area;
use crate::task::spec::Size;

/// Media type.
pub const CONTENT_TYPE: &str = "text/vtt";

/// A thumbnail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cue {
    /// Position in the file of what it shows, milliseconds.
    pub at_ms: u64,
    /// Address of its sheet, relative to the index.
    pub sheet: String,
    /// Where it lies there.
    pub area: Area,
}

/// Thumbnails in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Each counts until the next one.
    pub cues: Vec<Cue>,
}

impl Index {
    /// Without what lies at a position or behind it.
    pub fn truncate(&mut self, ms: u64) {
        self.cues.retain(|cue| cue.at_ms < ms);
    }

    /// The text. The last thumbnail counts until `end_ms`.
    pub fn text(&self, end_ms: u64) -> String {
        let mut out = String::with_capacity(10 + self.cues.len() * 80);
        out.push_str("WEBVTT\n");
        let ends = self.cues.iter().skip(1).map(|c| c.at_ms).chain([end_ms]);
        for (cue, end) in self.cues.iter().zip(ends) {
            let Area { x, y, size } = cue.area;
            let _ = write!(
                out,
                "\n{} --> {}\n{}#xywh={x},{y},{},{}\n",
                time(cue.at_ms),
                time(end.max(cue.at_ms + 1)),
                cue.sheet,
                size.width,
                size.height
            );
        }
        out
    }

    /// An index that [`text`](Self::text) wrote; `None` for any other.
    pub fn read(text: &str) -> Option<Self> {
        let mut cues = Vec::new();
        let mut blocks = text.split("\n\n");
        (blocks.next()?.trim_end() == "WEBVTT").then_some(())?;
        for block in blocks {
            let (times, address) = block.trim_end().split_once('\n')?;
            let at_ms = parse_time(times.split_once(" --> ")?.0)?;
            let (sheet, part) = address.split_once("#xywh=")?;
            let numbers: Vec<u32> = part.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
            let [x, y, width, height] = numbers[..] else { return None };
            cues.push(Cue { at_ms, sheet: sheet.into(), area: Area { x, y, size: Size { width, height } } });
        }
        Some(Self { cues })
    }
}

fn time(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn parse_time(text: &str) -> Option<u64> {
    let (clock, ms) = text.split_once('.')?;
    let seconds = clock.split(':').try_fold(0, |sum: u64, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    Some(seconds * 1000 + ms.parse::<u64>().ok()?)
}
