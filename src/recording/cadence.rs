//! Too little CPU: which share of the slots to use. Pure; fed once a second with what was measured.
//!
//! A machine that cannot draw and encode every slot would deliver an uneven, stuttering picture. Using every second or
//! third slot instead is even, and cheaper for browser and encoder alike. Two signs of too little CPU are taken: the
//! encoder holds every picture (a slot was refused), or the page suddenly draws much less than it just did while
//! somebody on the machine waits for a processor. The way back is tried after a while, later each time it fails.

/// Coarsest step: 30 → 10 frames per second.
const MAX_DIVISOR: u64 = 3;
/// Share of the rate that a page was drawing at, below which it is starved.
const STARVED_SHARE: f64 = 0.7;
/// Share of time in which some process waited for a processor, above which the machine is busy.
const BUSY_STALL: f64 = 0.3;
/// Looks in a row before a step down: one bad second may be a page loading its next slide.
const LOOKS_DOWN: u32 = 2;
/// Calm looks before the first way back, doubled after each that failed.
const LOOKS_UP: u32 = 5;
/// Longest wait for the way back.
const MAX_LOOKS_UP: u32 = 60;
/// Looks within which a step down means that the way back has failed.
const RELAPSE: u32 = 10;
/// How fast the memory of a page's own rate fades for every look, so that a page that calms down is not held starved.
const DEMAND_FADE: f64 = 0.97;

/// What one second brought.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Look {
    /// Pictures that the page drew.
    pub drawn: u64,
    /// Slots refused because the encoder held every picture.
    pub refused: u64,
    /// Share of time in which some process waited for a processor; `None` where the system does not say.
    pub stalled: Option<f64>,
}

/// Chooses the divisor of the frame rate.
#[derive(Debug)]
pub struct Cadence {
    divisor: u64,
    /// Pictures per second at the full rate that the page is known to draw.
    demand: f64,
    bad: u32,
    calm: u32,
    patience: u32,
    since_up: u32,
    reduced_looks: u64,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { divisor: 1, demand: 0.0, bad: 0, calm: 0, patience: LOOKS_UP, since_up: u32::MAX, reduced_looks: 0 }
    }
}

impl Cadence {
    /// Slots per picture now.
    pub fn divisor(&self) -> u64 {
        self.divisor
    }

    /// Looks spent at a reduced rate.
    pub fn reduced_looks(&self) -> u64 {
        self.reduced_looks
    }

    /// Takes a second's measurements. Gives the divisor to use if it changes.
    pub fn look(&mut self, look: Look) -> Option<u64> {
        self.since_up = self.since_up.saturating_add(1);
        self.reduced_looks += u64::from(self.divisor > 1);
        let drawn = look.drawn as f64;
        let expected = self.demand / self.divisor as f64;
        let busy = look.stalled.is_some_and(|s| s > BUSY_STALL);
        let starved = look.refused > 0 || (busy && drawn < expected * STARVED_SHARE);
        if self.divisor == 1 {
            self.demand = drawn.max(self.demand * DEMAND_FADE);
        }
        if starved {
            self.calm = 0;
            self.bad += 1;
            return (self.bad >= LOOKS_DOWN && self.divisor < MAX_DIVISOR).then(|| self.step_down());
        }
        self.bad = 0;
        self.calm += 1;
        (self.divisor > 1 && self.calm >= self.patience).then(|| self.step_up())
    }

    fn step_down(&mut self) -> u64 {
        if self.since_up < RELAPSE {
            self.patience = (self.patience * 2).min(MAX_LOOKS_UP);
        }
        self.bad = 0;
        self.divisor += 1;
        self.divisor
    }

    fn step_up(&mut self) -> u64 {
        if self.since_up > MAX_LOOKS_UP {
            self.patience = LOOKS_UP;
        }
        self.since_up = 0;
        self.calm = 0;
        self.divisor -= 1;
        self.divisor
    }
}

/// Reads how long processes have waited for a processor (`some` of Linux' pressure stall information), µs; `None` where
/// the kernel does not offer it.
pub fn stalled_us() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    text.lines().find(|l| l.starts_with("some"))?.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Look = Look { drawn: 30, refused: 0, stalled: Some(0.05) };
    const STARVED: Look = Look { drawn: 14, refused: 0, stalled: Some(0.9) };

    const NONE: [u64; 0] = [];

    fn run(cadence: &mut Cadence, look: Look, looks: u32) -> Vec<u64> {
        (0..looks).filter_map(|_| cadence.look(look)).collect()
    }

    #[test]
    fn a_starved_page_steps_down_and_comes_back() {
        let mut cadence = Cadence::default();
        assert_eq!(run(&mut cadence, QUIET, 10), NONE);
        assert_eq!(run(&mut cadence, STARVED, 2), [2]);
        assert_eq!(
            run(&mut cadence, Look { drawn: 15, ..STARVED }, 4),
            NONE,
            "every second slot is drawn: no need for more"
        );
        assert_eq!(run(&mut cadence, Look { drawn: 8, ..STARVED }, 2), [3]);
        assert_eq!(run(&mut cadence, Look { drawn: 10, ..QUIET }, 10), [2, 1]);
        assert!(cadence.reduced_looks() > 10);
    }

    #[test]
    fn a_page_that_calms_down_is_not_starved() {
        let mut cadence = Cadence::default();
        run(&mut cadence, QUIET, 10);
        assert_eq!(run(&mut cadence, Look { drawn: 1, ..QUIET }, 60), NONE);
        let mut slow = Cadence::default();
        assert_eq!(run(&mut slow, Look { drawn: 12, refused: 0, stalled: Some(0.9) }, 60), NONE, "it never drew more");
    }

    #[test]
    fn a_refused_slot_counts_wherever_pressure_is_not_told() {
        let mut cadence = Cadence::default();
        assert_eq!(run(&mut cadence, Look { drawn: 20, refused: 3, stalled: None }, 8), [2, 3]);
    }

    #[test]
    fn the_way_back_is_tried_later_each_time_it_fails() {
        let mut cadence = Cadence::default();
        run(&mut cadence, QUIET, 3);
        let mut waits = Vec::new();
        let refused = Look { refused: 1, ..QUIET };
        run(&mut cadence, refused, 2);
        for _ in 0..3 {
            let mut waited = 0;
            while cadence.look(QUIET).is_none() {
                waited += 1;
                assert!(waited < 1000);
            }
            waits.push(waited + 1);
            run(&mut cadence, refused, 2);
        }
        assert_eq!(waits, [5, 10, 20]);
    }
}
