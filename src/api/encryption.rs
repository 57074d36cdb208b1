//! `Output.Video`: what is to be made, and with which key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::ApiError;
use super::fields::Fields;
use super::start::address;
use crate::task::output::{Encryption, Key, Muxer};

/// `Muxer`, `EncryptKey`, `EncryptIv` and `AuthUrl`.
pub(super) fn output(video: &Fields) -> Result<(Muxer, Option<Encryption>), ApiError> {
    let muxer = match video.string("Muxer")? {
        None | Some("mp4") => Muxer::Mp4,
        Some("hls") => Muxer::Hls,
        Some("mp4,hls" | "hls,mp4") => Muxer::Both,
        Some(other) => {
            return Err(video.refuse("Muxer", format!("`{}` is not one of mp4, hls, mp4,hls", other.escape_debug())));
        }
    };
    let Some(text) = video.string("EncryptKey")? else {
        for field in ["EncryptIv", "AuthUrl"] {
            if video.string(field)?.is_some() {
                return Err(video.refuse(field, "without EncryptKey nothing is encrypted; give both or neither"));
            }
        }
        return Ok((muxer, None));
    };
    if !muxer.hls() {
        return Err(video.refuse("EncryptKey", "only hls is encrypted; set Muxer to hls, or leave the key out"));
    }
    let key = key(text).ok_or_else(|| {
        // Not a word of the value: it is nearly a key.
        video.refuse("EncryptKey", "not a key of 16 bytes; give 16 characters, 32 hex digits, or base64 of 16 bytes")
    })?;
    let iv = match video.string("EncryptIv")? {
        None => None,
        Some(text) => match hex(text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text)) {
            Some(iv) => Some(iv),
            None => return Err(video.refuse("EncryptIv", "not 32 hex digits; leave it out for the sequence number")),
        },
    };
    let auth_url = video.needed("AuthUrl", "where players get the key, like https://example.com/key")?;
    Ok((muxer, Some(Encryption { key: Key(key), iv, auth_url: address(video, "AuthUrl", auth_url)? })))
}

fn key(text: &str) -> Option<[u8; 16]> {
    let raw = || text.as_bytes().try_into().ok();
    let base64 = || STANDARD.decode(text).ok()?.try_into().ok();
    hex(text).or_else(raw).or_else(base64)
}

/// 16 bytes in hex digits.
fn hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    Some(u128::from_str_radix(text, 16).ok().filter(|_| digits)?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_written_in_three_ways() {
        let bytes = *b"0123456789abcdef";
        for text in ["0123456789abcdef", "30313233343536373839616263646566", "MDEyMzQ1Njc4OWFiY2RlZg=="] {
            assert_eq!(key(text), Some(bytes), "{text}");
        }
        for text in ["", "0123456789abcde", "0123456789abcdef0", "+0313233343536373839616263646566"] {
            assert_eq!(key(text), None, "{text}");
        }
    }
}
