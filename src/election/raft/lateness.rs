//! How late this node itself is: on a machine that has more to do than it can, timers go off late, and
//! what others have sent is read late.
//!
//! Whoever calls a leader silent then, and stands for election, deposes one that is alive; and each new
//! term gives the lease another ttl. So somebody who is late waits for so much longer.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lateness {
    now: Duration,
    /// More is not waited for: the leader may be gone all the same.
    most: Duration,
}

impl Lateness {
    pub(crate) fn new(most: Duration) -> Self {
        Self { now: Duration::ZERO, most }
    }

    /// What was to take `planned` took `real`. What was seen before counts less and less.
    pub(crate) fn note(&mut self, planned: Duration, real: Duration) {
        self.now = real.saturating_sub(planned).max(self.now * 7 / 8).min(self.most);
    }

    pub(crate) fn get(self) -> Duration {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_late_is_so_for_a_while_and_within_bounds() {
        let millis = Duration::from_millis;
        let mut lateness = Lateness::new(millis(400));
        lateness.note(millis(100), millis(100));
        assert_eq!(lateness.get(), Duration::ZERO);
        lateness.note(millis(100), millis(260));
        assert_eq!(lateness.get(), millis(160));
        lateness.note(millis(100), millis(110));
        assert_eq!(lateness.get(), millis(140));
        lateness.note(millis(100), millis(9_000));
        assert_eq!(lateness.get(), millis(400));
        (0..60).for_each(|_| lateness.note(millis(100), millis(100)));
        assert!(lateness.get() < millis(1));
    }
}
