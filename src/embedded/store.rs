//! What the engine remembers across restarts, in `data_dir`: what must not be lost, in a sealed file, and
//! what is known of the copy's content, in another.
//!
//! Transaction numbers are reserved in blocks: only a block costs a flush to disk, and a restart
//! begins beyond whatever may have been given out. What is known of the copy changes with every
//! transaction. A primary does not flush it: the file outlives the process, killed at whatever moment,
//! and if the machine crashes the reserved numbers have to do. A replica does flush it: whoever was
//! told that it has something relies on that. Nothing is written while nothing is committed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::lineage::{Lineage, continued};
use super::posfile;
use crate::cluster::{Epoch, EpochStart};
use crate::copy::state_file::{Saved, StateFile};
use crate::files::{self, at};
use crate::txid::{Checksum, EpochTxid, Position, Txid};

const STATE_FILE: &str = "embedded.state";
const COPY_FILE: &str = "embedded.copy";
const LOCK_FILE: &str = "embedded.lock";
/// So many transactions are reserved with one flush.
const BLOCK: u64 = 1_000;
/// How long we wait for another process to release our files: one that we are just starting inherits
/// them, for a moment.
const INHERITED: Duration = Duration::from_millis(500);

pub(crate) struct Store {
    state: StateFile<State>,
    copy_file: PathBuf,
    copy: Option<CopyContent>,
    /// Held for as long as we live: two processes must not give out the same numbers.
    _lock: File,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: String,
    database: PathBuf,
    /// The last in which this node was primary.
    epoch: Epoch,
    /// No transaction above this was ever given out.
    reserved: Txid,
    /// No primary of an epoch before this is followed.
    promised: Epoch,
    /// Where this node's last epoch as primary began.
    #[serde(rename = "reign")]
    own: Option<EpochStart>,
    /// Of the history that the copy follows, the oldest first.
    starts: Vec<EpochStart>,
}

/// What is known of the copy's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum CopyContent {
    /// The application writes it, in an epoch of this node.
    Written {
        /// The last number that was given out; the copy holds at least that.
        txid: Txid,
        /// What replicas were sent last, in this epoch.
        shipped: Position,
    },
    /// Nobody but us writes it.
    Copied {
        have: Position,
        /// See [`Found::certain`].
        certain: bool,
        /// What it holds if what was being applied was committed before we ended.
        next: Position,
    },
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

impl Saved for State {
    const FORMAT: &'static str = "litepilot embedded 2";
    const REMEDY: &'static str = "Nothing was changed. Restore the file, or use another data_dir; if \
        neither is possible move it away: this node then begins anew, and what clients were last told \
        they wrote is forgotten";

    fn new(database: &Path) -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            database: database.to_owned(),
            epoch: Epoch::default(),
            reserved: Txid::default(),
            promised: Epoch::default(),
            own: None,
            starts: Vec::new(),
        }
    }

    fn database(&self) -> &Path {
        &self.database
    }
}

/// The methods that write fail when a file cannot be written; what they say then does not hold.
impl Store {
    /// Opens the state kept in `dir` for `database`, or begins one. Creates `dir` if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be read or locked, is damaged, or belongs to another database; then nothing
    /// is changed.
    pub(crate) fn open(dir: &Path, database: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|e| at(dir, e))?;
        let lock = locked(&dir.join(LOCK_FILE))?;
        let state = StateFile::open(dir.join(STATE_FILE), database)?;
        let copy_file = dir.join(COPY_FILE);
        // What was lost in a crash of the machine, or is in a former format, is as good as nothing.
        let copy = match fs::read(&copy_file) {
            Ok(text) => serde_json::from_slice(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&copy_file, error)),
        };
        Ok(Self { state, copy_file, copy, _lock: lock })
    }

    fn state(&self) -> &State {
        self.state.saved()
    }

    /// From now on no primary of an epoch before this is followed.
    pub(crate) fn promise(&mut self, epoch: Epoch) -> io::Result<()> {
        let promised = epoch.max(self.state().promised);
        self.state.save(State { promised, ..self.state().clone() })
    }

    /// No primary of an epoch before this is followed: a later one was promised, or has begun.
    pub(crate) fn floor(&self) -> Epoch {
        self.state().promised.max(self.newest().epoch)
    }

    /// Has this node be primary in `epoch`, with a copy that holds `held` (`None`: cannot be read).
    /// Returns what the copy held when that epoch began, and the position that numbers go on from.
    pub(crate) fn begin(
        &mut self,
        epoch: Epoch,
        held: Option<Position>,
    ) -> io::Result<(Position, EpochTxid)> {
        self.is_not_over(epoch)?;
        let newest = self.newest();
        let state = self.state().clone();
        let resumed = state.own.filter(|own| own.epoch == epoch);
        // In a new epoch every number is new. In the same one, what was given out last is unknown.
        let next = held.filter(|_| epoch > newest.epoch).map_or(newest.txid, |h| h.at.txid);
        let reserved = if epoch > newest.epoch { next } else { state.reserved.max(next) };
        let unread = Position { at: newest, checksum: Checksum::UNKNOWN };
        let held = resumed.map_or(held.unwrap_or(unread), |own| own.held);
        let starts = match resumed {
            Some(_) => state.starts.clone(),
            None => continued(&state.starts, epoch, held),
        };
        let own = Some(EpochStart { epoch, held });
        self.state.save(State { epoch, reserved, own, starts, ..state })?;
        let at = EpochTxid { epoch, txid: next };
        // Resumed, the copy may be another by now.
        let checksum = if resumed.is_some() { Checksum::UNKNOWN } else { held.checksum };
        let shipped = Position { at, checksum };
        self.note(CopyContent::Written { txid: next, shipped }, true)?;
        Ok((held, at))
    }

    /// What the copy held when this node became primary in `epoch`.
    pub(crate) fn began(&self, epoch: Epoch) -> io::Result<Position> {
        self.is_not_over(epoch)?;
        let begun = self.state().own.filter(|own| own.epoch == epoch).map(|own| own.held);
        begun.ok_or_else(|| super::not(&format!("the primary of epoch {epoch}")))
    }

    fn is_not_over(&self, epoch: Epoch) -> io::Result<()> {
        let floor = self.floor();
        if epoch >= floor {
            return Ok(());
        }
        let what = format!("epoch {floor} is known: this node cannot be primary in {epoch}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    /// The history that this node, the primary, continues.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        let own = self.state().own?;
        Lineage::new(self.state().starts.clone()).filter(|lineage| lineage.epoch() == own.epoch)
    }

    /// Whether this node itself was the primary of `epoch`.
    pub(crate) fn led(&self, epoch: Epoch) -> bool {
        self.state().own.is_some_and(|own| own.epoch == epoch)
    }

    /// Makes sure that a restart begins beyond `txid` of this epoch before it is given out.
    pub(crate) fn reserve(&mut self, txid: Txid) -> io::Result<()> {
        if txid > self.state().reserved {
            let reserved = Txid(txid.0.saturating_add(BLOCK));
            self.state.save(State { reserved, ..self.state().clone() })?;
        }
        let at = EpochTxid { epoch: self.state().epoch, txid };
        let shipped = match self.copy {
            Some(CopyContent::Written { shipped, .. }) => shipped,
            _ => Position { at, checksum: Checksum::UNKNOWN },
        };
        self.note(CopyContent::Written { txid, shipped }, false)
    }

    /// To be called before replicas are sent what is this, of this epoch.
    pub(crate) fn shipping(&mut self, shipped: Position) -> io::Result<()> {
        self.note(CopyContent::Written { txid: shipped.at.txid, shipped }, false)
    }

    /// What the copy holds whose pages have this checksum, and that nobody can write. What this node
    /// left behind as primary is a replica's from then on.
    pub(crate) fn identify(&mut self, checksum: Checksum) -> io::Result<Found> {
        let found = self.find(checksum);
        if let Some(CopyContent::Written { .. }) = self.copy {
            self.closed(found)?;
        }
        Ok(found)
    }

    /// What a copy holds whose pages have this checksum.
    pub(crate) fn find(&self, checksum: Checksum) -> Found {
        let is = |known: Position| checksum != Checksum::UNKNOWN && known.checksum == checksum;
        let (at, certain) = match self.copy {
            Some(CopyContent::Copied { have, next, .. }) if is(next) && next != have => {
                (next.at, true)
            }
            Some(CopyContent::Copied { have, certain, .. }) if is(have) => (have.at, certain),
            Some(CopyContent::Written { txid, shipped }) if is(shipped) => {
                (EpochTxid { txid, ..shipped.at }, true)
            }
            _ => (self.most(), false),
        };
        Found { position: Position { at, checksum }, certain }
    }

    /// The most that a copy can be taken for whose content is not known.
    fn most(&self) -> EpochTxid {
        let state = self.state();
        match self.copy {
            Some(CopyContent::Written { txid, shipped }) => {
                // Nobody else has the last transaction, and its number is this content's; or something
                // was committed that got no number any more.
                let unnumbered = u64::from(shipped.at.txid == txid);
                EpochTxid { txid: Txid(txid.0.saturating_add(unnumbered)), ..shipped.at }
            }
            // The application has written it since, and the machine crashed.
            _ if self.lineage().is_some_and(|l| l.epoch() > self.noted().epoch) => {
                EpochTxid { epoch: state.epoch, txid: state.reserved }
            }
            // Somebody has put another there.
            _ => EpochTxid::default(),
        }
    }

    /// This node is primary no more: nobody can write the copy, and this is what it holds.
    pub(crate) fn closed(&mut self, found: Found) -> io::Result<()> {
        let Found { position: have, certain } = found;
        self.note(CopyContent::Copied { have, certain, next: have }, true)
    }

    /// To be called before a copy that holds `have` becomes one that holds `next`, of this history.
    pub(crate) fn applying(
        &mut self,
        have: Found,
        next: Position,
        lineage: &Lineage,
    ) -> io::Result<()> {
        // Differs once in an epoch.
        let promised = self.state().promised.max(lineage.epoch());
        let starts = lineage.starts().to_vec();
        self.state.save(State { promised, starts, ..self.state().clone() })?;
        let Found { position: have, certain } = have;
        self.note(CopyContent::Copied { have, certain, next }, true)
    }

    fn note(&mut self, copy: CopyContent, flush: bool) -> io::Result<()> {
        if self.copy == Some(copy) {
            return Ok(());
        }
        let text = serde_json::to_vec(&copy)?;
        match flush {
            true => files::replace(&self.copy_file, &text).map_err(|e| at(&self.copy_file, e))?,
            false => posfile::replace(&self.copy_file, &text)?,
        }
        self.copy = Some(copy);
        Ok(())
    }

    /// Beyond any transaction that this node gave out or applied.
    pub(crate) fn newest(&self) -> EpochTxid {
        let (state, noted) = (self.state(), self.noted());
        EpochTxid { epoch: state.epoch.max(noted.epoch), txid: state.reserved.max(noted.txid) }
    }

    /// The newest that the copy may hold by what is known of it.
    fn noted(&self) -> EpochTxid {
        match self.copy {
            Some(CopyContent::Written { txid, shipped }) => EpochTxid { txid, ..shipped.at },
            Some(CopyContent::Copied { have, next, .. }) => EpochTxid {
                epoch: have.at.epoch.max(next.at.epoch),
                txid: have.at.txid.max(next.at.txid),
            },
            None => EpochTxid::default(),
        }
    }
}

/// The file, locked against other processes.
fn locked(path: &Path) -> io::Result<File> {
    let file = File::create(path).map_err(|e| at(path, e))?;
    let began = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > INHERITED {
            let message = "another litepilot runs with this data_dir: give each its own";
            return Err(at(path, io::Error::new(io::ErrorKind::ResourceBusy, message)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
