//! Child processes: the only place that starts any, and the one that sees to it that none outlives us.
//!
//! Every child leads a process group of its own and gets only the environment it is given, so neither a terminal's
//! Ctrl-C nor our secrets reach it. A normal end goes through [`Child::end`]; `Drop` is the last defence inside the
//! process. For an end that leaves no time for either (SIGKILL, out of memory) there is the [`Guard`]: a second
//! process of our own binary that waits for our end of a pipe to close and then kills what is still registered.
//! It needs no prctl, which Lambda refuses. Where that is permitted, what a child leaves behind comes to us and not to
//! process 1, which in a container may be a program that never collects it.

mod guard;
mod orphans;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};

pub use guard::{GUARD_VERB, Guard, run_guard};
pub use orphans::adopt as adopt_orphans;

/// Bytes of stderr that an error message quotes at most: enough for FFmpeg's and Chromium's last words.
const STDERR_TAIL_BYTES: usize = 8 * 1024;
/// How often a wait looks: short beside every grace period, long beside a system call.
const WAIT_STEP: Duration = Duration::from_millis(4);
/// How long the last words of a child that has ended may take through their pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long a program may be busy with being written: from another child's fork to its exec.
const BEING_WRITTEN: Duration = Duration::from_secs(2);
/// How long the members of a group that has been killed may take to die.
const DYING: Duration = Duration::from_millis(500);

/// From this size on, what is freed goes back to the system at once: a picture of 1280x720 has 1.4 MB, and 16 of them are on
/// their way to the encoder.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: libc::c_int = 1 << 20;

/// Has large blocks, and the ends of heaps, go back to the system as they are freed; to be called first. Left alone, the C
/// library takes the largest block that was ever freed for what it may keep, and twice that at the end of each thread's heap,
/// where [`give_memory_back`] does not reach: a function that had unpacked its layers kept 16 MB of that for ever, and the 22
/// MB of a recording's pictures in one of ten recordings, in another heap each time.
pub fn keep_little_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * OWN_PAGES_BYTES);
    }
}

/// Gives memory back that was freed. Frames are freed on other threads than they are made on, and the C library keeps what is
/// freed for each thread: an environment that records again and again would keep the most that each of them ever had.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A child to be started.
pub struct Command {
    name: &'static str,
    inner: process::Command,
    fds: Vec<(OwnedFd, RawFd)>,
    nice: Option<i32>,
}

impl Command {
    /// A program with an empty environment; `name` is for messages.
    pub fn new(program: &Path, name: &'static str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the room that starts children")]
        let mut inner = process::Command::new(program);
        inner.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { name, inner, fds: Vec::new(), nice: None }
    }
    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.inner.arg(arg.into());
        self
    }
    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.inner.args(args.into_iter().map(Into::into));
        self
    }
    /// Sets a variable of the otherwise empty environment.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.inner.env(key.into(), value.into());
        self
    }
    /// Sets standard input (default: nothing).
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.inner.stdin(stdin);
        self
    }
    /// Sets standard output (default: discarded).
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.inner.stdout(stdout);
        self
    }
    /// Hands `fd` to the child as number `as_fd` (3 or more).
    pub fn fd(mut self, fd: OwnedFd, as_fd: RawFd) -> Self {
        self.fds.push((fd, as_fd));
        self
    }
    /// Asks for a niceness; ignored where it is not permitted. The child gets a session of its own: where the scheduler
    /// groups by session (`sched_autogroup`), niceness counts against others only when the session has it.
    pub fn priority(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }

    /// Starts it.
    pub fn spawn(mut self, guard: &Arc<Guard>) -> io::Result<Child> {
        let fds: Vec<(RawFd, RawFd)> = self.fds.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
        let nice = self.nice.map(|nice| (nice, nice.to_string()));
        if nice.is_none() {
            self.inner.process_group(0);
        }
        if nice.is_some() || !fds.is_empty() {
            // SAFETY: only async-signal-safe calls between fork and exec; the descriptors outlive the spawn.
            unsafe {
                self.inner.pre_exec(move || {
                    if let Some((nice, text)) = &nice {
                        own_session(*nice, text.as_bytes())?;
                    }
                    hand_over(&fds)
                })
            };
        }
        let mut inner = self.start()?;
        let id = inner.id();
        guard.say(b"group ", id.to_string().as_bytes());
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let drain = match inner.stderr.take() {
            Some(stderr) => {
                let tail = Arc::clone(&tail);
                Some(
                    thread::Builder::new()
                        .name(format!("{}-stderr", self.name))
                        .spawn(move || drain_into(stderr, &tail))?,
                )
            }
            None => None,
        };
        Ok(Child { name: self.name, inner, guard: Arc::clone(guard), tail, drain, reaped: None })
    }

    /// A program that was written a moment ago may still be open in a child that has been forked and has not become its own
    /// program yet: the system refuses to run it until then.
    fn start(&mut self) -> io::Result<process::Child> {
        let deadline = Instant::now() + BEING_WRITTEN;
        loop {
            match self.inner.spawn() {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    thread::sleep(WAIT_STEP);
                }
                result => return result,
            }
        }
    }
}

/// Runs in the child between fork and exec: a session, which is a group too, and its priority as far as permitted.
fn own_session(nice: i32, text: &[u8]) -> io::Result<()> {
    // SAFETY: system calls only; the path is a constant with its terminator, the text is alive during the call.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        let autogroup = libc::open(c"/proc/self/autogroup".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if autogroup >= 0 {
            libc::write(autogroup, text.as_ptr().cast(), text.len());
            libc::close(autogroup);
        }
    }
    Ok(())
}

/// Runs in the child between fork and exec.
fn hand_over(fds: &[(RawFd, RawFd)]) -> io::Result<()> {
    for (from, to) in fds {
        // SAFETY: dup2 and fcntl are async-signal-safe; numbers come from live descriptors of the parent.
        let result = unsafe { if from == to { libc::fcntl(*from, libc::F_SETFD, 0) } else { libc::dup2(*from, *to) } };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn drain_into(mut stderr: ChildStderr, tail: &Mutex<VecDeque<u8>>) {
    let mut block = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut block) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&block[..n]);
        let excess = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..excess);
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status, if it could be had.
    pub status: Option<ExitStatus>,
    /// It did not end by itself within the grace period.
    pub killed: bool,
}

/// A running child, leader of its own process group.
pub struct Child {
    name: &'static str,
    inner: process::Child,
    guard: Arc<Guard>,
    tail: Arc<Mutex<VecDeque<u8>>>,
    drain: Option<thread::JoinHandle<()>>,
    reaped: Option<ExitStatus>,
}

impl Child {
    /// Process id, also the process group's.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }
    /// The writing end of its standard input, once, if piped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.inner.stdin.take()
    }
    /// The reading end of its standard output, once, if piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.inner.stdout.take()
    }
    /// Its status if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.reaped.is_none() {
            self.reaped = self.inner.try_wait()?;
            if self.reaped.is_some() {
                self.sign_off();
            }
        }
        Ok(self.reaped)
    }
    /// Waits for its end, at most `limit`.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.try_wait()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(WAIT_STEP);
        }
    }
    /// The last words on its standard error.
    pub fn stderr_tail(&self) -> String {
        // Just after its end they may still be on their way.
        let deadline = Instant::now() + LAST_WORDS;
        while self.reaped.is_some()
            && self.drain.as_ref().is_some_and(|d| !d.is_finished())
            && Instant::now() < deadline
        {
            thread::sleep(WAIT_STEP);
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail.iter().copied().collect::<Vec<_>>()).trim().to_owned()
    }
    /// Ends it: asks the whole group, waits for at most `grace`, then kills the group. No process of it is left.
    pub fn end(mut self, grace: Duration) -> Exit {
        self.signal(Signal::TERM);
        let status = if grace.is_zero() { None } else { self.wait_timeout(grace).ok().flatten() };
        let killed = status.is_none();
        self.kill_and_reap();
        Exit { status: self.reaped, killed }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.id() as i32) {
            let _ = kill_process_group(group, signal);
        }
    }

    fn kill_and_reap(&mut self) {
        // Members of the group may outlive its leader, so this is done even when the leader was reaped.
        self.signal(Signal::KILL);
        if self.reaped.is_none() {
            self.reaped = self.inner.wait().ok();
            self.sign_off();
        }
        self.collect_orphans();
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }

    /// Takes the status of those of its group that have become ours, and of whoever else it has left behind. The leader's has
    /// been taken: its number may be another's, but not another group's as long as this one has members.
    fn collect_orphans(&self) {
        let Some(group) = Pid::from_raw(self.id() as i32).filter(|_| self.reaped.is_some()) else { return };
        let deadline = Instant::now() + DYING;
        loop {
            match waitpgid(group, WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) if Instant::now() < deadline => thread::sleep(WAIT_STEP),
                _ => break, // none is left, or one that nobody can kill
            }
        }
        orphans::collect();
    }

    fn sign_off(&self) {
        self.signal(Signal::KILL);
        self.guard.say(b"done ", self.id().to_string().as_bytes());
        tracing::debug!(child = self.name, pid = self.id(), "child reaped");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped.is_none() || self.drain.is_some() {
            self.kill_and_reap();
        }
    }
}
