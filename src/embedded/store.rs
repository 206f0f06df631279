//! What the engine remembers across restarts, in one small file of `data_dir`.
//!
//! Transaction numbers are reserved in blocks: only a block costs a flush to disk, and a restart
//! begins beyond whatever may have been given out. What exactly was given out, [`super::trail`]
//! knows. Nothing is written while nothing is committed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::checksum::{Checksum, Stamp, crc64};
use super::reign::{Reign, continued};
use super::trail::{self, Last, Trail};
use crate::cluster::{Epoch, Start};
use crate::files;
use crate::txid::{Position, Txid, hex16};

/// The file's name in `data_dir`.
pub const FILE: &str = "embedded.state";
const LOCK: &str = "embedded.lock";
const FORMAT: &str = "litepilot embedded 2";
/// It knew of no promises and no reigns.
const OLD_FORMAT: &str = "litepilot embedded 1";
/// So many transactions are reserved with one flush.
const BLOCK: u64 = 1_000;
/// No file of ours is larger, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The open state file.
pub struct Store {
    dir: PathBuf,
    saved: Saved,
    trail: Trail,
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
    /// What the copy held that the primary shipped last.
    have: Stamp,
    /// That is [`Found::certain`].
    #[serde(default = "yes")]
    certain: bool,
    /// What it holds if the update that was being applied was committed before we ended.
    next: Stamp,
    /// No primary of an epoch before this is listened to.
    #[serde(default)]
    promised: Epoch,
    /// This node's last reign.
    #[serde(default)]
    reign: Option<Own>,
    /// Where the reigns of this copy's history began, the oldest first.
    #[serde(default)]
    starts: Vec<Start>,
}

/// A reign of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    epoch: Epoch,
    /// What the copy held when it began.
    held: Stamp,
    /// The application may have written the copy since what we know of it.
    open: bool,
}

/// What a copy with some content holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The checksum is the content's.
    pub stamp: Stamp,
    /// The position is known to be that of this content; otherwise it is the most that it can be
    /// taken for.
    pub certain: bool,
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
                certain: true,
                next: Stamp::default(),
                promised: Epoch::default(),
                reign: None,
                starts: Vec::new(),
            },
        };
        let trail = Trail::open(dir).map_err(|e| at(&dir.join(trail::FILE), e))?;
        Ok(Self { dir: dir.to_owned(), saved, trail, _lock: lock })
    }

    /// From now on, on disk, no primary of an epoch before this is listened to.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then that was not promised.
    pub fn promise(&mut self, epoch: Epoch) -> io::Result<()> {
        let promised = epoch.max(self.saved.promised);
        self.save(Saved { promised, ..self.saved.clone() })
    }

    /// No primary of an epoch before this is listened to: a later one was promised, or is known to
    /// have begun.
    pub fn floor(&self) -> Epoch {
        self.saved.promised.max(self.newest().epoch)
    }

    /// Begins this node's reign in `epoch` with a copy that holds `held` (`None`: cannot be read), on
    /// disk. Returns what the copy held, and the position that numbers go on from. Of a reign that was
    /// begun before, that is what it held then.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or a file cannot be written; then it was not begun.
    pub fn begin(&mut self, epoch: Epoch, held: Option<Stamp>) -> io::Result<(Stamp, Position)> {
        self.is_not_over(epoch)?;
        let newest = self.newest();
        let begun = self.saved.reign.filter(|own| own.epoch == epoch);
        // In a new epoch every number is new. In the same one, what was given out last is unknown.
        let next = held.filter(|_| epoch > newest.epoch).map_or(newest.txid, |h| h.position.txid);
        let unread = Stamp { position: newest, checksum: Checksum::UNKNOWN };
        let held = begun.map_or(held.unwrap_or(unread), |own| own.held);
        let starts = match begun {
            Some(_) => self.saved.starts.clone(),
            None => continued(&self.saved.starts, epoch, held),
        };
        let reserved = if epoch > newest.epoch { next } else { self.saved.reserved.max(next) };
        let reign = Some(Own { epoch, held, open: true });
        self.save(Saved { epoch, reserved, reign, starts, ..self.saved.clone() })?;
        let position = Position { epoch, txid: next };
        // Resumed, the copy may be another by now.
        let checksum = if begun.is_some() { Checksum::UNKNOWN } else { held.checksum };
        self.note(Last { txid: next, shipped: Stamp { position, checksum } })?;
        Ok((held, position))
    }

    /// What the copy held when this node's reign in `epoch` began.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or there was no such reign.
    pub fn began(&self, epoch: Epoch) -> io::Result<Stamp> {
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
    pub fn reign(&self) -> Option<Reign> {
        let own = self.saved.reign?;
        Reign::new(self.saved.starts.clone()).filter(|reign| reign.epoch() == own.epoch)
    }

    /// Whether this node itself reigned in `epoch`.
    pub fn reigned_in(&self, epoch: Epoch) -> bool {
        self.saved.reign.is_some_and(|own| own.epoch == epoch)
    }

    /// Makes sure that a restart begins beyond `txid` of this reign before it is given out.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; then `txid` must not be given out.
    pub fn reserve(&mut self, txid: Txid) -> io::Result<()> {
        if txid > self.saved.reserved {
            let reserved = Txid(txid.0.saturating_add(BLOCK));
            self.save(Saved { reserved, ..self.saved.clone() })?;
        }
        let position = Position { epoch: self.saved.epoch, txid };
        let unknown = Stamp { position, checksum: Checksum::UNKNOWN };
        let shipped = self.trail.last().map_or(unknown, |last| last.shipped);
        self.note(Last { txid, shipped })
    }

    /// To be called before replicas are sent what is this, of this reign.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then it must not be sent.
    pub fn shipping(&mut self, stamp: Stamp) -> io::Result<()> {
        self.note(Last { txid: stamp.position.txid, shipped: stamp })
    }

    fn note(&mut self, last: Last) -> io::Result<()> {
        self.trail.write(last).map_err(|e| at(&self.dir.join(trail::FILE), e))
    }

    /// What the copy holds whose pages have this checksum, and that nobody can write. What this node
    /// left behind as primary is a primary's no more from then on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn identify(&mut self, checksum: Checksum) -> io::Result<Found> {
        let found = self.find(checksum);
        if self.saved.reign.is_some_and(|own| own.open) {
            self.closed(found)?;
        }
        Ok(found)
    }

    /// What a copy holds whose pages have this checksum.
    pub fn find(&self, checksum: Checksum) -> Found {
        if let Some(own) = self.saved.reign.filter(|own| own.open) {
            return self.left_behind(own.epoch, checksum);
        }
        let Saved { have, certain, next, .. } = self.saved;
        if checksum == Checksum::UNKNOWN {
            Found { stamp: Stamp { position: Position::default(), checksum }, certain: false }
        } else if checksum == next.checksum && next != have {
            Found { stamp: next, certain: true }
        } else if checksum == have.checksum {
            Found { stamp: have, certain }
        } else {
            Found { stamp: Stamp { position: Position::default(), checksum }, certain: false }
        }
    }

    /// What a primary left behind that ended without being told to.
    fn left_behind(&self, epoch: Epoch, checksum: Checksum) -> Found {
        let found = |txid, certain| {
            let stamp = Stamp { position: Position { epoch, txid }, checksum };
            Found { stamp, certain }
        };
        match self.trail.last().filter(|last| last.shipped.position.epoch == epoch) {
            Some(Last { txid, shipped })
                if shipped.checksum == checksum && checksum != Checksum::UNKNOWN =>
            {
                found(txid, true)
            }
            // Nobody else has the last transaction; its number is this content's.
            Some(Last { txid, shipped }) if shipped.position.txid < txid => found(txid, false),
            // Something was committed that got no number any more.
            Some(Last { txid, .. }) => found(Txid(txid.0.saturating_add(1)), false),
            None => found(self.saved.reserved, false),
        }
    }

    /// The reign of this node is over: nobody can write the copy any more, and this is what it holds.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then it will be found out again.
    pub fn closed(&mut self, have: Found) -> io::Result<()> {
        let starts = self.saved.starts.clone();
        self.applied(have, have.stamp, starts)
    }

    /// To be called before a copy that holds `have` becomes one that holds `next`, of the history of
    /// `reign`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then it must not become that.
    pub fn applying(&mut self, have: Found, next: Stamp, reign: &Reign) -> io::Result<()> {
        self.applied(have, next, reign.starts().to_vec())
    }

    fn applied(&mut self, found: Found, next: Stamp, starts: Vec<Start>) -> io::Result<()> {
        let Found { stamp: have, certain } = found;
        let reign = self.saved.reign.map(|own| Own { open: false, ..own });
        self.save(Saved { have, certain, next, reign, starts, ..self.saved.clone() })
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

fn yes() -> bool {
    true
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
    let mut saved: Saved = serde_json::from_slice(unsealed(text)?).map_err(|e| e.to_string())?;
    if ![FORMAT, OLD_FORMAT].contains(&&*saved.format) {
        return Err(format!("its format is {:?}, this litepilot knows {FORMAT:?}", saved.format));
    }
    FORMAT.clone_into(&mut saved.format);
    if saved.database != database {
        return Err(format!(
            "it is about {}, the configuration names {}",
            saved.database.display(),
            database.display()
        ));
    }
    Ok(saved)
}

/// Puts a CRC before what is written, so that damage is noticed.
pub fn sealed(json: &[u8]) -> Vec<u8> {
    let mut text = hex16(crc64(json)).to_vec();
    text.push(b' ');
    text.extend_from_slice(json);
    text
}

/// The reverse of [`sealed`].
pub fn unsealed(text: &[u8]) -> Result<&[u8], String> {
    let (crc, json) = text.split_at_checked(17).ok_or("it is cut off")?;
    if crc[..16] != hex16(crc64(json)) || crc[16] != b' ' {
        return Err("it is damaged: its checksum does not match".to_owned());
    }
    Ok(json)
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
