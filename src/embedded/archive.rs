//! Saves copies that are about to be replaced and that the new history lacks.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::checksum::Position;
use super::image::WRITE_VERSION;
use super::observe::explain;
use crate::copy::diverged::{self, Place};

/// Saves the database behind `connection`, which holds `have`. It is on the disk when this returns
/// where.
///
/// # Errors
///
/// When it cannot be saved; then it must not be replaced.
pub(crate) fn save(
    connection: &Connection,
    have: Position,
    data_dir: &Path,
) -> io::Result<PathBuf> {
    match diverged::place(data_dir, have)? {
        Place::Kept(kept) => Ok(kept),
        Place::New(place) => {
            copy(connection, &place.partial)?;
            place.keep()
        }
    }
}

fn copy(connection: &Connection, to: &Path) -> io::Result<()> {
    let failed = |e| explain(to, e);
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
