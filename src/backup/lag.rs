//! How far the backup is behind the primary. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::txid::Txid;

/// Moments that are remembered; of more, every other one is forgotten.
const MOST: usize = 256;

/// When the primary had how many transactions, as far as they are not kept yet.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// `None`: the store has not been asked yet.
    kept: Option<Txid>,
    newest: Txid,
    /// The oldest first.
    waiting: VecDeque<(Txid, Instant)>,
}

/// How far a backup is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// `None`: not known yet.
    pub(crate) transactions: Option<u64>,
    /// How old the oldest of them is.
    pub(crate) time: Duration,
}

impl Lag {
    /// The primary was seen to have so many.
    pub(crate) fn has(&mut self, seq: Txid, now: Instant) {
        self.newest = seq;
        if Some(seq) <= self.kept || self.waiting.back().is_some_and(|(last, _)| *last >= seq) {
            return;
        }
        if self.waiting.len() >= MOST {
            // The oldest stays: nothing is said to be younger than it is.
            let mut keep = false;
            self.waiting.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.waiting.push_back((seq, now));
    }

    /// So many are kept.
    pub(crate) fn keeps(&mut self, seq: Txid) {
        self.kept = Some(seq);
        while self.waiting.front().is_some_and(|(waits, _)| *waits <= seq) {
            self.waiting.pop_front();
        }
    }

    pub(crate) fn behind(&self, now: Instant) -> Behind {
        let transactions = self.kept.map(|kept| self.newest.0.saturating_sub(kept.0));
        let oldest = self.waiting.front().filter(|_| transactions != Some(0));
        let time = oldest.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at));
        Behind { transactions, time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_as_old_as_the_oldest_transaction_that_is_not_kept() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let behind = |lag: &Lag, second| {
            let Behind { transactions, time } = lag.behind(at(second));
            (transactions.unwrap(), time.as_secs())
        };
        lag.has(Txid(5), at(0));
        lag.keeps(Txid(5));
        assert_eq!(behind(&lag, 100), (0, 0), "nothing was written");
        lag.has(Txid(6), at(100));
        lag.has(Txid(8), at(102));
        assert_eq!(behind(&lag, 103), (3, 3));
        lag.keeps(Txid(6));
        assert_eq!(behind(&lag, 103), (2, 1));
        lag.keeps(Txid(8));
        assert_eq!(behind(&lag, 200), (0, 0));
    }

    #[test]
    fn years_without_a_store_take_no_room() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        for n in 0..10_000 {
            lag.has(Txid(n + 1), start + Duration::from_secs(n));
        }
        assert!(lag.waiting.len() <= MOST);
        let behind = lag.behind(start + Duration::from_secs(10_000));
        assert_eq!((behind.transactions, behind.time.as_secs()), (None, 10_000));
    }
}
