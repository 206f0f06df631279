//! Checksums in LiteFS' text form: a sum of each page with its number, all combined by exclusive or,
//! so that a change of one page changes the sum without reading the others.
//!
//! The values are not LiteFS': it combines bare CRCs, and CRCs are linear, so that two pages that
//! change places leave that sum as it was. We mix each CRC first.

use crate::copy::state_file::CRC64;
pub(crate) use crate::txid::{Checksum, Position};

/// The CRC-64 of some bytes.
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    CRC64.checksum(bytes)
}

/// The sum of a page; pages are numbered from 1.
pub(crate) fn page_sum(number: u32, page: &[u8]) -> u64 {
    let mut digest = CRC64.digest();
    digest.update(&number.to_be_bytes());
    digest.update(page);
    mix(digest.finalize())
}

/// MurmurHash3's 64-bit finalizer: a permutation that is not linear.
fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_crc_that_go_calls_iso() {
        // The check value of CRC-64/GO-ISO in the catalogue of parametrised CRCs.
        assert_eq!(crc64(b"123456789"), 0xb909_56c7_75a4_1001);
    }

    #[test]
    fn the_place_of_a_page_counts() {
        let sum = |pages: [&[u8]; 2]| Checksum::of(&[page_sum(1, pages[0]), page_sum(2, pages[1])]);
        assert_ne!(sum([b"a", b"b"]), sum([b"b", b"a"]));
        assert_eq!(Checksum::default().to_string(), "8000000000000000");
    }
}
