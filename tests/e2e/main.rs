//! End to end: the real binary, real Chromium and FFmpeg, pages of our own, judged by decoding the file.

mod judge;
mod media;
mod server;
mod synth;
