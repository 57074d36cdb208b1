//! A small function's share of a machine, by control groups, where this machine lets a test make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lambda gives a whole processor for 1,769 MB.
const MEMORY_BYTES: u64 = 1024 << 20;
const CPU_PERCENT: u64 = 58;

/// The groups, removed with this.
pub struct Limits(Vec<PathBuf>);

impl Limits {
    /// Of memory and processor; `None` where that is not permitted.
    pub fn small() -> Option<Self> {
        Self::new(CPU_PERCENT)
    }

    /// Of memory alone.
    pub fn memory() -> Option<Self> {
        Self::new(100 * std::thread::available_parallelism().map_or(1, usize::from) as u64)
    }

    fn new(cpu_percent: u64) -> Option<Self> {
        let name = format!("panorec-test-{}", std::process::id());
        let (memory, cpu) = (MEMORY_BYTES.to_string(), (cpu_percent * 1000).to_string());
        let root = Path::new("/sys/fs/cgroup");
        let wanted: Vec<(PathBuf, Vec<(&str, String)>)> = if root.join("cgroup.controllers").exists() {
            let both = vec![("memory.max", memory), ("cpu.max", format!("{cpu} 100000"))];
            vec![(root.join(&name), both)]
        } else {
            vec![
                (root.join("memory").join(&name), vec![("memory.limit_in_bytes", memory)]),
                (root.join("cpu").join(&name), vec![("cpu.cfs_period_us", "100000".into()), ("cpu.cfs_quota_us", cpu)]),
            ]
        };
        let mut limits = Self(Vec::new());
        for (group, values) in wanted {
            fs::create_dir(&group).ok()?;
            limits.0.push(group.clone());
            for (file, value) in values {
                // Creating a file here would mean that the controller is not.
                fs::OpenOptions::new().write(true).open(group.join(file)).ok()?;
                fs::write(group.join(file), value).ok()?;
            }
        }
        Some(limits)
    }

    /// A command that enters the groups, if there are any, and then is `program`.
    pub fn enter(limits: Option<&Self>, program: &Path) -> Command {
        let mut command = Command::new("bash");
        command.args([
            "-c",
            "while [[ $1 != -- ]]; do echo $$ >\"$1\" || exit; shift; done; shift; exec \"$@\"",
            "enter",
        ]);
        command.args(limits.into_iter().flat_map(Self::doors)).arg("--").arg(program);
        command
    }

    /// Files that a process writes its id into to be limited.
    pub fn doors(&self) -> Vec<PathBuf> {
        self.0.iter().map(|group| group.join("cgroup.procs")).collect()
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        for group in &self.0 {
            // Its last process may still be on its way out.
            for _ in 0..100 {
                if fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}
