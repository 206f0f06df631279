//! The guard by itself: we are its Litepilot.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use litepilot::claim::BootTime;
use litepilot::process::guard::Deadline;
use rustix::process::Signal;

use super::need::permitted;
use super::support::{Guard, LITEPILOT, field, lines, lives, parent_of, pid_in, send, until};

fn soon() -> Deadline {
    Deadline::At(BootTime::now().after(Duration::from_millis(100)))
}

/// Has it run a shell and its child, who go on for ever, whatever they are told; their ids.
fn family() -> (Guard, [u32; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let script = format!("trap '' TERM; sleep 1000 & echo $! > {}; wait", file.display());
    let (guard, pid) = Guard::running(&script, Deadline::None);
    (guard, [pid, pid_in(&file)])
}

fn gone(family: [u32; 2]) {
    until("all are gone", || family.iter().all(|pid| !lives(*pid)));
}

#[test]
fn it_reports_what_becomes_of_the_program_and_stays_until_told() {
    for (script, end) in
        [("exit 0", "ended 0"), ("exit 7", "ended 1792"), ("kill -15 $$", "ended 15")]
    {
        let (mut guard, pid) = Guard::running(script, Deadline::None);
        assert_eq!(guard.report(), end);
        assert!(!lives(pid));
        guard.leave();
        let (status, said) = guard.ended();
        assert!(status.success() && said.is_empty(), "{status}: {said}");
    }
}

#[test]
fn nothing_starts_before_a_deadline_is_told_or_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("started");
    let touch = format!("echo > {}; exec sleep 1000", file.display());
    let mut late = Guard::of(&touch);
    late.tell(Deadline::At(BootTime::now()));
    assert_eq!(late.report(), "late");
    late.tell(Deadline::None);
    late.leave();
    assert!(late.ended().0.success());
    let mut untold = Guard::of(&touch);
    untold.leave();
    assert!(untold.ended().0.success());
    assert!(!file.exists());
}

#[test]
fn at_the_deadline_the_whole_group_is_killed_once_and_not_before() {
    let (mut guard, family) = family();
    let deadline = soon();
    guard.tell(deadline);
    assert_eq!(guard.report(), "late");
    assert!(deadline.is_past());
    assert_eq!(guard.report(), "ended 9");
    gone(family);
    // What is over is over: a later deadline brings nothing back, nor another report.
    guard.tell(soon());
    guard.tell(Deadline::None);
    guard.leave();
    assert_eq!(guard.report(), "");
    assert!(guard.ended().0.success());
}

#[test]
fn workers_of_a_program_that_has_ended_are_guarded_still() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let script = format!("sleep 1000 & echo $! > {}", file.display());
    let (mut guard, _) = Guard::running(&script, Deadline::None);
    assert_eq!(guard.report(), "ended 0");
    let worker = pid_in(&file);
    assert!(lives(worker));
    guard.tell(soon());
    assert_eq!(guard.report(), "late");
    until("the worker is gone", || !lives(worker));
}

#[test]
fn a_deadline_that_is_moved_or_lifted_in_time_kills_nobody() {
    for then in [Deadline::None, Deadline::At(BootTime::now().after(Duration::from_secs(3600)))] {
        let dir = tempfile::tempdir().unwrap();
        let beats = dir.path().join("beats");
        let script = format!("while :; do echo >> {}; sleep 0.01; done", beats.display());
        let (guard, pid) = Guard::running(&script, Deadline::None);
        let first = Deadline::At(BootTime::now().after(Duration::from_secs(1)));
        guard.tell(first);
        guard.tell(then);
        until("the first deadline has passed", || first.is_past());
        let so_far = lines(&beats, 1).len();
        lines(&beats, so_far + 20);
        assert!(lives(pid));
    }
}

#[test]
fn of_all_that_waits_only_the_newest_deadline_counts() {
    let (mut guard, pid) = Guard::running("exec sleep 1000", Deadline::None);
    let id = guard.process.id();
    send(Signal::STOP, id);
    until("it is stopped", || field(id, "State").starts_with('T'));
    guard.tell(Deadline::At(BootTime::now()));
    guard.tell(Deadline::None);
    send(Signal::CONT, id);
    send(Signal::TERM, pid);
    assert_eq!(guard.report(), "ended 15", "it was not killed");
}

/// In a namespace where that clock alone is ahead, as it is after the machine has slept.
#[test]
fn time_that_the_machine_slept_counts() {
    let slept = Duration::from_secs(10_000_000);
    let seconds = slept.as_secs().to_string();
    let namespace = ["unshare", "--time", "--boottime", &seconds, "--fork", "--kill-child"];
    let try_it = [&namespace[..], &["true"]].concat();
    if !permitted("time namespaces need root and unshare", &try_it) {
        return;
    }
    let mut guard = Guard::wrapped(&namespace, &["--", "sleep", "1000"]);
    let deadline = BootTime::now().after(slept + Duration::from_secs(1));
    guard.tell(Deadline::At(deadline));
    let mut report = guard.report();
    if report.starts_with("started") {
        report = guard.report();
    }
    assert_eq!(report, "late");
}

#[test]
fn half_a_line_changes_nothing() {
    let (mut guard, family) = family();
    guard.tell(soon());
    guard.send(b"deadline no");
    assert_eq!(guard.report(), "late");
    gone(family);
}

#[test]
fn the_rest_of_a_line_may_come_later() {
    let (mut guard, pid) = Guard::running("exec sleep 1000", Deadline::None);
    for piece in ["deadl", "ine ", "0", "\n"] {
        assert!(lives(pid));
        guard.send(piece.as_bytes());
    }
    assert_eq!(guard.report(), "late");
}

#[test]
fn a_line_that_cannot_be_read_kills_and_is_a_failure() {
    let endless = [b'x'; 100];
    let lines: [&[u8]; 6] =
        [b"live\n", b"\n", b"deadline -1\n", b"\xff\n", b"deadline 1 2\n", &endless];
    for line in lines {
        let (mut guard, family) = family();
        guard.send(line);
        gone(family);
        let (status, said) = guard.ended();
        assert_eq!(status.code(), Some(1));
        assert!(said.contains("litepilot guard: a line that cannot be"), "{said}");
    }
}

#[test]
fn when_its_litepilot_is_gone_the_whole_group_is_killed() {
    for half_a_line in ["", "deadline 99"] {
        let (mut guard, family) = family();
        guard.send(half_a_line.as_bytes());
        guard.leave();
        gone(family);
        assert!(guard.ended().0.success());
    }
}

#[test]
fn signals_are_not_for_it_but_for_the_program() {
    let (mut guard, pid) = Guard::running("exec sleep 1000", Deadline::None);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        send(signal, guard.process.id());
    }
    assert_ne!(field(pid, "NSpgid"), field(guard.process.id(), "NSpgid"), "groups of their own");
    send(Signal::TERM, pid);
    assert_eq!(guard.report(), "ended 15");
    assert_eq!(guard.process.try_wait().unwrap(), None);
}

#[test]
fn the_program_inherits_nothing_else_than_a_child_of_ours_would() {
    let script = "ls /proc/self/fd; readlink /proc/self/fd/0; grep '^Sig[BI]' /proc/self/status";
    let (mut guard, _) = Guard::running(script, Deadline::None);
    assert_eq!(guard.report(), "ended 0");
    guard.leave();
    let mut said = String::new();
    guard.process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    // Whoever started the tests may ignore these, as nohup and a shell's background jobs do.
    let ours = Command::new("env")
        .args(["--default-signal=HUP,INT,QUIT,TERM", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(said, String::from_utf8(ours.stdout).unwrap());
    assert!(said.contains("/dev/null"));
}

#[test]
fn arguments_arrive_as_they_are() {
    let script = r#"for argument; do echo "<$argument>"; done"#;
    let mut guard = Guard::with(&["--", "sh", "-c", script, "sh", "--as", "", "-h", "--", "a b"]);
    guard.tell(Deadline::None);
    guard.started();
    assert_eq!(guard.report(), "ended 0");
    guard.leave();
    let mut said = String::new();
    guard.process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "<--as>\n<>\n<-h>\n<-->\n<a b>\n");
}

/// The second belt, also after a change of user, which would undo it.
#[test]
fn the_program_dies_with_a_guard_that_is_killed() {
    let mut ways = vec![vec!["--"]];
    if rustix::process::getuid().is_root() {
        ways.push(vec!["--as", "65534:65533:65533,4711", "--"]);
    }
    for way in ways {
        let mut guard = Guard::with(&[&way[..], &["sleep", "1000"]].concat());
        guard.tell(Deadline::None);
        let pid = guard.started();
        assert_eq!(parent_of(pid), guard.process.id());
        if way.len() > 1 {
            assert_eq!(field(pid, "Groups").trim(), "4711 65533");
        }
        guard.process.kill().unwrap();
        until("the program is gone", || !lives(pid));
    }
}

#[test]
fn a_program_that_does_not_start_is_refused() {
    let mut guard = Guard::with(&["--", "/no/such/program"]);
    guard.tell(Deadline::None);
    assert_eq!(guard.report(), "refused start 2");
    let mut guard = Guard::with(&["--", "/dev/null"]);
    guard.tell(Deadline::None);
    assert_eq!(guard.report(), "refused start 13");
}

/// By what the guard starts, since a guard of that user would need a directory that it can read.
#[test]
fn a_user_that_we_may_not_become_is_refused() {
    if !rustix::process::getuid().is_root() {
        return eprintln!("skipped: only root can be another user first");
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = Command::new(LITEPILOT)
        .args(["guarded", "--by", &std::process::id().to_string()])
        .args(["--as", "0:0:0", "--", "true"])
        .stdin(writer)
        .uid(65534)
        .spawn()
        .unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "refused switch 1\n");
    assert!(!child.wait().unwrap().success());
}

#[test]
fn typed_by_a_user_it_says_who_starts_it() {
    let output = Command::new(LITEPILOT)
        .args(["guard", "--", "touch", "/no/such/file"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it is litepilot run that starts this"), "{said}");
}

/// Others are told by that that this node commits nothing more.
#[test]
fn it_counts_as_done_once_nobody_of_the_group_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let worker = dir.path().join("worker");
    let script = format!("sleep 1000 & echo $! > {}; wait", worker.display());
    let counted = |end: fn(&mut Guard)| {
        let mut guard = Guard::of(&script);
        let mut pipe = guard.counted();
        guard.tell(Deadline::None);
        guard.started();
        let worker = pid_in(&worker);
        end(&mut guard);
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        (text, worker)
    };
    let (text, pid) = counted(Guard::leave);
    assert!(text == "+\n-\n" && !lives(pid), "{text:?}");
    std::fs::remove_file(&worker).unwrap();
    let (text, pid) = counted(|guard| guard.process.kill().unwrap());
    assert!(text == "+\n" && lives(pid), "its worker is left: {text:?}");
    send(Signal::KILL, pid);
}
