//! PID 1 for real: this program starts itself as the first process of a PID namespace, as a
//! container runtime would start Litepilot, and what it becomes there runs a shell script.
//!
//! It has its own `main`, since that is where an init begins; see `Cargo.toml`.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use litepilot::process::init;
use rustix::process::{Pid, Signal, kill_process};

#[path = "support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;

/// Set in the namespace only: what the real program does there.
const SCRIPT: &str = "LITEPILOT_TEST_INIT_SCRIPT";

fn main() -> ExitCode {
    if let Some(code) = init::run_if_pid1() {
        return code;
    }
    if let Ok(script) = std::env::var(SCRIPT) {
        let error = Command::new("sh").args(["-c", &script]).exec();
        panic!("sh does not run: {error}");
    }
    if !need::permitted(
        "PID namespaces need root and unshare",
        &[&NAMESPACE[..], &["true"]].concat(),
    ) {
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 7] = [
        ("the_exit_code_is_passed_on", the_exit_code_is_passed_on),
        ("a_signal_that_ends_the_program_is_told", a_signal_that_ends_the_program_is_told),
        ("orphans_are_reaped", orphans_are_reaped),
        ("who_outlives_the_program_may_finish", who_outlives_the_program_may_finish),
        ("the_program_has_a_group_of_its_own", the_program_has_a_group_of_its_own),
        ("signals_are_forwarded_once", signals_are_forwarded_once),
        ("elsewhere_nothing_happens", elsewhere_nothing_happens),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

fn namespace() -> Command {
    let mut unshare = Command::new(NAMESPACE[0]);
    unshare.args(&NAMESPACE[1..]);
    unshare
}

/// A container whose program is this script.
struct Container {
    unshare: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Container {
    fn start(script: &str) -> Container {
        let mut unshare = namespace()
            .arg(std::env::current_exe().unwrap())
            .env(SCRIPT, script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(unshare.stdout.take().unwrap()).lines();
        Container { unshare, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Signals the container's PID 1, which is the only child of `unshare`.
    fn signal(&self, signal: Signal) {
        let id = self.unshare.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let init = children.trim().parse().ok().and_then(Pid::from_raw);
        kill_process(init.unwrap(), signal).unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        self.unshare.wait().unwrap().code()
    }
}

/// `unshare` takes the whole namespace with it.
impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

fn the_exit_code_is_passed_on() {
    assert_eq!(Container::start("exit 0").exit_code(), Some(0));
    assert_eq!(Container::start("exit 78").exit_code(), Some(78));
}

fn a_signal_that_ends_the_program_is_told() {
    assert_eq!(Container::start("kill -KILL $$").exit_code(), Some(128 + 9));
}

/// The subshell ends and leaves its children to PID 1. A zombie would keep its name.
fn orphans_are_reaped() {
    let mut container = Container::start(
        "orphans=$(for i in 1 2 3; do tail -f /dev/null > /dev/null & echo $!; done)
         for orphan in $orphans; do grep '^PPid' /proc/$orphan/status; done
         kill $orphans
         for i in $(seq 3000); do
             grep -qs '^Name:.tail' /proc/[0-9]*/status || { echo all reaped; exit; }
             sleep 0.01
         done",
    );
    for _ in 0..3 {
        assert_eq!(container.line(), "PPid:\t1");
    }
    assert_eq!(container.line(), "all reaped");
    assert_eq!(container.exit_code(), Some(0));
}

/// Guards do, which then tell other nodes. Who stays for long is not waited for.
fn who_outlives_the_program_may_finish() {
    let mut container = Container::start(
        "tail -f /dev/null > /dev/null &
         (while test -e /proc/$$; do sleep 0.01; done; echo finished) &
         kill -KILL $$",
    );
    assert_eq!(container.line(), "finished");
    assert_eq!(container.exit_code(), Some(128 + 9));
}

/// A terminal signals a whole group: in ours, the program would get each Ctrl-C twice.
fn the_program_has_a_group_of_its_own() {
    let mut container = Container::start("cut -d ' ' -f 5 /proc/$$/stat; echo $$");
    assert_eq!(container.line(), container.line());
}

fn signals_are_forwarded_once() {
    let mut container = Container::start(
        "for signal in TERM INT HUP QUIT USR1 USR2; do trap \"echo $signal\" $signal; done
         trap 'echo TERM; terms=x$terms; test $terms = xx && exit 5' TERM
         echo ready; for i in $(seq 3000); do sleep 0.01; done",
    );
    assert_eq!(container.line(), "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::TERM, "TERM"),
        (Signal::TERM, "TERM"),
    ] {
        container.signal(signal);
        assert_eq!(container.line(), name);
    }
    assert_eq!(container.exit_code(), Some(5));
}

fn elsewhere_nothing_happens() {
    assert!(init::run_if_pid1().is_none());
}
