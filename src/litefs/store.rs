//! What the engine remembers across restarts: which epoch's history the copy holds, and what was
//! promised. LiteFS itself keeps the data and its transaction numbers.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::position::LitefsPosition;
use crate::cluster::Epoch;
use crate::copy::state_file::{self, StateFile};
use crate::txid::{EpochTxid, Position};

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "litefs.state";

pub(crate) struct Store(StateFile<Saved>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: String,
    /// The database that this is about.
    database: PathBuf,
    /// The epoch whose history the copy holds.
    epoch: Epoch,
    /// No primary of an earlier epoch is listened to.
    promised: Epoch,
    /// This node's last tenure, until another's history is followed.
    #[serde(rename = "reign")]
    tenure: Option<Tenure>,
}

/// A tenure of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenure {
    epoch: Epoch,
    /// What the copy held when it began, in terms of the history before.
    held: Position,
}

impl state_file::Saved for Saved {
    const FORMAT: &'static str = "litepilot litefs 1";
    const REMEDY: &'static str = "It is kept as it is. Give this node an empty data_dir and an empty \
                                  litefs.data: it gets a new copy from the primary";

    fn new(database: &Path) -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            database: database.to_owned(),
            epoch: Epoch(0),
            promised: Epoch(0),
            tenure: None,
        }
    }

    fn format(&self) -> &str {
        &self.format
    }

    fn database(&self) -> &Path {
        &self.database
    }
}

impl Store {
    /// Reads the file in `dir`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or is about another database; the text says what to do.
    pub(crate) fn open(dir: &Path, database: &Path) -> io::Result<Self> {
        StateFile::open(dir.join(FILE), database).map(Self)
    }

    /// From now on, on disk, no primary of an earlier epoch is listened to.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then that was not promised.
    pub(crate) fn promise(&mut self, epoch: Epoch) -> io::Result<()> {
        let promised = epoch.max(self.saved().promised);
        self.0.save(Saved { promised, ..self.saved().clone() })
    }

    /// No primary of an epoch before this is listened to.
    pub(crate) fn floor(&self) -> Epoch {
        let saved = self.saved();
        let held = saved.tenure.map_or(Epoch(0), |tenure| tenure.epoch);
        saved.promised.max(saved.epoch).max(held)
    }

    /// Begins this node's tenure in `epoch` with what the copy holds, on disk. Returns that, in terms of
    /// the history before; of a tenure that was begun before, what it held then.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or it cannot be written; then it was not begun.
    pub(crate) fn begin(&mut self, epoch: Epoch, content: LitefsPosition) -> io::Result<Position> {
        if epoch < self.floor() {
            let what =
                format!("epoch {} is known: this node cannot be primary in {epoch}", self.floor());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if let Some(tenure) = self.saved().tenure.filter(|tenure| tenure.epoch == epoch) {
            return Ok(tenure.held);
        }
        let held = self.position(content);
        let tenure = Some(Tenure { epoch, held });
        self.0.save(Saved { tenure, ..self.saved().clone() })?;
        Ok(held)
    }

    /// The copy holds the history of another node's `epoch`.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it does not count as such.
    pub(crate) fn adopt(&mut self, epoch: Epoch) -> io::Result<()> {
        self.end_tenure(epoch.max(self.saved().epoch))
    }

    /// The tenure of this node is over, and `content` is what it has left behind.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn close(&mut self, content: LitefsPosition) -> io::Result<()> {
        self.end_tenure(self.position(content).at.epoch)
    }

    fn end_tenure(&mut self, epoch: Epoch) -> io::Result<()> {
        self.0.save(Saved { epoch, tenure: None, ..self.saved().clone() })
    }

    /// What a copy with this content holds. One that was this node's to write and never was written is
    /// still of the history before: whether that tenure was opened is for others to know.
    pub(crate) fn position(&self, content: LitefsPosition) -> Position {
        let epoch = match self.saved().tenure {
            Some(Tenure { held, .. }) if is_same(held, content) => held.at.epoch,
            Some(Tenure { epoch, .. }) => epoch,
            None => self.saved().epoch,
        };
        let at = EpochTxid { epoch, txid: content.txid };
        Position { at, checksum: content.checksum }
    }

    fn saved(&self) -> &Saved {
        self.0.saved()
    }
}

fn is_same(held: Position, content: LitefsPosition) -> bool {
    held.at.txid == content.txid && held.checksum == content.checksum
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert_eq!(store.begin(Epoch(3), content(9)).unwrap(), held, "the same tenure");
        assert!(store.begin(Epoch(2), content(9)).is_err());
        assert_eq!(store.floor(), Epoch(3));
        store.promise(Epoch(4)).unwrap();
        assert!(store.begin(Epoch(3), content(9)).is_err());
    }

    #[test]
    fn only_what_was_written_in_a_tenure_is_of_its_epoch() {
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
