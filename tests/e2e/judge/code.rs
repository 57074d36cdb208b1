//! The bar code of `tests/pages/code.js`, read from gray pictures (and drawn, so that the judge can be judged).
//!
//! Three rows of 40 cells: white, black, 36 bits, black, white. A picture whose sync cells or CRC do not hold has no code: it is never
//! guessed at.

/// Cells a row.
pub const COLUMNS: usize = 40;
/// Rows of cells.
pub const ROWS: usize = 3;
/// Height in cells of the flash patch below the code.
pub const FLASH_ROWS: usize = 4;
/// Distance of two flashes in ms, see `code.js`.
pub const PERIOD_MS: f64 = 1040.0;
const ROW_BITS: usize = 36;
/// Between black and white.
const HALF: u8 = 128;

/// What one picture says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Pictures the page has drawn, modulo 2^24.
    pub counter: u32,
    /// Wall clock when it was drawn, ms modulo 2^32.
    pub wall_ms: u32,
    /// Time stamp of its animation frame, the same clock in 0.1 ms, modulo 2^32.
    pub raf: u32,
    /// What the page has been through; each page says what.
    pub stage: u8,
}

/// Where the code lies in the picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Side of a cell.
    pub cell: usize,
}

impl Place {
    /// Every place a page of ours uses, for a picture of this width.
    pub fn known(width: usize) -> Vec<Place> {
        let at = |x, cell| Place { x, y: 0, cell };
        let mut all = Vec::new();
        if width >= COLUMNS * 16 {
            all.push(at(0, 16));
        }
        if width >= COLUMNS * 8 {
            all.push(at(0, 8));
            all.push(at(width - COLUMNS * 8, 8));
        }
        all
    }

    /// Width of code and patch.
    pub fn width(self) -> usize {
        COLUMNS * self.cell
    }

    /// Height of code and patch.
    pub fn height(self) -> usize {
        (ROWS + FLASH_ROWS) * self.cell
    }
}

/// CRC-16/CCITT-FALSE.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, b| {
        (0..8).fold(crc ^ (u16::from(*b) << 8), |c, _| if c & 0x8000 == 0 { c << 1 } else { (c << 1) ^ 0x1021 })
    })
}

impl Code {
    fn bytes(self) -> [u8; 12] {
        let mut b = [0; 12];
        b[..3].copy_from_slice(&self.counter.to_be_bytes()[1..]);
        b[3..7].copy_from_slice(&self.wall_ms.to_be_bytes());
        b[7..11].copy_from_slice(&self.raf.to_be_bytes());
        b[11] = self.stage & 15;
        b
    }

    /// The code as 108 bits, the first one highest.
    fn bits(self) -> u128 {
        let bytes = self.bytes();
        let head = bytes[..11].iter().fold(0u128, |v, b| (v << 8) | u128::from(*b));
        (((head << 4) | u128::from(bytes[11])) << 16) | u128::from(crc16(&bytes))
    }

    fn from_bits(bits: u128) -> Option<Self> {
        let body = bits >> 16;
        let code = Self {
            counter: (body >> 68) as u32 & 0xff_ffff,
            wall_ms: (body >> 36) as u32,
            raf: (body >> 4) as u32,
            stage: (body & 15) as u8,
        };
        (code.bits() == bits).then_some(code)
    }

    /// Reads a gray picture of `place.width()` columns that begins at the place's upper left corner.
    pub fn read(gray: &[u8], place: Place) -> Option<Self> {
        let mut bits = 0u128;
        for row in 0..ROWS {
            let lit = |column| mean(gray, place, column, row, 1) >= HALF;
            if !lit(0) || lit(1) || lit(COLUMNS - 2) || !lit(COLUMNS - 1) {
                return None;
            }
            for column in 2..2 + ROW_BITS {
                bits = (bits << 1) | u128::from(lit(column));
            }
        }
        Self::from_bits(bits)
    }

    /// Draws the code in black and white, the twin of `drawCode`.
    pub fn draw(self, gray: &mut [u8], stride: usize, place: Place) {
        let bits = self.bits();
        for row in 0..ROWS {
            for column in 0..COLUMNS {
                let lit = match column {
                    0 | 39 => true,
                    1 | 38 => false,
                    c => bits >> (107 - (row * ROW_BITS + c - 2)) & 1 == 1,
                };
                fill(gray, stride, place, (column, row), if lit { 235 } else { 16 });
            }
        }
    }
}

/// Mean brightness of the flash patch, one cell of margin left out. `gray` as for [`Code::read`], patch included.
pub fn patch(gray: &[u8], place: Place) -> u8 {
    let columns = 1..COLUMNS - 1;
    let n = columns.len() as u32;
    let sum: u32 = columns.map(|c| u32::from(mean(gray, place, c, ROWS + 1, 2))).sum();
    (sum / n) as u8
}

/// Mean of the middle of a cell that is `tall` cells high: edges bleed.
fn mean(gray: &[u8], place: Place, column: usize, row: usize, tall: usize) -> u8 {
    let margin = place.cell / 4;
    let (mut sum, mut n) = (0u32, 0u32);
    for y in row * place.cell + margin..(row + tall) * place.cell - margin {
        let at = y * place.width() + column * place.cell;
        for v in &gray[at + margin..at + place.cell - margin] {
            sum += u32::from(*v);
            n += 1;
        }
    }
    (sum / n.max(1)) as u8
}

/// Fills one cell.
pub fn fill(gray: &mut [u8], stride: usize, place: Place, (column, row): (usize, usize), value: u8) {
    for y in 0..place.cell {
        let at = (place.y + row * place.cell + y) * stride + place.x + column * place.cell;
        gray[at..at + place.cell].fill(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { x: 0, y: 0, cell: 8 };
    const CODE: Code = Code { counter: 0xabcdef, wall_ms: 0x8000_0001, raf: 0x1234_5678, stage: 9 };

    fn picture(code: Code) -> Vec<u8> {
        let mut gray = vec![0; PLACE.width() * PLACE.height()];
        code.draw(&mut gray, PLACE.width(), PLACE);
        gray
    }

    #[test]
    fn a_drawn_code_is_read_back() {
        assert_eq!(Code::read(&picture(CODE), PLACE), Some(CODE));
    }

    #[test]
    fn one_wrong_cell_is_no_code() {
        for column in 0..COLUMNS {
            for row in 0..ROWS {
                let mut gray = picture(CODE);
                let was = mean(&gray, PLACE, column, row, 1) >= HALF;
                let flipped = if was { 16 } else { 235 };
                fill(&mut gray, PLACE.width(), PLACE, (column, row), flipped);
                assert_eq!(Code::read(&gray, PLACE), None, "cell {column},{row}");
            }
        }
    }

    #[test]
    fn a_picture_without_a_code_has_none() {
        let blank = vec![0; PLACE.width() * PLACE.height()];
        assert_eq!(Code::read(&blank, PLACE), None);
        let white = vec![255; PLACE.width() * PLACE.height()];
        assert_eq!(Code::read(&white, PLACE), None);
    }
}
