//! Announcing a result: the caller's server is called until it has taken it, or patience is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use url::Url;

use crate::delivery::callback::Callback;
use crate::platform::Clock;
use crate::recording::browser::address::is_permitted;
use crate::task::record::TaskRecord;

/// Calls at most. With the waits between them a server may be away for half a minute and more.
const TRIES: u32 = 7;
/// Wait after the first call that did not arrive; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Who announces results.
#[async_trait]
pub trait Announcer: Send + Sync {
    /// Announces a task's result at least once; the error says what the last try met.
    async fn announce(&self, task: &TaskRecord) -> Result<(), String>;
}

/// Announces with a POST to the order's `CallbackURL`.
pub struct WebAnnouncer {
    /// Makes the calls.
    pub callback: Callback,
    /// For their time stamps.
    pub clock: Arc<dyn Clock>,
    /// Addresses that may be called although they are not public.
    pub allow_addresses: Vec<ipnet::IpNet>,
    /// The task as callers see it.
    pub describe: fn(&TaskRecord) -> Value,
}

#[async_trait]
impl Announcer for WebAnnouncer {
    async fn announce(&self, task: &TaskRecord) -> Result<(), String> {
        let Some(url) = task.order.callback_url.as_deref().and_then(|u| Url::parse(u).ok()) else { return Ok(()) };
        let body = (self.describe)(task).to_string();
        // The same for every try, so that a server that hears twice knows it.
        let id = format!("{}-result", task.id);
        let mut wait = FIRST_WAIT;
        let mut tries = 1;
        loop {
            let permitted = |address| is_permitted(address, &self.allow_addresses);
            match self.callback.post(&url, &id, self.clock.now() / 1000, &body, &permitted).await {
                Ok(()) => return Ok(()),
                Err(error) if tries == TRIES => return Err(format!("{TRIES} calls: {}", super::chain(&error))),
                Err(error) => tracing::warn!(tries, error = %super::chain(&error), "callback did not arrive"),
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
            tries += 1;
        }
    }
}
