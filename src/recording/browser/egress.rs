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
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        address
    }

    /// Speaks to the proxy as Chromium does: names and literal addresses alike travel as names.
    async fn ask(egress: &Egress, host: &str, port: u16) -> (u8, TcpStream) {
        let mut stream = TcpStream::connect(egress.address()).await.unwrap();
        stream.write_all(&[5, 1, 0]).await.unwrap();
        let mut hello = [0; 2];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, [5, 0]);
        let mut request = vec![5, 1, 0, 3, host.len() as u8];
        request.extend(host.bytes());
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await.unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).await.unwrap();
        (answer[1], stream)
    }

    #[tokio::test]
    async fn what_is_allowed_passes_both_ways() {
        let server = echo().await;
        let egress = Egress::start(vec!["127.0.0.1/32".parse().unwrap()]).await.unwrap();
        let (code, mut stream) = ask(&egress, "127.0.0.1", server.port()).await;
        assert_eq!(code, 0);
        stream.write_all(b"there and back").await.unwrap();
        let mut back = [0; 14];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"there and back");
    }

    #[tokio::test]
    async fn what_is_not_public_is_refused_by_name_and_by_number() {
        let server = echo().await;
        let egress = Egress::start(Vec::new()).await.unwrap();
        for host in ["127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", "169.254.169.254", "127.1", "0"] {
            assert_eq!(ask(&egress, host, server.port()).await.0, 2, "{host}");
        }
        let refusal = egress.failure("LOCALHOST").unwrap();
        assert!(matches!(refusal, Refusal::NotPermitted(ip) if ip.is_loopback()), "{refusal:?}");
        assert!(refusal.to_string().contains("--allow-address"), "{refusal}");
    }

    /// DNS rebinding: what was checked is what is connected to, and the next connection is checked anew.
    #[tokio::test]
    async fn a_name_that_changes_is_judged_at_every_connection() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let changing: Resolver = |_, port| {
            let at = |last: u8| SocketAddr::from(([127, 0, 0, last], port));
            let found = match ASKED.fetch_add(1, Ordering::SeqCst) {
                0 => vec![at(1)],
                1 => vec![at(2)],        // the name's owner has changed it
                _ => vec![at(2), at(1)], // or has it both ways
            };
            Box::pin(async move { Ok(found) })
        };
        let server = echo().await;
        let inner = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), server.port())).await.unwrap();
        let egress = Egress::resolving(vec!["127.0.0.1/32".parse().unwrap()], changing).await.unwrap();
        for (question, code) in [(1, 0), (2, 2), (3, 0)] {
            assert_eq!(ask(&egress, "rebound.example", server.port()).await.0, code, "question {question}");
            assert_eq!(ASKED.load(Ordering::SeqCst), question, "one question for check and connection");
        }
        let visit = timeout(Duration::from_millis(100), inner.accept()).await;
        assert!(visit.is_err(), "somebody got to the address that is not allowed");
    }

    #[tokio::test]
    async fn the_recorders_own_ports_stay_closed_where_loopback_is_allowed() {
        let server = echo().await;
        let egress = Egress::start(vec!["127.0.0.0/8".parse().unwrap()]).await.unwrap();
        assert_eq!(ask(&egress, "127.0.0.1", egress.address().port()).await.0, 2);
        assert_eq!(ask(&egress, "127.0.0.1", server.port()).await.0, 0);
        egress.forbid_port(server.port());
        assert_eq!(ask(&egress, "127.0.0.1", server.port()).await.0, 2);
        assert_eq!(egress.failure("127.0.0.1"), Some(Refusal::OwnPort(server.port())));
    }

    #[tokio::test]
    async fn a_closed_port_is_told_apart_from_a_missing_name() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let egress = Egress::start(vec!["127.0.0.0/8".parse().unwrap()]).await.unwrap();
        assert_eq!(ask(&egress, "127.0.0.1", closed).await.0, 5);
        assert_eq!(egress.failure("127.0.0.1"), Some(Refusal::ConnectionRefused));
        assert_eq!(ask(&egress, "no such name", 80).await.0, 4);
    }

    #[tokio::test]
    async fn the_first_address_that_answers_wins() {
        let server = echo().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // A full backlog does not answer, as a network that loses packets.
        let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let silent = full.local_addr().unwrap();
        let _filling = std::net::TcpStream::connect(silent).unwrap();
        let stream = race(vec![closed, silent, server]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), server);
        assert_eq!(race(vec![closed, closed]).await.unwrap_err(), Refusal::ConnectionRefused);
        assert_eq!(race(Vec::new()).await.unwrap_err(), Refusal::Unreachable);
    }

    #[tokio::test]
    async fn an_address_is_checked_before_any_browser_starts() {
        let egress = Egress::start(vec!["10.0.0.0/8".parse().unwrap()]).await.unwrap();
        let check = async |url: &str| egress.check_url(&url.parse().unwrap()).await;
        assert_eq!(check("http://[::1]:8080/").await, Err(Refusal::NotPermitted("::1".parse().unwrap())));
        assert!(matches!(check("http://0x7f.1/").await, Err(Refusal::NotPermitted(_))));
        assert!(matches!(check("https://localhost/a").await, Err(Refusal::NotPermitted(_))));
        assert_eq!(check("http://10.1.2.3/").await, Ok(()));
        assert_eq!(check("https://1.1.1.1/").await, Ok(()));
    }

    #[tokio::test]
    async fn dropping_it_ends_its_connections() {
        let server = echo().await;
        let egress = Egress::start(vec!["127.0.0.1/32".parse().unwrap()]).await.unwrap();
        let (_, mut stream) = ask(&egress, "127.0.0.1", server.port()).await;
        drop(egress);
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}
