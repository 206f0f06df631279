//! Writes under way, counted over all workers. Whoever hands the primary's part over has the view say
//! that no more are taken, and waits until none is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Notify, watch};

use crate::cluster::{ClusterView, Epoch};

/// How many writes this node's application has been asked for, that were not acknowledged yet.
#[derive(Default)]
pub struct Writes {
    count: AtomicUsize,
    /// How many there ever were.
    begun: AtomicU64,
    last_ended: Notify,
}

/// A write under way, until it is dropped.
pub(crate) struct UnderWay(Arc<Writes>);

impl Writes {
    /// Counts one more, if this node takes writes in `epoch`.
    ///
    /// It counts first and then looks at the view, under that one's lock. So none slips by: who had
    /// the view say before that no writes are taken is seen here, who does so after sees the count.
    pub(crate) fn enter(
        self: &Arc<Self>,
        view: &watch::Receiver<ClusterView>,
        epoch: Epoch,
    ) -> Option<UnderWay> {
        self.count.fetch_add(1, SeqCst);
        self.begun.fetch_add(1, SeqCst);
        let counted = UnderWay(self.clone());
        let view = view.borrow();
        (view.takes_writes() && view.epoch() == epoch).then_some(counted)
    }

    /// How many there ever were, if none is under way. If that is the same later, none was meanwhile.
    pub fn quiet(&self) -> Option<u64> {
        let begun = self.begun.load(SeqCst);
        (self.count.load(SeqCst) == 0).then_some(begun)
    }

    /// Returns once none is under way. Unless the view says that no more are taken, that means little.
    pub async fn none_under_way(&self) {
        loop {
            // Before the look, so that an end between the look and the wait is noticed.
            let ended = self.last_ended.notified();
            if self.count.load(SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, SeqCst) == 1 {
            self.0.last_ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
