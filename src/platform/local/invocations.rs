//! Invocations as processes of this program: each has a session of its own and goes on when the gateway that started it
//! ends, as a function's invocations do. The deadline is the process's own affair.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use async_trait::async_trait;

use super::store_error;
use crate::platform::{Continuation, RecorderEvent, StoreError, recorder_event};

/// Starts a process for each invocation.
pub struct ChildContinuation {
    exe: PathBuf,
    args: Vec<OsString>,
}

impl ChildContinuation {
    /// Processes of `exe`, a panorec binary, with these arguments of `invoke`. They inherit the environment: they are the
    /// same program with the same settings.
    pub fn new(exe: PathBuf, args: Vec<OsString>) -> Self {
        Self { exe, args }
    }

    fn start(&self, event: &RecorderEvent) -> io::Result<()> {
        #[expect(
            clippy::disallowed_methods,
            reason = "an invocation is nobody's child to be ended with: it outlives us"
        )]
        let mut command = Command::new(&self.exe);
        command.arg("invoke").args(&self.args).arg("-").stdin(Stdio::piped()).stdout(Stdio::null());
        // SAFETY: setsid is async-signal-safe and touches nothing of ours.
        unsafe {
            command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
        }
        let mut process = command.spawn()?;
        let written = match process.stdin.take() {
            Some(mut stdin) => stdin.write_all(recorder_event(event).to_string().as_bytes()),
            None => Ok(()),
        };
        // Somebody has to hear of its end, or it stays as a zombie.
        std::thread::Builder::new().name("invocation".into()).spawn(move || process.wait())?;
        written
    }
}

#[async_trait]
impl Continuation for ChildContinuation {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        self.start(event).map_err(|e| store_error("invoke a recorder for", &event.task, e))
    }
}
