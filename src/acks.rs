//! Which replicas hold what the primary has committed, and waiting for enough of them.
//!
//! Replicas tell the primary's engine what they have applied; it tells this. An acknowledgement counts
//! only for the epoch in which it was given, and only from a candidate (`ack` of the configuration).

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::cluster::{Epoch, NodeId};
use crate::position::PositionCell;
use crate::txid::{EpochTxid, Txid};

/// The acknowledgements of one epoch.
#[derive(Default)]
pub struct Acks {
    state: Mutex<State>,
    /// What at least one replica holds.
    one: PositionCell,
    /// What a majority of the candidates holds, the primary included.
    held: PositionCell,
    /// What a majority of those holds who are to count.
    held_by_next: PositionCell,
    /// The last epoch in which somebody has waited for a majority.
    asked: watch::Sender<Epoch>,
    /// The last epoch of which the cluster knows that clients rely on majorities.
    promised: PositionCell,
}

#[derive(Default)]
struct State {
    epoch: Epoch,
    /// Sets of candidates; a majority of each is needed. There are two while one is replaced by the
    /// other; none: nothing is known to count.
    electorates: Vec<Electorate>,
    /// What each replica has said last.
    held: BTreeMap<NodeId, EpochTxid>,
}

/// Those whose majority counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Electorate {
    /// Every candidate but this node.
    pub others: Vec<NodeId>,
    /// So many more may be candidates: they count for what a majority is, and not in it.
    pub unheard: usize,
    /// This node is one of them.
    pub own: bool,
}

impl Electorate {
    /// These nodes, of which `own` may be one.
    pub(crate) fn of(nodes: &[NodeId], unheard: &[NodeId], own: &NodeId) -> Self {
        let others = nodes.iter().filter(|node| *node != own);
        let (unheard, others): (Vec<_>, Vec<_>) =
            others.cloned().partition(|node| unheard.contains(node));
        Self { others, unheard: unheard.len(), own: nodes.contains(own) }
    }

    /// What a majority holds, if this node holds everything.
    fn majority(&self, held: &BTreeMap<NodeId, EpochTxid>) -> Option<EpochTxid> {
        let own = usize::from(self.own);
        let needed = (self.others.len() + self.unheard + own) / 2 + 1 - own;
        let mut positions: Vec<_> =
            self.others.iter().filter_map(|node| held.get(node)).copied().collect();
        positions.sort_unstable_by(|a, b| b.cmp(a));
        match needed.checked_sub(1) {
            Some(last) => positions.get(last).copied(),
            None => Some(EpochTxid { epoch: Epoch(u64::MAX), txid: Txid(u64::MAX) }),
        }
    }
}

impl Acks {
    /// Begins an epoch, in which nobody has acknowledged anything yet, and nobody else has to know what
    /// clients rely on: the primary never changes.
    pub fn begin(&self, epoch: Epoch, electorates: Vec<Electorate>) {
        self.open(epoch);
        self.require(electorates);
        self.promise(epoch);
    }

    /// Begins an epoch in which it is still to be agreed upon whose acknowledgements count.
    pub(crate) fn open(&self, epoch: Epoch) {
        let mut state = self.lock();
        *state = State { epoch, ..State::default() };
        self.one.reset(EpochTxid::default());
        self.reset(&state);
    }

    /// From now on a majority of each of these is needed.
    pub(crate) fn require(&self, electorates: Vec<Electorate>) {
        let mut state = self.lock();
        state.electorates = electorates;
        self.reset(&state);
    }

    /// The cluster knows that clients of `epoch` rely on what a majority holds.
    pub(crate) fn promise(&self, epoch: Epoch) {
        self.promised.advance(beginning_of(epoch));
    }

    /// The last epoch in which somebody has waited for a majority.
    pub(crate) fn asked(&self) -> watch::Receiver<Epoch> {
        self.asked.subscribe()
    }

    /// What replicas have said counts no more: one of them may have lost its disk since. They say it
    /// again, from time to time.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.held.clear();
        self.reset(&state);
    }

    /// A replica holds `position`, of the history of that epoch, and no more.
    pub fn heard(&self, node: &NodeId, position: EpochTxid) {
        let mut state = self.lock();
        if position.epoch != state.epoch {
            return;
        }
        state.held.insert(node.clone(), position);
        self.publish(&state);
    }

    /// Returns once at least one replica holds `position`.
    pub(crate) async fn one(&self, position: EpochTxid) {
        self.one.wait(position).await;
    }

    /// Returns once a majority of the candidates holds `position`, and the cluster knows that a client
    /// relies on that: no later primary is chosen without it.
    pub async fn majority(&self, position: EpochTxid) {
        self.asked.send_if_modified(|asked| {
            let news = *asked < position.epoch;
            *asked = position.epoch.max(*asked);
            news
        });
        self.held.wait(position).await;
        self.promised.wait(beginning_of(position.epoch)).await;
    }

    /// Returns once a majority of the set that was named last holds `position`, whatever the one holds that
    /// it replaces: that may be what was lost.
    pub(crate) async fn held_by_next(&self, position: EpochTxid) {
        self.held_by_next.wait(position).await;
    }

    fn reset(&self, state: &State) {
        self.held.reset(state.majority());
        self.held_by_next.reset(state.majority_of_next());
    }

    fn publish(&self, state: &State) {
        if let Some(most) = state.held.values().max() {
            self.one.advance(*most);
        }
        self.held.advance(state.majority());
        self.held_by_next.advance(state.majority_of_next());
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

    fn majority_of_next(&self) -> EpochTxid {
        self.electorates.last().and_then(|e| e.majority(&self.held)).unwrap_or_default()
    }
}

fn beginning_of(epoch: Epoch) -> EpochTxid {
    EpochTxid { epoch, txid: Txid(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn electorate(others: &[&str]) -> Electorate {
        Electorate { others: others.iter().map(|name| node(name)).collect(), unheard: 0, own: true }
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
            assert!(!acks.held.reached(at(2, 7)), "{others} others");
            acks.heard(&node(names[needed - 1]), at(2, 7));
            assert!(acks.held.reached(at(2, 7)), "{others} others");
            assert!(!acks.held.reached(at(2, 8)), "{others} others");
        }
        assert!(epoch(&[]).held.reached(at(2, 1)), "a single candidate is its own majority");
    }

    #[test]
    fn other_epochs_and_strangers_do_not_count() {
        let acks = epoch(&["a", "b"]);
        acks.heard(&node("a"), at(1, 99));
        acks.heard(&node("stranger"), at(2, 9));
        assert!(acks.one.reached(at(2, 9)), "it is a replica");
        assert!(!acks.held.reached(at(2, 1)));
        acks.begin(Epoch(3), vec![electorate(&["a", "b"])]);
        acks.heard(&node("a"), at(2, 9));
        assert!(!acks.held.reached(at(2, 1)) && !acks.one.reached(at(2, 1)));
    }

    #[test]
    fn while_the_members_change_both_majorities_are_needed() {
        let acks = epoch(&["a", "b"]);
        acks.heard(&node("a"), at(2, 5));
        acks.require(vec![electorate(&["a", "b"]), electorate(&["a", "b", "c"])]);
        assert!(!acks.held.reached(at(2, 5)));
        acks.heard(&node("c"), at(2, 5));
        assert!(acks.held.reached(at(2, 5)));
    }

    #[test]
    fn a_primary_that_does_not_count_needs_a_majority_of_the_others() {
        let acks = Acks::default();
        let others = vec![node("a"), node("b"), node("c")];
        acks.begin(Epoch(2), vec![Electorate::of(&others, &[], &node("p"))]);
        acks.heard(&node("a"), at(2, 7));
        assert!(!acks.held.reached(at(2, 7)));
        acks.heard(&node("b"), at(2, 7));
        assert!(acks.held.reached(at(2, 7)));
    }

    #[test]
    fn who_may_be_no_candidate_does_not_count_and_makes_a_majority_no_smaller() {
        let (acks, own) = (Acks::default(), node("p"));
        let nodes = [node("a"), node("b"), own.clone()];
        acks.begin(Epoch(2), vec![Electorate::of(&nodes, &nodes[..1], &own)]);
        assert!(!acks.held.reached(at(2, 1)));
        acks.heard(&node("a"), at(2, 7));
        assert!(!acks.held.reached(at(2, 1)));
        acks.heard(&node("b"), at(2, 5));
        assert!(acks.held.reached(at(2, 5)) && !acks.held.reached(at(2, 6)));
        acks.require(vec![Electorate::of(&nodes, &[], &own)]);
        assert!(acks.held.reached(at(2, 7)), "it was heard to be one");
    }

    #[test]
    fn a_set_that_comes_is_level_although_the_one_before_has_lost_its_majority() {
        let acks = Acks::default();
        acks.begin(Epoch(2), vec![electorate(&["lost"]), electorate(&["new"])]);
        acks.heard(&node("new"), at(2, 7));
        assert!(acks.held_by_next.reached(at(2, 7)), "it may replace it");
        assert!(!acks.held.reached(at(2, 1)), "nobody is told of anything meanwhile");
    }

    #[test]
    fn what_a_lost_disk_held_does_not_count_for_the_one_in_its_place() {
        let acks = epoch(&["a", "b"]);
        acks.heard(&node("a"), at(2, 9));
        acks.forget();
        assert!(!acks.held.reached(at(2, 1)));
        acks.heard(&node("a"), at(2, 3));
        acks.require(vec![electorate(&["a", "b"])]);
        assert!(acks.held.reached(at(2, 3)) && !acks.held.reached(at(2, 4)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_is_told_of_once_the_cluster_knows_that_it_is_relied_on() {
        let acks = Acks::default();
        acks.open(Epoch(2));
        acks.require(vec![electorate(&["a", "b"])]);
        acks.heard(&node("a"), at(2, 7));
        let asked = acks.asked();
        let early =
            tokio::time::timeout(std::time::Duration::from_secs(1), acks.majority(at(2, 7)));
        assert!(early.await.is_err() && *asked.borrow() == Epoch(2));
        acks.promise(Epoch(2));
        acks.majority(at(2, 7)).await;
    }
}
