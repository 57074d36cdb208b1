//! Where callbacks may go: the rule of pages, and no further than the address that was named.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use panorec::delivery::callback::{Callback, CallbackError};
use panorec::recording::browser::address::is_permitted;
use url::Url;

/// A server that answers everybody the same, and counts them.
fn server(at: &str, answer: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let (port, calls) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&calls);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            seen.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4096];
            if matches!(stream.read(&mut head), Ok(1..)) {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    (port, calls)
}

async fn call(url: &str, allow: &str) -> Result<(), CallbackError> {
    let allow: Vec<ipnet::IpNet> = allow.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let permitted = |address: IpAddr| is_permitted(address, &allow);
    Callback::new(None).post(&Url::parse(url).unwrap(), "message", 1, "{}", &permitted).await.map(drop)
}

#[tokio::test]
async fn a_callback_goes_to_public_and_named_addresses_only() {
    let (port, calls) = server("127.0.0.1", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".into());
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "169.254.169.254", "0.0.0.0"] {
        let refused = call(&format!("http://{host}:{port}/"), "").await;
        assert!(matches!(refused, Err(CallbackError::Address { .. })), "{host}: {refused:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    call(&format!("http://127.0.0.1:{port}/"), "127.0.0.1/32").await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_callback_that_leads_elsewhere_is_not_followed() {
    let (inner, reached) = server("127.0.0.2", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".into());
    let answer = format!(
        "HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.2:{inner}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (port, _) = server("127.0.0.1", answer);
    // Even where both may be reached.
    let answered = call(&format!("http://127.0.0.1:{port}/"), "127.0.0.0/8").await;
    assert!(matches!(answered, Err(CallbackError::Status { status, .. }) if status == 307), "{answered:?}");
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}
