//! Temporary credentials of SeaweedFS: its own STS gives them, and its S3 checks their token and when it ends.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{KEY, REGION, SECRET};

/// What tokens are signed with. SeaweedFS is told, so that a test can make one that has ended.
pub const SIGNING_KEY: &[u8] = b"signs the session tokens of tests";
/// The shortest session there is.
const SECONDS: u64 = 900;

/// Credentials that end.
#[derive(Debug, Clone)]
pub struct Temporary {
    pub id: String,
    pub secret: String,
    pub token: String,
    /// Unix seconds.
    pub expires: u64,
}

impl Temporary {
    /// From the STS of the S3 at `endpoint`: for whoever may do what the account of the tests may.
    pub async fn of(endpoint: &str) -> Self {
        let host = endpoint.strip_prefix("http://").unwrap();
        let query = format!("Action=AssumeRole&DurationSeconds={SECONDS}&RoleSessionName=vod&Version=2011-06-15");
        let now = jiff::Timestamp::now();
        let head = signed(host, &query, now);
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let request = format!("POST /?{query} HTTP/1.1\r\n{head}content-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let field = |name: &str| {
            let rest = answer.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split('<').next()).unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
        };
        let expires = now.as_second().cast_unsigned() + SECONDS;
        Self { id: field("AccessKeyId"), secret: field("SecretAccessKey"), token: field("SessionToken"), expires }
    }

    /// The same, ending so many seconds from now; below 0, they have ended.
    pub fn ending_in(self, seconds: i64) -> Self {
        let (head, rest) = self.token.split_once('.').unwrap();
        let (claims, _) = rest.split_once('.').unwrap();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        claims["exp"] = (jiff::Timestamp::now().as_second() + seconds).into();
        let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac(SIGNING_KEY, &text)));
        Self { token, ..self }
    }
}

/// Headers of a POST without a body, signed (AWS Signature Version 4).
fn signed(host: &str, query: &str, now: jiff::Timestamp) -> String {
    const NAMES: &str = "host;x-amz-content-sha256;x-amz-date";
    let (time, day) = (now.strftime("%Y%m%dT%H%M%SZ").to_string(), now.strftime("%Y%m%d").to_string());
    let empty = hex(&Sha256::digest(""));
    let headers = format!("host:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{time}\n");
    let request = hex(&Sha256::digest(format!("POST\n/\n{query}\n{headers}\n{NAMES}\n{empty}")));
    let scope = format!("{day}/{REGION}/sts/aws4_request");
    let parts = [day.as_str(), REGION, "sts", "aws4_request"];
    let key = parts.iter().fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request}")));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={NAMES}, Signature={signature}");
    format!("{}authorization: {authorization}\r\n", headers.replace('\n', "\r\n"))
}

pub fn mac(key: &[u8], text: &str) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
