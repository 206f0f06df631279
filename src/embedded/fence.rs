//! Keeps everybody from writing the primary's database, whichever way they come, by SQLite's own write
//! lock, held by a connection of ours.
//!
//! Writers wait as they do for each other, and go on when it is lifted: unlike the mark of
//! [`super::apply`], which an open connection never unlearns, it leaves no trace. The mark is set
//! under it when the copy becomes a replica's, so that nothing can be committed in between.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::apply;
use super::observe::{explain, file_at};
use super::placeholder;

/// How long one try takes at most. It is spent on asking without a pause: a busy writer leaves only
/// moments between two transactions.
const TRY: Duration = Duration::from_millis(100);
/// How long setting the mark waits for readers, in rollback mode.
const READERS: Duration = Duration::from_millis(250);

pub(crate) struct Fence {
    connection: Connection,
    path: PathBuf,
}

impl Fence {
    /// Tries to take the write lock. A database that is not there yet is made, empty.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` when somebody writes: to be tried again.
    pub(crate) fn raise(path: &Path) -> io::Result<Self> {
        if file_at(path)?.is_none() {
            match apply::create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let failed = |e| explain(path, e);
        let connection = apply::open(path)?;
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        let deadline = Instant::now() + TRY;
        loop {
            match connection.execute_batch("BEGIN IMMEDIATE").map_err(failed) {
                Ok(()) => return Ok(Self { connection, path: path.to_owned() }),
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Sets the mark that keeps applications from writing, and lets go of the lock. Nothing can be
    /// committed in between.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while somebody reads, in rollback mode; the lock is then still held.
    pub(crate) fn close(&self) -> io::Result<()> {
        let failed = |e| explain(&self.path, e);
        self.connection.busy_timeout(READERS).map_err(failed)?;
        apply::mark(&self.connection, &placeholder::first_page()).map_err(failed)?;
        self.connection.execute_batch("COMMIT").map_err(failed)
    }
}
