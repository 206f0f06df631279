//! The engine's thread on a replica: keeps a copy that only it can write.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::apply;
use super::archive;
use super::checksum::{Checksum, Position, page_sum};
use super::image::{Image, Update};
use super::observe::{FileId, explain, file_at};
use super::placeholder;
use super::store::{Found, Store};
use super::tenure::Tenure;

pub(crate) struct Replica {
    path: PathBuf,
    data_dir: PathBuf,
    open: Option<Open>,
    have: Found,
    sums: Vec<u64>,
    /// Where the last copy was saved that was replaced by another history.
    saved: Option<PathBuf>,
}

struct Open {
    connection: Connection,
    file: FileId,
    /// Nothing was ever written to it: the placeholder, until the first copy comes.
    empty: bool,
}

impl Replica {
    /// The copy at `path`, which may not exist yet.
    pub(crate) fn new(path: PathBuf, data_dir: PathBuf) -> Self {
        let have = Found { position: Position::default(), certain: true };
        Self { path, data_dir, open: None, have, sums: Vec::new(), saved: None }
    }

    /// What the copy holds; nothing known is an empty one.
    pub(crate) fn have(&self) -> Position {
        self.have.position
    }

    /// Where the last copy was saved that was replaced by another history.
    pub(crate) fn saved(&self) -> Option<&Path> {
        self.saved.as_deref()
    }

    /// Opens the copy if it is not open, keeps applications from writing it, and finds out what it
    /// is. Returns whether there is one; otherwise there is the placeholder afterwards.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or made, or somebody writes it.
    pub(crate) fn look(&mut self, store: &mut Store) -> io::Result<bool> {
        let file = file_at(&self.path)?;
        if let Some(open) = self.open.as_ref().filter(|open| Some(open.file) == file) {
            return Ok(!open.empty);
        }
        if self.open.is_some() {
            // What we know is about another file.
            *self = Self::new(self.path.clone(), self.data_dir.clone());
        }
        placeholder::put(&self.path)?;
        let Some(file) = file_at(&self.path)? else { return Ok(false) };
        let connection = apply::open(&self.path)?;
        let failed = |e| explain(&self.path, e);
        apply::set_read_only(&connection, true).map_err(failed)?;
        let image = match Image::read(&connection, &self.path, &Image::default()) {
            Ok(image) => Some(image),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            Err(error) => return Err(error),
        };
        let empty = image.as_ref().is_some_and(Image::is_empty);
        if !empty {
            let checksum = image.as_ref().map_or(Checksum::UNKNOWN, Image::checksum);
            self.have = store.identify(checksum)?;
            self.sums = image.map(Image::into_sums).unwrap_or_default();
        }
        self.open = Some(Open { connection, file, empty });
        Ok(!empty)
    }

    /// The primary of `reign` is at `position`, and this copy equals its.
    pub(crate) fn level(
        &mut self,
        position: Position,
        reign: &Tenure,
        store: &mut Store,
    ) -> io::Result<()> {
        self.look(store)?;
        follows(position, reign)?;
        if position.checksum != self.have.position.checksum {
            return Err(mismatch("says that this copy equals its own, which it does not"));
        }
        let now = Found { position, certain: true };
        // Nothing to remember of a copy that holds nothing.
        if self.have != now && !self.sums.is_empty() {
            store.applying(self.have, position, reign)?;
        }
        self.have = now;
        Ok(())
    }

    /// Applies what the primary of `reign` sent. A copy of which that history lacks something is saved
    /// before.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` when readers hold it up: to be tried again. Others when it does not fit or
    /// cannot be written. Nothing is changed by any.
    pub(crate) fn apply(
        &mut self,
        update: &Update,
        reign: &Tenure,
        store: &mut Store,
    ) -> io::Result<Position> {
        let exists = self.look(store)?;
        follows(update.position, reign)?;
        let sums = self.sums_after(update)?;
        if exists {
            self.fits(update)?;
            if update.base.is_none() {
                self.save_what_is_lost(reign, store)?;
            }
        }
        store.applying(self.have, update.position, reign)?;
        self.write(update)?;
        self.sums = sums;
        self.have = Found { position: update.position, certain: true };
        Ok(update.position)
    }

    fn save_what_is_lost(&mut self, reign: &Tenure, store: &Store) -> io::Result<()> {
        // Two nodes that reigned in the same epoch are of two clusters.
        let certain = self.have.certain && !store.reigned_in(reign.epoch());
        if !reign.lacks(self.have.position, certain) {
            return Ok(());
        }
        let open = self.open.as_ref().ok_or_else(taken_away)?;
        let saved = archive::save(&open.connection, self.have.position, &self.data_dir)?;
        if self.saved.as_ref() != Some(&saved) {
            tracing::warn!(
                saved = %saved.display(),
                held = %self.have.position.at,
                epoch = %reign.epoch(),
                "this node's database has what the primary's lacks, and is replaced; it was saved"
            );
            self.saved = Some(saved);
        }
        Ok(())
    }

    /// The sums of all pages after `update`, checked against what it promises.
    fn sums_after(&self, update: &Update) -> io::Result<Vec<u64>> {
        let mut sums = match update.base {
            Some(base) if base != self.have.position.checksum => {
                return Err(mismatch("sent changes of another state than this copy is in"));
            }
            Some(_) => self.sums.clone(),
            None => Vec::new(),
        };
        sums.resize(update.count as usize, 0);
        for (number, page) in &update.pages {
            match sums.get_mut((*number as usize).wrapping_sub(1)) {
                Some(sum) => *sum = page_sum(*number, page),
                None => return Err(mismatch("sent a page beyond the end of the database")),
            }
        }
        if Checksum::of(&sums) != update.position.checksum {
            return Err(mismatch("sent pages that do not add up to its checksum"));
        }
        Ok(sums)
    }

    /// SQLite cannot change the size of pages under readers.
    fn fits(&self, update: &Update) -> io::Result<()> {
        let size = self.page_size()?;
        if size == update.page_size {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{}: its pages have {size} bytes, the primary's {}: stop this node and its \
                 application, move the database (with its -wal and -shm) away, and start again",
                self.path.display(),
                update.page_size
            ),
        ))
    }

    fn page_size(&self) -> io::Result<u32> {
        let connection = &self.open.as_ref().ok_or_else(taken_away)?.connection;
        connection
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(|e| explain(&self.path, e))
    }

    fn write(&mut self, update: &Update) -> io::Result<()> {
        let fits = self.page_size()? == update.page_size;
        let mut open = self.open.take().ok_or_else(taken_away)?;
        let failed = |e| explain(&self.path, e);
        if fits {
            let applied = apply::apply(&open.connection, update);
            open.empty &= applied.is_err();
            self.open = Some(open);
            return applied.map_err(failed);
        }
        // Who closes it last ends WAL mode.
        drop(open);
        apply::replace(&apply::open(&self.path)?, update).map_err(failed).map_err(|error| {
            let (kind, size) = (error.kind(), update.page_size);
            let remedy = match kind {
                io::ErrorKind::ResourceBusy => ", the application has to close it once: restart it",
                _ => "",
            };
            io::Error::new(kind, format!("{error}; the primary's pages have {size} bytes{remedy}"))
        })?;
        let connection = apply::open(&self.path)?;
        let file = file_at(&self.path)?.ok_or_else(taken_away)?;
        self.open = Some(Open { connection, file, empty: false });
        Ok(())
    }
}

fn taken_away() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the database was taken away")
}

/// What a primary ships is of its own reign.
fn follows(position: Position, reign: &Tenure) -> io::Result<()> {
    match position.at.epoch == reign.epoch() {
        true => Ok(()),
        false => Err(mismatch("sent what is not of its reign")),
    }
}

fn mismatch(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the primary {what}"))
}
