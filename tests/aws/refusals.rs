//! What error a caller gets for each answer of a service.

use bytes::Bytes;
use panorec::platform::StoreErrorKind::{self, NotFound, Refused, Throttled, Unavailable};
use panorec::platform::aws::{LambdaContinuation, S3ChunkStore};
use panorec::platform::{ChunkStore, Continuation, RecorderEvent};

use crate::support::aws;
use crate::support::canned::Canned;

/// Tries of a call that may be repeated.
const TRIES: usize = 3;

#[tokio::test]
async fn answers_of_lambda() {
    let table: [(u16, &str, StoreErrorKind, usize); 8] = [
        (429, "TooManyRequestsException", Throttled, TRIES),
        (500, "ServiceException", Unavailable, TRIES),
        (503, "ServiceUnavailable", Unavailable, TRIES),
        (404, "ResourceNotFoundException", NotFound, 1),
        (403, "AccessDeniedException", Refused, 1),
        (413, "RequestTooLargeException", Refused, 1),
        (400, "RecursiveInvocationException", Refused, 1),
        (409, "ResourceConflictException", Unavailable, 1),
    ];
    for (status, code, kind, tries) in table {
        let server = Canned::answering(status, code, r#"{"Message": "because"}"#).await;
        let continuation = LambdaContinuation::new(&aws(&server.endpoint).await, "f");
        let failed = continuation.invoke(&RecorderEvent { task: "t".into(), generation: None }).await.unwrap_err();
        let words = failed.source.to_string();
        assert_eq!((failed.kind, server.asked()), (kind, tries), "{status} {code}: {words}");
        assert!(words.contains(code) && words.contains("request-1"), "{words}");
    }
}

#[tokio::test]
async fn answers_of_s3() {
    let table: [(u16, &str, StoreErrorKind, usize); 8] = [
        (503, "SlowDown", Throttled, TRIES),
        (503, "ServiceUnavailable", Throttled, TRIES),
        (429, "TooManyRequests", Throttled, 1),
        (500, "InternalError", Unavailable, TRIES),
        (403, "AccessDenied", Refused, 1),
        (404, "NoSuchBucket", Refused, 1),
        (400, "InvalidArgument", Refused, 1),
        (301, "PermanentRedirect", Refused, 1),
    ];
    for (status, code, kind, tries) in table {
        let body = format!("<Error><Code>{code}</Code><Message>because</Message></Error>");
        let server = Canned::answering(status, code, &body).await;
        let store = S3ChunkStore::new(&aws(&server.endpoint).await, "bucket", "").unwrap();
        let failed = store.put("a", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!((failed.kind, server.asked()), (kind, tries), "{status} {code}: {}", failed.source);
        assert!(failed.source.to_string().contains(code), "{}", failed.source);
    }
}

#[tokio::test]
async fn nobody_there_is_a_passing_fault() {
    let nobody = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let continuation = LambdaContinuation::new(&aws(&nobody).await, "f");
    let failed = continuation.invoke(&RecorderEvent { task: "t".into(), generation: None }).await.unwrap_err();
    assert_eq!(failed.kind, Unavailable, "{}", failed.source);
    assert!(failed.source.to_string().contains("refused"), "{}", failed.source);
}
