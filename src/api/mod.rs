//! The wire contract: events of gateways, schedules and ourselves in; answers out. Knows neither storage services nor
//! Chromium.
//!
//! [`Service::answer`] is total: whatever comes in, one JSON value goes out, and what went wrong inside is in the log.

mod describe;
mod encryption;
mod error;
mod event;
mod fields;
mod reply;
mod service;
mod start;
mod vod;

pub use describe::task_json;
pub use error::{ApiError, Code};
pub use event::{Incoming, Request, parse};
pub use fields::Fields;
pub use service::{Service, ServiceConfig};
pub use start::{Defaults, order};

#[cfg(test)]
mod tests;
