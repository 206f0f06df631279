//! The names of what is kept. A name says all that has to be known to choose: a listing is the catalog.
//!
//! ```text
//! cluster.json                                      whose backups these are
//! db/<database>/<epoch>-<n>/                        one generation: a history that began with a snapshot
//!     <min>-<max>-<pre>-<post>-<epoch>-<millis>.ltx
//! ```
//!
//! The epoch in a name is that of the primary that brought its last transaction, and an epoch has one: so no two
//! nodes ever give the same name to different things, a deposed primary and its successor least of all.

use std::fmt;

use super::escape::unescape;
use super::ltx::{Facts, Pos};
use crate::cluster::Epoch;
use crate::txid::{Checksum, Txid, parse_hex16};

/// Says whose backups these are.
pub(crate) const CLUSTER: &str = "cluster.json";
/// Before the databases.
pub(crate) const DATABASES: &str = "db/";

/// One history of one database, in the order of their beginnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation {
    /// In which it began.
    pub(crate) epoch: Epoch,
    /// How many had begun in that epoch before.
    pub(crate) n: u64,
}

/// One LTX file that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) db: String,
    pub(crate) generation: Generation,
    pub(crate) min: Txid,
    /// Of the database before; 0 for a snapshot.
    pub(crate) pre: u64,
    pub(crate) after: Pos,
    /// In which its last transaction was brought.
    pub(crate) epoch: Epoch,
    /// When its last transaction was made, by its primary's clock, since 1970.
    pub(crate) millis: u64,
}

/// One, as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    pub(crate) size: u64,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub(crate) modified: u64,
}

impl Object {
    pub(crate) fn new(db: &str, generation: Generation, epoch: Epoch, facts: &Facts) -> Self {
        Self {
            db: db.to_owned(),
            generation,
            min: facts.header.min,
            pre: facts.header.pre,
            after: facts.after(),
            epoch,
            millis: facts.header.millis,
        }
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        self.min == Txid(1)
    }

    /// What it goes on from; `None`: from nothing.
    pub(crate) fn before(&self) -> Option<Pos> {
        let txid = Txid(self.min.0.checked_sub(1).filter(|txid| *txid > 0)?);
        Some(Pos { txid, checksum: Checksum(self.pre) })
    }

    /// Whether a file is what its name says.
    pub(crate) fn is(&self, facts: &Facts) -> bool {
        let header = &facts.header;
        self.min == header.min && self.pre == header.pre && self.after == facts.after()
    }

    pub(crate) fn key(&self) -> String {
        let Self { min, pre, after, epoch, millis, .. } = self;
        format!(
            "{}{min}-{}-{pre:016x}-{:016x}-{:016x}-{millis:013}.ltx",
            folder(&self.db, self.generation),
            after.txid,
            after.checksum.0,
            epoch.0,
        )
    }

    /// `None`: it is none of ours.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let mut path = key.strip_prefix(DATABASES)?.split('/');
        let (db, generation, file) = (path.next()?, path.next()?, path.next()?);
        let mut words = file.strip_suffix(".ltx")?.split('-');
        let mut hex = || parse_hex16(words.next()?.as_bytes()).ok();
        let (min, max, pre, post, epoch) = (hex()?, hex()?, hex()?, hex()?, hex()?);
        let object = Self {
            db: unescape(db, b'=')?,
            generation: Generation::parse(generation)?,
            min: Txid(min),
            pre,
            after: Pos { txid: Txid(max), checksum: Checksum(post) },
            epoch: Epoch(epoch),
            millis: words.next()?.parse().ok()?,
        };
        let whole = words.next().is_none() && path.next().is_none() && min <= max;
        (whole && object.key() == key).then_some(object)
    }
}

impl Generation {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (epoch, n) = text.split_once('-')?;
        Some(Self { epoch: Epoch(epoch.parse().ok()?), n: n.parse().ok()? })
    }
}

/// As users see it, and as its folder is called.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.n)
    }
}

fn folder(db: &str, generation: Generation) -> String {
    format!("{DATABASES}{}/{generation}/", encode(db))
}

/// Any name as one part of a path, also where a store is picky: other bytes as `=` and two hex digits.
fn encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        match plain || (byte == b'.' && !text.is_empty()) {
            true => text.push(byte.into()),
            false => text.push_str(&format!("={byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_as_documented() {
        let object = Object {
            db: "a b/.db".to_owned(),
            generation: Generation { epoch: Epoch(3), n: 1 },
            min: Txid(2),
            pre: 0x8000_0000_0000_0001,
            after: Pos { txid: Txid(9), checksum: Checksum(0x8000_0000_0000_00ff) },
            epoch: Epoch(4),
            millis: 1_795_174_292_512,
        };
        let key = "db/a=20b=2F.db/3-1/0000000000000002-0000000000000009-8000000000000001-\
                   80000000000000ff-0000000000000004-1795174292512.ltx";
        assert_eq!(object.key(), key);
        assert_eq!(Object::parse(key), Some(object));
    }

    proptest! {
        #[test]
        fn any_database_can_be_kept(db in "[^\u{0}]{1,20}", n: u64, epoch: u64, min in 1u64..9, more in 0u64..9) {
            let object = Object {
                db,
                generation: Generation { epoch: Epoch(epoch), n },
                min: Txid(min),
                pre: 0,
                after: Pos { txid: Txid(min + more), checksum: Checksum(7) },
                epoch: Epoch(epoch),
                millis: n,
            };
            let key = object.key();
            prop_assert_eq!(key.matches('/').count(), 3);
            prop_assert!(!key.contains("/.") && key.is_ascii());
            prop_assert_eq!(Object::parse(&key), Some(object));
        }

        #[test]
        fn what_is_none_is_none(key: String) {
            prop_assert_eq!(Object::parse(&key), None);
        }
    }
}
