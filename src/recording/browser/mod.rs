//! The browser: one Chromium, its page, and the way out to the network.
//!
//! [`Browser::launch`] starts Chromium through [`process`](super::process) and connects to it; [`Browser::open`]
//! brings a page to its load event or says why not; [`Browser::settle`] waits until the page's own content has been
//! painted. From then on the [`steward`] watches over it, and what the recorder must know arrives as [`PageEvent`]s.
//! All traffic goes through an [`Egress`] of this process. What pages may not do to the picture or to the machine is
//! listed in [`flags`]. A lost browser is not repaired: drop it and launch another.

pub mod address;
mod cdp;
pub mod egress;
mod error;
mod flags;
mod launch;
mod load;
mod script;
mod socks;
mod steward;
#[cfg(test)]
mod tests;
mod tier;

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::browser::{
    GetWindowForTargetParams, SetDownloadBehaviorBehavior, SetDownloadBehaviorParams,
};
use chromiumoxide::cdp::browser_protocol::emulation::SetFocusEmulationEnabledParams;
use chromiumoxide::cdp::browser_protocol::page::{
    AddScriptToEvaluateOnNewDocumentParams, EnableParams, SetInterceptFileChooserDialogParams,
    SetLifecycleEventsEnabledParams,
};
use chromiumoxide::cdp::browser_protocol::target::{
    AttachToTargetParams, FilterEntry, GetTargetsParams, SessionId, SetAutoAttachParams, SetDiscoverTargetsParams,
    TargetFilter,
};
use chromiumoxide::cdp::js_protocol::runtime::EvaluateParams;
use chromiumoxide::types::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

pub use cdp::ControlError;
use cdp::{Cdp, Incoming, Wire};
pub use egress::{Egress, Refusal};
pub use error::{BrowserError, Lost};
pub use load::{LoadBounds, Loaded, Settled};
pub use script::{Action, Call};
use steward::{PageState, Recorded, Steward};
pub use tier::{Tier, Tiers};

use super::process::{Child, Guard};
use crate::task::spec::Size;

/// For a command that Chromium answers at once: a hundred times what it takes on a busy machine.
const COMMAND_BOUND: Duration = Duration::from_secs(10);
/// How often to look for the first tab, which is there as soon as DevTools is, or soon after.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// News that may wait for the recorder; calls beyond it stay in the page.
const EVENT_QUEUE: usize = 64;
/// For a way of starting Chromium to prove itself by a frame, while there are others to try: a cold start at the share of a
/// processor that a small function has takes half of it.
const PROBE_BOUND: Duration = Duration::from_secs(10);
/// For the page's callback, which the recorder does not depend on.
const ACKNOWLEDGE_BOUND: Duration = Duration::from_secs(1);
/// After the connection's end, for the process's own.
const EXIT_BOUND: Duration = Duration::from_secs(2);

/// What Chromium draws on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    /// A Wayland display: a socket's name in the run directory, or its path.
    Wayland {
        /// Value of WAYLAND_DISPLAY.
        display: OsString,
    },
    /// Nothing; for tests without a display.
    Headless,
}

/// Whether Chromium's own sandbox is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Where it works: not for root, not without user namespaces.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How to start a browser.
#[derive(Debug, Clone)]
pub struct BrowserConfig {
    /// The program itself, not a wrapper script, which would add flags and an environment of its own.
    pub chromium: PathBuf,
    /// Size of the window.
    pub size: Size,
    /// Private directory: profile, home, temporary files, and the Wayland socket.
    pub run_dir: PathBuf,
    /// Where it draws.
    pub platform: Platform,
    /// The Pulse sink's socket.
    pub pulse_socket: PathBuf,
    /// User agent override.
    pub user_agent: Option<String>,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// How its processes come about.
    pub tiers: Tiers,
    /// Added to the otherwise fixed environment (LANG, TZ; a bundled tree's LD_LIBRARY_PATH and FONTCONFIG_FILE).
    pub environment: Vec<(OsString, OsString)>,
    /// Added to the command line.
    pub extra_flags: Vec<OsString>,
}

/// What the recorder must know about the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageEvent {
    /// The page calls a window function. [`Browser::acknowledge`] it when done (for a refresh: before the reload).
    Called(Call),
    /// The main frame shows another document.
    Navigated {
        /// Its address. Not for logs: it may carry tokens.
        url: String,
        /// It is Chromium's error page.
        failed: bool,
    },
    /// Tab or browser are gone. Comes once for each.
    Lost {
        /// Which.
        what: Lost,
        /// How it is known.
        detail: String,
    },
}

type SharedChild = Arc<Mutex<Option<Child>>>;

/// A Chromium with one page. Dropping it kills the process; [`Browser::close`] does so without blocking.
pub struct Browser {
    cdp: Cdp,
    session: SessionId,
    state: Arc<watch::Sender<PageState>>,
    steward: JoinHandle<()>,
    child: SharedChild,
    pid: u32,
    egress: Arc<Egress>,
}

impl Browser {
    /// Starts Chromium with an empty page. `guard` ends it should this process die. Where there are several ways to start
    /// it, the first is taken that draws a frame in time; the last has all the time there is.
    pub async fn launch(
        config: &BrowserConfig,
        egress: &Arc<Egress>,
        guard: &Arc<Guard>,
    ) -> Result<(Self, mpsc::Receiver<PageEvent>), BrowserError> {
        let (last, others) = config.tiers.candidates().split_last().unwrap_or((&Tier::Zygote, &[]));
        for &tier in others {
            let error = match timeout(PROBE_BOUND, Self::probe(config, tier, egress, guard)).await {
                Ok(Ok(started)) => {
                    tracing::info!(tier = tier.word(), "chromium draws");
                    config.tiers.prove(tier);
                    return Ok(started);
                }
                // No way of starting it helps.
                Ok(Err(error @ (BrowserError::Start { .. } | BrowserError::Directory { .. }))) => return Err(error),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("nothing drawn within {PROBE_BOUND:?}"),
            };
            tracing::warn!(tier = tier.word(), error, "chromium does not work this way here, trying the next");
        }
        let started = Self::start(config, *last, egress, guard).await?;
        config.tiers.prove(*last);
        Ok(started)
    }

    async fn probe(
        config: &BrowserConfig,
        tier: Tier,
        egress: &Arc<Egress>,
        guard: &Arc<Guard>,
    ) -> Result<(Self, mpsc::Receiver<PageEvent>), BrowserError> {
        let started = Self::start(config, tier, egress, guard).await?;
        started.0.draws().await?;
        Ok(started)
    }

    async fn start(
        config: &BrowserConfig,
        tier: Tier,
        egress: &Arc<Egress>,
        guard: &Arc<Guard>,
    ) -> Result<(Self, mpsc::Receiver<PageEvent>), BrowserError> {
        let launched = launch::launch(config, tier, egress.address(), guard).await?;
        egress.forbid_port(launched.port);
        let pid = launched.child.id();
        let child: SharedChild = Arc::new(Mutex::new(Some(launched.child)));
        let (mut wire, cdp) = Wire::connect(&launched.address, COMMAND_BOUND).await?;
        let page = drive(&mut wire, find_page(&cdp)).await?;
        let session = page.session.clone();
        let (events, received) = mpsc::channel(EVENT_QUEUE);
        let state = Arc::new(watch::Sender::new(PageState::default()));
        let steward = Steward::new(wire, cdp.clone(), page, Arc::clone(&state), events);
        let exit = exit_of(Arc::clone(&child));
        let steward = tokio::spawn(steward.run(async || exit.await));
        let browser = Self { cdp, session, state, steward, child, pid, egress: Arc::clone(egress) };
        browser.prepare().await?;
        Ok((browser, received))
    }

    /// Everything that must be in place before the first page. Sent in one go: a start waits for the slowest answer, not for
    /// each.
    async fn prepare(&self) -> Result<(), ControlError> {
        let deny = SetDownloadBehaviorParams::new(SetDownloadBehaviorBehavior::Deny);
        // Other pages wait before their first script until the steward has seen to them.
        let mut attach = SetAutoAttachParams::new(true, true);
        attach.flatten = Some(true);
        let page = FilterEntry { exclude: None, r#type: Some("page".into()) };
        attach.filter = Some(TargetFilter::new(vec![page]));
        tokio::try_join!(
            self.tell(EnableParams::default()), // dialogs are ours to answer
            self.tell(SetLifecycleEventsEnabledParams::new(true)),
            self.tell(AddScriptToEvaluateOnNewDocumentParams::new(script::init_script())),
            self.tell(SetFocusEmulationEnabledParams::new(true)), // there is no seat to focus the window with
            self.tell(SetInterceptFileChooserDialogParams::new(true)), // opened, and seen by nobody
            self.cdp.call(None, deny, COMMAND_BOUND),
            self.cdp.call(None, SetDiscoverTargetsParams::new(true), COMMAND_BOUND),
            self.cdp.call(None, attach, COMMAND_BOUND),
        )?;
        Ok(())
    }

    /// Waits for the empty page's second frame: then the display has had one and asked for more.
    async fn draws(&self) -> Result<(), ControlError> {
        let mut frames = EvaluateParams::new("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))");
        frames.await_promise = Some(true);
        self.cdp.call(Some(&self.session), frames, PROBE_BOUND).await.map(drop)
    }

    async fn tell<C: Command>(&self, command: C) -> Result<C::Response, ControlError> {
        self.cdp.call(Some(&self.session), command, COMMAND_BOUND).await
    }

    /// Calls the page's callback of a call, if it gave one. Best effort: the page may be gone.
    pub async fn acknowledge(&self, call: &Call) {
        if let Some(expression) = call.acknowledgement() {
            let evaluated =
                self.cdp.call(Some(&self.session), EvaluateParams::new(expression), ACKNOWLEDGE_BOUND).await;
            if let Err(error) = evaluated {
                tracing::debug!(%error, "callback not called");
            }
        }
    }

    /// Process id of the browser, leader of its process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends every process of it. At once: nothing in the profile is worth a farewell.
    pub async fn close(self) {
        self.steward.abort();
        let child = take_child(&self.child);
        let _ = tokio::task::spawn_blocking(move || child.map(|child| child.end(Duration::ZERO))).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.steward.abort();
        drop(take_child(&self.child));
    }
}

fn take_child(child: &SharedChild) -> Option<Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Runs the wire while `task` uses it: it moves only when its owner drives it, and that owner, the steward, needs to
/// know the page first.
async fn drive<T>(
    wire: &mut Wire<steward::Mark>,
    task: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let mut task = pin!(task);
    loop {
        tokio::select! {
            result = &mut task => return result,
            incoming = wire.next() => if matches!(incoming, Incoming::End) {
                return Err(ControlError::Closed);
            },
        }
    }
}

/// Finds the first tab and attaches to it.
async fn find_page(cdp: &Cdp) -> Result<Recorded, ControlError> {
    let deadline = Instant::now() + COMMAND_BOUND;
    let target = loop {
        let targets = cdp.call(None, GetTargetsParams::default(), COMMAND_BOUND).await?.target_infos;
        if let Some(page) = targets.into_iter().find(|t| t.r#type == "page") {
            break page.target_id;
        }
        if Instant::now() >= deadline {
            return Err(ControlError::Silent { command: "with a first tab".into(), bound: COMMAND_BOUND });
        }
        sleep(LOOK_EVERY).await;
    };
    let attach = AttachToTargetParams { target_id: target.clone(), flatten: Some(true) };
    let ask = GetWindowForTargetParams::builder().target_id(target.clone()).build();
    let (attached, window) =
        tokio::try_join!(cdp.call(None, attach, COMMAND_BOUND), cdp.call(None, ask, COMMAND_BOUND))?;
    Ok(Recorded { target, session: attached.session_id, window: window.window_id })
}

/// How the process ended, when its connection has.
async fn exit_of(child: SharedChild) -> Option<String> {
    let wait = move || {
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        let child = child.as_mut()?;
        let status = child.wait_timeout(EXIT_BOUND).ok()??;
        Some(format!("it ended ({status}): {}", launch::last_words(&child.stderr_tail())))
    };
    tokio::task::spawn_blocking(wait).await.ok()?
}
