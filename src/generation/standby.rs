//! A recorder that may be needed in a moment: whoever finds that another one may be lost gets display, sound card, encoder and
//! browser ready while it makes sure. Of that nobody outside hears: no page is opened and nothing is stored.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::backlog::{Bounds, Outlet, backlog};
use super::outcome::{Outcome, Trouble};
use super::record::{Job, Parts, Tools, Watcher, film, set_up};
use super::run::Command;
use crate::recording::process::give_memory_back;
use crate::task::spec::RecordingSpec;

/// See above. Dropping it ends it, too.
#[async_trait]
pub trait Standby: Send {
    /// Makes a recording, of the same spec.
    async fn record(self: Box<Self>, job: Job, commands: mpsc::Receiver<Command>, watcher: &dyn Watcher) -> Outcome;
    /// It is not needed. Nothing of it is left when this is over.
    async fn dismiss(self: Box<Self>);
}

/// What is there before the recording is.
pub(super) struct Ready {
    pub parts: Parts,
    /// What the encoder puts out.
    pub queue: Outlet,
}

/// Chromium on our own display and sound card.
pub(super) struct ChromiumStandby {
    /// One.
    ready: JoinSet<Result<Ready, Trouble>>,
}

impl ChromiumStandby {
    pub fn start(spec: RecordingSpec, tools: Tools) -> Self {
        let mut ready = JoinSet::new();
        ready.spawn(async move {
            let (outputs, queue) = backlog(Bounds::default());
            let parts = set_up(&spec, tools, None, outputs).await?;
            parts.stage.launch_ahead();
            Ok(Ready { parts, queue })
        });
        Self { ready }
    }
}

#[async_trait]
impl Standby for ChromiumStandby {
    async fn record(
        mut self: Box<Self>,
        job: Job,
        commands: mpsc::Receiver<Command>,
        watcher: &dyn Watcher,
    ) -> Outcome {
        // What could not be set up is tried again, and told of then.
        let ready = self.ready.join_next().await.and_then(Result::ok).and_then(Result::ok);
        let outcome = film(job, ready, commands, watcher).await;
        give_memory_back();
        outcome
    }

    async fn dismiss(mut self: Box<Self>) {
        self.ready.abort_all();
        while let Some(ready) = self.ready.join_next().await {
            if let Ok(Ok(Ready { parts, queue })) = ready {
                drop(queue);
                parts.leave().await;
            }
        }
        give_memory_back();
    }
}
