//! What a primary says of its reign, and what a copy of another history would lose to it.
//!
//! A copy's history is a chain of reigns, each of which began with what its primary then held. So the
//! beginnings, kept and handed on with the copy, tell whether another copy is an older state of the
//! same history or has something of its own (`Beginning an epoch` in `docs/election.md`).

use super::checksum::{Checksum, Position};
use crate::cluster::{Epoch, EpochStart};

/// So many beginnings are kept.
pub(crate) const MAX_STARTS: usize = 64;

/// A reign, and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Where the reigns of this history began, the oldest first; its own is the last.
    starts: Vec<EpochStart>,
    epoch: Epoch,
}

impl Tenure {
    /// The reign that began last. `None` if there is none, there are too many, or they are out of
    /// order.
    pub fn new(starts: Vec<EpochStart>) -> Option<Self> {
        let epoch = starts.last()?.epoch;
        let sound = starts.len() <= MAX_STARTS && starts.is_sorted_by(|a, b| a.epoch < b.epoch);
        sound.then_some(Self { starts, epoch })
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the reigns of this history began.
    pub(crate) fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// Whether a copy may have something that this history lacks. `certain`: its position is known to
    /// be that of its content. In doubt it has.
    pub fn lacks(&self, have: Position, certain: bool) -> bool {
        let known = have.checksum != Checksum::UNKNOWN;
        if known && self.starts.iter().any(|start| start.held.checksum == have.checksum) {
            return false;
        }
        if !certain {
            return true;
        }
        // Where this history left the one that the copy followed.
        match self.starts.iter().find(|start| start.epoch > have.at.epoch) {
            None => false,
            Some(next) => {
                let start = next.held.at;
                // Of an epoch before: too long ago to tell.
                have.at >= start || have.at.epoch != start.epoch
            }
        }
    }
}

/// The beginnings of a history that goes on in `epoch` with a copy that holds `held`.
pub fn continued(starts: &[EpochStart], epoch: Epoch, held: Position) -> Vec<EpochStart> {
    // Those of later epochs were only heard of: the copy never got there.
    let reached = |start: &&EpochStart| start.epoch <= held.at.epoch && start.epoch < epoch;
    let mut starts: Vec<_> = starts.iter().filter(reached).copied().collect();
    starts.push(EpochStart { epoch, held });
    let old = starts.len().saturating_sub(MAX_STARTS);
    starts.split_off(old)
}

#[cfg(test)]
#[path = "tenure_tests.rs"]
mod tests;
