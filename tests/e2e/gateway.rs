//! A running `panorec serve`, called as clients call it: HTTP in, JSON out.

use crate::checks;
use crate::judge::Evidence;
use crate::judge::tools::tool;
use crate::run::{GONE_WITHIN, Stage};
use crate::watch::Watch;
use panorec::delivery::mp4::validate::validate;
use panorec::platform::TaskStore;
use panorec::platform::local::SqliteTaskStore;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Starting a recorder and its browser, or finishing a file, on two cores shared with others.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a task is described while waiting.
const STEP: Duration = Duration::from_millis(50);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header lines in lower case.
    pub headers: Vec<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One request on a connection of its own.
pub fn request(address: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    headers.iter().for_each(|h| head.push_str(&format!("{h}\r\n")));
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in `{line}`"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim() {
            "" => break,
            header => headers.push(header.to_lowercase()),
        }
    }
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    if headers.iter().any(|h| h == "transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answer { status, headers, body }
}

/// RFC 9112, section 7.1.
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

/// A caller of the service, wherever it runs.
pub struct Client {
    /// Host and port.
    pub address: String,
    /// Path of its one endpoint.
    pub path: String,
}

impl Client {
    /// An action of the contract.
    pub fn act(&self, action: &str, data: Value) -> Answer {
        let body = json!({"Action": action, "Data": data}).to_string();
        request(&self.address, "POST", &self.path, &["content-type: application/json"], body.as_bytes())
    }

    /// An action that must go well.
    pub fn good(&self, action: &str, data: Value) -> Value {
        let answer = self.act(action, data.clone());
        assert_eq!(answer.status, 200, "{action} {data}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// The task.
    pub fn describe(&self, task: &str) -> Value {
        self.good("Describe", json!({"TaskID": task}))
    }

    /// Waits for a status. Returns the task, and how long it took.
    pub fn until(&self, task: &str, status: &str) -> (Value, Duration) {
        let since = Instant::now();
        loop {
            let now = self.describe(task);
            if now["Status"] == status {
                return (now, since.elapsed());
            }
            assert!(since.elapsed() < PATIENCE, "never {status}: {now}");
            assert!(now["Status"] != "finished", "finished before it was {status}: {now}");
            thread::sleep(STEP);
        }
    }
}

/// The service on this machine.
pub struct Gateway<'a> {
    stage: &'a Stage,
    child: Child,
    watch: Watch,
    client: Client,
    env: Vec<(String, String)>,
}

impl Deref for Gateway<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl<'a> Gateway<'a> {
    /// Starts it with its data in the stage's output directory.
    pub fn start(stage: &'a Stage, args: &[&str], env: &[(String, String)]) -> Self {
        let (child, address) = serve(stage, "127.0.0.1:0", args, env);
        let client = Client { address, path: "/record".into() };
        Self { watch: Watch::start(child.id(), &stage.out()), stage, child, client, env: env.to_vec() }
    }

    /// What it and its recorders have logged, if they were asked to in this way.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_of(self.stage)).unwrap_or_default()
    }

    /// Kills it without warning, as the system does when memory is out, and starts another on the same address.
    pub fn restart(&mut self, args: &[&str]) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
        (self.child, self.client.address) = serve(self.stage, &self.address, args, &self.env);
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.stage.out().join("data")
    }

    /// Starts a recording of a page of ours. Returns its id.
    pub fn record(&self, page: &str, more: Value) -> String {
        let mut data = json!({"RecordURL": self.stage.server.url(page)});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.good("Start", data)["TaskID"].as_str().unwrap().to_string()
    }

    /// Which invocation the task is held by, counted from 1: callers are told how many there were when it is over.
    pub fn generation(&self, task: &str) -> u32 {
        let tasks = SqliteTaskStore::open(&self.data().join("tasks.db")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(tasks.load(task, 0)).unwrap().expect("the task is there").record.generation
    }

    /// Waits until a page of ours was asked for so many times, for a while each.
    pub fn until_asked(&self, page: &str, times: usize) {
        let (mut since, mut before) = (Instant::now(), 0);
        loop {
            let asked = self.stage.server.asked(page);
            if asked >= times {
                return;
            }
            if asked > before {
                (since, before) = (Instant::now(), asked);
            }
            assert!(since.elapsed() < PATIENCE, "{page} was asked for {asked} times");
            thread::sleep(STEP);
        }
    }

    /// Processes of recorders that run.
    pub fn recorders(&self) -> Vec<u32> {
        self.watch.running("panorec invoke")
    }

    /// Fetches a finished recording into the stage's file.
    pub fn download(&self, url: &str) -> PathBuf {
        let path = url.split_once(&self.address).unwrap_or_else(|| panic!("{url} is not ours")).1;
        let answer = request(&self.address, "GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{url}");
        std::fs::write(self.stage.file(), answer.body).unwrap();
        self.stage.file()
    }

    /// The file of a task that is over, which must be whole.
    pub fn evidence(&self, done: &Value) -> Evidence {
        let video = &done["Result"]["Videos"][0];
        let file = self.download(video["FileURL"].as_str().unwrap());
        let e = Evidence::of(&file).unwrap();
        checks::container_of(&file, &e);
        let bytes = std::fs::read(&file).unwrap();
        validate(&bytes, bytes.len() as u64).unwrap();
        checks::lasts(&e, video["FileDuration"].as_f64().unwrap());
        e
    }

    /// Ends it. Nothing of it may be left, recorders included, which end with their recordings.
    pub fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let left = self.watch.left_after(GONE_WITHIN);
        assert!(left.is_empty(), "processes left behind: {left:?}");
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        for pid in self.watch.running("panorec invoke") {
            let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

/// What `PANOREC_LOG` is set for is kept.
const LOG: &str = "PANOREC_LOG";

fn log_of(stage: &Stage) -> PathBuf {
    stage.out().join("log")
}

fn serve(stage: &Stage, listen: &str, args: &[&str], env: &[(String, String)]) -> (Child, String) {
    let log = match env.iter().any(|(name, _)| name == LOG) {
        true => std::fs::File::options().create(true).append(true).open(log_of(stage)).unwrap().into(),
        false => Stdio::inherit(),
    };
    #[allow(clippy::disallowed_methods, reason = "the tests start panorec themselves and watch what it leaves")]
    let mut child = Command::new(env!("CARGO_BIN_EXE_panorec"))
        .args(["serve", "--listen", listen, "--allow-address", "127.0.0.0/8", "--data"])
        .arg(stage.out().join("data"))
        .args(args)
        .current_dir(stage.out())
        .env("TMPDIR", stage.temp())
        .env("PANOREC_FFMPEG", tool("ffmpeg").unwrap())
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
    let address = address.unwrap_or_else(|| panic!("panorec serve said `{line}`")).trim().to_string();
    (child, address)
}
