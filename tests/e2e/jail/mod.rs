//! The function as it is deployed, its layers beside it, behind walls like Lambda's: Lambda's own Runtime Interface Emulator
//! runs it, an event goes in, a recording comes out.

pub mod limits;
mod walls;

use crate::checks;
use crate::cloud::canned::Canned;
use crate::cloud::process;
use crate::cloud::s3::Bucket;
use crate::cloud::tables::{TABLE, Tables};
use crate::cloud::{KEY, REGION, SECRET};
use crate::function::{DOMAIN, Emulator, fetched, listens, runtime};
use crate::judge::Evidence;
use crate::run::Stage;
use crate::watch::Watch;
use limits::Limits;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// Lambda's bound on a function with its layers, unzipped, bytes.
const PLATFORM_BYTES: u64 = 262_144_000;

/// A second on two processors; a busy machine, and a disk that is.
const UNPACKED_WITHIN: Duration = Duration::from_secs(60);

struct Jail {
    emulator: Emulator,
    stores: Rc<Stores>,
    log: PathBuf,
    /// Outlives the processes in it.
    _limits: Option<Limits>,
}

/// What differs from jail to jail.
#[derive(Default)]
struct Setting<'a> {
    /// A directory instead of memory.
    tmp: Option<&'a Path>,
    /// The way of starting Chromium, if not found out.
    launch: Option<&'a str>,
    limits: Option<Limits>,
    /// The function, if not this build's.
    function: Option<&'a Path>,
    /// Those of a jail before.
    stores: Option<Rc<Stores>>,
}

struct Stores {
    runtime: Runtime,
    bucket: Bucket,
    tables: Tables,
    invokes: Canned,
}

impl Stores {
    fn new() -> Self {
        let runtime = runtime();
        let (bucket, tables, invokes) = runtime
            .block_on(async { (Bucket::new().await, Tables::new().await, Canned::answering(202, "none", "").await) });
        Self { runtime, bucket, tables, invokes }
    }
}

impl Jail {
    /// Makes an environment, in which the function starts with its first event.
    fn start(stage: &Stage, Setting { tmp, launch, limits, function, stores }: Setting) -> Self {
        walls::check();
        let stores = stores.unwrap_or_else(|| Rc::new(Stores::new()));
        let function = function.unwrap_or(Path::new(env!("CARGO_BIN_EXE_panorec")));
        let (layers, emulator) = (process::tool("layers/opt"), process::tool("aws-lambda-rie"));
        let log = stage.temp().join("log");
        std::fs::write(&log, "").unwrap(); // one of a jail before is no news of this one
        let server = {
            let mut env = vec![
                ("AWS_LAMBDA_FUNCTION_NAME", "recorder"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024"),
                ("AWS_LAMBDA_FUNCTION_TIMEOUT", "300"),
                ("AWS_REGION", REGION),
                ("AWS_ACCESS_KEY_ID", KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET),
                ("AWS_ENDPOINT_URL_S3", &stores.bucket.endpoint),
                ("AWS_ENDPOINT_URL_DYNAMODB", &stores.tables.endpoint),
                ("AWS_ENDPOINT_URL_LAMBDA", &stores.invokes.endpoint),
                ("PANOREC_TABLE", TABLE),
                ("PANOREC_ALLOW_ADDRESS", "127.0.0.0/8"),
                ("COS_BUCKET", &stores.bucket.name),
                ("CDN_DOMAIN", DOMAIN),
                // As Lambda presets it: must not reach Chromium.
                ("LD_LIBRARY_PATH", "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/task:/opt/lib"),
            ];
            env.extend(launch.map(|word| ("PANOREC_LAUNCH", word)));
            let files = [("/var/task/bootstrap", function), ("/var/rie", emulator.as_path())];
            let command = |dir: &Path, [port, api]: [u16; 2]| {
                let inside = walls::command(&layers, &files, tmp, &env, dir);
                // Enters the control groups, keeps what is said.
                let mut command = Command::new("bash");
                let enter = "log=$1; shift; while [[ $1 != -- ]]; do echo $$ >\"$1\" || exit; shift; done; shift; \
                             exec \"$@\" >>\"$log\" 2>&1";
                command.args(["-c", enter, "enter"]).arg(&log);
                command.args(limits.iter().flat_map(Limits::doors)).arg("--");
                command.arg(inside.get_program()).args(inside.get_args()).arg("/var/rie");
                command.arg("--runtime-interface-emulator-address").arg(format!("127.0.0.1:{port}"));
                command.arg("--runtime-api-address").arg(format!("127.0.0.1:{api}")).arg("/var/task/bootstrap");
                command
            };
            process::start(command, listens)
        };
        let watch = Watch::start(server.keeper(), &server.dir);
        Self { emulator: Emulator { server, watch }, stores, log, _limits: limits }
    }

    /// Records, and says what is in the file, how long it took from the request to the first recorded picture, by the page's own
    /// clock in that picture, and what the recorder says of it.
    fn record(&self, stage: &Stage, page: &str, seconds: u32) -> (Evidence, Duration, Value) {
        let order = json!({"RecordURL": stage.server.url(page), "MaxDurationLimit": seconds});
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u32;
        let task = self.emulator.act("Start", order)["TaskID"].as_str().unwrap().to_string();
        let answer = self.emulator.invoke(&json!({"Recorder": {"TaskID": task}}));
        assert_eq!(answer, json!({"TaskID": task, "Status": "finished"}), "{}", self.said());
        let done = self.emulator.act("Describe", json!({"TaskID": task}));
        assert!(done["Result"].get("ErrorCode").is_none(), "{done}\n{}", self.said());
        assert!(done["Result"]["Videos"][0].is_object(), "{done}\n{}", self.said());
        let e = fetched(stage, &done, |key| self.stores.runtime.block_on(self.stores.bucket.read(key)).unwrap());
        // The limit counts from when capture began, which the record says a moment later.
        let limit = f64::from(seconds);
        assert!((limit - 1.0..limit + 4.0).contains(&e.probe.duration), "{} s of about {limit}", e.probe.duration);
        e.in_order().unwrap();
        let (at, code) = e.coded()[0];
        let shown = Duration::from_millis(code.wall_ms.wrapping_sub(began).into());
        (e, shown.saturating_sub(Duration::from_secs_f64(at)), done["Result"]["Quality"].clone())
    }

    /// Waits for what a cold start does first, whatever the event.
    fn unpacked(&self) {
        self.emulator.act("List", json!({}));
        let until = Instant::now() + UNPACKED_WITHIN;
        while self.said().matches("layer unpacked").count() < 2 {
            assert!(Instant::now() < until, "not unpacked within {UNPACKED_WITHIN:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the function has logged.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Every process inside.
    fn processes(&self) -> usize {
        self.emulator.watch.running("").len()
    }

    /// What the function's process has allocated, kB; its program's pages are the system's to take.
    fn memory_kb(&self) -> u64 {
        let function = *self.emulator.watch.running("/var/task/bootstrap").last().expect("the function runs");
        let status = std::fs::read_to_string(format!("/proc/{function}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// Names of all that lies below a directory.
fn all_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

fn bytes_below(dir: &Path) -> u64 {
    all_below(dir).iter().filter_map(|path| path.symlink_metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// Enough to see the clock run, and to hear it.
const SECONDS: u32 = 4;
/// Where only the start is asked about.
const BENCH_SECONDS: u32 = 2;
/// With half a processor, the first of which are a start's.
const SMALL_SECONDS: u32 = 20;
/// What a function's process may keep between recordings: pieces of the allocator's, and the AWS clients' connections. A picture
/// of 1280x720 takes 3.7 MB before it is converted.
const KEPT_KB: u64 = 12 * 1024;

/// Says how long starts took; the first of each round found nothing unpacked.
fn report(whose: &str, rounds: &[Vec<Duration>]) {
    for (what, mut took) in [
        ("cold", rounds.iter().map(|round| round[0]).collect::<Vec<_>>()),
        ("warm", rounds.iter().flat_map(|round| round[1..].iter().copied()).collect()),
    ] {
        took.sort();
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{whose}, {what}: median {median:?}, most {most:?} of {} starts", took.len());
    }
}

/// Records again and again in one environment, which is as it was each time, and says how long each start took.
fn one_environment(
    stage: &Stage,
    [times, seconds]: [u32; 2],
    function: Option<&Path>,
    stores: &Rc<Stores>,
) -> Vec<Duration> {
    let tmp = stage.out().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let stores = Some(Rc::clone(stores));
    let jail = Jail::start(stage, Setting { tmp: Some(&tmp), function, stores, ..Setting::default() });
    let mut first: Option<(BTreeSet<PathBuf>, usize, u64)> = None;
    let mut starts = Vec::new();
    for time in 1..=times {
        let (e, start, _) = jail.record(stage, "clock.html", seconds);
        starts.push(start);
        assert_eq!(checks::jumps(&e, 500.0), [], "nothing is missing from the recording {time}");
        let now = (all_below(&tmp), jail.processes(), jail.memory_kb());
        println!("recording {time}: first picture after {start:?}, {} processes, {} kB", now.1, now.2);
        let Some(first) = &first else {
            first = Some(now);
            continue;
        };
        assert_eq!(now.0.difference(&first.0).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "new in /tmp after {time}");
        assert_eq!(now.1, first.1, "processes after recording {time}");
        assert!(now.2 < first.2 + KEPT_KB, "{} kB after recording {time}, {} after the first", now.2, first.2);
    }
    let (files, processes, _) = first.unwrap();
    let trees = ["chromium", "ffmpeg"].map(|name| tmp.join(name));
    let beside: Vec<_> = files.iter().filter(|path| !trees.iter().any(|tree| path.starts_with(tree))).collect();
    assert_eq!(beside, Vec::<&PathBuf>::new(), "nothing but what came from the layers");
    assert!(processes <= 6, "the keeper's, bubblewrap's two, the emulator and the function: {processes}");
    assert!(jail.said().contains("chromium draws"), "{}", jail.said());
    jail.emulator.end();
    std::fs::remove_dir_all(&tmp).unwrap();
    starts
}

/// `PANOREC_BENCH` says how many environments are to be measured (as `make bench-jail` does), `PANOREC_BENCH_OTHER` another build
/// of the function, which takes turns with this one.
#[test]
#[allow(clippy::disallowed_methods, reason = "the tests have no config.rs")]
fn one_environment_records_again_and_again_and_is_as_it_was_each_time() {
    let times = if std::env::var_os("PANOREC_SOAK").is_some() { 50 } else { 3 };
    let bench = std::env::var("PANOREC_BENCH").ok();
    let (rounds, seconds) = bench.map_or((1, SECONDS), |rounds| (rounds.parse().unwrap(), BENCH_SECONDS));
    let other = std::env::var_os("PANOREC_BENCH_OTHER").map(PathBuf::from);
    let stage = Stage::new();
    let stores = Rc::new(Stores::new());
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(one_environment(&stage, [times, seconds], None, &stores));
        others.extend(other.as_deref().map(|other| one_environment(&stage, [times, seconds], Some(other), &stores)));
    }
    report("this build", &ours);
    if !others.is_empty() {
        report("the other", &others);
    }
}

#[test]
fn every_way_of_starting_chromium_records_in_the_jail() {
    let stage = Stage::new();
    for way in ["zygote", "in-process-gpu", "single-process"] {
        let jail = Jail::start(&stage, Setting { launch: Some(way), ..Setting::default() });
        jail.unpacked();
        let (e, ..) = jail.record(&stage, "clock.html", SECONDS);
        assert!(e.coded().len() > 10, "{way}: {} pictures of the page's clock", e.coded().len());
        assert_eq!(checks::jumps(&e, 500.0), [], "{way}");
        assert!(!e.beeps.is_empty(), "{way}: no sound");
        jail.emulator.end();
    }
}

#[test]
fn a_small_function_records_with_its_share_of_a_processor() {
    let stage = Stage::shared();
    let tmp = stage.out().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let limits = Limits::small();
    if limits.is_none() {
        println!("control groups cannot be made here: without limits, this is one more recording");
    }
    let jail = Jail::start(&stage, Setting { tmp: Some(&tmp), limits, ..Setting::default() });
    let (e, start, quality) = jail.record(&stage, "class.html?camera=30", SMALL_SECONDS);
    // Whoever lacks a processor drops pictures; which ones are left is in order and on time.
    assert!(e.coded().len() > 10, "{} pictures", e.coded().len());
    println!("small function, class page: first picture after {start:?}, {:?}, {quality}", e.report());
    let mut each = [0; SMALL_SECONDS as usize + 1];
    e.coded().iter().for_each(|(at, _)| each[(*at as usize).min(SMALL_SECONDS as usize)] += 1);
    println!("distinct pictures of the camera, second by second: {each:?}");
    jail.emulator.end();
}

#[test]
fn function_and_layers_fit_the_platform() {
    let layers = process::tool("layers/opt");
    let function = std::fs::metadata(env!("CARGO_BIN_EXE_panorec")).unwrap().len();
    let sum = function + bytes_below(&layers);
    assert!(sum < PLATFORM_BYTES, "{sum} bytes; {PLATFORM_BYTES} may be");
}
