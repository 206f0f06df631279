//! LTX, the files in which LiteFS passes on transactions: version 1, as `superfly/ltx` v0.3 writes it.
//!
//! A header of [`HEADER`] bytes; pages in ascending order, each behind its number, until the number 0; a
//! trailer. Between header and trailer all may be one LZ4 frame. One whose `min` is 1 holds every page: a
//! snapshot. Checksums are CRC-64/GO-ISO with the highest bit set, a database's the XOR of its pages'.

use std::fmt;
use std::io;

use crate::copy::state_file::CRC64;
use crate::txid::{Checksum, FLAG, Txid};

mod decoder;
mod encoder;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

pub(crate) const HEADER: usize = 100;
pub(crate) const TRAILER: usize = 16;
const MAGIC: &[u8; 4] = b"LTX1";
const LZ4: u32 = 1;
/// SQLite keeps its locks in this byte of the file; the page around it holds no data.
const LOCK_BYTE: u32 = 0x4000_0000;

/// What LiteFS' `ltx.Pos` is: a transaction, and the checksum of the database after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pos {
    pub(crate) txid: Txid,
    pub(crate) checksum: Checksum,
}

/// What a file says of itself at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) page_size: u32,
    /// Pages of the database after it; 0 if that was deleted.
    pub(crate) commit: u32,
    pub(crate) min: Txid,
    pub(crate) max: Txid,
    /// When the last transaction was made by its primary's clock, in milliseconds since 1970.
    pub(crate) millis: u64,
    /// Of the database before it; 0 for a snapshot.
    pub(crate) pre: u64,
    compressed: bool,
}

/// What was found in a file whose checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) header: Header,
    /// Of the database after it.
    pub(crate) post: Checksum,
}

impl Header {
    pub(crate) fn new(page_size: u32, commit: u32, range: (Txid, Txid), millis: u64) -> Self {
        let (min, max) = range;
        Self { page_size, commit, min, max, millis, pre: 0, compressed: true }
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        self.min == Txid(1)
    }

    /// What it goes on from; `None`: from nothing.
    pub(crate) fn before(&self) -> Option<Pos> {
        let txid = Txid(self.min.0.checked_sub(1).filter(|txid| *txid > 0)?);
        Some(Pos { txid, checksum: Checksum(self.pre) })
    }

    pub(crate) fn lock_page(&self) -> u32 {
        LOCK_BYTE / self.page_size.max(1) + 1
    }

    /// # Errors
    ///
    /// When it is none, or none that LiteFS writes.
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> io::Result<Self> {
        let number = |at: usize| u32::from_be_bytes(field(bytes, at));
        let long = |at: usize| u64::from_be_bytes(field(bytes, at));
        if &bytes[..4] != MAGIC {
            return Err(bad("no LTX file"));
        }
        let flags = number(4);
        let header = Self {
            compressed: flags & LZ4 != 0,
            page_size: number(8),
            commit: number(12),
            min: Txid(long(16)),
            max: Txid(long(24)),
            millis: long(32),
            pre: long(40),
        };
        let sizes = 512..=65536;
        let right = flags & !LZ4 == 0
            && header.page_size.is_power_of_two()
            && sizes.contains(&header.page_size)
            && header.min.0 > 0
            && header.min <= header.max
            && header.is_snapshot() == (header.pre == 0)
            && (header.pre == 0 || header.pre & FLAG != 0);
        if right { Ok(header) } else { Err(bad("its header makes no sense")) }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let flags = if self.compressed { LZ4 } else { 0 };
        bytes[..4].copy_from_slice(MAGIC);
        for (at, number) in [(4, flags), (8, self.page_size), (12, self.commit)] {
            bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        for (at, number) in [(16, self.min.0), (24, self.max.0), (32, self.millis), (40, self.pre)]
        {
            bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }
}

impl Facts {
    /// Where a database is that has got it.
    pub(crate) fn after(&self) -> Pos {
        Pos { txid: self.header.max, checksum: self.post }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.txid, self.checksum.0)
    }
}

/// The checksum of one page, to be combined with the others' by XOR.
pub(crate) fn page_checksum(number: u32, data: &[u8]) -> u64 {
    let mut digest = CRC64.digest();
    digest.update(&number.to_be_bytes());
    digest.update(data);
    digest.finalize() | FLAG
}

/// With a page more, or less.
pub(crate) fn combine(database: u64, page: u64) -> u64 {
    (database ^ page) | FLAG
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
pub(crate) mod tests;
