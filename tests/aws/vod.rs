//! Delivery to a video-on-demand service: our client and the vendor's own signing against one verifier, and a file that is put,
//! with temporary credentials, to a real object store in the S3 protocol.

use panorec::delivery::vod::tc3::{Keys, Signing};
use panorec::delivery::vod::{Grant, VodClient, VodError};
use panorec::platform::aws::S3Lent;
use panorec::platform::{LentStore, Loan, PublicObject, StoreError, StoreErrorKind};
use panorec::task::order::VodOrder;
use serde_json::json;

use super::support::s3::Bucket;
use super::support::vod::{ID, Mishaps, SECRET_KEY, VodServer};

fn keys(secret: &str) -> Keys {
    Keys { id: ID.into(), secret: secret.into() }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn loan(grant: &Grant) -> Loan {
    let certificate = &grant.temp_certificate;
    Loan {
        bucket: grant.storage_bucket.clone(),
        region: grant.storage_region.clone(),
        key: grant.media_storage_path.trim_start_matches('/').into(),
        access_key: certificate.secret_id.clone(),
        secret_key: certificate.secret_key.clone(),
        token: certificate.token.clone(),
    }
}

async fn put(vod: &VodServer, loan: &Loan, payload: &[u8]) -> Result<String, StoreError> {
    let mut object = S3Lent::new(Some(vod.bucket().endpoint.clone())).open(loan).await?;
    for piece in payload.chunks(700_001) {
        object.append(piece.to_vec().into()).await?;
    }
    object.finish("head".into(), "").await
}

#[tokio::test]
async fn a_file_is_applied_for_put_and_committed_and_a_wrong_key_is_refused() {
    let vod = VodServer::new(Bucket::new().await, Mishaps::default()).await;
    let client = VodClient::new(vod.url.clone(), keys(SECRET_KEY));
    let order = VodOrder { media_name: Some("Algebra, 7b: ½".into()), sub_app_id: Some(7), ..VodOrder::default() };
    let grant = client.apply(&order, "mp4", now()).await.unwrap();
    assert_eq!(vod.asked()[0].1, json!({"MediaType": "mp4", "MediaName": "Algebra, 7b: ½", "SubAppId": 7}));
    let early = client.commit(&grant.vod_session_key, order.sub_app_id, now()).await.unwrap_err();
    assert!(early.to_string().starts_with("FailedOperation.UploadIncomplete"), "{early}");
    // Small: one put. Large: in parts, the first last.
    for size in [1usize << 20, 27 << 20] {
        let payload: Vec<u8> = (0..size).map(|n| (n / 251) as u8).collect();
        assert_eq!(put(&vod, &loan(&grant), &payload).await.unwrap(), "vod/lesson-0.mp4");
        let there = vod.bucket().read("vod/lesson-0.mp4").await.unwrap();
        assert!(there == [b"head", &payload[..]].concat(), "{} of {size} bytes", there.len());
        assert!(vod.bucket().uploads().await.is_empty());
    }
    let asset = client.commit(&grant.vod_session_key, order.sub_app_id, now()).await.unwrap();
    assert_eq!(asset.file_id, "5280");
    assert_eq!(asset.media_url, format!("{}play/vod/lesson-0.mp4", vod.url));
    let wrong = VodClient::new(vod.url.clone(), keys("another")).commit("session-0", None, now()).await.unwrap_err();
    assert!(matches!(&wrong, VodError::Refused { code, .. } if code == "AuthFailure.SignatureFailure"), "{wrong}");
    let gone = client.commit("another", None, now()).await.unwrap_err();
    assert!(gone.to_string().starts_with("InvalidParameterValue.VodSessionKey: unknown"), "{gone}");
}

#[tokio::test]
async fn what_is_lent_is_good_with_its_token_only_and_until_it_ends() {
    let vod = VodServer::new(Bucket::new().await, Mishaps { ended: 1, ..Mishaps::default() }).await;
    let client = VodClient::new(vod.url.clone(), keys(SECRET_KEY));
    let ended = client.apply(&VodOrder::default(), "mp4", now()).await.unwrap();
    let good = client.apply(&VodOrder::default(), "mp4", now()).await.unwrap();
    // One put, and parts.
    for size in [1usize << 20, 17 << 20] {
        let payload = vec![7; size];
        let error = put(&vod, &loan(&ended), &payload).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{error:?}");
        let other = Loan { token: ended.temp_certificate.token.clone(), ..loan(&good) };
        let error = put(&vod, &other, &payload).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{error:?}");
        put(&vod, &loan(&good), &payload).await.unwrap();
    }
    assert!(vod.bucket().uploads().await.is_empty());
}

#[tokio::test]
async fn what_a_playlist_names_is_put_beside_it_and_one_store_serves_one_loan_after_the_other() {
    let vod = VodServer::new(Bucket::new().await, Mishaps { ended: 1, ..Mishaps::default() }).await;
    let client = VodClient::new(vod.url.clone(), keys(SECRET_KEY));
    let ended = client.apply(&VodOrder::default(), "m3u8", now()).await.unwrap();
    let good = client.apply(&VodOrder::default(), "m3u8", now()).await.unwrap();
    let store = S3Lent::new(Some(vod.bucket().endpoint.clone()));
    let object = |text: &'static str| PublicObject {
        bytes: text.into(),
        content_type: "application/vnd.apple.mpegurl",
        cache_control: "public, max-age=3600",
    };
    let error = store.put(&loan(&ended), object("too late")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused, "{error:?}");
    store.put(&loan(&good), object("#EXTM3U\n#EXT-X-MAP:URI=\"a/init.mp4\"\na/1.m4s\n")).await.unwrap();
    for (uri, missing) in [("a/init.mp4", "no a/init.mp4"), ("a/1.m4s", "no a/1.m4s")] {
        let refused = client.commit(&good.vod_session_key, None, now()).await.unwrap_err();
        assert!(refused.to_string().contains(missing), "{refused}");
        // A second time over the first: nobody knows whether that was stored.
        for _ in 0..2 {
            store.put(&loan(&good).beside(uri), object("segment")).await.unwrap();
        }
    }
    let asset = client.commit(&good.vod_session_key, None, now()).await.unwrap();
    assert_eq!(asset.media_url, format!("{}play/vod/1/lesson.m3u8", vod.url));
    let bucket = vod.bucket();
    assert_eq!(bucket.keys().await, ["vod/1/a/1.m4s", "vod/1/a/init.mp4", "vod/1/lesson.m3u8"]);
    let head = bucket.client.head_object().bucket(&bucket.name).key("vod/1/lesson.m3u8").send().await.unwrap();
    assert_eq!(head.content_type(), Some("application/vnd.apple.mpegurl"));
    assert_eq!(head.cache_control(), Some("public, max-age=3600"));
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
    bucket.put("vod/lesson-0.mp4", b"what somebody has uploaded").await;
    let vod = VodServer::new(bucket, Mishaps::default()).await;
    let place = format!("127.0.0.1:{}", vod.url.port().unwrap());
    let python = move || {
        let mut python = std::process::Command::new("python3");
        python.env("no_proxy", "*").args(["-c", SDK]).arg(super::support::process::tool("vod-sdk"));
        python.args([place.as_str(), ID, SECRET_KEY, "tampered"]).output().unwrap()
    };
    let said = tokio::task::spawn_blocking(python).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(out, "/vod/lesson-0.mp4 5280\nAuthFailure.SignatureFailure\n", "{err}");
}
