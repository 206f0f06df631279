//! A small process between us and a program, which kills the program when we cannot.
//!
//! A primary may commit only while its claim lasts, and it is Litepilot that ends a claim in time.
//! But a Litepilot can be stopped (SIGSTOP), hang or be killed, and then the application, left to
//! itself, would write on while another node is primary. So a program is not our child but that of
//! `litepilot guard`: we tell the guard until when the program may run, anew after each renewal.
//! When that time has passed without news, or when we are gone, it kills the program's whole group.
//!
//! | module | subject |
//! | --- | --- |
//! | [`deadline`] | until when, and by which clock |
//! | [`shared_deadline`] | the deadline that a node's guards share, told to all of them at once |
//! | [`link`] | our end: one guard and what it reports |
//! | [`tally`] | counts the guards that have ended with all of their programs |
//! | [`wire`] | the lines between both ends |
//! | [`program`], [`timer`] | the guard's end |
//! | [`exec`] | what the guard starts, and what becomes the program |
//!
//! # How it is made
//!
//! * One guard for each program, in a process group of its own; the program in another. A terminal's
//!   Ctrl-C or a signal to one group does not reach the other. Only its socket commands a guard:
//!   SIGTERM and the like, which a service manager may send to everybody, are not for it.
//! * Its standard input is one end of a socket pair; the other end is ours and closed on exec, so it
//!   closes exactly when we end, however we end. Standard output and error are the program's own.
//! * The guard never waits for us: it writes a few short lines to a socket that holds them all, and
//!   nothing to standard error before the program is dead.
//! * When we are gone it waits until nobody of the group is left, and says so in the [`tally`]: only
//!   then may others be told that this node writes nothing more.
//! * It stays after the program has ended by itself, since others of the group may still be at work.
//!   It ends when we close the socket.
//! * A line that it cannot read means that it cannot know the deadline: it kills, and fails.
//!
//! # A second belt
//!
//! A guard can be killed, too: by `pkill -9 litepilot`, together with us. `PR_SET_PDEATHSIG` is for
//! that case, with all its traps: it fires when the *thread* that started the process ends, is
//! cleared by a change of user, and is not inherited by workers. So the guard sets nothing for
//! itself (it notices our end by the socket; dying of it would free the program), and has the
//! program start through [`exec`]: that changes the user, *then* asks to die with the guard, and
//! then becomes the program. The guard has one thread, which lives as long as it does.
//!
//! # What it does not cover
//!
//! * Who has left the program's process group (`setsid`, daemons, a shell with job control).
//! * A guard that is itself stopped; and of a guard that is killed together with us, the program's
//!   workers: only the program itself dies then.
//! * A system call under way: SIGKILL takes effect when it returns.

use std::path::PathBuf;

use tokio::process::Command;

use super::user::Identity;

pub(crate) mod deadline;
pub(crate) mod exec;
pub(crate) mod link;
pub(crate) mod program;
pub(crate) mod shared_deadline;
pub(crate) mod tally;
mod timer;
pub mod wire;

pub use deadline::Deadline;
pub use shared_deadline::SharedDeadline;
pub use tally::Tally;

/// This very program: also when its file has been replaced by another version, which may speak
/// otherwise.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// How a program is guarded.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The `litepilot` that guards, e.g. [`THIS_PROGRAM`].
    pub program: PathBuf,
    /// Until when.
    pub shared_deadline: SharedDeadline,
    /// Where it says that it has begun and ended; `None`: nobody counts.
    pub tally: Option<Tally>,
}

impl Guard {
    /// The command that runs `command` under a guard, as `identity` if that is given.
    pub(crate) fn command(&self, identity: Option<&Identity>, command: &[String]) -> Command {
        let mut guard = Command::new(&self.program);
        guard.arg0("litepilot").arg("guard");
        pass_on(&mut guard, identity, command);
        guard
    }
}

/// What the guard is told and what it tells the process that becomes the program; read by
/// `cli::guard`.
fn pass_on(to: &mut Command, identity: Option<&Identity>, command: &[String]) {
    if let Some(identity) = identity {
        to.arg("--as").arg(identity.to_string());
    }
    to.arg("--").args(command);
}
