//! Saves copies that are about to be replaced and that the new history lacks, under
//! `data_dir/diverged/`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::checksum::{Checksum, Stamp};
use super::image::WRITE_VERSION;
use super::observe::explain;

/// The directory's name in `data_dir`.
pub const DIR: &str = "diverged";
/// So many copies are kept, the newest.
const KEPT: usize = 3;
/// While it is being written.
const PARTIAL: &str = "partial";

/// Saves the database behind `connection`, which holds `have`. It is on the disk when this returns
/// where. If a crash came between saving it and replacing it, it is there already.
///
/// # Errors
///
/// When it cannot be saved; then it must not be replaced.
pub fn save(connection: &Connection, have: Stamp, data_dir: &Path) -> io::Result<PathBuf> {
    let dir = data_dir.join(DIR);
    let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
    fs::create_dir_all(&dir).map_err(at)?;
    let content = format!("-{}.sqlite3", have.checksum);
    let known = have.checksum != Checksum::UNKNOWN;
    if let Some(saved) = saved(&dir).map_err(at)?.into_iter().find(|saved| {
        known && saved.file_name().is_some_and(|n| n.to_string_lossy().ends_with(&content))
    }) {
        return Ok(saved);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Names sort by time.
    let name = format!("{:013}-epoch-{}{content}", now.as_millis(), have.position.epoch);
    let (whole, partial) = (dir.join(name), dir.join(PARTIAL));
    copy(connection, &partial)?;
    fs::rename(&partial, &whole).and_then(|()| File::open(&dir)?.sync_all()).map_err(at)?;
    prune(&dir).map_err(at)?;
    Ok(whole)
}

fn copy(connection: &Connection, to: &Path) -> io::Result<()> {
    let failed = |e| explain(to, e);
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    {
        let mut copy = Connection::open(to).map_err(failed)?;
        let backup = Backup::new(connection, &mut copy).map_err(failed)?;
        if backup.step(-1).map_err(failed)? != StepResult::Done {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the database is locked"));
        }
    }
    // A plain database that anybody may write; nobody has it open.
    let file = OpenOptions::new().write(true).open(to)?;
    file.write_all_at(&[1, 1], WRITE_VERSION as u64)?;
    file.sync_all()
}

fn prune(dir: &Path) -> io::Result<()> {
    let names = saved(dir)?;
    let old = names.len().saturating_sub(KEPT);
    names.iter().take(old).try_for_each(fs::remove_file)
}

/// The oldest first.
fn saved(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "sqlite3") {
            names.push(path);
        }
    }
    names.sort();
    Ok(names)
}
