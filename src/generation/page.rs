//! The page of a recording: browser, network guard, load and first paint as one step, and again after a crash.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

use crate::recording::browser::{Browser, BrowserConfig, BrowserError, Call, Egress, LoadBounds, PageEvent, Platform};
use crate::recording::capture::{DISPLAY, sound_socket};
use crate::recording::process::Guard;
use crate::recording::program::ReadyChromium;
use crate::task::spec::RecordingSpec;

/// Why a page is not there.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The browser or the page.
    #[error(transparent)]
    Browser(#[from] BrowserError),
    /// The network guard.
    #[error("the network guard cannot be started")]
    Egress(#[source] std::io::Error),
}

/// Where and how pages are opened.
pub struct Stage {
    url: Url,
    config: BrowserConfig,
    egress: Arc<Egress>,
    guard: Arc<Guard>,
    /// A browser that was started before its page was wanted; at most one.
    ahead: Mutex<JoinSet<Result<Started, BrowserError>>>,
}

/// A browser, what happens to its page, and the time it took to start.
type Started = (Browser, mpsc::Receiver<PageEvent>, Duration);

/// A page that is there.
pub struct Page {
    browser: Arc<Browser>,
    /// What happens to it.
    pub events: mpsc::Receiver<PageEvent>,
    /// When it came up.
    pub since: Instant,
    /// What is done to it meanwhile: a reload, or a moment's rest.
    errand: Option<JoinHandle<()>>,
}

/// A page with the time it took.
pub struct Opened {
    /// The page.
    pub page: Page,
    /// For the browser to start.
    pub launch: Duration,
    /// From the navigation to the painted page.
    pub load: Duration,
}

impl Stage {
    /// Starts the network guard; browsers come later.
    pub async fn new(
        spec: &RecordingSpec,
        chromium: ReadyChromium,
        guard: &Arc<Guard>,
        run_dir: &Path,
    ) -> Result<Self, PageError> {
        let egress = Egress::start(spec.allow_addresses.clone()).await.map_err(PageError::Egress)?;
        let config = BrowserConfig {
            chromium: chromium.path,
            size: spec.size,
            run_dir: run_dir.to_path_buf(),
            platform: Platform::Wayland { display: DISPLAY.into() },
            pulse_socket: sound_socket(run_dir),
            user_agent: spec.user_agent.clone(),
            sandbox: chromium.sandbox,
            tiers: chromium.tiers,
            environment: chromium.environment,
            extra_flags: Vec::new(),
        };
        let (guard, ahead) = (Arc::clone(guard), Mutex::default());
        Ok(Self { url: spec.url.clone(), config, egress, guard, ahead })
    }

    /// Starts the browser that the next page is opened in, without waiting for it. It shows an empty page until then.
    pub fn launch_ahead(&self) {
        self.ahead().spawn(self.launch());
    }

    fn ahead(&self) -> MutexGuard<'_, JoinSet<Result<Started, BrowserError>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> impl Future<Output = Result<Started, BrowserError>> + use<> {
        let (config, egress, guard) = (self.config.clone(), Arc::clone(&self.egress), Arc::clone(&self.guard));
        async move {
            let started = Instant::now();
            let (browser, events) = Browser::launch(&config, &egress, &guard).await?;
            Ok((browser, events, started.elapsed()))
        }
    }

    /// Starts a browser, unless one is there or on its way, and opens the page in it, up to its first paint.
    pub async fn open(&self) -> Result<Opened, PageError> {
        let mut ahead = std::mem::take(&mut *self.ahead());
        let (browser, events, launch) = match ahead.join_next().await {
            Some(Ok(Ok(started))) => started,
            // One that did not come up ahead is told of when it does not now, either.
            Some(_) | None => self.launch().await?,
        };
        let page = Page { browser: Arc::new(browser), events, since: Instant::now(), errand: None };
        self.load(page, launch).await
    }

    /// Ends the browser that no page was opened in.
    pub async fn leave(self) {
        let mut ahead = self.ahead.into_inner().unwrap_or_else(PoisonError::into_inner);
        ahead.abort_all();
        while let Some(started) = ahead.join_next().await {
            if let Ok(Ok((browser, ..))) = started {
                browser.close().await;
            }
        }
    }

    async fn load(&self, page: Page, launch: Duration) -> Result<Opened, PageError> {
        let started = Instant::now();
        if let Err(error) = page.browser.open(&self.url, LoadBounds::default()).await {
            page.close().await;
            return Err(error.into());
        }
        page.browser.settle().await;
        Ok(Opened { page: Page { since: Instant::now(), ..page }, launch, load: started.elapsed() })
    }
}

impl Page {
    /// Waits, within a bound, until what the page is now is on the display.
    pub async fn drawn(&self) {
        self.browser.drawn().await;
    }

    /// Calls the page's callback.
    pub async fn acknowledge(&self, call: &Call) {
        self.browser.acknowledge(call).await;
    }

    /// Loads it again, without waiting for that. A reload that is under way gives way.
    pub fn reload(&mut self) {
        if let Some(before) = self.errand.take() {
            before.abort();
        }
        let browser = Arc::clone(&self.browser);
        self.errand = Some(tokio::spawn(async move {
            match browser.reload(LoadBounds::default()).await {
                Ok(_) => {
                    browser.settle().await;
                }
                Err(error) => tracing::warn!(error = %super::chain(&error), "reload failed"),
            }
        }));
    }

    /// Lets its drawing catch up, without waiting for that: for a moment its script stands still. A reload ends with it anyway.
    pub fn catch_up(&mut self) {
        if self.errand.as_ref().is_none_or(JoinHandle::is_finished) {
            let browser = Arc::clone(&self.browser);
            self.errand = Some(tokio::spawn(async move { browser.catch_up().await }));
        }
    }

    /// Ends its browser.
    pub async fn close(mut self) {
        if let Some(errand) = self.errand.take() {
            errand.abort();
            let _ = errand.await;
        }
        if let Some(browser) = Arc::into_inner(self.browser) {
            browser.close().await;
        }
    }
}
