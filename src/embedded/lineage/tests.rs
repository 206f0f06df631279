use super::*;
use crate::copy::history::tests::{position, start};
use crate::embedded::image::page_sum;
use crate::txid::EpochTxid;
use proptest::prelude::*;

/// A node in a model of a cluster: what it holds, in full.
#[derive(Clone, Default)]
struct Node {
    /// Every transaction that made its copy what it is.
    history: Vec<u64>,
    have: EpochTxid,
    starts: Vec<EpochStart>,
    /// It believes that it is the primary.
    leads: bool,
}

impl Node {
    fn position(&self) -> Position {
        // As of a database, each transaction a page: bare CRCs of such short texts do meet.
        let page = |(number, id): (u32, &u64)| page_sum(number, &id.to_be_bytes());
        let sums: Vec<_> = (1..).zip(&self.history).map(page).collect();
        Position { at: self.have, checksum: Checksum::of(&sums) }
    }

    fn elect(&mut self, epoch: Epoch) {
        self.starts = continued(&self.starts, epoch, self.position());
        self.have.epoch = epoch;
        self.leads = true;
    }

    fn commit(&mut self, id: u64) {
        self.history.push(id);
        self.have.txid.0 += 1;
    }

    fn follow(&mut self, primary: &Self) {
        *self = Self { leads: false, ..primary.clone() };
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A node takes a write, if it thinks that it is the primary: a deposed one may.
    Commit(usize),
    /// The present primary's copy becomes this node's.
    Follow(usize),
    /// Whoever it is, however far behind.
    Elect(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize).prop_map(Step::Commit),
        3 => (0..4_usize).prop_map(Step::Follow),
        1 => (0..4_usize).prop_map(Step::Elect),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn what_is_not_found_lacking_is_an_older_state(steps in steps()) {
        let mut nodes = vec![Node::default(); 4];
        let (mut primary, mut epoch) = (0, Epoch(1));
        nodes[0].elect(epoch);
        for (id, step) in (1..).zip(steps) {
            match step {
                Step::Commit(node) if nodes[node].leads => nodes[node].commit(id),
                Step::Elect(node) => {
                    epoch.0 += 1;
                    primary = node;
                    nodes[node].elect(epoch);
                }
                Step::Follow(node) if node != primary => {
                    let new = nodes[primary].clone();
                    let old = &nodes[node];
                    let contained = new.history.starts_with(&old.history);
                    let lineage = Lineage::new(new.starts.clone()).unwrap();
                    let lacks = lineage.lacks(old.position(), true);
                    prop_assert!(contained || lacks, "lost: {:?} for {:?}", old.position(), lineage);
                    prop_assert!(contained || lineage.lacks(old.position(), false));
                    // A copy of an epoch that this history went through, and that is merely behind.
                    let passed = old.starts.iter().all(|start| new.starts.contains(start));
                    prop_assert!(!(contained && lacks && passed), "{:?} for {:?}", old.position(), lineage);
                    nodes[node].follow(&new);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_copy_is_lacking_where_the_histories_part() {
    let lineage = Lineage::new(vec![
        start(1, Position::default()),
        start(2, position(1, 7, 70)),
        start(4, position(2, 9, 90)),
    ])
    .unwrap();
    for (have, lacks) in [
        (position(1, 6, 60), false),
        (position(1, 7, 70), false),
        (position(1, 7, 71), true),
        (position(1, 8, 80), true),
        (position(2, 9, 90), false),
        (position(2, 9, 91), true),
        (position(2, 10, 100), true),
        // An epoch that this history did not go through, but nothing was written in it.
        (position(3, 10, 90), false),
        (position(3, 10, 100), true),
        // Of this very epoch.
        (position(4, 1, 1), false),
        (position(4, 99, 1), false),
    ] {
        assert_eq!(lineage.lacks(have, true), lacks, "{have:?}");
    }
    assert!(lineage.lacks(position(1, 6, 60), false), "perhaps it is something else");
    assert!(!lineage.lacks(position(0, 0, 70), false), "of unknown origin, but known content");
    let unread = Position { checksum: Checksum::UNKNOWN, ..position(0, 0, 0) };
    assert!(lineage.lacks(unread, false));
}

#[test]
fn what_is_too_long_ago_to_tell_may_be_lacking() {
    let mut starts = Vec::new();
    for epoch in 1..=100 {
        starts = continued(&starts, Epoch(epoch), position(epoch - 1, epoch, epoch));
    }
    assert_eq!((starts.len(), starts[0].epoch), (MAX_STARTS, Epoch(37)));
    let lineage = Lineage::new(starts).unwrap();
    assert!(lineage.lacks(position(5, 1, 1000), true));
    assert!(!lineage.lacks(position(36, 1, 1000), true));
}

#[test]
fn a_history_goes_on_from_what_its_copy_reached() {
    let heard =
        [start(1, position(0, 0, 1)), start(2, position(1, 5, 5)), start(3, position(2, 6, 6))];
    // It was told of epochs 2 and 3, and ended before anything of theirs was applied.
    let held = position(1, 4, 4);
    assert_eq!(continued(&heard, Epoch(4), held), [heard[0], start(4, held)]);
    assert_eq!(continued(&heard, Epoch(2), held), [heard[0], start(2, held)]);
}

#[test]
fn nonsense_is_no_history() {
    let held = Position::default();
    assert_eq!(Lineage::new(Vec::new()), None);
    assert_eq!(Lineage::new(vec![start(2, held), start(1, held)]), None);
    assert_eq!(Lineage::new(vec![start(2, held), start(2, held)]), None);
    assert_eq!(Lineage::new((0..65).map(|epoch| start(epoch, held)).collect()), None);
}
