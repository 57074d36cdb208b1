//! The system's wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::platform::Clock;

/// Unix time as the system has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}
