//! What is known of the copy's content, in a small file of `data_dir` that is written in place.
//!
//! It changes with every transaction. So there is no new file each time: it has two places that are
//! written in turn, and half a write leaves what the other says.
//!
//! A primary does not flush it: it outlives the process, killed at whatever moment. If the machine
//! crashes, the numbers that were reserved on disk have to do. A replica does: whoever was told that it
//! has something relies on that.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checksum::Position;
use crate::copy::state_file::{sealed, unsealed};
use crate::txid::Txid;

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "embedded.copy";
/// The size of a place, in bytes; what we write is shorter.
const PLACE: usize = 4096;

/// What is known of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Known {
    /// The application writes it, in a reign of this node.
    Written {
        /// The last number that was given out; the copy holds at least that.
        txid: Txid,
        /// What replicas were sent last, in this reign.
        shipped: Position,
    },
    /// Nobody but us writes it.
    Copied {
        have: Position,
        /// Its position is known to be that; otherwise it was only taken for it.
        certain: bool,
        /// What it holds if what was being applied was committed before we ended.
        next: Position,
    },
}

pub(crate) struct Record {
    file: File,
    turn: u64,
    known: Option<Known>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    turn: u64,
    known: Known,
}

impl Record {
    /// Opens the file in `dir`, or makes it. What cannot be made sense of is as good as nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, read or made.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(dir.join(FILE))?;
        let mut text = Vec::new();
        (&file).take(2 * PLACE as u64).read_to_end(&mut text)?;
        if text.len() < 2 * PLACE {
            // Now, so that later writes change no more than they have to.
            file.write_all_at(&vec![b'\n'; 2 * PLACE - text.len()], text.len() as u64)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
        }
        let last = text.chunks(PLACE).filter_map(read).max_by_key(|line| line.turn);
        let (turn, known) = last.map_or((0, None), |line| (line.turn, Some(line.known)));
        Ok(Self { file, turn, known })
    }

    /// What is known of the copy, if anything.
    pub(crate) fn known(&self) -> Option<Known> {
        self.known
    }

    /// Replaces it. With `flush` it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written; which of the two a restart then finds is unknown.
    pub(crate) fn write(&mut self, known: Known, flush: bool) -> io::Result<()> {
        if self.known == Some(known) {
            return Ok(());
        }
        let turn = self.turn + 1;
        let mut line = sealed(&serde_json::to_vec(&Line { turn, known })?);
        line.push(b'\n');
        self.file.write_all_at(&line, turn % 2 * PLACE as u64)?;
        if flush {
            self.file.sync_data()?;
        }
        (self.turn, self.known) = (turn, Some(known));
        Ok(())
    }
}

/// A shorter line leaves the end of a longer one behind it.
fn read(place: &[u8]) -> Option<Line> {
    let line = place.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(unsealed(line).ok()?).ok()
}

/// Whether a state file has the format that is known here, and is about the database that is configured.
pub(crate) fn is_ours(has: (&str, &Path), known: (&str, &Path)) -> Result<(), String> {
    if has.0 != known.0 {
        return Err(format!("its format is {:?}, this litepilot knows {:?}", has.0, known.0));
    }
    if has.1 != known.1 {
        return Err(format!(
            "it is about {}, the configuration names {}",
            has.1.display(),
            known.1.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::embedded::checksum::Checksum;
    use crate::txid::EpochTxid;
    use std::fs;

    fn known(txid: u64) -> Known {
        let position = EpochTxid { epoch: Epoch(txid * 1_000_000), txid: Txid(txid) };
        let position = Position { at: position, checksum: Checksum(txid) };
        match txid % 2 {
            0 => Known::Written { txid: Txid(txid), shipped: position },
            _ => Known::Copied { have: position, certain: true, next: position },
        }
    }

    #[test]
    fn the_last_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::open(dir.path()).unwrap().known(), None);
        for txid in [9, 8, 7, 1, 2, 3, 4, 12_345] {
            Record::open(dir.path()).unwrap().write(known(txid), txid % 3 == 0).unwrap();
            assert_eq!(Record::open(dir.path()).unwrap().known(), Some(known(txid)));
        }
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), 2 * PLACE as u64);
    }

    #[test]
    fn half_a_write_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut record = Record::open(dir.path()).unwrap();
        record.write(known(1), true).unwrap();
        let before = fs::read(&path).unwrap();
        record.write(known(2), true).unwrap();
        let after = fs::read(&path).unwrap();
        let changed: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
        for end in &changed {
            let mut half = before.clone();
            half[..*end].copy_from_slice(&after[..*end]);
            fs::write(&path, &half).unwrap();
            assert_eq!(Record::open(dir.path()).unwrap().known(), Some(known(1)), "up to {end}");
        }
        for damage in [Vec::new(), vec![b'x'; 100_000], b"\n".repeat(PLACE)] {
            fs::write(&path, &damage).unwrap();
            let mut record = Record::open(dir.path()).unwrap();
            assert_eq!(record.known(), None);
            record.write(known(3), true).unwrap();
            assert_eq!(Record::open(dir.path()).unwrap().known(), Some(known(3)));
        }
    }
}
