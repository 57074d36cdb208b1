//! `panorec record`: one page into one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::terminal::ProgressLine;
use super::values;
use crate::generation::{self, Admission, Command, Job, Outcome, Progress, Stopped, Target, Timings, Watcher};
use crate::platform::local::{DirectoryChunkStore, GrowingFile};
use crate::task::course::Anchor;
use crate::task::failure::{Failure, FailureCode};
use crate::task::quality::Quality;
use crate::task::spec::{Bitrates, RecordingSpec, Size, record_url};
use crate::task::timeline::FrameRate;

/// Arguments of `record`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Page to record; http or https
    url: String,
    /// File to write
    #[arg(long, short)]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    overwrite: bool,
    /// Length, like 10s or 1h30m; until Ctrl-C or the page's stopRecord() if left out
    #[arg(long, value_parser = values::duration)]
    duration: Option<Duration>,
    /// Width in pixels, even, at most 2560
    #[arg(long, default_value_t = 1280)]
    width: u32,
    /// Height in pixels, even, at most 2560
    #[arg(long, default_value_t = 720)]
    height: u32,
    /// Frames per second: 5, 10, 15, 20, 24, 25, 30, 50 or 60
    #[arg(long, default_value_t = 30)]
    fps: u32,
    /// Ceiling of the video bit rate, like 2500k or 4M; fits size and rate if left out
    #[arg(long, value_parser = values::kilobits)]
    bitrate: Option<u32>,
    /// Audio bit rate, like 128k
    #[arg(long, value_parser = values::kilobits)]
    audio_bitrate: Option<u32>,
    /// Begin when the page calls window.startRecord()
    #[arg(long)]
    manual_start: bool,
    /// With --manual-start: give up after this long, like 30s
    #[arg(long, value_parser = values::duration)]
    ready_timeout: Option<Duration>,
    /// User agent to send
    #[arg(long)]
    user_agent: Option<String>,
    /// Network that pages may reach although it is not public, like 127.0.0.0/8; may be repeated
    #[arg(long = "allow-address", value_name = "CIDR", value_parser = values::network)]
    allow_addresses: Vec<ipnet::IpNet>,
    /// Print one JSON object with the file and its quality
    #[arg(long)]
    json: bool,
}

/// The final JSON object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    stop_reason: generation::Stopped,
    timings: &'a Timings,
    quality: &'a Quality,
    #[serde(flatten)]
    failure: Option<&'a Failure>,
}

/// Records. Exit status: 0 when all went well, 1 when something went wrong, 2 for bad arguments.
pub fn run(args: &Args) -> ExitCode {
    let spec = match spec(args) {
        Ok(spec) => spec,
        Err(message) => return refuse(args.json, &message, ExitCode::from(2)),
    };
    let job = match prepare(args, spec) {
        Ok(job) => job,
        Err(message) => return refuse(args.json, &message, ExitCode::FAILURE),
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(args.json, &error, ExitCode::FAILURE),
    };
    let Prepared { job, work } = job;
    let outcome = runtime.block_on(drive(job));
    // Only what is empty goes: an earlier recording that was killed may have left its segments there.
    remove_empty(&work);
    report(args, &outcome, &work)
}

fn spec(args: &Args) -> Result<RecordingSpec, String> {
    let rate = FrameRate::try_from(args.fps).map_err(|e| format!("--fps: {e}"))?;
    let text = |e: crate::task::spec::InvalidParam| e.to_string();
    let size = Size::new(args.width, args.height).map_err(text)?;
    let bitrates = Bitrates::new(args.bitrate, args.audio_bitrate, size, rate).map_err(text)?;
    if args.duration.is_some_and(|d| d.is_zero()) {
        return Err("--duration: 0 records nothing; leave it out to record until Ctrl-C".into());
    }
    if args.ready_timeout.is_some() && !args.manual_start {
        return Err("--ready-timeout only counts with --manual-start; add it or leave both out".into());
    }
    Ok(RecordingSpec {
        url: record_url(&args.url).map_err(text)?,
        size,
        rate,
        bitrates,
        manual_start: args.manual_start,
        ready_timeout: args.ready_timeout,
        max_duration: args.duration,
        user_agent: args.user_agent.clone(),
        allow_addresses: args.allow_addresses.clone(),
    })
}

struct Prepared {
    job: Job,
    work: PathBuf,
}

/// Looks for everything that can be missing before anything is started.
fn prepare(args: &Args, spec: RecordingSpec) -> Result<Prepared, String> {
    let tools = super::tools::find()?;
    let target = GrowingFile::create(&args.output, args.overwrite).map_err(|e| generation::chain(&e))?;
    let work = work_dir(&args.output);
    let chunks = DirectoryChunkStore::new(&work).map_err(|e| generation::chain(&e))?;
    let task = uuid::Uuid::new_v4().to_string();
    let job = Job {
        spec,
        tools,
        task,
        generation: 1,
        paused: false,
        offset: 0,
        admission: Arc::new(Admission::owned(0)),
        successor: None,
        chunks: Arc::new(chunks),
        target: Target::Own(Box::new(target)),
        stills: None,
    };
    Ok(Prepared { job, work })
}

/// Where segments wait until the file is finished: beside it, so that there is room for both or for neither.
fn work_dir(output: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".panorec");
    output.with_file_name(name)
}

/// Removes a directory with everything in it that holds no file.
fn remove_empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        remove_empty(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

async fn drive(job: Job) -> Outcome {
    let (sender, commands) = mpsc::channel(4);
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        loop {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            let _ = sender.send(Command::Stop).await;
        }
    });
    let chunks = Arc::clone(&job.chunks);
    let terminal = Terminal(Mutex::new(ProgressLine::new()));
    let outcome = generation::record(job, commands, &terminal).await;
    terminal.0.into_inner().unwrap_or_else(PoisonError::into_inner).clear();
    generation::remove(&*chunks, &outcome.chunks).await;
    outcome
}

/// Shows progress. The file has its name from the start, and nobody can forbid it.
struct Terminal(Mutex<ProgressLine>);

#[async_trait]
impl Watcher for Terminal {
    fn progress(&self, progress: &Progress) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).show(progress);
    }

    fn state(&self, _at: Anchor) {}

    async fn finishing(&self, _stopped: Stopped) -> Option<String> {
        Some(String::new())
    }
}

fn report(args: &Args, outcome: &Outcome, work: &Path) -> ExitCode {
    let output = outcome.saved.as_ref().map(|s| s.key.clone());
    let wanted = args.output.display().to_string();
    if let Some(output) = output.as_ref().filter(|o| !args.overwrite && **o != wanted) {
        eprintln!("panorec: {wanted} was created by something else while recording; the recording is {output}");
    }
    if args.json {
        let report = Report {
            output: output.clone(),
            file_duration: outcome.saved.as_ref().map(|s| s.duration),
            file_size: outcome.saved.as_ref().map(|s| s.size),
            stop_reason: outcome.stopped,
            timings: &outcome.timings,
            quality: &outcome.quality,
            failure: outcome.failure.as_ref(),
        };
        print_json(&report);
    } else if let (Some(output), Some(saved)) = (&output, &outcome.saved) {
        let q = &outcome.quality;
        println!(
            "{output}: {:.2} s, {:.1} MB, {:.2} fps, {} dropped",
            saved.duration,
            saved.size as f64 / 1e6,
            q.frame_rate,
            q.frames_dropped
        );
        for gap in &q.gaps {
            println!("gap at {:.1} s: {:.1} s missing ({:?})", gap.start, gap.duration, gap.reason);
        }
    }
    match &outcome.failure {
        Some(failure) => {
            let kept = match output {
                Some(output) => format!("; what was recorded before is in {output}"),
                None if work.exists() => {
                    let work = work.display();
                    format!("; segments are in {work}, `panorec assemble {work} --output FILE` makes a file of them")
                }
                None => String::new(),
            };
            eprintln!("panorec: {}{kept}", failure.message);
            ExitCode::FAILURE
        }
        None => {
            if output.is_none() {
                eprintln!("panorec: stopped before anything was recorded; no file was written");
            }
            ExitCode::SUCCESS
        }
    }
}

fn refuse(json: bool, message: &str, code: ExitCode) -> ExitCode {
    if json {
        print_json(&Failure { code: FailureCode::InternalErr, message: message.into() });
    }
    eprintln!("panorec: {message}");
    code
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("panorec: the result cannot be written as JSON: {error}"),
    }
}
