//! How long to wait before the next try. Pure: chance and time are given.

use std::time::Duration;

/// Doubling pauses with jitter, so that nodes that failed together do not come back together.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    steady: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses double from `first` up to `longest`; a run of at least `steady`, or a [`Backoff::reset`],
    /// starts them anew.
    pub const fn new(first: Duration, longest: Duration, steady: Duration) -> Backoff {
        Backoff { first, longest, steady, failures: 0 }
    }

    /// The pause after one more failure: between half of and the whole current step.
    /// `chance` is any number, equally distributed.
    pub(crate) fn next(&mut self, chance: u32) -> Duration {
        let doublings = self.failures.min(31);
        self.failures = self.failures.saturating_add(1);
        let step = self.first.saturating_mul(1 << doublings).min(self.longest);
        let jitter = f64::from(chance) / f64::from(u32::MAX);
        step.mul_f64(0.5 + jitter / 2.0)
    }

    /// What we restart has shown that it works, or its circumstances have changed.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes that what we restart had run this long.
    pub(crate) fn ran_for(&mut self, time: Duration) {
        if time >= self.steady {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(MS(100), MS(1000), MS(5000));
        let pauses: Vec<_> = (0..6).map(|_| backoff.next(u32::MAX)).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000].map(MS));
    }

    #[test]
    fn chance_takes_away_at_most_half() {
        let backoff = Backoff::new(MS(100), MS(1000), MS(5000));
        assert_eq!(backoff.clone().next(0), MS(50));
        let middle = backoff.clone().next(u32::MAX / 2);
        assert!(middle > MS(70) && middle < MS(80), "{middle:?}");
    }

    #[test]
    fn only_a_steady_run_starts_anew() {
        let mut backoff = Backoff::new(MS(100), MS(1000), MS(5000));
        backoff.next(0);
        backoff.ran_for(MS(4999));
        assert_eq!(backoff.next(u32::MAX), MS(200));
        backoff.ran_for(MS(5000));
        assert_eq!(backoff.next(u32::MAX), MS(100));
    }

    #[test]
    fn endless_failures_do_not_overflow() {
        let mut backoff = Backoff::new(MS(100), MS(1000), MS(5000));
        for _ in 0..100 {
            assert!(backoff.next(u32::MAX) <= MS(1000));
        }
    }
}
