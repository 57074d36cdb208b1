//! One invocation's share of a recording: takes the task, drives the recorder, stores what comes out, assembles the file.

mod admission;
mod announce;
mod assemble;
mod backlog;
mod change;
mod desk;
mod gallery;
mod growth;
mod lease;
mod media;
mod metrics;
mod outcome;
mod page;
mod preview;
mod publish;
mod record;
mod run;
mod secret;
mod standby;
mod tasks;
mod watch;

pub use admission::Admission;
pub use announce::{Announcer, Unheard, WebAnnouncer};
pub use assemble::{AssembleError, assemble};
pub use change::{ChangeError, change};
pub use growth::{Ground, Growth, ResumeError};
pub use media::{Shared, Target};
pub use outcome::{Outcome, Saved, Stopped, Timings};
pub use preview::{Links, preview};
pub use record::{ChromiumStudio, Job, Studio, Tools, Watcher, record};
pub use run::{Alignment, Command, Own, Progress, Readiness};
pub use standby::Standby;
pub use tasks::{Invocation, Recorders, RunnerConfig, START_GRACE_MS, TaskRunner, Vod, VodService, WebVod, remove};

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

#[cfg(test)]
pub(crate) mod tests;
