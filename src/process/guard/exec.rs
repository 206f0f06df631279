//! What a guard starts, and what becomes the program: `litepilot guarded`.
//!
//! Between the start of a process and that of its program there are things to do which the standard
//! library offers only to unsafe code. Here they are done by a program of their own, with one
//! thread, that ends by executing the real one.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::wire::{Report, Step};
use crate::process::user::Identity;

/// Becomes `command`, run as `identity` if that is given, which dies with the process `guard`, our
/// parent. Returns only if that fails; then it has written the [`Report`] to standard input, a pipe.
/// If it succeeds that pipe is closed, and the program's standard input is empty.
pub(crate) fn become_program(
    guard: u32,
    identity: Option<&Identity>,
    command: &[String],
) -> ExitCode {
    // A duplicate that is closed on exec.
    let Ok(pipe) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    if let Some(refusal) = execute(guard, identity, command) {
        // If the guard does not listen any more it has no use for it.
        let _ = std::fs::File::from(pipe).write_all(refusal.line().as_bytes());
    }
    ExitCode::FAILURE
}

/// `None` if the guard is gone.
fn execute(guard: u32, identity: Option<&Identity>, command: &[String]) -> Option<Report> {
    if let Some(identity) = identity
        // There is only this thread.
        && let Err(cause) = identity.assume_on_this_thread()
    {
        return Some(Step::Switch.refused(&cause));
    }
    // After the change of user, which would clear it. It is a second belt: one may do without.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // If the guard died just before, nobody sends that signal.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
    if parent.and_then(|parent| u32::try_from(parent).ok()) != Some(guard) {
        return None;
    }
    let (program, arguments) = command.split_first()?;
    let cause = Command::new(program).args(arguments).stdin(Stdio::null()).exec();
    Some(Step::Start.refused(&cause))
}
