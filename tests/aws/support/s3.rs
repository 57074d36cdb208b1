//! SeaweedFS: checks signatures, conditions, and the least size of a part, as S3 does.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::error::ProvideErrorMetadata;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::process::{Server, block_on, start, tool};
use super::sts::SIGNING_KEY;
use super::{KEY, SECRET, config};

/// Everything it listens on; S3 first.
const PORTS: [&str; 8] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
];

/// Hundreds of chunks, each with a request of its own, on a busy machine.
const TIDIED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

static SERVER: OnceLock<Server> = OnceLock::new();
static BUCKETS: AtomicUsize = AtomicUsize::new(0);

/// A bucket of its own for a test, seen through a client that is not ours to test.
pub struct Bucket {
    pub endpoint: String,
    pub name: String,
    pub client: Client,
}

impl Bucket {
    pub async fn new() -> Self {
        let endpoint = SERVER.get_or_init(run).endpoint.clone();
        let client = client(&endpoint).await;
        let name = format!("bucket-{}", BUCKETS.fetch_add(1, Ordering::SeqCst));
        client.create_bucket().bucket(&name).send().await.unwrap();
        Self { endpoint, name, client }
    }

    pub async fn put(&self, key: &str, body: &'static [u8]) {
        let body = bytes::Bytes::from_static(body).into();
        self.client.put_object().bucket(&self.name).key(key).body(body).send().await.unwrap();
    }

    pub async fn read(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self.client.get_object().bucket(&self.name).key(key).send().await;
        match answer {
            Ok(found) => Some(found.body.collect().await.unwrap().to_vec()),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_no_such_key()) => None,
            Err(e) => panic!("{e:?}"),
        }
    }

    /// Keys of objects.
    pub async fn keys(&self) -> Vec<String> {
        let listed = self.client.list_objects_v2().bucket(&self.name).send().await.unwrap();
        listed.contents().iter().map(|o| o.key().unwrap().to_owned()).collect()
    }

    /// Waits until there are these objects and no other: what is not needed any more is removed after a task is over.
    pub async fn until_keys(&self, keys: &[&str]) {
        let since = std::time::Instant::now();
        loop {
            let there = self.keys().await;
            if there == keys {
                return;
            }
            assert!(since.elapsed() < TIDIED_WITHIN, "{there:?} instead of {keys:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Unfinished uploads: key and numbers of the parts that are there.
    pub async fn uploads(&self) -> Vec<(String, Vec<i32>)> {
        let listed = self.client.list_multipart_uploads().bucket(&self.name).send().await.unwrap();
        let mut uploads = Vec::new();
        for upload in listed.uploads() {
            let (key, id) = (upload.key().unwrap(), upload.upload_id().unwrap());
            match self.client.list_parts().bucket(&self.name).key(key).upload_id(id).send().await {
                Ok(parts) => {
                    uploads.push((key.to_owned(), parts.parts().iter().map(|p| p.part_number().unwrap()).collect()));
                }
                Err(e) if e.code() == Some("NoSuchUpload") => {} // over since it was listed
                Err(e) => panic!("{e:?}"),
            }
        }
        uploads
    }
}

/// The server's process.
pub fn process() -> u32 {
    SERVER.get_or_init(run).process()
}

async fn client(endpoint: &str) -> Client {
    Client::from_conf(Builder::from(&config(endpoint, SECRET).await).force_path_style(true).build())
}

fn run() -> Server {
    let weed = tool("weed");
    let command = |dir: &Path, ports: [u16; 8]| {
        let accounts = format!(
            r#"{{"identities": [{{"name": "tests", "actions": ["Admin"],
                "credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}]}}]}}"#
        );
        std::fs::write(dir.join("s3.json"), accounts).unwrap();
        // Temporary credentials for whoever has an account.
        let sts = json!({"tokenDuration": "1h", "maxSessionLength": "12h", "issuer": "seaweedfs-sts",
                         "signingKey": STANDARD.encode(SIGNING_KEY)});
        let iam = json!({"sts": sts, "policy": {"defaultEffect": "Allow", "storeType": "memory"}});
        std::fs::write(dir.join("iam.json"), iam.to_string()).unwrap();
        let mut command = Command::new(&weed);
        command.arg("-logtostderr=true").arg("server").arg("-s3");
        command.arg(format!("-dir={}", dir.display())).arg(format!("-s3.config={}", dir.join("s3.json").display()));
        command.arg(format!("-s3.iam.config={}", dir.join("iam.json").display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=400", "-master.volumeSizeLimitMB=64"]);
        // It would report home, and listen for more than S3.
        command.args(["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        for name in ["filer", "s3"] {
            command.arg(format!("-{name}.localSocket={}", dir.join(name).display()));
        }
        for (flag, port) in PORTS.iter().zip(ports) {
            command.arg(format!("-{flag}={port}"));
        }
        // Every bucket has volumes of its own; one each is enough here.
        command.env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1").env("HOME", dir);
        command
    };
    start(command, |endpoint| block_on(is_ready(endpoint)))
}

/// Objects can be put: the parts of the server have found each other.
async fn is_ready(endpoint: &str) -> Result<(), String> {
    let client = client(endpoint).await;
    let made = client.create_bucket().bucket("ready").send().await;
    if let Err(e) = made
        && !e.as_service_error().is_some_and(|e| e.is_bucket_already_owned_by_you() || e.is_bucket_already_exists())
    {
        return Err(format!("{e:?}"));
    }
    let body = bytes::Bytes::from_static(b"ready").into();
    client.put_object().bucket("ready").key("ready").body(body).send().await.map(drop).map_err(|e| format!("{e:?}"))
}
