//! The ledger of a growing file: what another invocation needs to go on with it, or to finish it, without reading the media
//! again. Pure: the caller stores [`Page`]s among the chunks and reads them.
//!
//! A page is written whenever more of the payload has become lasting, and speaks of whole segments. It holds what each of
//! them added to the sample tables, and what the store of recordings said of its parts. So that a page stays small while all
//! of them together do not grow with the square of the length, it goes on from an earlier one, its base, until it is
//! [`LONGEST`]; the next one then is a base itself, and holds everything.
//!
//! Fencing. A page says whose segments it speaks of. It counts only if the task's seams say the same: what a generation
//! wrote after it had lost the task is never gone on from.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::mp4::{Movie, Mp4Error, Taken};
use crate::task::seam::Seams;

/// Longest log of a page that has a base, bytes: ten minutes of 720p. It is written every few megabytes of media, a base
/// (some 3.5 MB after six hours) every ten minutes.
const LONGEST: usize = 128 << 10;

/// One line of the log.
#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    /// The segments that follow are of the encoder with this init segment.
    Init(Vec<u8>),
    /// A segment.
    Segment(Taken),
    /// What the store of recordings said when more had become lasting.
    State(String),
}

/// What is kept of a growing file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Key of the page that it goes on from.
    pub base: Option<String>,
    /// Whose segments it speaks of.
    pub seams: Seams,
    /// Segments that are in the file.
    pub next: u64,
    /// Bytes of payload at the front that are not lasting, but in the chunks only.
    pub held: u64,
    /// Bytes of payload, those included.
    pub payload: u64,
    log: Vec<u8>,
}

/// Why a page cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is damaged.
    #[error("a page of the ledger is damaged")]
    Damaged(#[from] postcard::Error),
    /// Its lines do not follow each other.
    #[error("a page of the ledger does not follow")]
    Unfit(#[from] Mp4Error),
    /// Lines and sums disagree.
    #[error("a page of the ledger speaks of other segments than it says")]
    Sums,
}

impl Page {
    /// As it is stored.
    pub fn write(&self) -> Result<Vec<u8>, LedgerError> {
        Ok(postcard::to_allocvec(self)?)
    }

    /// What was stored.
    pub fn read(bytes: &[u8]) -> Result<Self, LedgerError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

/// Lines of segments whose payload is not lasting yet.
#[derive(Debug)]
struct Waiting {
    lines: Vec<u8>,
    next: u64,
    payload: u64,
}

/// The lines so far.
#[derive(Debug)]
pub struct Ledger {
    seams: Seams,
    log: Vec<u8>,
    /// Key of the last page that holds everything up to its own length.
    base: Option<(String, usize)>,
    next: u64,
    payload: u64,
    init: Vec<u8>,
    waiting: VecDeque<Waiting>,
}

/// A growing file as its last page left it.
#[derive(Debug)]
pub struct Found {
    /// The tables.
    pub movie: Movie,
    /// Goes on from there.
    pub ledger: Ledger,
    /// What the store of recordings said, oldest first.
    pub states: Vec<String>,
}

impl Ledger {
    /// The ledger of a file that begins; `seams` are those of the task.
    pub fn new(seams: Seams) -> Self {
        let (log, init, waiting) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { seams, log, base: None, next: 0, payload: 0, init, waiting }
    }

    /// Another encoder's segments follow.
    pub fn init(&mut self, init: &[u8]) -> Result<(), LedgerError> {
        self.init = postcard::to_allocvec(&Entry::Init(init.to_vec()))?;
        Ok(())
    }

    /// A segment was appended; `movie` has taken it.
    pub fn segment(&mut self, taken: Taken, movie: &Movie) -> Result<(), LedgerError> {
        let lines = std::mem::take(&mut self.init);
        let lines = postcard::to_extend(&Entry::Segment(taken), lines)?;
        self.waiting.push_back(Waiting { lines, next: movie.next(), payload: movie.payload() });
        Ok(())
    }

    /// The payload up to a position, the end of a segment, has become lasting.
    pub fn lasting(&mut self, payload: u64, state: String) -> Result<(), LedgerError> {
        while let Some(Waiting { lines, next, payload }) = self.waiting.pop_front_if(|w| w.payload <= payload) {
            self.log.extend(lines);
            (self.next, self.payload) = (next, payload);
        }
        self.log.extend(postcard::to_allocvec(&Entry::State(state))?);
        Ok(())
    }

    /// Segments that are lasting.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is to be stored under `key` now.
    pub fn page(&mut self, key: &str, held: u64) -> Page {
        let from = self.base.as_ref().map_or(0, |(_, from)| *from);
        let goes_on = self.base.is_some() && self.log.len() - from <= LONGEST;
        let (base, from) = match &self.base {
            Some((base, from)) if goes_on => (Some(base.clone()), *from),
            _ => (None, 0),
        };
        if !goes_on {
            self.base = Some((key.into(), self.log.len()));
        }
        let seams = self.seams.before(self.next);
        Page { base, seams, next: self.next, held, payload: self.payload, log: self.log[from..].to_vec() }
    }

    /// The page could not be stored: the next one must not go on from it.
    pub fn lost(&mut self, key: &str) {
        self.base.take_if(|(base, _)| base == key);
    }

    /// The file that a page, with the base that it names, speaks of. `seams` are those of the task now.
    pub fn open(page: Page, base: Option<(String, Page)>, seams: &Seams) -> Result<Found, LedgerError> {
        let mut log = base.as_ref().map_or_else(Vec::new, |(_, base)| base.log.clone());
        let base = base.map_or((None, page.next), |(key, base)| (Some((key, base.log.len())), base.next));
        log.extend(page.log);
        let (mut movie, mut states, mut rest): (Option<Movie>, _, _) = (None, Vec::new(), log.as_slice());
        while !rest.is_empty() {
            let (entry, after) = postcard::take_from_bytes(rest)?;
            rest = after;
            match (entry, &mut movie) {
                (Entry::Init(init), Some(movie)) => movie.init(&init)?,
                (Entry::Init(init), none) => *none = Some(Movie::new(&init)?),
                (Entry::Segment(taken), Some(movie)) => movie.take(&taken)?,
                (Entry::Segment(_), None) => return Err(LedgerError::Sums),
                (Entry::State(state), _) => states.push(state),
            }
        }
        let movie = movie.filter(|m| (m.next(), m.payload()) == (page.next, page.payload) && base.1 <= page.next);
        let movie = movie.ok_or(LedgerError::Sums)?;
        let (seams, init, waiting) = (seams.clone(), Vec::new(), VecDeque::new());
        let ledger = Self { seams, log, base: base.0, next: page.next, payload: page.payload, init, waiting };
        Ok(Found { movie, ledger, states })
    }
}
