//! The function as platforms run it: under Lambda's own Runtime Interface Emulator, and under MiniStack's asynchronous
//! invocations, which are killed at their hard timeout and tried again.

use crate::checks;
use crate::cloud::canned::Canned;
use crate::cloud::lambda::Lambda;
use crate::cloud::process::{self, Server};
use crate::cloud::s3::Bucket;
use crate::cloud::tables::{TABLE, Tables};
use crate::cloud::{KEY, REGION, SECRET, config};
use crate::deployment;
use crate::gateway::{Client, request};
use crate::judge::Evidence;
use crate::judge::tools::{arg, run_ok, tool};
use crate::run::{GONE_WITHIN, Stage};
use crate::watch::Watch;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How often waits look.
const STEP: Duration = Duration::from_millis(50);
pub const DOMAIN: &str = "cdn.example.com";

pub fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Whether somebody listens there.
pub fn listens(endpoint: &str) -> Result<(), String> {
    let address = endpoint.strip_prefix("http://").unwrap();
    std::net::TcpStream::connect(address).map(drop).map_err(|e| e.to_string())
}

/// The emulator with the function in it: one invocation at a time, each waited for.
pub struct Emulator {
    pub server: Server,
    pub watch: Watch,
}

impl Emulator {
    fn start(stage: &Stage, env: &[(&str, &str)]) -> Self {
        let emulator = process::tool("aws-lambda-rie");
        let command = |_: &std::path::Path, [port, api]: [u16; 2]| {
            let mut command = Command::new(&emulator);
            command.arg("--runtime-interface-emulator-address").arg(format!("127.0.0.1:{port}"));
            command.arg("--runtime-api-address").arg(format!("127.0.0.1:{api}"));
            command.arg(env!("CARGO_BIN_EXE_panorec")).env("TMPDIR", stage.temp());
            command.env("PANOREC_FFMPEG", tool("ffmpeg").unwrap()).envs(env.iter().copied());
            command
        };
        let server = process::start(command, listens);
        let watch = Watch::start(server.keeper(), &stage.temp());
        Self { server, watch }
    }

    /// What the function answers to an event.
    pub fn invoke(&self, event: &Value) -> Value {
        let address = self.server.endpoint.strip_prefix("http://").unwrap();
        let path = "/2015-03-31/functions/function/invocations";
        let answer = request(address, "POST", path, &[], event.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// An action of the contract, as an HTTP API hands it on.
    pub fn act(&self, action: &str, data: Value) -> Value {
        let body = json!({"Action": action, "Data": data}).to_string();
        let context = json!({"requestId": "r-1", "http": {"method": "POST", "path": "/record"}});
        let answer = self.invoke(&json!({"version": "2.0", "requestContext": context, "body": body}));
        assert_eq!(answer["statusCode"], 200, "{answer}");
        serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
    }

    pub fn end(self) {
        self.server.end();
        let left = self.watch.left_after(GONE_WITHIN);
        assert!(left.is_empty(), "processes left behind: {left:?}");
    }
}

#[test]
fn a_recording_is_made_under_the_emulator() {
    let stage = Stage::new();
    let runtime = runtime();
    let (bucket, tables, invokes) = runtime
        .block_on(async { (Bucket::new().await, Tables::new().await, Canned::answering(202, "none", "").await) });
    let emulator = Emulator::start(
        &stage,
        &[
            ("AWS_LAMBDA_FUNCTION_NAME", "recorder"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048"),
            ("AWS_LAMBDA_FUNCTION_TIMEOUT", "120"),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_ENDPOINT_URL_S3", &bucket.endpoint),
            ("AWS_ENDPOINT_URL_DYNAMODB", &tables.endpoint),
            ("AWS_ENDPOINT_URL_LAMBDA", &invokes.endpoint),
            ("PANOREC_TABLE", TABLE),
            ("PANOREC_ALLOW_ADDRESS", "127.0.0.0/8"),
            ("COS_BUCKET", &bucket.name),
            ("CDN_DOMAIN", DOMAIN),
        ],
    );
    let video = json!({"Muxer": "mp4,hls", "Poster": true});
    let order = json!({"RecordURL": stage.server.url("clock.html"), "MaxDurationLimit": 5, "Output": {"Video": video}});
    let task = emulator.act("Start", order)["TaskID"].as_str().unwrap().to_string();
    assert_eq!(invokes.asked(), 1, "Start asks for a recorder");
    // The emulator knows no asynchronous invocation: this one is waited for, and is over when the recording is.
    let answer = emulator.invoke(&json!({"Recorder": {"TaskID": task}}));
    assert_eq!(answer, json!({"TaskID": task, "Status": "finished"}));
    let done = emulator.act("Describe", json!({"TaskID": task}));
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    assert!(
        done["Result"]["Quality"]["BilledGbSeconds"].as_f64().unwrap() > 2.0 * 5.0,
        "2 GB for more than 5 s: {done}"
    );
    assert_eq!(emulator.invoke(&json!({"Recorder": {"TaskID": task}}))["Status"], "not ours", "delivered twice");
    let e = fetched(&stage, &done, |key| runtime.block_on(bucket.read(key)).unwrap());
    // The limit counts from when capture began, which the record says a moment later.
    assert!((4.0..9.0).contains(&e.probe.duration), "{} s of about 5", e.probe.duration);
    assert_eq!(checks::jumps(&e, 500.0), [], "nothing is missing");
    let keys = runtime.block_on(bucket.keys());
    assert!(keys.iter().all(|key| key.starts_with(&format!("{task}/"))), "no chunk is left: {keys:?}");
    let poster = done["Result"]["Videos"][0]["PosterURL"].as_str().unwrap_or_else(|| panic!("{done}"));
    let poster = poster.strip_prefix(&format!("https://{DOMAIN}/")).unwrap_or_else(|| panic!("{poster} is elsewhere"));
    let head = runtime.block_on(bucket.client.head_object().bucket(&bucket.name).key(poster).send()).unwrap();
    assert_eq!(head.content_type(), Some("image/jpeg"));
    let live = keys.iter().find(|key| key.ends_with("/live.m3u8")).unwrap_or_else(|| panic!("{keys:?}"));
    let live = String::from_utf8(runtime.block_on(bucket.read(live)).unwrap()).unwrap();
    opens_without_credentials(&stage, &live, e.probe.duration);
    emulator.end();
}

/// Every address in the live playlist of a closed bucket is signed, and nothing else opens it. It plays.
fn opens_without_credentials(stage: &Stage, live: &str, seconds: f64) {
    let segments = live.lines().filter(|line| !line.starts_with('#'));
    let init = live.lines().filter_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\"")?.strip_suffix('"'));
    let addresses: Vec<&str> = segments.chain(init).collect();
    assert!(addresses.len() > 3, "{live}");
    for address in addresses {
        let (host, path) = address.strip_prefix("http://").and_then(|rest| rest.split_once('/')).unwrap();
        let status = |path: &str| request(host, "GET", &format!("/{path}"), &[], b"").status;
        assert_eq!(status(path), 200, "{address}");
        assert_eq!(status(path.split_once('?').unwrap().0), 403, "{address} without its signature");
    }
    let file = stage.out().join("live.m3u8");
    std::fs::write(&file, live).unwrap();
    let args =
        ["-v", "error", "-xerror", "-protocol_whitelist", "file,http,tcp", "-i", arg(&file).unwrap(), "-f", "null"];
    let said = run_ok("ffmpeg", &[&args[..], &["-progress", "-", "-"]].concat()).unwrap();
    let progress = String::from_utf8(said.out).unwrap();
    let us = progress.lines().rev().find_map(|line| line.strip_prefix("out_time_us=")?.parse::<f64>().ok());
    let off = us.map(|us| (us / 1e6 - seconds).abs());
    assert!(said.err.is_empty() && off.is_some_and(|off| off < 0.1), "{us:?} us instead of {seconds} s: {}", said.err);
}

/// The finished file, which must be whole.
pub fn fetched(stage: &Stage, done: &Value, read: impl FnOnce(&str) -> Vec<u8>) -> Evidence {
    let video = &done["Result"]["Videos"][0];
    let url = video["FileURL"].as_str().unwrap_or_else(|| panic!("{done}"));
    let key = url.strip_prefix(&format!("https://{DOMAIN}/")).unwrap_or_else(|| panic!("{url} is elsewhere"));
    std::fs::write(stage.file(), read(key)).unwrap();
    let e = Evidence::of(&stage.file()).unwrap();
    checks::container_of(&stage.file(), &e);
    checks::lasts(&e, video["FileDuration"].as_f64().unwrap());
    e
}

/// A platform's own limit: short, so that a recording needs several invocations; long enough for one to start on a busy
/// machine.
const TIMEOUT_SECONDS: i32 = 30;
/// The platform notices, gives a function that does not end by itself a grace of seconds, and starts another.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// The function in MiniStack, with buckets and tables there, as the template has them.
struct Deployed {
    lambda: Lambda,
    runtime: Runtime,
    s3: aws_sdk_s3::Client,
    /// Of recordings, and of chunks.
    buckets: [String; 2],
    client: Client,
    watch: Watch,
    /// Processes of the platform itself.
    platform: Vec<u32>,
}

impl Deployed {
    const NAME: &'static str = "panorec";

    fn new() -> Self {
        let runtime = runtime();
        let (lambda, s3, watch, platform) = runtime.block_on(async {
            let lambda = Lambda::new().await;
            let config = aws_sdk_s3::config::Builder::from(&config(&lambda.endpoint, SECRET).await);
            let s3 = aws_sdk_s3::Client::from_conf(config.force_path_style(true).build());
            s3.create_bucket().bucket(deployment::PACKAGES).send().await.unwrap();
            let watch = Watch::start(lambda.keeper, &lambda.dir);
            let platform = watch.running("");
            (lambda, s3, watch, platform)
        });
        let chosen = [
            ("Endpoint", "function-url"),
            ("Authorization", "NONE"),
            ("AllowAddress", "127.0.0.0/8"),
            ("PlaybackDomain", DOMAIN),
        ];
        let mut outputs = deployment::deploy(&lambda, &chosen);
        let mut output = |name: &str| outputs.remove(name).unwrap_or_else(|| panic!("no output {name}"));
        assert_eq!(output("FunctionName"), Self::NAME);
        // The name leads nowhere here; the platform has the same function at a path.
        let url = output("FunctionUrlAddress");
        let id = url.strip_prefix("https://").and_then(|u| u.split('.').next()).unwrap();
        let path = format!("/_aws/lambda-url/{id}/record");
        assert!(url.ends_with("/record") && output("FunctionUrlTry").contains(&url), "{url}");
        let address = lambda.endpoint.strip_prefix("http://").unwrap().to_string();
        Self::shorten(&address);
        let buckets = [output("TargetBucketUsed"), output("RawBucketUsed")];
        Self { client: Client { address, path }, lambda, runtime, s3, buckets, watch, platform }
    }

    /// A timeout that a test can wait for, and the programs of this machine instead of the layers', which the platform does not
    /// mount. Without the SDK, which does not take the platform's answer: numbers from a template are text in it.
    fn shorten(address: &str) {
        let path = format!("/2015-03-31/functions/{}/configuration", Self::NAME);
        let found = request(address, "GET", &path, &[], b"").json();
        assert_eq!(found["Timeout"], 900, "{found}");
        let mut variables = found["Environment"]["Variables"].clone();
        variables["PANOREC_FFMPEG"] = tool("ffmpeg").unwrap().to_str().into();
        let change = json!({"Timeout": TIMEOUT_SECONDS, "Environment": {"Variables": variables}});
        let answer = request(address, "PUT", &path, &[], change.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    fn read(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let found = self.s3.get_object().bucket(&self.buckets[0]).key(key).send().await.unwrap();
            found.body.collect().await.unwrap().to_vec()
        })
    }

    /// How many chunks there are below a prefix.
    fn count(&self, prefix: &str) -> usize {
        let listed = self.s3.list_objects_v2().bucket(&self.buckets[1]).prefix(prefix).send();
        self.runtime.block_on(listed).unwrap().contents().len()
    }

    /// Everything that runs and is not the platform itself.
    fn processes(&self) -> Vec<u32> {
        let mut all = self.watch.running("");
        all.retain(|pid| !self.platform.contains(pid));
        all
    }

    /// The process of the function that records, with all that it has started.
    fn recorder(&self) -> (u32, Vec<u32>) {
        let encoders = self.watch.running("ffmpeg");
        let encoder = *encoders.last().expect("an encoder runs");
        let recorder = Watch::parent(encoder).expect("somebody started it");
        let mut family = vec![recorder];
        for pid in self.processes() {
            if Watch::parent(pid).is_some_and(|parent| family.contains(&parent)) {
                family.push(pid);
            }
        }
        assert!(family.len() > 4, "a guard, an encoder and a browser of several processes: {family:?}");
        (recorder, family.split_off(1))
    }

    /// Takes the function away. Nothing of it may be left.
    fn end(self) {
        self.runtime.block_on(self.lambda.client.delete_function().function_name(Self::NAME).send()).unwrap();
        self.until("the end of all processes", GONE_WITHIN * 3, || self.processes().is_empty());
        let entries = std::fs::read_dir(&self.lambda.dir).unwrap();
        let mut left: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.retain(|name| name.starts_with("panorec-"));
        assert_eq!(
            left,
            Vec::<String>::new(),
            "private directories, that of the killed one too, which its guard removes"
        );
    }

    fn until(&self, what: &str, limit: Duration, so: impl Fn() -> bool) {
        let since = Instant::now();
        while !so() {
            assert!(since.elapsed() < limit, "{what} has not come to be in {limit:?}; running: {:?}", self.processes());
            thread::sleep(STEP);
        }
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

#[test]
fn a_recording_outlives_its_invocations_and_one_that_is_killed_at_its_timeout() {
    let stage = Stage::aside();
    let page = "room.html";
    let platform = Deployed::new();
    let asked = |times| platform.until(page, REPLACED_WITHIN, || stage.server.asked(page) >= times);
    let order = json!({"RecordURL": stage.server.url(page)});
    let task = platform.client.good("Start", order)["TaskID"].as_str().unwrap().to_string();
    platform.client.until(&task, "recording");
    asked(2);
    // Once the first has handed over and the second has stored some of its own, the second hangs, so that the platform kills
    // it at its timeout, as it is.
    thread::sleep(Duration::from_secs(2));
    platform.until("the end of the first", REPLACED_WITHIN, || platform.watch.running("ffmpeg").len() == 1);
    let stored = || platform.count(&format!("raw/{task}/2/"));
    let before = stored();
    platform.until("two more chunks of the second", REPLACED_WITHIN, || stored() >= before + 2);
    let (recorder, family) = platform.recorder();
    kill_process(Pid::from_raw(recorder as i32).unwrap(), Signal::STOP).unwrap();
    // The platform delivers the event again to a third.
    asked(3);
    let left: Vec<u32> = family.into_iter().filter(|pid| platform.processes().contains(pid)).collect();
    assert_eq!(left, Vec::<u32>::new(), "children of the killed function are ended");
    thread::sleep(Duration::from_secs(4));
    platform.client.good("Stop", json!({"TaskID": task}));
    let (done, _) = platform.client.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    assert!(done["Result"]["Quality"]["Generations"].as_u64().unwrap() >= 3, "{done}");
    let e = fetched(&stage, &done, |key| platform.read(key));
    every_jump_is_listed(&done, &e);
    platform.end();
}

/// Less than this is Chromium's lateness on a busy machine.
const JUMP_MS: f64 = 500.0;
/// Pages of two browsers beside MiniStack on a busy machine are that late by turns: four pictures, as for the A/V offset.
const LATE_SECONDS: f64 = 0.134;

/// What is missing from the page's clock is listed, and what is listed is missing.
fn every_jump_is_listed(done: &Value, e: &Evidence) {
    let gaps: Vec<(f64, f64, &str)> = done["Result"]["Quality"]["Gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (g["Start"].as_f64().unwrap(), g["Duration"].as_f64().unwrap(), g["Reason"].as_str().unwrap()))
        .collect();
    let jumps = checks::missing(e, JUMP_MS);
    let allowed = checks::GAP_SECONDS + LATE_SECONDS;
    let near = |jump: &checks::Missing, gap: &(f64, f64, &str)| {
        (jump.at - gap.0).abs() < allowed && (jump.seconds - gap.1).abs() < allowed
    };
    let unlisted: Vec<_> = jumps.iter().filter(|jump| !gaps.iter().any(|gap| near(jump, gap))).collect();
    let invented: Vec<_> =
        gaps.iter().filter(|g| g.1 > JUMP_MS / 1000.0 + allowed && !jumps.iter().any(|j| near(j, g))).collect();
    assert!(unlisted.is_empty() && invented.is_empty(), "seen: {jumps:?}, listed: {gaps:?}");
    let lost: Vec<_> = gaps.iter().filter(|gap| gap.2 == "RecorderLost").collect();
    assert_eq!(lost.len(), 1, "one was killed: {gaps:?}");
    assert!(e.probe.duration > lost[0].0 + 2.0, "it goes on after that: {gaps:?}, {} s", e.probe.duration);
}
