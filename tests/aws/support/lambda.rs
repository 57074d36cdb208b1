//! MiniStack: takes functions and runs them, asynchronously too.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{Environment, FunctionCode, Runtime};

use super::process::{Server, start, tool};
use super::{SECRET, config};

static SERVER: OnceLock<Server> = OnceLock::new();

/// What a function does in the tests of the adapter: appends every event to a file, a line each. It ends with its server.
const BOOTSTRAP: &str = r#"
import os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(api + "next") as answer:
        event, request = answer.read(), answer.headers["Lambda-Runtime-Aws-Request-Id"]
    with open(os.environ["EVENTS"], "ab") as events:
        events.write(event + b"\n")
    urllib.request.urlopen(api + request + "/response", data=b"{}").close()
"#;

/// Where functions are.
pub struct Lambda {
    pub endpoint: String,
    pub client: Client,
    /// The process whose descendants are all functions.
    pub keeper: u32,
    /// Where all of it lies.
    pub dir: PathBuf,
}

impl Lambda {
    pub async fn new() -> Self {
        let server = SERVER.get_or_init(run);
        let client = Client::new(&config(&server.endpoint, SECRET).await);
        Self { endpoint: server.endpoint.clone(), client, keeper: server.keeper(), dir: server.dir.clone() }
    }

    /// A function that writes its events to the file that is returned.
    pub async fn create(&self, name: &str) -> PathBuf {
        let events = self.dir.join(format!("{name}.events"));
        let python = Command::new("python3").args(["-c", PYTHON]).output().unwrap().stdout;
        let script = format!("#!{}\n{BOOTSTRAP}", String::from_utf8(python).unwrap().trim());
        self.deploy(name, script.as_bytes(), &[("EVENTS", events.to_str().unwrap())], 3).await;
        events
    }

    /// A function of a program, killed after so many seconds.
    pub async fn deploy(&self, name: &str, bootstrap: &[u8], env: &[(&str, &str)], seconds: i32) {
        let variables = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let environment = Environment::builder().set_variables(Some(variables)).build();
        let made = self
            .client
            .create_function()
            .function_name(name)
            .runtime(Runtime::Providedal2023)
            .handler("bootstrap")
            .role("arn:aws:iam::000000000000:role/tests")
            .environment(environment)
            .timeout(seconds)
            .memory_size(2048)
            .code(FunctionCode::builder().zip_file(Blob::new(self.package(name, bootstrap))).build());
        made.send().await.unwrap();
    }

    fn package(&self, name: &str, program: &[u8]) -> Vec<u8> {
        let dir = self.dir.join(format!("{name}.package"));
        std::fs::create_dir(&dir).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut bootstrap = options.create_new(true).write(true).mode(0o755).open(dir.join("bootstrap")).unwrap();
        bootstrap.write_all(program).unwrap();
        drop(bootstrap);
        let mut zip = Command::new("python3");
        zip.args(["-m", "zipfile", "-c", "package.zip", "bootstrap"]).current_dir(&dir);
        assert!(zip.status().unwrap().success());
        std::fs::read(dir.join("package.zip")).unwrap()
    }
}

/// The interpreter itself: what is on the path may be a script that chooses one by the directory it is in.
const PYTHON: &str = "import sys; print(sys.executable)";

fn run() -> Server {
    let ministack = tool("ministack/run");
    let command = |dir: &Path, [port]: [u16; 1]| {
        let mut command = Command::new(&ministack);
        let endpoint = format!("http://127.0.0.1:{port}");
        // It listens everywhere, and on more than one port, unless told otherwise.
        command.env("BIND_HOST", "127.0.0.1").env("MINISTACK_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
        command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0").env("LAMBDA_EXECUTOR", "local");
        command.env("AWS_ENDPOINT_URL", endpoint);
        // The translator of SAM's templates, for stacks.
        command.env("PYTHONPATH", tool("sam"));
        command.env("TMPDIR", dir).env("HOME", dir).env("S3_DATA_DIR", dir.join("s3"));
        command
    };
    start(command, |endpoint| {
        let address = endpoint.strip_prefix("http://").unwrap();
        std::net::TcpStream::connect(address).map(drop).map_err(|e| e.to_string())
    })
}
