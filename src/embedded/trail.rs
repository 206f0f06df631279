//! What this node gave out last as primary, in a small file of `data_dir` that is written in place
//! and not flushed: it outlives the process, killed at whatever moment, and costs next to nothing.
//!
//! A crash of the machine may lose it. Then the numbers that were reserved on disk have to do.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checksum::Stamp;
use super::store::{sealed, unsealed};
use crate::txid::Txid;

/// The file's name in `data_dir`.
pub const FILE: &str = "embedded.last";
/// What we write is shorter, in bytes.
const MAX_SIZE: u64 = 4096;

/// The open file.
pub struct Trail {
    file: File,
    last: Option<Last>,
}

/// What was given out last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The last number; the copy holds at least that.
    pub txid: Txid,
    /// What replicas were sent last, in the same epoch.
    pub shipped: Stamp,
}

impl Trail {
    /// Opens the file in `dir`, or makes it. What cannot be made sense of is as good as nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = Vec::new();
        (&file).take(MAX_SIZE).read_to_end(&mut text)?;
        // A shorter line leaves the end of a longer one behind it.
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let last = unsealed(line).ok().and_then(|json| serde_json::from_slice(json).ok());
        Ok(Self { file, last })
    }

    /// What was given out last, if that is known.
    pub fn last(&self) -> Option<Last> {
        self.last
    }

    /// To be called before `last` is given out.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it must not be given out.
    pub fn write(&mut self, last: Last) -> io::Result<()> {
        if self.last == Some(last) {
            return Ok(());
        }
        let mut line = sealed(&serde_json::to_vec(&last)?);
        line.push(b'\n');
        self.last = None;
        self.file.write_all_at(&line, 0)?;
        self.last = Some(last);
        Ok(())
    }
}
