//! A consistent copy of the whole database in memory, and what differs between two of them.
//!
//! Images share the pages that they have in common, so that keeping the one that a slow replica was
//! last sent costs only what has changed since.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::observe::explain;
use crate::copy::state_file::CRC64;
use crate::txid::{Checksum, EpochTxid, Position};

const MIB: u64 = 1024 * 1024;
/// Larger databases are not shipped, in bytes.
pub(crate) const MAX_SIZE: u64 = 64 * MIB;
/// In SQLite's header: who may write (1: rollback journal, 2: WAL, more: nobody).
pub(crate) const WRITE_VERSION: usize = 18;
/// In SQLite's header: how to read (1: rollback journal, 2: WAL).
pub(crate) const READ_VERSION: usize = 19;

/// The database at one moment; without pages if nothing was ever written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    page_size: u32,
    pages: Vec<Page>,
    /// It holds at least this.
    pub(crate) at: EpochTxid,
}

#[derive(Clone, Debug)]
struct Page {
    bytes: Arc<[u8]>,
    sum: u64,
}

/// What turns one image into another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Update {
    /// Of the image that it applies to; `None` if it contains every page.
    pub(crate) base: Option<Checksum>,
    /// What a copy holds afterwards.
    pub(crate) position: Position,
    pub(crate) page_size: u32,
    /// Pages of the database afterwards.
    pub(crate) count: u32,
    pub(crate) changed: u32,
    /// The pages that differ, with their numbers (from 1), in order.
    #[serde(skip)]
    pub(crate) pages: Vec<(u32, Arc<[u8]>)>,
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
        let number = |pragma| {
            snapshot.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0)).map_err(failed)
        };
        let (page_size, count) = (number("page_size")?, number("page_count")?);
        let first = first_page(&snapshot).map_err(failed)?;
        let untouched = count == 1 && first.as_deref().is_some_and(is_untouched);
        let mut image = Self { page_size, ..Self::default() };
        if count == 0 || untouched {
            return Ok(image);
        }
        let size = u64::from(page_size) * u64::from(count);
        if size > MAX_SIZE {
            let what = format!(
                "{} has {} MiB: `engine: embedded` replicates at most {} MiB, use `engine: litefs`",
                path.display(),
                size.div_ceil(MIB),
                MAX_SIZE / MIB
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        image.take(&snapshot, count, previous).map_err(failed)?;
        Ok(image)
    }

    fn take(&mut self, snapshot: &Connection, count: u32, previous: &Self) -> rusqlite::Result<()> {
        let mut statement = snapshot.prepare_cached("SELECT pgno, data FROM sqlite_dbpage")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            let bytes = row.get_ref(1)?.as_blob()?;
            let first = (number == 1).then(|| neutral(bytes, count));
            let bytes = first.as_deref().unwrap_or(bytes);
            let known = previous.pages.get(self.pages.len()).filter(|page| *page.bytes == *bytes);
            let new = || Page { bytes: bytes.into(), sum: page_sum(number, bytes) };
            self.pages.push(known.cloned().unwrap_or_else(new));
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn sums(&self) -> Vec<u64> {
        self.pages.iter().map(|page| page.sum).collect()
    }

    /// What a copy with this image holds.
    pub(crate) fn position(&self) -> Position {
        Position { at: self.at, checksum: Checksum::of(&self.sums()) }
    }

    /// What turns `base` into this image, or nothing.
    pub(crate) fn update(&self, base: Option<&Self>) -> Update {
        let base = base.filter(|base| base.page_size == self.page_size);
        let same = |at: usize, page: &Page| {
            let old = base.and_then(|base| base.pages.get(at));
            old.is_some_and(|old| old.bytes == page.bytes)
        };
        let pages: Vec<_> = (1..)
            .zip(&self.pages)
            .enumerate()
            .filter(|(at, (_, page))| !same(*at, page))
            .map(|(_, (number, page))| (number, page.bytes.clone()))
            .collect();
        // Page counts fit: `MAX_SIZE` bounds them.
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Update {
            base: base.map(|base| base.position().checksum),
            position: self.position(),
            page_size: self.page_size,
            count: number(self.pages.len()),
            changed: number(pages.len()),
            pages,
        }
    }
}

/// The sum of a page; pages are numbered from 1. CRCs are linear, so that two pages that change places
/// would leave their combination as it was: hence MurmurHash3's finalizer, a permutation that is not.
pub(crate) fn page_sum(number: u32, page: &[u8]) -> u64 {
    let mut digest = CRC64.digest();
    digest.update(&number.to_be_bytes());
    digest.update(page);
    let mut sum = digest.finalize();
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        sum = (sum ^ sum >> 33).wrapping_mul(factor);
    }
    sum ^ sum >> 33
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
    // The first is the schema's number of changes.
    [40..44, 60..64, 68..72].into_iter().all(|field| first.get(field) == Some(&[0; 4]))
}

/// Sets those fields of the header that differ between copies of the same data to fixed values:
/// who may write, the count of changes, who wrote last. See SQLite's "Database File Format", 1.3.
fn neutral(first: &[u8], count: u32) -> Vec<u8> {
    let mut first = first.to_vec();
    if first.len() >= 100 {
        first[WRITE_VERSION] = first[READ_VERSION];
        first[24..28].fill(0);
        first[28..32].copy_from_slice(&count.to_be_bytes());
        first[92..100].fill(0);
    }
    first
}
