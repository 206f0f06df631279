//! How many failed reads may be asked of the primary: a share of the reads of the last seconds, and a floor
//! so that a quiet node may ask at all (linkerd's `retryBudget`). An application that is broken everywhere
//! is so not asked twice as much. Pure: time comes from outside.

use std::time::Duration;

use tokio::time::Instant;

/// So many reads pay for one that is asked again.
const READS_FOR_ONE: u64 = 5;
/// In each second, whatever the number of reads.
const FLOOR: u64 = 10;
/// The seconds that count.
const SECONDS: usize = 10;

/// Reads, and replays of those that failed, in the last ten seconds.
#[derive(Debug)]
pub struct ReplayBudget {
    /// By second, the present one at `now`.
    seconds: [Second; SECONDS],
    now: usize,
    /// When the present second began.
    since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    reads: u64,
    replays: u64,
}

impl ReplayBudget {
    pub fn new(now: Instant) -> Self {
        Self { seconds: Default::default(), now: 0, since: now }
    }

    /// Takes one replay out, if there is one left.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        self.pass(now);
        let sum = |count: fn(&Second) -> u64| self.seconds.iter().map(count).sum::<u64>();
        let (reads, replays) = (sum(|s| s.reads), sum(|s| s.replays));
        let left = replays < reads / READS_FOR_ONE + FLOOR * SECONDS as u64;
        self.seconds[self.now].replays += u64::from(left);
        left
    }

    /// So many reads have come.
    pub(crate) fn deposit(&mut self, reads: u64, now: Instant) {
        self.pass(now);
        self.seconds[self.now].reads += reads;
    }

    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs();
        for _ in 0..passed.min(SECONDS as u64) {
            self.now = (self.now + 1) % SECONDS;
            self.seconds[self.now] = Second::default();
        }
        self.since += Duration::from_secs(passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawn(budget: &mut ReplayBudget, now: Instant) -> u64 {
        (0..10_000).take_while(|_| budget.withdraw(now)).count() as u64
    }

    #[test]
    fn a_share_of_the_reads_and_a_floor() {
        let start = Instant::now();
        let mut budget = ReplayBudget::new(start);
        assert_eq!(withdrawn(&mut budget, start), 100, "the floor of ten seconds");
        budget.deposit(1000, start);
        assert_eq!(withdrawn(&mut budget, start), 200, "a fifth of the reads");
        assert_eq!(withdrawn(&mut budget, start + Duration::from_secs(9)), 0);
    }

    #[test]
    fn what_is_long_ago_counts_no_more() {
        let start = Instant::now();
        let mut budget = ReplayBudget::new(start);
        budget.deposit(1000, start);
        assert_eq!(withdrawn(&mut budget, start + Duration::from_secs(10)), 100);
        assert_eq!(withdrawn(&mut budget, start + Duration::from_secs(20)), 100);
        budget.deposit(50, start + Duration::from_secs(500_000));
        assert_eq!(withdrawn(&mut budget, start + Duration::from_secs(500_001)), 110);
    }
}
