//! The world of a service, as settings and arguments have it: what is named in the cloud is there, everything else is in
//! a directory of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{tools, values};
use crate::api::{Defaults, Service, ServiceConfig, task_json};
use crate::config::{self, Settings, VodSettings};
use crate::delivery::callback::Callback;
use crate::delivery::vod::tc3::Keys;
use crate::delivery::vod::{ENDPOINT, VodClient};
use crate::generation::{ChromiumStudio, RunnerConfig, TaskRunner, Tools, Vod, WebAnnouncer, WebVod, chain};
use crate::platform::aws::{Aws, DynamoTaskStore, LambdaContinuation, S3ChunkStore, S3Lent, S3Recordings};
use crate::platform::clock::SystemClock;
use crate::platform::local::{ChildContinuation, DirectoryChunkStore, DirectoryRecordings, SqliteTaskStore};
use crate::platform::retry::Retrying;
use crate::platform::{ChunkStore, Continuation, Platform, PublicStore, RecordingStore, StoreError, TaskStore};
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
pub async fn in_the_cloud(settings: &Settings, tools: Tools) -> Result<Service, String> {
    let missing = |name: &str, what: &str| format!("{name} is not set; set it to the name of {what}");
    let table = settings.table.as_deref().ok_or_else(|| missing(config::TABLE, "the DynamoDB table"))?;
    let bucket = settings.bucket.as_deref().ok_or_else(|| missing(config::BUCKET, "the bucket for recordings"))?;
    let function = settings.function.as_deref().ok_or_else(|| missing("AWS_LAMBDA_FUNCTION_NAME", "the function"))?;
    let aws = Aws::from_environment().await.map_err(|e| e.to_string())?;
    let (chunks, recordings, public) = buckets(&aws, settings, bucket)?;
    let tasks = Arc::new(DynamoTaskStore::new(&aws, table));
    let continuation = Arc::new(LambdaContinuation::new(&aws, function));
    service(Stores { tasks, chunks, recordings, public, continuation }, tools, settings, &[])
}

/// The service of a laptop; stores that are named in the cloud are there.
pub async fn on_this_machine(settings: &Settings, args: &Args) -> Result<Service, String> {
    std::fs::create_dir_all(&args.data).map_err(|e| {
        format!("the data directory {} cannot be made: {e}; name another with --data", args.data.display())
    })?;
    let data = args.data.canonicalize().map_err(|e| format!("{}: {e}", args.data.display()))?;
    let text = |e: StoreError| chain(&e);
    let aws = match settings.bucket.is_some() || settings.table.is_some() {
        true => Some(Aws::from_environment().await.map_err(|e| e.to_string())?),
        false => None,
    };
    let tasks: Arc<dyn TaskStore> = match (&aws, &settings.table) {
        (Some(aws), Some(table)) => Arc::new(DynamoTaskStore::new(aws, table)),
        _ => Arc::new(SqliteTaskStore::open(&data.join("tasks.db")).map_err(text)?),
    };
    let (chunks, recordings, public): Buckets = match (&aws, &settings.bucket) {
        (Some(aws), Some(bucket)) => buckets(aws, settings, bucket)?,
        _ => {
            let recordings = DirectoryRecordings::new(&recordings_dir(&data), public_url(args)?).map_err(text)?;
            let chunks = Arc::new(DirectoryChunkStore::new(&data.join("chunks")).map_err(text)?);
            (chunks, Arc::new(recordings.clone()), Arc::new(recordings))
        }
    };
    let exe = std::env::current_exe().map_err(|e| format!("this program cannot be found again: {e}"))?;
    let continuation = Arc::new(ChildContinuation::new(exe, args.again(&data), None));
    let tools = tools::find()?;
    service(Stores { tasks, chunks, recordings, public, continuation }, tools, settings, &args.allow_addresses)
}

type Buckets = (Arc<dyn ChunkStore>, Arc<dyn RecordingStore>, Arc<dyn PublicStore>);

fn buckets(aws: &Aws, settings: &Settings, bucket: &str) -> Result<Buckets, String> {
    let raw = settings.bucket_raw.as_deref().unwrap_or(bucket);
    let chunks = S3ChunkStore::new(aws, raw, "").map_err(|e| chain(&e))?;
    let recordings = S3Recordings::new(aws, bucket, settings.domain.as_deref(), Arc::new(SystemClock));
    Ok((Arc::new(chunks), Arc::new(recordings.clone()), Arc::new(recordings)))
}

/// Where recordings can be fetched.
fn public_url(args: &Args) -> Result<url::Url, String> {
    let url = args.public_url.as_deref().unwrap_or("http://127.0.0.1:8080");
    record_url(url).map_err(|e| format!("--public-url: {}", e.reason))
}

/// The video-on-demand service of this deployment.
fn vod(settings: &VodSettings) -> Result<Vod, String> {
    let endpoint = match &settings.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => url::Url::parse(ENDPOINT).map_err(|e| e.to_string())?,
    };
    let client = VodClient::new(endpoint, Keys { id: settings.id.clone(), secret: settings.key.clone() });
    let upload = settings.upload_endpoint.as_ref().map(|u| u.as_str().trim_end_matches('/').to_owned());
    Ok(Vod {
        service: Arc::new(WebVod { client, clock: Arc::new(SystemClock) }),
        uploads: Arc::new(S3Lent::new(upload)),
    })
}

/// What differs from world to world.
struct Stores {
    tasks: Arc<dyn TaskStore>,
    chunks: Arc<dyn ChunkStore>,
    recordings: Arc<dyn RecordingStore>,
    public: Arc<dyn PublicStore>,
    continuation: Arc<dyn Continuation>,
}

fn service(stores: Stores, tools: Tools, settings: &Settings, allowed: &[ipnet::IpNet]) -> Result<Service, String> {
    let retries = Arc::default();
    let mounted = match &settings.mount {
        Some(mount) => {
            let store = DirectoryChunkStore::new(mount).map_err(|e| chain(&e))?;
            Some(Arc::new(Retrying::new(Arc::new(store), &retries)) as Arc<dyn ChunkStore>)
        }
        None => None,
    };
    let platform = Platform {
        tasks: Arc::new(Retrying::new(stores.tasks, &retries)),
        chunks: Arc::new(Retrying::new(stores.chunks, &retries)),
        mounted,
        recordings: Arc::new(Retrying::new(stores.recordings, &retries)),
        public: Arc::new(Retrying::new(stores.public, &retries)),
        continuation: Arc::new(Retrying::new(stores.continuation, &retries)),
        clock: Arc::new(SystemClock),
        retries,
    };
    let runner = RunnerConfig {
        tools,
        allow_addresses: settings.allow_addresses.iter().chain(allowed).copied().collect(),
        keep_chunks: settings.keep_chunks,
        hand_over_lead: settings.hand_over_lead,
        memory_mb: settings.memory_mb,
        metrics: settings.function.is_some(),
    };
    let announcer = WebAnnouncer {
        callback: Callback::new(settings.webhook_secret.clone()),
        clock: Arc::new(SystemClock),
        allow_addresses: runner.allow_addresses.clone(),
        describe: |task| task_json(task).into(),
    };
    let recorders = TaskRunner::new(platform.clone(), Arc::new(ChromiumStudio), Arc::new(announcer), runner);
    let recorders = recorders.with_vod(settings.vod.as_ref().map(vod).transpose()?);
    let defaults = Defaults {
        max_limit_seconds: settings.max_limit_seconds,
        mounted: platform.mounted.is_some(),
        vod: settings.vod.is_some(),
    };
    Ok(Service::new(platform, Arc::new(recorders), ServiceConfig { defaults, cors: settings.cors_origin.clone() }))
}
