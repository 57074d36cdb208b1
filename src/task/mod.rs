//! The pure centre: what a recording is, where every frame and sample belongs, and what came out.
//!
//! Nothing here reads a clock, the environment or a file. All media time is counted in samples at 48 kHz, in which
//! video slots, AAC frames and segments are whole numbers at every supported frame rate (see [`timeline`]).

pub mod boxes;
pub mod budget;
pub mod calls;
pub mod course;
pub mod failure;
pub mod fragment;
pub mod init;
pub mod loan;
pub mod measuring;
pub mod order;
pub mod output;
pub mod quality;
pub mod record;
pub mod relay;
pub mod seam;
pub mod segment;
pub mod spec;
pub mod status;
pub mod timeline;
