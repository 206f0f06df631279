//! The engine's thread on the primary: numbers the application's commits and makes the images that
//! replicas are sent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::apply;
use super::checksum::Stamp;
use super::image::{Image, READ_VERSION, WRITE_VERSION, first_page};
use super::observe::{Observer, explain};
use super::placeholder;
use super::store::Store;
use crate::cluster::Epoch;
use crate::position::PositionCell;
use crate::txid::{Position, Txid};

/// The primary's copy.
pub struct Primary {
    path: PathBuf,
    observer: Observer,
    /// What this copy held when the reign began.
    start: Position,
    position: Position,
    /// A change was seen that has no number yet, because reserving one failed.
    unnumbered: bool,
    /// Nothing keeps the application from writing any more.
    writable: bool,
    shipped: Shipped,
}

/// The database at a position, made once for all replicas.
#[derive(Clone, Default)]
pub struct Shipped {
    /// All pages.
    pub image: Arc<Image>,
    /// The image holds at least this.
    pub position: Position,
}

impl Shipped {
    /// What a copy with this image holds.
    pub fn stamp(&self) -> Stamp {
        Stamp { position: self.position, checksum: self.image.checksum() }
    }
}

impl Primary {
    /// Reigns in `epoch`. `held` is the position of a copy that has followed until now; without it
    /// the numbers begin beyond all that this node ever gave out or applied.
    ///
    /// # Errors
    ///
    /// When the data is of a later epoch.
    pub fn new(
        path: PathBuf,
        epoch: Epoch,
        held: Option<Position>,
        store: &Store,
    ) -> io::Result<Self> {
        let newest = store.newest();
        if epoch < newest.epoch {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "this node's data is of epoch {}, it cannot reign in {epoch}",
                    newest.epoch
                ),
            ));
        }
        // In a new epoch every number is new. In the same one, what was given out last is unknown.
        let held = held.filter(|_| epoch > newest.epoch);
        let start = Position { epoch, txid: held.map_or(newest.txid, |held| held.txid) };
        Ok(Self {
            observer: Observer::new(path.clone()),
            path,
            start,
            position: start,
            unnumbered: start.txid > Txid(0),
            writable: false,
            shipped: Shipped::default(),
        })
    }

    /// What this copy held when the reign began: transactions beyond it, of earlier epochs, are
    /// lost.
    pub fn start(&self) -> Position {
        self.start
    }

    /// What was published last.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Looks at the database, and gives a change the next number. Returns whether there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or no number be reserved; nothing seen is forgotten by that.
    pub fn look(&mut self, store: &mut Store, cell: &PositionCell) -> io::Result<bool> {
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
            store.reserve(self.position.epoch, txid)?;
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

    /// The database now, at the position now.
    ///
    /// # Errors
    ///
    /// As [`Primary::look`] and [`Image::read`].
    pub fn ship(&mut self, store: &mut Store, cell: &PositionCell) -> io::Result<Shipped> {
        let exists = self.look(store, cell)?;
        if self.shipped.position != self.position {
            // Read after the look: what is committed in between is in the image and gets the next
            // number, so that an image never holds less than its position says.
            let image = match self.observer.connection().filter(|_| exists) {
                Some(connection) => Image::read(connection, &self.path, &self.shipped.image)?,
                None => Image::default(),
            };
            self.shipped = Shipped { image: Arc::new(image), position: self.position };
        }
        Ok(self.shipped.clone())
    }

    /// Whether replicas could be sent something new.
    pub fn moved(&self) -> bool {
        self.shipped.position != self.position
    }

    /// Keeps the application from writing, once its writers are done.
    ///
    /// # Errors
    ///
    /// When they were not in time; then nothing has changed.
    pub fn fence(&mut self) -> io::Result<()> {
        let look = self.observer.look()?;
        // This look must not hide a change from the one that numbers it.
        self.unnumbered |= look.changed;
        if !look.exists {
            placeholder::put(&self.path)?;
        }
        let failed = |e| explain(&self.path, e);
        apply::set_read_only(&apply::open(&self.path)?, true).map_err(failed).map(drop)
    }

    /// Lets the application write again, from the next look on.
    pub fn lift_fence(&mut self) {
        self.writable = false;
    }
}
