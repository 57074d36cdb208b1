//! AWS: S3, DynamoDB and Lambda behind the ports.
//!
//! One [`Aws`] is the root that the adapters share: configuration, credentials, connections. It is built once, because
//! reading certificates and credentials is what a cold start waits for.
//!
//! Every call is bounded in time and tries. The SDK tries [`ATTEMPTS`] times with jittered pauses of
//! [`LONGEST_PAUSE`] at most, except where a second try could not tell its own work from somebody else's: conditional
//! writes of task records are repeated after throttling only. What fails after that is for the caller to judge by its
//! [`StoreErrorKind`](super::StoreErrorKind).

mod chunks;
mod error;
mod head_last;
mod invoke;
mod lent;
mod multipart;
mod public;
mod recordings;
mod tasks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_http_client::tls;
use aws_types::service_config::ServiceConfigKey;

pub use chunks::S3ChunkStore;
pub use head_last::S3HeadLast;
pub use invoke::LambdaContinuation;
pub use lent::S3Lent;
pub use recordings::S3Recordings;
pub use tasks::DynamoTaskStore;

/// Tries of a call, the first included.
pub const ATTEMPTS: u32 = 3;
/// Longest pause between two tries.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// First pause; doubles each time, and is drawn at random below that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A handshake around the world, with packets lost.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// One try of a small call (a record, an invocation). They take milliseconds; a command has 500 ms to arrive.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// One try of a call that carries a part of a recording: 10 MiB at 2 Mbit/s is 42 s.
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);
/// A transfer that does not move at all for so long is given up. The SDK's 5 s are little where a browser has the CPU.
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// Regions whose clients are kept. There are fewer than this, but callers may name what they like.
const MAX_REGIONS: usize = 64;

/// No region is configured.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is known; set AWS_REGION")]
pub struct MissingRegion;

/// Configuration, credentials and connections that all adapters share. Cheap to clone.
#[derive(Clone)]
pub struct Aws {
    config: SdkConfig,
    region: String,
    s3_endpoint: Option<String>,
    s3: Arc<Mutex<HashMap<String, aws_sdk_s3::Client>>>,
}

impl Aws {
    /// What the environment and the profile of the process say (`AWS_REGION`, `AWS_ENDPOINT_URL`,
    /// `AWS_ENDPOINT_URL_S3` and so on). No request is made where a region and credentials are in the environment, as
    /// on Lambda.
    pub async fn from_environment() -> Result<Self, MissingRegion> {
        Self::new(Self::loader().load().await)
    }

    /// Our connections, limits and tries, for callers that add to them.
    pub fn loader() -> ConfigLoader {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let retry = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_PAUSE)
            .with_max_backoff(LONGEST_PAUSE);
        aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(retry)
            .timeout_config(limits(CALL_LIMIT))
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL_LIMIT).build())
    }

    /// From a configuration that [`loader`](Self::loader) loaded.
    pub fn new(config: SdkConfig) -> Result<Self, MissingRegion> {
        let region = config.region().ok_or(MissingRegion)?.to_string();
        let own = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
        let own = own.ok().and_then(|key| config.service_config()?.load_config(key));
        // What a caller of the loader names counts more than the environment; the SDK sees it so, too.
        let given = config.endpoint_url().map(str::to_owned);
        let s3_endpoint = if config.get_origin("endpoint_url").is_client_config() { given } else { own.or(given) };
        Ok(Self { config, region, s3_endpoint, s3: Arc::default() })
    }

    /// A client of S3 in a region, ours if none is named.
    fn s3(&self, region: Option<&str>) -> aws_sdk_s3::Client {
        let region = region.unwrap_or(&self.region);
        let mut clients = self.s3.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(region) {
            return client.clone();
        }
        let config = aws_sdk_s3::config::Builder::from(&self.config)
            .region(Region::new(region.to_owned()))
            .timeout_config(limits(TRANSFER_LIMIT))
            // Other S3s have no name in the DNS for each bucket.
            .force_path_style(self.s3_endpoint.is_some())
            .build();
        let client = aws_sdk_s3::Client::from_conf(config);
        if clients.len() < MAX_REGIONS {
            clients.insert(region.to_owned(), client.clone());
        }
        client
    }
}

/// Limits for calls of which one try may take `attempt`.
fn limits(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * ATTEMPTS)
        .build()
}
