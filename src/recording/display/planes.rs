//! What is done to I420 planes in BT.709 limited range: pixels of a surface come in, rectangles are copied, overlays blended.

use yuv::{BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix};

use super::rect::Rect;
use crate::task::spec::Size;

/// Pixels of a surface, 4 bytes each: B, G, R, A (premultiplied) or X.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Rows, `stride` bytes apart.
    pub bytes: &'a [u8],
    /// Bytes from row to row.
    pub stride: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Something shown above the page.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// Left edge in the picture, may lie outside.
    pub x: i32,
    /// Top edge.
    pub y: i32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// B, G, R, A premultiplied, without padding.
    pub pixels: Vec<u8>,
    /// Alpha counts; otherwise the fourth byte is meaningless.
    pub alpha: bool,
}

/// Whether an I420 picture is of one colour, judged by a coarse grid of samples.
pub fn is_plain(i420: &[u8], size: Size) -> bool {
    /// Fine enough that a line of text does not slip through at any size.
    const STEP: usize = 4;
    let (width, luma) = (size.width as usize, (size.width * size.height) as usize);
    let first = i420[0];
    let same_luma =
        i420[..luma].chunks(width).step_by(STEP).all(|row| row.iter().step_by(STEP).all(|y| y.abs_diff(first) <= 2));
    let (u, v) = i420[luma..].split_at(luma / 4);
    same_luma && [u, v].iter().all(|plane| plane.iter().step_by(STEP).all(|c| c.abs_diff(plane[0]) <= 2))
}

pub(super) fn convert(base: &mut [u8], size: Size, pixels: Pixels<'_>, rect: Rect) {
    let (width, luma) = (size.width as usize, (size.width * size.height) as usize);
    let (y_plane, chroma) = base.split_at_mut(luma);
    let (u_plane, v_plane) = chroma.split_at_mut(luma / 4);
    let (x, y) = (rect.x as usize, rect.y as usize);
    // The conversion goes on for as many whole rows as it is given, whatever height it is told.
    let rows = |start: usize, stride: usize, count: usize| start..start + stride * count;
    let height = rect.height as usize;
    let chroma = rows(y / 2 * (width / 2) + x / 2, width / 2, height / 2);
    let mut target = YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(&mut y_plane[rows(y * width + x, width, height)]),
        y_stride: size.width,
        u_plane: BufferStoreMut::Borrowed(&mut u_plane[chroma.clone()]),
        u_stride: size.width / 2,
        v_plane: BufferStoreMut::Borrowed(&mut v_plane[chroma]),
        v_stride: size.width / 2,
        width: rect.width,
        height: rect.height,
    };
    let stride = pixels.stride as usize;
    let source = &pixels.bytes[rows(y * stride + x * 4, stride, height)];
    let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt709);
    let done = yuv::bgra_to_yuv420(&mut target, source, pixels.stride, range, matrix, YuvConversionMode::Balanced);
    debug_assert!(done.is_ok(), "{done:?}");
}

pub(super) fn copy_planes(to: &mut [u8], from: &[u8], size: Size, rect: Rect) {
    let luma = (size.width * size.height) as usize;
    let quarter = Rect { x: rect.x / 2, y: rect.y / 2, width: rect.width / 2, height: rect.height / 2 };
    let chroma_width = size.width as usize / 2;
    copy_rows(&mut to[..luma], &from[..luma], size.width as usize, rect);
    for start in [luma, luma + luma / 4] {
        copy_rows(&mut to[start..start + luma / 4], &from[start..start + luma / 4], chroma_width, quarter);
    }
}

fn copy_rows(to: &mut [u8], from: &[u8], stride: usize, rect: Rect) {
    let (x, width) = (rect.x as usize, rect.width as usize);
    let rows = rect.y as usize * stride..(rect.y + rect.height) as usize * stride;
    if width == stride {
        to[rows.clone()].copy_from_slice(&from[rows]);
        return;
    }
    for start in rows.step_by(stride) {
        to[start + x..start + x + width].copy_from_slice(&from[start + x..start + x + width]);
    }
}

/// Blends premultiplied B'G'R'A over I420. Y'CbCr is linear in B'G'R', so the blend of the converted values is the
/// converted blend (ITU-R BT.709-6, 3.2 and 3.4: limited range).
pub(super) fn blend(data: &mut [u8], size: Size, overlay: &Overlay) {
    let bounds = Rect::clipped(overlay.x, overlay.y, overlay.width as i32, overlay.height as i32, size);
    let Some(rect) = bounds else { return };
    let pixel = |x: u32, y: u32| {
        let at = ((i64::from(y) - i64::from(overlay.y)) * i64::from(overlay.width) + i64::from(x)
            - i64::from(overlay.x)) as usize
            * 4;
        let p = &overlay.pixels[at..at + 4];
        let alpha = if overlay.alpha { f32::from(p[3]) / 255.0 } else { 1.0 };
        (f32::from(p[0]), f32::from(p[1]), f32::from(p[2]), alpha)
    };
    let (stride, luma) = (size.width as usize, (size.width * size.height) as usize);
    for y in rect.y..rect.y + rect.height {
        for x in rect.x..rect.x + rect.width {
            let (b, g, r, alpha) = pixel(x, y);
            let over = (0.2126 * r + 0.7152 * g + 0.0722 * b) * 219.0 / 255.0;
            let below = &mut data[y as usize * stride + x as usize];
            *below = (16.0 + over + (f32::from(*below) - 16.0) * (1.0 - alpha)).round() as u8;
        }
    }
    let even = rect.even();
    for y in (even.y..(rect.y + rect.height)).step_by(2) {
        for x in (even.x..(rect.x + rect.width)).step_by(2) {
            let (x, y) = (x.max(rect.x), y.max(rect.y));
            let (b, g, r, alpha) = pixel(x, y);
            let luma_over = 0.2126 * r + 0.7152 * g + 0.0722 * b;
            let at = luma + y as usize / 2 * (stride / 2) + x as usize / 2;
            for (at, primary, scale) in [(at, b, 1.8556), (at + luma / 4, r, 1.5748)] {
                let over = (primary - luma_over) / scale * 224.0 / 255.0;
                data[at] = (128.0 + over + (f32::from(data[at]) - 128.0) * (1.0 - alpha)).round() as u8;
            }
        }
    }
}
