//! Changes of what is remembered, which wait for the disk: not on the control thread, where leases are
//! renewed meanwhile.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

pub(super) async fn change<S: Send + 'static, T: Send + 'static>(
    state: &Arc<Mutex<S>>,
    change: impl FnOnce(&mut S) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let state = state.clone();
    let changing = tokio::task::spawn_blocking(move || change(&mut state.lock()));
    changing.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_slow_disk_holds_nothing_else_up() {
        let (state, (written, disk)) = (Arc::new(Mutex::new(1)), mpsc::channel());
        let waits = move |state: &mut i32| {
            disk.recv().map_err(io::Error::other)?;
            *state += 1;
            Ok(*state)
        };
        // Polled in this order, on one thread.
        let (changed, ()) =
            tokio::join!(change(&state, waits), async { written.send(()).unwrap() });
        assert_eq!(changed.unwrap(), 2);
    }
}
