//! The deadline that several guards share.

use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::Deadline;
use super::wire::{deadline_line, tell};

/// A deadline, and the guards that are told of it. Clones are the same one. At first there is no
/// deadline.
#[derive(Clone, Debug, Default)]
pub struct SharedDeadline(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    deadline: watch::Sender<Deadline>,
    /// Gone when their [`super::link::GuardLink`] is.
    guards: Mutex<Vec<Weak<UnixStream>>>,
}

impl SharedDeadline {
    /// Sets the deadline, and tells every guard before it returns: if we are stopped right after,
    /// it holds. A program that starts later begins with it. Never blocks.
    ///
    /// Returns whether all guards could be told. One that could not has ended, and its program with
    /// it, or has taken nothing for about ten times: begin no tenure then. Telling it is tried
    /// again with the next deadline.
    pub fn set(&self, deadline: Deadline) -> bool {
        let mut guards = self.guards();
        self.0.deadline.send_replace(deadline);
        guards.retain(|guard| guard.strong_count() > 0);
        let line = deadline_line(deadline);
        let untold = guards.iter().filter_map(Weak::upgrade).filter(|guard| !tell(guard, &line));
        untold.count() == 0
    }

    /// The deadline now.
    pub fn deadline(&self) -> Deadline {
        *self.0.deadline.borrow()
    }

    /// Returns once the deadline is none or to come: to start a program earlier would be in vain.
    pub(crate) async fn permits(&self) {
        let mut deadline = self.0.deadline.subscribe();
        // An error means that nobody can set it any more; we hold it ourselves.
        let _ = deadline.wait_for(|deadline| !deadline.is_past()).await;
    }

    /// Tells one guard more, of the deadline as it is and from now on.
    pub(super) fn hold(&self, guard: &Arc<UnixStream>) {
        let mut guards = self.guards();
        // If it is gone already, whoever reads its reports finds out.
        tell(guard, &deadline_line(self.deadline()));
        guards.push(Arc::downgrade(guard));
    }

    /// Also orders what is told: what is set last is told last.
    fn guards(&self) -> MutexGuard<'_, Vec<Weak<UnixStream>>> {
        self.0.guards.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{lines, next_line, receive};
    use super::*;
    use crate::claim::BootTime;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    async fn heard(by: &UnixStream) -> Vec<String> {
        let mut lines = lines();
        receive(by, &mut lines).await.unwrap();
        std::iter::from_fn(|| next_line(&mut lines)).collect()
    }

    #[tokio::test]
    async fn each_guard_is_told_what_holds_and_what_follows() {
        let shared_deadline = SharedDeadline::default();
        let [(ours_1, guard_1), (ours_2, guard_2)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let ours = [ours_1, ours_2].map(Arc::new);
        shared_deadline.hold(&ours[0]);
        assert!(shared_deadline.set(Deadline::At(BootTime(5))));
        shared_deadline.hold(&ours[1]);
        assert!(shared_deadline.clone().set(Deadline::None));
        assert_eq!(heard(&guard_1).await, ["deadline none", "deadline 5", "deadline none"]);
        assert_eq!(heard(&guard_2).await, ["deadline 5", "deadline none"]);

        drop(guard_1);
        assert!(!shared_deadline.set(Deadline::None), "one is gone");
        let [gone, _still_there] = ours;
        drop(gone);
        assert!(shared_deadline.set(Deadline::None), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn what_has_passed_permits_nothing() {
        let shared_deadline = SharedDeadline::default();
        shared_deadline.permits().await;
        shared_deadline.set(Deadline::At(BootTime::now()));
        let mut permitted = Box::pin(shared_deadline.permits());
        let mut is_ready =
            async || poll_fn(|cx| Poll::Ready(permitted.as_mut().poll(cx).is_ready())).await;
        assert!(!is_ready().await);
        shared_deadline.set(Deadline::At(BootTime::now().after(Duration::from_secs(3600))));
        assert!(is_ready().await);
    }
}
