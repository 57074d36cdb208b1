//! A video-on-demand service as its documentation describes it: it checks signatures, lends places in a real bucket with
//! temporary credentials of that bucket's own server, and sees that the file is there, and what it names if it is a playlist,
//! before it makes an asset of it. Then it plays it to whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::REGION;
use super::s3::Bucket;
use super::sts::{Temporary, hex, mac};

pub const ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
pub const SECRET_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";

/// What goes wrong, each so many times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mishaps {
    /// Credentials that are lent have ended when they arrive.
    pub ended: usize,
    /// A commit is not answered.
    pub silent: usize,
    /// A commit is refused with this code.
    pub refusal: Option<&'static str>,
}

/// Lives as long as the test's runtime.
pub struct VodServer {
    pub url: url::Url,
    shared: Arc<Shared>,
}

struct Shared {
    bucket: Bucket,
    mishaps: Mutex<Mishaps>,
    /// Action and body of each call whose signature is right.
    asked: Mutex<Vec<(String, Value)>>,
    lent: Mutex<Vec<Temporary>>,
    /// Where the files go, in the same order.
    paths: Mutex<Vec<String>>,
    /// Where assets play.
    url: url::Url,
}

impl VodServer {
    /// Lends places in `bucket`.
    pub async fn new(bucket: Bucket, mishaps: Mishaps) -> Self {
        let (mishaps, asked, lent) = (Mutex::new(mishaps), Mutex::default(), Mutex::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: url::Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let shared = Arc::new(Shared { bucket, mishaps, asked, lent, paths: Mutex::default(), url: url.clone() });
        let (server, player) = (Arc::clone(&shared), Arc::clone(&shared));
        let answer = move |headers: HeaderMap, body: String| {
            let server = Arc::clone(&server);
            async move { ([("content-type", "application/json")], server.answer(&headers, &body).await.to_string()) }
        };
        let play = move |Path(key): Path<String>| {
            let player = Arc::clone(&player);
            async move { player.bucket.read(&key).await.ok_or(StatusCode::NOT_FOUND) }
        };
        let routes = axum::Router::new().route("/", post(answer)).route("/play/{*key}", get(play));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, shared }
    }

    /// The bucket.
    pub fn bucket(&self) -> &Bucket {
        &self.shared.bucket
    }

    /// What it was asked, in order: action and body.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has lent, in order.
    pub fn lent(&self) -> Vec<Temporary> {
        self.shared.lent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where the nth file goes, from 0.
fn path(nth: usize, media_type: &str) -> String {
    match media_type {
        "m3u8" => format!("vod/{nth}/lesson.m3u8"),
        other => format!("vod/lesson-{nth}.{other}"),
    }
}

impl Shared {
    async fn answer(&self, headers: &HeaderMap, body: &str) -> Value {
        if !verified(headers, body) {
            return refused("AuthFailure.SignatureFailure", "wrong signature");
        }
        let (action, body) = (headers["x-tc-action"].to_str().unwrap(), serde_json::from_str::<Value>(body).unwrap());
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((action.into(), body.clone()));
        match action {
            "ApplyUpload" => self.lend(body["MediaType"].as_str().unwrap()).await,
            _ => self.commit(&body).await,
        }
    }

    async fn lend(&self, media_type: &str) -> Value {
        let ended = self.is_turn_of(|mishaps| &mut mishaps.ended);
        let credentials = Temporary::of(&self.bucket.endpoint).await;
        let credentials = credentials.ending_in(if ended { -60 } else { 600 });
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = lent.len();
        lent.push(credentials.clone());
        let path = path(nth, media_type);
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        let Temporary { id, secret, token, expires } = credentials;
        json!({"Response": {
            "StorageBucket": self.bucket.name, "StorageRegion": REGION, "MediaStoragePath": format!("/{path}"),
            "VodSessionKey": format!("session-{nth}"), "RequestId": "r",
            "TempCertificate": {"SecretId": id, "SecretKey": secret, "Token": token, "ExpiredTime": expires},
        }})
    }

    async fn commit(&self, body: &Value) -> Value {
        if self.is_turn_of(|mishaps| &mut mishaps.silent) {
            std::future::pending::<()>().await;
        }
        if let Some(code) = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner).refusal {
            return refused(code, "not this one");
        }
        let session =
            body["VodSessionKey"].as_str().and_then(|key| key.strip_prefix("session-")?.parse::<usize>().ok());
        let Some(nth) = session else { return refused("InvalidParameterValue.VodSessionKey", "unknown") };
        let path = self.paths.lock().unwrap_or_else(PoisonError::into_inner)[nth].clone();
        if let Err(missing) = self.is_whole(&path).await {
            return refused("FailedOperation.UploadIncomplete", &format!("no {missing}"));
        }
        let media = format!("{}play/{path}", self.url);
        json!({"Response": {"FileId": format!("528{nth}"), "MediaUrl": media, "RequestId": "r"}})
    }

    /// The file is there, and what it names beside it (RFC 8216: lines that are no tag, and `URI` of a tag); else what is not.
    async fn is_whole(&self, path: &str) -> Result<(), String> {
        let file = self.bucket.read(path).await.ok_or(path)?;
        let Some((dir, _)) = path.rsplit_once('/').filter(|_| path.ends_with(".m3u8")) else { return Ok(()) };
        let text = String::from_utf8(file).map_err(|_| "text")?;
        for line in text.lines() {
            let inner = line.strip_prefix("#EXT-X-MAP:URI=\"").and_then(|rest| rest.split('"').next());
            let Some(uri) = inner.or(Some(line).filter(|line| !line.starts_with('#'))) else { continue };
            self.bucket.read(&format!("{dir}/{uri}")).await.ok_or(uri)?;
        }
        Ok(())
    }

    /// Whether it is to happen now; counted.
    fn is_turn_of(&self, which: impl Fn(&mut Mishaps) -> &mut usize) -> bool {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        let left = which(&mut mishaps);
        let turn = *left > 0;
        *left = left.saturating_sub(1);
        turn
    }
}

fn refused(code: &str, message: &str) -> Value {
    json!({"Response": {"Error": {"Code": code, "Message": message}, "RequestId": "r"}})
}

/// Checks a request as the documentation says, from what is in the request alone.
fn verified(headers: &HeaderMap, body: &str) -> bool {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let given = header("authorization");
    let field = |name: &str| {
        let (_, rest) = given.split_once(&format!("{name}="))?;
        rest.split(',').next().map(|v| v.trim().to_owned())
    };
    let (Some(credential), Some(signed), Some(signature)) =
        (field("Credential"), field("SignedHeaders"), field("Signature"))
    else {
        return false;
    };
    let Some((id, scope)) = credential.split_once('/') else { return false };
    let mut canonical = String::from("POST\n/\n\n");
    for name in signed.split(';') {
        canonical += &format!("{name}:{}\n", header(name).trim().to_lowercase());
    }
    canonical += &format!("\n{signed}\n{}", hex(&Sha256::digest(body)));
    let text = format!("TC3-HMAC-SHA256\n{}\n{scope}\n{}", header("x-tc-timestamp"), hex(&Sha256::digest(canonical)));
    let mut key = format!("TC3{SECRET_KEY}").into_bytes();
    for part in scope.split('/') {
        key = mac(&key, part);
    }
    id == ID && given.starts_with("TC3-HMAC-SHA256 ") && hex(&mac(&key, &text)) == signature
}
