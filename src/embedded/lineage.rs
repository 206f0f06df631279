//! The history of a copy as a chain of epoch starts, and what a copy of another history would lose
//! to it. Pure.
//!
//! Each epoch began with what its primary then held. The starts are kept and handed on with the copy,
//! so they tell whether another copy is an older state of the same history or has something of its own
//! (docs/election.md).

use serde::{Deserialize, Serialize};

use crate::cluster::{Epoch, EpochStart};
use crate::copy::history::diverges;
use crate::txid::{Checksum, Position};

const MAX_STARTS: usize = 64;

/// Where the epochs of a history began, the oldest first, the present one last. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<EpochStart>", try_from = "Vec<EpochStart>")]
pub struct Lineage(Vec<EpochStart>);

impl Lineage {
    /// `None` if there is no start, there are too many, or they are out of order.
    pub fn new(starts: Vec<EpochStart>) -> Option<Self> {
        let sorted = starts.is_sorted_by(|a, b| a.epoch < b.epoch);
        (sorted && (1..=MAX_STARTS).contains(&starts.len())).then_some(Self(starts))
    }

    /// The present epoch.
    pub fn epoch(&self) -> Epoch {
        self.0.last().map(|start| start.epoch).unwrap_or_default()
    }

    pub(crate) fn starts(&self) -> &[EpochStart] {
        &self.0
    }

    /// Whether a copy may have something that this history lacks; in doubt it has. `certain`: its
    /// position is known to be that of its content.
    pub fn lacks(&self, have: Position, certain: bool) -> bool {
        let passed = have.checksum != Checksum::UNKNOWN
            && self.0.iter().any(|start| start.held.checksum == have.checksum);
        !passed && (!certain || diverges(have, &self.0))
    }
}

impl TryFrom<Vec<EpochStart>> for Lineage {
    type Error = &'static str;

    fn try_from(starts: Vec<EpochStart>) -> Result<Self, Self::Error> {
        Self::new(starts).ok_or("a history has 1 to 64 epoch starts, in order")
    }
}

impl From<Lineage> for Vec<EpochStart> {
    fn from(lineage: Lineage) -> Self {
        lineage.0
    }
}

/// The starts of a history that goes on in `epoch` with a copy that holds `held`.
pub fn continued(starts: &[EpochStart], epoch: Epoch, held: Position) -> Vec<EpochStart> {
    // Later ones were only announced: the copy never got there.
    let reached = |start: &&EpochStart| start.epoch <= held.at.epoch && start.epoch < epoch;
    let mut starts: Vec<_> = starts.iter().filter(reached).copied().collect();
    starts.push(EpochStart { epoch, held });
    let old = starts.len().saturating_sub(MAX_STARTS);
    starts.split_off(old)
}

#[cfg(test)]
mod tests;
