//! Whether those who hold tasks are alive. Whoever finds a lease that is not over (an event that comes again, a sweep) looks
//! at it for a moment: a holder renews it all the time, whatever else it does.
//!
//! Nothing is written meanwhile, so that an event too many has no effect on a recording. What counts is what was seen here,
//! not what two machines' clocks say, and only while the store answered quickly: it may be slow for the holder, too. As soon
//! as a renewal is late whoever watches may get ready ([`standby`](super::standby)), which nobody outside hears of.

use std::time::Duration;

use tokio::time::Instant;

use super::change::{ChangeError, change};
use super::lease::{LEASE, RENEW};
use crate::platform::Platform;
use crate::task::record::{Lease, Refused, TaskRecord};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// The same for whoever is ready to go on: a sweep that finds the holder lost first asks for another recorder, which has to start.
const CLOSE_LOOK: Duration = Duration::from_millis(20);
/// A renewal is seen within this: those of a holder are [`RENEW`] apart, plus what it waits for the store.
const WATCHED: Duration = RENEW.saturating_add(Duration::from_millis(200));
/// How long ago a recorder's last renewal may be: it may be late by as much as it had time. Taking a living recorder's task
/// costs seconds of its recording, and waiting longer costs as much of a lost one's.
const OVERDUE: Duration = RENEW.saturating_mul(2);
/// Its holder may be lost: one that is alive and whose store is well renews its lease sooner. A browser takes the rest of
/// [`OVERDUE`] to start; a recorder that is well should not have to share a machine with it for an event too many.
const SUSPECT: Duration = RENEW.saturating_add(Duration::from_millis(300));
/// An answer of a store that is well: a renewal takes three calls.
const QUICK: Duration = Duration::from_millis(200);
/// Whoever has not renewed a lease for so long is lost, however slow the store is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of these tasks, those whose holder is lost. Their leases are over from then on. `suspect` is told of those whose holder
/// may be, perhaps more than once, and says whether it is ready to go on.
pub(super) async fn lost(
    platform: &Platform,
    tasks: Vec<String>,
    mut suspect: impl FnMut(&TaskRecord) -> bool + Send,
) -> Result<Vec<String>, ChangeError> {
    let begun = Instant::now();
    let mut well = begun;
    let mut watched: Vec<(String, Option<Lease>)> = tasks.into_iter().map(|task| (task, None)).collect();
    let mut lost = Vec::new();
    loop {
        let patient = begun.elapsed() < PATIENCE;
        let (mut still, mut look) = (Vec::new(), LOOK);
        for (task, before) in watched {
            let (asked, now) = (Instant::now(), platform.clock.now());
            let found = platform.tasks.load(&task, now).await?;
            let quick = asked.elapsed() <= QUICK;
            if !quick {
                well = Instant::now();
            }
            let Some(record) = found.map(|found| found.record) else { continue };
            // One that is another was renewed, or is somebody else's; none is nobody's by arrangement.
            let same = |lease: &&Lease| before.as_ref().is_none_or(|before| before == *lease);
            let given_up = |lease: &Lease| before.as_ref().is_some_and(|before| lease.given_up(before));
            if record.lease.as_ref().is_some_and(given_up) {
                // Somebody else has watched it, too, and does not know what is ready here.
                lost.push(task);
                continue;
            }
            let Some(lease) = record.lease.as_ref().filter(same) else { continue };
            let seen = !patient || well.elapsed() >= WATCHED;
            let overdue = |late: Duration| record.overdue(now, LEASE.as_millis() as u64, late.as_millis() as u64);
            if seen && overdue(OVERDUE) {
                lost.extend(give_up(platform, &task, lease).await?.then_some(task));
            } else if patient {
                if quick && overdue(SUSPECT) && suspect(&record) {
                    look = CLOSE_LOOK;
                }
                still.push((task, Some(lease.clone())));
            }
        }
        if still.is_empty() {
            return Ok(lost);
        }
        watched = still;
        tokio::time::sleep(look).await;
    }
}

/// Ends the lease of a holder that is lost. One that is alive after all may renew it until somebody else claims it.
async fn give_up(platform: &Platform, task: &str, lease: &Lease) -> Result<bool, ChangeError> {
    match change(platform, task, |record| record.give_up(lease)).await {
        Ok(_) => Ok(true),
        Err(ChangeError::Refused(Refused::Leased) | ChangeError::Unknown(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
