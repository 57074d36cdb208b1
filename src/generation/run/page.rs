//! The page of a running recording: it comes up, calls, and is lost.

use std::time::Duration;

use super::super::outcome::{Stopped, Trouble};
use super::super::page::{Opened, PageError};
use super::{Command, Run};
use crate::recording::browser::{Lost, PageEvent};
use crate::task::quality::{Gap, GapReason};
use crate::task::timeline::{SAMPLE_RATE, seconds};

/// Times a crashed page is brought up again before giving up, as long as it keeps crashing.
const MAX_RELAUNCHES: u32 = 3;
/// A page that ran this long after a relaunch has recovered: the count starts anew.
const RECOVERED: Duration = Duration::from_secs(60);
impl Run<'_> {
    /// Waits for the page; commands are obeyed meanwhile. `Some` when the recording is over before it is up.
    pub(super) async fn opened(
        &mut self,
        opening: impl Future<Output = Result<Opened, PageError>>,
    ) -> Result<Option<Stopped>, PageError> {
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => {
                    let Opened { page, launch, load } = opened?;
                    self.page = Some(page);
                    self.watcher.up();
                    if !self.begun {
                        self.timings.launch_ms = launch.as_millis() as u64;
                        self.timings.load_ms = load.as_millis() as u64;
                    }
                    return Ok(None);
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Stop => return Ok(Some(Stopped::Interrupted)),
                    Command::HandOver(None) => return Ok(Some(Stopped::HandOver)),
                    Command::Pause | Command::Resume => {
                        self.paused = command == Command::Pause;
                        self.watcher.obeyed();
                    }
                    Command::Refresh => self.watcher.obeyed(),
                    Command::Align(_) | Command::Own(_) => drop(self.command(command)),
                    Command::Reload | Command::HandOver(Some(_)) | Command::Stay => {}
                },
            }
        }
    }

    pub(super) async fn page_event(&mut self, event: PageEvent) -> Result<Option<Stopped>, Trouble> {
        match event {
            PageEvent::Called(call) => Ok(self.called(&call).await),
            PageEvent::Navigated { .. } => Ok(None),
            PageEvent::Lost { what, detail } => self.lost(what, &detail).await,
        }
    }

    /// The page is gone: brings it up again and lists what is missing.
    pub(super) async fn lost(&mut self, what: Lost, detail: &str) -> Result<Option<Stopped>, Trouble> {
        tracing::warn!(?what, detail, "page lost");
        let missing_from = (self.warm.is_none() && self.capture.is_open()).then(|| self.capture.close());
        if self.warm.is_some() && self.capture.is_open() {
            self.part();
        }
        if self.page.as_ref().is_some_and(|p| p.since.elapsed() > RECOVERED) {
            self.relaunches = 0;
        }
        loop {
            if self.relaunches == MAX_RELAUNCHES {
                return Err(Trouble::Crashing(self.relaunches));
            }
            self.relaunches += 1;
            // A new browser in any case: the tab that follows a crashed one is not quite like a first one (in Chromium 148
            // its lists do not open), and it comes only half a second sooner.
            if let Some(page) = self.page.take() {
                page.close().await;
            }
            match self.opened(self.stage.open()).await {
                Ok(Some(stopped)) => return Ok(Some(stopped)),
                Ok(None) => break,
                // A page that was there and is not now may be there again in a moment.
                Err(error) => tracing::warn!(error = %super::super::chain(&error), "page did not come back"),
            }
        }
        if self.warm.is_some() {
            self.steer();
            return Ok(None);
        }
        if !self.begun && !self.spec.manual_start {
            self.begin();
            return Ok(None);
        }
        let start = seconds(self.capture.recorded()) + self.offset as f64 / SAMPLE_RATE as f64;
        let here = if self.begun && !self.paused { self.capture.open() } else { self.capture.clock().now() };
        if let Some(missing_from) = missing_from {
            let duration = seconds(here.saturating_sub(missing_from));
            self.gaps.push(Gap { start, duration, reason: GapReason::PageCrash });
            // Who records along has to know that the recording stands elsewhere now.
            self.report();
        }
        Ok(None)
    }
}
