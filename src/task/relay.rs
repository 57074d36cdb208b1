//! The relay: how the next generation gets ready while the one that holds the task goes on recording. Pure.
//!
//! ```text
//! idle ─call→ called ─join→ warming ⇄ ready ──→ the lease is its own (`TaskRecord::hand_over`, `TaskRecord::take_over`)
//!   failed ───┘ └──────────── fail ──┴────────┘   (and call again, once nobody has been heard of)
//! ```
//!
//! The holder keeps the lease all along. Who joins holds the relay, under a token and an expiry of its own, and may record
//! but keep nothing before the lease is its own: so it never has to be undone.

use serde::{Deserialize, Serialize};

use super::record::{Refused, holds};

/// Times that one generation asks for a successor before it hands over without one.
pub const MAX_CALLS: u32 = 4;
/// From a successor that cannot go on to the next one, milliseconds: what ails its page may be over then.
const AGAIN_MS: u64 = 3_000;

/// From where the successor can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// From the beginning of this segment.
    At(u64),
    /// From wherever the holder ends: the task is paused, and both pages are there.
    Paused,
}

/// How far the successor is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayState {
    /// Nobody was asked for.
    #[default]
    Idle,
    /// One that was there cannot go on.
    Failed {
        /// When, unix milliseconds.
        at: u64,
    },
    /// An invocation was asked for.
    Called {
        /// When, unix milliseconds.
        at: u64,
    },
    /// It is there and gets ready.
    Warming {
        /// Its token.
        owner: String,
        /// Unix milliseconds; later, it is taken for lost.
        expires: u64,
    },
    /// It can go on.
    Ready {
        /// Its token.
        owner: String,
        /// As above.
        expires: u64,
        /// From where.
        switch: Switch,
    },
}

/// The relay of one generation to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// How far it is.
    pub state: RelayState,
    /// Times that somebody was asked for.
    pub calls: u32,
}

/// What may happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEvent<'a> {
    /// The holder asks for a successor.
    Call,
    /// One is there.
    Join(&'a str),
    /// It still is.
    Renew(&'a str),
    /// It can go on from here.
    Ready(&'a str, Switch),
    /// What it got ready for is not so any more: the holder paused or resumed.
    Moved,
    /// It cannot go on.
    Fail(&'a str),
}

impl Relay {
    /// Nobody was ever asked for.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }

    /// Token of the successor that is there, whether it has been heard of lately or not.
    pub fn owner(&self) -> Option<&str> {
        match &self.state {
            RelayState::Idle | RelayState::Failed { .. } | RelayState::Called { .. } => None,
            RelayState::Warming { owner, .. } | RelayState::Ready { owner, .. } => Some(owner),
        }
    }

    /// The same if it has been heard of lately, with the end of its claim.
    pub fn alive(&self, now: u64) -> Option<(&str, u64)> {
        match &self.state {
            RelayState::Idle | RelayState::Failed { .. } | RelayState::Called { .. } => None,
            RelayState::Warming { owner, expires } | RelayState::Ready { owner, expires, .. } => {
                holds(*expires, now).then_some((owner.as_str(), *expires))
            }
        }
    }

    /// From where the successor can go on, if it is there and can.
    pub fn ready(&self, now: u64) -> Option<Switch> {
        match &self.state {
            RelayState::Ready { expires, switch, .. } if *expires > now => Some(*switch),
            RelayState::Idle
            | RelayState::Failed { .. }
            | RelayState::Called { .. }
            | RelayState::Warming { .. }
            | RelayState::Ready { .. } => None,
        }
    }

    /// Whether the holder should ask now: nobody is there, nobody was asked lately, and it has not asked too often.
    pub fn wants_call(&self, now: u64, patience_ms: u64) -> bool {
        let nobody = match &self.state {
            RelayState::Idle => true,
            RelayState::Failed { at } => at + AGAIN_MS <= now,
            RelayState::Called { at } => at + patience_ms <= now,
            RelayState::Warming { expires, .. } | RelayState::Ready { expires, .. } => *expires <= now,
        };
        nobody && self.calls < MAX_CALLS
    }

    /// The relay after an event, or why it is not possible.
    pub fn next(&self, event: RelayEvent<'_>, now: u64, lease_ms: u64) -> Result<Self, Refused> {
        use RelayState::{Called, Failed, Idle, Ready, Warming};
        let until = now + lease_ms;
        let state = match (event, &self.state) {
            (RelayEvent::Call, Idle | Failed { .. } | Called { .. }) => Called { at: now },
            (RelayEvent::Call, Warming { expires, .. } | Ready { expires, .. }) if *expires <= now => {
                Called { at: now }
            }
            (RelayEvent::Call, Warming { .. } | Ready { .. }) => return Err(Refused::Leased),
            (RelayEvent::Join(owner), Called { .. }) => Warming { owner: owner.into(), expires: until },
            // A claim whose answer was lost.
            (RelayEvent::Join(by), Warming { owner, .. } | Ready { owner, .. }) if by == owner => self.state.clone(),
            (RelayEvent::Join(_), Idle | Failed { .. } | Warming { .. } | Ready { .. }) => return Err(Refused::Leased),
            (RelayEvent::Renew(by), Warming { owner, .. }) if by == owner => {
                Warming { owner: owner.clone(), expires: until }
            }
            (RelayEvent::Renew(by), Ready { owner, switch, .. }) if by == owner => {
                Ready { owner: owner.clone(), expires: until, switch: *switch }
            }
            (RelayEvent::Ready(by, switch), Warming { owner, .. } | Ready { owner, .. }) if by == owner => {
                Ready { owner: owner.clone(), expires: until, switch }
            }
            (
                RelayEvent::Renew(_) | RelayEvent::Ready(..),
                Idle | Failed { .. } | Called { .. } | Warming { .. } | Ready { .. },
            ) => {
                return Err(Refused::Fenced);
            }
            (RelayEvent::Moved, Ready { owner, expires, .. }) => Warming { owner: owner.clone(), expires: *expires },
            (RelayEvent::Moved, Idle | Failed { .. } | Called { .. } | Warming { .. }) => self.state.clone(),
            (RelayEvent::Fail(by), Warming { owner, .. } | Ready { owner, .. }) if by == owner => Failed { at: now },
            (RelayEvent::Fail(_), Idle | Failed { .. } | Called { .. } | Warming { .. } | Ready { .. }) => {
                self.state.clone()
            }
        };
        let calls = self.calls + u32::from(event == RelayEvent::Call);
        Ok(Self { state, calls })
    }
}

#[cfg(test)]
#[path = "relay/tests.rs"]
mod tests;
