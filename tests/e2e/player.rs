//! A browser of the tests' own, in which people's players play what was recorded: hls.js, and Chromium's own `<video>`. Its page
//! is `tests/pages/player.html`.

use crate::cdp;
use crate::judge::Evidence;
use crate::judge::code::{COLUMNS, Code, Place, fill};
use crate::judge::picture::Picture;
use crate::run::Stage;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Starting a browser, loading a playlist, playing on to a place, on two cores shared with others.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const STEP: Duration = Duration::from_millis(100);
/// Places of a file that are sought.
const PLACES: usize = 10;
/// The code as its cells are told, each as so many pixels.
const CODE: Place = Place { x: 0, y: 0, cell: 4 };

/// What a player shows.
#[derive(Debug)]
pub struct Look {
    /// Position, seconds.
    pub time: f64,
    /// Where the newest segment of the playlist ends, seconds.
    pub edge: Option<f64>,
    /// It has all of a playlist that has ended.
    pub complete: bool,
    /// It has played to the end of what has ended.
    pub ended: bool,
    /// Why it plays no more.
    pub fatal: Option<String>,
    /// What else may say why, for a person.
    pub state: String,
    /// The page's clock, as the code has it.
    pub now_ms: u32,
    /// The code in the picture; `None` without a picture or a code.
    pub code: Option<Code>,
}

impl Look {
    fn of(said: &Value) -> Self {
        let code = said["cells"].as_array().and_then(|cells| {
            let mut gray = vec![0; CODE.width() * CODE.height()];
            for (n, cell) in cells.iter().enumerate() {
                fill(&mut gray, CODE.width(), CODE, (n % COLUMNS, n / COLUMNS), cell.as_u64()? as u8);
            }
            Code::read(&gray, CODE)
        });
        Self {
            time: said["time"].as_f64().unwrap_or_else(|| panic!("no player: {said}")),
            edge: said["edge"].as_f64(),
            complete: said["complete"] == true,
            ended: said["ended"] == true,
            state: said["state"].as_str().unwrap_or_default().to_owned(),
            fatal: said["fatal"].as_str().map(str::to_owned),
            now_ms: said["now"].as_u64().unwrap_or_default() as u32,
            code,
        }
    }
}

/// See above. It ends when dropped.
pub struct Player {
    child: Child,
    _profile: tempfile::TempDir,
    page: Option<cdp::Page>,
}

impl Player {
    /// Starts the browser with its page.
    pub fn start(stage: &Stage) -> Self {
        let profile = tempfile::Builder::new().prefix("e2e-player-").tempdir().unwrap();
        #[allow(clippy::disallowed_methods, reason = "a browser that is no part of panorec")]
        let child = Command::new(panorec::config::chromium_path().unwrap())
            .args(["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--autoplay-policy=no-user-gesture-required"])
            .args(["--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(stage.server.url("player.html"))
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut player = Self { child, _profile: profile, page: None };
        let since = Instant::now();
        while player.page.is_none() {
            assert!(since.elapsed() < PATIENCE, "the player's browser does not come up");
            thread::sleep(STEP);
            player.page = cdp::port(player.child.id()).and_then(|port| cdp::Page::attach(port, "player.html"));
        }
        player.until_ready();
        player
    }

    fn until_ready(&mut self) {
        let since = Instant::now();
        while self.run("typeof Hls === 'function' && typeof look === 'function'") != true {
            assert!(since.elapsed() < PATIENCE, "hls.js is not there; fetch it with: scripts/setup.sh test");
            thread::sleep(STEP);
        }
    }

    /// What JavaScript comes to in its page.
    fn run(&mut self, script: &str) -> Value {
        let page = self.page.as_mut().expect("it is attached");
        let said = page.gesture(script).unwrap_or_else(|| panic!("no answer to `{script}`"));
        assert!(said.get("exceptionDetails").is_none(), "`{script}`: {said}");
        said["result"]["value"].clone()
    }

    /// Plays a playlist from near its live end.
    pub fn play(&mut self, url: &str) {
        self.run(&format!("playList({url:?})"));
    }

    /// Plays so many times as fast.
    pub fn speed(&mut self, rate: u32) {
        self.run(&format!("video.playbackRate = {rate}"));
    }

    /// What it shows now.
    pub fn look(&mut self) -> Look {
        Look::of(&self.run("look()"))
    }

    /// Waits until it shows what is wanted.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&Look) -> bool) -> Look {
        let since = Instant::now();
        loop {
            let look = self.look();
            if so(&look) {
                return look;
            }
            if since.elapsed() > PATIENCE {
                panic!("never {what}: {look:?}, {}; the playlist now ends with: {}", look.state, self.list_end());
            }
            thread::sleep(STEP);
        }
    }

    /// The last lines of the playlist that it plays, as the server has them now.
    fn list_end(&mut self) -> Value {
        self.run(
            "hls ? fetch(hls.url, {cache: 'no-store'}).then(r => r.text()).then(t => t.slice(-300)).catch(String) : null",
        )
    }

    /// Opens a file in `<video>` and seeks to places all over it, each of which has to show its picture.
    pub fn seeks(&mut self, url: &str, e: &Evidence) {
        let duration = self.run(&format!("open({url:?})")).as_f64().unwrap_or_else(|| panic!("{url} has no length"));
        assert!((duration - e.probe.duration).abs() < 0.05, "{duration} s instead of {} s", e.probe.duration);
        let pairs: Vec<&[Picture]> = e.pictures.windows(2).filter(|w| w[0].code.is_some()).collect();
        // Always the same places of the same file, in no order.
        let mut random: u64 = 2026;
        for _ in 0..PLACES {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let shown = pairs[(random >> 33) as usize % pairs.len()];
            let at = (shown[0].pts + shown[1].pts) / 2.0;
            let look = Look::of(&self.run(&format!("seek({at}, {})", shown[0].pts)));
            assert!((look.time - at).abs() < 0.001, "{} s instead of {at} s", look.time);
            assert_eq!(look.code, shown[0].code, "at {at} s, the picture of {} s is due", shown[0].pts);
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait().ok();
    }
}
