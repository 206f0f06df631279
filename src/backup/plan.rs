//! What is merged, and what is removed, and when. Pure.
//!
//! Time is the store's: how much older one object is than the newest there is. So a clock of ours that is
//! off removes nothing, and where nothing is written nothing expires.

use std::collections::HashSet;
use std::time::Duration;

use super::history::{Generations, History, by_age};
use super::ltx::Pos;
use super::object::{Object, Stored};

/// How much is merged at once, in files.
const MOST: usize = 512;
const HOUR: u64 = 60 * 60 * 1000;

/// How long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Whatever was so within this time can be restored.
    pub(crate) retention: Duration,
    /// Between two snapshots.
    pub(crate) snapshot_interval: Duration,
    /// For so long to the second, then to the hour.
    pub(crate) precision: Duration,
}

/// Files in a row, of which one is to be made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Step {
    /// That comes beside them.
    Snapshot(Vec<Object>),
    /// That takes their place.
    Merge(Vec<Object>),
    #[default]
    Nothing,
}

/// The newest time in a store.
pub(crate) fn now<'a>(stored: impl IntoIterator<Item = &'a Stored>) -> u64 {
    stored.into_iter().map(|stored| stored.modified).max().unwrap_or_default()
}

fn age(stored: &Stored, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(stored.modified))
}

impl Schedule {
    /// What nothing within the retention needs any more: of each generation what comes before a snapshot
    /// that is as old as that, and the whole of one that ended before.
    pub(crate) fn expired(&self, generations: &Generations, now: u64) -> Vec<Object> {
        let generations = by_age(generations);
        let current = generations.last().map(|(generation, _)| *generation);
        let mut expired = Vec::new();
        for (generation, files) in generations {
            let old = |stored: &&Stored| age(stored, now) >= self.retention;
            if Some(generation) != current && files.iter().all(|stored| old(&stored)) {
                expired.extend(files);
                continue;
            }
            let snapshots = files.iter().filter(|stored| stored.object.is_snapshot());
            let last = snapshots.filter(old).max_by_key(|stored| stored.object.after.txid);
            if let Some(last) = last {
                let before = |stored: &&Stored| stored.object.after.txid < last.object.after.txid;
                expired.extend(files.iter().filter(before));
            }
        }
        expired.into_iter().map(|stored| stored.object.clone()).collect()
    }

    /// What is to be made next.
    pub(crate) fn next(&self, generations: &Generations, now: u64) -> Step {
        let own = |files: Vec<&Object>| files.into_iter().cloned().collect();
        let newest = by_age(generations).pop();
        if let Some(files) = newest.and_then(|(_, files)| self.snapshot_due(files, now)) {
            return Step::Snapshot(own(files));
        }
        let merged = generations.values().find_map(|files| self.mergeable(files, now));
        merged.map_or(Step::Nothing, |files| Step::Merge(own(files)))
    }

    /// Transactions of one hour, older than the precision, that become one file. It never leads past a
    /// snapshot, or nothing would go on from that any more.
    fn mergeable<'a>(&self, files: &'a [Stored], now: u64) -> Option<Vec<&'a Object>> {
        let stops: HashSet<Pos> = files
            .iter()
            .filter(|stored| stored.object.is_snapshot())
            .map(|stored| stored.object.after)
            .collect();
        let mut old: Vec<_> = files
            .iter()
            .filter(|stored| !stored.object.is_snapshot() && age(stored, now) >= self.precision)
            .map(|stored| &stored.object)
            .collect();
        old.sort_by_key(|file| (file.min, file.after.txid));
        let mut run: Vec<&Object> = Vec::new();
        for file in old {
            let goes_on = run.last().is_some_and(|last| {
                file.before() == Some(last.after)
                    && !stops.contains(&last.after)
                    && last.millis / HOUR == file.millis / HOUR
                    && run.len() < MOST
            });
            if !goes_on {
                if run.len() > 1 {
                    return Some(run);
                }
                run.clear();
            }
            run.push(file);
        }
        (run.len() > 1).then_some(run)
    }

    /// Of what a new snapshot is to be made, once the last one is old: files in a row, a snapshot first.
    fn snapshot_due<'a>(&self, files: &'a [Stored], now: u64) -> Option<Vec<&'a Object>> {
        let recent = |stored: &Stored| {
            stored.object.is_snapshot() && age(stored, now) < self.snapshot_interval
        };
        if files.iter().any(recent) {
            return None;
        }
        let history = History::of(files.iter().map(|stored| &stored.object));
        let way = history.way_to(history.head()?.at)?;
        (way.len() > 1).then_some(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::object::Generation;
    use crate::cluster::Epoch;
    use crate::txid::{Checksum, Txid};

    const DAY: u64 = 24 * HOUR;

    fn schedule() -> Schedule {
        Schedule {
            retention: Duration::from_millis(7 * DAY),
            snapshot_interval: Duration::from_millis(DAY),
            precision: Duration::from_millis(DAY),
        }
    }

    /// From TXID to TXID, written at that time.
    fn file(from: u64, to: u64, at: u64) -> Stored {
        let object = Object {
            db: "a".to_owned(),
            generation: Generation { epoch: Epoch(1), n: 0 },
            min: Txid(from + 1),
            pre: from,
            after: Pos { txid: Txid(to), checksum: Checksum(to) },
            epoch: Epoch(1),
            millis: at,
        };
        Stored { object, size: 1, modified: at }
    }

    fn ends(files: &[&Object]) -> Vec<u64> {
        files.iter().map(|file| file.after.txid.0).collect()
    }

    fn generations(list: &[(u64, &[Stored])]) -> Generations {
        let one = |(epoch, files): &(u64, &[Stored])| {
            (Generation { epoch: Epoch(*epoch), n: 0 }, files.to_vec())
        };
        list.iter().map(one).collect()
    }

    fn expired(list: &[(u64, &[Stored])], now: u64) -> Vec<u64> {
        let generations = generations(list);
        let expired = schedule().expired(&generations, now);
        expired.iter().map(|object| object.after.txid.0).collect()
    }

    #[test]
    fn what_comes_before_a_snapshot_as_old_as_the_retention_goes() {
        let files = [file(0, 1, 0), file(1, 2, DAY), file(0, 2, DAY), file(2, 3, 2 * DAY)];
        assert_eq!(expired(&[(1, &files)], 7 * DAY), [0u64; 0], "the second could be wanted");
        assert_eq!(expired(&[(1, &files)], 8 * DAY), [1]);
        assert_eq!(expired(&[(1, &files)], 800 * DAY), [1], "the last never goes");
    }

    #[test]
    fn a_generation_that_ended_before_goes_whole() {
        let old = [file(0, 1, 0), file(1, 7, DAY)];
        let new = [file(0, 5, DAY)];
        assert_eq!(expired(&[(1, &old), (2, &new)], 7 * DAY), [0u64; 0]);
        assert_eq!(expired(&[(1, &old), (2, &new)], 8 * DAY), [1, 7]);
    }

    #[test]
    fn an_hours_transactions_become_one() {
        let files = [
            file(0, 1, 0),
            file(1, 2, 10),
            file(2, 3, 20),
            file(3, 4, HOUR),
            file(4, 5, HOUR + 1),
            file(5, 6, HOUR + 2),
        ];
        let merged = |now| schedule().mergeable(&files, now).map(|files| ends(&files));
        assert_eq!(merged(DAY), None, "to the second");
        assert_eq!(merged(DAY + 20), Some(vec![2, 3]));
        let rest = &files[3..];
        assert_eq!(schedule().mergeable(rest, DAY + HOUR + 1).map(|f| ends(&f)), Some(vec![4, 5]));
    }

    #[test]
    fn what_is_merged_ends_where_a_snapshot_does() {
        let mut files =
            vec![file(0, 1, 0), file(1, 2, 1), file(2, 3, 2), file(3, 4, 3), file(4, 5, 4)];
        files.push(file(0, 3, 5));
        assert_eq!(schedule().mergeable(&files, 2 * DAY).map(|f| ends(&f)), Some(vec![2, 3]));
        files.drain(1..3);
        assert_eq!(schedule().mergeable(&files, 2 * DAY).map(|f| ends(&f)), Some(vec![4, 5]));
    }

    #[test]
    fn a_snapshot_is_made_once_the_last_is_old_and_something_has_come() {
        let files = [file(0, 1, 0), file(1, 2, HOUR)];
        let made = |files: &[Stored], now| schedule().snapshot_due(files, now).map(|f| ends(&f));
        assert_eq!(made(&files, DAY - 1), None);
        assert_eq!(made(&files, DAY), Some(vec![1, 2]));
        assert_eq!(made(&files[..1], DAY), None);
    }
}
