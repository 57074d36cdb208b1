//! A network that loses answers, or is not there: between an adapter and its server.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes connections on; lives as long as the test's runtime.
pub struct Proxy {
    pub endpoint: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    down: AtomicBool,
    /// The answer to the next request that begins like this is lost.
    lose: Mutex<Option<String>>,
    lost: AtomicUsize,
    answered: AtomicU64,
}

impl Proxy {
    /// In front of a server.
    pub async fn before(endpoint: &str) -> Self {
        let upstream = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<State>::default();
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if shared.down.load(Ordering::SeqCst) {
                    continue; // closes it
                }
                let server = TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(pass(client, server, shared.clone()));
            }
        });
        Self { endpoint, state }
    }

    /// From now on every connection breaks, or none.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// The next request that begins with `start` reaches the server; its answer does not come back.
    pub fn lose_answer_to(&self, start: &str) {
        *self.state.lose.lock().unwrap() = Some(start.to_owned());
    }

    /// Bytes of all answers so far.
    pub fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::SeqCst)
    }

    /// Answers lost so far.
    pub fn lost(&self) -> usize {
        self.state.lost.load(Ordering::SeqCst)
    }
}

impl State {
    /// Whether this is the request whose answer gets lost; asked once for it.
    fn is_to_lose(&self, sent: &[u8]) -> bool {
        self.lose.lock().unwrap().take_if(|start| sent.starts_with(start.as_bytes())).is_some()
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(n @ 1..) = read else { return };
                if state.down.load(Ordering::SeqCst) { return }
                losing |= state.is_to_lose(&up[..n]);
                if server.write_all(&up[..n]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(n @ 1..) = read else { return };
                if losing && !down.starts_with(b"HTTP/1.1 100") {
                    state.lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                state.answered.fetch_add(n as u64, Ordering::SeqCst);
                if client.write_all(&down[..n]).await.is_err() { return }
            }
        }
    }
}
