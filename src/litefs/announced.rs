//! What a replica has reached of what its primary has announced. Pure.
//!
//! The primary says in order: at this seq I held that much of each database. A replica has reached a seq
//! once it holds at least that much of *each*. LiteFS sends one database after the other, so a replica may
//! get a later transaction of one before an earlier one of another: then it has reached neither.

use std::collections::VecDeque;

use super::databases::Databases;
use crate::cluster::Epoch;
use crate::txid::{EpochTxid, Txid};

/// Announcements that wait to be reached. With more of them the last ones become one.
const PENDING: usize = 64;

/// What the primary of one epoch has announced.
#[derive(Debug, Default)]
pub struct Announced {
    epoch: Epoch,
    reached: Option<Txid>,
    /// All that it has said so far.
    said: Databases,
    /// What is not reached yet: what changed since the one before.
    pending: VecDeque<(Txid, Databases)>,
}

impl Announced {
    /// A connection to the primary of `epoch` begins; the first that it says is all that it holds. What
    /// was reached in the same epoch stays so.
    pub fn begin(&mut self, epoch: Epoch) {
        let reached = self.reached(epoch);
        *self = Self { epoch, reached, ..Self::default() };
    }

    /// At that seq the primary held `changed`, and whatever it had said before of the others.
    pub fn hear(&mut self, EpochTxid { epoch, txid: seq }: EpochTxid, changed: Databases) {
        if epoch != self.epoch {
            return;
        }
        self.said.replace(&changed);
        let full = self.pending.len() >= PENDING;
        match self.pending.back_mut() {
            Some(last) if last.0 >= seq && changed.is_empty() => {}
            Some(last) if full => {
                last.0 = last.0.max(seq);
                last.1.replace(&changed);
            }
            _ => self.pending.push_back((seq, changed)),
        }
    }

    /// This copy holds so much; whether that reaches more than before.
    pub(crate) fn look(&mut self, holds: &Databases) -> bool {
        let before = self.reached;
        while self.pending.front().is_some_and(|(_, changed)| holds.hold(changed)) {
            let reached = self.pending.pop_front().map(|(seq, _)| seq);
            self.reached = self.reached.max(reached);
        }
        self.reached > before
    }

    /// In `epoch` this copy has reached at least `seq`: there it began, or so it was remembered.
    pub(crate) fn start(&mut self, epoch: Epoch, seq: Option<Txid>) {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.reached = self.reached.max(seq);
    }

    /// What was reached in `epoch`, if anything is known of that.
    pub(crate) fn reached(&self, epoch: Epoch) -> Option<Txid> {
        self.reached.filter(|_| self.epoch == epoch)
    }

    /// What the primary of `epoch` has said.
    pub(crate) fn said(&self, epoch: Epoch) -> Option<&Databases> {
        Some(&self.said).filter(|said| self.epoch == epoch && !said.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::databases::tests::databases;
    use super::*;
    use crate::litefs::position::LitefsPosition;
    use crate::txid::Checksum;

    const EPOCH: Epoch = Epoch(2);

    fn hear(announced: &mut Announced, seq: u64, changed: &[(&str, u64)]) {
        announced.hear(EpochTxid { epoch: EPOCH, txid: Txid(seq) }, databases(changed));
    }

    #[test]
    fn a_later_transaction_of_another_database_does_not_count() {
        let mut announced = Announced::default();
        announced.begin(EPOCH);
        hear(&mut announced, 5, &[("a", 3), ("b", 2)]);
        hear(&mut announced, 6, &[("b", 3)]);
        hear(&mut announced, 7, &[("a", 4)]);
        assert!(announced.look(&databases(&[("a", 4), ("b", 2)])));
        assert_eq!(announced.reached(EPOCH), Some(Txid(5)));
        assert!(announced.look(&databases(&[("a", 4), ("b", 3)])));
        assert_eq!(announced.reached(EPOCH), Some(Txid(7)));
        assert_eq!(announced.reached(Epoch(3)), None);
    }

    #[test]
    fn what_was_reached_outlives_a_connection_and_no_epoch() {
        let mut announced = Announced::default();
        announced.begin(EPOCH);
        hear(&mut announced, 5, &[("a", 5)]);
        announced.look(&databases(&[("a", 5)]));
        announced.begin(EPOCH);
        assert_eq!(announced.reached(EPOCH), Some(Txid(5)));
        announced.begin(Epoch(3));
        assert_eq!((announced.reached(EPOCH), announced.reached(Epoch(3))), (None, None));
    }

    #[test]
    fn a_new_database_counts_from_its_announcement_on() {
        let mut announced = Announced::default();
        announced.begin(EPOCH);
        hear(&mut announced, 5, &[("a", 5)]);
        hear(&mut announced, 6, &[("b", 1)]);
        announced.look(&databases(&[("a", 9)]));
        assert_eq!(announced.reached(EPOCH), Some(Txid(5)));
    }

    /// Commits in their order, as the database that each was made in.
    fn commits() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0..3usize, 1..200)
    }

    fn held(counts: [u64; 3]) -> Databases {
        let mut all = Databases::default();
        for (name, txid) in ["a", "b", "c"].into_iter().zip(counts) {
            let at = LitefsPosition { txid: Txid(txid), checksum: Checksum(1 + txid) };
            all.set(name, at);
        }
        all
    }

    proptest! {
        /// However LiteFS orders what it sends, and whichever states are announced: who says that he has
        /// reached a seq holds every commit up to it; and in the end everything is reached.
        #[test]
        fn whoever_has_reached_a_seq_holds_every_commit_up_to_it(
            commits in commits(),
            skip in 1..9usize,
            order in prop::collection::vec((0..3usize, 1..5u64), 0..200),
        ) {
            let mut states = vec![[0; 3]];
            for database in &commits {
                let mut next = states[states.len() - 1];
                next[*database] += 1;
                states.push(next);
            }
            let all = states[states.len() - 1];
            let mut announced = Announced::default();
            announced.begin(EPOCH);
            let mut said = Databases::default();
            let seqs = (1..states.len()).step_by(skip).chain([states.len() - 1]);
            let mut seqs = seqs.collect::<Vec<_>>().into_iter();
            let mut holds = [0; 3];
            let mut steps = order.into_iter();
            loop {
                let (step, seq) = (steps.next(), seqs.next());
                if let Some(seq) = seq {
                    let now = held(states[seq]);
                    prop_assert_eq!(now.seq(), Txid(seq as u64));
                    let at = EpochTxid { epoch: EPOCH, txid: now.seq() };
                    announced.hear(at, now.other_than(&said));
                    said = now;
                }
                if let Some((database, by)) = step {
                    holds[database] = all[database].min(holds[database] + by);
                }
                if step.is_none() && seq.is_none() {
                    break;
                }
                announced.look(&held(holds));
                let reached = announced.reached(EPOCH).map_or(0, |seq| seq.0 as usize);
                for (have, wanted) in holds.iter().zip(states[reached]) {
                    prop_assert!(*have >= wanted);
                }
            }
            announced.look(&held(all));
            prop_assert_eq!(announced.reached(EPOCH), Some(Txid(commits.len() as u64)));
        }
    }
}
