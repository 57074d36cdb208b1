//! A second process of our own binary, which clears away what we leave behind.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// The hidden verb under which our binary runs as a guard.
pub const GUARD_VERB: &str = "__guard";

/// Kills what we leave behind when we end without warning.
pub struct Guard {
    line: Option<Mutex<ChildStdin>>,
    process: Mutex<Option<process::Child>>,
}

impl Guard {
    /// Starts a guard from `exe`, a panorec binary; `None` means the running one.
    pub fn start(exe: Option<&Path>) -> io::Result<Arc<Self>> {
        let exe = exe.map_or_else(std::env::current_exe, |p| Ok(p.to_path_buf()))?;
        #[expect(clippy::disallowed_methods, reason = "this is the room that starts children")]
        let mut process = process::Command::new(exe)
            .arg(GUARD_VERB)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let line = process.stdin.take().map(Mutex::new);
        Ok(Arc::new(Self { line, process: Mutex::new(Some(process)) }))
    }

    /// No guard: children end with this process only if it ends in an orderly way. For tests of single rooms.
    pub fn disabled() -> Arc<Self> {
        Arc::new(Self { line: None, process: Mutex::new(None) })
    }

    /// Removes `dir` with everything in it when we end without having done so.
    pub fn watch_dir(&self, dir: &Path) {
        self.say(b"dir ", dir.as_os_str().as_bytes());
    }

    pub(super) fn say(&self, verb: &[u8], word: &[u8]) {
        if let Some(line) = &self.line {
            let message = [verb, word, b"\n"].concat();
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            // A guard that died cannot help; the orderly ways still work.
            let _ = line.write_all(&message);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.line = None; // end of file: the guard does what is left to do and ends
        if let Some(mut process) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = process.wait();
        }
    }
}

/// The guard's whole life: reads registrations until end of file, then kills and removes what was not signed off.
pub fn run_guard(input: impl Read) {
    let mut groups = BTreeSet::new();
    let mut dirs = BTreeSet::new();
    for line in io::BufReader::new(input).split(b'\n').map_while(Result::ok) {
        match line.split(|b| *b == b' ').next() {
            Some(b"group") => groups.extend(pid_in(&line[6..])),
            Some(b"done") => {
                if let Some(pid) = pid_in(&line[5..]) {
                    groups.remove(&pid);
                }
            }
            Some(b"dir") => {
                dirs.insert(PathBuf::from(OsString::from_vec(line[4..].to_vec())));
            }
            _ => {}
        }
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    for dir in dirs {
        // Dying processes may still be writing for a moment.
        for _ in 0..50 {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => thread::sleep(Duration::from_millis(20)),
                _ => break,
            }
        }
    }
}

fn pid_in(word: &[u8]) -> Option<i32> {
    // 1 would be init's group and 0 our own.
    std::str::from_utf8(word).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn sleeper() -> super::super::Child {
        Command::new(Path::new("/bin/sh"), "shell").args(["-c", "sleep 300"]).spawn(&Guard::disabled()).unwrap()
    }

    #[test]
    fn the_guard_kills_groups_and_removes_directories_not_signed_off() {
        let mut kept = sleeper();
        let mut lost = sleeper();
        let dir = tempfile::tempdir().unwrap().keep();
        std::fs::write(dir.join("file"), "x").unwrap();
        let said = format!(
            "group {0}\ngroup {1}\ndone {0}\ndir {2}\ngroup 1\nnonsense\n",
            kept.id(),
            lost.id(),
            dir.display()
        );
        run_guard(said.as_bytes());
        assert!(lost.wait_timeout(Duration::from_secs(20)).unwrap().is_some());
        assert!(kept.try_wait().unwrap().is_none());
        assert!(!dir.exists());
    }
}
