//! Ways to start Chromium, for platforms that refuse some of them.
//!
//! Lambda's system-call policy is not public, and reports differ: Chromium's zygote was refused there, and so was its GPU
//! process. What is refused shows as an end at once, or as a browser that never draws. So where the platform is unknown,
//! the ways are [tried](super::Browser::launch) in order, the one with most isolation first, and the one that drew
//! a frame is remembered.

use std::sync::{Arc, OnceLock};

/// How Chromium's processes come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// As on a desktop: renderers are forks of a zygote.
    Zygote,
    /// Every process is started anew, and the compositor is a thread of the browser.
    InProcessGpu,
    /// Everything in one process: no isolation of sites, and a crash takes all of it.
    SingleProcess,
}

/// All, in the order in which they are tried.
const ALL: [Tier; 3] = [Tier::Zygote, Tier::InProcessGpu, Tier::SingleProcess];

impl Tier {
    /// Its word in a setting.
    pub fn word(self) -> &'static str {
        match self {
            Self::Zygote => "zygote",
            Self::InProcessGpu => "in-process-gpu",
            Self::SingleProcess => "single-process",
        }
    }

    /// Of a word in a setting.
    pub fn of(word: &str) -> Option<Self> {
        ALL.into_iter().find(|tier| tier.word() == word)
    }

    /// What it adds to the command line.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Zygote => &[],
            Self::InProcessGpu => &["--no-zygote", "--in-process-gpu"],
            Self::SingleProcess => &["--no-zygote", "--single-process"],
        }
    }
}

/// Which ways may be taken. Clones share what was found.
#[derive(Debug, Clone)]
pub struct Tiers {
    candidates: Vec<Tier>,
    proven: Arc<OnceLock<Tier>>,
}

impl Tiers {
    /// This one, without a question.
    pub fn only(tier: Tier) -> Self {
        Self { candidates: vec![tier], proven: Arc::default() }
    }

    /// The first that works.
    pub fn any() -> Self {
        Self { candidates: ALL.to_vec(), proven: Arc::default() }
    }

    /// Those to be tried, in order: one, once it is known.
    pub(super) fn candidates(&self) -> &[Tier] {
        self.proven.get().map_or(&self.candidates, std::slice::from_ref)
    }

    /// This one works here.
    pub(super) fn prove(&self, tier: Tier) {
        let _ = self.proven.set(tier);
    }
}
