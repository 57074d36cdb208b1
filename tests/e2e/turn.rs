//! Who may use the machine while others do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Recordings disturb each other on two cores, and so does judging: whoever judges how well it went, where the machine could
/// have done better, has the machine alone; two others share it.
const SHARES: usize = 2;

/// A part of the machine, given back when dropped.
pub struct Turn(usize);

static FREE: Mutex<usize> = Mutex::new(SHARES);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn of(shares: usize) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = GIVEN_BACK.wait_while(free, |free| *free < shares).unwrap_or_else(PoisonError::into_inner);
        *free -= shares;
        Self(shares)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        GIVEN_BACK.notify_all();
    }
}

/// All of the machine.
pub fn turn() -> Turn {
    Turn::of(SHARES)
}

/// One share: another may run beside it.
pub fn share() -> Turn {
    Turn::of(1)
}

/// The turn of tests that wait far more than they record: one of them beside the one whose turn it is.
pub fn aside() -> MutexGuard<'static, ()> {
    static ASIDE: Mutex<()> = Mutex::new(());
    ASIDE.lock().unwrap_or_else(PoisonError::into_inner)
}
