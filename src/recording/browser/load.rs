//! From a URL to a painted page: navigation, its failures, and what "ready" means.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::page::{
    BringToFrontParams, CreateIsolatedWorldParams, FrameId, NavigateParams, ReloadParams, StopLoadingParams,
};
use chromiumoxide::cdp::js_protocol::runtime::EvaluateParams;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::error::{BrowserError, Lost};
use super::steward::PageState;
use super::{Browser, COMMAND_BOUND, ControlError};

/// After the load event, for the first text, image or canvas. Pages that paint none (a colour, a `<div>`) wait this
/// long for it; pages that build themselves by script use it.
const CONTENT_BOUND: Duration = Duration::from_millis(1000);
/// For fonts and frames of a page that has content. A font that takes longer is seen swapping in, as by a person.
const SETTLE_BOUND: Duration = Duration::from_secs(4);
/// From the answer of a navigation to the event that its document is there; they travel together.
const COMMIT_BOUND: Duration = Duration::from_secs(1);
/// Chromium's word for a navigation that gave no document and no error either.
const ABORTED: &str = "net::ERR_ABORTED";
/// World of the recorder's own scripts, out of the page's reach.
const WORLD: &str = "panorec";
/// Chromium draws in three stages (page, compositor, display), each a frame after the other when the one before was late once:
/// from then on every picture is shown one to three frames after its sound, which nothing tells the page. Only frames without a
/// new picture work that off. So the page's script stands still for three frames, and goes on just after the next has begun,
/// when every stage is free to draw at once. Sound against flash of `clock.html` and `animation.html` at 30 frames a second on a
/// busy machine: without this −11 ms at 15 of 29 starts, −44 at 13 and −78 at one; with it −11 at 12 of 13, and −44 at the one
/// that was held up later.
const CAUGHT_UP: &str = "new Promise((resolve) => { \
    let before = 0, interval = 100, left = 4; \
    const frame = (now) => { \
        if (before) interval = Math.min(interval, now - before); \
        before = now; \
        if (--left) return requestAnimationFrame(frame); \
        const until = now + 3 * interval + 1.5; \
        while (performance.now() < until); \
        resolve(true); \
    }; \
    requestAnimationFrame(frame); \
})";
/// Seven frames at 10 a second, and twice that for a busy page.
const CAUGHT_UP_BOUND: Duration = Duration::from_millis(1500);
/// Resolves when what the document was when it is asked has been drawn. A frame's drawing overlaps the script of the two that
/// follow it, so the third animation frame is the first that cannot begin before it is done.
const DRAWN: &str = "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => \
                     requestAnimationFrame(() => resolve(true)))))";
/// For that: a page whose script keeps it from drawing for longer is recorded as it is shown.
const DRAWN_BOUND: Duration = Duration::from_millis(500);
/// The document's HTTP status; 0 where there is none.
const STATUS: &str = "performance.getEntriesByType('navigation')[0]?.responseStatus ?? 0";

/// Limits of loading a page.
#[derive(Debug, Clone, Copy)]
pub struct LoadBounds {
    /// For the document itself to begin to arrive.
    pub answer: Duration,
    /// From then on, for its load event.
    pub load: Duration,
}

impl Default for LoadBounds {
    /// What a patient person waits.
    fn default() -> Self {
        Self { answer: Duration::from_secs(30), load: Duration::from_secs(15) }
    }
}

/// A page that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Its load event has fired. Otherwise something in it is still on its way, as a person would see.
    pub complete: bool,
}

/// Whether a page has come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Its own content is on the display.
    Painted,
    /// It has not said so in time; what is on the display is what a person would see.
    TimedOut,
}

impl Browser {
    /// Opens `url` and waits for its load event, within bounds. Also revives a crashed tab.
    pub async fn open(&self, url: &Url, bounds: LoadBounds) -> Result<Loaded, BrowserError> {
        let host = url.host_str().unwrap_or_default();
        self.egress.check_url(url).await.map_err(|refusal| BrowserError::Refused { host: host.to_owned(), refusal })?;
        self.state.send_if_modified(|state| {
            let crashed = matches!(state.lost, Some((Lost::Tab, _)));
            if crashed {
                state.lost = None;
            }
            crashed
        });
        let navigate = NavigateParams::new(url.as_str());
        let answer = match self.cdp.call(Some(&self.session), navigate, bounds.answer).await {
            Err(ControlError::Silent { bound, .. }) => {
                let _ = self.tell(StopLoadingParams::default()).await;
                return Err(BrowserError::NoAnswer { host: host.to_owned(), bound });
            }
            answer => answer.map_err(|e| self.explain(e))?,
        };
        if answer.is_download == Some(true) {
            return Err(BrowserError::NotAPage { host: host.to_owned(), what: "a download" });
        }
        let loader = answer.loader_id.map(|id| id.inner().clone()).unwrap_or_default();
        if let Some(reason) = answer.error_text {
            // The error page knows which address failed; an aborted navigation has none.
            let told = |state: &PageState| state.lost.is_some() || (state.failed && state.loader == loader);
            if !reason.contains(ABORTED) {
                let _ = timeout(COMMIT_BOUND, self.state.subscribe().wait_for(told)).await;
            }
            return Err(self.failure(url.as_str(), reason).await);
        }
        // Only an active page opens lists and calendars, and a new or revived tab is not active by itself.
        self.tell(BringToFrontParams::default()).await.map_err(|e| self.explain(e))?;
        self.loaded(url.as_str(), bounds.load, |state| state.has_come(&loader)).await
    }

    /// Loads the page again, as a person would: its `beforeunload` question is answered, caches are used.
    pub async fn reload(&self, bounds: LoadBounds) -> Result<Loaded, BrowserError> {
        let (commits, url) = {
            let state = self.state.borrow();
            (state.commits, state.url.clone())
        };
        self.tell(ReloadParams::default()).await.map_err(|e| self.explain(e))?;
        let committed = |state: &PageState| state.commits > commits;
        let mut state = self.state.subscribe();
        let lost_or = |state: &PageState| state.lost.is_some() || committed(state);
        if timeout(bounds.answer, state.wait_for(lost_or)).await.is_err() {
            return Err(BrowserError::NoAnswer { host: host_of(&url), bound: bounds.answer });
        }
        self.loaded(&url, bounds.load, committed).await
    }

    /// Waits until the page's own content has been painted, first content and fonts, and drawing has caught up with the page; see
    /// [`CAUGHT_UP`].
    pub async fn settle(&self) -> Settled {
        let deadline = Instant::now() + CONTENT_BOUND;
        let mut state = self.state.subscribe();
        let content = |state: &PageState| state.lost.is_some() || state.content;
        let _ = timeout_at(deadline, state.wait_for(content)).await;
        let deadline = Instant::now() + SETTLE_BOUND;
        // The second of the frames in which it catches up has painted what fonts have changed.
        let rested = format!("document.fonts.ready.then(() => {CAUGHT_UP})");
        loop {
            let (frame, loader) = {
                let state = self.state.borrow();
                (state.frame.clone(), state.loader.clone())
            };
            let painted = timeout_at(deadline, self.evaluate(frame, &rested, SETTLE_BOUND)).await;
            match painted {
                Ok(Ok(_)) if self.state.borrow().loader == loader => return Settled::Painted,
                // The page has moved on to another document meanwhile: that one counts.
                Ok(_) if self.state.borrow().lost.is_none() && Instant::now() < deadline => {
                    let other = |state: &PageState| state.lost.is_some() || (state.loader != loader && state.loaded);
                    let _ = timeout_at(deadline, state.wait_for(other)).await;
                }
                _ => {
                    self.catch_up().await;
                    return Settled::TimedOut;
                }
            }
        }
    }

    /// Waits, within a bound, until the display has what the page is now: a page that changes and calls `startRecord` means
    /// that its recording begins with the change.
    pub async fn drawn(&self) {
        let frame = self.state.borrow().frame.clone();
        let _ = timeout(DRAWN_BOUND, self.evaluate(frame, DRAWN, DRAWN_BOUND)).await;
    }

    /// Lets Chromium's drawing catch up with the page; see [`CAUGHT_UP`].
    pub async fn catch_up(&self) {
        let frame = self.state.borrow().frame.clone();
        if let Ok(Err(error)) = timeout(CAUGHT_UP_BOUND, self.evaluate(frame, CAUGHT_UP, CAUGHT_UP_BOUND)).await {
            tracing::debug!(%error, "drawing may lag behind the page");
        }
    }

    /// Waits for the load event of the current document, which may be a successor of the one that was asked for
    /// (pages redirect by script), and judges it.
    async fn loaded(
        &self,
        url: &str,
        bound: Duration,
        begun: impl Fn(&PageState) -> bool,
    ) -> Result<Loaded, BrowserError> {
        let host = host_of(url);
        let mut state = self.state.subscribe();
        let mut seen = false;
        let done = |state: &PageState| {
            seen |= begun(state);
            state.lost.is_some() || (seen && (state.loaded || state.failed))
        };
        let complete = timeout(bound, state.wait_for(done)).await.is_ok();
        let state = self.state.borrow().clone();
        if let Some((what, detail)) = state.lost {
            return Err(BrowserError::Lost { what, detail });
        }
        if state.failed {
            return Err(self.failure(&state.url, "its page could not be loaded".into()).await);
        }
        let status = self.evaluate(state.frame, STATUS, COMMAND_BOUND).await.ok().and_then(|v| v.as_u64());
        match status.and_then(|s| u16::try_from(s).ok()) {
            Some(status @ 400..) => Err(BrowserError::Status { host, status }),
            _ => Ok(Loaded { complete }),
        }
    }

    /// Evaluates in a world of our own, so that nothing the page has replaced takes part.
    async fn evaluate(&self, frame: String, expression: &str, bound: Duration) -> Result<Value, ControlError> {
        let mut world = CreateIsolatedWorldParams::new(FrameId::new(frame));
        world.world_name = Some(WORLD.into());
        let context = self.tell(world).await?.execution_context_id;
        let mut evaluate = EvaluateParams::new(expression);
        evaluate.context_id = Some(context);
        evaluate.await_promise = Some(true);
        evaluate.return_by_value = Some(true);
        let answer = self.cdp.call(Some(&self.session), evaluate, bound).await?;
        Ok(answer.result.value.unwrap_or_default())
    }

    /// Why a navigation failed, in the words of whoever knows best.
    async fn failure(&self, url: &str, reason: String) -> BrowserError {
        let state = self.state.borrow().clone();
        // After a redirect the host that failed is not the one that was asked for.
        let host = host_of(if state.failed { &state.url } else { url });
        if reason.contains("ERR_HTTP_RESPONSE_CODE_FAILURE") {
            // An error without a body: Chromium shows its own page, which knows the status.
            let status = self.evaluate(state.frame, STATUS, COMMAND_BOUND).await.ok().and_then(|v| v.as_u64());
            let status = status.and_then(|s| u16::try_from(s).ok()).unwrap_or(400);
            return BrowserError::Status { host, status };
        }
        if reason.contains(ABORTED) {
            return BrowserError::NotAPage { host, what: "nothing (no content)" };
        }
        match self.egress.failure(&host) {
            // Chromium knows only that the proxy could not.
            Some(refusal) if reason.contains("SOCKS") || !reason.contains("net::") => {
                BrowserError::Refused { host, refusal }
            }
            _ => BrowserError::Network { host, reason },
        }
    }

    /// A command fails for a reason: if tab or browser are gone, that is it.
    fn explain(&self, error: ControlError) -> BrowserError {
        match self.state.borrow().lost.clone() {
            Some((what, detail)) => BrowserError::Lost { what, detail },
            None => BrowserError::Control(error),
        }
    }
}

fn host_of(url: &str) -> String {
    Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}
