//! Delivery to a video-on-demand service: our client and the vendor's own signing against one verifier, and a file that is put,
//! with temporary credentials, to a real object store in the S3 protocol.

use std::sync::{Arc, Mutex};

use axum::http::HeaderMap;
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use panorec::delivery::vod::tc3::{Keys, Signing};
use panorec::delivery::vod::{VodClient, VodError};
use panorec::platform::aws::S3Lent;
use panorec::platform::{LentStore, Loan};
use panorec::task::order::VodOrder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::s3::Bucket;
use super::support::{KEY, REGION, SECRET};

const ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
const SECRET_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";

fn keys(secret: &str) -> Keys {
    Keys { id: ID.into(), secret: secret.into() }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
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
        key = hmac(&key, part);
    }
    id == ID && given.starts_with("TC3-HMAC-SHA256 ") && hex(&hmac(&key, &text)) == signature
}

/// A service on the loopback interface that lends places in `bucket`. Returns its address, and what it was asked.
async fn service(bucket: &Bucket) -> (url::Url, Arc<Mutex<Vec<Value>>>) {
    let (asked, name) = (Arc::<Mutex<Vec<Value>>>::default(), bucket.name.clone());
    let seen = Arc::clone(&asked);
    let answer = move |headers: HeaderMap, body: String| {
        let json = [("content-type", "application/json")];
        let (seen, name) = (Arc::clone(&seen), name.clone());
        async move {
            if !verified(&headers, &body) {
                let error = json!({"Code": "AuthFailure.SignatureFailure", "Message": "wrong signature"});
                return (json, json!({"Response": {"Error": error, "RequestId": "r"}}).to_string());
            }
            let body: Value = serde_json::from_str(&body).unwrap();
            seen.lock().unwrap().push(body.clone());
            let answer = match headers["x-tc-action"].to_str().unwrap() {
                "ApplyUpload" => json!({"Response": {
                    "StorageBucket": name, "StorageRegion": REGION, "MediaStoragePath": "/vod/lesson.mp4",
                    "VodSessionKey": "session", "RequestId": "r",
                    "TempCertificate": {"SecretId": KEY, "SecretKey": SECRET, "Token": "", "ExpiredTime": 4_000_000_000u64},
                }}),
                _ if body["VodSessionKey"] == "session" => json!({"Response": {
                    "FileId": "528", "MediaUrl": "https://play.example.com/lesson.mp4", "RequestId": "r",
                }}),
                _ => {
                    let error = json!({"Code": "InvalidParameterValue.VodSessionKey", "Message": "unknown"});
                    json!({"Response": {"Error": error, "RequestId": "r"}})
                }
            };
            (json, answer.to_string())
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", post(answer))).await });
    (url, asked)
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_file_is_applied_for_put_and_committed_and_a_wrong_key_is_refused() {
    let bucket = Bucket::new().await;
    let (url, asked) = service(&bucket).await;
    let client = VodClient::new(url.clone(), keys(SECRET_KEY));
    let order = VodOrder { media_name: Some("Algebra, 7b: ½".into()), sub_app_id: Some(7), ..VodOrder::default() };
    let grant = client.apply(&order, "mp4", now()).await.unwrap();
    assert_eq!(asked.lock().unwrap()[0], json!({"MediaType": "mp4", "MediaName": "Algebra, 7b: ½", "SubAppId": 7}));
    // Small: one put. Large: in parts, the first last.
    for size in [1usize << 20, 27 << 20] {
        let certificate = &grant.temp_certificate;
        let loan = Loan {
            bucket: grant.storage_bucket.clone(),
            region: grant.storage_region.clone(),
            key: grant.media_storage_path.trim_start_matches('/').into(),
            access_key: certificate.secret_id.clone(),
            secret_key: certificate.secret_key.clone(),
            token: certificate.token.clone(),
        };
        let mut object = S3Lent::new(Some(bucket.endpoint.clone())).open(&loan).await.unwrap();
        let payload: Vec<u8> = (0..size).map(|n| (n / 251) as u8).collect();
        for piece in payload.chunks(700_001) {
            object.append(piece.to_vec().into()).await.unwrap();
        }
        assert_eq!(object.finish("head".into(), "").await.unwrap(), "vod/lesson.mp4");
        let there = bucket.read("vod/lesson.mp4").await.unwrap();
        assert!(there == [b"head", &payload[..]].concat(), "{} of {size} bytes", there.len());
        assert!(bucket.uploads().await.is_empty());
    }
    let asset = client.commit(&grant.vod_session_key, order.sub_app_id, now()).await.unwrap();
    assert_eq!((asset.file_id.as_str(), asset.media_url.as_str()), ("528", "https://play.example.com/lesson.mp4"));
    let wrong = VodClient::new(url, keys("another")).commit("session", None, now()).await.unwrap_err();
    assert!(matches!(&wrong, VodError::Refused { code, .. } if code == "AuthFailure.SignatureFailure"), "{wrong}");
    let gone = client.commit("another", None, now()).await.unwrap_err();
    assert!(gone.to_string().starts_with("InvalidParameterValue.VodSessionKey: unknown"), "{gone}");
}

#[test]
fn a_signature_is_the_one_that_the_vendors_sdk_makes() {
    // Made with tencentcloud-sdk-python-common 3.1.195 of the same request.
    let signing = Signing {
        service: "vod",
        host: "vod.tencentcloudapi.com",
        content_type: "application/json; charset=utf-8",
        timestamp: 1_551_113_065,
        body: r#"{"MediaType": "mp4"}"#,
    };
    let expected = format!(
        "TC3-HMAC-SHA256 Credential={ID}/2019-02-25/vod/tc3_request, SignedHeaders=content-type;host, \
         Signature=c4e80e7f9d6e613006f0d064a6076277a03b919df32ba40e8238634b170bf570"
    );
    assert_eq!(signing.authorization(&keys(SECRET_KEY)), expected);
}

const SDK: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.vod.v20180717 import models, vod_client
profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=sys.argv[2]))
for key in sys.argv[4:]:
    client = vod_client.VodClient(credential.Credential(sys.argv[3], key), "", profile)
    asked = models.ApplyUploadRequest()
    asked.MediaType, asked.MediaName = "mp4", "Algebra"
    try:
        lent = client.ApplyUpload(asked)
        over = models.CommitUploadRequest()
        over.VodSessionKey = lent.VodSessionKey
        print(lent.MediaStoragePath, client.CommitUpload(over).FileId)
    except TencentCloudSDKException as error:
        print(error.code)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_own_sdk_gets_the_same_answers_from_the_same_server() {
    let bucket = Bucket::new().await;
    let (url, _) = service(&bucket).await;
    let place = format!("127.0.0.1:{}", url.port().unwrap());
    let python = move || {
        let mut python = std::process::Command::new("python3");
        python.env("no_proxy", "*").args(["-c", SDK]).arg(super::support::process::tool("vod-sdk"));
        python.args([place.as_str(), ID, SECRET_KEY, "tampered"]).output().unwrap()
    };
    let said = tokio::task::spawn_blocking(python).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(out, "/vod/lesson.mp4 528\nAuthFailure.SignatureFailure\n", "{err}");
}
