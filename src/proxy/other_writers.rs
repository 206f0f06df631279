//! Whether somebody beside the requests writes the database: a worker, a scheduler, a thread of the
//! application. It is found out by commits between requests. As long as there may be one, a commit during
//! a request is not put down to it. Pure: time comes from outside.

use std::time::Duration;

use tokio::time::Instant;

use super::at_app::Alone;
use crate::txid::EpochTxid;

/// For so long after such a commit, one during a request proves nothing.
const SUSPICION: Duration = Duration::from_secs(600);
/// And for so long not even if the request has failed on a replica, as one that writes does.
const CERTAINTY: Duration = Duration::from_secs(10);

/// What was seen of other writers.
#[derive(Debug, Default)]
pub(super) struct OtherWriters {
    /// The last request that was alone, and what the database held after it.
    last: Option<(Alone, EpochTxid)>,
    noticed: Option<Instant>,
}

impl OtherWriters {
    /// A request was alone at the application, and the database held `before` and `after` it. Without a
    /// `before` nothing is known of the time between it and the last.
    pub(super) fn note(
        &mut self,
        alone: Alone,
        before: Option<EpochTxid>,
        after: EpochTxid,
        now: Instant,
    ) {
        let between = |((former, held), before): ((Alone, EpochTxid), EpochTxid)| {
            alone.follows(former) && held.epoch == before.epoch && held.txid < before.txid
        };
        if self.last.zip(before).is_some_and(between) {
            self.noticed = Some(now);
        }
        self.last = Some((alone, after));
    }

    /// A commit during a request is probably the request's own.
    pub(super) fn leave_probable(&self, now: Instant) -> bool {
        self.quiet_for(now) >= SUSPICION
    }

    /// A commit during a request that has failed on a replica is its own.
    pub(super) fn leave_certain(&self, now: Instant) -> bool {
        self.quiet_for(now) >= CERTAINTY
    }

    fn quiet_for(&self, now: Instant) -> Duration {
        self.noticed.map_or(Duration::MAX, |noticed| now.saturating_duration_since(noticed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::proxy::at_app::AtApp;
    use crate::txid::Txid;
    use std::sync::Arc;

    fn at(txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(1), txid: Txid(txid) }
    }

    #[test]
    fn a_commit_between_two_requests_is_somebody_elses() {
        let app = Arc::new(AtApp::default());
        let mut others = OtherWriters::default();
        let now = Instant::now();
        let next = || app.enter().alone().unwrap();
        others.note(next(), Some(at(5)), at(6), now);
        others.note(next(), Some(at(6)), at(6), now);
        assert!(others.leave_probable(now), "it was the request itself");
        next();
        others.note(next(), Some(at(7)), at(7), now);
        assert!(others.leave_probable(now), "it may have been the request between");
        others.note(next(), None, at(8), now);
        assert!(others.leave_probable(now), "it may have been the request itself");
        others.note(next(), Some(at(9)), at(9), now);
        assert!(!others.leave_probable(now) && !others.leave_certain(now));
        assert!(others.leave_certain(now + CERTAINTY) && !others.leave_probable(now + CERTAINTY));
        assert!(others.leave_probable(now + SUSPICION));
    }

    #[test]
    fn another_epoch_begins_where_it_begins() {
        let app = Arc::new(AtApp::default());
        let mut others = OtherWriters::default();
        let now = Instant::now();
        others.note(app.enter().alone().unwrap(), Some(at(5)), at(5), now);
        let later = EpochTxid { epoch: Epoch(2), txid: Txid(9) };
        others.note(app.enter().alone().unwrap(), Some(later), later, now);
        assert!(others.leave_probable(now));
    }
}
