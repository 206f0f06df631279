//! The clock that leases are measured by. `tests/sim` gives each node one of its own.

use std::time::{Duration, SystemTime};

use crate::claim::BootTime;
use crate::engine::BoxFuture;

/// A node's clock.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never goes back.
    fn now(&self) -> BootTime;

    /// The time of day, for operators. May go back.
    fn wall(&self) -> SystemTime;

    /// Returns after `wait`, as far as this clock can tell.
    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's: see [`BootTime`].
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> BootTime {
        BootTime::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Returns once `clock` shows `at`, however unevenly it went meanwhile.
pub(crate) async fn until(clock: &dyn Clock, at: BootTime) {
    loop {
        let left = at.since(clock.now());
        if left.is_zero() {
            return;
        }
        clock.sleep(left).await;
    }
}
