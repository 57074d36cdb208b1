//! Thumbnails side by side in one picture: a player fetches a few minutes of them at once.

use super::bytes;
use super::jpeg::{Part, encode};
use crate::task::spec::Size;

/// Thumbnails in a row, and rows. 25 of 320×180 are 1600×900: 2 MB in memory.
const COLUMNS: u32 = 5;
const ROWS: u32 = 5;

/// Where a thumbnail lies in its sheet, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Size.
    pub size: Size,
}

/// A sheet that fills from left to right and from top to bottom.
#[derive(Debug, Clone)]
pub struct Sheet {
    tile: Size,
    count: u32,
    i420: Vec<u8>,
}

impl Sheet {
    /// An empty one for thumbnails of this size.
    pub fn new(tile: Size) -> Self {
        let size = Size { width: tile.width * COLUMNS, height: tile.height * ROWS };
        let mut i420 = vec![128; bytes(size)];
        i420[..(size.width * size.height) as usize].fill(16);
        Self { tile, count: 0, i420 }
    }

    fn size(&self) -> Size {
        Size { width: self.tile.width * COLUMNS, height: self.tile.height * ROWS }
    }

    /// There is room for no more.
    pub fn is_full(&self) -> bool {
        self.count == COLUMNS * ROWS
    }

    /// Adds a thumbnail, for which there must be room. Says where it lies.
    pub fn push(&mut self, tile: &[u8]) -> Area {
        let (x, y) = (self.count % COLUMNS * self.tile.width, self.count / COLUMNS * self.tile.height);
        self.count += 1;
        let (whole, mut from, mut to) = (self.size(), tile, &mut self.i420[..]);
        for part in [1, 2, 2] {
            let (width, stride) = ((self.tile.width / part) as usize, (whole.width / part) as usize);
            let (left, rows) = ((x / part) as usize, (y / part) as usize..((y + self.tile.height) / part) as usize);
            for (row, line) in rows.zip(from.chunks_exact(width)) {
                to[row * stride + left..][..width].copy_from_slice(line);
            }
            from = &from[width * (self.tile.height / part) as usize..];
            to = &mut to[stride * (whole.height / part) as usize..];
        }
        Area { x, y, size: self.tile }
    }

    /// What is there so far as JPEG, without empty rows.
    pub fn jpeg(&self) -> Vec<u8> {
        let columns = self.count.clamp(1, COLUMNS);
        let rows = self.count.div_ceil(COLUMNS).max(1);
        let size = Size { width: self.tile.width * columns, height: self.tile.height * rows };
        encode(Part { i420: &self.i420, of: self.size(), size })
    }
}
