//! Its recorders that stand by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Replay;
use crate::generation::outcome::Outcome;
use crate::generation::record::{Job, Watcher};
use crate::generation::run::Command;
use crate::generation::standby::Standby;

/// How many there were.
#[derive(Default)]
pub struct Standbys {
    all: AtomicUsize,
    used: AtomicUsize,
    dismissed: AtomicUsize,
    gone: AtomicUsize,
}

impl Standbys {
    /// All, those that recorded, those that were dismissed. What became of the others they were killed with.
    pub fn fates(&self) -> [usize; 3] {
        [&self.all, &self.used, &self.dismissed].map(|n| n.load(Ordering::SeqCst))
    }

    /// Those that stand by still.
    pub fn left(&self) -> usize {
        self.all.load(Ordering::SeqCst) - self.gone.load(Ordering::SeqCst)
    }
}

pub(super) struct Waiting {
    studio: Arc<Replay>,
    since: Instant,
}

impl Waiting {
    pub fn new(studio: Arc<Replay>) -> Self {
        studio.standbys.all.fetch_add(1, Ordering::SeqCst);
        Self { studio, since: Instant::now() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.studio.standbys.gone.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Standby for Waiting {
    async fn record(self: Box<Self>, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome {
        self.studio.standbys.used.fetch_add(1, Ordering::SeqCst);
        let launch = self.studio.launch.saturating_sub(self.since.elapsed());
        self.studio.film(launch, job, commands, watcher).await
    }

    async fn dismiss(self: Box<Self>) {
        self.studio.standbys.dismissed.fetch_add(1, Ordering::SeqCst);
    }
}
