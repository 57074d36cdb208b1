//! Values as people write them on a command line.

use std::time::Duration;

/// `10s`, `1m30s`, `2h`, `500ms`; a plain number counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration; write it like 10s, 1m30s or 2h");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u32 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let (unit, after) = match rest {
            r if r.starts_with("ms") => (Duration::from_millis(1), &r[2..]),
            r if r.starts_with('s') => (Duration::from_secs(1), &r[1..]),
            r if r.starts_with('m') => (Duration::from_secs(60), &r[1..]),
            r if r.starts_with('h') => (Duration::from_secs(3600), &r[1..]),
            _ => return Err(bad()),
        };
        total = unit.checked_mul(number).and_then(|d| total.checked_add(d)).ok_or_else(bad)?;
        rest = after;
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

/// `2500k`, `2.5M` or a plain number of kbit/s. Returns kbit/s.
pub fn kilobits(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a bit rate; write it like 2500k or 2.5M");
    let (number, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1.0),
        Some((at, 'm' | 'M')) => (&text[..at], 1000.0),
        _ => (text, 1.0),
    };
    let value: f64 = number.parse().map_err(|_| bad())?;
    let kilobits = (value * factor).round();
    if (1.0..=1e6).contains(&kilobits) { Ok(kilobits as u32) } else { Err(bad()) }
}

/// `127.0.0.0/8`, `::1`.
pub fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("`{text}` is not a network; write it like 127.0.0.0/8 or ::1/128"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("90", 90_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("500ms", 500),
            ("1h1ms", 3_600_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "10x", "-1s", "1.5s", "10s5", "99999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bit_rates() {
        for (text, kbit) in [("2500k", 2500), ("2.5M", 2500), ("800", 800)] {
            assert_eq!(kilobits(text), Ok(kbit), "{text}");
        }
        for bad in ["", "k", "-5k", "0", "fast", "1e99M", "nank"] {
            assert!(kilobits(bad).is_err(), "{bad}");
        }
    }
}
