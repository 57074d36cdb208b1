//! What can go wrong between a URL and a page on the display.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use super::cdp::ControlError;
use super::egress::Refusal;

/// What was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The tab's process; opening the page again revives it.
    Tab,
    /// The page closed its own window; only a new browser helps.
    Window,
    /// The browser; only a new one helps.
    Browser,
}

/// A browser that did not start, or a page that did not open. Addresses appear by host only: paths and queries carry
/// tokens.
#[derive(Debug, Error)]
pub enum BrowserError {
    /// The program cannot be run.
    #[error("cannot start chromium at {}; install it or name another", path.display())]
    Start {
        /// What was to be run.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The private directory cannot be used.
    #[error("cannot prepare chromium's directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("chromium ended while starting ({status}): {stderr}")]
    Exited {
        /// How.
        status: ExitStatus,
        /// Its last words.
        stderr: String,
    },
    /// It runs but is not ready.
    #[error("chromium was not ready within {} s: {stderr}", bound.as_secs())]
    NotReady {
        /// What was waited.
        bound: Duration,
        /// Its last words.
        stderr: String,
    },
    /// The way to the page is closed, or leads nowhere.
    #[error("cannot reach {host}: {refusal}")]
    Refused {
        /// The host that was asked for.
        host: String,
        /// Why.
        refusal: Refusal,
    },
    /// The network gave no document.
    #[error("cannot open the page of {host}: {reason}")]
    Network {
        /// The host that was asked for.
        host: String,
        /// Chromium's name for it (`net::ERR_…`).
        reason: String,
    },
    /// The server says that this is not the page.
    #[error("{host} answered with HTTP status {status}")]
    Status {
        /// The host that was asked for.
        host: String,
        /// 400 or more.
        status: u16,
    },
    /// The server says nothing.
    #[error("{host} did not answer within {} s", bound.as_secs())]
    NoAnswer {
        /// The host that was asked for.
        host: String,
        /// What was waited.
        bound: Duration,
    },
    /// There is nothing to show.
    #[error("{host} sent {what} instead of a page")]
    NotAPage {
        /// The host that was asked for.
        host: String,
        /// What it sent.
        what: &'static str,
    },
    /// It went away meanwhile.
    #[error("chromium lost the page: {detail}")]
    Lost {
        /// What.
        what: Lost,
        /// How it is known.
        detail: String,
    },
    /// Chromium does not do as it is told.
    #[error("cannot control chromium")]
    Control(#[from] ControlError),
}
