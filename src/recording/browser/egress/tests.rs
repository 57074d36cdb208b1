//! Against real sockets on loopback.

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
