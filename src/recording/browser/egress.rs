//! The way out: a SOCKS5 proxy on loopback through which Chromium makes every TCP connection.
//!
//! It resolves names itself, refuses what [`address`](super::address) does not permit, and connects to the very
//! address it checked, so a name that changes between check and use (DNS rebinding) gains nothing. Redirects, frames,
//! fetches and WebSockets all pass here. What does not: WebRTC's UDP, which Chromium sends by itself. It is left
//! alone, because classes get their media that way and a page inside may call itself; all a page can send by it
//! are STUN and DTLS packets. Under a SOCKS proxy Chromium does not use QUIC, so nothing else is UDP.
//!
//! The port is random and asks for no password (Chromium has no SOCKS authentication): other users of the same
//! machine could borrow it, which gives them nothing that they do not have.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use url::{Host, Url};

use super::address::is_permitted;
use super::socks::{self, Reply, Target};

/// Connections at once; Chromium itself opens 32 per proxy and kind. More wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 256;
/// For the handshake, which Chromium sends at once.
const HANDSHAKE_BOUND: Duration = Duration::from_secs(10);
/// For a name: twice the resolver's usual own time-out of 5 s.
const RESOLVE_BOUND: Duration = Duration::from_secs(10);
/// For one address: a lost SYN is repeated after 1, 3 and 7 s.
const CONNECT_BOUND: Duration = Duration::from_secs(10);
/// Before the next address of a name is tried beside the one under way: Chromium's own value.
const STAGGER: Duration = Duration::from_millis(300);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 6;
/// Failures kept for error messages: those of one page load.
const MAX_FAILURES: usize = 64;
/// Copy buffer per direction: a video segment in few system calls, 32 MiB in all at the connection limit.
const COPY_BYTES: usize = 64 * 1024;
/// As Chromium does on its own sockets: keeps idle WebSockets alive in NAT tables.
const KEEPALIVE: Duration = Duration::from_secs(45);

/// Why a connection was not made. The text completes "cannot reach HOST: …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not public and not allowed.
    #[error("{0} is not a public address; name it with --allow-address {0} if this page may be recorded")]
    NotPermitted(IpAddr),
    /// A port that nobody may reach, whatever is allowed.
    #[error("port {0} is the recorder's own")]
    OwnPort(u16),
    /// No such name.
    #[error("its name does not resolve")]
    NoSuchName,
    /// The resolver did not answer.
    #[error("its name was not resolved within {} s", RESOLVE_BOUND.as_secs())]
    NoResolver,
    /// Nobody listens.
    #[error("connection refused")]
    ConnectionRefused,
    /// No answer to the connection.
    #[error("no answer within {} s", CONNECT_BOUND.as_secs())]
    TimedOut,
    /// No way there.
    #[error("network or host unreachable")]
    Unreachable,
}

/// The proxy. Dropping it ends every connection.
#[derive(Debug)]
pub struct Egress {
    address: SocketAddr,
    rules: Arc<Rules>,
    accept: JoinHandle<()>,
}

/// How names become addresses.
pub(super) type Resolver = fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

pub(super) fn system(name: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { lookup_host((name, port)).await.map(Iterator::collect::<Vec<_>>) })
}

#[derive(Debug)]
struct Rules {
    allow: Vec<IpNet>,
    resolver: Resolver,
    own_ports: Mutex<Vec<u16>>,
    failures: Mutex<VecDeque<(String, Refusal)>>,
}

impl Egress {
    /// Starts it on a free loopback port. `allow` names what may be reached although it is not public.
    pub async fn start(allow: Vec<IpNet>) -> io::Result<Arc<Self>> {
        Self::resolving(allow, system).await
    }

    /// With names from elsewhere.
    pub(super) async fn resolving(allow: Vec<IpNet>, resolver: Resolver) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let rules = Arc::new(Rules { allow, resolver, own_ports: Mutex::default(), failures: Mutex::default() });
        rules.own_ports().push(address.port());
        let accept = tokio::spawn(accept(listener, Arc::clone(&rules)));
        Ok(Arc::new(Self { address, rules, accept }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes a loopback port to pages even where loopback is allowed: DevTools would give them the whole browser.
    pub fn forbid_port(&self, port: u16) {
        self.rules.own_ports().push(port);
    }

    /// Whether `url` may be opened at all, found out before a browser is started for it.
    pub async fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        let Some(target) = target_of(url) else { return Err(Refusal::NoSuchName) };
        self.rules.addresses(&target).await.map(|_| ())
    }

    /// Hosts of the latest connections that were not made.
    #[cfg(test)]
    pub(super) fn refused(&self) -> Vec<String> {
        let failures = self.rules.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|(host, _)| host.clone()).collect()
    }

    /// Why the latest connection to `host` was not made.
    pub fn failure(&self, host: &str) -> Option<Refusal> {
        let host = host.trim_matches(['[', ']']);
        let failures = self.rules.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(host)).map(|(_, refusal)| *refusal)
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

fn target_of(url: &Url) -> Option<Target> {
    let port = url.port_or_known_default()?;
    Some(match url.host()? {
        Host::Domain(name) => Target::Name(name.to_owned(), port),
        Host::Ipv4(v4) => Target::Address(SocketAddr::new(v4.into(), port)),
        Host::Ipv6(v6) => Target::Address(SocketAddr::new(v6.into(), port)),
    })
}

async fn accept(listener: TcpListener, rules: Arc<Rules>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new(); // dropped, and so ended, with this task
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let rules = Arc::clone(&rules);
                connections.spawn(async move {
                    serve(client, &rules).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or a client that left: neither ends the service.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(mut client: TcpStream, rules: &Rules) {
    let Ok(Some(target)) = timeout(HANDSHAKE_BOUND, socks::greet(&mut client)).await else { return };
    match rules.connect(&target).await {
        Ok(mut server) => {
            let _ = client.set_nodelay(true);
            if client.write_all(&socks::reply(Reply::Succeeded)).await.is_ok() {
                let _ = copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES).await;
            }
        }
        Err(refusal) => {
            tracing::debug!(host = target.host(), %refusal, "connection refused to the page");
            rules.remember(target.host(), refusal);
            let reply = match refusal {
                Refusal::NotPermitted(_) | Refusal::OwnPort(_) => Reply::NotAllowed,
                Refusal::ConnectionRefused => Reply::Refused,
                Refusal::NoSuchName | Refusal::NoResolver | Refusal::TimedOut | Refusal::Unreachable => {
                    Reply::HostUnreachable
                }
            };
            let _ = client.write_all(&socks::reply(reply)).await;
            // Until Chromium has read the answer; a reset would take it away.
            let _ = client.shutdown().await;
            let _ = timeout(HANDSHAKE_BOUND, client.read(&mut [0])).await;
        }
    }
}

impl Rules {
    fn own_ports(&self) -> std::sync::MutexGuard<'_, Vec<u16>> {
        self.own_ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, host: String, refusal: Refusal) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() == MAX_FAILURES {
            failures.pop_front();
        }
        failures.push_back((host, refusal));
    }

    /// The permitted addresses of a target, at least one.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Refusal> {
        let found: Vec<SocketAddr> = match target {
            Target::Address(address) => vec![*address],
            Target::Name(name, port) => match timeout(RESOLVE_BOUND, (self.resolver)(name.clone(), *port)).await {
                Ok(Ok(found)) => found,
                Ok(Err(_)) => return Err(Refusal::NoSuchName),
                Err(_) => return Err(Refusal::NoResolver),
            },
        };
        let first = found.first().ok_or(Refusal::NoSuchName)?.ip();
        let mut permitted: Vec<SocketAddr> =
            found.into_iter().filter(|address| is_permitted(address.ip(), &self.allow)).collect();
        permitted.truncate(MAX_ADDRESSES);
        if permitted.is_empty() {
            return Err(Refusal::NotPermitted(first.to_canonical()));
        }
        let own = |address: &SocketAddr| {
            address.ip().to_canonical().is_loopback() && self.own_ports().contains(&address.port())
        };
        if permitted.iter().any(own) {
            return Err(Refusal::OwnPort(permitted[0].port()));
        }
        Ok(permitted)
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, Refusal> {
        let stream = race(self.addresses(target).await?).await?;
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE);
        let _ = sockopt::set_tcp_keepintvl(&stream, KEEPALIVE);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        Ok(stream)
    }
}

/// The first connection that comes about: addresses start one after the other, the next when one fails or takes long
/// (a host with an IPv6 address on a network that loses IPv6 would otherwise cost seconds for each connection).
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, Refusal> {
    let mut waiting = addresses.into_iter().peekable();
    let mut running = JoinSet::new(); // dropped, and so ended, with the race
    let mut answer = Refusal::Unreachable;
    loop {
        if let Some(address) = waiting.next() {
            running.spawn(connect(address));
        }
        tokio::select! {
            Some(result) = running.join_next() => match result {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(Refusal::Unreachable)) | Err(_) => {} // the other reasons say more
                Ok(Err(refusal)) => answer = refusal,
            },
            () = sleep(STAGGER), if waiting.peek().is_some() => {}
            else => return Err(answer),
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Refusal> {
    match timeout(CONNECT_BOUND, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Err(Refusal::ConnectionRefused),
        Ok(Err(e)) if e.kind() == io::ErrorKind::TimedOut => Err(Refusal::TimedOut),
        Ok(Err(_)) => Err(Refusal::Unreachable),
        Err(_) => Err(Refusal::TimedOut),
    }
}

#[cfg(test)]
mod tests;
