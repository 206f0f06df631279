//! What a node holds of all databases in its mount, and the one number that stands for it: **seq**, the
//! sum of their transaction ids. Pure; why a number is enough is in `docs/election.md` ("Several
//! databases").

use std::collections::btree_map::Iter;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::position::LitefsPosition;
use crate::copy::state_file::CRC64;
use crate::txid::{Checksum, FLAG, Txid};

/// By name. One without a transaction is not in it: it is not there yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Databases(BTreeMap<String, LitefsPosition>);

impl Databases {
    pub fn one(name: &str, at: LitefsPosition) -> Self {
        let mut databases = Self::default();
        databases.set(name, at);
        databases
    }

    pub(crate) fn get(&self, name: &str) -> LitefsPosition {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, name: &str, at: LitefsPosition) {
        match at.txid {
            Txid(0) => drop(self.0.remove(name)),
            _ => drop(self.0.insert(name.to_owned(), at)),
        }
    }

    pub(crate) fn iter(&self) -> Iter<'_, String, LitefsPosition> {
        self.0.iter()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// More than one: then a seq alone does not say which transactions a copy holds.
    pub(crate) fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// Every commit moves one database by one, so this counts commits. Of one database it is its TXID.
    pub fn seq(&self) -> Txid {
        Txid(self.0.values().fold(0, |sum, at| sum.saturating_add(at.txid.0)))
    }

    /// Of all of them. Of one database it is its own, so that nodes which know one database agree.
    pub fn checksum(&self) -> Checksum {
        if self.0.len() <= 1 {
            return self.0.values().next().map_or_else(Checksum::default, |at| at.checksum);
        }
        let mut digest = CRC64.digest();
        for (name, at) in &self.0 {
            digest.update(format!("{name}/{}/{}\n", at.txid, at.checksum).as_bytes());
        }
        Checksum(digest.finalize() | FLAG)
    }

    /// Takes `news` over, wherever they are: a replica's copy may be replaced by a shorter history.
    pub(crate) fn replace(&mut self, news: &Self) {
        self.0.extend(news.iter().map(|(name, at)| (name.clone(), *at)));
    }

    /// Takes `news` over where they are later. What is read of several databases is not of one moment, and
    /// events come late: whatever a primary says has to contain all that it said before.
    pub(crate) fn advance(&mut self, news: &Self) {
        for (name, at) in news.iter() {
            if at.txid > self.get(name).txid {
                self.set(name, *at);
            }
        }
    }

    /// The same databases as in `others`, as far as they are here.
    pub(crate) fn among(&self, others: &Self) -> Self {
        let same = self.0.iter().filter(|(name, _)| others.0.contains_key(*name));
        Self(same.map(|(name, at)| (name.clone(), *at)).collect())
    }

    /// Those that are not as in `others`.
    pub(crate) fn other_than(&self, others: &Self) -> Self {
        let other = self.0.iter().filter(|(name, at)| others.0.get(*name) != Some(at));
        Self(other.map(|(name, at)| (name.clone(), *at)).collect())
    }

    pub(crate) fn without(mut self, names: &BTreeSet<String>) -> Self {
        self.0.retain(|name, _| !names.contains(name));
        self
    }

    /// Whether a copy that holds this holds at least `wanted`, of each database. At the same transaction
    /// the contents have to be the same, too; beyond it LiteFS has checked that.
    pub(crate) fn hold(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(name, wanted)| {
            let at = self.get(name);
            let same = at.checksum == wanted.checksum || wanted.checksum == Checksum::UNKNOWN;
            at.txid > wanted.txid || at.txid == wanted.txid && same
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Names with TXIDs; the checksum tells histories apart.
    pub(crate) fn databases(all: &[(&str, u64)]) -> Databases {
        let mut databases = Databases::default();
        for (name, txid) in all {
            let at = LitefsPosition { txid: Txid(*txid), checksum: Checksum(1000 + txid) };
            databases.set(name, at);
        }
        databases
    }

    #[test]
    fn one_database_is_its_own_number_and_checksum() {
        let one = databases(&[("app.db", 7)]);
        assert_eq!((one.seq(), one.checksum()), (Txid(7), Checksum(1007)));
        assert_eq!(Databases::default().checksum(), Checksum::default());
        let two = databases(&[("app.db", 7), ("queue.db", 2)]);
        assert_eq!(two.seq(), Txid(9));
        let other = databases(&[("app.db", 6), ("queue.db", 3)]);
        assert_eq!(other.seq(), two.seq());
        assert_ne!(other.checksum(), two.checksum());
    }

    #[test]
    fn at_the_same_transaction_the_contents_have_to_be_the_same() {
        let wanted = databases(&[("a", 5), ("b", 2)]);
        assert!(wanted.hold(&wanted) && databases(&[("a", 6), ("b", 2), ("c", 1)]).hold(&wanted));
        assert!(!databases(&[("a", 9)]).hold(&wanted), "another database's transactions");
        let other = LitefsPosition { txid: Txid(5), checksum: Checksum(1) };
        let mut foreign = wanted.clone();
        foreign.set("a", other);
        assert!(!foreign.hold(&wanted));
    }

    #[test]
    fn what_a_primary_says_contains_all_that_it_said_before() {
        let mut said = databases(&[("a", 5), ("b", 3)]);
        said.advance(&databases(&[("a", 4), ("b", 4)]));
        assert_eq!(said, databases(&[("a", 5), ("b", 4)]));
        assert_eq!(said.other_than(&databases(&[("a", 5), ("b", 3)])), databases(&[("b", 4)]));
    }
}
