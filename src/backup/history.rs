//! What one generation holds, as its names say: which positions can be restored, and by which files.
//! Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ltx::Pos;
use super::object::{Generation, Object, Stored};
use crate::txid::Txid;

/// Of one database.
pub(crate) type Generations = BTreeMap<Generation, Vec<Stored>>;

/// By database.
pub(crate) type Catalog = BTreeMap<String, Generations>;

/// Sorts what a store lists.
pub(crate) fn catalog(stored: impl IntoIterator<Item = Stored>) -> Catalog {
    let mut catalog = Catalog::new();
    for stored in stored {
        let Object { db, generation, .. } = &stored.object;
        let generations = catalog.entry(db.clone()).or_default();
        generations.entry(*generation).or_default().push(stored);
    }
    catalog
}

/// The generations in the order in which they were written last. One that a deposed primary began late does
/// not come after one in which its successor goes on.
pub(crate) fn by_age(generations: &Generations) -> Vec<(Generation, &Vec<Stored>)> {
    let mut all: Vec<_> = generations.iter().map(|(id, files)| (*id, files)).collect();
    let epoch = |files: &Vec<Stored>| files.iter().map(|stored| stored.object.epoch).max();
    all.sort_by_key(|(id, files)| (epoch(files), *id));
    all
}

/// The files of one generation as steps from position to position.
pub(crate) struct History<'a> {
    files: Vec<&'a Object>,
    /// How each position is reached with the fewest files: the last of them, and how many.
    reached: HashMap<Pos, (usize, usize)>,
}

/// Something that can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) at: Pos,
    /// When it was made, by the clock of its primary, since 1970.
    pub(crate) millis: u64,
}

impl<'a> History<'a> {
    pub(crate) fn of(files: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut files: Vec<_> = files.into_iter().collect();
        // A step leads to a later transaction, so what it needs was reached before.
        files.sort_by_key(|file| (file.after.txid, file.min));
        let mut reached: HashMap<Pos, (usize, usize)> = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            let steps = match file.before() {
                None => 1,
                Some(before) => match reached.get(&before) {
                    Some((_, steps)) => steps + 1,
                    None => continue,
                },
            };
            let best = reached.entry(file.after).or_insert((i, steps));
            if steps < best.1 {
                *best = (i, steps);
            }
        }
        Self { files, reached }
    }

    /// Where it ends. Where it forks, since a deposed primary wrote on for a moment, the later epoch has
    /// what clients were told.
    pub(crate) fn head(&self) -> Option<Point> {
        let passed: HashSet<Pos> = self.usable().filter_map(Object::before).collect();
        let ends = self.usable().filter(|file| !passed.contains(&file.after));
        let head = ends.max_by_key(|file| (file.epoch, file.after.txid))?;
        Some(Point { at: head.after, millis: head.millis })
    }

    /// Everything on the way to its end that can be restored, the oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        let mut wanted: HashSet<Pos> = self.head().map(|head| head.at).into_iter().collect();
        let mut points = BTreeMap::new();
        for file in self.files.iter().rev() {
            if wanted.contains(&file.after) && self.reached.contains_key(&file.after) {
                points.insert(file.after.txid, Point { at: file.after, millis: file.millis });
                wanted.extend(file.before());
            }
        }
        points.into_values().collect()
    }

    /// The fewest files that lead there, a snapshot first.
    pub(crate) fn way_to(&self, at: Pos) -> Option<Vec<&'a Object>> {
        let mut way = Vec::new();
        let mut next = Some(at);
        while let Some(at) = next {
            let (i, _) = self.reached.get(&at)?;
            let file = self.files[*i];
            way.push(file);
            next = file.before();
        }
        way.reverse();
        Some(way)
    }

    /// Files that lead nowhere, since what they go on from is not there.
    pub(crate) fn cut_off(&self) -> Vec<&'a Object> {
        let lost = |file: &&Object| {
            file.before().is_some_and(|before| !self.reached.contains_key(&before))
        };
        self.files.iter().copied().filter(|file| lost(file)).collect()
    }

    fn usable(&self) -> impl Iterator<Item = &'a Object> {
        let usable =
            |file: &Object| file.before().is_none_or(|before| self.reached.contains_key(&before));
        self.files.iter().copied().filter(move |file| usable(file))
    }
}

/// What is to be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Newest,
    /// Milliseconds since 1970.
    Time(u64),
    Txid(Txid),
}

/// The last point of a history until then, if there is one.
pub(crate) fn until(points: &[Point], moment: Moment) -> Option<Point> {
    let fits = |point: &&Point| match moment {
        Moment::Newest => true,
        Moment::Time(millis) => point.millis <= millis,
        Moment::Txid(txid) => point.at.txid == txid,
    };
    points.iter().rev().find(fits).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::txid::Checksum;

    fn pos(txid: u64, checksum: u64) -> Pos {
        Pos { txid: Txid(txid), checksum: Checksum(checksum) }
    }

    /// Of a database whose checksum at TXID t is t, plus 100 for each history that has parted.
    fn file(before: u64, after: u64, epoch: u64) -> Object {
        Object {
            db: "a".to_owned(),
            generation: Generation { epoch: Epoch(1), n: 0 },
            min: Txid(before % 100 + 1),
            pre: before,
            after: pos(after % 100, after),
            epoch: Epoch(epoch),
            millis: after % 100 * 1000,
        }
    }

    fn txids(points: &[Point]) -> Vec<u64> {
        points.iter().map(|point| point.at.txid.0).collect()
    }

    #[test]
    fn each_position_is_reached_by_the_fewest_files() {
        let files = [file(0, 3, 1), file(3, 4, 1), file(4, 5, 1), file(3, 5, 1), file(5, 6, 1)];
        let history = History::of(&files);
        assert_eq!(history.head().unwrap().at, pos(6, 6));
        assert_eq!(txids(&history.points()), [3, 4, 5, 6]);
        assert_eq!(history.way_to(pos(6, 6)).unwrap(), [&files[0], &files[3], &files[4]]);
        assert_eq!(history.way_to(pos(4, 4)).unwrap(), [&files[0], &files[1]]);
        assert_eq!(history.way_to(pos(4, 5)), None);
    }

    #[test]
    fn what_a_deposed_primary_wrote_on_leads_nowhere() {
        let files =
            [file(0, 3, 1), file(3, 4, 1), file(4, 105, 1), file(105, 107, 1), file(4, 5, 2)];
        let history = History::of(&files);
        assert_eq!(history.head().unwrap().at, pos(5, 5));
        assert_eq!(txids(&history.points()), [3, 4, 5]);
        assert!(history.way_to(pos(7, 107)).is_some(), "it can be had all the same");
    }

    #[test]
    fn what_something_goes_on_from_is_no_end() {
        let files = [file(0, 3, 1), file(3, 5, 2), file(5, 6, 1)];
        assert_eq!(History::of(&files).head().unwrap().at, pos(6, 6));
    }

    #[test]
    fn without_a_file_what_goes_on_from_it_is_cut_off() {
        let files = [file(0, 3, 1), file(4, 5, 1), file(5, 6, 1)];
        let history = History::of(&files);
        assert_eq!(history.head().unwrap().at, pos(3, 3));
        assert_eq!(history.cut_off(), [&files[1], &files[2]]);
        let later = [file(0, 3, 1), file(4, 5, 1), file(0, 5, 1), file(5, 6, 1)];
        assert_eq!(txids(&History::of(&later).points()), [5, 6], "by a later snapshot");
    }

    #[test]
    fn a_generation_that_came_late_is_no_newer_than_its_successors() {
        let stored = |birth, epoch| {
            let generation = Generation { epoch: Epoch(birth), n: 0 };
            let object = Object { generation, ..file(0, 3, epoch) };
            Stored { object, size: 1, modified: 1 }
        };
        let order = |files: &[Stored]| {
            let catalog = catalog(files.to_vec());
            by_age(&catalog["a"]).iter().map(|(id, _)| id.epoch.0).collect::<Vec<_>>()
        };
        assert_eq!(order(&[stored(3, 3), stored(7, 7)]), [3, 7]);
        assert_eq!(order(&[stored(3, 8), stored(7, 7)]), [7, 3], "epoch 8 goes on in the first");
        assert_eq!(order(&[stored(3, 8), stored(8, 8)]), [3, 8], "and then begins another");
    }

    #[test]
    fn a_moment_is_the_last_point_until_then() {
        let files = [file(0, 3, 1), file(3, 4, 1), file(4, 6, 1)];
        let points = History::of(&files).points();
        let at = |moment| until(&points, moment).map(|point| point.at.txid.0);
        assert_eq!(at(Moment::Newest), Some(6));
        assert_eq!(at(Moment::Time(5_999)), Some(4));
        assert_eq!(at(Moment::Time(6_000)), Some(6));
        assert_eq!(at(Moment::Time(2_999)), None);
        assert_eq!(at(Moment::Txid(Txid(4))), Some(4));
        assert_eq!(at(Moment::Txid(Txid(5))), None);
    }
}
