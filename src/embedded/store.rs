//! What the engine remembers across restarts, in one small file of `data_dir`.
//!
//! Transaction numbers are reserved in blocks: only a block costs a flush to disk, and a restart
//! begins beyond whatever may have been given out. What changes with every transaction is in
//! [`super::record`]. Nothing is written while nothing is committed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::checksum::{Checksum, Position};
use super::record::{self, Known, Record};
use super::tenure::{Tenure, continued};
use crate::cluster::{Epoch, EpochStart};
use crate::copy::state_file::{sealed, unsealed};
use crate::files;
use crate::txid::{EpochTxid, Txid};

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "embedded.state";
const LOCK: &str = "embedded.lock";
const FORMAT: &str = "litepilot embedded 2";
/// So many transactions are reserved with one flush.
const BLOCK: u64 = 1_000;
/// How long we wait for another to let go of our files: a process that we are just starting has them,
/// for a moment.
const OTHERS: Duration = Duration::from_millis(500);
/// No file of ours is larger, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The open state file.
pub(crate) struct Store {
    dir: PathBuf,
    saved: Saved,
    record: Record,
    /// Held for as long as we live: two processes must not give out the same numbers.
    _lock: File,
}

/// The contents, behind a CRC and a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: String,
    database: PathBuf,
    /// The last that this node reigned in.
    epoch: Epoch,
    /// No transaction above this was ever given out.
    reserved: Txid,
    /// No primary of an epoch before this is listened to.
    promised: Epoch,
    /// This node's last reign.
    reign: Option<Own>,
    /// Where the reigns of the history began that the copy follows, the oldest first.
    starts: Vec<EpochStart>,
}

/// A reign of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    epoch: Epoch,
    /// What the copy held when it began.
    held: Position,
}

/// What a copy with some content holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The checksum is the content's.
    pub(crate) position: Position,
    /// The position is known to be that of this content; otherwise it is the most that it can be
    /// taken for.
    pub(crate) certain: bool,
}

impl Store {
    /// Opens the state kept in `dir` for `database`, or begins one. Creates `dir` if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be read or locked, is damaged, or belongs to another database; then nothing
    /// is changed.
    pub(crate) fn open(dir: &Path, database: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|e| at(dir, e))?;
        let lock = locked(&dir.join(LOCK))?;
        let path = dir.join(FILE);
        let saved = match read(&path).map_err(|e| at(&path, e))? {
            Some(text) => parse(&text, database).map_err(|e| at(&path, refused(&e)))?,
            None => Saved {
                format: FORMAT.to_owned(),
                database: database.to_owned(),
                epoch: Epoch::default(),
                reserved: Txid::default(),
                promised: Epoch::default(),
                reign: None,
                starts: Vec::new(),
            },
        };
        let record = Record::open(dir).map_err(|e| at(&dir.join(record::FILE), e))?;
        Ok(Self { dir: dir.to_owned(), saved, record, _lock: lock })
    }

    /// From now on, on disk, no primary of an epoch before this is listened to.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then that was not promised.
    pub(crate) fn promise(&mut self, epoch: Epoch) -> io::Result<()> {
        let promised = epoch.max(self.saved.promised);
        self.save(Saved { promised, ..self.saved.clone() })
    }

    /// No primary of an epoch before this is listened to: a later one was promised, or is known to
    /// have begun.
    pub(crate) fn floor(&self) -> Epoch {
        self.saved.promised.max(self.newest().epoch)
    }

    /// Begins this node's reign in `epoch` with a copy that holds `held` (`None`: cannot be read), on
    /// disk. Returns what the copy held, and the position that numbers go on from. Of a reign that was
    /// begun before, that is what it held then.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or a file cannot be written; then it was not begun.
    pub(crate) fn begin(
        &mut self,
        epoch: Epoch,
        held: Option<Position>,
    ) -> io::Result<(Position, EpochTxid)> {
        self.is_not_over(epoch)?;
        let newest = self.newest();
        let begun = self.saved.reign.filter(|own| own.epoch == epoch);
        // In a new epoch every number is new. In the same one, what was given out last is unknown.
        let next = held.filter(|_| epoch > newest.epoch).map_or(newest.txid, |h| h.at.txid);
        let unread = Position { at: newest, checksum: Checksum::UNKNOWN };
        let held = begun.map_or(held.unwrap_or(unread), |own| own.held);
        let starts = match begun {
            Some(_) => self.saved.starts.clone(),
            None => continued(&self.saved.starts, epoch, held),
        };
        let reserved = if epoch > newest.epoch { next } else { self.saved.reserved.max(next) };
        let reign = Some(Own { epoch, held });
        self.save(Saved { epoch, reserved, reign, starts, ..self.saved.clone() })?;
        let position = EpochTxid { epoch, txid: next };
        // Resumed, the copy may be another by now.
        let checksum = if begun.is_some() { Checksum::UNKNOWN } else { held.checksum };
        let shipped = Position { at: position, checksum };
        self.note(Known::Written { txid: next, shipped }, true)?;
        Ok((held, position))
    }

    /// What the copy held when this node's reign in `epoch` began.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or there was no such reign.
    pub(crate) fn began(&self, epoch: Epoch) -> io::Result<Position> {
        self.is_not_over(epoch)?;
        let begun = self.saved.reign.filter(|own| own.epoch == epoch).map(|own| own.held);
        begun.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such reign"))
    }

    fn is_not_over(&self, epoch: Epoch) -> io::Result<()> {
        let floor = self.floor();
        if epoch >= floor {
            return Ok(());
        }
        let what = format!("epoch {floor} is known: this node cannot reign in {epoch}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    /// The reign that this node began last, with those before it.
    pub(crate) fn reign(&self) -> Option<Tenure> {
        let own = self.saved.reign?;
        Tenure::new(self.saved.starts.clone()).filter(|reign| reign.epoch() == own.epoch)
    }

    /// Whether this node itself reigned in `epoch`.
    pub(crate) fn reigned_in(&self, epoch: Epoch) -> bool {
        self.saved.reign.is_some_and(|own| own.epoch == epoch)
    }

    /// Makes sure that a restart begins beyond `txid` of this reign before it is given out.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; then `txid` must not be given out.
    pub(crate) fn reserve(&mut self, txid: Txid) -> io::Result<()> {
        if txid > self.saved.reserved {
            let reserved = Txid(txid.0.saturating_add(BLOCK));
            self.save(Saved { reserved, ..self.saved.clone() })?;
        }
        let shipped = match self.record.known() {
            Some(Known::Written { shipped, .. }) => shipped,
            _ => Position {
                at: EpochTxid { epoch: self.saved.epoch, txid },
                checksum: Checksum::UNKNOWN,
            },
        };
        self.note(Known::Written { txid, shipped }, false)
    }

    /// To be called before replicas are sent what is this, of this reign.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then it must not be sent.
    pub(crate) fn shipping(&mut self, position: Position) -> io::Result<()> {
        self.note(Known::Written { txid: position.at.txid, shipped: position }, false)
    }

    /// What the copy holds whose pages have this checksum, and that nobody can write. What this node
    /// left behind as primary is a primary's no more from then on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn identify(&mut self, checksum: Checksum) -> io::Result<Found> {
        let found = self.find(checksum);
        if let Some(Known::Written { .. }) = self.record.known() {
            self.closed(found)?;
        }
        Ok(found)
    }

    /// What a copy holds whose pages have this checksum.
    pub(crate) fn find(&self, checksum: Checksum) -> Found {
        let known = checksum != Checksum::UNKNOWN;
        match self.record.known() {
            Some(Known::Copied { have, next, .. })
                if known && next.checksum == checksum && next != have =>
            {
                Found { position: next, certain: true }
            }
            Some(Known::Copied { have, certain, .. }) if known && have.checksum == checksum => {
                Found { position: have, certain }
            }
            Some(Known::Written { txid, shipped }) if known && shipped.checksum == checksum => {
                let position = EpochTxid { txid, ..shipped.at };
                Found { position: Position { at: position, checksum }, certain: true }
            }
            other => {
                let position = self.most(other);
                Found { position: Position { at: position, checksum }, certain: false }
            }
        }
    }

    /// The most that a copy can be taken for whose content is not known.
    fn most(&self, known: Option<Known>) -> EpochTxid {
        match known {
            Some(Known::Written { txid, shipped }) => {
                // Nobody else has the last transaction, and its number is this content's; or something
                // was committed that got no number any more.
                let unnumbered = u64::from(shipped.at.txid == txid);
                EpochTxid { txid: Txid(txid.0.saturating_add(unnumbered)), ..shipped.at }
            }
            // The application has written it since, and the machine crashed.
            known if self.reign().is_some_and(|reign| reign.epoch() > copied(known).epoch) => {
                EpochTxid { epoch: self.saved.epoch, txid: self.saved.reserved }
            }
            // Somebody has put another there.
            _ => EpochTxid::default(),
        }
    }

    /// The reign of this node is over: nobody can write the copy any more, and this is what it holds.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then it will be found out again.
    pub(crate) fn closed(&mut self, found: Found) -> io::Result<()> {
        let Found { position: have, certain } = found;
        self.note(Known::Copied { have, certain, next: have }, true)
    }

    /// To be called before a copy that holds `have` becomes one that holds `next`, of the history of
    /// `reign`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; then it must not become that.
    pub(crate) fn applying(
        &mut self,
        have: Found,
        next: Position,
        reign: &Tenure,
    ) -> io::Result<()> {
        // Once in a reign.
        let promised = self.saved.promised.max(reign.epoch());
        let starts = reign.starts().to_vec();
        self.save(Saved { promised, starts, ..self.saved.clone() })?;
        let Found { position: have, certain } = have;
        self.note(Known::Copied { have, certain, next }, true)
    }

    fn note(&mut self, known: Known, flush: bool) -> io::Result<()> {
        self.record.write(known, flush).map_err(|e| at(&self.dir.join(record::FILE), e))
    }

    /// Beyond any transaction that this node gave out or applied.
    pub(crate) fn newest(&self) -> EpochTxid {
        let known = match self.record.known() {
            Some(Known::Written { txid, shipped }) => EpochTxid { txid, ..shipped.at },
            known => copied(known),
        };
        EpochTxid {
            epoch: self.saved.epoch.max(known.epoch),
            txid: self.saved.reserved.max(known.txid),
        }
    }

    fn save(&mut self, saved: Saved) -> io::Result<()> {
        if saved != self.saved {
            let path = self.dir.join(FILE);
            let text = sealed(&serde_json::to_vec(&saved)?);
            files::replace(&path, &text).map_err(|e| at(&path, e))?;
            self.saved = saved;
        }
        Ok(())
    }
}

/// The newest that a copy may hold that was one.
fn copied(known: Option<Known>) -> EpochTxid {
    match known {
        Some(Known::Copied { have, next, .. }) => EpochTxid {
            epoch: have.at.epoch.max(next.at.epoch),
            txid: have.at.txid.max(next.at.txid),
        },
        _ => EpochTxid::default(),
    }
}

/// The file, locked against other processes.
fn locked(path: &Path) -> io::Result<File> {
    let file = File::create(path).map_err(|e| at(path, e))?;
    let began = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > OTHERS {
            let message = "another litepilot runs with this data_dir: give each its own";
            return Err(at(path, io::Error::new(io::ErrorKind::ResourceBusy, message)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
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
    let saved: Saved = serde_json::from_slice(unsealed(text).map_err(|e| e.to_string())?)
        .map_err(|e| e.to_string())?;
    record::is_ours((&saved.format, &saved.database), (FORMAT, database))?;
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
#[path = "store_tests.rs"]
mod tests;
