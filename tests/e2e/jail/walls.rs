//! Walls like Lambda's, by bubblewrap: no root but the layers and the C library, no /dev/shm, no capability, nobody's user,
//! and system calls refused. What Lambda refuses is not public; this is what reports of it agree on.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The user of a function.
const USER: &str = "993";
const GROUP: &str = "990";
/// What Amazon Linux has and the function's program asks for. Chromium brings its own.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];

/// Calls that are forbidden, and calls that the kernel is said not to have.
const FORBIDDEN: [libc::c_long; 6] = [
    libc::SYS_prctl,
    libc::SYS_ptrace,
    libc::SYS_fallocate,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_process_vm_readv,
];
const UNKNOWN: [libc::c_long; 5] =
    [libc::SYS_memfd_create, libc::SYS_clone3, libc::SYS_statx, libc::SYS_close_range, libc::SYS_rseq];

/// The filter as the kernel reads it: an array of `struct sock_filter` (seccomp(2), filter mode).
fn filter() -> Vec<u8> {
    const LOAD_NUMBER: (u16, u8, u8, u32) = (0x20, 0, 0, 0);
    let mut program = vec![LOAD_NUMBER];
    let refused = FORBIDDEN.map(|call| (call, libc::EPERM)).into_iter().chain(UNKNOWN.map(|call| (call, libc::ENOSYS)));
    for (call, error) in refused {
        program.push((0x15, 0, 1, call as u32)); // other numbers skip the next
        program.push((0x06, 0, 0, 0x0005_0000 | error as u32)); // SECCOMP_RET_ERRNO
    }
    program.push((0x06, 0, 0, 0x7fff_0000)); // SECCOMP_RET_ALLOW
    let words = program
        .iter()
        .map(|(code, yes, no, value)| [&code.to_ne_bytes()[..], &[*yes, *no], &value.to_ne_bytes()].concat());
    words.flatten().collect()
}

/// Where a host keeps a library.
fn library(name: &str) -> PathBuf {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let places = [format!("/lib/{triplet}"), "/lib64".into(), "/lib".into(), format!("/usr/lib/{triplet}")];
    let found = places.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is in none of {places:?}"))
}

/// The loader that the ABI names.
fn loader() -> &'static str {
    if cfg!(target_arch = "aarch64") { "/lib/ld-linux-aarch64.so.1" } else { "/lib64/ld-linux-x86-64.so.2" }
}

/// A command inside: `program` and everything it needs are under `files` (inside, outside).
pub fn command(
    layers: &Path,
    files: &[(&str, &Path)],
    tmp: Option<&Path>,
    env: &[(&str, &str)],
    dir: &Path,
) -> Command {
    let wall = dir.join("filter");
    std::fs::write(&wall, filter()).unwrap();
    let mut command = Command::new("bash");
    // The filter comes as an open file.
    command.args(["-c", "exec 9<\"$0\"; exec bwrap --seccomp 9 \"$@\""]).arg(&wall);
    command.args(["--unshare-user", "--uid", USER, "--gid", GROUP, "--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
    command.args(["--cap-drop", "ALL", "--die-with-parent", "--clearenv"]);
    for (name, value) in env {
        command.args(["--setenv", name, value]);
    }
    command.arg("--ro-bind").arg(layers).arg("/opt");
    for (inside, outside) in files {
        command.arg("--ro-bind").arg(outside).arg(inside);
    }
    command.arg("--ro-bind").arg(Path::new(loader()).canonicalize().unwrap()).arg(loader());
    for path in LIBRARIES.map(library) {
        command.arg("--ro-bind").arg(path.canonicalize().unwrap()).arg(path);
    }
    command.args(["--proc", "/proc", "--dir", "/dev"]);
    for device in ["null", "zero", "full", "random", "urandom"] {
        let path = format!("/dev/{device}");
        command.args(["--dev-bind", &path, &path]);
    }
    match tmp {
        Some(tmp) => command.arg("--bind").arg(tmp).arg("/tmp"),
        None => command.args(["--perms", "1777", "--size", "1073741824", "--tmpfs", "/tmp"]),
    };
    command.args(["--remount-ro", "/", "--chdir", "/var/task"]);
    command
}

/// Fails with the way out where there is no jail to be had.
pub fn check() {
    let tried = Command::new("bwrap").args(["--unshare-user", "--uid", USER, "--ro-bind", "/", "/", "true"]).output();
    let tried = tried.unwrap_or_else(|e| panic!("bwrap: {e}; install bubblewrap with: scripts/setup.sh test"));
    let said = String::from_utf8_lossy(&tried.stderr);
    assert!(
        tried.status.success(),
        "bubblewrap cannot make a user namespace here: {said}\nPermit it: sysctl user.max_user_namespaces=10000, on Debian \
         kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; a container needs \
         to be started with permission for it (seccomp and AppArmor profiles unconfined)"
    );
}
