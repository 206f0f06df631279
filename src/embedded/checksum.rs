//! CRC-64 as LiteFS uses it (polynomial "ISO", as Go's `hash/crc64`), in its text form.

use crc::{CRC_64_GO_ISO, Crc, Digest, Table};

static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// The CRC-64 of some bytes.
pub fn crc64(bytes: &[u8]) -> u64 {
    CRC64.checksum(bytes)
}

/// A CRC-64 over several pieces.
pub fn digest() -> Digest<'static, u64, Table<16>> {
    CRC64.digest()
}
