//! What is remembered on disk, and who changes it. Readers never wait for the disk: they are on the control
//! thread, where leases are renewed meanwhile.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::files;

pub(super) struct OnDisk<S> {
    now: Mutex<S>,
    /// Changes, one at a time.
    turn: Mutex<()>,
}

impl<S: Clone + Send + 'static> OnDisk<S> {
    pub(super) fn new(now: S) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(now), turn: Mutex::default() })
    }

    pub(super) fn now(&self) -> MutexGuard<'_, S> {
        self.now.lock()
    }

    /// Makes a change, which waits for the disk: it holds when this returns, even if nobody waits for that.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut S) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let own = self.clone();
        let changing = files::on_disk(move || {
            let _turn = own.turn.lock();
            let mut new = own.now().clone();
            let changed = change(&mut new);
            // Of one that has failed, too: some of it may be on the disk.
            *own.now() = new;
            changed
        });
        changing.await.flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_slow_disk_holds_nobody_up_who_reads() {
        let (state, (written, disk)) = (OnDisk::new(1), mpsc::channel());
        let waits = move |state: &mut i32| {
            disk.recv().map_err(io::Error::other)?;
            *state += 1;
            Ok(*state)
        };
        // Polled in this order, on one thread.
        let (changed, ()) = tokio::join!(state.change(waits), async {
            assert_eq!(*state.now(), 1, "it is not on the disk yet");
            written.send(()).unwrap();
        });
        assert_eq!((changed.unwrap(), *state.now()), (2, 2));
    }

    #[tokio::test]
    async fn no_change_undoes_another() {
        let state = OnDisk::new((0, 0));
        let first = state.change(|state| {
            state.0 += 1;
            Ok(())
        });
        let second = state.change(|state| {
            state.1 += 1;
            Ok(())
        });
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(*state.now(), (1, 1));
    }
}
