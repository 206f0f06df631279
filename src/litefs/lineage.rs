//! What each database held where the last epochs began, and which of this copy's databases the present
//! history lacks something of.
//!
//! The cluster agrees on where an epoch started as one position ([`EpochStart`]). The databases behind
//! that number are known to the primary that began it, which tells its replicas, who tell theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::databases::Databases;
use super::origins::Origins;
use super::position::LitefsPosition;
use super::sole::Sole;
use crate::cluster::{Epoch, EpochStart};
use crate::copy::{history, state_file};
use crate::txid::{Checksum, EpochTxid, Position, Txid};

/// So many epochs are remembered, the last ones. Of older ones a copy of several databases is kept in
/// doubt.
const EPOCHS: usize = 16;
/// Bytes of JSON. Of so many databases that one epoch takes more, nothing is remembered.
pub(super) const SIZE: usize = 24 * 1024;

/// What an epoch's primary held when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Began {
    pub(crate) epoch: Epoch,
    pub(crate) databases: Databases,
    /// Whose history those were of that were not of the epoch which its position names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) origins: BTreeMap<String, Epoch>,
}

/// The last epochs, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(Vec<Began>);

impl Lineage {
    pub fn of(&self, epoch: Epoch) -> Option<&Databases> {
        self.began(epoch).map(|began| &began.databases)
    }

    /// The newest that is known.
    pub(crate) fn last(&self) -> Option<Epoch> {
        self.0.last().map(|began| began.epoch)
    }

    fn began(&self, epoch: Epoch) -> Option<&Began> {
        self.0.iter().find(|began| began.epoch == epoch)
    }

    /// An epoch began with this. What is known of it already, stays: asked again, it may have been written.
    pub(crate) fn begin(&mut self, began: Began) {
        if self.of(began.epoch).is_none() {
            self.0.push(began);
            self.bound();
        }
    }

    /// Takes over what another node knows of epochs.
    pub(crate) fn learn(&mut self, others: &Self) {
        for theirs in &others.0 {
            self.0.retain(|began| began.epoch != theirs.epoch);
            self.0.push(theirs.clone());
        }
        self.bound();
    }

    fn bound(&mut self) {
        self.0.sort_by_key(|began| began.epoch);
        let size = |began: &Began| serde_json::to_vec(began).map_or(SIZE, |text| text.len());
        let mut left = SIZE;
        let fits = |began: &&Began| {
            left = left.saturating_sub(size(began));
            left > 0
        };
        let kept = self.0.iter().rev().take(EPOCHS).take_while(fits).count();
        self.0.drain(..self.0.len() - kept);
    }

    /// The databases that hold something which the history of `starts` lacks; `origin` says of which epoch's
    /// history each is. `elects`: see [`super::engine::Options`]. In doubt they do.
    pub(crate) fn diverged(
        &self,
        holds: &Databases,
        origin: impl Fn(&str, LitefsPosition) -> Epoch,
        starts: &[EpochStart],
        elects: bool,
    ) -> Databases {
        let mut diverged = Databases::default();
        for (name, at) in holds.iter() {
            let mut own = Vec::new();
            for start in starts {
                let EpochStart { epoch, held } = self.start_of(name, *start, holds);
                own.push(EpochStart { epoch, held: placed(held, &own) });
            }
            let have = placed(position(origin(name, *at), *at), &own);
            let lacking = match (elects, own.last()) {
                (true, _) => history::diverges(have, &own),
                (false, Some(start)) => history::exceeds(have, *start),
                (false, None) => false,
            };
            if lacking {
                diverged.set(name, *at);
            }
        }
        diverged
    }

    /// Where an epoch started in terms of one database: each has a history of its own, and the epochs are
    /// the same.
    fn start_of(&self, name: &str, start: EpochStart, holds: &Databases) -> EpochStart {
        let of = start.held.at.epoch;
        let held = match self.began(start.epoch) {
            Some(began) => {
                let of = began.origins.get(name).copied().unwrap_or(of);
                position(of, began.databases.get(name))
            }
            // Of one database the number is its own.
            None if !holds.are_several() => return start,
            None => position(of, LitefsPosition { txid: Txid(0), checksum: Checksum::UNKNOWN }),
        };
        EpochStart { epoch: start.epoch, held }
    }
}

/// A copy that had not got where its epoch began is of one before.
fn placed(mut held: Position, starts: &[EpochStart]) -> Position {
    for start in starts.iter().rev() {
        if start.epoch == held.at.epoch && held.at.txid < start.held.at.txid {
            held.at.epoch = start.held.at.epoch;
        }
    }
    held
}

fn position(epoch: Epoch, at: LitefsPosition) -> Position {
    Position { at: EpochTxid { epoch, txid: at.txid }, checksum: at.checksum }
}

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "litefs.lineage";

/// What is in that file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    format: String,
    database: PathBuf,
    pub(crate) lineage: Lineage,
    /// Every database that was ever there, here or at a primary. A deleted one is listed no more, and still
    /// counts: LiteFS keeps its number.
    pub(crate) names: BTreeSet<String>,
    /// What this copy holds of another history, if it still does: LiteFS is to replace it.
    pub(crate) foreign: Databases,
    /// Of which history each database is.
    #[serde(default)]
    pub(crate) origins: Origins,
    /// Until when there was one database, in the last epoch in which a second one came.
    #[serde(default)]
    pub(crate) sole: Option<Sole>,
    /// It would say, too, which database was the first of an epoch that began with none. False in the file of a
    /// former build.
    #[serde(default)]
    pub(crate) notes_first: bool,
}

impl Saved {
    /// Adds names, as far as there is room.
    pub(crate) fn name<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        let size = |name: &String| name.len() + 3;
        let mut room = SIZE.saturating_sub(self.names.iter().map(size).sum());
        for name in names {
            if !self.names.contains(name) && size(name) < room {
                room -= size(name);
                self.names.insert(name.clone());
            }
        }
    }
}

impl state_file::Saved for Saved {
    const FORMAT: &'static str = "litepilot lineage 1";
    const REMEDY: &'static str = "Remove this file: what this node's copy has of its own may then be kept \
                                  in data_dir/diverged although the cluster has it, too";

    fn new(database: &Path) -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            database: database.to_owned(),
            lineage: Lineage::default(),
            names: BTreeSet::new(),
            foreign: Databases::default(),
            origins: Origins::default(),
            sole: None,
            notes_first: true,
        }
    }

    fn database(&self) -> &Path {
        &self.database
    }
}

#[cfg(test)]
mod tests {
    use super::super::databases::tests::databases;
    use super::*;
    use crate::copy::history::tests::{position, start};

    fn began(epoch: u64, databases: Databases) -> Began {
        Began { epoch: Epoch(epoch), databases, origins: BTreeMap::new() }
    }

    fn lineage(epochs: &[(u64, Databases)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (epoch, databases) in epochs {
            lineage.begin(began(*epoch, databases.clone()));
        }
        lineage
    }

    #[test]
    fn each_database_diverges_by_itself() {
        let began = databases(&[("app.db", 9), ("queue.db", 4)]);
        let lineage = lineage(&[(1, Databases::default()), (2, began)]);
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 13, 1))];
        let diverged =
            |all: &[(&str, u64)]| lineage.diverged(&databases(all), |_, _| Epoch(1), &starts, true);
        assert!(diverged(&[("app.db", 9), ("queue.db", 4)]).is_empty());
        assert!(diverged(&[("app.db", 7), ("queue.db", 1)]).is_empty(), "it is behind");
        // Fewer commits in all, and yet one that the history lacks.
        let lost = diverged(&[("app.db", 2), ("queue.db", 5)]);
        assert_eq!(lost, databases(&[("queue.db", 5)]));
        let lost = diverged(&[("app.db", 9), ("new.db", 1)]);
        assert_eq!(lost, databases(&[("new.db", 1)]), "the primary had no such database");
    }

    #[test]
    fn a_database_that_a_mixed_copy_began_an_epoch_with_is_of_its_own_history() {
        // Epoch 3 grew out of a copy of epoch 1 that had got queue.db of epoch 2 already.
        let mut all = lineage(&[
            (1, Databases::default()),
            (2, databases(&[("app.db", 5), ("queue.db", 2)])),
        ]);
        let mixed = databases(&[("app.db", 9), ("queue.db", 4)]);
        let origins = BTreeMap::from([("queue.db".to_owned(), Epoch(2))]);
        all.begin(Began { origins, ..began(3, mixed) });
        let starts =
            [start(1, position(0, 0, 0)), start(2, position(1, 7, 1)), start(3, position(1, 7, 1))];
        let of_2 = databases(&[("app.db", 6), ("queue.db", 3)]);
        let lost = all.diverged(&of_2, |_, _| Epoch(2), &starts, true);
        assert_eq!(lost, databases(&[("app.db", 6)]), "fewer transactions, and others");
    }

    #[test]
    fn what_nobody_remembers_is_kept_in_doubt() {
        let lineage = Lineage::default();
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 13, 1))];
        let two = databases(&[("app.db", 2), ("queue.db", 1)]);
        assert_eq!(lineage.diverged(&two, |_, _| Epoch(1), &starts, true), two);
        assert!(lineage.diverged(&two, |_, _| Epoch(2), &starts, true).is_empty());
        // Of one database the agreed position says it.
        let one = |txid| {
            lineage.diverged(&databases(&[("app.db", txid)]), |_, _| Epoch(1), &starts, true)
        };
        assert!(one(12).is_empty() && !one(14).is_empty());
    }

    #[test]
    fn a_fixed_primary_that_lost_something_is_noticed_in_each_database() {
        let lineage = lineage(&[(5, databases(&[("app.db", 9), ("queue.db", 4)]))]);
        let starts = [start(5, position(4, 13, 1))];
        let have = databases(&[("app.db", 8), ("queue.db", 5)]);
        let lost = lineage.diverged(&have, |_, _| Epoch(4), &starts, false);
        assert_eq!(lost, databases(&[("queue.db", 5)]));
    }

    #[test]
    fn it_stays_small() {
        let mut all = Lineage::default();
        for epoch in 1..100 {
            all.begin(began(epoch, databases(&[("app.db", epoch)])));
        }
        assert_eq!((all.0.len(), all.0[0].epoch), (EPOCHS, Epoch(84)));
        let many: Vec<_> = (0..200).map(|i| format!("tenant-{i:08}.sqlite3")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        for epoch in 100..110 {
            all.begin(began(epoch, databases(&many)));
        }
        assert!(serde_json::to_vec(&all).unwrap().len() <= SIZE + 2);
        assert!(all.of(Epoch(109)).is_some());
    }
}
