//! Of which epoch's history each database of a copy is, and how far the copy can be counted on while it is
//! a mixture of two. Pure.
//!
//! A copy that begins to follow a primary gets its databases one after the other: some are of the epoch
//! before still, others of the new one already. Until all have come it may have lost what the new history
//! lacks, and does not hold yet what that has beyond. So it is worth what both have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::databases::Databases;
use super::lineage::SIZE;
use super::position::LitefsPosition;
use crate::cluster::{Epoch, EpochStart};
use crate::copy::history;
use crate::txid::EpochTxid;

/// What is remembered of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Origins {
    /// What the databases were when something else began to change them, and the epoch of that.
    noted: BTreeMap<String, (LitefsPosition, Epoch)>,
    /// The epoch that the copy follows, or was about to.
    pub(super) joins: Option<Joins>,
    /// This node's last tenure: nobody else may know where an epoch began that was never opened.
    pub(super) tenure: Option<EpochStart>,
}

/// The epoch that a copy is to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joins {
    /// Where it began.
    pub(super) start: EpochStart,
    /// What the copy holds for certain, until it has joined.
    pub(super) worth: EpochTxid,
}

impl Origins {
    /// The epoch whose history a database is of; what has changed since that was noted is of `present`.
    pub(crate) fn of(&self, name: &str, at: LitefsPosition, present: Epoch) -> Epoch {
        let noted = self.noted.get(name).filter(|(noted, _)| *noted == at);
        noted.map_or(present, |(_, epoch)| *epoch)
    }

    /// From now on something else changes the databases. Of more than there is room for nothing is noted.
    pub(crate) fn note(&mut self, content: &Databases, present: Epoch) {
        let noted = |(name, at): (&String, &LitefsPosition)| {
            (name.clone(), (*at, self.of(name, *at, present)))
        };
        self.noted = content.iter().map(noted).collect();
        if serde_json::to_vec(&self.noted).map_or(SIZE, |text| text.len()) >= SIZE {
            self.noted.clear();
        }
    }

    /// A copy that is at `have` begins to follow the last of `starts`.
    pub(crate) fn follow(&mut self, have: EpochTxid, starts: &[EpochStart]) {
        if let Some(start) = starts.last().filter(|start| start.epoch > have.epoch) {
            let known: Vec<_> = self.tenure.into_iter().chain(starts.iter().copied()).collect();
            self.joins = Some(Joins { start: *start, worth: history::common(have, &known) });
        }
    }
}

impl Joins {
    /// What a copy with this content is worth. Of a single database that has come from the new primary,
    /// whatever both epochs have of it is there.
    pub(crate) fn worth(&self, content: &Databases, several: bool, changed: bool) -> EpochTxid {
        let (mut worth, begun) = (self.worth, self.start.held.at);
        if !several && changed && worth.epoch == begun.epoch {
            worth.txid = worth.txid.max(content.seq().min(begun.txid));
        }
        worth
    }
}

#[cfg(test)]
mod tests {
    use super::super::databases::tests::databases;
    use super::*;
    use crate::copy::history::tests::{position, start};
    use crate::txid::Txid;

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    #[test]
    fn what_has_changed_is_of_the_history_that_is_followed() {
        let mut origins = Origins::default();
        let before = databases(&[("a", 5), ("b", 2)]);
        origins.note(&before, Epoch(1));
        let now = databases(&[("a", 5), ("b", 3)]);
        let of = |origins: &Origins, name| origins.of(name, now.get(name), Epoch(2)).0;
        assert_eq!((of(&origins, "a"), of(&origins, "b")), (1, 2));
        origins.note(&now, Epoch(2));
        let later = |name| origins.of(name, now.get(name), Epoch(3)).0;
        assert_eq!((later("a"), later("b")), (1, 2), "noted again, each stays of its own");
    }

    #[test]
    fn a_mixture_is_worth_what_both_histories_have() {
        let mut origins = Origins::default();
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 7, 1))];
        origins.follow(at(1, 9), &starts);
        let joins = origins.joins.unwrap();
        assert_eq!(joins.worth, at(1, 7));
        // What both have is there once the only database has come from the new primary.
        origins.follow(at(1, 3), &starts);
        let joins = origins.joins.unwrap();
        let worth = |txid, changed| joins.worth(&databases(&[("a", txid)]), false, changed);
        assert_eq!((worth(9, false), worth(5, true)), (at(1, 3), at(1, 5)));
        assert_eq!(worth(9, true), at(1, 7));
        assert_eq!(joins.worth(&databases(&[("a", 5)]), true, true), at(1, 3));
    }

    #[test]
    fn an_epoch_that_was_never_opened_is_known_to_its_primary() {
        let tenure = Some(start(3, position(1, 5, 1)));
        let mut origins = Origins { tenure, ..Origins::default() };
        let starts = [start(1, position(0, 0, 0)), start(4, position(1, 6, 1))];
        origins.follow(at(3, 9), &starts);
        assert_eq!(origins.joins.unwrap().worth, at(1, 5));
    }
}
