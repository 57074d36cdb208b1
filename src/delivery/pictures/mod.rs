//! Pictures of a recording for people and players: JPEG of what the encoder was fed, sprite sheets of thumbnails, and the
//! WebVTT index that says which thumbnail belongs to which time.
//!
//! The index is all the state there is: whoever goes on with a recording reads it back ([`Index::read`]).

mod index;
mod jpeg;
mod sheet;
#[cfg(test)]
mod tests;

pub use index::{CONTENT_TYPE as INDEX_TYPE, Cue, Index};
pub use jpeg::{CONTENT_TYPE, jpeg};
pub use sheet::{Area, Sheet};

use crate::task::spec::Size;

/// A thumbnail fits into this; it is never larger than the picture.
const THUMBNAIL: Size = Size { width: 320, height: 180 };

/// Bytes of an I420 picture.
fn bytes(size: Size) -> usize {
    (size.width * size.height * 3 / 2) as usize
}

/// Size of the thumbnails of pictures of a size: even, with the same proportions as well as that goes.
pub fn thumbnail_size(of: Size) -> Size {
    let side = |n: u32| f64::from(n);
    let scale = (side(THUMBNAIL.width) / side(of.width)).min(side(THUMBNAIL.height) / side(of.height)).min(1.0);
    let even = |n: u32| (((side(n) * scale / 2.0).round() as u32) * 2).max(2);
    Size { width: even(of.width), height: even(of.height) }
}

/// A picture made smaller: each pixel is the mean of those that it takes the place of.
pub fn thumbnail(i420: &[u8], of: Size) -> Vec<u8> {
    let to = thumbnail_size(of);
    let mut out = Vec::with_capacity(bytes(to));
    let (mut from, mut rest) = i420.split_at((of.width * of.height) as usize);
    shrink(from, of, to, &mut out);
    let half = |size: Size| Size { width: size.width / 2, height: size.height / 2 };
    for _ in 0..2 {
        (from, rest) = rest.split_at(rest.len().min((of.width * of.height / 4) as usize));
        shrink(from, half(of), half(to), &mut out);
    }
    out
}

fn shrink(plane: &[u8], of: Size, to: Size, out: &mut Vec<u8>) {
    let edge = |n: u32, of: u32, to: u32| (n * of / to) as usize;
    let mut sums = vec![0u32; to.width as usize];
    for y in 0..to.height {
        let rows = edge(y, of.height, to.height)..edge(y + 1, of.height, to.height);
        sums.fill(0);
        for row in rows.clone() {
            let row = &plane[row * of.width as usize..][..of.width as usize];
            for (x, sum) in (0..).zip(&mut sums) {
                let pixels = &row[edge(x, of.width, to.width)..edge(x + 1, of.width, to.width)];
                *sum += pixels.iter().map(|p| u32::from(*p)).sum::<u32>();
            }
        }
        out.extend((0..).zip(&sums).map(|(x, sum)| {
            let count = (edge(x + 1, of.width, to.width) - edge(x, of.width, to.width)) * rows.len();
            (sum / count.max(1) as u32) as u8
        }));
    }
}
