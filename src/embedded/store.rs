//! What the engine remembers across restarts, in one small file of `data_dir`.
//!
//! Transaction numbers are reserved in blocks: only a block costs a flush to disk, and a restart
//! begins beyond whatever may have been given out. Nothing is written while nothing is committed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::checksum::{Checksum, Stamp, crc64};
use crate::cluster::Epoch;
use crate::files;
use crate::txid::{Position, Txid, hex16};

/// The file's name in `data_dir`.
pub const FILE: &str = "embedded.state";
const LOCK: &str = "embedded.lock";
const FORMAT: &str = "litepilot embedded 1";
/// So many transactions are reserved with one flush.
const BLOCK: u64 = 1_000;
/// No file of ours is larger, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The open state file.
pub struct Store {
    dir: PathBuf,
    saved: Saved,
    /// Held for as long as we live: two processes must not give out the same numbers.
    _lock: File,
}

/// The contents, behind a CRC and a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: String,
    database: PathBuf,
    epoch: Epoch,
    /// No transaction above this was ever given out.
    reserved: Txid,
    /// What the copy held that the primary shipped last.
    have: Stamp,
    /// What it holds if the update that was being applied was committed before we ended.
    next: Stamp,
}

impl Store {
    /// Opens the state kept in `dir` for `database`, or begins one. Creates `dir` if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be read or locked, is damaged, or belongs to another database; then nothing
    /// is changed.
    pub fn open(dir: &Path, database: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|e| at(dir, e))?;
        let lock_path = dir.join(LOCK);
        let lock = File::create(&lock_path).map_err(|e| at(&lock_path, e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let message = "another litepilot runs with this data_dir: give each its own";
            at(&lock_path, io::Error::new(io::ErrorKind::ResourceBusy, message))
        })?;
        let path = dir.join(FILE);
        let saved = match read(&path).map_err(|e| at(&path, e))? {
            Some(text) => parse(&text, database).map_err(|e| at(&path, refused(&e)))?,
            None => Saved {
                format: FORMAT.to_owned(),
                database: database.to_owned(),
                epoch: Epoch::default(),
                reserved: Txid::default(),
                have: Stamp::default(),
                next: Stamp::default(),
            },
        };
        Ok(Self { dir: dir.to_owned(), saved, _lock: lock })
    }

    /// Makes sure, on disk, that a restart begins beyond `txid` before it is given out.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then `txid` must not be given out.
    pub fn reserve(&mut self, epoch: Epoch, txid: Txid) -> io::Result<()> {
        if epoch == self.saved.epoch && txid <= self.saved.reserved {
            return Ok(());
        }
        let reserved = Txid(txid.0.saturating_add(BLOCK));
        let saved = Saved { epoch, reserved, ..self.saved.clone() };
        self.write(&saved)?;
        self.saved = saved;
        Ok(())
    }

    /// Where the copy is whose pages have this checksum, if a primary shipped it.
    pub fn recognize(&self, checksum: Checksum) -> Option<Stamp> {
        [self.saved.next, self.saved.have].into_iter().find(|stamp| stamp.checksum == checksum)
    }

    /// To be called before `next` is applied to a copy that holds `have`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then `next` must not be applied.
    pub fn applying(&mut self, have: Stamp, next: Stamp) -> io::Result<()> {
        let saved = Saved { have, next, ..self.saved.clone() };
        self.write(&saved)?;
        self.saved = saved;
        Ok(())
    }

    /// Beyond any transaction that this node gave out or applied.
    pub fn newest(&self) -> Position {
        let saved = &self.saved;
        let positions = [saved.have.position, saved.next.position];
        Position {
            epoch: positions.iter().fold(saved.epoch, |newest, p| newest.max(p.epoch)),
            txid: positions.iter().fold(saved.reserved, |newest, p| newest.max(p.txid)),
        }
    }

    fn write(&self, saved: &Saved) -> io::Result<()> {
        let json = serde_json::to_vec(saved)?;
        let mut text = hex16(crc64(&json)).to_vec();
        text.push(b' ');
        text.extend_from_slice(&json);
        let path = self.dir.join(FILE);
        files::replace(&path, &text).map_err(|e| at(&path, e))
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > MAX_SIZE {
        return Err(refused("it is far too large"));
    }
    fs::read(path).map(Some)
}

fn parse(text: &[u8], database: &Path) -> Result<Saved, String> {
    let (crc, json) = text.split_at_checked(17).ok_or("it is cut off")?;
    if crc[..16] != hex16(crc64(json)) || crc[16] != b' ' {
        return Err("it is damaged: its checksum does not match".to_owned());
    }
    let saved: Saved = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if saved.format != FORMAT {
        return Err(format!("its format is {:?}, this litepilot knows {FORMAT:?}", saved.format));
    }
    if saved.database != database {
        return Err(format!(
            "it is about {}, the configuration names {}",
            saved.database.display(),
            database.display()
        ));
    }
    Ok(saved)
}

fn refused(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "{what}. Nothing was changed. Restore the file, or use another data_dir; \
             if neither is possible move it away: this node then begins anew, and what clients \
             were last told they wrote is forgotten"
        ),
    )
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: &str = "/app/db.sqlite3";

    fn open(dir: &Path) -> io::Result<Store> {
        Store::open(dir, Path::new(DB))
    }

    #[test]
    fn a_restart_begins_beyond_what_was_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        assert_eq!(store.newest().txid, Txid(0));
        for txid in [1, 2, 999, 1_500, 5_000] {
            store.reserve(Epoch(3), Txid(txid)).unwrap();
            drop(store);
            store = open(dir.path()).unwrap();
            assert!(store.newest().txid >= Txid(txid), "{txid}");
            assert_eq!(store.newest().epoch, Epoch(3));
        }
    }

    #[test]
    fn within_a_block_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        store.reserve(Epoch(1), Txid(1)).unwrap();
        fs::remove_file(dir.path().join(FILE)).unwrap();
        for txid in 2..=BLOCK {
            store.reserve(Epoch(1), Txid(txid)).unwrap();
        }
        assert!(!dir.path().join(FILE).exists());
        store.reserve(Epoch(1), Txid(BLOCK + 2)).unwrap();
        assert!(dir.path().join(FILE).exists());
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        open(dir.path()).unwrap().reserve(Epoch(1), Txid(1)).unwrap();
        let good = fs::read(&path).unwrap();
        let mut cases: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
        for byte in 0..good.len() {
            let mut flipped = good.clone();
            flipped[byte] ^= 1;
            cases.push(flipped);
        }
        cases.push(vec![b'x'; 1 << 20]);
        for bad in cases {
            fs::write(&path, &bad).unwrap();
            let error = open(dir.path()).err().expect("refused").to_string();
            assert!(error.contains("move it away") && error.contains(FILE), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
        let other = Store::open(dir.path(), Path::new("/other/db")).err().expect("refused");
        assert!(other.to_string().contains("/other/db"), "{other}");
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_copy_is_recognized_before_and_after_an_update() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = |txid, sum| Stamp {
            position: Position { epoch: Epoch(2), txid: Txid(txid) },
            checksum: Checksum(sum),
        };
        let (old, new) = (stamp(7, 70), stamp(9, 90));
        open(dir.path()).unwrap().applying(old, new).unwrap();
        let store = open(dir.path()).unwrap();
        assert_eq!(store.recognize(old.checksum), Some(old));
        assert_eq!(store.recognize(new.checksum), Some(new));
        assert_eq!(store.recognize(Checksum(1)), None);
        assert_eq!(store.newest(), new.position);
    }

    #[test]
    fn two_at_once_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        let second = open(dir.path()).err().expect("refused");
        assert!(second.to_string().contains("data_dir"), "{second}");
    }
}
