//! When a copy that follows a primary counts as one of its epoch. Pure.

use super::databases::Databases;
use crate::cluster::{Epoch, EpochStart};

/// What a copy has to get before it holds the history of the epoch that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Where that epoch started.
    pub start: EpochStart,
    /// What the databases held there.
    pub begun: Databases,
}

impl Joining {
    pub(crate) fn epoch(&self) -> Epoch {
        self.start.epoch
    }

    /// Whether a copy with this content, of which nothing is of another history, has got there: it is
    /// `connected` to the primary, and at or beyond the start in each database. What is beyond came from
    /// there: LiteFS checks that each transaction fits the one before.
    pub(crate) fn is_done(&self, connected: bool, content: &Databases) -> bool {
        *content == self.begun || connected && content.hold(&self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::super::databases::tests::databases;
    use super::*;
    use crate::copy::history::tests::{position, start};

    #[test]
    fn a_copy_counts_once_every_database_is_there() {
        let begun = databases(&[("a", 5), ("b", 2)]);
        let joining = Joining { start: start(2, position(1, 7, 1)), begun: begun.clone() };
        assert!(joining.is_done(false, &begun), "it is what the epoch began with");
        let beyond = databases(&[("a", 6), ("b", 2)]);
        assert!(joining.is_done(true, &beyond));
        assert!(!joining.is_done(false, &beyond), "nobody has checked what is beyond");
        assert!(!joining.is_done(true, &databases(&[("a", 9), ("b", 1)])));
    }
}
