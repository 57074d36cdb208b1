//! Segments to what the user gets. Knows neither the browser nor any store: bytes in, bytes
//! out, and word of it to whoever ordered it.

pub mod callback;
pub mod hls;
pub mod ledger;
pub mod mp4;
pub mod pictures;
pub mod recovery;
pub mod vod;
pub mod web;
