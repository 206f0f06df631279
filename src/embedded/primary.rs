//! The primary's copy: numbers the application's commits, makes the images that replicas are sent, and
//! can be fenced.
//!
//! The fence is SQLite's own write lock, held by a connection of ours, so it keeps everybody from writing,
//! whichever way they come. Writers wait as they do for each other, and go on when it is lifted: unlike
//! the mark of [`super::apply`], which an open connection never unlearns, it leaves no trace. When the copy
//! becomes a replica's the mark is set under it, so that nothing can be committed in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::image::{Image, READ_VERSION, WRITE_VERSION, first_page};
use super::observe::{Observer, explain, file_at};
use super::store::Store;
use super::{apply, placeholder};
use crate::txid::{EpochTxid, Txid};

/// How long one try to fence takes at most. It is spent on asking without a pause: a busy writer leaves
/// only moments between two transactions.
const TRY: Duration = Duration::from_millis(100);
/// How long setting the mark waits for readers, in rollback mode.
const READERS: Duration = Duration::from_millis(250);

pub(crate) struct Primary {
    path: PathBuf,
    observer: Observer,
    position: EpochTxid,
    /// A change was seen that has no number yet, because reserving one failed.
    unnumbered: bool,
    /// Nothing keeps the application from writing any more.
    writable: bool,
    /// Made once for all replicas.
    image: Arc<Image>,
    /// Has the write lock.
    fence: Option<Connection>,
}

impl Primary {
    /// Goes on from `start`, with which this epoch begins.
    pub(crate) fn new(path: PathBuf, start: EpochTxid) -> Self {
        Self {
            observer: Observer::new(path.clone()),
            path,
            position: start,
            unnumbered: start.txid > Txid(0),
            writable: false,
            image: Arc::default(),
            fence: None,
        }
    }

    pub(crate) fn position(&self) -> EpochTxid {
        self.position
    }

    /// Looks at the database, and gives a change the next number. Returns whether there is a database.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or no number be reserved; nothing seen is forgotten by that.
    pub(crate) fn look(&mut self, store: &mut Store) -> io::Result<bool> {
        if self.fence.is_some() {
            // Nothing can change, and the lock may be in our own way.
            return Ok(self.observer.connection().is_some());
        }
        let mut look = self.observer.look()?;
        if look.exists && !self.writable {
            // This look must not hide a change from the one that numbers it.
            self.unnumbered |= look.changed;
            self.make_writable()?;
            look = self.observer.look()?;
        }
        self.unnumbered = (self.unnumbered || look.changed) && !self.is_unwritten();
        if self.unnumbered {
            let txid = Txid(self.position.txid.0 + 1);
            store.reserve(txid)?;
            self.position.txid = txid;
            self.unnumbered = false;
        }
        Ok(look.exists)
    }

    /// Nobody has ever written to it, so there is nothing to number: whoever finds a number takes the
    /// database for one that holds something.
    fn is_unwritten(&self) -> bool {
        self.position.txid == Txid(0) && self.is_empty()
    }

    /// Whether the last look found no database, or one without anything in it. One that cannot be read
    /// may hold something.
    fn is_empty(&self) -> bool {
        self.observer.connection().is_none_or(|connection| {
            Image::read(connection, &self.path, &self.image).is_ok_and(|image| image.is_empty())
        })
    }

    /// Removes the mark that this copy has if it was a replica's. Writes nothing if it was not.
    fn make_writable(&mut self) -> io::Result<()> {
        let failed = |e| explain(&self.path, e);
        let Some(connection) = self.observer.connection() else { return Ok(()) };
        // Without `sqlite_dbpage` this node was no replica either.
        let able = apply::supported().is_ok();
        let first = if able { first_page(connection).map_err(failed)? } else { None };
        if first.is_some_and(|first| first[WRITE_VERSION] > first[READ_VERSION]) {
            let is_empty = self.is_empty();
            let writing = apply::open(&self.path)?;
            if is_empty {
                // The placeholder. The application finds it as if it had just been made, and sets the
                // journal mode that it wants.
                apply::set_plain(&writing).map_err(failed)?;
                self.observer.close();
            } else {
                apply::set_read_only(&writing, false).map_err(failed)?;
            }
        }
        self.writable = true;
        Ok(())
    }

    /// The database as it was at the last look, or later.
    ///
    /// # Errors
    ///
    /// As [`Image::read`], and when it cannot be noted; then it must not be shipped.
    pub(crate) fn ship(&mut self, store: &mut Store) -> io::Result<Arc<Image>> {
        if self.moved() {
            // Read after the look: what is committed in between is in the image and gets the next
            // number, so that an image never holds less than its position says.
            let mut image = match self.observer.connection() {
                Some(connection) => Image::read(connection, &self.path, &self.image)?,
                None => Image::default(),
            };
            image.at = self.position;
            store.shipping(image.position())?;
            self.image = Arc::new(image);
        }
        Ok(self.image.clone())
    }

    /// Whether replicas could be sent something new.
    pub(crate) fn moved(&self) -> bool {
        self.image.at != self.position
    }

    /// Keeps everybody from writing, once the writers are done, until [`Primary::lift_fence`]. Returns
    /// whether that is new.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while somebody writes: to be tried again.
    pub(crate) fn fence(&mut self, store: &mut Store) -> io::Result<bool> {
        if self.fence.is_some() {
            return Ok(false);
        }
        if !self.writable {
            // This removes the mark if it is there.
            self.look(store)?;
        }
        let fence = write_lock(&self.path)?;
        // Sees the last that was committed.
        self.look(store)?;
        self.fence = Some(fence);
        Ok(true)
    }

    pub(crate) fn lift_fence(&mut self) {
        self.fence = None;
    }

    /// Makes a fenced copy one that no application can write. Nothing can be committed in between.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while readers hold it up, in rollback mode: to be tried again, it stays fenced.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        let Some(fence) = &self.fence else { return Err(super::not("fenced")) };
        fence
            .busy_timeout(READERS)
            .and_then(|()| apply::mark(fence, &placeholder::first_page()))
            .and_then(|()| fence.execute_batch("COMMIT"))
            .map_err(|e| explain(&self.path, e))
    }
}

/// Tries to take the write lock. A database that is not there yet is made, empty.
fn write_lock(path: &Path) -> io::Result<Connection> {
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
            Ok(()) => return Ok(connection),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::yield_now(),
        }
    }
}
