//! HLS while it grows and when it is over, encrypted, played by FFmpeg over HTTP.

use crate::gateway::{Gateway, request};
use crate::judge::tools;
use crate::run::Stage;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

const KEY: &[u8; 16] = b"0123456789abcdef";

/// Gives the key to whoever asks, for as long as the test lasts. Returns its address.
fn key_server() -> String {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || {
        for stream in server.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap_or(0);
            let known = request[..n].starts_with(b"GET /key ");
            let (status, body) = if known { ("200 OK", &KEY[..]) } else { ("404 Not Found", &b""[..]) };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    format!("http://{address}")
}

/// Frames that FFmpeg decodes, and seconds; an error if it complains.
fn decoded(url: &str) -> Result<(u64, f64), String> {
    let args = ["-v", "error", "-xerror", "-i", url, "-f", "null", "-progress", "-", "-fps_mode", "passthrough", "-"];
    let said = tools::run("ffmpeg", &args)?;
    let text = String::from_utf8_lossy(&said.out).into_owned();
    let last = |name: &str| text.lines().rev().find_map(|l| l.strip_prefix(name)?.parse::<f64>().ok());
    match (said.ok && said.err.is_empty(), last("frame="), last("out_time_us=")) {
        (true, Some(frames), Some(us)) => Ok((frames as u64, us / 1e6)),
        _ => Err(said.err),
    }
}

#[test]
fn an_encrypted_playlist_grows_and_plays_with_its_key_only() {
    let stage = Stage::new();
    let cors = ("PANOREC_CORS_ORIGIN".to_string(), "*".to_string());
    let gateway = Gateway::start(&stage, &[], &[cors]);
    let keys = key_server();
    let video = json!({"Muxer": "mp4,hls", "EncryptKey": "0123456789abcdef", "AuthUrl": format!("{keys}/key")});
    let task = gateway.record("room.html", json!({"Output": {"Video": video}}));
    let path = format!("/recordings/{task}/playlist.m3u8");
    let playlist = || String::from_utf8(request(&gateway.address, "GET", &path, &[], b"").body).unwrap();
    gateway.until(&task, "recording");
    thread::sleep(Duration::from_secs(7));
    let growing = playlist();
    assert!(growing.contains("#EXT-X-PLAYLIST-TYPE:EVENT") && !growing.contains("ENDLIST"), "{growing}");
    assert!(growing.contains(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{keys}/key\"")), "{growing}");
    gateway.good("Pause", json!({"TaskID": task}));
    gateway.until(&task, "paused");
    thread::sleep(Duration::from_secs(3));
    gateway.good("Resume", json!({"TaskID": task}));
    gateway.until(&task, "recording");
    thread::sleep(Duration::from_secs(4));
    gateway.good("Stop", json!({"TaskID": task}));
    let (done, _) = gateway.until(&task, "finished");
    assert!(done["Result"].get("ErrorCode").is_none(), "{done}");
    assert!(!done.to_string().contains("0123456789abcdef"), "the key is nobody's business");
    let videos = done["Result"]["Videos"].as_array().unwrap();
    assert_eq!(videos.len(), 2, "{done}");
    let ended = playlist();
    let grown = growing.replace(":EVENT", ":VOD");
    assert!(ended.starts_with(&grown), "nothing that was there has changed:\n{growing}\n{ended}");
    assert!(ended.ends_with("#EXT-X-ENDLIST\n") && !ended.contains("DISCONTINUITY"), "{ended}");
    assert_eq!(ended.matches("PROGRAM-DATE-TIME").count(), 2, "the beginning and the pause:\n{ended}");
    let head = request(&gateway.address, "GET", &path, &["origin: https://example.com"], b"").headers;
    for header in ["content-type: application/vnd.apple.mpegurl", "access-control-allow-origin: *"] {
        assert!(head.iter().any(|h| h == header), "{header} is not in {head:?}");
    }
    let url = |n: usize| videos[n]["FileURL"].as_str().unwrap();
    let (mp4, hls) = (decoded(url(0)).unwrap(), decoded(url(1)).unwrap());
    assert_eq!(mp4.0, hls.0, "pictures of both");
    let length = videos[1]["FileDuration"].as_f64().unwrap();
    // One AAC frame more or less.
    assert!((hls.1 - length).abs() < 0.05 && (mp4.1 - length).abs() < 0.05, "{length} s: {mp4:?}, {hls:?}");
    // The same playlist with another address of the key.
    let closed = ended.replace(&format!("{keys}/key"), &format!("{keys}/none"));
    std::fs::write(gateway.data().join(format!("recordings/{task}/closed.m3u8")), closed).unwrap();
    let refused = decoded(&url(1).replace("playlist.m3u8", "closed.m3u8"));
    assert!(refused.is_err(), "it plays without its key: {refused:?}");
    gateway.end();
}
