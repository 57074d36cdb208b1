//! Segments to what the user gets. Knows neither the browser nor any store: bytes in, bytes out.

pub mod mp4;
pub mod recovery;
