//! Reading LTX, with all that is checked. Bounded: a page, and LZ4's window.

use std::io::{self, Read};

use crc::{Digest, Table};
use lz4_flex::frame::FrameDecoder;

use super::{Facts, HEADER, Header, TRAILER, bad, combine, field, page_checksum};
use crate::copy::state_file::CRC64;
use crate::txid::{Checksum, FLAG};

/// Reads one file. Nothing that it gave counts before [`Decoder::finish`] has said that all was right.
pub(crate) struct Decoder<R: Read> {
    header: Header,
    body: Body<R>,
    digest: Digest<'static, u64, Table<16>>,
    /// The last page's number.
    last: u32,
    /// Of the pages so far.
    database: u64,
    ended: bool,
}

enum Body<R: Read> {
    Plain(R),
    Lz4(Box<FrameDecoder<R>>),
}

impl<R: Read> Decoder<R> {
    /// # Errors
    ///
    /// When it does not begin as one.
    pub(crate) fn new(mut from: R) -> io::Result<Self> {
        let mut bytes = [0; HEADER];
        from.read_exact(&mut bytes)?;
        let header = Header::parse(&bytes)?;
        let mut digest = CRC64.digest();
        digest.update(&bytes);
        let body = match header.compressed {
            true => Body::Lz4(Box::new(FrameDecoder::new(from))),
            false => Body::Plain(from),
        };
        Ok(Self { header, body, digest, last: 0, database: FLAG, ended: false })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next page, of the header's size, and its number; `None` after the last.
    ///
    /// # Errors
    ///
    /// When the file is cut off, or no such page can follow.
    pub(crate) fn page(&mut self, data: &mut [u8]) -> io::Result<Option<u32>> {
        if self.ended {
            return Ok(None);
        }
        let mut number = [0; 4];
        self.read(&mut number)?;
        self.digest.update(&number);
        let number = u32::from_be_bytes(number);
        if number == 0 {
            self.end()?;
            return Ok(None);
        }
        self.may_follow(number)?;
        self.read(data)?;
        self.digest.update(data);
        self.last = number;
        self.database = combine(self.database, page_checksum(number, data));
        Ok(Some(number))
    }

    fn may_follow(&self, number: u32) -> io::Result<()> {
        let header = &self.header;
        let at_lock = self.last.saturating_add(1) == header.lock_page();
        let next = self.last.saturating_add(if at_lock { 2 } else { 1 });
        let fits = match header.is_snapshot() {
            true => number == next,
            false => number > self.last && number != header.lock_page(),
        };
        match fits && number <= header.commit {
            true => Ok(()),
            false => Err(bad(format!("page {number} stands where it cannot be"))),
        }
    }

    /// Whatever LZ4 has after the last page.
    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        let Body::Lz4(frame) = &mut self.body else { return Ok(()) };
        match frame.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(bad("more after its last page")),
        }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<()> {
        match &mut self.body {
            Body::Plain(from) => from.read_exact(to),
            Body::Lz4(from) => from.read_exact(to),
        }
    }

    /// To be called after the last page.
    ///
    /// # Errors
    ///
    /// When a checksum is wrong, pages of a snapshot are missing, or there is more than one file.
    pub(crate) fn finish(mut self) -> io::Result<Facts> {
        if !self.ended {
            return Err(bad("not read to its end"));
        }
        let mut trailer = [0; TRAILER];
        let from = match &mut self.body {
            Body::Plain(from) => from,
            Body::Lz4(frame) => frame.get_mut(),
        };
        from.read_exact(&mut trailer)?;
        if from.read(&mut [0])? > 0 {
            return Err(bad("more after its end"));
        }
        let (post, file) = (field::<8>(&trailer, 0), field::<8>(&trailer, 8));
        self.digest.update(&post);
        let (post, file) = (u64::from_be_bytes(post), u64::from_be_bytes(file));
        if self.digest.finalize() | FLAG != file {
            return Err(bad("its checksum is wrong"));
        }
        if self.header.is_snapshot() && self.database != post {
            return Err(bad("its pages do not have the database's checksum"));
        }
        Ok(Facts { header: self.header, post: Checksum(post) })
    }

    /// Reads it all, for nothing but what is said of it.
    ///
    /// # Errors
    ///
    /// As the other functions.
    pub(crate) fn verify(mut self) -> io::Result<Facts> {
        let mut page = vec![0; self.header.page_size as usize];
        while self.page(&mut page)?.is_some() {}
        self.finish()
    }
}
