//! A process group of our own making, ended as a whole: a server's workers die with their master.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Nothing tells when a group becomes empty, so that is asked for, while stopping only.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// The group led by a child of ours. Dropping it kills whoever is left in it.
///
/// Drop it soon after its leader was reaped: a group's number is taken as long as it has members,
/// and then free for others.
#[derive(Debug)]
pub(crate) struct Group(Pid);

impl Group {
    /// The group of a child that was spawned as the leader of its own.
    pub(crate) fn led_by(leader: u32) -> Option<Group> {
        i32::try_from(leader).ok().and_then(Pid::from_raw).map(Group)
    }

    /// Sends a signal to every member. Members that are gone or forbidden to us are no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.0, signal);
    }

    /// Returns once there is no member left.
    pub(crate) async fn emptied(&self) {
        while test_kill_process_group(self.0) != Err(Errno::SRCH) {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
