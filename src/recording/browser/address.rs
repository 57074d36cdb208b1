//! Which addresses a hostile page may reach. Pure: no name is resolved here and nothing is connected to.
//!
//! IPv4 is a list of exceptions, IPv6 the other way round: of its space only 2000::/3 is given out to the public.
//! An address that carries an IPv4 address inside (mapped, NAT64, 6to4) is judged by what it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Azure's host service answers every virtual machine on this address, which lies in public space.
const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Whether `address` is permitted: public, or inside a network that `allow` names.
pub fn is_permitted(address: IpAddr, allow: &[IpNet]) -> bool {
    let plain = address.to_canonical();
    is_public(plain) || allow.iter().any(|net| net.contains(&plain) || net.contains(&address))
}

/// Whether `address` is a unicast address of the public Internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127 | 224..=255, _, _) => true, // this network, private, loopback, multicast and reserved
        (100, 64..=127, _) => true,               // carrier-grade NAT, and some clouds' metadata
        (169, 254, _) => true,                    // link-local, and most clouds' metadata
        (172, 16..=31, _) | (192, 168, _) => true, // private
        (192, 0, 0) => true,                      // protocol assignments
        (192, 88, 99) => true,                    // 6to4 relays
        (198, 18..=19, _) => true,                // benchmarks
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => true, // documentation
        _ => v4 == AZURE_HOST,
    };
    !special
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    if let Some(v4) = carried_v4(v6) {
        return is_public_v4(v4);
    }
    match v6.segments() {
        [0x2001, 0..=0x01ff, ..] => false, // protocol assignments, among them Teredo, ORCHID and benchmarks
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false, // documentation
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// The IPv4 address inside a mapped, NAT64 (well-known prefix) or 6to4 address.
fn carried_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(from(high, low)),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_unicast_is_public() {
        let table = [
            // IPv4, at both ends of every exception
            ("0.0.0.0", false),
            ("0.255.255.255", false),
            ("1.0.0.0", true),
            ("9.255.255.255", true),
            ("10.0.0.1", false),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("100.100.100.200", false), // a cloud's metadata
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("128.0.0.1", true),
            ("168.63.129.16", false),
            ("168.63.129.17", true),
            ("169.253.255.255", true),
            ("169.254.169.254", false), // metadata
            ("169.254.100.1", false),   // the function's own runtime
            ("172.15.255.255", true),
            ("172.16.0.0", false),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.0.0.192", false),
            ("192.0.1.0", true),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.167.255.255", true),
            ("192.168.0.1", false),
            ("192.169.0.0", true),
            ("198.17.255.255", true),
            ("198.18.0.1", false),
            ("198.19.255.255", false),
            ("198.20.0.0", true),
            ("198.51.100.7", false),
            ("203.0.113.7", false),
            ("223.255.255.255", true),
            ("224.0.0.251", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("8.8.8.8", true),
            // IPv6
            ("::", false),
            ("::1", false),
            ("::8.8.8.8", false), // IPv4-compatible, long gone
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::8.8.8.8", true), // what an IPv6-only network sees of the IPv4 Internet
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b:1::8.8.8.8", false), // local NAT64
            ("100::1", false),
            ("2001::1", false), // Teredo
            ("2001:2::1", false),
            ("2001:20::1", false),
            ("2001:1ff:ffff::1", false),
            ("2001:200::1", true),
            ("2001:db8::1", false),
            ("2001:4860:4860::8888", true),
            ("2002:7f00:1::", false), // 6to4 of loopback
            ("2002:a9fe:a9fe::1", false),
            ("2002:808:808::1", true),
            ("2606:4700::1111", true),
            ("3ffe::1", true),
            ("3fff::1", false),
            ("3fff:1000::1", true),
            ("4000::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false), // metadata
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::fb", false),
        ];
        for (text, public) in table {
            assert_eq!(is_public(ip(text)), public, "{text}");
        }
    }

    #[test]
    fn a_named_network_is_permitted_in_every_spelling_and_nothing_beside_it() {
        let allow: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()];
        for (text, permitted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("fd00::1", true),
            ("::1", false),
            ("10.0.0.1", false),
            ("fd01::1", false),
            ("1.1.1.1", true),
        ] {
            assert_eq!(is_permitted(ip(text), &allow), permitted, "{text}");
        }
        assert!(!is_permitted(ip("127.0.0.1"), &[]));
    }
}
