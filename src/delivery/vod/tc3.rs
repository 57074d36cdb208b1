//! TC3-HMAC-SHA256, as the cloud API's documentation says ("Signature v3"): a request's method, path, headers and body, signed
//! with a key that is good for one day and one service.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Headers that are signed, beside which nothing of the head is.
const SIGNED: &str = "content-type;host";

/// A key of the cloud API.
#[derive(Clone)]
pub struct Keys {
    /// Its name.
    pub id: String,
    /// What signs.
    pub secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys { .. }")
    }
}

/// What is signed of a POST to `/`.
pub struct Signing<'a> {
    /// The service's name in the key, like `vod`.
    pub service: &'a str,
    /// `host` header.
    pub host: &'a str,
    /// `content-type` header.
    pub content_type: &'a str,
    /// `X-TC-Timestamp`, unix seconds.
    pub timestamp: i64,
    /// The body.
    pub body: &'a str,
}

impl Signing<'_> {
    /// The `Authorization` header.
    pub fn authorization(&self, keys: &Keys) -> String {
        let Self { service, host, content_type, timestamp, body } = self;
        let day = day(*timestamp);
        let request = format!("POST\n/\n\ncontent-type:{content_type}\nhost:{host}\n\n{SIGNED}\n{}", hash(body));
        let scope = format!("{day}/{service}/tc3_request");
        let text = format!("TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{}", hash(&request));
        let key = [day.as_str(), service, "tc3_request"]
            .iter()
            .fold(format!("TC3{}", keys.secret).into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        format!("TC3-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={signature}", keys.id)
    }
}

/// The UTC day of a time stamp, like `2019-02-25`.
fn day(timestamp: i64) -> String {
    let time = jiff::Timestamp::from_second(timestamp).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // Keys of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
