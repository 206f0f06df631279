//! What is kept, as the primary of one epoch knows it, and what LiteFS is answered. Pure.
//!
//! LiteFS asks where the backup is ([`Tenure::positions`]), and goes on from there. Of a database that is not
//! named it sends a snapshot. What it would do where the backup does not fit is in the head of
//! [`super`]: so no database is named that it could not go on from.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Catalog, History, by_age};
use super::ltx::{Facts, Pos};
use super::object::{Generation, Object};
use crate::cluster::Epoch;
use crate::txid::Txid;

/// What the primary of an epoch has found, and added.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) epoch: Epoch,
    kept: BTreeMap<String, Kept>,
}

/// Of one database.
#[derive(Clone, Copy, Debug)]
struct Kept {
    generation: Generation,
    /// Where that ends; `None`: nothing goes on from it, so the next begins.
    end: Option<Pos>,
}

impl Tenure {
    /// Goes on with what is kept.
    pub(crate) fn new(epoch: Epoch, catalog: &Catalog) -> Self {
        let mut kept = BTreeMap::new();
        for (db, generations) in catalog {
            if let Some((generation, files)) = by_age(generations).pop() {
                let end = History::of(files.iter().map(|stored| &stored.object)).head();
                kept.insert(db.clone(), Kept { generation, end: end.map(|point| point.at) });
            }
        }
        Self { epoch, kept }
    }

    /// Where the backup of each database is that LiteFS holds, as far as it can go on from there. `local`: what
    /// it holds.
    pub(crate) fn positions(&mut self, local: &BTreeMap<String, Pos>) -> BTreeMap<String, Pos> {
        let mut named = BTreeMap::new();
        for (db, kept) in &mut self.kept {
            let (Some(end), Some(held)) = (kept.end, local.get(db)) else { continue };
            if end.txid > held.txid || (end.txid == held.txid && end != *held) {
                // A failover or a restore has led elsewhere.
                kept.end = None;
            } else {
                named.insert(db.clone(), end);
            }
        }
        named
    }

    /// LiteFS cannot go on from there: it has no such transactions any more, or others.
    pub(crate) fn give_up(&mut self, db: &str) {
        if let Some(kept) = self.kept.get_mut(db) {
            kept.end = None;
        }
    }

    /// As what this is to be kept. `None`: it does not go on from what is kept, and LiteFS is to send a snapshot.
    pub(crate) fn place(&mut self, db: &str, facts: &Facts) -> Option<Object> {
        let kept = self.kept.get(db).copied();
        let generation = match facts.header.before() {
            None => self.next(kept),
            Some(before) => match kept.filter(|kept| kept.end == Some(before)) {
                Some(kept) => kept.generation,
                None => {
                    self.give_up(db);
                    return None;
                }
            },
        };
        Some(Object::new(db, generation, self.epoch, facts))
    }

    /// Begins after all that are there: epochs only grow, and this one is the newest.
    fn next(&self, kept: Option<Kept>) -> Generation {
        let last = kept.map(|kept| kept.generation).filter(|last| last.epoch >= self.epoch);
        match last {
            Some(last) => Generation { n: last.n + 1, ..last },
            None => Generation { epoch: self.epoch, n: 0 },
        }
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.kept.keys().cloned().collect()
    }

    /// It is in the store.
    pub(crate) fn has(&mut self, object: &Object) {
        let kept = Kept { generation: object.generation, end: Some(object.after) };
        self.kept.insert(object.db.clone(), kept);
    }

    /// How many transactions of these databases are kept.
    pub(crate) fn seq<'a>(&self, dbs: impl IntoIterator<Item = &'a String>) -> Txid {
        let end = |db: &String| self.kept.get(db)?.end;
        Txid(dbs.into_iter().filter_map(end).map(|end| end.txid.0).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::history::catalog;
    use crate::backup::ltx::Header;
    use crate::backup::object::Stored;
    use crate::txid::Checksum;

    const DB: &str = "app.db";

    fn pos(txid: u64, checksum: u64) -> Pos {
        Pos { txid: Txid(txid), checksum: Checksum(checksum) }
    }

    /// Transactions after `before` that lead to `after`.
    fn tx(before: (u64, u64), after: (u64, u64)) -> Facts {
        let mut header = Header::new(4096, 1, (Txid(before.0 + 1), Txid(after.0)), 0);
        header.pre = before.1;
        Facts { header, post: Checksum(after.1) }
    }

    fn local(at: Pos) -> BTreeMap<String, Pos> {
        BTreeMap::from([(DB.to_owned(), at)])
    }

    /// As the primary of `epoch` finds it after what others have kept.
    fn found(epoch: u64, objects: &[Object]) -> Tenure {
        let stored = objects.iter().map(|o| Stored { object: o.clone(), size: 1, modified: 1 });
        Tenure::new(Epoch(epoch), &catalog(stored))
    }

    fn keep(tenure: &mut Tenure, facts: &Facts) -> Object {
        let object = tenure.place(DB, facts).expect("it goes on");
        tenure.has(&object);
        object
    }

    #[test]
    fn a_database_begins_with_a_snapshot_and_goes_on() {
        let mut tenure = found(3, &[]);
        assert!(tenure.positions(&local(pos(5, 5))).is_empty());
        assert_eq!(tenure.place(DB, &tx((4, 4), (5, 5))), None, "nothing to go on from");
        let snapshot = keep(&mut tenure, &tx((0, 0), (5, 5)));
        assert_eq!(snapshot.generation, Generation { epoch: Epoch(3), n: 0 });
        assert_eq!(tenure.positions(&local(pos(7, 7))), local(pos(5, 5)));
        assert_eq!(keep(&mut tenure, &tx((5, 5), (7, 7))).generation, snapshot.generation);
        assert_eq!(tenure.positions(&local(pos(7, 7))), local(pos(7, 7)));
        assert_eq!(tenure.seq(&[DB.to_owned()]), Txid(7));
    }

    #[test]
    fn the_next_primary_goes_on_in_the_same_generation() {
        let mut old = found(3, &[]);
        let mut kept = vec![keep(&mut old, &tx((0, 0), (5, 5)))];
        kept.push(keep(&mut old, &tx((5, 5), (6, 6))));
        let mut new = found(4, &kept);
        assert_eq!(new.positions(&local(pos(8, 8))), local(pos(6, 6)));
        let object = keep(&mut new, &tx((6, 6), (8, 8)));
        assert_eq!((object.generation, object.epoch), (kept[0].generation, Epoch(4)));
    }

    /// What LiteFS takes the backup for decides whether it overwrites itself: it must not be named.
    #[test]
    fn after_a_lossy_failover_the_backup_is_not_named_and_the_next_generation_begins() {
        let mut old = found(3, &[]);
        let kept = [keep(&mut old, &tx((0, 0), (9, 9)))];
        for held in [pos(7, 7), pos(9, 109)] {
            let mut new = found(4, &kept);
            assert!(new.positions(&local(held)).is_empty(), "{held:?}");
            assert!(new.positions(&local(pos(10, 110))).is_empty(), "nor later");
            let snapshot = keep(&mut new, &tx((0, 0), (10, 110)));
            assert_eq!(snapshot.generation, Generation { epoch: Epoch(4), n: 0 });
            assert_eq!(new.positions(&local(pos(11, 111))), local(pos(10, 110)));
        }
    }

    /// Seen only when its transactions come: it has overtaken what is kept.
    #[test]
    fn another_history_that_is_longer_is_found_out_by_its_checksum() {
        let mut old = found(3, &[]);
        let kept = [keep(&mut old, &tx((0, 0), (9, 9)))];
        let mut new = found(4, &kept);
        assert_eq!(new.positions(&local(pos(12, 112))), local(pos(9, 9)));
        assert_eq!(new.place(DB, &tx((9, 109), (12, 112))), None);
        assert!(new.positions(&local(pos(12, 112))).is_empty());
        keep(&mut new, &tx((0, 0), (12, 112)));
    }

    #[test]
    fn a_database_that_litefs_does_not_hold_is_not_named() {
        let mut old = found(3, &[]);
        let kept = [keep(&mut old, &tx((0, 0), (9, 9)))];
        assert!(found(4, &kept).positions(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn each_new_history_in_an_epoch_has_a_generation_of_its_own() {
        let mut tenure = found(3, &[]);
        let first = keep(&mut tenure, &tx((0, 0), (5, 5)));
        tenure.give_up(DB);
        let second = keep(&mut tenure, &tx((0, 0), (5, 5)));
        assert!(first.generation < second.generation && first.key() != second.key());
        // A deposed primary that comes late begins one that is older than its successor's.
        let mut successor = found(4, &[first]);
        successor.give_up(DB);
        assert!(keep(&mut successor, &tx((0, 0), (4, 4))).generation > second.generation);
    }
}
