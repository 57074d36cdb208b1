//! Invocations of ourselves as processes.
//!
//! An invocation is no child to be ended with us: it leads a session of its own, so that neither a terminal's Ctrl-C nor
//! the end of the gateway reaches it, and keeps its own hard deadline. It is the same program with the same settings, so
//! it gets our environment. As a platform does, we give its event to another one when it fails, for as long as we are there:
//! a sweep finds what is left undone.

use super::kind_of;
use crate::platform::{Continuation, RecorderEvent, StoreError, StoreErrorKind};
use async_trait::async_trait;
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

/// The verb that runs one event.
const VERB: &str = "invoke";
/// Times that an event is given again, as AWS Lambda does.
const AGAIN: u32 = 2;
/// An invocation that was at work for so long before it failed is counted anew: recorders may be lost again and again in hours.
const AT_WORK: Duration = Duration::from_secs(5);

/// Starts `EXE invoke ARGS… -` with the event on its standard input.
#[derive(Debug, Clone)]
pub struct ChildContinuation {
    start: Arc<Start>,
}

#[derive(Debug)]
struct Start {
    exe: PathBuf,
    args: Vec<OsString>,
    log: Option<PathBuf>,
}

impl ChildContinuation {
    /// Invocations of `exe`, a panorec binary. What they print is appended to `log`; without one, their log goes where ours goes.
    pub fn new(exe: PathBuf, args: Vec<OsString>, log: Option<PathBuf>) -> Self {
        Self { start: Arc::new(Start { exe, args, log }) }
    }
}

#[async_trait]
impl Continuation for ChildContinuation {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        let failed = |(kind, source)| StoreError { op: "invoke for", key: event.task.clone(), kind, source };
        let body = serde_json::json!({ "Recorder": event }).to_string();
        let (start, task) = (Arc::clone(&self.start), event.task.clone());
        let child = start.with(&body).await.map_err(failed)?;
        tokio::spawn(see_through(start, child, body, task));
        Ok(())
    }
}

impl Start {
    /// An invocation with this event.
    async fn with(self: &Arc<Self>, body: &str) -> Result<Child, (StoreErrorKind, io::Error)> {
        let start = Arc::clone(self);
        // Starting copies our page tables: not on a thread that serves others.
        let mut child = match tokio::task::spawn_blocking(move || start.spawn()).await.map_err(io::Error::other) {
            Ok(Ok(child)) => child,
            Ok(Err(e)) | Err(e) => return Err((kind_of_start(&e), explain(&self.exe, &e))),
        };
        // A pipe holds more than an event, so this waits for nobody.
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(body.as_bytes()).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map(|()| child).map_err(|e| (StoreErrorKind::Unavailable, e))
    }

    fn spawn(&self) -> io::Result<Child> {
        #[expect(clippy::disallowed_methods, reason = "an invocation is not a child to be ended with us")]
        let mut command = std::process::Command::new(&self.exe);
        // Its answer is for nobody.
        command.arg(VERB).args(&self.args).arg("-").stdin(Stdio::piped()).stdout(Stdio::null());
        if let Some(path) = &self.log {
            let log = File::options().create(true).append(true).open(path)?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        // SAFETY: setsid is async-signal-safe, and nothing else runs between fork and exec.
        unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
        tokio::process::Command::from(command).spawn()
    }
}

/// Collects an invocation's exit status, and starts others as long as they fail and may.
async fn see_through(start: Arc<Start>, mut child: Child, body: String, task: String) {
    let mut left = AGAIN;
    loop {
        let (pid, began) = (child.id(), Instant::now());
        tracing::debug!(task, pid, "invocation started");
        match child.wait().await {
            Ok(status) if status.success() => return tracing::debug!(task, pid, "invocation ended"),
            Ok(status) => tracing::warn!(task, pid, %status, "invocation failed"),
            Err(error) => return tracing::warn!(task, pid, %error, "invocation cannot be waited for"),
        }
        if began.elapsed() >= AT_WORK {
            left = AGAIN;
        }
        let Some(fewer) = left.checked_sub(1) else { return };
        left = fewer;
        child = match start.with(&body).await {
            Ok(child) => child,
            Err((_, error)) => return tracing::warn!(task, %error, "invocation not started again"),
        };
    }
}

/// Too many processes or files, or too little memory, is over later; a program that is not there is not.
fn kind_of_start(error: &io::Error) -> StoreErrorKind {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => StoreErrorKind::Throttled,
        _ => match kind_of(error) {
            StoreErrorKind::NotFound => StoreErrorKind::Refused,
            kind => kind,
        },
    }
}

fn explain(exe: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}` cannot be started: {error}", exe.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};

    /// A program, written by another process: one that we had open for writing could not be started while any other
    /// test's child still has it, too.
    #[expect(clippy::disallowed_methods, reason = "a test may wait for a tool")]
    fn program(dir: &Path, script: &str) -> PathBuf {
        let (text, exe) = (dir.join("text"), dir.join("program"));
        std::fs::write(&text, format!("#!/bin/sh\ncd {}\n{script}\n", dir.display())).unwrap();
        let done = std::process::Command::new("install").arg("-m755").arg(&text).arg(&exe).status().unwrap();
        assert!(done.success());
        exe
    }

    fn event() -> RecorderEvent {
        RecorderEvent { task: "t-1".into(), generation: None }
    }

    /// The first line of a file, once it is there.
    fn line_in(path: &Path) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text.lines().next().unwrap().to_owned(),
                _ => assert!(Instant::now() < deadline, "{} did not appear", path.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_event_arrives_in_a_session_of_its_own_and_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let exe = program(
            dir.path(),
            "read -r event; rest=$(cat); echo \"$*|$event|$rest|$PATH\" > event\n\
             echo said; echo loudly >&2; cut -d' ' -f1,6 /proc/$$/stat > made; mv made ids",
        );
        let log = dir.path().join("log");
        let args = vec!["--data".into(), "a b".into()];
        let continuation = ChildContinuation::new(exe, args, Some(log.clone()));
        continuation.invoke(&event()).await.unwrap();
        let ids = tokio::task::spawn_blocking({
            let ids = dir.path().join("ids");
            move || line_in(&ids)
        })
        .await
        .unwrap();
        let path = std::env::vars().find(|(name, _)| name == "PATH").unwrap().1;
        let seen = line_in(&dir.path().join("event"));
        assert_eq!(seen, format!("invoke --data a b -|{{\"Recorder\":{{\"TaskID\":\"t-1\"}}}}||{path}"));
        assert_eq!(std::fs::read_to_string(log).unwrap(), "said\nloudly\n");
        let (pid, session) = ids.split_once(' ').unwrap();
        assert_eq!(pid, session);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Path::new("/proc").join(pid).exists() {
            assert!(Instant::now() < deadline, "{pid} is a zombie");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn an_invocation_outlives_the_one_who_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let exe = program(dir.path(), "echo $$ > made; mv made pid; exec sleep 60");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ChildContinuation::new(exe, Vec::new(), None).invoke(&event())).unwrap();
        drop(runtime);
        let pid = Pid::from_raw(line_in(&dir.path().join("pid")).parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).expect("it runs on");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_event_of_an_invocation_that_fails_is_given_to_others_but_not_for_ever() {
        for (script, times) in [("kill -9 $$", 3), ("test $(wc -l < events) -ge 2", 2)] {
            let dir = tempfile::tempdir().unwrap();
            let exe = program(dir.path(), &format!("cat >> events; echo >> events; {script}"));
            ChildContinuation::new(exe, Vec::new(), None).invoke(&event()).await.unwrap();
            let events = || std::fs::read_to_string(dir.path().join("events")).unwrap_or_default();
            let wanted = "{\"Recorder\":{\"TaskID\":\"t-1\"}}\n".repeat(times);
            let deadline = Instant::now() + Duration::from_secs(30);
            while events().len() < wanted.len() {
                assert!(Instant::now() < deadline, "{}", events());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(events(), wanted);
        }
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_is_named() {
        let exe = PathBuf::from("/no/such/panorec");
        let error = ChildContinuation::new(exe, Vec::new(), None).invoke(&event()).await.unwrap_err();
        assert_eq!((error.kind, error.key.as_str()), (StoreErrorKind::Refused, "t-1"));
        assert!(error.source.to_string().contains("/no/such/panorec"), "{}", error.source);
    }

    #[test]
    fn what_is_over_later_may_be_tried_again() {
        let kind = |errno: Errno| kind_of_start(&errno.into());
        assert_eq!(kind(Errno::AGAIN), StoreErrorKind::Throttled);
        assert_eq!(kind(Errno::ACCESS), StoreErrorKind::Refused);
        assert_eq!(kind(Errno::IO), StoreErrorKind::Unavailable);
    }
}
