//! A server as a process of its own that cannot outlive the tests.
//!
//! Servers are shared by all tests, so no test can end them; and a test binary that is killed ends nothing. So a shell
//! stands between: it ends the server, by its id, when its own input ends, which is when this process is gone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A machine may be busy compiling; alone, the slowest server needs 6 s.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Somebody else may take a port that was free a moment ago.
const STARTS: usize = 3;

/// Keeps a server, then ends it with all that it has started, and removes its directory. Functions that a server runs are
/// in its process group.
const KEEPER: &str = r#"
dir=$1; shift
set -m
"$@" </dev/null & server=$!
while kill -0 "$server" 2>/dev/null; do
    read -r -t 1 _
    (($? > 128)) || break
done
kill -TERM "$server" 2>/dev/null
for _ in {1..30}; do kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
kill -KILL -- "-$server" 2>/dev/null
wait "$server" 2>/dev/null
rm -rf -- "$dir"
"#;

/// A server that was started and is ready.
pub struct Server {
    pub endpoint: String,
    /// Its own directory.
    pub dir: PathBuf,
    keeper: Child,
}

impl Server {
    /// The process whose descendants are the server and all that it starts.
    pub fn keeper(&self) -> u32 {
        self.keeper.id()
    }

    /// The server itself.
    pub fn process(&self) -> u32 {
        let keeper = self.keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        children.split_whitespace().next().expect("it runs").parse().unwrap()
    }

    /// Ends it now.
    pub fn end(mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// What is fetched by `make test`.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name);
    assert!(path.exists(), "{} is missing; fetch it with: scripts/setup.sh test", path.display());
    path
}

/// Ports that nobody listened on a moment ago, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

/// Starts a server: `command` is given its directory and its ports, of which the first is the endpoint's, and `ready`
/// the endpoint.
pub fn start<const N: usize>(
    command: impl Fn(&Path, [u16; N]) -> Command,
    ready: impl Fn(&str) -> Result<(), String>,
) -> Server {
    let mut failures = Vec::new();
    for _ in 0..STARTS {
        match try_start(&command, &ready) {
            Ok(server) => return server,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("a server did not get ready:\n{}", failures.join("\n---\n"));
}

fn try_start<const N: usize>(
    command: &impl Fn(&Path, [u16; N]) -> Command,
    ready: &impl Fn(&str) -> Result<(), String>,
) -> Result<Server, String> {
    let dir = tempfile::Builder::new().prefix("panorec-server-").tempdir().unwrap().keep();
    let ports = free_ports::<N>();
    let wanted = command(&dir, ports);
    let mut log = tempfile::tempfile().unwrap();
    let mut keeper = Command::new("bash");
    keeper.args(["-c", KEEPER, "keeper"]).arg(&dir).arg(wanted.get_program()).args(wanted.get_args());
    keeper.envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    keeper.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
    let mut keeper = keeper.spawn().expect("bash is needed to keep servers");
    let endpoint = format!("http://127.0.0.1:{}", ports[0]);
    let began = Instant::now();
    let failure = loop {
        let failure = match ready(&endpoint) {
            Ok(()) => return Ok(Server { endpoint, dir, keeper }),
            Err(failure) => failure,
        };
        if let Some(status) = keeper.try_wait().unwrap() {
            break format!("it ended ({status}); {failure}");
        }
        if began.elapsed() > START_LIMIT {
            break format!("not ready after {START_LIMIT:?}; {failure}");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    drop(keeper.stdin.take());
    keeper.wait().unwrap();
    Err(format!("{failure}\n{}", tail(&mut log)))
}

fn tail(log: &mut File) -> String {
    let len = log.seek(SeekFrom::End(0)).unwrap();
    log.seek(SeekFrom::Start(len.saturating_sub(3000))).unwrap();
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a future to its end on a thread of its own: servers are started in tests that have a runtime already.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    std::thread::scope(|s| s.spawn(run).join().unwrap())
}
