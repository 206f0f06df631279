//! Whether a copy has something that the cluster's history lacks. Pure.
//!
//! The cluster agrees on where each reign began: what its primary then held, in terms of the history
//! before. So the reigns form a chain, from the present one back through those that it grew out of; one
//! that nobody went on from is not in it, and what only it had is lost to the cluster.

use crate::cluster::Start;
use crate::txid::Stamp;

/// The reigns that the last one grew out of, itself included, the newest first.
fn chain(starts: &[Start]) -> impl Iterator<Item = &Start> {
    let before = |start: &&Start| {
        let from = start.held.position.epoch;
        starts.iter().find(|other| other.epoch == from && other.epoch < start.epoch)
    };
    std::iter::successors(starts.last(), before)
}

/// Whether a copy that holds `have` has transactions of its own, which following the last of these
/// reigns would lose. In doubt it has.
pub fn diverges(have: Stamp, starts: &[Start]) -> bool {
    if have.position.txid.0 == 0 {
        return false;
    }
    let same = |start: &Start| {
        start.held.checksum == have.checksum && start.held.position.txid == have.position.txid
    };
    if chain(starts).any(same) {
        return false;
    }
    // Where the history left the reign that the copy is of.
    let Some(next) = chain(starts).take_while(|s| s.epoch > have.position.epoch).last() else {
        return false;
    };
    let left = next.held.position;
    left.epoch != have.position.epoch || have.position.txid >= left.txid
}

/// Whether a copy has more than its primary had when its present reign began, which is always the same
/// node's: that node has lost something.
pub fn exceeds(have: Stamp, start: Start) -> bool {
    let (held, at) = (start.held, have.position);
    let other = at.txid == held.position.txid && have.checksum != held.checksum;
    at.epoch < start.epoch && at.txid.0 != 0 && (at.txid > held.position.txid || other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::txid::{Checksum, Position, Txid};

    /// A copy; the checksum tells histories apart.
    fn stamp(epoch: u64, txid: u64, checksum: u64) -> Stamp {
        let position = Position { epoch: Epoch(epoch), txid: Txid(txid) };
        Stamp { position, checksum: Checksum(checksum) }
    }

    fn start(epoch: u64, held: Stamp) -> Start {
        Start { epoch: Epoch(epoch), held }
    }

    #[test]
    fn an_older_state_of_the_same_history_is_no_divergence() {
        let starts = [start(1, stamp(0, 0, 0)), start(2, stamp(1, 10, 110))];
        assert!(!diverges(stamp(1, 7, 107), &starts));
        assert!(!diverges(stamp(1, 10, 110), &starts));
        assert!(!diverges(stamp(2, 50, 250), &starts));
        assert!(!diverges(stamp(0, 0, 0), &starts), "empty");
        assert!(!diverges(stamp(1, 7, 107), &[]));
    }

    #[test]
    fn what_goes_beyond_a_start_or_differs_there_is_one() {
        let starts = [start(1, stamp(0, 0, 0)), start(2, stamp(1, 10, 110))];
        assert!(diverges(stamp(1, 11, 111), &starts));
        assert!(diverges(stamp(1, 10, 999), &starts));
    }

    #[test]
    fn a_reign_that_nobody_went_on_from_is_lost() {
        // Epoch 2 reigned and was lost whole: epoch 3 grew out of 1.
        let starts =
            [start(1, stamp(0, 0, 0)), start(2, stamp(1, 10, 110)), start(3, stamp(1, 12, 112))];
        assert!(diverges(stamp(2, 11, 211), &starts));
        assert!(!diverges(stamp(1, 11, 111), &starts), "an ancestor of epoch 3");
        assert!(diverges(stamp(1, 13, 113), &starts));
        assert!(!diverges(stamp(1, 12, 112), &starts));
        // It reigned without writing: its content is in the history.
        assert!(!diverges(stamp(2, 12, 112), &starts));
    }

    #[test]
    fn a_fixed_primary_that_lost_something_is_noticed() {
        let start = start(5, stamp(4, 10, 110));
        for fine in [stamp(4, 10, 110), stamp(1, 7, 1), stamp(5, 12, 3), stamp(0, 0, 0)] {
            assert!(!exceeds(fine, start), "{fine:?}");
        }
        assert!(exceeds(stamp(4, 11, 111), start) && exceeds(stamp(4, 10, 9), start));
    }

    #[test]
    fn what_is_too_long_ago_to_tell_counts_as_one() {
        let starts = [start(70, stamp(69, 1000, 1))];
        assert!(diverges(stamp(3, 7, 7), &starts));
    }
}
