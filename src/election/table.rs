//! The lease table: what the cluster agrees on. Pure, without a clock: time is the lessor's.
//!
//! Every command carries the epoch that its sender expects, so that a delayed or repeated one does
//! nothing. Who votes is not in here: that is the membership which Raft itself replicates.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::{self, Epoch, EpochStart, NodeId};
use crate::txid::EpochTxid;

/// So many epoch starts are kept.
const STARTS: usize = 64;
/// So many keys of [`Command::Once`] are kept; the oldest are forgotten first.
const KEYS: usize = 1024;

/// A Raft leader's term. There is at most one leader in a term.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Term(pub u64);

/// Tells one life of a node's claim from another: the node's [`Life`] and a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub String);

/// One run of a node's process; each of its [`Session`]s bears it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Life(pub String);

impl Life {
    /// Its `n`th session.
    pub(crate) fn session(&self, n: u64) -> Session {
        Session(format!("{}-{n}", self.0))
    }

    /// Whether that session was of this life. Those of older nodes bear none.
    pub(crate) fn had(&self, session: &Session) -> bool {
        session.0.rsplit_once('-').is_some_and(|(life, _)| life == self.0)
    }
}

/// Who holds the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "HolderOnWire")]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its life: after a restart it is another holder.
    pub session: Session,
    /// Its epoch.
    pub epoch: Epoch,
}

/// With two fields that nobody reads, and without which an older node refuses the message.
#[derive(Serialize)]
struct HolderOnWire {
    node: NodeId,
    session: Session,
    hostname: &'static str,
    advertise: &'static str,
    epoch: Epoch,
}

impl From<Holder> for HolderOnWire {
    fn from(Holder { node, session, epoch }: Holder) -> Self {
        Self { node, session, hostname: "", advertise: "", epoch }
    }
}

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// Tells this cluster from others; given by its first Raft leader.
    pub(crate) cluster: Option<String>,
    /// Who holds the lease.
    pub holder: Option<Holder>,
    /// The last epoch that was granted.
    pub last_epoch: Epoch,
    /// The epochs that were opened, the newest last.
    pub(crate) starts: VecDeque<EpochStart>,
    /// Sets of candidates, of each of which a majority holds what a client is told a majority holds; two
    /// while one replaces the other. The next primary is chosen among the same. None: all members that
    /// hold data.
    pub(crate) electorates: Vec<Vec<NodeId>>,
    /// Of these the holder does not know yet whether they are candidates: what they acknowledge does not
    /// count.
    pub(crate) unheard: Vec<NodeId>,
    /// How often the present holder has changed them.
    pub(crate) revision: u64,
    /// The last epoch in which a client may have been told that a majority holds its write; 0: none.
    pub(crate) promised: Epoch,
    /// LiteFS' own cluster ID.
    pub(crate) litefs_id: Option<String>,
    /// What was done once, and what the database held then; the newest last.
    pub(crate) once: VecDeque<(String, EpochTxid)>,
    /// The newest generation of each name that was replaced or removed; 0 if it is not listed.
    pub(crate) generations: BTreeMap<NodeId, u64>,
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Names the cluster, if it has no name yet.
    Found { cluster: String },
    /// Grants the vacant lease in the holder's epoch, which has to be the next.
    Acquire(Holder),
    /// The holder's engine has become primary; until then it takes no writes. Said again when it changes
    /// whose acknowledgements count, or promises majorities.
    Opened(Opening),
    /// The holder gives up.
    Release { epoch: Epoch },
    /// The holder did not renew in time.
    Expire {
        epoch: Epoch,
        /// The term of the Raft leader that waited. Void if the entry is of another: that leader has
        /// begun to wait anew.
        term: Term,
    },
    /// The holder of the epoch before passes the lease on; the epoch has to be the next.
    HandOver(Holder),
    /// Sets LiteFS' cluster ID, if there is none or it is the same.
    SetLitefsId { id: String },
    /// Forgets LiteFS' cluster ID.
    ResetLitefsId,
    /// Something was done that is to be done once.
    Once {
        key: String,
        /// What the primary held then: void in another epoch than this.
        at: EpochTxid,
    },
    /// A name's former disk is void; the next node of that name is another one.
    Outdate {
        node: NodeId,
        /// The generation that is void.
        generation: u64,
    },
}

/// How an epoch goes on. Older nodes know only the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Where the epoch began.
    #[serde(flatten)]
    pub(crate) start: EpochStart,
    /// Counts what the holder says of its epoch: what comes late does not undo what came after it.
    #[serde(default)]
    pub(crate) revision: u64,
    /// From now on; `None`: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) electorates: Option<Vec<Vec<NodeId>>>,
    /// Of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unheard: Vec<NodeId>,
    /// Clients are told that a majority holds their writes.
    #[serde(default)]
    pub(crate) promised: bool,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// The table is now as the command wanted it.
    Done,
    /// It came too late, or twice: nothing was changed.
    #[serde(rename = "void")]
    Rejected(String),
}

/// Why a command changes nothing.
enum Void {
    Founded,
    LitefsNamed,
    Held(Holder),
    Vacant,
    /// The leader that waited for the lease to expire leads no more.
    AnotherWaits,
    NotNext {
        last: Epoch,
    },
    BeganOtherwise,
    Over,
    /// It speaks of who counts, and a newer command has come first.
    Overtaken,
    NotGranted,
}

impl Table {
    /// Applies a command of an entry that a leader made in `term`.
    pub(crate) fn apply(&mut self, command: Command, term: Term) -> Applied {
        match self.change(command, term) {
            Ok(()) => Applied::Done,
            Err(why) => Applied::Rejected(why.to_string()),
        }
    }

    fn change(&mut self, command: Command, term: Term) -> Result<(), Void> {
        match command {
            Command::Found { cluster } => set_once(&mut self.cluster, cluster, Void::Founded),
            Command::Acquire(holder) => match &self.holder {
                None => self.grant(holder),
                Some(present) => Err(Void::Held(present.clone())),
            },
            Command::HandOver(to) => match &self.holder {
                Some(_) => self.grant(to),
                None => Err(Void::Vacant),
            },
            Command::Opened(opening) => self.open(opening),
            Command::Release { epoch } => self.vacate(epoch),
            Command::Expire { epoch, term: waited } if waited == term => self.vacate(epoch),
            Command::Expire { .. } => Err(Void::AnotherWaits),
            Command::SetLitefsId { id } => set_once(&mut self.litefs_id, id, Void::LitefsNamed),
            Command::ResetLitefsId => {
                self.litefs_id = None;
                Ok(())
            }
            Command::Once { key, at } => self.remember(key, at),
            Command::Outdate { node, generation } => {
                let newest = self.generations.entry(node).or_default();
                *newest = (*newest).max(generation + 1);
                Ok(())
            }
        }
    }

    /// The holder, if `epoch` and `session` are still its own.
    pub(crate) fn holds(&self, epoch: Epoch, session: &Session) -> Option<&Holder> {
        self.holder.as_ref().filter(|h| h.epoch == epoch && h.session == *session)
    }

    /// Where an epoch began; `None` if it was not opened, or long ago.
    pub(crate) fn start_of(&self, epoch: Epoch) -> Option<&EpochStart> {
        self.starts.iter().rev().find(|start| start.epoch == epoch)
    }

    /// The holder once its epoch is open.
    pub(crate) fn primary(&self) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| self.start_of(holder.epoch).is_some())
    }

    /// Whether something was done that is to be done once. What a failover has lost was not done.
    pub(crate) fn was_done(&self, key: &str) -> bool {
        let lost = |at: EpochTxid| cluster::lost(self.starts.iter().rev(), at);
        self.once.iter().any(|(done, at)| done == key && !lost(*at))
    }

    /// The generation that a node of this name has now, or would have.
    pub fn generation(&self, node: &NodeId) -> u64 {
        self.generations.get(node).copied().unwrap_or(0)
    }

    fn grant(&mut self, holder: Holder) -> Result<(), Void> {
        if holder.epoch.0 != self.last_epoch.0 + 1 {
            return Err(Void::NotNext { last: self.last_epoch });
        }
        self.last_epoch = holder.epoch;
        self.holder = Some(holder);
        Ok(())
    }

    fn open(&mut self, opening: Opening) -> Result<(), Void> {
        let Opening { start, revision, electorates, unheard, promised } = opening;
        let known = self.start_of(start.epoch).copied();
        if known.is_some_and(|known| known != start) {
            return Err(Void::BeganOtherwise);
        }
        if self.holder.as_ref().is_none_or(|holder| holder.epoch != start.epoch) {
            // Without the lease nobody counts any more, and nothing is promised.
            return match known.is_some() && !promised && electorates.is_none() {
                true => Ok(()),
                false => Err(Void::Over),
            };
        }
        let newest = if known.is_some() { self.revision } else { 0 };
        let now = (&self.electorates, &self.unheard);
        let is_late = |new: &Vec<_>| revision == newest && (new, &unheard) != now;
        if revision < newest || electorates.as_ref().is_some_and(is_late) {
            return Err(Void::Overtaken);
        }
        if known.is_none() {
            if self.starts.len() == STARTS {
                self.starts.pop_front();
            }
            self.starts.push_back(start);
        }
        self.revision = revision;
        if let Some(electorates) = electorates {
            (self.electorates, self.unheard) = (electorates, unheard);
        }
        if promised {
            self.promised = start.epoch;
        }
        Ok(())
    }

    fn vacate(&mut self, epoch: Epoch) -> Result<(), Void> {
        match &self.holder {
            Some(holder) if holder.epoch == epoch => {
                self.holder = None;
                Ok(())
            }
            // Whoever wanted it vacant has it so, even if another was faster.
            _ if epoch <= self.last_epoch => Ok(()),
            _ => Err(Void::NotGranted),
        }
    }

    fn remember(&mut self, key: String, at: EpochTxid) -> Result<(), Void> {
        if self.holder.as_ref().is_none_or(|holder| holder.epoch != at.epoch) {
            return Err(Void::Over);
        }
        if self.was_done(&key) {
            return Ok(());
        }
        self.once.retain(|(done, _)| *done != key);
        if self.once.len() == KEYS {
            self.once.pop_front();
        }
        self.once.push_back((key, at));
        Ok(())
    }
}

/// Sets what is set once and for all.
fn set_once(known: &mut Option<String>, value: String, otherwise: Void) -> Result<(), Void> {
    match known {
        Some(known) if *known != value => Err(otherwise),
        _ => {
            *known = Some(value);
            Ok(())
        }
    }
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founded => f.write_str("the cluster has a name already"),
            Self::LitefsNamed => f.write_str("LiteFS has a cluster ID already"),
            Self::Held(holder) => write!(f, "{holder} holds the lease"),
            Self::Vacant => f.write_str("nobody holds the lease"),
            Self::AnotherWaits => f.write_str("another leader waits now"),
            Self::NotNext { last } => write!(f, "the last epoch is {last}"),
            Self::BeganOtherwise => f.write_str("that epoch began otherwise"),
            Self::Over => f.write_str("that epoch is over"),
            Self::Overtaken => f.write_str("who counts was changed since"),
            Self::NotGranted => f.write_str("that epoch was not granted yet"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in epoch {}", self.node, self.epoch)
    }
}

#[cfg(test)]
mod tests;
