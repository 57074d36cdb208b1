//! What an object key may be, for every store alike.
//!
//! Keys become paths and addresses, so what could mean something else there is refused: steps up, absolute names, hidden
//! names (which the directory store needs for itself), control characters, backslashes.

/// Longest key in bytes: S3's bound.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest part between slashes in bytes: file systems take 255, and the directory store's own temporary names add to it.
pub const MAX_PART_BYTES: usize = 200;

/// Says why a key is not acceptable.
pub fn check(key: &str) -> Result<(), String> {
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("the key has {} bytes; at most {MAX_KEY_BYTES} are allowed", key.len()));
    }
    key.split('/').try_for_each(part)
}

/// Says why a prefix is not acceptable. It may be empty, and end anywhere in a key.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    match prefix.rsplit_once('/') {
        Some((dir, "")) => check(dir),
        Some(_) => check(prefix),
        None if prefix.is_empty() => Ok(()),
        None => part(prefix),
    }
}

fn part(part: &str) -> Result<(), String> {
    let reason = match part {
        "" => "an empty part (a slash at an end, or two in a row)",
        p if p.starts_with('.') => "a part that begins with a dot",
        p if p.len() > MAX_PART_BYTES => "a part of more than 200 bytes",
        p if p.contains(|c: char| c.is_control() || c == '\\') => "a control character or a backslash",
        _ => return Ok(()),
    };
    Err(format!("the key has {reason}; use parts of letters, digits, `-` and `_`, joined by single slashes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_relative_names_without_surprises() {
        for good in ["a", "raw/0b5e-1/0/00000001.m4s", "名前/x.mp4", "a b/c"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "x".repeat(201);
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", ".hidden", "a\0", "a\nb", "a\\b", &long] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"a/".repeat(600)).unwrap_err().contains("1024"));
    }

    #[test]
    fn prefixes_may_be_empty_or_end_in_a_slash() {
        for good in ["", "raw/", "raw/task", "raw/task/0/000"] {
            assert_eq!(check_prefix(good), Ok(()), "{good}");
        }
        for bad in ["/", "../", "raw//", ".x", "raw/../x"] {
            assert!(check_prefix(bad).is_err(), "{bad:?}");
        }
    }
}
