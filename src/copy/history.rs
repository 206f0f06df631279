//! Whether a copy has something that the cluster's history lacks. Pure.
//!
//! The cluster agrees on where each epoch started: what its primary then held, in terms of the history
//! before. So the epochs form a chain, from the present one back through those that it grew out of; one
//! that nobody went on from is not in it, and what only it had is lost to the cluster.

use crate::cluster::EpochStart;
use crate::txid::{EpochTxid, Position};

/// The epochs that the last one grew out of, itself included, the newest first.
fn chain(starts: &[EpochStart]) -> impl Iterator<Item = &EpochStart> {
    let before = |start: &&EpochStart| {
        let from = start.held.at.epoch;
        starts.iter().find(|other| other.epoch == from && other.epoch < start.epoch)
    };
    std::iter::successors(starts.last(), before)
}

/// Whether a copy that holds `have` has transactions of its own, which following the last of these
/// epochs would lose. In doubt it has.
pub(crate) fn diverges(have: Position, starts: &[EpochStart]) -> bool {
    if have.at.txid.0 == 0 {
        return false;
    }
    let same = |start: &EpochStart| {
        start.held.checksum == have.checksum && start.held.at.txid == have.at.txid
    };
    if chain(starts).any(same) {
        return false;
    }
    // Where the history left the epoch that the copy is of.
    let Some(next) = chain(starts).take_while(|s| s.epoch > have.at.epoch).last() else {
        return false;
    };
    let left = next.held.at;
    left.epoch != have.at.epoch || have.at.txid >= left.txid
}

/// How far a copy at `have` goes along with the history of the last of `starts`. Of what is too long ago to
/// tell it is taken to do so: what it has acknowledged it must not deny.
pub(crate) fn common(have: EpochTxid, starts: &[EpochStart]) -> EpochTxid {
    let mut common = have;
    loop {
        let Some(next) = chain(starts).take_while(|s| s.epoch > common.epoch).last() else {
            return common;
        };
        let left = next.held.at;
        if left.epoch == common.epoch {
            return common.min(left);
        }
        // That epoch is not in the history: what it began with may be.
        let began = starts.iter().find(|start| start.epoch == common.epoch);
        match began.filter(|_| left.epoch < common.epoch) {
            Some(began) if began.held.at.epoch < common.epoch => common = began.held.at,
            _ => return have,
        }
    }
}

/// Whether a copy has more than its primary had when its present epoch began, in a cluster whose
/// primary is always the same node: that node has lost something.
pub(crate) fn exceeds(have: Position, start: EpochStart) -> bool {
    let (held, at) = (start.held, have.at);
    let other = at.txid == held.at.txid && have.checksum != held.checksum;
    at.epoch < start.epoch && at.txid.0 != 0 && (at.txid > held.at.txid || other)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::txid::{Checksum, Txid};

    /// A copy; the checksum tells histories apart.
    pub(crate) fn position(epoch: u64, txid: u64, checksum: u64) -> Position {
        let position = EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) };
        Position { at: position, checksum: Checksum(checksum) }
    }

    pub(crate) fn start(epoch: u64, held: Position) -> EpochStart {
        EpochStart { epoch: Epoch(epoch), held }
    }

    #[test]
    fn an_older_state_of_the_same_history_is_no_divergence() {
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 10, 110))];
        assert!(!diverges(position(1, 7, 107), &starts));
        assert!(!diverges(position(1, 10, 110), &starts));
        assert!(!diverges(position(2, 50, 250), &starts));
        assert!(!diverges(position(0, 0, 0), &starts), "empty");
        assert!(!diverges(position(1, 7, 107), &[]));
    }

    #[test]
    fn what_goes_beyond_a_start_or_differs_there_is_one() {
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 10, 110))];
        assert!(diverges(position(1, 11, 111), &starts));
        assert!(diverges(position(1, 10, 999), &starts));
    }

    #[test]
    fn an_epoch_that_nobody_went_on_from_is_lost() {
        // Epoch 2 was lost whole: epoch 3 grew out of 1.
        let starts = [
            start(1, position(0, 0, 0)),
            start(2, position(1, 10, 110)),
            start(3, position(1, 12, 112)),
        ];
        assert!(diverges(position(2, 11, 211), &starts));
        assert!(!diverges(position(1, 11, 111), &starts), "an ancestor of epoch 3");
        assert!(diverges(position(1, 13, 113), &starts));
        assert!(!diverges(position(1, 12, 112), &starts));
        // Nothing was written in epoch 2: its content is in the history.
        assert!(!diverges(position(2, 12, 112), &starts));
    }

    #[test]
    fn a_fixed_primary_that_lost_something_is_noticed() {
        let start = start(5, position(4, 10, 110));
        for fine in [position(4, 10, 110), position(1, 7, 1), position(5, 12, 3), position(0, 0, 0)]
        {
            assert!(!exceeds(fine, start), "{fine:?}");
        }
        assert!(exceeds(position(4, 11, 111), start) && exceeds(position(4, 10, 9), start));
    }

    #[test]
    fn two_histories_have_in_common_what_both_grew_out_of() {
        let at = |epoch, txid| position(epoch, txid, 0).at;
        let starts = [
            start(1, position(0, 0, 0)),
            start(2, position(1, 10, 110)),
            start(3, position(1, 12, 112)),
            start(4, position(3, 20, 320)),
        ];
        assert_eq!(common(at(1, 11), &starts), at(1, 11), "behind");
        assert_eq!(common(at(1, 30), &starts), at(1, 12));
        assert_eq!(common(at(3, 25), &starts), at(3, 20));
        assert_eq!(common(at(2, 30), &starts), at(1, 10), "epoch 2 was lost whole");
        assert_eq!(common(at(4, 30), &starts), at(4, 30), "it is of that epoch");
        // Long ago, or where that epoch began is not known.
        assert_eq!(common(at(2, 30), &starts[2..]), at(2, 30));
        assert_eq!(common(at(2, 30), &[start(9, position(8, 1, 1))]), at(2, 30));
    }

    #[test]
    fn what_is_too_long_ago_to_tell_counts_as_one() {
        let starts = [start(70, position(69, 1000, 1))];
        assert!(diverges(position(3, 7, 7), &starts));
    }
}
