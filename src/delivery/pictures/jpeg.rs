//! I420 in BT.709 limited range, as the encoder is fed, to JPEG, which knows BT.601 full range only (JFIF 1.02, page 3).

use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};

use crate::task::spec::Size;

/// Media type.
pub const CONTENT_TYPE: &str = "image/jpeg";
/// Text stays readable.
const QUALITY: u8 = 85;

/// Fractions of one in the arithmetic below.
const ONE: f64 = 65536.0;
/// BT.709 (ITU-R BT.709-6, 3.2): R' = Y + CR·Cr, B' = Y + CB·Cb, and what is left for G'.
const CR: f64 = 1.5748;
const CB: f64 = 1.8556;
const G_OF_CR: f64 = -0.2126 * CR / 0.7152;
const G_OF_CB: f64 = -0.0722 * CB / 0.7152;
/// Limited to full range.
const LUMA: i32 = (255.0 / 219.0 * ONE) as i32;
const CHROMA: f64 = 255.0 / 224.0;
/// BT.601 (ITU-R BT.601-7, 2.5) of these R'G'B'.
const Y_OF_CB: f64 = 0.587 * G_OF_CB + 0.114 * CB;
const Y_OF_CR: f64 = 0.299 * CR + 0.587 * G_OF_CR;
/// What comes out for each that comes in: rows Y, Cb, Cr; columns Cb, Cr. Y goes into Y only.
const MIX: [[i32; 2]; 3] = [
    [(Y_OF_CB * CHROMA * ONE) as i32, (Y_OF_CR * CHROMA * ONE) as i32],
    [((CB - Y_OF_CB) / 1.772 * CHROMA * ONE) as i32, (-Y_OF_CR / 1.772 * CHROMA * ONE) as i32],
    [(-Y_OF_CB / 1.402 * CHROMA * ONE) as i32, ((CR - Y_OF_CR) / 1.402 * CHROMA * ONE) as i32],
];

/// Part of a picture.
pub(super) struct Part<'a> {
    /// All of it.
    pub i420: &'a [u8],
    pub of: Size,
    /// The part, from the upper left corner on.
    pub size: Size,
}

/// A picture as JPEG.
pub fn jpeg(i420: &[u8], size: Size) -> Vec<u8> {
    encode(Part { i420, of: size, size })
}

pub(super) fn encode(part: Part<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_optimized_huffman_tables(true);
    let done = encoder.encode_image(part);
    // Nothing is written but to memory, and sides are between 2 and 2560.
    debug_assert!(done.is_ok(), "{done:?}");
    out
}

impl ImageBuffer for Part<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.size.width as u16
    }

    fn height(&self) -> u16 {
        self.size.height as u16
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (stride, y) = (self.of.width as usize, usize::from(y));
        let (luma, chroma) = self.i420.split_at(stride * self.of.height as usize);
        let (cb, cr) = chroma.split_at(chroma.len() / 2);
        let (cb, cr) = (&cb[y / 2 * (stride / 2)..], &cr[y / 2 * (stride / 2)..]);
        for (x, luma) in luma[y * stride..][..self.size.width as usize].iter().enumerate() {
            let (cb, cr) = (i32::from(cb[x / 2]) - 128, i32::from(cr[x / 2]) - 128);
            let luma = (i32::from(*luma) - 16) * LUMA;
            for (n, ([of_cb, of_cr], base)) in MIX.iter().zip([luma, 128 << 16, 128 << 16]).enumerate() {
                let value = (base + of_cb * cb + of_cr * cr + (1 << 15)) >> 16;
                buffers[n].push(value.clamp(0, 255) as u8);
            }
        }
    }
}
