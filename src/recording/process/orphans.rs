//! Processes whose parents have died, collected by us and not by process 1, which in a container may be a program that
//! never collects any: of each recording nine of Chromium's would stay as zombies.

use std::fs;
use std::process;

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

/// Has them become our children, see prctl(2), `PR_SET_CHILD_SUBREAPER`. Nothing changes where that is refused.
pub fn adopt() {
    let _ = set_child_subreaper(Some(getpid()));
}

/// Collects those that have ended. None that we have started is among them: each of these leads a group, unless it is in
/// ours, and somebody waits for it.
pub(super) fn collect() {
    let Ok(all) = fs::read_dir("/proc") else { return };
    let stat = |id: &str| fs::read_to_string(format!("/proc/{id}/stat")).ok().and_then(|line| Stat::read(&line));
    let Some(own) = stat("self") else { return };
    for entry in all.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(found) = stat(&id.to_string()) else { continue };
        let orphan = found.state == 'Z' && found.parent == process::id() as i32 && found.group != id;
        if let Some(pid) = Pid::from_raw(id).filter(|_| orphan && found.group != own.group) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// What proc(5) says of a process in `stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    state: char,
    parent: i32,
    group: i32,
}

impl Stat {
    fn read(line: &str) -> Option<Self> {
        // The name before it may have blanks and brackets of its own.
        let mut fields = line.rsplit_once(')')?.1.split_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_anything() {
        let read = Stat::read("7 (a) Z (1 2) S 12 -3 7 0 -1");
        assert_eq!(read, Some(Stat { state: 'S', parent: 12, group: -3 }));
        assert_eq!(Stat::read("7 (a) S 12"), None);
    }
}
