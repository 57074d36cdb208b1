//! Servers, and what stands between them and the adapters.

pub mod canned;
pub mod lambda;
pub mod process;
pub mod proxy;
pub mod s3;
pub mod sts;
pub mod tables;
pub mod vod;

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use panorec::platform::aws::Aws;

pub const REGION: &str = "us-east-1";
/// The account that servers which look at credentials know.
pub const KEY: &str = "panorec";
pub const SECRET: &str = "a-secret-of-the-tests";

/// A configuration for a server, as a deployment would load it from its environment.
pub async fn config(endpoint: &str, secret: &str) -> SdkConfig {
    let credentials = Credentials::new(KEY, secret, None, None, "tests");
    let loader = Aws::loader().endpoint_url(endpoint).region(Region::new(REGION)).credentials_provider(credentials);
    loader.load().await
}

pub async fn aws(endpoint: &str) -> Aws {
    Aws::new(config(endpoint, SECRET).await).unwrap()
}
