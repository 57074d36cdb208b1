//! The window functions: what is put into every document, and how their calls come out.
//!
//! The page's calls are fetched, one at a time, by evaluating a promise that resolves with the next call. Compared
//! with a binding this needs no Runtime domain (which would send us every console line), cannot flood us, and shows
//! the page nothing but one frozen property.

/// Calls a page may have waiting, and callbacks it may have open; more are ignored. A person's page has one or two.
const PAGE_LIMIT: usize = 32;
/// Longest call that is believed: the longest action and two numbers are under 70 bytes.
const MAX_CALL_BYTES: usize = 128;

/// What a page asks for through a window function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `startRecord`; after the start it acts as resume.
    Start,
    /// `pauseRecord`.
    Pause,
    /// `resumeRecord`.
    Resume,
    /// `refreshPage`.
    Refresh,
    /// `stopRecord`.
    Stop,
}

/// A call of a window function. Acknowledge it when what it asks for is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub action: Action,
    callback: Option<String>,
}

impl Call {
    /// Reads what `__panorec.next()` gives.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (action, callback) = text.split_once(' ').filter(|_| text.len() <= MAX_CALL_BYTES)?;
        let action = match action {
            "start" => Action::Start,
            "pause" => Action::Pause,
            "resume" => Action::Resume,
            "refresh" => Action::Refresh,
            "stop" => Action::Stop,
            _ => return None,
        };
        if !callback.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) {
            return None; // it becomes part of an expression
        }
        Some(Self { action, callback: (!callback.is_empty()).then(|| callback.to_owned()) })
    }

    /// The expression that calls the page's callback; `None` if it gave none.
    pub(super) fn acknowledgement(&self) -> Option<String> {
        self.callback.as_ref().map(|id| format!("__panorec.done('{id}')"))
    }
}

/// The expression whose promise resolves with the next call.
pub(super) const NEXT_CALL: &str = "__panorec.next()";

/// The script for every new document.
pub(super) fn init_script() -> String {
    include_str!("page.js").replace("PAGE_LIMIT", &PAGE_LIMIT.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_strictly() {
        let call = Call::parse("pause 1763856000000.5-0.25-7").unwrap();
        assert_eq!(call.action, Action::Pause);
        assert_eq!(call.acknowledgement().unwrap(), "__panorec.done('1763856000000.5-0.25-7')");
        assert_eq!(Call::parse("stop ").unwrap().acknowledgement(), None);
        let long = format!("stop {}", "1".repeat(MAX_CALL_BYTES));
        for bad in ["", "stop", "halt 1", "stop ');evil('", "Stop 1", &long] {
            assert_eq!(Call::parse(bad), None, "{bad}");
        }
    }
}
