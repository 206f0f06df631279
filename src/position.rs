//! The position of this node's copy, shared between the engine that moves it and the requests that
//! wait for it.
//!
//! Reading it is one atomic load. Waiting is by a queue ordered by what is waited for: an advance
//! wakes exactly those that it satisfies, and nobody polls.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::cluster::Epoch;
use crate::txid::{EpochTxid, Txid};

/// Bits of the packed form that hold the transaction: 2^44 of them last 2,000 years at 260/s.
const TXID_BITS: u32 = 44;
const TXID_MAX: u64 = (1 << TXID_BITS) - 1;
const EPOCH_MAX: u64 = (1 << (64 - TXID_BITS)) - 1;

/// The last known position, with those that wait for a later one.
#[derive(Default)]
pub struct PositionCell {
    /// Epoch and transaction in one word, so that both are read in one load.
    packed: AtomicU64,
    waiting: Mutex<BinaryHeap<Reverse<Waiting>>>,
}

struct Waiting {
    target: u64,
    wake: oneshot::Sender<()>,
}

impl PositionCell {
    /// The last position published.
    pub fn get(&self) -> EpochTxid {
        unpack(self.packed.load(Ordering::Acquire))
    }

    /// Whether this copy holds at least `target`.
    pub fn reached(&self, target: EpochTxid) -> bool {
        self.packed.load(Ordering::Acquire) >= pack(target)
    }

    /// Moves the position forward and wakes whom that satisfies. An older position is ignored:
    /// events may arrive after a position that was read directly.
    pub fn advance(&self, to: EpochTxid) {
        let to = pack(to);
        if self.packed.fetch_max(to, Ordering::AcqRel) >= to {
            return;
        }
        self.wake(to);
    }

    /// Sets the position, backwards too: a copy was replaced by another history.
    pub fn reset(&self, to: EpochTxid) {
        let to = pack(to);
        self.packed.store(to, Ordering::Release);
        self.wake(to);
    }

    /// Returns once `target` is reached. Dropping the future leaves the queue at the next wake-up.
    pub async fn wait(&self, target: EpochTxid) {
        let target = pack(target);
        let woken = {
            let mut waiting = self.lock();
            // Looked at under the lock: an advance before this is seen here, one after it wakes us.
            if self.packed.load(Ordering::Acquire) >= target {
                return;
            }
            // Those who gave up would otherwise pile up while the position stands still.
            if waiting.len() >= 64 && waiting.len().is_power_of_two() {
                waiting.retain(|w| !w.0.wake.is_closed());
            }
            let (wake, woken) = oneshot::channel();
            waiting.push(Reverse(Waiting { target, wake }));
            woken
        };
        // The sender is dropped only after it was used: the cell outlives its borrowers.
        let _ = woken.await;
    }

    fn wake(&self, reached: u64) {
        let mut waiting = self.lock();
        while waiting.peek().is_some_and(|w| w.0.target <= reached) {
            if let Some(Reverse(w)) = waiting.pop() {
                let _ = w.wake.send(());
            }
        }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, BinaryHeap<Reverse<Waiting>>> {
        self.waiting.lock()
    }
}

fn pack(position: EpochTxid) -> u64 {
    position.epoch.0.min(EPOCH_MAX) << TXID_BITS | position.txid.0.min(TXID_MAX)
}

fn unpack(packed: u64) -> EpochTxid {
    EpochTxid { epoch: Epoch(packed >> TXID_BITS), txid: Txid(packed & TXID_MAX) }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.target == other.target
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.target.cmp(&other.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    #[tokio::test]
    async fn wakes_whom_it_satisfies_and_nobody_else() {
        let cell = Arc::new(PositionCell::default());
        cell.advance(at(1, 5));
        cell.wait(at(1, 5)).await;
        let near = tokio::spawn({
            let cell = cell.clone();
            async move { cell.wait(at(1, 7)).await }
        });
        let far = tokio::spawn({
            let cell = cell.clone();
            async move { cell.wait(at(2, 1)).await }
        });
        while cell.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        cell.advance(at(1, 6));
        assert_eq!(cell.lock().len(), 2);
        cell.advance(at(1, 7));
        near.await.unwrap();
        assert!(!far.is_finished());
        cell.advance(at(2, 0));
        cell.advance(at(2, 1));
        far.await.unwrap();
        assert_eq!(cell.get(), at(2, 1));
    }

    #[test]
    fn never_goes_back_unless_told_so() {
        let cell = PositionCell::default();
        cell.advance(at(2, 3));
        cell.advance(at(1, 9));
        assert_eq!(cell.get(), at(2, 3));
        cell.reset(at(1, 9));
        assert_eq!(cell.get(), at(1, 9));
    }

    #[tokio::test]
    async fn those_who_gave_up_do_not_pile_up() {
        let cell = PositionCell::default();
        for _ in 0..10_000 {
            let wait = cell.wait(at(1, 1));
            tokio::select! {
                biased;
                () = wait => unreachable!("nothing was advanced"),
                () = std::future::ready(()) => {}
            }
        }
        assert!(cell.lock().len() <= 128, "{}", cell.lock().len());
    }
}
