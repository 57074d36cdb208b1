//! The picture: what the page shows now, as I420 in BT.709 limited range, and copies of it for the encoder.
//!
//! The page's surface is converted rectangle by rectangle as it is damaged. A copy for the encoder is refreshed only
//! where it is stale, so a page in which little moves costs little. Popups (select lists, date pickers) are their own
//! surfaces and are blended over the copies; the page's own picture stays untouched underneath.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::planes::{Overlay, Pixels, blend, convert, copy_planes, is_plain};
use super::rect::Rect;
use crate::task::spec::Size;

/// Bytes that the copies on their way to the encoder may take together: 16 at 1280×720, where 4 overflowed whenever
/// FFmpeg hiccuped, and 3 at the largest size.
const POOL_BYTES: usize = 24 * 1024 * 1024;
/// Fewest copies with which one can be filled while one is written and one waits.
const POOL_MIN: usize = 3;
/// Most copies, however small.
const POOL_MAX: usize = 16;
/// Damaged rectangles remembered for stale copies; a copy that missed more is refreshed whole.
const DAMAGE_HISTORY: usize = 64;

/// Room for a picture, filled before or never.
#[derive(Debug, Default)]
struct Room {
    data: Vec<u8>,
    /// Damage up to this number is in it; `None`: everything is stale.
    fresh_to: Option<u64>,
}

/// Rooms that are free, the one that was given back last on top: it lacks least and is still in the processor's cache, and
/// rooms that are never needed are never touched.
type Pool = Arc<Mutex<Vec<Room>>>;

/// An I420 picture on its way to the encoder. Dropping it gives its room back.
#[derive(Debug)]
pub struct Copy {
    room: Room,
    home: Pool,
}

impl Copy {
    /// The planes, Y then U then V, without padding.
    pub fn i420(&self) -> &[u8] {
        &self.room.data
    }
}

impl AsRef<[u8]> for Copy {
    fn as_ref(&self) -> &[u8] {
        self.i420()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }
}

/// What the page shows now.
pub struct Picture {
    size: Size,
    base: Vec<u8>,
    damage: VecDeque<Rect>,
    /// Number of the oldest rectangle in `damage`.
    first_damage: u64,
    pool: Pool,
}

impl Picture {
    /// A black picture and room for its copies.
    pub fn new(size: Size) -> Self {
        let luma = (size.width * size.height) as usize;
        let mut base = vec![128; luma * 3 / 2];
        base[..luma].fill(16);
        let count = (POOL_BYTES / base.len()).clamp(POOL_MIN, POOL_MAX);
        let rooms = (0..count).map(|_| Room { data: vec![0; base.len()], fresh_to: None }).collect();
        let pool = Arc::new(Mutex::new(rooms));
        Self { size, base, damage: VecDeque::new(), first_damage: 0, pool }
    }

    /// Takes over a damaged rectangle of the page's surface. Nothing happens where the surface does not reach.
    pub fn update(&mut self, pixels: Pixels<'_>, damaged: Rect) {
        let surface =
            Size { width: pixels.width.min(self.size.width) & !1, height: pixels.height.min(self.size.height) & !1 };
        let even = damaged.even();
        let Some(rect) = Rect::clipped(even.x as i32, even.y as i32, even.width as i32, even.height as i32, surface)
        else {
            return;
        };
        // The conversion walks whole pairs of rows from the first pixel on, and a pair that begins inside the last two
        // rows would reach beyond the end: those two are converted from edge to edge.
        let last_rows = surface.height - 2;
        if rect.y + rect.height > last_rows {
            convert(&mut self.base, self.size, pixels, Rect { x: 0, y: last_rows, width: surface.width, height: 2 });
        }
        if rect.y < last_rows {
            let height = rect.height.min(last_rows - rect.y);
            convert(&mut self.base, self.size, pixels, Rect { height, ..rect });
        }
        if self.damage.len() == DAMAGE_HISTORY {
            self.damage.pop_front();
            self.first_damage += 1;
        }
        self.damage.push_back(rect);
    }

    /// A copy of what is shown, overlays included; `None` while the encoder still holds every copy.
    pub fn copy(&mut self, overlays: &[Overlay]) -> Option<Copy> {
        let mut room = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let now = self.first_damage + self.damage.len() as u64;
        match room.fresh_to {
            Some(fresh_to) if fresh_to >= self.first_damage => {
                let missed = (fresh_to - self.first_damage) as usize;
                if let Some(stale) = self.damage.iter().skip(missed).copied().reduce(Rect::union) {
                    copy_planes(&mut room.data, &self.base, self.size, stale);
                }
            }
            _ => room.data.copy_from_slice(&self.base),
        }
        room.fresh_to = overlays.is_empty().then_some(now);
        for overlay in overlays {
            blend(&mut room.data, self.size, overlay);
        }
        Some(Copy { room, home: Arc::clone(&self.pool) })
    }

    /// Whether everything shown is of one colour.
    pub fn is_blank(&self) -> bool {
        is_plain(&self.base, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 64, height: 64 };
    /// Narrow rectangles are converted by other instructions, which round differently.
    const CONVERSION_ROUNDING: u8 = 1;

    fn plain(width: u32, height: u32, bgra: [u8; 4]) -> Vec<u8> {
        bgra.repeat((width * height) as usize)
    }

    fn pixels(bytes: &[u8], width: u32, height: u32) -> Pixels<'_> {
        Pixels { bytes, stride: width * 4, width, height }
    }

    fn at(copy: &Copy, x: usize, y: usize) -> (u8, u8, u8) {
        let (d, luma) = (copy.i420(), 64 * 64);
        let c = y / 2 * 32 + x / 2;
        (d[y * 64 + x], d[luma + c], d[luma + luma / 4 + c])
    }

    #[test]
    fn colours_are_bt709_limited() {
        let mut picture = Picture::new(SIZE);
        for (bgra, expected) in [
            ([255, 255, 255, 255], (235, 128, 128)),
            ([0, 0, 255, 255], (63, 102, 240)),
            ([0, 0, 0, 0], (16, 128, 128)),
        ] {
            let bytes = plain(64, 64, bgra);
            picture.update(pixels(&bytes, 64, 64), Rect::whole(SIZE));
            let seen = at(&picture.copy(&[]).unwrap(), 10, 11);
            let off = [(seen.0, expected.0), (seen.1, expected.1), (seen.2, expected.2)]
                .map(|(a, b): (u8, u8)| a.abs_diff(b));
            assert!(off.iter().all(|d| *d <= 1), "{bgra:?}: {seen:?} is not {expected:?}");
        }
    }

    #[test]
    fn only_the_damaged_rectangle_is_converted() {
        let mut picture = Picture::new(SIZE);
        let bytes = plain(64, 64, [255, 255, 255, 255]);
        picture.update(pixels(&bytes, 64, 64), Rect { x: 8, y: 10, width: 16, height: 12 });
        let copy = picture.copy(&[]).unwrap();
        for (x, y) in (0..64).flat_map(|y| (0..64).map(move |x| (x, y))) {
            let inside = (8..24).contains(&x) && (10..22).contains(&y);
            assert_eq!(at(&copy, x, y).0 > 200, inside, "{x},{y}");
        }
    }

    #[test]
    fn every_copy_shows_all_damage_whenever_it_was_last_used() {
        let mut picture = Picture::new(SIZE);
        let mut truth = plain(64, 64, [0, 0, 0, 0]);
        picture.update(pixels(&truth, 64, 64), Rect::whole(SIZE));
        let mut held = Vec::new();
        for step in 0..200_u32 {
            let (x, y) = (step * 7 % 57, step * 5 % 59);
            let (x, y) = if step % 9 == 0 { (57, 59) } else { (x, y) };
            for row in y..y + 5 {
                for column in x..x + 7 {
                    truth[((row * 64 + column) * 4) as usize..][..3].fill((step * 31 % 251) as u8);
                }
            }
            picture.update(pixels(&truth, 64, 64), Rect { x, y, width: 7, height: 5 });
            let mut whole = Picture::new(SIZE);
            whole.update(pixels(&truth, 64, 64), Rect::whole(SIZE));
            let copy = picture.copy(&[]).unwrap();
            let whole = whole.copy(&[]).unwrap();
            let off = copy.i420().iter().zip(whole.i420()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(CONVERSION_ROUNDING), "step {step}: {off:?}");
            held.push(copy);
            if held.len() > (step % 5) as usize {
                held.remove(0);
            }
        }
    }

    #[test]
    fn copies_are_bounded_and_come_back() {
        let mut picture = Picture::new(SIZE);
        let all: Vec<_> = std::iter::from_fn(|| picture.copy(&[])).collect();
        assert_eq!(all.len(), POOL_MAX);
        drop(all);
        assert!(picture.copy(&[]).is_some());
    }

    #[test]
    fn the_room_that_was_given_back_last_is_used_first() {
        let mut picture = Picture::new(SIZE);
        let [first, second] = [(); 2].map(|()| picture.copy(&[]).unwrap());
        let last = first.i420().as_ptr();
        drop(second);
        drop(first);
        assert_eq!(picture.copy(&[]).unwrap().i420().as_ptr(), last);
    }

    #[test]
    fn an_overlay_covers_its_rectangle_and_leaves_nothing_behind() {
        let mut picture = Picture::new(SIZE);
        let white = plain(64, 64, [255; 4]);
        picture.update(pixels(&white, 64, 64), Rect::whole(SIZE));
        let red = Overlay { x: 10, y: -2, width: 8, height: 8, pixels: plain(8, 8, [0, 0, 255, 255]), alpha: true };
        let clear = Overlay { x: 40, pixels: plain(8, 8, [0; 4]), ..red.clone() };
        let copy = picture.copy(&[red, clear]).unwrap();
        let (y, u, v) = at(&copy, 12, 2);
        assert!(y.abs_diff(63) <= 1 && u.abs_diff(102) <= 1 && v.abs_diff(240) <= 1, "{y} {u} {v}");
        assert_eq!(at(&copy, 12, 6).0, 235, "below the overlay");
        assert_eq!(at(&copy, 42, 2), at(&copy, 30, 30), "a transparent one shows what is below");
        drop(copy);
        for _ in 0..POOL_MAX {
            assert_eq!(at(&picture.copy(&[]).unwrap(), 12, 2).0, 235);
        }
    }

    #[test]
    fn a_surface_smaller_than_the_picture_or_damage_outside_it_is_harmless() {
        let mut picture = Picture::new(SIZE);
        let small = plain(31, 15, [255; 4]);
        picture.update(pixels(&small, 31, 15), Rect::whole(SIZE));
        assert_eq!(at(&picture.copy(&[]).unwrap(), 29, 13).0, 235);
        assert_eq!(Rect::clipped(i32::MAX, 0, i32::MAX, 5, SIZE), None);
        assert_eq!(Rect::clipped(-5, -5, i32::MAX, i32::MAX, SIZE), Some(Rect::whole(SIZE)));
    }

    #[test]
    fn blank_means_one_colour() {
        let mut picture = Picture::new(SIZE);
        assert!(picture.is_blank());
        let white = plain(64, 64, [255; 4]);
        picture.update(pixels(&white, 64, 64), Rect { x: 8, y: 8, width: 16, height: 8 });
        assert!(!picture.is_blank());
    }
}
