//! When a peer that failed may be dialed again. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

/// After the first failure.
const FIRST: Duration = Duration::from_millis(50);
/// However often it failed: a peer that is back should be found soon.
const LONGEST: Duration = Duration::from_secs(2);

/// An exponential back-off, with jitter so that nodes do not dial a restarted peer in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    failed_at: Option<Instant>,
    until: Option<Instant>,
}

impl Backoff {
    /// How long to wait before the next dial; `None`: dial now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.until.and_then(|until| until.checked_duration_since(now)).filter(|d| !d.is_zero())
    }

    /// A dial that began at `began` failed. `chance`, uniform over all its values, sets the jitter:
    /// the pause is between a half and the whole of the present step.
    pub(crate) fn failed(&mut self, began: Instant, now: Instant, chance: u32) {
        // A crowd that dialed at once fails at once: that is one failure.
        if self.failed_at.is_some_and(|failed_at| began < failed_at) {
            return;
        }
        let step = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        let jitter = step.mul_f64(0.5 * f64::from(chance) / f64::from(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
        self.until = Some(now + step / 2 + jitter);
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fails `times` in a row, each right after the last pause, and returns the last pause.
    fn pause_after(times: u32, chance: u32) -> Duration {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        for _ in 0..times {
            now += backoff.wait(now).unwrap_or_default();
            backoff.failed(now, now, chance);
        }
        backoff.wait(now).unwrap()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pause_after(1, u32::MAX), Duration::from_millis(50));
        assert_eq!(pause_after(2, u32::MAX), Duration::from_millis(100));
        assert_eq!(pause_after(3, 0), Duration::from_millis(100));
        assert_eq!(pause_after(1000, u32::MAX), LONGEST);
    }

    #[test]
    fn success_forgets() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.failed(now, now, 0);
        assert!(backoff.wait(now).is_some());
        backoff.succeeded();
        assert_eq!(backoff.wait(now), None);
    }

    #[test]
    fn a_crowd_counts_once() {
        let began = Instant::now();
        let failed = began + Duration::from_millis(1);
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            backoff.failed(began, failed, u32::MAX);
        }
        assert_eq!(backoff.wait(failed), Some(FIRST));
    }

    proptest! {
        #[test]
        fn jitter_stays_between_half_and_whole(times in 1u32..20, chance: u32) {
            let whole = pause_after(times, u32::MAX);
            let pause = pause_after(times, chance);
            prop_assert!(whole / 2 <= pause && pause <= whole);
        }
    }
}
