//! What each database held where the last epochs began, and which of this copy's databases the present
//! history lacks something of.
//!
//! The cluster agrees on where an epoch started as one position ([`EpochStart`]). The databases behind
//! that number are known to the primary that began it, which tells its replicas, who tell theirs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::databases::Databases;
use super::position::LitefsPosition;
use crate::cluster::{Epoch, EpochStart};
use crate::copy::{history, state_file};
use crate::txid::{Checksum, EpochTxid, Position, Txid};

/// So many epochs are remembered, the last ones. Of older ones a copy of several databases is kept in
/// doubt.
const EPOCHS: usize = 16;
/// Bytes of JSON. Of so many databases that one epoch takes more, nothing is remembered.
const SIZE: usize = 24 * 1024;

/// What an epoch's primary held when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Began {
    pub(crate) epoch: Epoch,
    pub(crate) databases: Databases,
}

/// The last epochs, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Lineage(Vec<Began>);

impl Lineage {
    pub(crate) fn of(&self, epoch: Epoch) -> Option<&Databases> {
        self.0.iter().find(|began| began.epoch == epoch).map(|began| &began.databases)
    }

    /// `epoch` began with this. What is known of it already, stays: asked again, it may have been written.
    pub(crate) fn begin(&mut self, epoch: Epoch, databases: Databases) {
        if self.of(epoch).is_none() {
            self.0.push(Began { epoch, databases });
            self.bound();
        }
    }

    /// Takes over what another node knows of epochs.
    pub(crate) fn learn(&mut self, others: &Self) {
        for Began { epoch, databases } in &others.0 {
            self.0.retain(|began| began.epoch != *epoch);
            self.0.push(Began { epoch: *epoch, databases: databases.clone() });
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

    /// The databases that hold something which the history of `starts` lacks; `epoch` is the one whose
    /// history this copy holds. `elects`: see [`super::engine::Options`]. In doubt they do.
    pub(crate) fn diverged(
        &self,
        holds: &Databases,
        epoch: Epoch,
        starts: &[EpochStart],
        elects: bool,
    ) -> Databases {
        let mut diverged = Databases::default();
        for (name, at) in holds.iter() {
            let have = position(epoch, *at);
            let own: Vec<_> =
                starts.iter().map(|start| self.start_of(name, *start, holds)).collect();
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
        let at = match self.of(start.epoch) {
            Some(began) => began.get(name),
            // Of one database the number is its own.
            None if !holds.are_several() => return start,
            None => LitefsPosition { txid: Txid(0), checksum: Checksum::UNKNOWN },
        };
        EpochStart { epoch: start.epoch, held: position(start.held.at.epoch, at) }
    }
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
        }
    }

    fn format(&self) -> &str {
        &self.format
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

    fn lineage(epochs: &[(u64, Databases)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (epoch, databases) in epochs {
            lineage.begin(Epoch(*epoch), databases.clone());
        }
        lineage
    }

    #[test]
    fn each_database_diverges_by_itself() {
        let began = databases(&[("app.db", 9), ("queue.db", 4)]);
        let lineage = lineage(&[(1, Databases::default()), (2, began)]);
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 13, 1))];
        let diverged =
            |all: &[(&str, u64)]| lineage.diverged(&databases(all), Epoch(1), &starts, true);
        assert!(diverged(&[("app.db", 9), ("queue.db", 4)]).is_empty());
        assert!(diverged(&[("app.db", 7), ("queue.db", 1)]).is_empty(), "it is behind");
        // Fewer commits in all, and yet one that the history lacks.
        let lost = diverged(&[("app.db", 2), ("queue.db", 5)]);
        assert_eq!(lost, databases(&[("queue.db", 5)]));
        let lost = diverged(&[("app.db", 9), ("new.db", 1)]);
        assert_eq!(lost, databases(&[("new.db", 1)]), "the primary had no such database");
    }

    #[test]
    fn what_nobody_remembers_is_kept_in_doubt() {
        let lineage = Lineage::default();
        let starts = [start(1, position(0, 0, 0)), start(2, position(1, 13, 1))];
        let two = databases(&[("app.db", 2), ("queue.db", 1)]);
        assert_eq!(lineage.diverged(&two, Epoch(1), &starts, true), two);
        assert!(lineage.diverged(&two, Epoch(2), &starts, true).is_empty());
        // Of one database the agreed position says it.
        let one = |txid| lineage.diverged(&databases(&[("app.db", txid)]), Epoch(1), &starts, true);
        assert!(one(12).is_empty() && !one(14).is_empty());
    }

    #[test]
    fn a_fixed_primary_that_lost_something_is_noticed_in_each_database() {
        let lineage = lineage(&[(5, databases(&[("app.db", 9), ("queue.db", 4)]))]);
        let starts = [start(5, position(4, 13, 1))];
        let have = databases(&[("app.db", 8), ("queue.db", 5)]);
        let lost = lineage.diverged(&have, Epoch(4), &starts, false);
        assert_eq!(lost, databases(&[("queue.db", 5)]));
    }

    #[test]
    fn it_stays_small() {
        let mut all = Lineage::default();
        for epoch in 1..100 {
            all.begin(Epoch(epoch), databases(&[("app.db", epoch)]));
        }
        assert_eq!((all.0.len(), all.0[0].epoch), (EPOCHS, Epoch(84)));
        let many: Vec<_> = (0..200).map(|i| format!("tenant-{i:08}.sqlite3")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        for epoch in 100..110 {
            all.begin(Epoch(epoch), databases(&many));
        }
        assert!(serde_json::to_vec(&all).unwrap().len() <= SIZE + 2);
        assert!(all.of(Epoch(109)).is_some());
    }
}
