//! What a studio without a browser plays and shows.

use bytes::Bytes;

use crate::task::boxes::Boxes;
use crate::task::init::Init;
use crate::task::spec::Size;

/// FFmpeg's own output: 4 s of 64×64 at 15 fps, keyframes on the grid, silence in AAC.
const TINY: &[u8] = include_bytes!("../../../../tests/fixtures/tiny.fmp4");
/// Size of the pictures.
pub const SIZE: Size = Size { width: 64, height: 64 };

/// What a generation's recorder shows from its own segment `own` on.
pub fn shown(generation: u32, own: u64) -> Vec<u8> {
    let mut i420 = [vec![40; 4096], vec![100 + generation as u8; 1024], vec![128; 1024]].concat();
    i420[(own % 56) as usize * 64..][..8 * 64].fill(200);
    i420
}

/// Init segment, first segment (with the encoder's priming), and one that may follow any number of times.
pub(super) fn stored() -> (Bytes, Init, [Bytes; 2]) {
    let starts: Vec<usize> =
        Boxes::new(TINY).map(Result::unwrap).filter(|b| matches!(&b.kind.0, b"moof" | b"mfra")).map(|b| b.at).collect();
    let init = Init::read(&TINY[..starts[0]]).unwrap();
    let segment = |n: usize| Bytes::from_static(&TINY[starts[n]..starts[n + 1]]);
    (Bytes::from_static(&TINY[..starts[0]]), init, [segment(0), segment(1)])
}
