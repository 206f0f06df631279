//! Which replicas a primary has told of its epoch.
//!
//! LiteFS' stream carries no epoch, and replaces what does not fit. So it is for those that have heard of
//! this one, and had left whomever they followed before: a LiteFS that dials again by an older tunnel would
//! lose what its node has not kept.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::cluster::{Epoch, NodeId};

/// Those of the last epoch in which somebody was told.
#[derive(Default)]
pub(super) struct ToldReplicas(Mutex<(Epoch, BTreeSet<NodeId>)>);

impl ToldReplicas {
    pub(super) fn add(&self, replica: &NodeId, epoch: Epoch) {
        let mut told = self.0.lock();
        if told.0 != epoch {
            *told = (epoch, BTreeSet::new());
        }
        told.1.insert(replica.clone());
    }

    pub(super) fn include(&self, replica: &NodeId, epoch: Epoch) -> bool {
        let told = self.0.lock();
        told.0 == epoch && told.1.contains(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_of_one_epoch_was_not_told_of_another() {
        let (told, a, b) = (ToldReplicas::default(), "a".parse().unwrap(), "b".parse().unwrap());
        told.add(&a, Epoch(1));
        assert!(told.include(&a, Epoch(1)) && !told.include(&b, Epoch(1)));
        told.add(&b, Epoch(3));
        assert!(told.include(&b, Epoch(3)));
        assert!(!told.include(&a, Epoch(1)) && !told.include(&a, Epoch(3)));
    }
}
