//! The only reader of the environment: names as constants, one prefix, raw values checked once.

mod programs;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use programs::{MissingTool, chromium_path, ffmpeg_path, layer};

/// Path of Chromium. Default: the first of `chromium`, `chromium-browser`, `google-chrome` found on `PATH`.
pub const CHROMIUM: &str = "PANOREC_CHROMIUM";
/// Path of FFmpeg. Default: `.tools/ffmpeg` in the directory of the executable or one of the four above it (where
/// `make setup` puts it for a build in `target/`), then `ffmpeg` on `PATH`.
pub const FFMPEG: &str = "PANOREC_FFMPEG";

/// How Chromium's processes come about, where Lambda refuses some ways: `zygote`, `in-process-gpu`, `single-process`, or
/// `auto` for the first of them that draws a frame. Default: `auto` as a function, `zygote` elsewhere.
pub const LAUNCH: &str = "PANOREC_LAUNCH";
/// What is logged, in the syntax of `tracing_subscriber`'s filter directives. Default: `warn`; `info` as a function. Of
/// libraries never more than warnings.
pub const LOG: &str = "PANOREC_LOG";
/// DynamoDB table of the task records. Default: SQLite in the data directory.
pub const TABLE: &str = "PANOREC_TABLE";
/// Origin whose pages may call from a browser, or `*`. Default: none; the gateway may do it.
pub const CORS_ORIGIN: &str = "PANOREC_CORS_ORIGIN";
/// Networks that pages may reach although they are not public, separated by commas. Default: none.
pub const ALLOW_ADDRESS: &str = "PANOREC_ALLOW_ADDRESS";
/// `true`: intermediate chunks stay after the file was made. Default: `false`.
pub const KEEP_CHUNKS: &str = "PANOREC_KEEP_CHUNKS";
/// Seconds before its last moment at which an invocation asks for the next one, 5–600, but never before half of its time is
/// over. Default: what the page's start took, three times, and 8 at least, and five segments.
pub const HANDOVER_LEAD: &str = "PANOREC_HANDOVER_LEAD";
/// Secret that callbacks are signed with: base64 of 24 to 64 bytes, `whsec_` before it if you like. Default: unsigned.
pub const WEBHOOK_SECRET: &str = "PANOREC_WEBHOOK_SECRET";
/// Bucket of finished recordings. Default: the data directory.
pub const BUCKET: &str = "COS_BUCKET";
/// Bucket of intermediate chunks. Default: the bucket of finished recordings.
pub const BUCKET_RAW: &str = "COS_BUCKET_RAW";
/// Domain in `FileURL`. Default: the bucket's own.
pub const DOMAIN: &str = "CDN_DOMAIN";
/// Mounted file system for intermediate chunks (`StorageType: cfs`), a directory. Default: none.
pub const MOUNT: &str = "VIDEO_ROOT_DIR";
/// Largest `MaxDurationLimit`, seconds, 1–36000. Default: 36000.
pub const MAX_LIMIT: &str = "MAX_RECORD_DURATION_LIMIT";
/// Key of the video-on-demand service's API: its name and what signs. Default: none; `Output.Vod` is refused.
pub const VOD_ID: &str = "VOD_SECRET_ID";
/// See [`VOD_ID`].
pub const VOD_KEY: &str = "VOD_SECRET_KEY";
/// Where the video-on-demand service's API is. Default: the vendor's.
pub const VOD_ENDPOINT: &str = "VOD_ENDPOINT";
/// Where its buckets are, in the S3 protocol, path style. Default: the vendor's, by region.
pub const VOD_UPLOAD_ENDPOINT: &str = "VOD_UPLOAD_ENDPOINT";
/// Set by the platform: address of the runtime interface; makes this process the function.
const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// Set by the platform: name under which the function invokes itself.
const FUNCTION_NAME: &str = "AWS_LAMBDA_FUNCTION_NAME";
/// Set by the platform: memory in MB.
const FUNCTION_MEMORY: &str = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
/// Set by the platform: version of the function. Only the runtime interface's client reads it, and panics without it.
const FUNCTION_VERSION: &str = "AWS_LAMBDA_FUNCTION_VERSION";

/// Whatever works.
const AUTO: &str = "auto";
/// How Chromium is to be started, if it is said: one of `words`, or `auto`.
pub fn launch(words: &[&'static str]) -> Result<Option<&'static str>, BadSetting> {
    let text = given(LAUNCH).map(|v| v.to_string_lossy().into_owned());
    read_launch(text.as_deref(), words)
}

fn read_launch(text: Option<&str>, words: &[&'static str]) -> Result<Option<&'static str>, BadSetting> {
    match text {
        None => Ok(None),
        Some(AUTO) => Ok(Some(AUTO)),
        Some(text) => match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Some(word)),
            None => {
                let reason = format!("`{text}` is no way to start Chromium; take {}, or {AUTO}", words.join(", "));
                Err(BadSetting { variable: LAUNCH, reason })
            }
        },
    }
}

/// What is logged; `default` is a level.
pub fn log_filter(default: &str) -> String {
    given(LOG).map_or_else(|| default.to_owned(), |v| v.to_string_lossy().into_owned())
}

/// Whether the platform started this process as a function.
pub fn is_function() -> bool {
    given(RUNTIME_API).is_some()
}

/// Settings of the service, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// See [`TABLE`].
    pub table: Option<String>,
    /// See [`CORS_ORIGIN`].
    pub cors_origin: Option<String>,
    /// See [`ALLOW_ADDRESS`].
    pub allow_addresses: Vec<ipnet::IpNet>,
    /// See [`KEEP_CHUNKS`].
    pub keep_chunks: bool,
    /// See [`HANDOVER_LEAD`].
    pub hand_over_lead: Option<Duration>,
    /// See [`WEBHOOK_SECRET`], decoded.
    pub webhook_secret: Option<Vec<u8>>,
    /// See [`BUCKET`].
    pub bucket: Option<String>,
    /// See [`BUCKET_RAW`].
    pub bucket_raw: Option<String>,
    /// See [`DOMAIN`].
    pub domain: Option<String>,
    /// See [`MOUNT`].
    pub mount: Option<PathBuf>,
    /// See [`MAX_LIMIT`].
    pub max_limit_seconds: u32,
    /// See [`VOD_ID`].
    pub vod: Option<VodSettings>,
    /// Name of the function.
    pub function: Option<String>,
    /// Memory of the function, MB.
    pub memory_mb: Option<u32>,
}

/// The video-on-demand service.
#[derive(Clone, PartialEq)]
pub struct VodSettings {
    /// See [`VOD_ID`].
    pub id: String,
    /// See [`VOD_KEY`].
    pub key: String,
    /// See [`VOD_ENDPOINT`].
    pub endpoint: Option<url::Url>,
    /// See [`VOD_UPLOAD_ENDPOINT`].
    pub upload_endpoint: Option<url::Url>,
}

impl std::fmt::Debug for VodSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VodSettings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A variable whose value cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable}: {reason}")]
pub struct BadSetting {
    variable: &'static str,
    reason: String,
}

/// Largest limit that the wire contract allows, seconds.
const MAX_LIMIT_SECONDS: u32 = 36_000;

/// Leads that make sense, seconds: from what a warm browser needs to two thirds of the longest invocation.
const LEAD_SECONDS: std::ops::RangeInclusive<u64> = 5..=600;

/// Settings from the environment.
pub fn settings() -> Result<Settings, BadSetting> {
    read_settings(|name| given(name).map(|v| v.to_string_lossy().into_owned()))
}

/// A secret as the Standard Webhooks specification writes it; the prefix may be left out.
fn secret(text: &str) -> Result<Vec<u8>, String> {
    let encoded = text.strip_prefix("whsec_").unwrap_or(text);
    match STANDARD.decode(encoded) {
        Ok(key) if (24..=64).contains(&key.len()) => Ok(key),
        Ok(key) => Err(format!("{} bytes; 24 to 64 are needed", key.len())),
        Err(_) => Err("not base64; write it as whsec_ and base64 of 24 to 64 random bytes".into()),
    }
}

/// What a function cannot do without is missed at its start, not at its first event.
fn check_function(get: impl Fn(&str) -> Option<String>) -> Result<(), BadSetting> {
    let bad = |variable, reason: &str| Err(BadSetting { variable, reason: reason.into() });
    for variable in [FUNCTION_NAME, FUNCTION_VERSION, FUNCTION_MEMORY] {
        if get(variable).is_none() {
            return bad(variable, "not set; the platform sets it, and whatever stands in for one has to");
        }
    }
    if !get(FUNCTION_MEMORY).is_some_and(|mb| mb.parse::<i32>().is_ok_and(|mb| mb > 0)) {
        return bad(FUNCTION_MEMORY, "not a number of megabytes; write it like 2048");
    }
    if get(TABLE).is_none() {
        return bad(TABLE, "not set; a function keeps its tasks in DynamoDB: set it to the name of the table");
    }
    if get(BUCKET).is_none() {
        return bad(BUCKET, "not set; a function keeps its recordings in S3: set it to the name of the bucket");
    }
    Ok(())
}

fn vod(get: impl Fn(&str) -> Option<String>) -> Result<Option<VodSettings>, BadSetting> {
    let bad = |variable, reason: String| BadSetting { variable, reason };
    let address = |variable| match get(variable) {
        None => Ok(None),
        Some(text) => match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            _ => Err(bad(variable, format!("`{text}` is not an address; write it like https://vod.example.com"))),
        },
    };
    let (endpoint, upload_endpoint) = (address(VOD_ENDPOINT)?, address(VOD_UPLOAD_ENDPOINT)?);
    match (get(VOD_ID), get(VOD_KEY)) {
        (Some(id), Some(key)) => Ok(Some(VodSettings { id, key, endpoint, upload_endpoint })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(bad(VOD_ID, format!("not set although {VOD_KEY} is; set both or neither"))),
        (Some(_), None) => Err(bad(VOD_KEY, format!("not set although {VOD_ID} is; set both or neither"))),
    }
}

fn read_settings(get: impl Fn(&str) -> Option<String>) -> Result<Settings, BadSetting> {
    let bad = |variable, reason: String| BadSetting { variable, reason };
    if get(RUNTIME_API).is_some() {
        check_function(&get)?;
    }
    let keep_chunks = match get(KEEP_CHUNKS).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(bad(KEEP_CHUNKS, format!("`{other}` is neither true nor false"))),
    };
    let mut allow_addresses = Vec::new();
    for network in get(ALLOW_ADDRESS).iter().flat_map(|list| list.split(',')).map(str::trim).filter(|n| !n.is_empty()) {
        let parsed = network.parse().or_else(|_| network.parse::<std::net::IpAddr>().map(Into::into));
        let reason = |_| bad(ALLOW_ADDRESS, format!("`{network}` is not a network; write it like 10.0.0.0/8"));
        allow_addresses.push(parsed.map_err(reason)?);
    }
    let max_limit_seconds = match get(MAX_LIMIT) {
        None => MAX_LIMIT_SECONDS,
        Some(text) => text.parse().ok().filter(|s| (1..=MAX_LIMIT_SECONDS).contains(s)).ok_or_else(|| {
            bad(MAX_LIMIT, format!("`{text}` is not a whole number of seconds from 1 to {MAX_LIMIT_SECONDS}"))
        })?,
    };
    let hand_over_lead = match get(HANDOVER_LEAD) {
        None => None,
        Some(text) => match text.parse().ok().filter(|s| LEAD_SECONDS.contains(s)) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => {
                let (from, to) = (LEAD_SECONDS.start(), LEAD_SECONDS.end());
                let reason = format!("`{text}` is not a whole number of seconds from {from} to {to}");
                return Err(bad(HANDOVER_LEAD, reason));
            }
        },
    };
    let webhook_secret = match get(WEBHOOK_SECRET) {
        Some(text) => Some(secret(&text).map_err(|e| bad(WEBHOOK_SECRET, e))?),
        None => None,
    };
    let bucket = get(BUCKET);
    if bucket.is_none() && get(BUCKET_RAW).is_some() {
        return Err(bad(BUCKET_RAW, format!("a bucket for chunks needs one for recordings too; set {BUCKET}")));
    }
    let domain = get(DOMAIN);
    if let Some(domain) = domain.as_deref().filter(|d| d.contains("://") || d.contains('/')) {
        return Err(bad(
            DOMAIN,
            format!("`{domain}` is not a domain; write it like cdn.example.com, without https://"),
        ));
    }
    let mount = get(MOUNT).map(PathBuf::from);
    if let Some(mount) = mount.as_ref().filter(|m| !m.is_dir()) {
        return Err(bad(MOUNT, format!("`{}` is not a directory; mount the file system first", mount.display())));
    }
    Ok(Settings {
        table: get(TABLE),
        cors_origin: get(CORS_ORIGIN),
        allow_addresses,
        keep_chunks,
        hand_over_lead,
        webhook_secret,
        bucket,
        bucket_raw: get(BUCKET_RAW),
        domain,
        mount,
        max_limit_seconds,
        vod: vod(&get)?,
        function: get(FUNCTION_NAME),
        memory_mb: get(FUNCTION_MEMORY).and_then(|mb| mb.parse().ok()),
    })
}

#[expect(clippy::disallowed_methods, reason = "the one room that reads the environment")]
fn given(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Settings, BadSetting> {
        read_settings(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string()))
    }

    #[test]
    fn nothing_set_is_a_laptop() {
        let settings = with(&[]).unwrap();
        assert_eq!((settings.bucket, settings.table, settings.max_limit_seconds), (None, None, 36_000));
    }

    #[test]
    fn a_function_says_at_its_start_what_it_misses() {
        let all = [
            (RUNTIME_API, "127.0.0.1:9001"),
            (FUNCTION_NAME, "recorder"),
            (FUNCTION_VERSION, "$LATEST"),
            (FUNCTION_MEMORY, "2048"),
            (TABLE, "tasks"),
            (BUCKET, "recordings"),
        ];
        assert_eq!(with(&all).unwrap().memory_mb, Some(2048));
        for missing in 1..all.len() {
            let rest: Vec<_> = all.iter().copied().filter(|pair| pair != &all[missing]).collect();
            let message = with(&rest).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{}: not set; ", all[missing].0)), "{message}");
        }
        let odd: Vec<_> = all.iter().map(|(n, v)| (*n, if *n == FUNCTION_MEMORY { "2 GB" } else { v })).collect();
        assert!(with(&odd).unwrap_err().to_string().contains("megabytes"));
    }

    #[test]
    fn a_way_to_start_chromium_is_one_of_those_there_are() {
        let words = ["zygote", "single-process"];
        assert_eq!(read_launch(None, &words), Ok(None));
        assert_eq!(read_launch(Some("auto"), &words), Ok(Some(AUTO)));
        assert_eq!(read_launch(Some("zygote"), &words), Ok(Some("zygote")));
        let message = read_launch(Some("Zygote"), &words).unwrap_err().to_string();
        assert!(message.starts_with(LAUNCH) && message.contains("take zygote, single-process, or auto"), "{message}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_bound_and_the_way_out() {
        for (name, value, expected) in [
            (KEEP_CHUNKS, "yes", "true nor false"),
            (HANDOVER_LEAD, "4", "from 5 to 600"),
            (HANDOVER_LEAD, "20s", "whole number"),
            (ALLOW_ADDRESS, "10.0.0.0/8,lan", "`lan` is not a network"),
            (MAX_LIMIT, "36001", "1 to 36000"),
            (MAX_LIMIT, "1h", "1 to 36000"),
            (BUCKET_RAW, "raw", "set COS_BUCKET"),
            (WEBHOOK_SECRET, "whsec_c2hvcnQ=", "24 to 64"),
            (DOMAIN, "https://cdn.example.com", "without https://"),
            (VOD_KEY, "x", "set both or neither"),
            (VOD_ENDPOINT, "vod.example.com", "write it like https://"),
            (MOUNT, "/nowhere", "not a directory"),
        ] {
            let message = with(&[(name, value)]).unwrap_err().to_string();
            // Of a pair, the one that is missing is named.
            let named = if name == VOD_KEY { VOD_ID } else { name };
            assert!(message.starts_with(named) && message.contains(expected), "{message}");
        }
    }
}
