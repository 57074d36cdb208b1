//! The system's wall clock.

use super::Clock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time as the system has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_milliseconds_of_this_era() {
        let (year_2020, year_2200) = (1_577_836_800_000, 7_258_118_400_000);
        assert!((year_2020..year_2200).contains(&SystemClock.now()));
    }
}
