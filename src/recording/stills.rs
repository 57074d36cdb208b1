//! Copies of pictures on their way to the encoder, now and then, for whoever makes thumbnails of them.
//!
//! They are taken on the thread that feeds the encoder, after the picture is with it, and it never waits: where there is no
//! room for one, it is tried again a second later. What is taken is copied, so that none of the display's few copies is
//! held.

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::display::is_plain;
use crate::task::spec::Size;
use crate::task::timeline::SAMPLE_RATE;

/// Who wants pictures, and how often.
#[derive(Debug, Clone)]
pub struct Stills {
    /// Samples from one to the next.
    pub every: u64,
    /// Where they go. Once nobody takes them any more, none are taken.
    pub out: Sender<Still>,
}

/// A picture.
#[derive(Debug)]
pub struct Still {
    /// Recorded sample from which on it was shown.
    pub recorded: u64,
    /// It is not of one colour.
    pub real: bool,
    /// Its size.
    pub size: Size,
    /// Its planes.
    pub i420: Vec<u8>,
}

/// Chooses.
pub(super) struct Taker {
    stills: Stills,
    size: Size,
    /// Recorded sample from which on the next one is due, and from which on the first one that is not of one colour is
    /// looked for anew.
    due: u64,
    look: u64,
    /// That has been found.
    real: bool,
}

impl Taker {
    pub fn new(stills: Stills, size: Size) -> Self {
        Self { stills, size, due: 0, look: 0, real: false }
    }

    /// Looks at a picture that is with the encoder.
    pub fn look(&mut self, recorded: u64, i420: &[u8]) {
        let due = recorded >= self.due;
        if !due && (self.real || recorded < self.look) {
            return;
        }
        self.look = recorded + SAMPLE_RATE;
        let real = !is_plain(i420, self.size);
        if !due && !real {
            return;
        }
        match self.stills.out.try_reserve() {
            Ok(room) => {
                if due {
                    self.due = (recorded / self.stills.every + 1) * self.stills.every;
                }
                self.real |= real;
                room.send(Still { recorded, real, size: self.size, i420: i420.to_vec() });
            }
            Err(TrySendError::Full(())) => self.due = self.due.max(self.look),
            Err(TrySendError::Closed(())) => (self.due, self.look) = (u64::MAX, u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{Receiver, channel};

    const SIZE: Size = Size { width: 64, height: 64 };
    const SLOT: u64 = 1600;

    fn taker(seconds: u64) -> (Taker, Receiver<Still>) {
        let (out, taken) = channel(1);
        (Taker::new(Stills { every: seconds * SAMPLE_RATE, out }, SIZE), taken)
    }

    fn picture(plain: bool) -> Vec<u8> {
        let mut i420 = vec![128; 64 * 64 * 3 / 2];
        if !plain {
            i420[64 * 20..64 * 24].fill(235);
        }
        i420
    }

    /// What is taken of so many seconds at 30 a second that are plain for `plain` of them: second and whether it is real.
    fn taken(every: u64, seconds: u64, plain: f64) -> Vec<(f64, bool)> {
        let (mut taker, mut taken) = taker(every);
        let mut all = Vec::new();
        for slot in 0..seconds * 30 {
            taker.look(slot * SLOT, &picture((slot as f64) < plain * 30.0));
            while let Ok(still) = taken.try_recv() {
                all.push((still.recorded as f64 / SAMPLE_RATE as f64, still.real));
            }
        }
        all
    }

    #[test]
    fn one_is_taken_every_so_many_seconds_and_the_first_real_one_is_looked_for() {
        assert_eq!(taken(10, 25, 0.0), [(0.0, true), (10.0, true), (20.0, true)]);
        assert_eq!(taken(10, 25, 2.5), [(0.0, false), (3.0, true), (10.0, true), (20.0, true)]);
        assert_eq!(taken(5, 12, 99.0), [(0.0, false), (5.0, false), (10.0, false)]);
    }

    #[test]
    fn nobody_waits_and_nothing_is_taken_for_nobody() {
        let (mut taker, mut taken) = taker(2);
        let real = picture(false);
        for slot in 0..=270 {
            taker.look(slot * SLOT, &real);
        }
        assert_eq!(taken.try_recv().unwrap().recorded, 0);
        assert!(taken.try_recv().is_err(), "there was room for one");
        taker.look(299 * SLOT, &real);
        assert!(taken.try_recv().is_err(), "it looks again a second later, not with each picture");
        taker.look(300 * SLOT, &real);
        assert_eq!(taken.try_recv().unwrap().recorded, 300 * SLOT);
        drop(taken);
        taker.look(600 * SLOT, &real);
        assert_eq!(taker.due, u64::MAX);
    }
}
