//! Against a real Chromium, on the recorder's own display where the picture matters.

mod pages;
mod server;
mod tiers;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use chromiumoxide::cdp::browser_protocol::page::CrashParams;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::*;
use crate::recording::clock::MediaClock;
use crate::recording::display::{self, Display};
use crate::task::timeline::FrameRate;
use server::Server;

const CHROMIUM: &str = "/usr/lib/chromium/chromium";
/// Longer than anything takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(40);
const SHORT: LoadBounds = LoadBounds { answer: Duration::from_secs(1), load: Duration::from_secs(1) };

struct Bench {
    server: Server,
    display: Option<Display>,
    browser: Browser,
    events: mpsc::Receiver<PageEvent>,
    run_dir: tempfile::TempDir,
}

fn config(run_dir: &Path) -> BrowserConfig {
    assert!(Path::new(CHROMIUM).exists(), "no {CHROMIUM}: apt-get install chromium");
    BrowserConfig {
        chromium: CHROMIUM.into(),
        size: Size::new(640, 360).unwrap(),
        run_dir: run_dir.into(),
        platform: Platform::Headless,
        pulse_socket: run_dir.join("no-pulse"),
        user_agent: None,
        sandbox: Sandbox::Auto,
        tiers: Tiers::only(Tier::Zygote),
        environment: Vec::new(),
        extra_flags: Vec::new(),
    }
}

impl Bench {
    /// Without a display: for what does not depend on it.
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// On the recorder's own display.
    async fn shown() -> Self {
        let shown = Platform::Wayland { display: "wayland-test".into() };
        Self::with(|config| config.platform = shown).await
    }

    async fn with(change: impl FnOnce(&mut BrowserConfig)) -> Self {
        let server = Server::start().await;
        let run_dir = tempfile::tempdir().unwrap();
        let mut config = config(run_dir.path());
        change(&mut config);
        let display = matches!(config.platform, Platform::Wayland { .. }).then(|| {
            let socket = run_dir.path().join("wayland-test");
            let rate = FrameRate::try_from(30).unwrap();
            let config = display::Config { socket, size: config.size, rate, clock: MediaClock::start() };
            Display::start(config, |_| true).unwrap()
        });
        let allow = vec!["127.0.0.1/32".parse().unwrap()];
        let egress = Egress::resolving(allow, numbers_only).await.unwrap();
        let (browser, events) = Browser::launch(&config, &egress, &Guard::disabled()).await.unwrap();
        Self { server, display, browser, events, run_dir }
    }

    async fn open(&self, path: &str) -> Result<Loaded, BrowserError> {
        self.browser.open(&self.server.url(path), LoadBounds::default()).await
    }

    /// Evaluates in the page, as if after a click.
    async fn clicked(&self, expression: &str) -> Value {
        let mut evaluate = EvaluateParams::new(expression);
        evaluate.user_gesture = Some(true);
        evaluate.await_promise = Some(true);
        evaluate.return_by_value = Some(true);
        self.browser.tell(evaluate).await.unwrap().result.value.unwrap_or_default()
    }

    async fn eventually(&self, expression: &str, expected: Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.clicked(expression).await;
            if value == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{expression} is {value}, not {expected}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn event(&mut self) -> PageEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    async fn call(&mut self) -> Call {
        loop {
            if let PageEvent::Called(call) = self.event().await {
                return call;
            }
        }
    }

    async fn lost(&mut self) -> (Lost, String) {
        loop {
            if let PageEvent::Lost { what, detail } = self.event().await {
                return (what, detail);
            }
        }
    }

    /// Names that were asked for and are none of the tests' own: the browser's maker's.
    fn strangers(&self) -> Vec<String> {
        let mut asked = self.browser.egress.refused();
        asked.retain(|host| !is_number(host) && !host.ends_with(".invalid"));
        asked
    }

    /// Every test ends with this: nothing of the browser is left, and it has talked to nobody of its own accord.
    async fn end(self) {
        assert_eq!(self.strangers(), Vec::<String>::new());
        self.browser.close().await;
        nothing_left(self.run_dir.path());
    }
}

fn is_number(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// The tests need no name, and nobody outside is to hear of them.
fn numbers_only(host: String, port: u16) -> futures_util::future::BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    match is_number(&host) {
        true => egress::system(host, port),
        false => Box::pin(std::future::ready(Err(io::Error::other("no name resolves here")))),
    }
}

fn nothing_left(run_dir: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<String> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(run_dir.to_str().unwrap()))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_opens_settles_and_reloads() {
    let mut bench = Bench::with(|config| {
        config.platform = Platform::Wayland { display: "wayland-test".into() };
        config.user_agent = Some("Recorder/1 (test)".into());
        config.environment.push(("TZ".into(), "Asia/Shanghai".into()));
    })
    .await;
    for path in ["/ok", "/redirect", "/script-redirect"] {
        assert_eq!(bench.open(path).await.unwrap(), Loaded { complete: true }, "{path}");
        assert_eq!(bench.browser.settle().await, Settled::Painted, "{path}");
        assert_eq!(bench.clicked("document.title + location.pathname").await, json!("ok/ok"), "{path}");
        loop {
            match bench.event().await {
                PageEvent::Navigated { url, failed: false } if url.ends_with("/ok") => break,
                PageEvent::Navigated { failed: false, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(bench.clicked("navigator.userAgent").await, json!("Recorder/1 (test)"));
    let zone = bench.clicked("Intl.DateTimeFormat().resolvedOptions().timeZone").await;
    assert_eq!(zone, json!("Asia/Shanghai"));
    assert_eq!(bench.clicked("[innerWidth, innerHeight, devicePixelRatio].join()").await, json!("640,360,1"));
    let commits = || bench.display.as_ref().unwrap().stats().counts().commits;
    assert!(commits() > 0, "the page has been seen");
    assert_eq!(bench.clicked("document.hasFocus() + document.visibilityState").await, json!("truevisible"));
    bench.clicked("window.before = 1").await;
    assert_eq!(bench.browser.reload(LoadBounds::default()).await.unwrap(), Loaded { complete: true });
    assert_eq!(bench.clicked("typeof before").await, json!("undefined"));
    // A page that builds itself after its load event is waited for.
    bench.open("/late").await.unwrap();
    assert_eq!(bench.browser.settle().await, Settled::Painted);
    assert_eq!(bench.clicked("window.late").await, json!(true));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_does_not_open_says_why() {
    let bench = Bench::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = bench.server.url("/").port().unwrap();
    let table = [
        (bench.server.url("/500").to_string(), "127.0.0.1 answered with HTTP status 500"),
        (bench.server.url("/500-empty").to_string(), "127.0.0.1 answered with HTTP status 500"),
        (bench.server.url("/404").to_string(), "127.0.0.1 answered with HTTP status 404"),
        (bench.server.url("/401").to_string(), "127.0.0.1 answered with HTTP status 401"),
        (bench.server.url("/204").to_string(), "127.0.0.1 sent nothing (no content) instead of a page"),
        (bench.server.url("/download").to_string(), "127.0.0.1 sent a download instead of a page"),
        (format!("http://{closed}/secret?token=1"), "cannot reach 127.0.0.1: connection refused"),
        (format!("http://127.0.0.2:{port}/ok"), "cannot reach 127.0.0.2: 127.0.0.2 is not a public address"),
        (bench.server.url("/redirect-inside").to_string(), "cannot reach 127.0.0.2: 127.0.0.2 is not a public"),
        (format!("https://127.0.0.1:{port}/ok"), "cannot open the page of 127.0.0.1: net::ERR_SSL_PROTOCOL_ERROR"),
        ("http://no-such-name.invalid/".into(), "cannot reach no-such-name.invalid: its name does not resolve"),
    ];
    for (url, expected) in table {
        let error = bench.browser.open(&url.parse().unwrap(), LoadBounds::default()).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{url}: {error}");
        assert!(!error.contains("token"), "{error}");
    }
    let error = bench.browser.open(&bench.server.url("/never"), SHORT).await.unwrap_err().to_string();
    assert_eq!(error, "127.0.0.1 did not answer within 1 s");
    // A page of which a part is missing is what a person would see, too.
    let hanging = bench.browser.open(&bench.server.url("/hanging"), SHORT).await.unwrap();
    assert_eq!(hanging, Loaded { complete: false });
    assert_eq!(bench.browser.settle().await, Settled::Painted);
    assert!(bench.open("/ok").await.unwrap().complete, "and none of it lasts");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_tab_is_reported_once_and_revived_by_opening() {
    let mut bench = Bench::shown().await;
    bench.open("/ok").await.unwrap();
    let crash = bench.browser.cdp.call(Some(&bench.browser.session), CrashParams::default(), SHORT.load);
    let _ = crash.await;
    let (what, detail) = bench.lost().await;
    assert_eq!(what, Lost::Tab, "{detail}");
    assert_eq!(bench.browser.settle().await, Settled::TimedOut);
    assert!(bench.open("/functions").await.unwrap().complete);
    assert_eq!(bench.call().await.action, Action::Start);
    assert_eq!(bench.browser.settle().await, Settled::Painted);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_browser_is_reported_once_with_its_end() {
    let mut bench = Bench::start().await;
    bench.open("/ok").await.unwrap();
    kill_process(Pid::from_raw(bench.browser.pid() as i32).unwrap(), Signal::KILL).unwrap();
    let (what, detail) = bench.lost().await;
    assert_eq!(what, Lost::Browser);
    assert!(detail.contains("signal: 9"), "{detail}");
    assert!(bench.events.recv().await.is_none(), "nothing comes after that");
    let error = bench.open("/ok").await.unwrap_err();
    assert!(matches!(error, BrowserError::Lost { what: Lost::Browser, .. }), "{error}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_stands_still_is_given_up() {
    let mut bench = Bench::start().await;
    bench.open("/ok").await.unwrap();
    kill_process(Pid::from_raw(bench.browser.pid() as i32).unwrap(), Signal::STOP).unwrap();
    let (what, detail) = bench.lost().await;
    assert_eq!((what, detail.as_str()), (Lost::Browser, "no sign of life for 15 s"));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_closes_its_window_is_lost() {
    let mut bench = Bench::start().await;
    bench.open("/ok").await.unwrap();
    let close = chromiumoxide::cdp::browser_protocol::page::CloseParams::default();
    let _ = bench.browser.tell(close).await;
    let (what, detail) = bench.lost().await;
    assert!(what != Lost::Tab, "{detail}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_reach_neither_devtools_nor_what_is_not_allowed() {
    let bench = Bench::start().await;
    bench.open("/ok").await.unwrap();
    let file = std::fs::read_to_string(bench.run_dir.path().join("profile/DevToolsActivePort")).unwrap();
    let devtools = file.lines().next().unwrap();
    let here = bench.server.url("/ok").port().unwrap();
    let fetch = async |url: String| {
        bench.clicked(&format!("fetch('{url}', {{ mode: 'no-cors' }}).then(() => 'reached', () => 'refused')")).await
    };
    assert_eq!(fetch(format!("http://127.0.0.1:{here}/ok")).await, json!("reached"));
    assert_eq!(fetch(format!("http://127.0.0.1:{devtools}/json/version")).await, json!("refused"));
    assert_eq!(fetch(format!("http://127.0.0.2:{here}/ok")).await, json!("refused"));
    assert_eq!(fetch(format!("http://[::ffff:127.0.0.2]:{here}/ok")).await, json!("refused"));
    let socket = format!(
        "new Promise((r) => Object.assign(new WebSocket('ws://127.0.0.1:{devtools}/devtools/browser'),
         {{ onopen: () => r('open'), onerror: () => r('refused') }}))"
    );
    assert_eq!(bench.clicked(&socket).await, json!("refused"));
    bench.end().await;
}

/// From its start on Chromium would ask its maker for the time, for accounts, for what its address bar may offer and for
/// push messages; the last of these after 5 s.
const UNTIL_IT_WOULD_HAVE_ASKED: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_asks_for_nothing_of_its_own_accord() {
    let bench = Bench::shown().await;
    bench.open("/ok").await.unwrap();
    sleep(UNTIL_IT_WOULD_HAVE_ASKED).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_cannot_start_says_why() {
    let run_dir = tempfile::tempdir().unwrap();
    let egress = Egress::start(Vec::new()).await.unwrap();
    let launch = async |change: &dyn Fn(&mut BrowserConfig)| {
        let mut config = config(run_dir.path());
        change(&mut config);
        match Browser::launch(&config, &egress, &Guard::disabled()).await {
            Ok(_) => panic!("started"),
            Err(error) => error,
        }
    };
    let missing = launch(&|config| config.chromium = "/nowhere/chromium".into()).await;
    assert!(missing.to_string().contains("/nowhere/chromium; install it"), "{missing}");
    let no_display = launch(&|config| config.platform = Platform::Wayland { display: "nothing".into() }).await;
    assert!(matches!(&no_display, BrowserError::Exited { stderr, .. } if stderr.contains("Wayland")), "{no_display}");
    let no_directory = launch(&|config| config.run_dir = "/dev/null/run".into()).await;
    assert!(matches!(no_directory, BrowserError::Directory { .. }), "{no_directory}");
    nothing_left(run_dir.path());
}
