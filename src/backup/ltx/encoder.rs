//! Writing LTX, compressed as LiteFS does.

use std::io::{self, Write};

use crc::{Digest, Table};
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};

use super::{Facts, Header};
use crate::copy::state_file::CRC64;
use crate::txid::{Checksum, FLAG};

/// Writes one file; the pages must come in ascending order.
pub(crate) struct Encoder<W: Write> {
    header: Header,
    body: FrameEncoder<W>,
    digest: Digest<'static, u64, Table<16>>,
}

impl<W: Write> Encoder<W> {
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn new(mut to: W, header: Header) -> io::Result<Self> {
        let bytes = header.to_bytes();
        to.write_all(&bytes)?;
        let mut digest = CRC64.digest();
        digest.update(&bytes);
        let frame = FrameInfo::new().block_size(BlockSize::Max64KB).content_checksum(true);
        Ok(Self { header, body: FrameEncoder::with_frame_info(frame, to), digest })
    }

    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn page(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        self.put(&number.to_be_bytes())?;
        self.put(data)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.body.write_all(bytes)
    }

    /// Ends it; `post`: the checksum of the database after it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn finish(mut self, post: Checksum) -> io::Result<(Facts, W)> {
        self.put(&0u32.to_be_bytes())?;
        let mut to = self.body.finish().map_err(io::Error::other)?;
        self.digest.update(&post.0.to_be_bytes());
        to.write_all(&post.0.to_be_bytes())?;
        to.write_all(&(self.digest.finalize() | FLAG).to_be_bytes())?;
        to.flush()?;
        Ok((Facts { header: self.header, post }, to))
    }
}
