//! The engine's thread on the primary: numbers the application's commits and makes the images that
//! replicas are sent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::apply;
use super::checksum::Position;
use super::fence::Fence;
use super::image::{Image, READ_VERSION, WRITE_VERSION, first_page};
use super::observe::{Observer, explain};
use super::store::Store;
use crate::position::PositionCell;
use crate::txid::{EpochTxid, Txid};

pub(crate) struct Primary {
    path: PathBuf,
    observer: Observer,
    position: EpochTxid,
    /// A change was seen that has no number yet, because reserving one failed.
    unnumbered: bool,
    /// Nothing keeps the application from writing any more.
    writable: bool,
    shipped: Shipped,
    /// Nobody can write at present.
    fence: Option<Fence>,
}

/// The database at a position, made once for all replicas.
#[derive(Clone, Default)]
pub(crate) struct Shipped {
    pub(crate) image: Arc<Image>,
    /// The image holds at least this.
    pub(crate) position: EpochTxid,
}

impl Shipped {
    /// What a copy with this image holds.
    pub(crate) fn position(&self) -> Position {
        Position { at: self.position, checksum: self.image.checksum() }
    }
}

impl Primary {
    /// Goes on from `start`, with which this reign begins.
    pub(crate) fn new(path: PathBuf, start: EpochTxid) -> Self {
        Self {
            observer: Observer::new(path.clone()),
            path,
            position: start,
            unnumbered: start.txid > Txid(0),
            writable: false,
            shipped: Shipped::default(),
            fence: None,
        }
    }

    /// What was published last.
    pub(crate) fn position(&self) -> EpochTxid {
        self.position
    }

    /// Looks at the database, and gives a change the next number. Returns whether there is a database.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or no number be reserved; nothing seen is forgotten by that.
    pub(crate) fn look(&mut self, store: &mut Store, cell: &PositionCell) -> io::Result<bool> {
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
        self.unnumbered |= look.changed;
        if self.unnumbered {
            let txid = Txid(self.position.txid.0 + 1);
            store.reserve(txid)?;
            self.position.txid = txid;
            self.unnumbered = false;
        }
        cell.advance(self.position);
        Ok(look.exists)
    }

    /// Removes the mark that this copy has if it was a replica's. Writes nothing if it was not.
    fn make_writable(&mut self) -> io::Result<()> {
        let failed = |e| explain(&self.path, e);
        let Some(connection) = self.observer.connection() else { return Ok(()) };
        // Without `sqlite_dbpage` this node was no replica either.
        if apply::supported().is_ok() {
            let first = first_page(connection).map_err(failed)?;
            if first.is_some_and(|first| first[WRITE_VERSION] > first[READ_VERSION]) {
                let empty = Image::read(connection, &self.path, &Image::default())
                    .is_ok_and(|image| image.is_empty());
                let writing = apply::open(&self.path)?;
                if empty {
                    // The placeholder. The application finds it as if it had just been made, and
                    // sets the journal mode that it wants.
                    apply::set_plain(&writing).map_err(failed)?;
                    self.observer.close();
                } else {
                    apply::set_read_only(&writing, false).map_err(failed)?;
                }
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
    pub(crate) fn ship(&mut self, store: &mut Store) -> io::Result<Shipped> {
        if self.moved() {
            // Read after the look: what is committed in between is in the image and gets the next
            // number, so that an image never holds less than its position says.
            let image = match self.observer.connection() {
                Some(connection) => Image::read(connection, &self.path, &self.shipped.image)?,
                None => Image::default(),
            };
            let shipped = Shipped { image: Arc::new(image), position: self.position };
            store.shipping(shipped.position())?;
            self.shipped = shipped;
        }
        Ok(self.shipped.clone())
    }

    /// Whether replicas could be sent something new.
    pub(crate) fn moved(&self) -> bool {
        self.shipped.position != self.position
    }

    /// Keeps everybody from writing, once the writers are done, until [`Primary::lift_fence`]. Returns
    /// whether that is new.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while somebody writes: to be tried again.
    pub(crate) fn fence(&mut self, store: &mut Store, cell: &PositionCell) -> io::Result<bool> {
        if self.fence.is_some() {
            return Ok(false);
        }
        if !self.writable {
            // This removes the mark if it is there.
            self.look(store, cell)?;
        }
        let fence = Fence::raise(&self.path)?;
        // Sees the last that was committed.
        self.look(store, cell)?;
        self.fence = Some(fence);
        Ok(true)
    }

    /// Lets the application write again.
    pub(crate) fn lift_fence(&mut self) {
        self.fence = None;
    }

    /// Makes a fenced copy one that no application can write.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` while readers hold it up: to be tried again, it stays fenced.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        let Some(fence) = &self.fence else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not fenced"));
        };
        fence.close()
    }
}
