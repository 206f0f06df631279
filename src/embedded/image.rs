//! A consistent copy of the whole database in memory, and what differs between two of them.
//!
//! Pages are shared between images that have them in common, so that keeping the image that a slow
//! replica was last sent costs only what has changed since.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::checksum::{Checksum, Position, page_sum};
use super::observe::explain;
use crate::txid::EpochTxid;

/// Larger databases are not shipped, in bytes.
pub(crate) const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// In SQLite's header: who may write (1: rollback journal, 2: WAL, more: nobody).
pub(crate) const WRITE_VERSION: usize = 18;
/// In SQLite's header: how to read (1: rollback journal, 2: WAL).
pub(crate) const READ_VERSION: usize = 19;

/// A page's number, from 1, and its bytes.
pub(crate) type Page = (u32, Arc<[u8]>);

/// The database at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// In bytes; 0 if there is no database.
    pub(crate) page_size: u32,
    pages: Vec<Arc<[u8]>>,
    sums: Vec<u64>,
}

/// What turns one image into another.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// Of the image that it applies to; `None` if it contains every page.
    pub(crate) base: Option<Checksum>,
    /// What a copy is afterwards.
    pub(crate) position: Position,
    pub(crate) page_size: u32,
    /// How many pages the database has afterwards.
    pub(crate) count: u32,
    /// The pages that differ, in order.
    pub(crate) pages: Vec<Page>,
}

impl Image {
    /// Reads the database behind `connection`, at `path`. Pages equal to those of `previous` are
    /// shared with it.
    ///
    /// # Errors
    ///
    /// `FileTooLarge` beyond [`MAX_SIZE`]; others if it cannot be read.
    pub(crate) fn read(connection: &Connection, path: &Path, previous: &Self) -> io::Result<Self> {
        let failed = |e| explain(path, e);
        let snapshot = connection.unchecked_transaction().map_err(failed)?;
        let number = |pragma| snapshot.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
        let page_size = number("page_size").map_err(failed)?;
        let count = number("page_count").map_err(failed)?;
        if count == 0 {
            return Ok(Self::default());
        }
        let first = first_page(&snapshot).map_err(failed)?;
        if count == 1 && first.as_deref().is_some_and(is_untouched) {
            return Ok(Self::default());
        }
        let size = u64::from(page_size) * u64::from(count);
        if size > MAX_SIZE {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "{} has {} MiB: `engine: embedded` replicates at most {} MiB, use `engine: litefs`",
                    path.display(),
                    size.div_ceil(1024 * 1024),
                    MAX_SIZE / (1024 * 1024)
                ),
            ));
        }
        let mut image = Self { page_size, ..Self::default() };
        image.take(&snapshot, previous).map_err(failed)?;
        if let Some(mut first) = first {
            neutralize(&mut first, count);
            image.set_first(&first, previous);
        }
        Ok(image)
    }

    fn take(&mut self, snapshot: &Connection, previous: &Self) -> rusqlite::Result<()> {
        let mut pages = snapshot.prepare_cached("SELECT pgno, data FROM sqlite_dbpage")?;
        let mut rows = pages.query(())?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            let page = row.get_ref(1)?.as_blob()?;
            let at = self.pages.len();
            let (page, sum) = previous.same(at, page).unwrap_or_else(|| shared(number, page));
            self.pages.push(page);
            self.sums.push(sum);
        }
        Ok(())
    }

    fn set_first(&mut self, first: &[u8], previous: &Self) {
        let (page, sum) = previous.same(0, first).unwrap_or_else(|| shared(1, first));
        if let (Some(old), Some(old_sum)) = (self.pages.first_mut(), self.sums.first_mut()) {
            (*old, *old_sum) = (page, sum);
        }
    }

    /// Our page at this index with its sum, if it has these bytes.
    fn same(&self, at: usize, bytes: &[u8]) -> Option<(Arc<[u8]>, u64)> {
        let page = self.pages.get(at).filter(|page| ***page == *bytes)?;
        Some((page.clone(), *self.sums.get(at)?))
    }

    /// Nothing was ever written: there is no database, or one that nobody has used yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn checksum(&self) -> Checksum {
        Checksum::of(&self.sums)
    }

    pub(crate) fn into_sums(self) -> Vec<u64> {
        self.sums
    }

    /// What turns `base` (if given, and of the same page size) into this image.
    pub(crate) fn update(&self, base: Option<&Self>, position: EpochTxid) -> Update {
        let base = base.filter(|b| b.page_size == self.page_size);
        let changed = self.pages.iter().enumerate().filter(|(at, page)| {
            let old = base.and_then(|b| b.pages.get(*at));
            !old.is_some_and(|old| Arc::ptr_eq(old, page) || old == *page)
        });
        Update {
            base: base.map(Self::checksum),
            position: Position { at: position, checksum: self.checksum() },
            page_size: self.page_size,
            count: number(self.pages.len()),
            pages: changed.map(|(at, page)| (number(at + 1), page.clone())).collect(),
        }
    }
}

fn shared(number: u32, page: &[u8]) -> (Arc<[u8]>, u64) {
    (page.into(), page_sum(number, page))
}

/// Page counts fit: [`MAX_SIZE`] bounds them.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The page that begins with SQLite's header, `None` in an empty database.
pub(crate) fn first_page(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .query_row("SELECT data FROM sqlite_dbpage WHERE pgno = 1", (), |row| row.get(0))
        .optional()
}

/// Whether nothing was ever written to a database of which this is the only page: it never had a
/// table, and neither `user_version` nor `application_id` was set. It is as good as no database.
fn is_untouched(first: &[u8]) -> bool {
    let zero = |field: std::ops::Range<usize>| {
        first.get(field).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    };
    // The schema's number of changes.
    zero(40..44) && zero(60..64) && zero(68..72)
}

/// Sets those fields of the header that differ between copies of the same data to fixed values:
/// who may write, the count of changes, who wrote last. See SQLite's "Database File Format", 1.3.
fn neutralize(first: &mut [u8], count: u32) {
    if first.len() < 100 {
        return;
    }
    first[WRITE_VERSION] = first[READ_VERSION];
    first[24..28].fill(0);
    first[28..32].copy_from_slice(&count.to_be_bytes());
    first[92..100].fill(0);
}
