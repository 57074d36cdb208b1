//! The world of a service, as settings and arguments have it: what is named in the cloud is there, everything else is in
//! a directory of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::values;
use crate::api::{Defaults, Service, ServiceConfig};
use crate::config::{self, Settings};
use crate::generation::{ChromiumStudio, RunnerConfig, TaskRunner, Tools, chain};
use crate::platform::clock::SystemClock;
use crate::platform::local::{ChildContinuation, DirectoryChunkStore, DirectoryRecordings, SqliteTaskStore};
use crate::platform::retry::Retrying;
use crate::platform::{ChunkStore, Clock, Continuation, Platform, RecordingStore, TaskStore};
use crate::task::spec::record_url;

/// How long an invocation may take on a laptop if nothing else is said: what the cloud's platform allows.
pub const INVOCATION_TIMEOUT: &str = "900s";

/// What `serve` and `invoke` have in common.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory of tasks, chunks and recordings
    #[arg(long, default_value = "panorec-data")]
    pub data: PathBuf,
    /// How long a recorder may run before it is killed, as a platform would
    #[arg(long, default_value = INVOCATION_TIMEOUT, value_parser = values::duration)]
    pub invocation_timeout: Duration,
    /// Network that pages may reach although it is not public, like 127.0.0.0/8; may be repeated
    #[arg(long = "allow-address", value_name = "CIDR", value_parser = values::network)]
    pub allow_addresses: Vec<ipnet::IpNet>,
    /// Address under which the service is reached from outside, for FileURL
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
}

impl Args {
    /// The same arguments again, for a recorder's process.
    fn again(&self, data: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--data".into(), data.into(), "--invocation-timeout".into()];
        args.push(format!("{}ms", self.invocation_timeout.as_millis()).into());
        for network in &self.allow_addresses {
            args.extend(["--allow-address".into(), network.to_string().into()]);
        }
        if let Some(url) = &self.public_url {
            args.extend(["--public-url".into(), url.into()]);
        }
        args
    }
}

/// Where everything of a laptop's service lies.
pub fn recordings_dir(data: &Path) -> PathBuf {
    data.join("recordings")
}

/// The service of a function: everything is in the cloud.
pub async fn in_the_cloud(_settings: &Settings) -> Result<Service, String> {
    Err("soon".into())
}

/// The service of a laptop; stores that are named in the cloud are there.
pub async fn on_this_machine(settings: &Settings, args: &Args) -> Result<Service, String> {
    std::fs::create_dir_all(&args.data).map_err(|e| {
        format!("the data directory {} cannot be made: {e}; name another with --data", args.data.display())
    })?;
    let data = args.data.canonicalize().map_err(|e| format!("{}: {e}", args.data.display()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let text = |e: crate::platform::StoreError| chain(&e);
    let tasks: Arc<dyn TaskStore> = Arc::new(SqliteTaskStore::open(&data.join("tasks.db")).map_err(text)?);
    let recordings: Arc<dyn RecordingStore> =
        Arc::new(DirectoryRecordings::new(&recordings_dir(&data), public_url(args)?).map_err(text)?);
    let chunks: Arc<dyn ChunkStore> = Arc::new(DirectoryChunkStore::new(&data.join("chunks")).map_err(text)?);
    let exe = std::env::current_exe().map_err(|e| format!("this program cannot be found again: {e}"))?;
    let continuation: Arc<dyn Continuation> = Arc::new(ChildContinuation::new(exe, args.again(&data), None));
    let retries = Arc::default();
    let platform = Platform {
        tasks: Arc::new(Retrying::new(tasks, &retries)),
        chunks: Arc::new(Retrying::new(chunks, &retries)),
        mounted: mounted(settings, &retries)?,
        recordings: Arc::new(Retrying::new(recordings, &retries)),
        continuation: Arc::new(Retrying::new(continuation, &retries)),
        clock,
        retries,
    };
    service(platform, settings, &args.allow_addresses)
}

/// Where recordings can be fetched.
fn public_url(args: &Args) -> Result<url::Url, String> {
    let url = args.public_url.as_deref().unwrap_or("http://127.0.0.1:8080");
    record_url(url).map_err(|e| format!("--public-url: {}", e.reason))
}

fn mounted(settings: &Settings, retries: &Arc<AtomicU64>) -> Result<Option<Arc<dyn ChunkStore>>, String> {
    let Some(mount) = &settings.mount else { return Ok(None) };
    let store = DirectoryChunkStore::new(mount).map_err(|e| chain(&e))?;
    Ok(Some(Arc::new(Retrying::new(Arc::new(store), retries))))
}

fn service(platform: Platform, settings: &Settings, allowed: &[ipnet::IpNet]) -> Result<Service, String> {
    let tools = Tools {
        chromium: config::chromium_path().map_err(|e| e.to_string())?,
        ffmpeg: config::ffmpeg_path().map_err(|e| e.to_string())?,
    };
    let runner = RunnerConfig {
        tools,
        allow_addresses: settings.allow_addresses.iter().chain(allowed).copied().collect(),
        keep_chunks: settings.keep_chunks,
        memory_mb: settings.memory_mb,
        metrics: settings.function.is_some(),
    };
    let recorders = Arc::new(TaskRunner::new(platform.clone(), Arc::new(ChromiumStudio), runner));
    let defaults = Defaults { max_limit_seconds: settings.max_limit_seconds, mounted: platform.mounted.is_some() };
    Ok(Service::new(platform, recorders, ServiceConfig { defaults, cors: settings.cors_origin.clone() }))
}
