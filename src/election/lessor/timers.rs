//! When the lease expires, by the clock of whoever leads Raft.

use parking_lot::MutexGuard;

use super::super::table::Term;
use super::Lessor;
use crate::claim::BootTime;
use crate::cluster::Epoch;

#[derive(Default)]
pub(super) struct Timers {
    term: Term,
    /// Neither this epoch nor an earlier one is renewed.
    pub(super) revoked: Epoch,
    /// When the lease of that epoch expires.
    pub(super) expiry: Option<(Epoch, BootTime)>,
}

impl Lessor {
    /// The timers, begun anew if `term` is new; `None` if a later one has begun.
    pub(super) fn timers_of(&self, term: Term) -> Option<MutexGuard<'_, Timers>> {
        let mut timers = self.timers.lock();
        if term > timers.term {
            *timers = Timers { term, ..Timers::default() };
        }
        (timers.term == term).then_some(timers)
    }

    /// When the lease of `epoch` expires; in a new term a full ttl from now.
    pub(super) fn expiry(&self, term: Term, epoch: Epoch) -> Option<BootTime> {
        let full = self.context.clock.now().after(self.context.times.ttl);
        let mut timers = self.timers_of(term)?;
        if timers.revoked >= epoch {
            return Some(BootTime(0));
        }
        let known = timers.expiry.filter(|(of, _)| *of == epoch).map(|(_, at)| at);
        timers.expiry = Some((epoch, known.unwrap_or(full)));
        timers.expiry.map(|(_, at)| at)
    }

    /// Whether it is news that the lease of `epoch` is over.
    pub(super) fn revoke(&self, term: Term, epoch: Epoch) -> Option<bool> {
        let mut timers = self.timers_of(term)?;
        let first = timers.revoked < epoch;
        timers.revoke(epoch);
        Some(first)
    }

    /// If the lease of `epoch` is at its end, also if it was renewed until this moment: whether that
    /// is news.
    pub(super) fn revoke_if_lapsed(&self, term: Term, epoch: Epoch) -> Option<bool> {
        let now = self.context.clock.now();
        let mut timers = self.timers_of(term)?;
        if timers.revoked >= epoch {
            return Some(false);
        }
        let lapsed = timers.expiry.is_some_and(|(of, at)| of == epoch && at <= now);
        lapsed.then(|| {
            timers.revoke(epoch);
            true
        })
    }
}

impl Timers {
    pub(super) fn revoke(&mut self, epoch: Epoch) {
        self.revoked = self.revoked.max(epoch);
    }
}
