//! Who descends from a process, ever; and how busy the machine is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often /proc is read: a process that lives shorter leaves nothing.
const STEP: Duration = Duration::from_millis(50);

/// Starting a browser takes all there is; that says nothing of the machine.
const STARTUP_SECONDS: usize = 2;

/// One life of a process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Life {
    pid: u32,
    /// In clock ticks since boot: ids are used again, this is not.
    born: u64,
}

struct Stat {
    life: Life,
    parent: u32,
    dead: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        life: Life { pid, born: fields.get(19)?.parse().ok()? },
        parent: fields.get(1)?.parse().ok()?,
        dead: matches!(*fields.first()?, "Z" | "X"),
    })
}

fn all() -> Vec<Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Remembers every descendant of a process, whoever adopts it later.
pub struct Watch {
    root: u32,
    seen: Arc<Mutex<HashMap<Life, String>>>,
    peak_kb: Arc<AtomicU64>,
    resident: Arc<Mutex<Vec<(Duration, u64)>>>,
    idle: Arc<Mutex<Vec<f64>>>,
    ended: Arc<AtomicBool>,
    dir: PathBuf,
}

impl Watch {
    /// Watches `root`; `dir` is where it has its files: a process that names it is a descendant too.
    pub fn start(root: u32, dir: &Path) -> Self {
        let watch = Self {
            root,
            seen: Arc::default(),
            peak_kb: Arc::default(),
            resident: Arc::default(),
            idle: Arc::default(),
            ended: Arc::default(),
            dir: dir.to_path_buf(),
        };
        let (seen, peak, ended) = (watch.seen.clone(), watch.peak_kb.clone(), watch.ended.clone());
        let (resident, idle) = (watch.resident.clone(), watch.idle.clone());
        thread::spawn(move || {
            let start = Instant::now();
            let mut idleness = Idleness::new();
            while !ended.load(Ordering::Relaxed) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                note_descendants(root, &mut seen);
                drop(seen);
                peak.fetch_max(memory_kb(root, "VmHWM:"), Ordering::Relaxed);
                let now = (start.elapsed(), memory_kb(root, "VmRSS:"));
                if now.1 > 0 {
                    resident.lock().unwrap_or_else(PoisonError::into_inner).push(now);
                }
                if let Some(share) = idleness.look() {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(share);
                }
                thread::sleep(STEP);
            }
        });
        watch
    }

    /// Most memory of the root, kB.
    pub fn peak_kb(&self) -> u64 {
        self.peak_kb.load(Ordering::Relaxed)
    }

    /// Share of the machine that nobody used in the busiest second, start-up left out.
    pub fn spare(&self) -> f64 {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().skip(STARTUP_SECONDS).copied().fold(1.0, f64::min)
    }

    /// Memory of the root over time, kB.
    pub fn resident(&self) -> Vec<(Duration, u64)> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Descendants that run now and whose command line contains `word`, oldest first.
    pub fn running(&self, word: &str) -> Vec<u32> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        note_descendants(self.root, &mut seen);
        let mut lives: Vec<Life> = seen.keys().copied().filter(is_alive).collect();
        drop(seen);
        lives.sort_by_key(|l| (l.born, l.pid));
        lives.into_iter().map(|l| l.pid).filter(|pid| command_line(*pid).contains(word)).collect()
    }

    /// Parent of a process that runs.
    pub fn parent(pid: u32) -> Option<u32> {
        stat(pid).map(|s| s.parent)
    }

    /// Descendants that still run `grace` after the root's end, ended here; none is right.
    pub fn left_after(&self, grace: Duration) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        let until = Instant::now() + grace;
        loop {
            let left = self.alive();
            if left.is_empty() || Instant::now() > until {
                for (life, _) in &left {
                    if let Some(pid) = rustix::process::Pid::from_raw(life.pid as i32) {
                        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
                    }
                }
                return left.into_iter().map(|(l, name)| format!("{} {name}", l.pid)).collect();
            }
            thread::sleep(STEP);
        }
    }

    fn alive(&self) -> Vec<(Life, String)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was born between two looks and orphaned at once names our directory.
        let dir = self.dir.to_string_lossy().into_owned();
        for s in all() {
            let line = command_line(s.life.pid);
            if line.contains(&dir) && s.life.pid != std::process::id() {
                seen.entry(s.life).or_insert(line);
            }
        }
        let alive = seen.iter().filter(|(life, _)| is_alive(life));
        alive.map(|(l, name)| (*l, name.clone())).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn is_alive(life: &Life) -> bool {
    stat(life.pid).is_some_and(|s| s.life == *life && !s.dead)
}

fn note_descendants(root: u32, seen: &mut HashMap<Life, String>) {
    let processes = all();
    loop {
        let before = seen.len();
        for s in &processes {
            let parent_seen = s.parent == root || seen.keys().any(|l| l.pid == s.parent && is_alive(l));
            if parent_seen && !seen.contains_key(&s.life) {
                seen.insert(s.life, command_line(s.life.pid).chars().take(160).collect());
            }
        }
        if seen.len() == before {
            return;
        }
    }
}

fn memory_kb(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of the whole machine, to tell a slow recorder from a busy machine.
#[derive(Clone, Copy)]
struct Cpu {
    idle: u64,
    total: u64,
}

impl Cpu {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest times are in user already
        Self { idle: ticks.iter().skip(3).take(2).sum(), total: ticks.iter().take(8).sum() }
    }

    /// Share of the machine that was idle since; stolen time is not.
    fn idle_share(self) -> f64 {
        let now = Self::now();
        (now.idle - self.idle) as f64 / (now.total - self.total).max(1) as f64
    }
}

/// Looks at the machine once a second.
struct Idleness {
    since: Cpu,
    at: Instant,
    seconds: Vec<f64>,
}

impl Idleness {
    fn new() -> Self {
        Self { since: Cpu::now(), at: Instant::now(), seconds: Vec::new() }
    }

    fn look(&mut self) -> Option<f64> {
        if self.at.elapsed() < Duration::from_secs(1) {
            return None;
        }
        self.seconds.push(self.since.idle_share());
        (self.since, self.at) = (Cpu::now(), Instant::now());
        self.seconds.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    #[allow(clippy::disallowed_methods, reason = "children to be watched")]
    fn an_orphan_is_still_known_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        // The shell starts a grandchild and ends when its input does.
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 97 & read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let watch = Watch::start(shell.id(), dir.path());
        let until = Instant::now() + Duration::from_secs(10);
        while watch.running("sleep 97").is_empty() {
            assert!(Instant::now() < until, "never seen");
            thread::sleep(STEP);
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
        let left = watch.left_after(Duration::from_millis(200));
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].contains("sleep 97"));
        assert!(watch.left_after(Duration::from_secs(5)).is_empty(), "it was not ended");
    }

    #[test]
    fn the_machine_is_never_more_than_idle() {
        let mut idleness = Idleness::new();
        assert_eq!(idleness.look(), None, "a second has not passed");
        thread::sleep(Duration::from_millis(1100));
        assert!((0.0..=1.0).contains(&idleness.look().unwrap()));
    }
}
