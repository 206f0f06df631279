//! What the engine remembers across restarts, in one small file of `data_dir`: which epoch's history
//! the copy holds, and what was promised. LiteFS itself keeps the data and its transaction numbers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::position::LitefsPosition;
use crate::cluster::Epoch;
use crate::embedded::record::{self, sealed, unsealed};
use crate::files;
use crate::txid::{EpochTxid, Position};

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "litefs.state";
const FORMAT: &str = "litepilot litefs 1";
/// What we write is shorter, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

pub(crate) struct Store {
    path: PathBuf,
    saved: Saved,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: String,
    /// The database that this is about.
    database: PathBuf,
    /// The epoch whose history the copy holds.
    epoch: Epoch,
    /// No primary of an epoch before this is listened to.
    promised: Epoch,
    /// This node's last reign, until another's history is followed.
    reign: Option<Tenure>,
}

/// A reign of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenure {
    epoch: Epoch,
    /// What the copy held when it began, in terms of the history before.
    held: Position,
}

impl Store {
    /// Reads the file in `dir`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or is about another database; the text says what to do.
    pub(crate) fn open(dir: &Path, database: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|error| at(dir, &error.to_string(), error.kind()))?;
        let path = dir.join(FILE);
        let saved = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved {
                format: FORMAT.to_owned(),
                database: database.to_owned(),
                epoch: Epoch(0),
                promised: Epoch(0),
                reign: None,
            },
            Err(error) => return Err(at(&path, &error.to_string(), error.kind())),
            Ok(text) => parse(&text, database).map_err(|why| {
                at(&path, &format!("{why}: {REMEDY}"), io::ErrorKind::InvalidData)
            })?,
        };
        Ok(Self { path, saved })
    }

    /// From now on, on disk, no primary of an epoch before this is listened to.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then that was not promised.
    pub(crate) fn promise(&mut self, epoch: Epoch) -> io::Result<()> {
        let promised = epoch.max(self.saved.promised);
        self.save(Saved { promised, ..self.saved.clone() })
    }

    /// No primary of an epoch before this is listened to.
    pub(crate) fn floor(&self) -> Epoch {
        let reigned = self.saved.reign.map_or(Epoch(0), |reign| reign.epoch);
        self.saved.promised.max(self.saved.epoch).max(reigned)
    }

    /// Begins this node's reign in `epoch` with what the copy holds, on disk. Returns that, in terms of
    /// the history before; of a reign that was begun before, what it held then.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or it cannot be written; then it was not begun.
    pub(crate) fn begin(&mut self, epoch: Epoch, content: LitefsPosition) -> io::Result<Position> {
        if epoch < self.floor() {
            let what =
                format!("epoch {} is known: this node cannot reign in {epoch}", self.floor());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if let Some(reign) = self.saved.reign.filter(|reign| reign.epoch == epoch) {
            return Ok(reign.held);
        }
        let held = self.position(content);
        self.save(Saved { reign: Some(Tenure { epoch, held }), ..self.saved.clone() })?;
        Ok(held)
    }

    /// The copy holds the history of another node's `epoch`.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it does not count as such.
    pub(crate) fn adopt(&mut self, epoch: Epoch) -> io::Result<()> {
        let epoch = epoch.max(self.saved.epoch);
        self.save(Saved { epoch, reign: None, ..self.saved.clone() })
    }

    /// The reign of this node is over, and `content` is what it has left behind.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn close(&mut self, content: LitefsPosition) -> io::Result<()> {
        let epoch = self.position(content).at.epoch;
        self.save(Saved { epoch, reign: None, ..self.saved.clone() })
    }

    /// What a copy with this content holds. One on which this node reigned without ever writing it is
    /// still of the history before: whether that reign was opened is for others to know.
    pub(crate) fn position(&self, content: LitefsPosition) -> Position {
        let epoch = match self.saved.reign {
            Some(Tenure { held, .. }) if is_same(held, content) => held.at.epoch,
            Some(Tenure { epoch, .. }) => epoch,
            None => self.saved.epoch,
        };
        let position = EpochTxid { epoch, txid: content.txid };
        Position { at: position, checksum: content.checksum }
    }

    fn save(&mut self, saved: Saved) -> io::Result<()> {
        if saved != self.saved {
            let text = sealed(&serde_json::to_vec(&saved)?);
            files::replace(&self.path, &text)
                .map_err(|error| at(&self.path, &error.to_string(), error.kind()))?;
            self.saved = saved;
        }
        Ok(())
    }
}

const REMEDY: &str = "it is kept as it is. Give this node an empty data_dir and an empty litefs.data, \
                      and it gets a new copy from the primary";

fn is_same(held: Position, content: LitefsPosition) -> bool {
    held.at.txid == content.txid && held.checksum == content.checksum
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too large"));
    }
    fs::read(path)
}

fn parse(text: &[u8], database: &Path) -> Result<Saved, String> {
    let saved: Saved = serde_json::from_slice(unsealed(text)?).map_err(|e| e.to_string())?;
    record::is_ours((&saved.format, &saved.database), (FORMAT, database))?;
    Ok(saved)
}

fn at(path: &Path, what: &str, kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, format!("{}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txid::{Checksum, Txid};

    fn open(dir: &Path) -> Store {
        Store::open(dir, Path::new("app.db")).unwrap()
    }

    fn content(txid: u64) -> LitefsPosition {
        LitefsPosition { txid: Txid(txid), checksum: Checksum(1000 + txid) }
    }

    fn epoch(store: &Store, txid: u64) -> u64 {
        store.position(content(txid)).at.epoch.0
    }

    #[test]
    fn what_was_promised_and_begun_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        assert_eq!(epoch(&store, 5), 0);
        store.promise(Epoch(3)).unwrap();
        let held = store.begin(Epoch(3), content(5)).unwrap();
        assert_eq!((held.at.epoch, held.at.txid), (Epoch(0), Txid(5)));
        let mut store = open(dir.path());
        assert_eq!(store.begin(Epoch(3), content(9)).unwrap(), held, "the same reign");
        assert!(store.begin(Epoch(2), content(9)).is_err());
        assert_eq!(store.floor(), Epoch(3));
        store.promise(Epoch(4)).unwrap();
        assert!(store.begin(Epoch(3), content(9)).is_err());
    }

    #[test]
    fn only_what_was_written_in_a_reign_is_of_its_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.adopt(Epoch(1)).unwrap();
        store.begin(Epoch(2), content(5)).unwrap();
        assert_eq!((epoch(&store, 5), epoch(&store, 6)), (1, 2));
        store.close(content(6)).unwrap();
        assert_eq!(epoch(&open(dir.path()), 6), 2);
        store.begin(Epoch(3), content(6)).unwrap();
        store.close(content(6)).unwrap();
        assert_eq!(epoch(&store, 6), 2, "nothing was written in epoch 3");
    }

    #[test]
    fn another_history_is_taken_over_only_forward() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin(Epoch(2), content(5)).unwrap();
        store.adopt(Epoch(4)).unwrap();
        assert_eq!(epoch(&store, 5), 4);
        store.adopt(Epoch(3)).unwrap();
        assert_eq!(epoch(&store, 5), 4);
        assert_eq!(store.floor(), Epoch(4));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).promise(Epoch(3)).unwrap();
        let foreign = Store::open(dir.path(), Path::new("other.db")).err().unwrap().to_string();
        assert!(foreign.contains("app.db") && foreign.contains("empty data_dir"), "{foreign}");
        let path = dir.path().join(FILE);
        let mut text = fs::read(&path).unwrap();
        text[30] ^= 1;
        fs::write(&path, &text).unwrap();
        assert!(Store::open(dir.path(), Path::new("app.db")).is_err());
        assert_eq!(fs::read(&path).unwrap(), text);
    }
}
