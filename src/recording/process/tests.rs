//! Real shells and what they start.

use super::*;
use std::io::BufRead;

fn shell(script: &str) -> Command {
    Command::new(Path::new("/bin/sh"), "shell").args(["-c", script])
}

fn alive(pid: u32) -> bool {
    // A zombie has no command line any more.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(WAIT_STEP);
    }
}

fn grandchild_of(child: &mut Child) -> u32 {
    let mut line = String::new();
    io::BufReader::new(child.take_stdout().unwrap()).read_line(&mut line).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn only_the_given_environment_and_descriptors_arrive() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut child = shell("echo $A $HOME >&7").env("A", "one").fd(writer, 7).spawn(&Guard::disabled()).unwrap();
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), "one");
    assert!(child.wait_timeout(Duration::from_secs(20)).unwrap().unwrap().success());
}

#[test]
fn the_end_of_a_child_is_the_end_of_its_group() {
    let mut child =
        shell("trap '' TERM; sleep 300 & echo $!; wait").stdout(Stdio::piped()).spawn(&Guard::disabled()).unwrap();
    let grandchild = grandchild_of(&mut child);
    // Between fork and exec a process has no command line for a moment.
    eventually("the grandchild's start", || alive(grandchild));
    let exit = child.end(Duration::from_millis(50));
    assert!(exit.killed);
    eventually("the grandchild's end", || !alive(grandchild));
}

#[test]
fn a_program_that_is_still_open_for_writing_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::copy("/bin/sh", &program).unwrap();
    let writer = std::fs::OpenOptions::new().append(true).open(&program).unwrap();
    let release = thread::spawn(move || {
        thread::sleep(Duration::from_millis(60));
        drop(writer);
    });
    let command = Command::new(&program, "shell").args(["-c", "exit 7"]);
    let mut child = command.spawn(&Guard::disabled()).unwrap();
    assert_eq!(child.wait_timeout(Duration::from_secs(20)).unwrap().and_then(|status| status.code()), Some(7));
    release.join().unwrap();
}

#[test]
fn what_a_child_leaves_behind_is_collected_with_it() {
    orphans::adopt();
    assert!(rustix::process::child_subreaper().unwrap().is_some());
    // One that the child ends without, one that has lost its parent before, and one that has ended in a session of its own.
    let script = "(sleep 300 & echo $!); sleep 300 & echo $!; (setsid sh -c '(exit 0 & echo $!)'); wait";
    let mut child =
        shell(script).env("PATH", "/usr/bin:/bin").stdout(Stdio::piped()).spawn(&Guard::disabled()).unwrap();
    let mut lines = io::BufReader::new(child.take_stdout().unwrap()).lines();
    let left: Vec<u32> = lines.by_ref().take(3).map(|line| line.unwrap().parse().unwrap()).collect();
    eventually("the end of the third", || !alive(left[2]));
    child.end(Duration::ZERO);
    for pid in left {
        // A zombie would be there for as long as we are.
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is not collected");
    }
}

#[test]
fn a_child_with_a_priority_of_its_own_still_ends_with_its_group() {
    let mut child = shell("nice; sleep 300 & echo $!; wait").priority(5).stdout(Stdio::piped());
    child = child.env("PATH", "/usr/bin:/bin");
    let mut child = child.spawn(&Guard::disabled()).unwrap();
    let mut lines = io::BufReader::new(child.take_stdout().unwrap()).lines();
    let nice: i32 = lines.next().unwrap().unwrap().parse().unwrap();
    assert!(nice >= 5);
    let grandchild: u32 = lines.next().unwrap().unwrap().parse().unwrap();
    drop(child);
    eventually("the grandchild's end", || !alive(grandchild));
}

#[test]
fn stderr_is_kept_in_a_bounded_tail() {
    let mut child =
        shell("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done").spawn(&Guard::disabled()).unwrap();
    child.wait_timeout(Duration::from_secs(20)).unwrap().unwrap();
    eventually("the last line", || child.stderr_tail().ends_with("line 2999"));
    assert!(child.stderr_tail().len() <= STDERR_TAIL_BYTES);
}
