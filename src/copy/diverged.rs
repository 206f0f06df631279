//! Copies that a newer history lacks, kept under `data_dir/diverged/` before they are replaced.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::files::at;
use crate::txid::{Checksum, Position};

/// The directory's name in `data_dir`.
pub(crate) const DIR: &str = "diverged";
/// So many copies of each database are kept, the newest.
const KEPT: usize = 3;
/// While it is being written.
const PARTIAL: &str = "partial";

/// Where a copy is kept.
#[derive(Debug)]
pub(crate) enum Place {
    /// There already: a crash came between keeping the copy and replacing it.
    Kept(PathBuf),
    /// The copy is still to be written.
    New(NewPlace),
}

#[derive(Debug)]
pub(crate) struct NewPlace {
    dir: PathBuf,
    pub(crate) partial: PathBuf,
    whole: PathBuf,
    /// What the names of all copies of this database have.
    database: String,
}

/// A place for a copy of `database` that holds `have`.
///
/// # Errors
///
/// When there can be none; then the copy must not be replaced.
pub(crate) fn place(data_dir: &Path, database: &str, have: Position) -> io::Result<Place> {
    let dir = data_dir.join(DIR);
    fs::create_dir_all(&dir).map_err(|e| at(&dir, e))?;
    let content = format!("-{database}-{}.sqlite3", have.checksum);
    let same = |kept: &PathBuf| {
        let name = kept.file_name().map(|name| name.to_string_lossy().into_owned());
        have.checksum != Checksum::UNKNOWN && name.is_some_and(|name| name.ends_with(&content))
    };
    let all = kept(&dir, database).map_err(|e| at(&dir, e))?;
    if let Some(kept) = all.iter().find(|kept| same(kept)) {
        return Ok(Place::Kept(kept.clone()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    // Names sort by age, also where the clock was set back: the new one must not be pruned as the oldest.
    let time = all.last().and_then(|newest| time_of(newest)).map_or(now, |then| now.max(then + 1));
    let name = format!("{time:013}-epoch-{}{content}", have.at.epoch);
    let (partial, whole) = (dir.join(PARTIAL), dir.join(name));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&partial, error)),
        _ => {}
    }
    Ok(Place::New(NewPlace { dir, partial, whole, database: database.to_owned() }))
}

impl NewPlace {
    /// Keeps what was written, and is on the disk: says where. Older copies may have to go.
    ///
    /// # Errors
    ///
    /// When it cannot be kept; then the copy must not be replaced.
    pub(crate) fn keep(self) -> io::Result<PathBuf> {
        let Self { dir, partial, whole, database } = self;
        fs::rename(&partial, &whole)
            .and_then(|()| File::open(&dir)?.sync_all())
            .and_then(|()| prune(&dir, &database))
            .map_err(|e| at(&dir, e))?;
        Ok(whole)
    }
}

fn prune(dir: &Path, database: &str) -> io::Result<()> {
    let names = kept(dir, database)?;
    let old = names.len().saturating_sub(KEPT);
    names.iter().take(old).try_for_each(fs::remove_file)
}

/// The copies of a database, the oldest first.
fn kept(dir: &Path, database: &str) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|n| is_of(n, database)) {
            names.push(path);
        }
    }
    names.sort();
    Ok(names)
}

/// The milliseconds that its name begins with.
fn time_of(kept: &Path) -> Option<u128> {
    kept.file_name()?.to_str()?.split('-').next()?.parse().ok()
}

/// `TIME-epoch-EPOCH-DATABASE-CHECKSUM.sqlite3`
fn is_of(name: &str, database: &str) -> bool {
    let parts = name.strip_suffix(".sqlite3").and_then(|name| name.rsplit_once('-'));
    let mut before = parts.map(|(before, _)| before.splitn(4, '-')).into_iter().flatten();
    before.nth(3) == Some(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(checksum: u64) -> Position {
        Position { checksum: Checksum(checksum), ..Position::default() }
    }

    #[test]
    fn each_content_is_kept_once_and_the_newest_longest() {
        let dir = tempfile::tempdir().unwrap();
        let new = |checksum| match place(dir.path(), "my-app.db", position(checksum)).unwrap() {
            Place::New(place) => place,
            Place::Kept(path) => panic!("kept already: {}", path.display()),
        };
        let keep = |checksum| {
            let place = new(checksum);
            fs::write(&place.partial, checksum.to_string()).unwrap();
            place.keep().unwrap()
        };
        let first = keep(1);
        let again = place(dir.path(), "my-app.db", position(1)).unwrap();
        assert!(matches!(again, Place::Kept(path) if path == first));
        // Another database's do not take its place.
        let Place::New(other) = place(dir.path(), "app.db", position(1)).unwrap() else {
            panic!("kept already");
        };
        fs::write(&other.partial, "1").unwrap();
        let other = other.keep().unwrap();
        let others: Vec<_> = (2..=4).map(keep).collect();
        assert!(!first.exists() && others.iter().all(|path| path.exists()) && other.exists());
        // Left behind by a crash.
        fs::write(dir.path().join(DIR).join(PARTIAL), "half").unwrap();
        assert!(!new(5).partial.exists());
    }

    #[test]
    fn a_clock_that_was_set_back_removes_the_oldest_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DIR)).unwrap();
        // Kept while the clock was a year ahead.
        let ahead = SystemTime::now() + std::time::Duration::from_secs(365 * 24 * 3600);
        let ahead = ahead.duration_since(UNIX_EPOCH).unwrap().as_millis();
        for n in 0..KEPT {
            let name = format!("{:013}-epoch-1-app.db-{n:016x}.sqlite3", ahead + n as u128);
            fs::write(dir.path().join(DIR).join(name), "old").unwrap();
        }
        let Place::New(place) = place(dir.path(), "app.db", position(99)).unwrap() else {
            panic!("kept already");
        };
        fs::write(&place.partial, "new").unwrap();
        assert!(place.keep().unwrap().exists());
    }
}
