//! Segments to what the user gets.

pub mod mp4;
