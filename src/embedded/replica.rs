//! The engine's thread on a replica: keeps a copy that only it can write.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::apply;
use super::checksum::{Checksum, Stamp, page_sum};
use super::image::{Image, Update, WRITE_VERSION};
use super::observe::{FileId, explain, file_at};
use super::placeholder;
use super::store::Store;
use crate::txid::Position;

/// Where copies go that are about to be overwritten and that no primary shipped.
const ARCHIVE: &str = "diverged";
/// So many of them are kept.
const ARCHIVED: usize = 3;

/// A replica's copy.
pub struct Replica {
    path: PathBuf,
    data_dir: PathBuf,
    open: Option<Open>,
    have: Stamp,
    sums: Vec<u64>,
    /// A primary shipped what we have, or has the same.
    shipped: bool,
}

struct Open {
    connection: Connection,
    file: FileId,
    /// Nothing was ever written to it: the placeholder, until the first copy comes.
    empty: bool,
}

impl Replica {
    /// The copy at `path`, which may not exist yet.
    pub fn new(path: PathBuf, data_dir: PathBuf) -> Self {
        let (open, have, sums) = (None, Stamp::default(), Vec::new());
        Self { path, data_dir, open, have, sums, shipped: true }
    }

    /// What the copy holds; nothing known is an empty one.
    pub fn have(&self) -> Stamp {
        self.have
    }

    /// Opens the copy if it is not open, keeps applications from writing it, and finds out what it
    /// is. Returns whether there is one; otherwise there is the placeholder afterwards.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or made, or somebody writes it.
    pub fn look(&mut self, store: &Store) -> io::Result<bool> {
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
        let mut empty = false;
        match Image::read(&connection, &self.path, &Image::default()) {
            Ok(image) if image.is_empty() => empty = true,
            Ok(image) => {
                let known = store.recognize(image.checksum());
                let unknown = Stamp { position: Position::default(), checksum: image.checksum() };
                self.shipped = known.is_some();
                self.have = known.unwrap_or(unknown);
                self.sums = image.into_sums();
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let (position, checksum) = (Position::default(), Checksum::UNKNOWN);
                self.shipped = false;
                self.have = Stamp { position, checksum };
                self.sums = Vec::new();
            }
            Err(error) => return Err(error),
        }
        self.open = Some(Open { connection, file, empty });
        Ok(!empty)
    }

    /// The primary is at `stamp`, and this copy equals its.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn level(&mut self, stamp: Stamp, store: &mut Store) -> io::Result<()> {
        self.look(store)?;
        self.follows(stamp)?;
        if stamp.checksum != self.have.checksum {
            return Err(mismatch("says that this copy equals its own, which it does not"));
        }
        if stamp.position.epoch != self.have.position.epoch && !self.sums.is_empty() {
            store.applying(self.have, stamp)?;
        }
        self.have = stamp;
        self.shipped = true;
        Ok(())
    }

    /// Applies what the primary sent.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` when readers hold it up: to be tried again. Others when it does not fit or
    /// cannot be written. Nothing is changed by any.
    pub fn apply(&mut self, update: &Update, store: &mut Store) -> io::Result<Stamp> {
        let exists = self.look(store)?;
        self.follows(update.stamp)?;
        let sums = self.sums_after(update)?;
        if exists {
            self.fits(update)?;
        }
        if update.base.is_none() && !self.shipped {
            self.archive()?;
        }
        store.applying(self.have, update.stamp)?;
        self.write(update)?;
        self.sums = sums;
        self.have = update.stamp;
        self.shipped = true;
        Ok(self.have)
    }

    /// A primary of an earlier epoch than ours is none any more.
    fn follows(&self, stamp: Stamp) -> io::Result<()> {
        if stamp.position.epoch < self.have.position.epoch {
            return Err(mismatch("reigns in an epoch that this copy has left behind"));
        }
        Ok(())
    }

    /// The sums of all pages after `update`, checked against what it promises.
    fn sums_after(&self, update: &Update) -> io::Result<Vec<u64>> {
        let mut sums = match update.base {
            Some(base) if base != self.have.checksum => {
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
        if Checksum::of(&sums) != update.stamp.checksum {
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

    /// In bytes.
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

    /// Saves the copy under `data_dir/diverged/`, the newest few of these.
    fn archive(&self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let dir = self.data_dir.join(ARCHIVE);
        fs::create_dir_all(&dir).map_err(|e| explain_io(&dir, e))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Names sort by time.
        let saved = dir.join(format!("{:013}.sqlite3", now.as_millis()));
        let failed = |e| explain(&saved, e);
        {
            let mut copy = Connection::open(&saved).map_err(failed)?;
            let backup = Backup::new(&open.connection, &mut copy).map_err(failed)?;
            if backup.step(-1).map_err(failed)? != StepResult::Done {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the database is locked"));
            }
        }
        // A plain database that anybody may write; nobody has it open.
        OpenOptions::new().write(true).open(&saved)?.write_all_at(&[1, 1], WRITE_VERSION as u64)?;
        tracing::warn!(
            saved = %saved.display(),
            "this node's database differs from the primary's and is replaced; it was saved"
        );
        prune(&dir)
    }
}

fn prune(dir: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "sqlite3") {
            names.push(path);
        }
    }
    names.sort();
    let old = names.len().saturating_sub(ARCHIVED);
    names.iter().take(old).try_for_each(fs::remove_file)
}

fn taken_away() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the database was taken away")
}

fn mismatch(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the primary {what}"))
}

fn explain_io(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
