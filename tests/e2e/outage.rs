//! A bucket that is away in mid-recording, and comes back: nothing is missing. `PANOREC_SOAK=1` (as `make soak` sets it) makes
//! a minute each of what are otherwise seconds.

use crate::checks;
use crate::cloud;
use crate::cloud::proxy::Proxy;
use crate::cloud::s3::{self, Bucket};
use crate::gateway::Gateway;
use crate::judge::Evidence;
use crate::run::Stage;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Less than this is Chromium's lateness on a busy machine.
const JUMP_MS: f64 = 500.0;
/// What recorder and delivery may take on top while the bucket is away and after it: the promise.
const MEMORY_KB: u64 = 64 << 10;

fn away() -> Duration {
    #[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
    let soak = std::env::var_os("PANOREC_SOAK").is_some();
    Duration::from_secs(if soak { 60 } else { 3 })
}

/// A server that stands still; it goes on when this is dropped.
struct Halted(Pid);

impl Halted {
    fn server() -> Self {
        let pid = Pid::from_raw(s3::process() as i32).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Most memory that a process has had, kB; none once it has ended.
pub fn peak_kb(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// Bytes that a process keeps in files without a name: the display's pictures, and what waits for the bucket.
fn nameless(pid: u32, dir: &Path) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().map(|e| e.path());
    let ours = open.filter(|fd| {
        let leads = std::fs::read_link(fd).unwrap_or_default();
        leads.starts_with(dir) && leads.to_string_lossy().ends_with("(deleted)")
    });
    ours.filter_map(|fd| Some(std::fs::metadata(fd).ok()?.len())).sum()
}

fn in_bucket(name: &str, endpoint: &str) -> [(String, String); 5] {
    [
        ("COS_BUCKET", name),
        ("AWS_ENDPOINT_URL_S3", endpoint),
        ("AWS_REGION", cloud::REGION),
        ("AWS_ACCESS_KEY_ID", cloud::KEY),
        ("AWS_SECRET_ACCESS_KEY", cloud::SECRET),
    ]
    .map(|(k, v)| (k.to_string(), v.to_string()))
}

#[test]
fn a_bucket_that_is_away_costs_no_picture() {
    let stage = Stage::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (bucket, network) = runtime.block_on(async {
        let bucket = Bucket::new().await;
        let network = Proxy::before(&bucket.endpoint).await;
        (bucket, network)
    });
    let gateway = Gateway::start(&stage, &[], &in_bucket(&bucket.name, &network.endpoint));
    let task = gateway.record("room.html", json!({"Output": {"Cos": {"TargetName": "lesson"}}}));
    gateway.until(&task, "recording");
    thread::sleep(Duration::from_secs(3));
    let [recorder] = gateway.recorders()[..] else { panic!("{:?}", gateway.recorders()) };
    let before = peak_kb(recorder).unwrap();
    let pictures = nameless(recorder, &stage.temp());
    let on_disk = || nameless(recorder, &stage.temp()) - pictures;

    let halted = Halted::server();
    thread::sleep(away());
    println!("{} bytes wait on disk while the server stands still", on_disk());
    drop(halted);
    thread::sleep(away() / 4 + Duration::from_secs(2));
    network.set_down(true);
    thread::sleep(away());
    println!("{} bytes wait on disk while nobody reaches it", on_disk());
    network.set_down(false);
    thread::sleep(Duration::from_secs(2));

    let extra = peak_kb(recorder).unwrap() - before;
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, took) = gateway.until(&task, "finished");
    println!("{extra} kB of memory on top; {took:?} from Stop to the file");
    assert!(extra < MEMORY_KB, "{extra} kB");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    let quality = &done["Result"]["Quality"];
    println!("{quality}");
    assert_eq!((quality["Gaps"].clone(), quality["Generations"].as_u64()), (json!([]), Some(1)), "{quality}");
    let key = format!("{task}/lesson.mp4");
    runtime.block_on(bucket.until_keys(&[&key]));
    std::fs::write(stage.file(), runtime.block_on(bucket.read(&key)).unwrap()).unwrap();
    let e = Evidence::of(&stage.file()).unwrap();
    checks::container_of(&stage.file(), &e);
    checks::lasts(&e, done["Result"]["Videos"][0]["FileDuration"].as_f64().unwrap());
    assert!(e.probe.duration > (away() * 2).as_secs_f64() + 7.0, "{} s", e.probe.duration);
    let jumps = checks::missing(&e, JUMP_MS);
    assert!(jumps.is_empty(), "{jumps:?}");
    gateway.end();
}
