use super::super::quality::{GapReason, MAX_GAPS, Stretch};
use super::super::relay::{RelayEvent, Switch};
use super::*;
use proptest::prelude::*;

fn task() -> TaskRecord {
    TaskRecord::new("t".into(), Order::of("https://example.com/"), None, 1_000)
}

/// At so many milliseconds.
fn at(recorded: u64, wall: u64, paused: bool) -> Anchor {
    Anchor { recorded, wall_us: wall * 1000, paused }
}

#[test]
fn what_is_missing_is_what_lies_between_the_last_kept_sample_and_the_first_new_one() {
    let gap = |before: Anchor, now: Anchor| {
        let mut task = task();
        task.capturing(before).unwrap();
        task.resumed(now).unwrap();
        task.gaps.first().map(|g| ((g.start * 1000.0).round() as u64, (g.duration * 1000.0).round() as u64))
    };
    // Recording since 10 s on the wall; 4 s were kept; another goes on at 20 s: from 14 s to 20 s nothing is there.
    assert_eq!(gap(at(0, 10_000, false), at(192_000, 20_000, false)), Some((4_000, 6_000)));
    // Paused at 5 s of the file, of which 4 s were kept: the last second before the pause is missing, however long it lasts.
    assert_eq!(gap(at(240_000, 10_000, true), at(192_000, 99_000, true)), Some((4_000, 1_000)));
    // Resumed a second before the end: that second and the unkept one before the pause.
    assert_eq!(gap(at(240_000, 10_000, false), at(192_000, 13_000, false)), Some((4_000, 4_000)));
    assert_eq!(gap(at(192_000, 10_000, true), at(192_000, 99_000, true)), None);
}

#[test]
fn what_was_not_wanted_before_a_recorder_began_is_not_missing() {
    // It goes on at 4 s of the file, with a segment that begins 2 s from now; the one before ended just now.
    let late = |then: fn(&mut TaskRecord)| {
        let mut task = task();
        task.claim("a", 0, 5_000).unwrap();
        task.resumed(at(0, 0, false)).unwrap();
        task.hand_over(at(192_000, 4_000, false), 2, 0, Quality::default(), 4_000);
        task.claim("b", 4_100, 5_000).unwrap();
        task.resumed(at(192_000, 6_000, false)).unwrap();
        then(&mut task);
        task.gaps.iter().map(|g| (g.duration * 1000.0).round() as u64).collect::<Vec<_>>()
    };
    assert_eq!(late(|_| {}), [2_000]);
    assert_eq!(late(|task| task.stop(4_500).unwrap()), [500], "until the Stop");
    assert_eq!(late(|task| task.stop(6_500).unwrap()), [2_000], "which came later");
    assert_eq!(late(|task| task.stop(4_010).unwrap()), Vec::<u64>::new(), "less than a picture");
    // Paused before it began: it begins where it goes on.
    assert_eq!(late(|task| task.capturing(at(192_000, 4_700, true)).unwrap()), [700]);
    assert_eq!(late(|task| task.capturing(at(240_000, 7_000, true)).unwrap()), [2_000]);
    // Paused inside its own segments before the one that is the file's: what is left of that is dropped after the pause.
    let inside = |task: &mut TaskRecord| task.capturing(at(192_000 - 48_000, 5_000, true)).unwrap();
    assert_eq!(late(inside), [2_000]);
    let stopped = |task: &mut TaskRecord| {
        task.capturing(at(192_000 - 48_000, 5_000, true)).unwrap();
        task.stop(9_000).unwrap();
    };
    assert_eq!(late(stopped), [1_000]);
}

#[test]
fn a_pause_before_the_recorder_is_up_reaches_it() {
    let mut task = task();
    task.command(CommandKind::Pause).unwrap();
    task.command(CommandKind::Refresh).unwrap();
    task.claim("a", 2_000, 10_000).unwrap();
    assert!(task.paused && task.waiting.is_empty());
    task.capturing(at(0, 3_000, task.paused)).unwrap();
    assert_eq!((task.status, task.started), (Status::Paused, Some(3_000)));
}

#[test]
fn commands_are_numbered_and_leave_when_applied() {
    let mut task = task();
    task.claim("a", 2_000, 10_000).unwrap();
    task.capturing(at(0, 2_500, false)).unwrap();
    for kind in [CommandKind::Pause, CommandKind::Refresh, CommandKind::Resume] {
        task.command(kind).unwrap();
    }
    assert_eq!(task.waiting.iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2, 3]);
    task.applied(2);
    assert_eq!(task.waiting, [WaitingCommand { seq: 3, kind: CommandKind::Resume }]);
}

#[test]
fn commands_without_a_recorder_are_bounded() {
    let mut task = task();
    for _ in 0..MAX_WAITING_COMMANDS {
        task.command(CommandKind::Refresh).unwrap();
    }
    assert_eq!(task.command(CommandKind::Refresh), Err(Refused::TooManyCommands));
}

#[test]
fn two_stops_are_one_and_the_first_counts() {
    let mut task = task();
    task.stop(5_000).unwrap();
    task.stop(6_000).unwrap();
    assert_eq!((task.status, task.canceled), (Status::Canceled, Some(5_000)));
    assert!(task.command(CommandKind::Pause).is_err(), "no pause after a stop");
    task.command(CommandKind::Refresh).unwrap();
    assert!(task.waiting.is_empty(), "a refresh after a stop succeeds and changes nothing");
}

#[test]
fn a_lease_keeps_others_out_until_it_expires_and_fences_the_loser() {
    let mut task = task();
    task.claim("a", 2_000, 10_000).unwrap();
    assert_eq!(task.claim("b", 11_999, 10_000), Err(Refused::Leased));
    assert!(!task.orphaned(11_999, 60_000) && task.orphaned(12_000, 60_000));
    assert_eq!(task.held_by("a"), Ok(()));
    task.claim("b", 12_000, 10_000).unwrap();
    assert_eq!((task.held_by("a"), task.held_by("b"), task.generation), (Err(Refused::Fenced), Ok(()), 2));
    task.end(13_000).unwrap();
    assert!(task.claim("c", 99_000, 10_000).is_err() && !task.orphaned(99_000, 0));
}

#[test]
fn a_lease_that_is_not_renewed_is_overdue_while_something_is_recorded_and_given_up_as_it_was_seen() {
    const LEASE: u64 = 5_000;
    let mut task = task();
    assert!(!task.overdue(99_000, LEASE, 2_000), "nobody holds it");
    task.claim("a", 20_000, LEASE).unwrap();
    let overdue = |task: &TaskRecord, at| task.overdue(at, LEASE, 2_000);
    assert!(!overdue(&task, 21_999) && overdue(&task, 22_000) && overdue(&task, 99_000));
    assert!(overdue(&task, 1_000), "the clock was set back far");
    assert!(!overdue(&task, 18_000), "two clocks are not the same");
    task.stop(22_000).unwrap();
    assert!(!overdue(&task, 24_999) && overdue(&task, 25_000), "there is time");
    let seen = task.lease.clone().unwrap();
    task.renew(24_000, LEASE);
    assert_eq!(task.give_up(&seen), Err(Refused::Leased), "it was renewed");
    let seen = task.lease.clone().unwrap();
    task.give_up(&seen).unwrap();
    assert_eq!(task.held_by("a"), Ok(()), "as long as nobody claims it");
    task.claim("b", 24_000, LEASE).unwrap();
    assert_eq!((task.held_by("a"), task.crashes), (Err(Refused::Fenced), 1));
}

#[test]
fn an_event_that_comes_again_finds_something_to_do_only_when_its_generation_was_lost() {
    let mut task = task();
    task.claim("a", 1_000, 5_000).unwrap();
    let generation = task.generation;
    assert!(task.join("b", generation, 5_999, 5_000).is_err(), "it is at work");
    assert_eq!(task.join("b", generation, 6_000, 5_000), Ok(Joined::Holder), "it was killed at its deadline");
    assert_eq!((task.generation, task.crashes), (generation + 1, 1));
    assert!(task.join("c", generation, 6_001, 5_000).is_err(), "and the third delivery is too many");
}

#[test]
fn a_record_survives_being_stored() {
    let mut task = task();
    task.claim("a", 2_000, 10_000).unwrap();
    task.result.quality = Some(Quality::default());
    let text = serde_json::to_string(&task).unwrap();
    assert_eq!(serde_json::from_str::<TaskRecord>(&text).unwrap(), task);
}

/// Anything that may happen to a record.
fn step(task: &mut TaskRecord, what: u8, now: u64) {
    let before = task.clone();
    let done = match what {
        0 => task.command(CommandKind::Pause),
        1 => task.command(CommandKind::Resume),
        2 => task.command(CommandKind::Refresh),
        3 => task.stop(now),
        4 => task.claim("a", now, 1_000),
        5 => task.claim("b", now, 1_000),
        6 => task.capturing(at(0, now, now.is_multiple_of(2))),
        7 => task.deliver(StatusEvent::Assembling, now),
        8 => task.deliver(StatusEvent::Uploading, now),
        9 => task.announce(now),
        _ => task.end(now),
    };
    if done.is_err() {
        assert_eq!(*task, before, "what is refused changes nothing");
    }
}

proptest! {
    #[test]
    fn no_order_of_events_goes_backwards_or_changes_what_is_over(steps in prop::collection::vec((0u8..11, 1u64..2_000), 1..60)) {
        let mut task = task();
        let mut now = 1_000;
        for (what, wait) in steps {
            now += wait;
            let before = task.clone();
            step(&mut task, what, now);
            let back = (before.status, task.status) == (Status::Paused, Status::Recording);
            prop_assert!(task.status >= before.status || back);
            prop_assert!(task.last_seq >= before.last_seq && task.waiting.len() <= MAX_WAITING_COMMANDS);
            for (was, is) in [(before.started, task.started), (before.canceled, task.canceled),
                              (before.stopped, task.stopped), (before.finished, task.finished)] {
                prop_assert!(was.is_none() || was == is, "a time that happened does not change");
            }
            if before.status == Status::Finished {
                prop_assert_eq!(&before, &task);
            }
        }
    }
}

/// Everything that a recorder may have measured, every list full.
fn much(from: f64) -> Quality {
    let at = |n: usize| from + 1.000_020_833 * n as f64;
    let stretches = || (0..MAX_GAPS).map(|n| Stretch { start: at(11 * n), duration: 5.123_456_789 }).collect();
    let gap = |n| Gap { start: at(n), duration: 8.314_020_833, reason: GapReason::PageCrash };
    Quality {
        frames_delivered: 1_080_000,
        frames_dropped: 10_800,
        reduced_rate_seconds: 36_000.0,
        av_offset_ms: Some(-12.3),
        gaps: (0..MAX_GAPS).map(gap).collect(),
        silent: stretches(),
        blank: stretches(),
        ..Quality::default()
    }
}

/// A task of ten hours in which everything happens as often as it may.
fn full() -> TaskRecord {
    let order = Order { limit_seconds: 36_000, ..Order::of(&format!("https://example.com/{}", "x".repeat(8_172))) };
    let owner = |n: u32| format!("11111111-2222-4333-8444-{n:012}");
    let mut task = TaskRecord::new(owner(0), order, Some("f".repeat(64)), 1_700_000_000_000);
    let (mut now, lease) = (task.created, 5_000);
    task.claim(&owner(1), now, lease).unwrap();
    task.capturing(at(0, now, false)).unwrap();
    // A hand-over every quarter of an hour, a crash between two of them, a pause in each hour.
    for n in 2..=162 {
        now += 225_000;
        let end = task.segments().next(task.anchor.unwrap().position(now * 1000)).0;
        let position = task.segments().begin(end);
        task.measuring.get_or_insert_default().note(position, much(now as f64 / 1e6), 0);
        if n % 2 == 0 {
            task.relay(RelayEvent::Call, now, lease).unwrap();
            let generation = task.generation + 1;
            task.renew(now, lease);
            assert_eq!(task.join(&owner(n), generation, now, lease), Ok(Joined::Successor));
            task.relay(RelayEvent::Ready(&owner(n), Switch::At(end)), now, lease).unwrap();
            let stands = at(task.segments().begin(end), now, n % 16 == 0);
            assert!(task.hand_over(stands, end, u64::from(n % 16 == 0), much(0.0), now));
            task.capturing(Anchor { paused: false, ..stands }).unwrap();
        } else {
            task.claim(&owner(n), now, lease).unwrap();
            task.goes_on(end);
            task.resumed(at(task.segments().begin(end), now + 8_000, false)).unwrap();
        }
    }
    for n in 0..20 {
        task.measuring.get_or_insert_default().note(100_000_000 + n, much(35_000.0), 0);
    }
    (0..MAX_WAITING_COMMANDS).for_each(|_| task.command(CommandKind::Refresh).unwrap());
    task
}

#[test]
fn ten_hours_in_which_everything_happens_as_often_as_it_may_fit_a_record() {
    const RECORD_BYTES: usize = 100_000;
    let size = |task: &TaskRecord| serde_json::to_string(task).unwrap().len();
    let mut task = full();
    assert!(task.generation > 160 && task.gaps.len() > 70 && task.seams.list().len() > 150);
    assert!(size(&task) < RECORD_BYTES, "{} bytes while it is recorded", size(&task));
    let last = task.measuring.take().map(|m| m.kept(u64::MAX));
    task.result.quality = task.total(last.clone(), 36_000.0);
    task.measured.get_or_insert_default().absorb(last.unwrap());
    assert!(size(&task) < RECORD_BYTES, "{} bytes while it is given to the video-on-demand service", size(&task));
}
