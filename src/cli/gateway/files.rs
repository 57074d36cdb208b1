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

/// The recording that a path below `/recordings/` names.
pub(super) async fn recording(root: &Path, path: &str, request: Request<Incoming>) -> Response<Body> {
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
    let (head, _) = request.into_parts();
    match ServeFile::new(file).try_call(Request::from_parts(head, Empty::<Bytes>::new())).await {
        Ok(response) => {
            let mut response = response.map(BodyExt::boxed_unsync);
            response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "recording cannot be read");
            answer::failure(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
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
