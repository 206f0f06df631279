//! A replica's copy: only we can write it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::image::{Image, Update, WRITE_VERSION, page_sum};
use super::lineage::Lineage;
use super::observe::{FileId, explain, file_at};
use super::store::{Found, Store};
use super::wire::bad;
use super::{Options, apply, placeholder};
use crate::copy::diverged::{self, Place};
use crate::txid::{Checksum, Position};

pub(crate) struct Replica {
    path: PathBuf,
    data_dir: PathBuf,
    open: Option<Open>,
    /// An empty copy as long as nothing is known.
    have: Found,
    sums: Vec<u64>,
}

struct Open {
    connection: Connection,
    file: FileId,
    /// Nothing was ever written to it: the placeholder, until the first copy comes.
    empty: bool,
}

const NOTHING: fn() -> Found = || Found { position: Position::default(), certain: true };

impl Replica {
    pub(crate) fn new(options: &Options) -> Self {
        let (path, data_dir) = (options.database(), options.data_dir.clone());
        Self { path, data_dir, open: None, have: NOTHING(), sums: Vec::new() }
    }

    pub(crate) fn have(&self) -> Position {
        self.have.position
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
        if self.open.take().is_some() {
            // What we know is about another file.
            (self.have, self.sums) = (NOTHING(), Vec::new());
        }
        placeholder::put(&self.path)?;
        let Some(file) = file_at(&self.path)? else { return Ok(false) };
        let connection = apply::open(&self.path)?;
        apply::set_read_only(&connection, true).map_err(|e| explain(&self.path, e))?;
        let image = match Image::read(&connection, &self.path, &Image::default()) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            image => Some(image?),
        };
        let empty = image.as_ref().is_some_and(Image::is_empty);
        if !empty {
            let checksum = image.as_ref().map_or(Checksum::UNKNOWN, |i| i.position().checksum);
            self.have = store.identify(checksum)?;
            self.sums = image.map(|image| image.sums()).unwrap_or_default();
        }
        self.open = Some(Open { connection, file, empty });
        Ok(!empty)
    }

    /// The primary is at `position`, and this copy equals its.
    pub(crate) fn level(
        &mut self,
        position: Position,
        lineage: &Lineage,
        store: &mut Store,
    ) -> io::Result<()> {
        self.look(store)?;
        is_of(lineage, position)?;
        if position.checksum != self.have.position.checksum {
            return Err(bad("that this copy equals its own, which it does not"));
        }
        let now = Found { position, certain: true };
        // Nothing to remember of a copy that holds nothing.
        if self.have != now && !self.sums.is_empty() {
            store.applying(self.have, position, lineage)?;
        }
        self.have = now;
        Ok(())
    }

    /// Applies what the primary sent. A copy of which its history lacks something is saved before.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` when readers hold it up: to be tried again. Others when it does not fit or
    /// cannot be written. Nothing is changed by any.
    pub(crate) fn apply(
        &mut self,
        update: &Update,
        lineage: &Lineage,
        store: &mut Store,
    ) -> io::Result<Position> {
        let exists = self.look(store)?;
        is_of(lineage, update.position)?;
        let sums = self.sums_after(update)?;
        if exists {
            self.has_page_size(update.page_size)?;
            if update.base.is_none() {
                self.save_what_is_lost(lineage, store)?;
            }
        }
        store.applying(self.have, update.position, lineage)?;
        self.write(update)?;
        self.sums = sums;
        self.have = Found { position: update.position, certain: true };
        Ok(update.position)
    }

    fn save_what_is_lost(&self, lineage: &Lineage, store: &Store) -> io::Result<()> {
        let have = self.have.position;
        // Two nodes that were primary in the same epoch are of two clusters.
        let certain = self.have.certain && !store.led(lineage.epoch());
        if !lineage.lacks(have, certain) {
            return Ok(());
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        if let Place::New(place) = diverged::place(&self.data_dir, &name, have)? {
            save(&self.opened()?.connection, &place.partial)?;
            let saved = place.keep()?;
            tracing::warn!(
                saved = %saved.display(),
                held = %have.at,
                epoch = %lineage.epoch(),
                "this node's database has what the primary's lacks, and is replaced; it was saved"
            );
        }
        Ok(())
    }

    /// The sums of all pages after `update`, checked against what it promises.
    fn sums_after(&self, update: &Update) -> io::Result<Vec<u64>> {
        let mut sums = match update.base {
            Some(base) if base != self.have.position.checksum => {
                return Err(bad("changes of another state than this copy is in"));
            }
            Some(_) => self.sums.clone(),
            None => Vec::new(),
        };
        sums.resize(update.count as usize, 0);
        for (number, page) in &update.pages {
            let sum = sums.get_mut((*number as usize).wrapping_sub(1));
            *sum.ok_or_else(|| bad("a page beyond the end of the database"))? =
                page_sum(*number, page);
        }
        match Checksum::of(&sums) == update.position.checksum {
            true => Ok(sums),
            false => Err(bad("pages that do not add up to its checksum")),
        }
    }

    /// SQLite cannot change the size of pages under readers.
    fn has_page_size(&self, wanted: u32) -> io::Result<()> {
        let size = self.page_size()?;
        if size == wanted {
            return Ok(());
        }
        let what = format!(
            "{}: its pages have {size} bytes, the primary's {wanted}: stop this node and its \
             application, move the database (with its -wal and -shm) away, and start again",
            self.path.display(),
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }

    fn opened(&self) -> io::Result<&Open> {
        self.open.as_ref().ok_or_else(taken_away)
    }

    fn page_size(&self) -> io::Result<u32> {
        let connection = &self.opened()?.connection;
        let size = connection.pragma_query_value(None, "page_size", |row| row.get(0));
        size.map_err(|e| explain(&self.path, e))
    }

    fn write(&mut self, update: &Update) -> io::Result<()> {
        let fits = self.page_size()? == update.page_size;
        let mut open = self.open.take().ok_or_else(taken_away)?;
        if fits {
            let applied = apply::apply(&open.connection, update);
            open.empty &= applied.is_err();
            self.open = Some(open);
            return applied.map_err(|e| explain(&self.path, e));
        }
        // Who closes it last ends WAL mode.
        drop(open);
        apply::replace(&apply::open(&self.path)?, update).map_err(|error| {
            let (error, size) = (explain(&self.path, error), update.page_size);
            let remedy = match error.kind() {
                io::ErrorKind::ResourceBusy => ", the application has to close it once: restart it",
                _ => "",
            };
            let what = format!("{error}; the primary's pages have {size} bytes{remedy}");
            io::Error::new(error.kind(), what)
        })?;
        let connection = apply::open(&self.path)?;
        let file = file_at(&self.path)?.ok_or_else(taken_away)?;
        self.open = Some(Open { connection, file, empty: false });
        Ok(())
    }
}

/// Copies the database, as a plain one that anybody may write. It is on the disk when this returns.
fn save(connection: &Connection, to: &Path) -> io::Result<()> {
    let failed = |e| explain(to, e);
    let mut copy = Connection::open(to).map_err(failed)?;
    let backup = Backup::new(connection, &mut copy).map_err(failed)?;
    if backup.step(-1).map_err(failed)? != StepResult::Done {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the database is locked"));
    }
    drop(backup);
    drop(copy);
    let file = OpenOptions::new().write(true).open(to)?;
    file.write_all_at(&[1, 1], WRITE_VERSION as u64)?;
    file.sync_all()
}

fn taken_away() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the database was taken away")
}

/// What a primary ships is of its own epoch.
fn is_of(lineage: &Lineage, position: Position) -> io::Result<()> {
    match position.at.epoch == lineage.epoch() {
        true => Ok(()),
        false => Err(bad("what is not of its epoch")),
    }
}
