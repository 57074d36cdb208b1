//! Finished recordings, as an object store would serve them: whole or by range, by their key and nothing else.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tower_http::services::ServeFile;

use super::{Body, answer};
use crate::platform::key;

/// The recording that a path below `/recordings/` names, for pages of `origin` too.
pub(super) async fn recording(
    root: &Path,
    path: &str,
    request: Request<Incoming>,
    origin: Option<&HeaderValue>,
) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer::failure(StatusCode::METHOD_NOT_ALLOWED);
    }
    // A key is what recordings are stored under: no steps up, no hidden names, no directories.
    let Some(key) = decoded(path).filter(|key| key::check(key).is_ok()) else {
        return answer::failure(StatusCode::NOT_FOUND);
    };
    let (root, wanted) = (root.to_path_buf(), root.join(key));
    let found = tokio::task::spawn_blocking(move || file(&root, &wanted)).await;
    let Ok(Some(file)) = found else { return answer::failure(StatusCode::NOT_FOUND) };
    let (mut head, _) = request.into_parts();
    let (kind, cache, changing) = (media_type(&file), cache_control(&file), changes(&file));
    if changing {
        head.headers.remove(header::IF_MODIFIED_SINCE);
    }
    match ServeFile::new(file).try_call(Request::from_parts(head, Empty::<Bytes>::new())).await {
        Ok(response) => {
            let mut response = response.map(BodyExt::boxed_unsync);
            let headers = response.headers_mut();
            if changing {
                headers.remove(header::LAST_MODIFIED);
            }
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
            if let Some(kind) = kind {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            if let Some(origin) = origin {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            }
            response
        }
        Err(error) => {
            tracing::error!(%error, "recording cannot be read");
            answer::failure(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// What a bucket would say of what lies in it: as it was stored there. `None`: what the name's ending says.
fn media_type(file: &Path) -> Option<&'static str> {
    match file.extension()?.to_str()? {
        "m3u8" => Some("application/vnd.apple.mpegurl"),
        "m4s" | "mp4" => Some("video/mp4"),
        _ => None,
    }
}

/// Segments never change; everything else may.
fn cache_control(file: &Path) -> &'static str {
    if file.extension().is_some_and(|e| e == "m4s") { "public, max-age=31536000, immutable" } else { "no-cache" }
}

/// Whether it is written again and again while a recording grows. The time of a change tells whole seconds (RFC 9110, 8.8.2.2): a
/// playlist that got its last segment and its end in one second would be "not modified" for ever to who asked between the two.
fn changes(file: &Path) -> bool {
    !file.extension().is_some_and(|e| e == "m4s" || e == "mp4")
}

/// A path without its percent signs; `None` if that is no text.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |b: u8| char::from(b).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The real path of a regular file below `root`; a link that leads out of it does not count.
fn file(root: &Path, wanted: &Path) -> Option<PathBuf> {
    let real = wanted.canonicalize().ok()?;
    (real.starts_with(root) && real.metadata().ok()?.is_file()).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_resolved_once() {
        for (path, key) in [
            ("a/b.mp4", Some("a/b.mp4")),
            ("a%20b%2Fc", Some("a b/c")),
            ("%E5%90%8D", Some("名")),
            ("%252e", Some("%2e")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decoded(path).as_deref(), key, "{path}");
        }
    }
}
