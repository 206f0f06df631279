//! Transaction ids, positions, checksums and the tokens that clients carry, in LiteFS' text forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cluster::Epoch;

/// The number of a transaction. LiteFS writes it as 16 lower-case hex digits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Txid(pub u64);

/// Why a text is no [`Txid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTxid;

impl Txid {
    /// The 16 hex digits, without allocating.
    pub(crate) fn to_hex(self) -> [u8; 16] {
        hex16(self.0)
    }

    /// Reads exactly 16 lower-case hex digits, as LiteFS does; anything else is malformed.
    pub(crate) fn from_hex(text: &[u8]) -> Result<Self, BadTxid> {
        parse_hex16(text).map(Self)
    }
}

/// 16 lower-case hex digits.
pub(crate) fn hex16(value: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 16];
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (60 - 4 * i)) as usize & 0xf];
    }
    out
}

/// The reverse of [`hex16`].
pub(crate) fn parse_hex16(text: &[u8]) -> Result<u64, BadTxid> {
    if text.len() != 16 {
        return Err(BadTxid);
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return Err(BadTxid),
        };
        Ok(value << 4 | u64::from(digit))
    })
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Txid {
    type Err = BadTxid;

    fn from_str(text: &str) -> Result<Self, BadTxid> {
        Self::from_hex(text.as_bytes())
    }
}

impl TryFrom<String> for Txid {
    type Error = BadTxid;

    fn try_from(text: String) -> Result<Self, BadTxid> {
        text.parse()
    }
}

impl From<Txid> for String {
    fn from(txid: Txid) -> Self {
        txid.to_string()
    }
}

impl fmt::Display for BadTxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction id is 16 lower-case hex digits")
    }
}

impl std::error::Error for BadTxid {}

/// How far a copy of the data is. Compared by epoch, then by transaction: after a failover two
/// histories can carry the same number, so a bare [`Txid`] is not a position (`docs/election.md`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct EpochTxid {
    /// The epoch whose history this copy follows (`data_epoch`).
    pub epoch: Epoch,
    /// The last transaction of that history which this copy holds.
    pub txid: Txid,
}

impl fmt::Display for EpochTxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.txid)
    }
}

/// Set in every checksum, so that none is 0.
pub(crate) const FLAG: u64 = 1 << 63;

/// The checksum of a whole database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Checksum(pub u64);

/// What a copy of the database holds: how far it is, and proof of which history that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epoch and transaction.
    #[serde(rename = "position")]
    pub at: EpochTxid,
    /// Of all pages.
    pub checksum: Checksum,
}

impl Checksum {
    /// Of a database that was not read. No database has it.
    pub(crate) const UNKNOWN: Self = Self(0);

    /// The checksum of a database whose pages have these sums.
    pub fn of(page_sums: &[u64]) -> Self {
        Self(page_sums.iter().fold(0, |all, sum| all ^ sum) | FLAG)
    }
}

/// That of an empty database.
impl Default for Checksum {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&hex16(self.0)).unwrap_or_default())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

impl TryFrom<String> for Checksum {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let value = parse_hex16(text.as_bytes()).map_err(|_| "a checksum is 16 hex digits")?;
        Ok(Self(value))
    }
}

/// What a client last saw: it is never served a copy older than this.
///
/// A client that keeps only LiteFS' own cookie has no epoch (0) and gets LiteFS' own guarantee.
pub(crate) type Token = EpochTxid;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_litefs_own_form_is_read() {
        assert_eq!("00000000000000ff".parse(), Ok(Txid(255)));
        for bad in [
            "",
            "ff",
            "00000000000000FF",
            "0x000000000000ff",
            "00000000000000ff ",
            "-000000000000001",
        ] {
            assert_eq!(bad.parse::<Txid>(), Err(BadTxid), "{bad:?}");
        }
    }

    #[test]
    fn a_later_epoch_beats_a_higher_transaction() {
        let at = |epoch, txid| EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) };
        assert!(at(2, 1) > at(1, 9));
    }

    proptest! {
        #[test]
        fn text_form_round_trips(value: u64) {
            let text = Txid(value).to_string();
            prop_assert_eq!(text.as_bytes(), &Txid(value).to_hex());
            prop_assert_eq!(text.parse(), Ok(Txid(value)));
        }
    }
}
