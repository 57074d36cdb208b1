use super::*;

const NOW: u64 = 10_000;
const LEASE: u64 = 5_000;

/// A state by its word: `w` and `r` are warming and ready; the letter is the owner; `-` says that its time is over.
fn state(word: &str) -> RelayState {
    let owner = word.chars().nth(1).unwrap_or('?').to_string();
    let expires = if word.ends_with('-') { NOW } else { NOW + 1 };
    match (word, word.as_bytes()[0]) {
        ("idle", _) => RelayState::Idle,
        ("failed", _) => RelayState::Failed { at: NOW },
        ("called", _) => RelayState::Called { at: 1 },
        (_, b'w') => RelayState::Warming { owner, expires },
        _ => RelayState::Ready { owner, expires, switch: Switch::At(7) },
    }
}

fn word(state: &RelayState) -> String {
    let over = |expires: u64| if expires <= NOW { "-" } else { "" };
    match state {
        RelayState::Idle => "idle".into(),
        RelayState::Failed { .. } => "failed".into(),
        RelayState::Called { .. } => "called".into(),
        RelayState::Warming { owner, expires } => format!("w{owner}{}", over(*expires)),
        RelayState::Ready { owner, expires, switch: Switch::At(7) } => format!("r{owner}{}", over(*expires)),
        RelayState::Ready { owner, expires, .. } => format!("R{owner}{}", over(*expires)),
    }
}

/// Rows: events, of `a` where somebody does it; columns: states. `leased` and `fenced` are refusals; `R` is ready anew.
const GOLDEN: &str = "
    -       idle   failed called wa     wa-    wb     wb-    ra     ra-    rb     rb-
    Call    called called called leased called leased called leased called leased called
    Join    leased leased wa     wa     wa-    leased leased ra     ra-    leased leased
    Renew   fenced fenced fenced wa     wa     fenced fenced ra     ra     fenced fenced
    Ready   fenced fenced fenced Ra     Ra     fenced fenced Ra     Ra     fenced fenced
    Moved   idle   failed called wa     wa-    wb     wb-    wa     wa-    wb     wb-
    Fail    idle   failed called failed failed wb     wb-    failed failed rb     rb-
";

#[test]
fn every_state_and_event_does_what_the_table_says() {
    let rows: Vec<Vec<&str>> = GOLDEN.trim().lines().map(|l| l.split_whitespace().collect()).collect();
    let events = [
        RelayEvent::Call,
        RelayEvent::Join("a"),
        RelayEvent::Renew("a"),
        RelayEvent::Ready("a", Switch::Paused),
        RelayEvent::Moved,
        RelayEvent::Fail("a"),
    ];
    assert_eq!(rows.len(), events.len() + 1);
    for (row, event) in rows[1..].iter().zip(events) {
        assert!(format!("{event:?}").starts_with(row[0]), "{event:?}");
        for (before, expected) in rows[0].iter().zip(row).skip(1) {
            let relay = Relay { state: state(before), calls: 1 };
            let next = match relay.next(event, NOW, LEASE) {
                Ok(next) => word(&next.state),
                Err(Refused::Leased) => "leased".into(),
                Err(Refused::Fenced) => "fenced".into(),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(next, *expected, "{event:?} in {before}");
        }
    }
}

#[test]
fn nobody_who_is_there_is_called_again_and_nobody_too_often() {
    let wants = |word: &str, calls| Relay { state: state(word), calls }.wants_call(NOW, 9_000);
    for (word, expected) in [
        ("idle", true),
        ("failed", false),
        ("called", true),
        ("wa", false),
        ("wa-", true),
        ("ra", false),
        ("ra-", true),
    ] {
        assert_eq!(wants(word, 1), expected, "{word}");
        assert!(!wants(word, MAX_CALLS), "{word}");
    }
    let asked = Relay { state: RelayState::Called { at: NOW - 8_999 }, calls: 1 };
    assert!(!asked.wants_call(NOW, 9_000), "who was asked a moment ago may still come");
}

#[test]
fn only_a_successor_that_was_heard_of_lately_can_go_on() {
    let relay = |word: &str| Relay { state: state(word), calls: 1 };
    assert_eq!(relay("ra").ready(NOW), Some(Switch::At(7)));
    assert_eq!((relay("ra-").ready(NOW), relay("wa").ready(NOW)), (None, None));
    assert_eq!(relay("wa").alive(NOW), Some(("a", NOW + 1)));
    assert_eq!((relay("wa-").alive(NOW), relay("called").alive(NOW)), (None, None));
}
