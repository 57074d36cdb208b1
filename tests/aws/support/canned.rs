//! A server with one answer for everything, for what real servers cannot be made to say.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

/// Lives as long as the test's runtime.
pub struct Canned {
    pub endpoint: String,
    asked: Arc<AtomicUsize>,
}

impl Canned {
    /// Answers with a status, an error code as JSON services say it, and a body.
    pub async fn answering(status: u16, code: &str, body: &str) -> Self {
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", HeaderValue::from_str(code).unwrap());
        headers.insert("x-amzn-requestid", HeaderValue::from_static("request-1"));
        let answer = (StatusCode::from_u16(status).unwrap(), headers, body.to_owned());
        let app = Router::new().fallback(move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::ready(answer.clone())
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, asked }
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
