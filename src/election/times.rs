//! The lease in time, all of it derived from `cluster.lease.ttl` (T).
//!
//! The Raft leader expires a lease T after it last accepted a renewal, by its own clock. The holder
//! stops believing in it earlier, counted from when that renewal was *sent*, by its own clock; between
//! the two LiteFS or a guard has the time to act. Clocks may differ in rate by 5 %: the margin is for
//! that.

use std::time::Duration;

/// The times of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// T: how long a lease lasts after the last renewal that the Raft leader accepted.
    pub(crate) ttl: Duration,
    /// How long after a renewal was sent its holder may take writes.
    pub(crate) claim: Duration,
    /// How long after a renewal was sent nothing may commit any more: the guard acts.
    pub(crate) fence: Duration,
    pub(crate) renew: Duration,
    /// How long a node may be fresher than the fittest and hold up the choice.
    pub(crate) hold_up: Duration,
    /// Before something that failed is tried again.
    pub(crate) pause: Duration,
}

/// The least margin: clocks and schedulers are not exact.
const LEAST_MARGIN: Duration = Duration::from_millis(100);

impl Times {
    /// Those of `ttl`, at least a second. `unfenced` is how much longer the engine needs to notice
    /// than one that we can kill; zero but for a LiteFS that somebody else runs.
    pub fn of(ttl: Duration, unfenced: Duration) -> Self {
        let margin = (ttl / 10).max(LEAST_MARGIN);
        // What LiteFS needs to notice: it renews each T/10.
        let notice = ttl / 10 + unfenced;
        Self {
            ttl,
            claim: ttl.saturating_sub(notice + margin),
            fence: ttl.saturating_sub(margin),
            renew: ttl / 5,
            hold_up: Duration::from_secs(2),
            pause: ttl / 40,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_those_of_the_protocol() {
        let ms = Duration::from_millis;
        let two = Times::of(ms(2000), Duration::ZERO);
        assert_eq!((two.claim, two.fence, two.renew), (ms(1600), ms(1800), ms(400)));
        let one = Times::of(ms(1000), Duration::ZERO);
        assert_eq!((one.claim, one.fence, one.renew), (ms(800), ms(900), ms(200)));
        let external = Times::of(ms(3000), ms(1000));
        assert_eq!(external.claim, ms(1400));
    }

    /// The claim has ended before the lease can be given away, if clocks differ by 5 % in rate.
    #[test]
    fn a_claim_ends_before_its_lease() {
        for ttl in [1000, 1500, 2000, 5000, 60_000] {
            let times = Times::of(Duration::from_millis(ttl), Duration::ZERO);
            // The holder's clock is slow, the leader's is fast.
            let slow = times.fence.mul_f64(1.025);
            let fast = times.ttl.mul_f64(1.0 / 1.025);
            assert!(slow <= fast, "{ttl}: {slow:?} {fast:?}");
            assert!(times.claim < times.fence);
        }
    }
}
