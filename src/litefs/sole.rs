//! Until when an epoch had a single database. Pure.
//!
//! Who knows of one database takes all that it holds of it for what it has reached: a restart costs it
//! nothing, and no acknowledgement a write to the disk. A later transaction of the first database may have
//! come before the first of the second. So the primary says up to where there was one.

use serde::{Deserialize, Serialize};

use super::content::Told;
use super::databases::Databases;
use crate::cluster::Epoch;
use crate::txid::{EpochTxid, Txid};

/// The only database of an epoch's primary, until it had another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sole {
    /// The epoch, and the last seq that it announced before.
    pub(crate) until: EpochTxid,
    /// Empty if there was none at all.
    pub(crate) name: String,
}

impl Sole {
    /// If the second one has come between these two states of a primary.
    pub(super) fn between(before: &Told, at: EpochTxid, now: &Databases) -> Option<Self> {
        let same = before.at.epoch == at.epoch;
        let came = same && now.are_several() && !before.databases.are_several();
        came.then(|| Self::of(before.at, &before.databases))
    }

    /// A primary that held these, one at most, has announced that.
    pub(super) fn of(until: EpochTxid, databases: &Databases) -> Self {
        Self { until, name: databases.names().next().cloned().unwrap_or_default() }
    }

    /// The primary of an epoch that began with nothing has named this one, and no other yet.
    pub(super) fn so_far(epoch: Epoch, name: &str) -> Self {
        Self { until: EpochTxid { epoch, txid: Txid(u64::MAX) }, name: name.to_owned() }
    }

    /// Whether there are others by now.
    pub(crate) fn is_over(&self) -> bool {
        self.until.txid < Txid(u64::MAX)
    }

    /// What a copy with this content has reached of that for certain.
    pub(crate) fn reached(&self, epoch: Epoch, content: &Databases) -> Option<Txid> {
        let held = || content.get(&self.name).txid.min(self.until.txid);
        (self.until.epoch == epoch).then(held)
    }
}

#[cfg(test)]
mod tests {
    use super::super::databases::tests::databases;
    use super::*;

    #[test]
    fn beyond_the_last_word_of_one_database_nothing_is_certain() {
        let at = |txid| EpochTxid { epoch: Epoch(2), txid: Txid(txid) };
        let before = Told { at: at(5), databases: databases(&[("a", 5)]) };
        let two = databases(&[("a", 6), ("b", 1)]);
        let sole = Sole::between(&before, at(7), &two).unwrap();
        assert_eq!((sole.until, sole.name.as_str()), (at(5), "a"));
        assert_eq!(Sole::between(&before, at(6), &databases(&[("a", 6)])), None);
        let reached = |content: &[(&str, u64)]| sole.reached(Epoch(2), &databases(content));
        assert_eq!(reached(&[("a", 7)]), Some(Txid(5)));
        assert_eq!(reached(&[("a", 3), ("b", 4)]), Some(Txid(3)));
        assert_eq!(sole.reached(Epoch(3), &two), None);
        let after = Told { at: at(7), databases: two.clone() };
        assert_eq!(Sole::between(&after, at(8), &two), None);
    }
}
