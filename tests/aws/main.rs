//! The AWS adapters against servers that speak AWS's protocols: SeaweedFS (S3), dynoxide (DynamoDB), MiniStack (Lambda).
//! Each is started once for all tests, on free ports of the loopback interface, and ends with this process.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "tests start servers, and end them")]

mod chunks;
mod delivery;
mod invoke;
mod recordings;
mod refusals;
#[allow(dead_code, reason = "what the end-to-end tests need besides")]
mod support;
mod tasks;
#[allow(dead_code, reason = "what the tests of the delivery room need besides")]
#[path = "../delivery/tools.rs"]
mod tools;
mod vod;
