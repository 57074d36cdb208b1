//! A disk that is soon full: a tmpfs of a megabyte or so, unmounted when dropped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one over a directory. Needs root, or sudo without a password as set-up does.
    pub fn mount(at: &Path, megabytes: u32) -> Result<Self, String> {
        let size = format!("size={megabytes}m");
        let mount = ["mount", "-t", "tmpfs", "-o", &size, "tmpfs"];
        if as_root(&mount, at) {
            Ok(Self { at: at.to_path_buf() })
        } else {
            Err("a tmpfs cannot be mounted: run as root, or allow `sudo -n mount`".into())
        }
    }
}

/// Fills what is left of the disk that a directory is on.
pub fn fill(dir: &Path) {
    let mut file = File::create(dir.join("fills-the-disk")).unwrap();
    // In ever smaller pieces, to the last byte.
    for piece in [1 << 16, 1 << 12, 1].map(|bytes| vec![0; bytes]) {
        while file.write(&piece).is_ok_and(|written| written > 0) {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !as_root(&["umount", "-l"], &self.at) {
            eprintln!("{} stays mounted", self.at.display());
        }
    }
}

fn as_root(command: &[&str], at: &Path) -> bool {
    #[allow(clippy::disallowed_methods, reason = "mount is no child of panorec")]
    let run = |command: &[&str]| {
        let done = Command::new(command[0]).args(&command[1..]).arg(at).output();
        done.is_ok_and(|o| o.status.success())
    };
    let with_sudo: Vec<&str> = ["sudo", "-n"].iter().chain(command).copied().collect();
    run(command) || run(&with_sudo)
}
