//! Watches over the page while it is recorded: one task that owns the control connection.
//!
//! It answers dialogs at once (an unanswered one stops the page), fetches the page's calls, follows navigations,
//! keeps other pages out of the picture, and finds out when tab or browser are lost. It never waits for anybody:
//! what takes several steps runs in a task of its own.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::browser::{GetVersionParams, GetWindowForTargetParams, WindowId};
use chromiumoxide::cdp::browser_protocol::page::{BringToFrontParams, EnableParams, HandleJavaScriptDialogParams};
use chromiumoxide::cdp::browser_protocol::target::{CloseTargetParams, SessionId, TargetId};
use chromiumoxide::cdp::js_protocol::runtime::{EvaluateParams, RunIfWaitingForDebuggerParams};
use chromiumoxide::types::Response;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::cdp::{Cdp, Event, Incoming, Wire};
use super::error::Lost;
use super::script::{Call, NEXT_CALL};
use super::{COMMAND_BOUND, PageEvent};

/// How often the browser is asked for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Heartbeats in a row without an answer after which it is given up. Counted, not timed, so that a pause of our own
/// process is not taken for one of Chromium's. 15 s is far beyond any stall seen on an overloaded machine.
const MAX_MISSED: u32 = 5;
/// Calls that wait for a recorder that does not read: one per document the page has gone through meanwhile.
const MAX_UNDELIVERED: usize = 8;
/// Windows beside the recorded one. Chromium blocks what no click asked for, so more than a few mean a storm.
const MAX_EXTRA_PAGES: usize = 4;
/// Documents that a page leads through within a command's round trip; each loads, however quickly.
const MAX_PAST: usize = 16;

/// What is known about the recorded page.
#[derive(Debug, Clone, Default)]
pub(super) struct PageState {
    /// Documents committed so far.
    pub commits: u64,
    /// Main frame.
    pub frame: String,
    /// The current document.
    pub loader: String,
    /// Documents before it, the last few, oldest first: a page may lead on before anybody looks.
    past: VecDeque<String>,
    /// Its address; of an error page, the one that failed.
    pub url: String,
    /// It is Chromium's error page.
    pub failed: bool,
    /// The load event has fired.
    pub loaded: bool,
    /// Text, image or canvas has been painted.
    pub content: bool,
    /// Tab or browser are gone.
    pub lost: Option<(Lost, String)>,
}

impl PageState {
    /// Another document takes the place of the current one.
    fn follow(&mut self, frame: String, loader: String, url: String, failed: bool) {
        let mut past = std::mem::take(&mut self.past);
        past.push_back(std::mem::take(&mut self.loader));
        past.drain(..past.len().saturating_sub(MAX_PAST));
        let (commits, lost) = (self.commits + 1, self.lost.take());
        *self = Self { commits, frame, loader, past, url, failed, lost, ..Self::default() };
    }

    /// This document is there, or was.
    pub fn has_come(&self, loader: &str) -> bool {
        self.loader == loader || self.past.iter().any(|past| past == loader)
    }
}

/// Which page is recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub target: TargetId,
    pub session: SessionId,
    pub window: WindowId,
}

/// What the steward's own commands are for.
#[derive(Debug)]
pub(super) enum Mark {
    NextCall { commit: u64 },
    Heartbeat,
    Ignored,
}

pub(super) struct Steward {
    wire: Wire<Mark>,
    cdp: Cdp,
    page: Recorded,
    state: Arc<watch::Sender<PageState>>,
    events: mpsc::Sender<PageEvent>,
    /// Events that may not be dropped, until there is room. A call comes with its document, to be asked for its next
    /// one then: so calls wait in the page.
    undelivered: VecDeque<(PageEvent, Option<u64>)>,
    extra: HashSet<String>,
    missed: u32,
    /// The page has been asked for its next call, or will be when the one before has been delivered.
    asked: bool,
}

impl Steward {
    pub fn new(
        wire: Wire<Mark>,
        cdp: Cdp,
        page: Recorded,
        state: Arc<watch::Sender<PageState>>,
        events: mpsc::Sender<PageEvent>,
    ) -> Self {
        Self {
            wire,
            cdp,
            page,
            state,
            events,
            undelivered: VecDeque::new(),
            extra: HashSet::new(),
            missed: 0,
            asked: false,
        }
    }

    /// Watches until the connection ends or the browser is given up. `last_words` is asked then how it ended.
    pub async fn run(mut self, last_words: impl AsyncFnOnce() -> Option<String>) {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        let given_up = loop {
            tokio::select! {
                incoming = self.wire.next() => match incoming {
                    Incoming::Event(event) => self.on_event(&event),
                    Incoming::Reply(mark, response) => self.on_reply(&mark, &response),
                    Incoming::End => break None,
                },
                _ = heartbeat.tick() => {
                    if self.missed >= MAX_MISSED {
                        break Some(format!("no sign of life for {} s", (HEARTBEAT * MAX_MISSED).as_secs()));
                    }
                    self.on_heartbeat();
                }
                permit = events.reserve(), if !self.undelivered.is_empty() => match (permit, self.undelivered.pop_front()) {
                    (Ok(permit), Some((event, document))) => {
                        permit.send(event);
                        if document == Some(self.state.borrow().commits) {
                            self.ask_for_call();
                        }
                    }
                    _ => self.undelivered.clear(), // nobody listens any more
                }
            }
        };
        let detail = match given_up {
            Some(detail) => detail,
            None => last_words().await.unwrap_or_else(|| "its control connection ended".into()),
        };
        self.lose(Lost::Browser, detail);
        for (event, _) in self.undelivered {
            let _ = self.events.send(event).await;
        }
    }

    fn on_heartbeat(&mut self) {
        self.missed += 1; // taken back by the answer
        self.wire.submit(None, GetVersionParams::default(), Mark::Heartbeat);
        if !self.asked {
            self.ask_for_call(); // the last attempt failed: the page may have been between two documents
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event.method.as_str() {
            "Page.javascriptDialogOpening" => self.answer_dialog(event),
            "Target.attachedToTarget" => self.on_attached(event),
            "Target.targetCrashed" if self.is_recorded(event) => {
                let status = event.text("/status").unwrap_or("unknown");
                self.lose(Lost::Tab, format!("its tab crashed ({status})"));
            }
            "Target.targetDestroyed" => {
                self.extra.remove(event.text("/targetId").unwrap_or_default());
                if self.is_recorded(event) {
                    self.lose(Lost::Window, "its window was closed".into());
                }
            }
            _ if event.session.as_deref() != Some(self.page.session.as_ref()) => {}
            "Page.frameNavigated" if event.text("/frame/parentId").is_none() => self.on_navigated(event),
            "Page.lifecycleEvent" => self.on_lifecycle(event),
            _ => {}
        }
    }

    fn is_recorded(&self, event: &Event) -> bool {
        event.text("/targetId") == Some(self.page.target.as_ref())
    }

    /// As a person would who wants to go on: alerts are read, questions answered with yes, pages may be left.
    fn answer_dialog(&mut self, event: &Event) {
        tracing::debug!(kind = event.text("/type"), "dialog answered");
        let answer =
            HandleJavaScriptDialogParams { accept: true, prompt_text: event.text("/defaultPrompt").map(str::to_owned) };
        let session = event.session.clone().map(SessionId::from);
        self.wire.submit(session.as_ref(), answer, Mark::Ignored);
    }

    fn on_navigated(&mut self, event: &Event) {
        let text = |pointer| event.text(pointer).unwrap_or_default().to_owned();
        let unreachable = event.text("/frame/unreachableUrl");
        let (failed, url) = (unreachable.is_some(), unreachable.map_or_else(|| text("/frame/url"), str::to_owned));
        self.state.send_modify(|state| {
            state.follow(text("/frame/id"), text("/frame/loaderId"), url.clone(), failed);
        });
        // What is dropped when nobody reads is only news.
        let _ = self.events.try_send(PageEvent::Navigated { url, failed });
        self.ask_for_call();
    }

    fn on_lifecycle(&self, event: &Event) {
        let (loader, name) = (event.text("/loaderId").unwrap_or_default(), event.text("/name").unwrap_or_default());
        self.state.send_if_modified(|state| {
            let flag = match name {
                "load" => &mut state.loaded,
                "firstContentfulPaint" => &mut state.content,
                _ => return false,
            };
            let news = state.loader == loader && !*flag;
            *flag |= news;
            news
        });
    }

    fn ask_for_call(&mut self) {
        self.asked = true;
        let commit = self.state.borrow().commits;
        let mut next = EvaluateParams::new(NEXT_CALL);
        next.await_promise = Some(true);
        next.return_by_value = Some(true);
        self.wire.submit(Some(&self.page.session), next, Mark::NextCall { commit });
    }

    fn on_reply(&mut self, mark: &Mark, response: &Response) {
        match mark {
            Mark::Heartbeat => self.missed = 0,
            Mark::Ignored => {}
            Mark::NextCall { commit } => {
                let value = response.result.as_ref().and_then(|r| r.pointer("/result/value")?.as_str());
                match value.and_then(Call::parse) {
                    Some(call) if self.undelivered.len() < MAX_UNDELIVERED => {
                        self.undelivered.push_back((PageEvent::Called(call), Some(*commit)));
                    }
                    // The successor of a document that is gone has been asked already.
                    _ if *commit == self.state.borrow().commits => self.asked = false,
                    _ => {}
                }
            }
        }
    }

    fn lose(&mut self, what: Lost, detail: String) {
        let first = self.state.send_if_modified(|state| {
            // A lost tab may be followed by its browser, which is worse news.
            let worse = state.lost.as_ref().is_none_or(|(known, _)| *known == Lost::Tab && what != Lost::Tab);
            if worse {
                state.lost = Some((what, detail.clone()));
            }
            worse
        });
        if first {
            self.undelivered.push_back((PageEvent::Lost { what, detail }, None));
        }
    }

    /// Another page has appeared, and waits for our word before its first script runs.
    fn on_attached(&mut self, event: &Event) {
        let text = |pointer| event.text(pointer).unwrap_or_default().to_owned();
        let (id, session) = (text("/targetInfo/targetId"), SessionId::from(text("/sessionId")));
        if event.text("/targetInfo/type") != Some("page") || id == *self.page.target.inner() {
            return;
        }
        // An alert before this would be Chromium's own, and stop the recorded page too if they share a process. So
        // would a page that is closed while it waits.
        self.wire.submit(Some(&session), EnableParams::default(), Mark::Ignored);
        self.wire.submit(Some(&session), RunIfWaitingForDebuggerParams::default(), Mark::Ignored);
        if self.extra.len() >= MAX_EXTRA_PAGES {
            tracing::debug!("more than {MAX_EXTRA_PAGES} pages beside the recorded one, closed");
            self.wire.submit(None, CloseTargetParams::new(TargetId::from(id)), Mark::Ignored);
        } else if self.extra.insert(id.clone()) {
            tokio::spawn(tend(self.cdp.clone(), self.page.clone(), TargetId::from(id)));
        }
    }
}

/// Keeps another page out of the picture: a tab in the recorded window is closed; a window of its own is let be,
/// because the display shows the first one only. Either has taken the recorded page's place as the active one.
async fn tend(cdp: Cdp, page: Recorded, other: TargetId) {
    let ask = GetWindowForTargetParams::builder().target_id(other.clone()).build();
    let window = cdp.call(None, ask, COMMAND_BOUND).await;
    let mut result = cdp.call(Some(&page.session), BringToFrontParams::default(), COMMAND_BOUND).await.map(|_| ());
    if window.is_ok_and(|answer| answer.window_id == page.window) {
        result = cdp.call(None, CloseTargetParams::new(other), COMMAND_BOUND).await.map(|_| ());
    }
    match result {
        Ok(()) => tracing::debug!("a page beside the recorded one was put out of the way"),
        Err(error) => tracing::debug!(%error, "a page beside the recorded one could not be put out of the way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_led_on_before_anybody_looked_has_come() {
        let mut state = PageState::default();
        let follow = |state: &mut PageState, n: usize| {
            state.loaded = true;
            state.follow("frame".into(), format!("loader-{n}"), format!("http://127.0.0.1/{n}"), false);
        };
        (0..=MAX_PAST).for_each(|n| follow(&mut state, n));
        assert!((0..=MAX_PAST).all(|n| state.has_come(&format!("loader-{n}"))), "{state:?}");
        assert!(!state.has_come("loader-99") && !state.loaded, "what a document has done is not its successor's");
        follow(&mut state, 99);
        assert_eq!((state.commits as usize, state.past.len()), (MAX_PAST + 2, MAX_PAST), "it does not grow for ever");
        assert!(state.has_come("loader-99") && state.has_come("loader-1") && !state.has_come("loader-0"));
    }
}
