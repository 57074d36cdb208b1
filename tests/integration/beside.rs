//! `scripts/beside.sh`: set-up and a build at once, neither of which outlives the other's failure.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than the test waits for anything; only who is ended ends sooner.
const LONG: &str = "sleep 300";

/// Runs a command beside a set-up of this content. The command and what it starts say in files what became of them.
fn beside(dir: &Path, setup: &str, command: &str) -> Output {
    let scripts = dir.join("scripts");
    fs::create_dir(&scripts).unwrap();
    // Another process writes them: a file that this one has open would be so in whatever another test starts meanwhile, for a
    // moment, and nobody may execute it then.
    let write = r#"cp "$0" beside.sh && printf '#!/usr/bin/env bash\n%s\n' "$1" >setup.sh && chmod 755 setup.sh"#;
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/beside.sh");
    let written = Command::new("bash").current_dir(&scripts).args(["-c", write]).arg(original).arg(setup).status();
    assert!(written.unwrap().success());
    Command::new(scripts.join("beside.sh")).args(["run test", "bash", "-c", command]).output().unwrap()
}

/// Waits until a process, whose id is in a file, is gone: it was ended, which takes a moment.
fn until_gone(file: &Path) {
    let pid = fs::read_to_string(file).unwrap();
    let stat = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let since = Instant::now();
    while stat().rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z")) {
        assert!(since.elapsed() < Duration::from_secs(10), "it runs on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn both_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let done = beside(dir.path(), "sleep 0.3; echo \"$*\" >words", "sleep 0.6; echo built >built");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(fs::read_to_string(dir.path().join("words")).unwrap(), "run test\n");
    assert_eq!(fs::read_to_string(dir.path().join("built")).unwrap(), "built\n");
}

#[test]
fn a_set_up_that_fails_ends_the_build_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let setup = "until [[ -s compiler ]]; do sleep 0.05; done; exit 7";
    let done = beside(dir.path(), setup, &format!("{LONG} & echo $! >compiler; wait"));
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("set-up failed"), "{done:?}");
    until_gone(&dir.path().join("compiler"));
}

#[test]
fn a_build_that_fails_ends_the_set_up_after_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let setup = format!("trap 'exit 143' TERM; touch began; sleep 0.5; touch whole; {LONG}");
    let done = beside(dir.path(), &setup, "until [[ -e began ]]; do sleep 0.05; done; exit 101");
    assert_eq!(done.status.code(), Some(101), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("bash -c"), "{done:?}");
    assert!(!dir.path().join("whole").exists(), "what comes after its step is not begun");
}
