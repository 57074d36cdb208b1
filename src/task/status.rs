//! The life of a task: `normal → recording ⇄ paused → canceled → transcode → upload → callback → finished`, never
//! backwards. One total function; the golden table in the tests lists every state and event.

use serde::{Deserialize, Serialize};

/// `Status` of the wire contract, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Created, capture not begun.
    Normal,
    /// Pictures and sound go into the file.
    Recording,
    /// Nothing does, until resumed.
    Paused,
    /// Stop accepted, capture ending.
    Canceled,
    /// The file is being put together.
    Transcode,
    /// The file is on its way to where it belongs.
    Upload,
    /// The result is being announced.
    Callback,
    /// Over, well or not.
    Finished,
}

impl Status {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Recording,
        Self::Paused,
        Self::Canceled,
        Self::Transcode,
        Self::Upload,
        Self::Callback,
        Self::Finished,
    ];

    /// The word of the wire contract.
    pub fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Recording => "recording",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
            Self::Transcode => "transcode",
            Self::Upload => "upload",
            Self::Callback => "callback",
            Self::Finished => "finished",
        }
    }

    /// The status after an event, or why the event is not possible now.
    pub fn next(self, event: StatusEvent) -> Result<Self, IllegalTransition> {
        use Status::*;
        let illegal = Err(IllegalTransition { status: self, event });
        match (event, self) {
            // What is wanted is written down; the recorder reports when it is so.
            (StatusEvent::Pause | StatusEvent::Resume, Normal | Recording | Paused) => Ok(self),
            (StatusEvent::Pause | StatusEvent::Resume, Canceled | Transcode | Upload | Callback | Finished) => illegal,
            (StatusEvent::Refresh, _) => Ok(self),
            (StatusEvent::Stop, Normal | Recording | Paused) => Ok(Canceled),
            (StatusEvent::Stop, Canceled | Transcode | Upload | Callback | Finished) => Ok(self),
            (StatusEvent::Capturing, Normal | Recording | Paused) => Ok(Recording),
            (StatusEvent::Holding, Normal | Recording | Paused) => Ok(Paused),
            // A report that crossed a Stop on its way.
            (StatusEvent::Capturing | StatusEvent::Holding, Canceled) => Ok(self),
            (StatusEvent::Capturing | StatusEvent::Holding, Transcode | Upload | Callback | Finished) => illegal,
            // Whoever takes an interrupted delivery up begins it anew; the status stays where it was.
            (StatusEvent::Assembling, Normal | Recording | Paused | Canceled) => Ok(Transcode),
            (StatusEvent::Assembling, Transcode | Upload | Callback) => Ok(self),
            (StatusEvent::Uploading, Normal | Recording | Paused | Canceled | Transcode) => Ok(Upload),
            (StatusEvent::Uploading, Upload | Callback) => Ok(self),
            (StatusEvent::Announcing, Normal | Recording | Paused | Canceled | Transcode | Upload) => Ok(Callback),
            (StatusEvent::Announcing, Callback) => Ok(self),
            (StatusEvent::Ended, Normal | Recording | Paused | Canceled | Transcode | Upload | Callback) => {
                Ok(Finished)
            }
            (
                StatusEvent::Assembling | StatusEvent::Uploading | StatusEvent::Announcing | StatusEvent::Ended,
                Finished,
            ) => illegal,
        }
    }
}

/// What may happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusEvent {
    /// A caller wants it paused.
    Pause,
    /// A caller wants it to go on.
    Resume,
    /// A caller wants the page reloaded.
    Refresh,
    /// Caller, page, limit or failure ends capture.
    Stop,
    /// The recorder records.
    Capturing,
    /// The recorder is up and paused.
    Holding,
    /// The file is being put together.
    Assembling,
    /// The file is on its way.
    Uploading,
    /// The result is being announced.
    Announcing,
    /// Nothing is left to do.
    Ended,
}

impl StatusEvent {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Pause,
        Self::Resume,
        Self::Refresh,
        Self::Stop,
        Self::Capturing,
        Self::Holding,
        Self::Assembling,
        Self::Uploading,
        Self::Announcing,
        Self::Ended,
    ];
}

/// An event that is not possible in a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible while the task is {}", status.word())]
pub struct IllegalTransition {
    /// The status.
    pub status: Status,
    /// The event.
    pub event: StatusEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: events; columns: statuses in order; `-` is illegal.
    const GOLDEN: &str = "
        Pause      normal    recording paused    -         -         -        -        -
        Resume     normal    recording paused    -         -         -        -        -
        Refresh    normal    recording paused    canceled  transcode upload   callback finished
        Stop       canceled  canceled  canceled  canceled  transcode upload   callback finished
        Capturing  recording recording recording canceled  -         -        -        -
        Holding    paused    paused    paused    canceled  -         -        -        -
        Assembling transcode transcode transcode transcode transcode upload   callback -
        Uploading  upload    upload    upload    upload    upload    upload   callback -
        Announcing callback  callback  callback  callback  callback  callback callback -
        Ended      finished  finished  finished  finished  finished  finished finished -
    ";

    #[test]
    fn every_status_and_event_does_what_the_table_says() {
        let rows: Vec<Vec<&str>> = GOLDEN.trim().lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), StatusEvent::ALL.len());
        for (row, event) in rows.iter().zip(StatusEvent::ALL) {
            assert_eq!(row[0], format!("{event:?}"));
            for (cell, status) in row[1..].iter().zip(Status::ALL) {
                let next = status.next(event).map_or("-", Status::word);
                assert_eq!(next, *cell, "{event:?} in {status:?}");
            }
        }
    }

    #[test]
    fn nothing_goes_backwards_but_paused_to_recording() {
        for (status, event) in Status::ALL.iter().flat_map(|s| StatusEvent::ALL.map(|e| (*s, e))) {
            let Ok(next) = status.next(event) else { continue };
            let allowed = next >= status || (status, next) == (Status::Paused, Status::Recording);
            assert!(allowed, "{event:?}: {status:?} to {next:?}");
        }
    }

    #[test]
    fn the_word_is_the_one_that_is_stored() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{}\"", status.word()));
        }
    }
}
