//! Runs the real binary as a user would, within a time limit, and sees what it leaves behind.

use crate::jail::limits::Limits;
use crate::judge::tools::tool;
use crate::media;
pub use crate::outcome::Outcome;
use crate::server::Server;
use crate::turn::{Turn, aside, share, turn};
use crate::watch::Watch;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

/// Time beyond the recorded one for everything: starting a browser, loading, finishing, on two cores shared with others.
const EVERYTHING_ELSE: Duration = Duration::from_secs(45);
/// How often waits look.
const STEP: Duration = Duration::from_millis(8);
/// What is left behind must be gone this soon after the end: the guard kills when it sees the pipe close, and a killed Chromium of a
/// dozen processes takes a moment to be reaped.
pub const GONE_WITHIN: Duration = Duration::from_secs(3);

/// Everything a test needs: its turn, a server, directories that vanish.
pub struct Stage {
    /// Neither for a stage beside another one.
    _turn: Option<Turn>,
    _aside: Option<MutexGuard<'static, ()>>,
    /// The pages.
    pub server: Server,
    dir: tempfile::TempDir,
}

impl Stage {
    /// Waits for its turn and sets up.
    pub fn new() -> Self {
        Self::with(Some(turn()), None)
    }

    /// For a test that asks for the same of a busy machine as of an idle one: another such recording may run beside it.
    pub fn shared() -> Self {
        Self::with(Some(share()), None)
    }

    /// For a test that waits for minutes and judges no picture by the clock: others go on meanwhile.
    pub fn aside() -> Self {
        Self::with(None, Some(aside()))
    }

    /// A second one for a recording at the same time as that of `self`: for tests that wait more than they record.
    pub fn beside(&self) -> Self {
        Self::with(None, None)
    }

    fn with(turn: Option<Turn>, aside: Option<MutexGuard<'static, ()>>) -> Self {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
        let server = Server::start(&pages, &media::directory().unwrap(), 0).unwrap();
        let dir = tempfile::Builder::new().prefix("e2e-").tempdir().unwrap();
        for name in ["out", "tmp", "run", "home"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { _turn: turn, _aside: aside, server, dir }
    }

    /// Directory of the output.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Directory of temporary files.
    pub fn temp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// The output that is recorded to unless a test says otherwise.
    pub fn file(&self) -> PathBuf {
        self.out().join("film.mp4")
    }

    /// A recording of a page of ours, allowed to reach loopback.
    pub fn record<'a>(&'a self, page: &str, args: &[&str]) -> Recording<'a> {
        let mut all = vec!["--allow-address", "127.0.0.0/8"];
        all.extend(args);
        self.record_url(&self.server.url(page), &self.file(), &all)
    }

    /// A recording of any address to any file.
    pub fn record_url<'a>(&'a self, url: &str, file: &Path, args: &[&str]) -> Recording<'a> {
        self.command(url, file, args, &[])
    }

    /// The same with more environment.
    pub fn command<'a>(&'a self, url: &str, file: &Path, args: &[&str], env: &[(&str, &str)]) -> Recording<'a> {
        #[allow(clippy::disallowed_methods, reason = "the tests start panorec themselves and watch what it leaves")]
        self.spawn(Command::new(env!("CARGO_BIN_EXE_panorec")), url, file, args, env)
    }

    /// A recording of any address with a small function's memory, where this machine lets a test limit it.
    pub fn limited<'a>(&'a self, limits: Option<&Limits>, url: &str, args: &[&str]) -> Recording<'a> {
        self.spawn(Limits::enter(limits, Path::new(env!("CARGO_BIN_EXE_panorec"))), url, &self.file(), args, &[])
    }

    fn spawn<'a>(
        &'a self,
        mut panorec: Command,
        url: &str,
        file: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Recording<'a> {
        let child = panorec
            .args(["record", url, "--output"])
            .arg(file)
            .arg("--json")
            .args(args)
            .current_dir(self.dir.path())
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
            .env("HOME", self.dir.path().join("home"))
            .env("PANOREC_FFMPEG", tool("ffmpeg").unwrap())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let asked = args.iter().position(|a| *a == "--duration").map(|i| args[i + 1]);
        let seconds: f64 = asked.map_or(10.0, |d| d.trim_end_matches('s').parse().unwrap());
        Recording::new(self, child, file, Duration::from_secs_f64(seconds) + EVERYTHING_ELSE)
    }

    /// Runs another verb of panorec, which must end well.
    pub fn run(&self, args: &[&str]) {
        #[allow(clippy::disallowed_methods, reason = "the tests start panorec themselves")]
        let done = Command::new(env!("CARGO_BIN_EXE_panorec")).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Everything that lies about and should not: all but `file`.
    fn litter(&self, file: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![self.dir.path().to_path_buf()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let ours = path.parent() == Some(self.dir.path()) && path.is_dir();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        if !ours {
                            found.push(path.clone());
                        }
                        todo.push(path);
                    }
                    _ if path == file => {}
                    _ => found.push(path),
                }
            }
        }
        found
    }
}

/// A running panorec.
pub struct Recording<'a> {
    stage: &'a Stage,
    child: Child,
    out: thread::JoinHandle<String>,
    err: thread::JoinHandle<String>,
    watch: Watch,
    file: PathBuf,
    deadline: Instant,
    signalled: Option<Instant>,
}

impl<'a> Recording<'a> {
    fn new(stage: &'a Stage, mut child: Child, file: &Path, limit: Duration) -> Self {
        let out = read_all(child.stdout.take().unwrap());
        let err = read_all(child.stderr.take().unwrap());
        Self {
            watch: Watch::start(child.id(), stage.dir.path()),
            deadline: Instant::now() + limit,
            file: file.to_path_buf(),
            signalled: None,
            stage,
            child,
            out,
            err,
        }
    }

    /// Waits until the page has been asked for, and `after` longer.
    pub fn until_page(&mut self, page: &str, after: Duration) {
        self.until(|r| r.stage.server.asked(page) > 0, page);
        thread::sleep(after);
    }

    /// Waits until something is so.
    pub fn until(&mut self, mut so: impl FnMut(&mut Self) -> bool, what: &str) {
        while !so(self) {
            assert!(Instant::now() < self.deadline, "`{what}` has not come to be in time");
            assert!(self.child.try_wait().unwrap().is_none(), "panorec ended before `{what}`");
            thread::sleep(STEP);
        }
    }

    /// Running descendants whose command line contains `word`, oldest first.
    pub fn children(&self, word: &str) -> Vec<u32> {
        self.watch.running(word)
    }

    /// How often a page was asked for.
    pub fn asked(&self, page: &str) -> usize {
        self.stage.server.asked(page)
    }

    /// Kills the oldest child whose command line contains `word`.
    pub fn kill_child(&mut self, word: &str) {
        self.signal_child(word, Signal::KILL);
    }

    /// Stops the oldest child whose command line contains `word`, as a debugger would.
    pub fn stop_child(&mut self, word: &str) {
        self.signal_child(word, Signal::STOP);
    }

    /// Lets the oldest child whose command line contains `word` run only a fiftieth of the time for a while.
    pub fn slow_child(&mut self, word: &str, how_long: Duration) {
        let until = Instant::now() + how_long;
        while Instant::now() < until {
            self.signal_child(word, Signal::STOP);
            thread::sleep(Duration::from_millis(400));
            self.signal_child(word, Signal::CONT);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal_child(&mut self, word: &str, signal: Signal) {
        let child = *self.children(word).first().unwrap_or_else(|| panic!("no child with `{word}`"));
        kill_process(Pid::from_raw(child as i32).unwrap(), signal).unwrap();
    }

    /// As a terminal's Ctrl-C, but to panorec alone.
    pub fn interrupt(&mut self) {
        self.signal(Signal::INT);
    }

    /// As the system does when memory is out.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    fn signal(&mut self, signal: Signal) {
        self.signalled = Some(Instant::now());
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end of a panorec that was killed: its children must be gone, and its private files.
    pub fn end_by_force(mut self) {
        self.child.wait().unwrap();
        let left = self.watch.left_after(GONE_WITHIN);
        assert!(left.is_empty(), "processes left behind: {left:?}");
        let until = Instant::now() + GONE_WITHIN;
        loop {
            let mut litter = self.stage.litter(&self.file);
            // What was recorded lies beside the output and may stay: it is all there is.
            litter.retain(|p| !p.starts_with(self.stage.out()));
            if litter.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "private files left behind: {litter:?}");
            thread::sleep(STEP);
        }
    }

    /// Waits for the end. Fails if it does not come, or if processes or files are left.
    pub fn end(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > self.deadline {
                self.child.kill().ok();
                self.child.wait().ok();
                let err = self.err.join().unwrap();
                panic!("panorec did not end within its limit; it said:\n{err}");
            }
            thread::sleep(STEP);
        };
        let spare = self.watch.spare();
        keep(&self.file);
        let finished_after = self.signalled.map(|at| at.elapsed());
        let left = self.watch.left_after(GONE_WITHIN);
        let (out, err) = (self.out.join().unwrap(), self.err.join().unwrap());
        assert!(left.is_empty(), "processes left behind: {left:?}\n{err}");
        let litter = self.stage.litter(&self.file);
        assert!(litter.is_empty(), "files left behind: {litter:?}\n{err}");
        Outcome {
            json: serde_json::from_str(out.trim()).unwrap_or(Value::Null),
            peak_kb: self.watch.peak_kb(),
            resident: self.watch.resident(),
            status,
            out,
            err,
            file: self.file,
            finished_after,
            spare,
        }
    }
}

/// `PANOREC_E2E_KEEP=DIRECTORY` keeps every file under its test's name, to be looked at.
fn keep(file: &Path) {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let directory = std::env::var_os("PANOREC_E2E_KEEP");
    if let (Some(directory), true) = (directory, file.is_file()) {
        let test = thread::current().name().unwrap_or("test").replace("::", "-");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(file, Path::new(&directory).join(test).with_extension("mp4")).unwrap();
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).ok();
        String::from_utf8_lossy(&all).into_owned()
    })
}
