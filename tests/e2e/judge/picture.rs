//! The picture track: every picture with its exact time stamp, its bar code and its flash patch; and colours anywhere at a time.

use super::code::{self, Code, Place};
use super::tools::{Res, arg, run_in_blocks, run_ok};
use std::path::Path;

/// One decoded picture.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    /// Time stamp in the file, seconds.
    pub pts: f64,
    /// Its code, if it has one.
    pub code: Option<Code>,
    /// Brightness of the flash patch.
    pub patch: u8,
}

/// Pictures that are looked at to find out where the code is: 3 s, since a page may begin late.
const LOOK_FOR: usize = 90;

/// Finds the code and reads every picture. Without a code anywhere the first known place is taken, so that time stamps are still known.
pub fn read(path: &Path, width: usize) -> Res<(Option<Place>, Vec<Picture>)> {
    let places = Place::known(width);
    let mut fallback = None;
    for place in places {
        let head = decode(path, place, Some(LOOK_FOR))?;
        if head.iter().any(|p| p.code.is_some()) {
            return Ok((Some(place), decode(path, place, None)?));
        }
        fallback.get_or_insert(place);
    }
    let place = fallback.ok_or_else(|| format!("{width} pixels are too few for a code"))?;
    let all = decode(path, place, None)?;
    let late = all.iter().any(|p| p.code.is_some());
    Ok((late.then_some(place), all))
}

fn decode(path: &Path, place: Place, limit: Option<usize>) -> Res<Vec<Picture>> {
    let (w, h) = (place.width(), place.height());
    let filter = format!("crop={w}:{h}:{}:{},format=gray,showinfo=checksum=0", place.x, place.y);
    let limit = limit.map(|n| n.to_string());
    let mut args = vec!["-hide_banner", "-nostats", "-v", "info", "-copyts"];
    args.extend(["-i", arg(path)?, "-an", "-vf", &filter]);
    args.extend(["-fps_mode", "passthrough"]);
    if let Some(n) = &limit {
        args.extend(["-frames:v", n]);
    }
    args.extend(["-f", "rawvideo", "-"]);
    // Ten minutes of pictures do not fit into memory: each is read as it comes, its time is told beside it.
    let mut pictures = Vec::new();
    let said = run_in_blocks("ffmpeg", &args, w * h, |gray| {
        if gray.len() == w * h {
            pictures.push(Picture { pts: 0.0, code: Code::read(gray, place), patch: code::patch(gray, place) });
        }
    })?;
    if !said.ok {
        return Err(format!("ffmpeg {args:?} failed: {}", said.err));
    }
    let mut times: Vec<f64> = said.err.lines().filter_map(shown_pts).collect();
    if limit.is_some() {
        times.truncate(pictures.len()); // the filter runs ahead of the limit
    }
    if times.len() != pictures.len() {
        return Err(format!("{} pictures, {} time stamps: the judge misreads FFmpeg", pictures.len(), times.len()));
    }
    pictures.iter_mut().zip(times).for_each(|(picture, pts)| picture.pts = pts);
    Ok(pictures)
}

/// The time stamp in a line of FFmpeg's `showinfo` filter.
fn shown_pts(line: &str) -> Option<f64> {
    line.contains("Parsed_showinfo")
        .then(|| line.split("pts_time:").nth(1))
        .flatten()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// A picture in colour.
#[derive(Debug, Clone)]
pub struct Colours {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    rgb: Vec<u8>,
}

/// A rectangle in pixels: left, upper edge, width, height.
pub type Area = (usize, usize, usize, usize);

impl Colours {
    /// The picture that is shown at `seconds`, or the last one before the end.
    pub fn at(path: &Path, size: (usize, usize), seconds: f64) -> Res<Self> {
        /// Finer than any frame rate that is recorded.
        const STEPS: u32 = 100;
        let first = format!("select='gte(t,{})'", seconds - 0.005);
        Self::sampled(path, size, STEPS, &first, 1)?
            .into_iter()
            .next()
            .ok_or_else(|| format!("{}: no picture at {seconds} s", path.display()))
    }

    /// What is shown at 0, 1/`a_second`, 2/`a_second` … seconds, to the end.
    pub fn steadily(path: &Path, size: (usize, usize), a_second: u32) -> Res<Vec<Self>> {
        Self::sampled(path, size, a_second, "null", i32::MAX as u32)
    }

    /// Resamples to a steady rate, so that a picture that stays for seconds is there at every instant it is shown.
    fn sampled(
        path: &Path,
        (width, height): (usize, usize),
        a_second: u32,
        then: &str,
        at_most: u32,
    ) -> Res<Vec<Self>> {
        let filter =
            format!("fps={a_second}:start_time=0:round=up,tpad=stop_mode=clone:stop_duration=0.1,{then},format=rgb24");
        let at_most = at_most.to_string();
        let mut args = vec!["-v", "error", "-copyts", "-i", arg(path)?, "-an"];
        args.extend(["-vf", &filter, "-fps_mode", "passthrough"]);
        args.extend(["-frames:v", &at_most, "-f", "rawvideo", "-"]);
        let said = run_ok("ffmpeg", &args)?;
        let pictures = said.out.chunks_exact(width * height * 3);
        Ok(pictures.map(|rgb| Self { width, height, rgb: rgb.to_vec() }).collect())
    }

    /// Red, green, blue of one pixel.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Pixels of an area.
    pub fn area(&self, (x, y, w, h): Area) -> impl Iterator<Item = [u8; 3]> {
        let right = (x + w).min(self.width);
        let bottom = (y + h).min(self.height);
        (y..bottom).flat_map(move |py| (x..right).map(move |px| self.pixel(px, py)))
    }

    /// Share of an area's pixels that are within `near` of a colour in every channel.
    pub fn share(&self, area: Area, colour: [u8; 3], near: u8) -> f64 {
        let (mut hits, mut n) = (0u32, 0u32);
        for pixel in self.area(area) {
            let close = pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= near);
            hits += u32::from(close);
            n += 1;
        }
        f64::from(hits) / f64::from(n.max(1))
    }

    /// Mean absolute difference of two areas of the same size, 0 to 255.
    pub fn difference(&self, a: Area, b: Area) -> f64 {
        let (mut sum, mut n) = (0u64, 0u64);
        for (p, q) in self.area(a).zip(self.area(b)) {
            for (x, y) in p.iter().zip(q) {
                sum += u64::from(x.abs_diff(y));
                n += 1;
            }
        }
        sum as f64 / n.max(1) as f64
    }

    /// Mean absolute difference of the same area in two pictures, 0 to 255.
    pub fn changed(&self, other: &Self, area: Area) -> f64 {
        let both = self.area(area).zip(other.area(area));
        let (mut sum, mut n) = (0u64, 0u64);
        for (p, q) in both {
            sum += p.iter().zip(q).map(|(x, y)| u64::from(x.abs_diff(y))).sum::<u64>();
            n += 3;
        }
        sum as f64 / n.max(1) as f64
    }

    /// Share of an area's pixels whose channels differ: those that have a colour.
    pub fn colourful(&self, area: Area) -> f64 {
        /// Chroma noise of a coded gray is less.
        const GRAY: u8 = 40;
        let (mut hits, mut n) = (0u32, 0u32);
        for [r, g, b] in self.area(area) {
            hits += u32::from(r.max(g).max(b) - r.min(g).min(b) > GRAY);
            n += 1;
        }
        f64::from(hits) / f64::from(n.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_read_from_showinfo_and_from_nothing_else() {
        let line =
            "[Parsed_showinfo_2 @ 0x55] n:   3 pts:  12000 pts_time:0.133333 duration:   3000 duration_time:0.0333333";
        assert_eq!(shown_pts(line), Some(0.133_333));
        assert_eq!(shown_pts("pts_time:4"), None);
        assert_eq!(shown_pts("[Parsed_showinfo_2 @ 0x55] config in time_base: 1/90000"), None);
    }
}
