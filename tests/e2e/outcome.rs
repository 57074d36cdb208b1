//! What a panorec left: its words, its file, what it used.

use crate::judge::Evidence;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// A panorec that has ended, with nothing left behind.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    /// The final object, `Null` if there was none.
    pub json: Value,
    pub out: String,
    pub err: String,
    /// The file, if it was made.
    pub file: PathBuf,
    /// Most memory that panorec itself held.
    pub peak_kb: u64,
    /// The same over time, current instead of most.
    pub resident: Vec<(Duration, u64)>,
    /// From the signal to the end.
    pub finished_after: Option<Duration>,
    /// Share of the machine's CPU that nobody used in the busiest second. Only when there was some is slowness panorec's own: one bad
    /// second leaves Chromium's pictures late for many more.
    pub spare: f64,
}

/// With this much of the machine idle, nothing that is late can be blamed on others.
const QUIET: f64 = 0.5;

impl Outcome {
    /// The recording must have gone well: exit status, final object, and a file that can be judged.
    pub fn good(&self) -> Evidence {
        assert!(self.status.success(), "{}: {}\n{}", self.status, self.err, self.out);
        assert!(self.json.is_object(), "no final object in: {}", self.out);
        assert!(self.json.get("ErrorCode").is_none(), "{}", self.json);
        self.evidence()
    }

    /// What is in the file, whatever else happened.
    pub fn evidence(&self) -> Evidence {
        Evidence::of(&self.file).unwrap_or_else(|e| panic!("{e}\npanorec said: {}\n{}", self.err, self.out))
    }

    /// A number of the final object, by path.
    pub fn number(&self, path: &str) -> f64 {
        let value = self.json.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {path} in {}", self.json))
    }

    /// A list of the final object, by path.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let value = self.json.pointer(path).and_then(Value::as_array);
        value.cloned().unwrap_or_else(|| panic!("no list at {path} in {}", self.json))
    }

    /// Whether the machine had CPU to spare.
    pub fn quiet(&self) -> bool {
        self.spare >= QUIET
    }

    /// The recording must have failed: exit status, one sentence with all `words`, and a code if a final object was printed.
    pub fn failed(&self, words: &[&str]) {
        assert!(!self.status.success(), "it went well: {}", self.out);
        assert!(self.status.code().is_some(), "it was killed: {}", self.status);
        // Log lines begin with their time and may come before it.
        let lines: Vec<&str> = self.err.lines().filter(|l| l.starts_with("panorec: ")).collect();
        assert_eq!(lines.len(), 1, "one clear message, not:\n{}", self.err);
        for word in words {
            let found = lines[0].to_lowercase().contains(&word.to_lowercase());
            assert!(found, "`{word}` is not in: {}", self.err);
        }
        if !self.json.is_null() {
            for field in ["ErrorCode", "ErrorMessage"] {
                assert!(self.json[field].is_string(), "no {field} in {}", self.json);
            }
        }
    }
}
