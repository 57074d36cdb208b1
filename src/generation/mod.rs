//! One invocation's share of a recording: drives the recorder, stores what comes out, assembles the file.

mod media;
mod page;
mod record;

pub use record::{Command, Job, Outcome, Progress, Saved, Stopped, Timings, Tools, record};
