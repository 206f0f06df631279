//! A primary's right to take writes: it ends by itself, whatever becomes of the thread that renews it.
//!
//! The clock is CLOCK_BOOTTIME, in nanoseconds: it goes on while the machine sleeps, and nobody sets
//! it. Whoever acts on a claim looks at the clock at that very moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A moment of CLOCK_BOOTTIME, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// The moment `wait` after this one.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The right to take writes in one epoch. Copies share it; once it has lapsed or was ended it is over for
/// good.
#[derive(Clone)]
pub struct Claim(Arc<Times>);

struct Times {
    end: AtomicU64,
    /// When the latest successful renewal was asked for.
    asked: AtomicU64,
    /// Tells who waits of a renewal, or of an end that somebody made.
    changed: Notify,
}

const UNLIMITED: u64 = u64::MAX;
const OVER: u64 = 0;

impl Claim {
    /// Never ends by itself: of a node on its own, or of a fixed primary.
    pub fn unlimited() -> Self {
        Self::ending(UNLIMITED)
    }

    /// There is none.
    pub fn none() -> Self {
        Self::ending(OVER)
    }

    /// Ends at `deadline`, unless it is extended before.
    pub fn until(deadline: BootTime) -> Self {
        Self::ending(deadline.0)
    }

    fn ending(end: u64) -> Self {
        let (end, asked) = (AtomicU64::new(end), AtomicU64::new(0));
        Self(Arc::new(Times { end, asked, changed: Notify::new() }))
    }

    /// Whether it is valid at this moment.
    pub(crate) fn is_valid(&self) -> bool {
        match self.0.end.load(Ordering::Acquire) {
            UNLIMITED => true,
            OVER => false,
            _ => self.is_valid_at(BootTime::now()),
        }
    }

    /// Whether it is valid at `now`, by the clock that its deadline is of.
    pub fn is_valid_at(&self, now: BootTime) -> bool {
        now.0 < self.0.end.load(Ordering::Acquire)
    }

    /// Moves the end to `deadline`, unless it has lapsed by `now`: then it is over, and this says
    /// `false`.
    pub fn extend(&self, deadline: BootTime, now: BootTime) -> bool {
        let extended = |end| (now.0 < end).then_some(deadline.0.max(end));
        let order = Ordering::AcqRel;
        let valid = self.0.end.fetch_update(order, Ordering::Acquire, extended).is_ok();
        if !valid {
            self.end();
        }
        valid
    }

    /// Takes note that it was extended because of a renewal that was asked for at `asked`.
    pub(crate) fn renewed(&self, asked: BootTime) {
        self.0.asked.fetch_max(asked.0, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }

    /// Ready once it was renewed or ended after this call. That it lapses is told by the clock alone.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// Whether it is valid, and was renewed because that was asked for after `moment`: then no other
    /// node had a claim at `moment`, even if the clock here has stood still.
    pub(crate) fn is_renewed_since(&self, moment: BootTime) -> bool {
        let unlimited = self.deadline().is_none();
        unlimited || (self.0.asked.load(Ordering::Acquire) > moment.0 && self.is_valid())
    }

    /// Ends it now.
    pub fn end(&self) {
        self.0.end.store(OVER, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// When it ends; `None` if it never does.
    pub fn deadline(&self) -> Option<BootTime> {
        Some(self.0.end.load(Ordering::Acquire)).filter(|end| *end != UNLIMITED).map(BootTime)
    }
}

/// The same claim, or two that never change any more: a view does not change when its claim is renewed.
impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        let settled = |claim: &Self| match claim.0.end.load(Ordering::Acquire) {
            end @ (UNLIMITED | OVER) => Some(end),
            _ => None,
        };
        Arc::ptr_eq(&self.0, &other.0)
            || settled(self).is_some_and(|end| settled(other) == Some(end))
    }
}

impl Eq for Claim {}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.deadline() {
            None => f.write_str("Claim(unlimited)"),
            Some(end) => write!(f, "Claim(until {})", end.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lapses_by_itself_and_is_not_revived() {
        let at = BootTime;
        let claim = Claim::until(at(100));
        assert!(claim.is_valid_at(at(99)) && !claim.is_valid_at(at(100)));
        assert!(claim.extend(at(200), at(99)));
        assert!(claim.is_valid_at(at(199)));
        assert!(!claim.extend(at(300), at(200)), "a late renewal");
        assert!(!claim.is_valid_at(at(100)), "over for good");
        assert!(!claim.extend(at(300), at(50)));
    }

    #[test]
    fn a_renewal_that_was_overtaken_shortens_nothing() {
        let claim = Claim::until(BootTime(200));
        assert!(claim.extend(BootTime(150), BootTime(10)));
        assert_eq!(claim.deadline(), Some(BootTime(200)));
    }

    #[test]
    fn only_a_later_renewal_shows_that_there_is_no_other() {
        let asked = BootTime::now();
        let claim = Claim::until(asked.after(Duration::from_secs(3600)));
        claim.renewed(asked);
        assert!(!claim.is_renewed_since(asked));
        claim.renewed(asked.after(Duration::from_nanos(1)));
        assert!(claim.is_renewed_since(asked));
        claim.end();
        assert!(!claim.is_renewed_since(asked));
        assert!(Claim::unlimited().is_renewed_since(asked));
    }

    #[test]
    fn goes_by_the_clock_of_the_machine() {
        let now = BootTime::now();
        assert!(Claim::until(now.after(Duration::from_secs(3600))).is_valid());
        assert!(!Claim::until(now).is_valid());
        assert!(Claim::unlimited().is_valid() && !Claim::none().is_valid());
        assert!(BootTime::now() >= now);
    }
}
