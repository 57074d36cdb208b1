//! What caller, page and the other generation may say to a recording, and what it does then.

use super::{Command, END_AHEAD, Leave, Run};
use crate::generation::outcome::Stopped;
use crate::recording::browser::{Action, Call};
use crate::task::timeline::SAMPLE_RATE;

impl Run<'_> {
    pub(super) fn command(&mut self, command: Command) -> Option<Stopped> {
        match command {
            Command::Stop => return Some(Stopped::Interrupted),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Refresh => self.refresh(),
            // What was arranged for a pause is over with it.
            Command::HandOver(Some(0)) if self.capture.is_open() => {}
            Command::HandOver(at) => {
                let arranged = self.leave.map(|l| l.at);
                let own = at.map_or(0, |at| at.wrapping_add_signed(-self.offset));
                let soonest = self.capture.recorded() + END_AHEAD.as_millis() as u64 * SAMPLE_RATE / 1000;
                let at_end = own.max(soonest).next_multiple_of(self.spec.rate.segment());
                // Out of time, it keeps to what was arranged.
                let at_end = arranged.filter(|_| at.is_none()).unwrap_or(at_end);
                self.leave = Some(Leave { at: at_end, forced: at.is_none() });
            }
            Command::Stay => self.leave = self.leave.filter(|l| l.forced),
            Command::Align(alignment) => self.align(alignment),
            Command::Reload => self.refresh(),
            Command::Own(own) => self.own(own),
        }
        if matches!(command, Command::Pause | Command::Resume | Command::Refresh) {
            self.watcher.obeyed();
        }
        None
    }

    fn pause(&mut self) {
        self.paused = true;
        // What was arranged was for a recording that goes on.
        self.leave = self.leave.filter(|l| l.forced);
        if self.begun {
            self.capture.close();
            self.report();
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        if self.begun {
            self.capture.open();
            self.report();
        }
    }

    fn refresh(&mut self) {
        if let Some(page) = &mut self.page {
            page.reload();
        }
    }

    pub(super) async fn called(&mut self, call: &Call) -> Option<Stopped> {
        if self.warm.is_some() {
            // The holder's page says what is to be done.
            if let Some(page) = &self.page {
                page.acknowledge(call).await;
            }
            return None;
        }
        if let (Action::Start | Action::Resume, Some(page)) = (call.action, &self.page) {
            page.drawn().await;
        }
        match call.action {
            Action::Start if !self.begun => self.begin(),
            Action::Start | Action::Resume => self.resume(),
            Action::Pause => self.pause(),
            Action::Refresh | Action::Stop => {}
        }
        if let Some(page) = &self.page {
            page.acknowledge(call).await;
        }
        if call.action == Action::Refresh {
            self.refresh();
        }
        (call.action == Action::Stop).then_some(Stopped::Page)
    }
}
