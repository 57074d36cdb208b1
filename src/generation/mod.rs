//! One invocation's share of a recording: drives the recorder, stores what comes out, assembles the file.

mod assemble;
mod media;
mod outcome;
mod page;
mod record;
mod run;

pub use assemble::{AssembleError, assemble};
pub use outcome::{Outcome, Saved, Stopped, Timings};
pub use record::{Job, Tools, record};
pub use run::{Command, Progress};

/// An error with its causes, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
