//! What a replica of several databases had reached, across restarts: it is on disk before it is
//! acknowledged. Of one database LiteFS' own position says it.
//!
//! Two places in one file, written in turn, so that one of them is whole whenever the power fails: one
//! small write and one `fdatasync` for each acknowledgement.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::copy::state_file::{sealed, unsealed};
use crate::files;
use crate::txid::EpochTxid;

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "litefs.reached";
/// Bytes of a place; what is written there is shorter. They are in different sectors.
const PLACE: usize = 4096;

pub(crate) struct ReachedFile {
    path: PathBuf,
    file: File,
    /// The two last, the newest last. Read while the disk is waited for.
    kept: Mutex<[EpochTxid; 2]>,
    /// Where the next is written, by one at a time.
    next: Mutex<u64>,
}

impl ReachedFile {
    /// # Errors
    ///
    /// When the file can be neither read nor made.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| files::at(&path, error))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| files::at(dir, error))?;
        let places = [read(&file, 0)?, read(&file, 1)?];
        let next = u64::from(places[0] >= places[1]);
        let mut kept = places;
        kept.sort();
        Ok(Self { path, file, kept: Mutex::new(kept), next: Mutex::new(next) })
    }

    /// What is known to have been reached in that epoch.
    pub(crate) fn get(&self, of: crate::cluster::Epoch) -> Option<EpochTxid> {
        self.kept.lock().into_iter().rev().find(|at| at.epoch == of && of.0 > 0)
    }

    /// On disk when this returns. Blocks.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it must not be acknowledged.
    pub(crate) fn save(&self, at: EpochTxid) -> io::Result<()> {
        let mut next = self.next.lock();
        let newest = self.kept.lock()[1];
        if newest >= at {
            return Ok(());
        }
        let mut text = sealed(&serde_json::to_vec(&at)?);
        text.resize(PLACE, b' ');
        let written = self.file.write_all_at(&text, *next * PLACE as u64);
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|error| files::at(&self.path, error))?;
        *self.kept.lock() = [newest, at];
        *next = 1 - *next;
        Ok(())
    }
}

/// Nothing if it was never written, or only in part.
fn read(file: &File, place: u64) -> io::Result<EpochTxid> {
    let mut text = vec![0; PLACE];
    match file.read_exact_at(&mut text, place * PLACE as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(EpochTxid::default());
        }
        read => read?,
    }
    let json = unsealed(text.trim_ascii_end()).ok();
    Ok(json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::txid::Txid;

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    #[test]
    fn the_newest_survives_and_the_one_before_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = ReachedFile::open(dir.path()).unwrap();
        assert_eq!(file.get(Epoch(0)), None);
        for txid in 1..=5 {
            file.save(at(2, txid)).unwrap();
        }
        file.save(at(2, 3)).unwrap();
        let file = ReachedFile::open(dir.path()).unwrap();
        assert_eq!(file.get(Epoch(2)), Some(at(2, 5)), "never back");
        file.save(at(3, 1)).unwrap();
        let file = ReachedFile::open(dir.path()).unwrap();
        assert_eq!((file.get(Epoch(3)), file.get(Epoch(2))), (Some(at(3, 1)), Some(at(2, 5))));
        // Half of the newest was written.
        let torn = *file.next.lock();
        file.file.write_all_at(b"0000", (1 - torn) * PLACE as u64).unwrap();
        let file = ReachedFile::open(dir.path()).unwrap();
        assert_eq!((file.get(Epoch(3)), file.get(Epoch(2))), (None, Some(at(2, 5))));
    }
}
