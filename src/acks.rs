//! Which replicas hold what the primary has committed, and waiting for enough of them.
//!
//! Replicas tell the primary's engine what they have applied; it tells this. An acknowledgement counts
//! only for the epoch in which it was given, and only from a candidate (`ack` of the configuration).

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};

use crate::cluster::{Epoch, NodeId};
use crate::position::PositionCell;
use crate::txid::EpochTxid;

/// The acknowledgements of one epoch.
#[derive(Default)]
pub struct Acks {
    state: Mutex<State>,
    /// What at least one replica holds.
    one: PositionCell,
    /// What a majority of the candidates holds, the primary included.
    majority: PositionCell,
}

#[derive(Default)]
struct State {
    epoch: Epoch,
    /// Sets of candidates; a majority of each is needed. There are two while one is replaced by the
    /// other.
    electorates: Vec<Electorate>,
    held: BTreeMap<NodeId, EpochTxid>,
}

/// Those whose majority counts. This node is always one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Electorate {
    /// Every candidate but this node.
    pub others: Vec<NodeId>,
}

impl Electorate {
    /// What a majority holds, if this node holds everything: of n candidates, ⌊n/2⌋ others are needed.
    fn majority(&self, held: &BTreeMap<NodeId, EpochTxid>) -> Option<EpochTxid> {
        let needed = self.others.len().div_ceil(2);
        let mut positions: Vec<_> =
            self.others.iter().filter_map(|node| held.get(node)).copied().collect();
        positions.sort_unstable_by(|a, b| b.cmp(a));
        match needed.checked_sub(1) {
            Some(last) => positions.get(last).copied(),
            None => Some(EpochTxid { epoch: Epoch(u64::MAX), txid: crate::txid::Txid(u64::MAX) }),
        }
    }
}

impl Acks {
    /// Begins an epoch, in which nobody has acknowledged anything yet.
    pub fn begin(&self, epoch: Epoch, electorates: Vec<Electorate>) {
        let mut state = self.lock();
        *state = State { epoch, electorates, held: BTreeMap::new() };
        self.one.reset(EpochTxid::default());
        self.majority.reset(EpochTxid::default());
        self.publish(&state);
    }

    /// From now on a majority of each of these is needed.
    pub(crate) fn require(&self, electorates: Vec<Electorate>) {
        let mut state = self.lock();
        state.electorates = electorates;
        let held = state.majority();
        self.majority.reset(held);
    }

    /// A replica holds `position`, of the history of that epoch.
    pub fn heard(&self, node: &NodeId, position: EpochTxid) {
        let mut state = self.lock();
        if position.epoch != state.epoch {
            return;
        }
        let known = state.held.entry(node.clone()).or_default();
        *known = (*known).max(position);
        self.publish(&state);
    }

    /// Returns once at least one replica holds `position`.
    pub(crate) async fn one(&self, position: EpochTxid) {
        self.one.wait(position).await;
    }

    /// Returns once a majority of the candidates holds `position`.
    pub async fn majority(&self, position: EpochTxid) {
        self.majority.wait(position).await;
    }

    fn publish(&self, state: &State) {
        if let Some(most) = state.held.values().max() {
            self.one.advance(*most);
        }
        self.majority.advance(state.majority());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn majority(&self) -> EpochTxid {
        let each = self.electorates.iter().map(|e| e.majority(&self.held).unwrap_or_default());
        each.min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txid::Txid;

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn electorate(others: &[&str]) -> Electorate {
        Electorate { others: others.iter().map(|name| node(name)).collect() }
    }

    fn epoch(others: &[&str]) -> Acks {
        let acks = Acks::default();
        acks.begin(Epoch(2), vec![electorate(others)]);
        acks
    }

    #[test]
    fn a_majority_includes_the_primary() {
        for (others, needed) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            let names = ["a", "b", "c", "d"];
            let acks = epoch(&names[..others]);
            for name in &names[..needed - 1] {
                acks.heard(&node(name), at(2, 7));
            }
            assert!(!acks.majority.reached(at(2, 7)), "{others} others");
            acks.heard(&node(names[needed - 1]), at(2, 7));
            assert!(acks.majority.reached(at(2, 7)), "{others} others");
            assert!(!acks.majority.reached(at(2, 8)), "{others} others");
        }
        assert!(epoch(&[]).majority.reached(at(2, 1)), "a single candidate is its own majority");
    }

    #[test]
    fn other_epochs_and_strangers_do_not_count() {
        let acks = epoch(&["a", "b"]);
        acks.heard(&node("a"), at(1, 99));
        acks.heard(&node("stranger"), at(2, 9));
        assert!(acks.one.reached(at(2, 9)), "it is a replica");
        assert!(!acks.majority.reached(at(2, 1)));
        acks.begin(Epoch(3), vec![electorate(&["a", "b"])]);
        acks.heard(&node("a"), at(2, 9));
        assert!(!acks.majority.reached(at(2, 1)) && !acks.one.reached(at(2, 1)));
    }

    #[test]
    fn while_the_members_change_both_majorities_are_needed() {
        let acks = epoch(&["a", "b"]);
        acks.heard(&node("a"), at(2, 5));
        acks.require(vec![electorate(&["a", "b"]), electorate(&["a", "b", "c"])]);
        assert!(!acks.majority.reached(at(2, 5)));
        acks.heard(&node("c"), at(2, 5));
        assert!(acks.majority.reached(at(2, 5)));
    }
}
