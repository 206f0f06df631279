//! Which disk a node is: its name alone does not say whether it still remembers what it voted for.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::runtime::random;
use crate::cluster::NodeId;

/// Tells a store from any other, under whatever name: drawn when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DiskId(String);

impl DiskId {
    /// Of a new store.
    pub(crate) fn new() -> Self {
        Self(format!("{:016x}{:016x}", random(), random()))
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a store belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    /// The generation under which this node takes part in elections; `None`: it does not yet.
    pub(crate) admitted: Option<u64>,
    /// The cluster's name, once it was heard.
    pub(crate) cluster: Option<String>,
}

/// Under which disk each node has shown itself, the newest generation of each.
///
/// Every node keeps this, and no record is ever changed but for a newer generation: it is how a
/// cluster notices that a node has lost its disk, or that two nodes have one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Seen(BTreeMap<NodeId, Known>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    generation: u64,
    disk: DiskId,
}

/// How a disk fits what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is the one that is known.
    Known,
    /// None is known under this name and generation.
    New,
    Other,
    /// A newer generation is.
    Outdated,
}

impl Seen {
    /// Compares a disk with what is known.
    pub(crate) fn fit(&self, node: &NodeId, generation: u64, disk: &DiskId) -> Fit {
        match self.0.get(node) {
            Some(known) if known.generation > generation => Fit::Outdated,
            Some(known) if known.generation == generation && known.disk == *disk => Fit::Known,
            Some(known) if known.generation == generation => Fit::Other,
            _ => Fit::New,
        }
    }

    /// The disk that is known under a name and generation.
    pub(crate) fn disk(&self, node: &NodeId, generation: u64) -> Option<&DiskId> {
        self.0.get(node).filter(|known| known.generation == generation).map(|known| &known.disk)
    }

    /// Remembers a new one.
    #[must_use]
    pub(crate) fn with(&self, node: &NodeId, generation: u64, disk: &DiskId) -> Self {
        let mut seen = self.clone();
        seen.0.insert(node.clone(), Known { generation, disk: disk.clone() });
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_known_new_another_or_outdated() {
        let node: NodeId = "a".parse().unwrap();
        let (one, two) = (DiskId::new(), DiskId::new());
        assert_ne!(one, two);
        let seen = Seen::default();
        assert_eq!(seen.fit(&node, 0, &one), Fit::New);
        let seen = seen.with(&node, 0, &one);
        assert_eq!(seen.fit(&node, 0, &one), Fit::Known);
        assert_eq!(seen.fit(&node, 0, &two), Fit::Other);
        assert_eq!(seen.fit(&node, 1, &two), Fit::New);
        let seen = seen.with(&node, 1, &two);
        assert_eq!(seen.fit(&node, 0, &one), Fit::Outdated);
        assert_eq!((seen.disk(&node, 1), seen.disk(&node, 0)), (Some(&two), None));
    }
}
