//! A running program, and how it ended.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::group::Group;
use super::guard::link::GuardLink;
use super::output::Output;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an exit code, or by a signal.
    Exited(ExitStatus),
    /// Killed with its group, since its [`super::guard::Deadline`] had passed.
    Late,
}

impl End {
    /// Whether it did what it was to do.
    pub(crate) fn is_success(self) -> bool {
        matches!(self, End::Exited(status) if status.success())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(status) => status.fmt(f),
            End::Late => f.write_str("killed by its guard: the claim's deadline had passed"),
        }
    }
}

/// A running program. Dropping it kills it and its whole group.
#[derive(Debug)]
pub(crate) struct Process {
    /// Everything that it starts and that does not leave. Declared first, hence killed first.
    pub(crate) group: Group,
    pub(super) pid: u32,
    pub(super) parent: Parent,
    pub(super) output: Output,
}

/// Whose child a program is.
#[derive(Debug)]
pub(super) enum Parent {
    Ourselves(Child),
    Guard(GuardLink),
}

impl Process {
    /// Its process id, and its group's.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the program itself, and not to what it has started. Only while it is not known
    /// to have ended: then its number may be somebody else's.
    pub(crate) fn signal_leader(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // One that has just ended is no error.
            let _ = kill_process(pid, signal);
        }
    }

    /// Returns when the program itself has ended; members of its group may still run.
    ///
    /// # Errors
    ///
    /// When that cannot be learned any more, such as when its guard was killed.
    pub(crate) async fn wait(&mut self) -> io::Result<End> {
        match &mut self.parent {
            Parent::Ourselves(child) => child.wait().await.map(End::Exited),
            Parent::Guard(link) => link.ended().await,
        }
    }

    /// Kills whoever is left of the group, reaps the program, and logs its last words.
    pub(crate) async fn end(self) -> io::Result<End> {
        drop(self.group);
        let end = match self.parent {
            Parent::Ourselves(mut child) => child.wait().await.map(End::Exited),
            Parent::Guard(link) => link.end().await,
        };
        self.output.finish().await;
        end
    }
}
