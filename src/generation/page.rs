//! The page of a recording: browser, network guard, load and first paint, as one step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::recording::browser::{Browser, BrowserConfig, BrowserError, Egress, PageEvent};
use crate::recording::capture::{display_socket, sound_socket};
use crate::recording::process::Guard;
use crate::task::spec::RecordingSpec;

/// Why a page is not there.
pub type PageError = BrowserError;
