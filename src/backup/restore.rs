//! From what is kept back to a database.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::history::{Catalog, Generations, History, Moment, Point, by_age, until};
use super::merge::Merge;
use super::object::{Generation, Object, Stored};
use super::spool::{Spool, room};
use super::store::{Store, StoreError};
use crate::files::on_disk;
use crate::telemetry::clock::rfc3339;

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) db: String,
    /// `None`: the newest that has it.
    pub(crate) generation: Option<Generation>,
    pub(crate) moment: Moment,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) generation: Generation,
    pub(crate) point: Point,
    /// What was found to be damaged, and gone around.
    pub(crate) damaged: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum RestoreError {
    NoDatabase { db: String, there: Vec<String> },
    NoMoment { db: String, nearest: Vec<String> },
    Damaged { files: Vec<String>, left: Vec<String> },
    Store(StoreError),
    Here(io::Error),
}

/// Which files lead to it.
#[derive(Debug)]
struct Choice<'a> {
    generation: Generation,
    point: Point,
    way: Vec<&'a Object>,
}

/// Restores a database into a file, which is made or replaced.
///
/// # Errors
///
/// When there is no such thing, what is kept of it is damaged, or the store or the disk fails.
pub(crate) async fn restore(
    store: &dyn Store,
    spool: &Spool,
    catalog: &Catalog,
    wanted: &Wanted,
    to: &Path,
) -> Result<Restored, RestoreError> {
    let generations = of(catalog, &wanted.db)?;
    let first = choose(generations, wanted, &HashSet::new())
        .ok_or_else(|| no_moment(generations, wanted))?;
    let mut damaged = HashSet::new();
    let mut choice = first;
    loop {
        match fetch(store, spool, &choice).await? {
            Ok(merge) => {
                let (made, point) = (File::create(to)?, choice.point);
                on_disk(move || merge.write_database(&made)).await??;
                let damaged = damaged.into_iter().collect();
                return Ok(Restored { generation: choice.generation, point, damaged });
            }
            Err((key, why)) => {
                tracing::warn!("{key} is damaged: {why}");
                damaged.insert(key);
            }
        }
        let point = choice.point;
        choice = choose(generations, wanted, &damaged)
            .filter(|other| other.point == point)
            .ok_or_else(|| left(generations, &damaged))?;
    }
}

fn of<'a>(catalog: &'a Catalog, db: &str) -> Result<&'a Generations, RestoreError> {
    catalog.get(db).ok_or_else(|| RestoreError::NoDatabase {
        db: db.to_owned(),
        there: catalog.keys().cloned().collect(),
    })
}

/// The newest generation that has it, as it was lived: a history that was given up counts only where no later
/// one reaches back as far.
fn choose<'a>(
    generations: &'a Generations,
    wanted: &Wanted,
    without: &HashSet<String>,
) -> Option<Choice<'a>> {
    let asked = |generation: &Generation| wanted.generation.is_none_or(|only| only == *generation);
    let newest = by_age(generations).into_iter().rev();
    newest.filter(|(generation, _)| asked(generation)).find_map(|(generation, files)| {
        let history = whole(files, without);
        let point = until(&history.points(), wanted.moment)?;
        Some(Choice { generation, point, way: history.way_to(point.at)? })
    })
}

/// What is left of a generation without damaged files.
pub(crate) fn whole<'a>(files: &'a [Stored], without: &HashSet<String>) -> History<'a> {
    let objects = files.iter().map(|stored| &stored.object);
    History::of(objects.filter(|object| !without.contains(&object.key())))
}

/// The files merged, or which of them is damaged, and how.
async fn fetch(
    store: &dyn Store,
    spool: &Spool,
    choice: &Choice<'_>,
) -> Result<Result<Merge, (String, io::Error)>, RestoreError> {
    let mut merge = Merge::new(spool.dir())?;
    for object in &choice.way {
        room(spool.dir())?;
        let (copy, key) = (spool.file()?, object.key());
        match store.get(&key, copy.path()).await {
            // Removed since it was listed: as good as damaged.
            Err(StoreError::NotThere(why)) => return Ok(Err((key, io::Error::other(why)))),
            got => got?,
        }
        let (path, object) = (copy.path().to_owned(), (*object).clone());
        let added = on_disk(move || merge.add_object(&path, &object).map(|()| merge)).await?;
        match added {
            Ok(added) => merge = added,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error.into()),
            Err(error) => return Ok(Err((key, error))),
        }
    }
    Ok(Ok(merge))
}

fn no_moment(generations: &Generations, wanted: &Wanted) -> RestoreError {
    RestoreError::NoMoment { db: wanted.db.clone(), nearest: reach(generations, &HashSet::new()) }
}

fn left(generations: &Generations, damaged: &HashSet<String>) -> RestoreError {
    RestoreError::Damaged {
        files: damaged.iter().cloned().collect(),
        left: reach(generations, damaged),
    }
}

/// From when to when each generation can be restored, in words.
pub(crate) fn reach(generations: &Generations, without: &HashSet<String>) -> Vec<String> {
    let one = |(generation, files): (Generation, &Vec<Stored>)| {
        let points = whole(files, without).points();
        let (first, last) = (points.first()?, points.last()?);
        Some(format!(
            "generation {generation}: {} (TXID {}) to {} (TXID {})",
            at(first.millis),
            first.at.txid,
            at(last.millis),
            last.at.txid
        ))
    };
    by_age(generations).into_iter().filter_map(one).collect()
}

/// A time in milliseconds since 1970, for people.
pub(crate) fn at(millis: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    at.map_or_else(|| "?".to_owned(), rfc3339)
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        Self::Here(error)
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |lines: &[String]| match lines {
            [] => " nothing".to_owned(),
            lines => format!("\n  {}", lines.join("\n  ")),
        };
        match self {
            Self::NoDatabase { db, there } if there.is_empty() => {
                write!(f, "there is no backup of {db}, nor of any database")
            }
            Self::NoDatabase { db, there } => {
                write!(f, "there is no backup of {db}, but of {}: --db NAME", there.join(", "))
            }
            Self::NoMoment { db, nearest } => {
                write!(f, "{db} cannot be restored to that. It can be to:{}", list(nearest))
            }
            Self::Damaged { files, left } => {
                write!(f, "damaged:{}\nwithout it can be restored:{}", list(files), list(left))
            }
            Self::Store(error) => error.fmt(f),
            Self::Here(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}
