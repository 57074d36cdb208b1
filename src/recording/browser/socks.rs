//! The few bytes of SOCKS5 (RFC 1928) that Chromium speaks: no authentication, CONNECT only.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NOT_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;

/// Where a client wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A name to be resolved here.
    Name(String, u16),
    /// A literal address.
    Address(SocketAddr),
}

impl Target {
    /// Name or address without the port.
    pub fn host(&self) -> String {
        match self {
            Self::Name(name, _) => name.clone(),
            Self::Address(address) => address.ip().to_string(),
        }
    }
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// Go ahead.
    Succeeded = 0,
    /// Not allowed by the rules.
    NotAllowed = 2,
    /// Host unreachable.
    HostUnreachable = 4,
    /// Connection refused.
    Refused = 5,
    /// Not CONNECT.
    BadCommand = 7,
}

/// The bytes of a reply. The bound address is of no use to a client of CONNECT.
pub fn reply(reply: Reply) -> [u8; 10] {
    [VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// The client's part of the handshake; `None` when it does not speak SOCKS5 or wants something else than CONNECT.
pub async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<Target> {
    let [version, count] = read(stream).await?;
    let mut methods = vec![0; usize::from(count)];
    stream.read_exact(&mut methods).await.ok()?;
    if version != VERSION || !methods.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NOT_ACCEPTABLE]).await.ok()?;
        return None;
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await.ok()?;

    let [version, command, _, kind] = read(stream).await?;
    if (version, command) != (VERSION, CONNECT) {
        stream.write_all(&reply(Reply::BadCommand)).await.ok()?;
        return None;
    }
    let host = match kind {
        1 => IpAddr::from(read::<4>(stream).await?).to_string(),
        3 => {
            let [length] = read(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await.ok()?;
            String::from_utf8(name).ok()?
        }
        4 => Ipv6Addr::from(read::<16>(stream).await?).to_string(),
        _ => return None,
    };
    Some(target(&host, u16::from_be_bytes(read(stream).await?)))
}

/// Chromium sends literal addresses as names, IPv6 with or without brackets.
fn target(host: &str, port: u16) -> Target {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse() {
        Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
        Err(_) => Target::Name(host.to_owned(), port),
    }
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn greeted(bytes: &[u8]) -> (Option<Target>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let target = greet(&mut server).await;
        drop(server);
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        (target, said)
    }

    #[tokio::test]
    async fn every_kind_of_address_is_understood() {
        let name = [b"\x05\x01\x00\x05\x01\x00\x03\x07a.b.org".as_slice(), &[0x01, 0xbb]].concat();
        assert_eq!(greeted(&name).await, (Some(Target::Name("a.b.org".into(), 443)), vec![5, 0]));
        let v4 = [5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 80];
        assert_eq!(greeted(&v4).await.0, Some(Target::Address("127.0.0.1:80".parse().unwrap())));
        let v6 = [&[5, 1, 0, 5, 1, 0, 4][..], &Ipv6Addr::LOCALHOST.octets(), &[0, 80]].concat();
        assert_eq!(greeted(&v6).await.0, Some(Target::Address("[::1]:80".parse().unwrap())));
        let bracketed = [b"\x05\x01\x00\x05\x01\x00\x03\x05[::1]".as_slice(), &[0, 80]].concat();
        assert_eq!(greeted(&bracketed).await.0, Some(Target::Address("[::1]:80".parse().unwrap())));
    }

    #[tokio::test]
    async fn everything_else_is_turned_away() {
        assert_eq!(greeted(&[4, 1, 0, 80, 127, 0, 0, 1, 0]).await.0, None, "SOCKS4");
        assert_eq!(greeted(&[5, 1, 2]).await, (None, vec![5, 0xff]), "password only");
        let (target, said) = greeted(&[5, 1, 0, 5, 3, 0, 1, 127, 0, 0, 1, 0, 80]).await;
        assert_eq!((target, said[3]), (None, 7), "UDP associate");
        assert_eq!(greeted(b"GET / HTTP/1.1\r\n\r\n").await.0, None);
        assert_eq!(greeted(&[5, 1, 0, 5, 1]).await.0, None, "cut short");
    }
}
