//! Rectangles of the picture.

use crate::task::spec::Size;

/// A rectangle in pixels, never larger than the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Rect {
    /// The whole picture.
    pub fn whole(size: Size) -> Self {
        Self { x: 0, y: 0, width: size.width, height: size.height }
    }

    /// The part of a client's rectangle inside `size`; `None` if nothing is.
    pub fn clipped(x: i32, y: i32, width: i32, height: i32, size: Size) -> Option<Self> {
        let left = i64::from(x).clamp(0, size.width.into());
        let top = i64::from(y).clamp(0, size.height.into());
        let right = (i64::from(x) + i64::from(width)).clamp(0, size.width.into());
        let bottom = (i64::from(y) + i64::from(height)).clamp(0, size.height.into());
        (left < right && top < bottom).then(|| Self {
            x: left as u32,
            y: top as u32,
            width: (right - left) as u32,
            height: (bottom - top) as u32,
        })
    }

    /// The smallest rectangle around both.
    pub fn union(self, other: Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let right = (self.x + self.width).max(other.x + other.width);
        let bottom = (self.y + self.height).max(other.y + other.height);
        Self { x, y, width: right - x, height: bottom - y }
    }

    /// The smallest rectangle around it whose edges lie on chroma samples.
    pub(super) fn even(self) -> Self {
        let (x, y) = (self.x & !1, self.y & !1);
        Self {
            x,
            y,
            width: (self.x + self.width - x).next_multiple_of(2),
            height: (self.y + self.height - y).next_multiple_of(2),
        }
    }
}
