//! Raft, by openraft: replicates the lease table. Nothing outside of this module names openraft.
//!
//! | part | subject |
//! | --- | --- |
//! | `store` | what must survive a crash, in one redb file |
//! | `machine` | the table as openraft's state machine |
//! | `identity`, `admission` | which disk a node is, and whether one that is empty may take part |
//! | `message`, `network`, `service` | what nodes ask each other; the asking end; the answering end |
//! | `run` | starts openraft, starts it again when the disk has failed, tells how it stands |
//! | `members` | changes of the membership, one at a time |
//! | `peers` | who may connect, and where they are |
//! | `pace`, `lateness` | a leader's heartbeats; how late this node itself is |
//! | `timers`, `runtime`, `types` | Raft's times; tokio with seeded randomness; openraft's types |
//!
//! A leader that is cut off goes on calling itself leader. So [`Leadership`] is a hint; what may be
//! relied on is an entry that was committed ([`Raft::propose`]) or a quorum that was asked
//! ([`Raft::confirm`]).

mod admission;
mod identity;
mod lateness;
mod machine;
mod members;
mod message;
mod network;
mod pace;
mod peers;
mod recovery;
mod run;
mod runtime;
mod service;
mod shared;
mod store;
mod succession;
mod timers;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use members::{ChangeError, Gate};
pub(crate) use message::{Message, Reply};
pub(crate) use recovery::Recovery;
pub use runtime::seed;
pub use store::Store;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use super::rpc::Transport;
use super::table::{Applied, Command, Table, Term};
use crate::cluster::NodeId;
use crate::config::{HostPort, Target};
use crate::control::MemberChange;
use identity::{DiskId, Identity};
use shared::RaftNode;
use timers::Timers;
use types::{Openraft, Proposal, RaftId, Types};

/// What a node's Raft is started with.
#[derive(Clone, Debug)]
pub struct RaftSetup {
    /// This node.
    pub own: NodeId,
    /// The members of a cluster that begins; the same on every node. Later the cluster itself knows.
    pub seeds: Vec<Member>,
    /// How long a lease lasts: Raft's own times are fractions of it.
    pub ttl: Duration,
}

/// A member of the cluster. This is kept in the replicated membership, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: NodeId,
    /// How often its disk was replaced. Of a configured member: 0.
    pub generation: u64,
    /// Its peer port, `host:port`.
    pub address: String,
    /// It votes, and holds no data.
    pub witness: bool,
}

impl Member {
    /// [`Member::address`] in parts; `None` if it is no address, which nothing agrees upon.
    pub(crate) fn address(&self) -> Option<HostPort> {
        match self.address.parse() {
            Ok(Target::Tcp(address)) => Some(address),
            Ok(Target::Unix(_)) | Err(_) => None,
        }
    }
}

/// The members as this node knows them, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<NodeId, Listed>);

/// One of the [`Members`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// It.
    pub member: Member,
    /// It votes, under this generation or the one that it replaces. If not, it is being added.
    pub(crate) voter: bool,
    /// Its newest disk does not vote: it is being added, or replaced.
    pub(crate) pending: bool,
}

/// Who leads Raft, as far as this node knows. A hint: a leader that is cut off still names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; `None` while there is none that this node knows of.
    pub(crate) leader: Option<NodeId>,
    /// Its term, or the last one that this node has seen.
    pub term: Term,
    /// It is this node, and its table holds all that was agreed upon in earlier terms.
    pub ours: bool,
}

/// Why a command was not agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProposeError {
    /// This node does not lead, that one may. The command was not even considered.
    NotLeader(Option<NodeId>),
    /// It may have been agreed upon, or may still be.
    Unknown(String),
}

/// Why it is not certain that this node still leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConfirmError {
    /// It does not lead, that one may.
    NotLeader(Option<NodeId>),
    /// No majority has answered in time.
    NoQuorum(String),
}

/// This node's part in Raft. Cheap to clone.
#[derive(Clone)]
pub struct Raft(Arc<RaftNode>);

impl Raft {
    /// Begins to take part, in the background: an empty node may have to wait for others first.
    ///
    /// # Errors
    ///
    /// When the store is another node's, or cannot be written; when `ttl` is below 100 ms.
    pub async fn start(
        setup: RaftSetup,
        store: Store,
        transport: Arc<dyn Transport>,
    ) -> io::Result<Self> {
        let config = Timers::of(setup.ttl).config().map_err(io::Error::other)?;
        let identity = match store.identity() {
            Some(identity) if identity.node != setup.own => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the Raft store in this data_dir is of node {}, but this node is {}: give \
                         each node a data_dir of its own",
                        identity.node, setup.own
                    ),
                ));
            }
            Some(identity) => identity,
            None => {
                let node = setup.own.clone();
                let identity =
                    Identity { node, disk: DiskId::new(), admitted: None, cluster: None };
                store.save_identity(identity.clone()).await?;
                identity
            }
        };
        tracing::debug!(node = %identity.node, disk = %identity.disk, "the Raft store is open");
        let shared = Arc::new(RaftNode::new(setup, store, transport));
        tokio::spawn(run::run(shared.clone(), Arc::new(config)));
        Ok(Self(shared))
    }

    /// Who leads, as far as this node knows.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.subscribe()
    }

    /// Whether the others hold this node for no member any more, as far as it knows.
    pub(crate) fn removed(&self) -> watch::Receiver<bool> {
        self.0.removed.subscribe()
    }

    /// The table as this node has applied it; never goes back. Changes at each entry.
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.0.published.table.subscribe()
    }

    /// Who is a member; until this node has heard: who is configured.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.0.members.subscribe()
    }

    /// Who may connect to this node, and where they are: the members, and those whom a newer log
    /// than this node's names.
    pub(crate) fn peers(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, Member>>> {
        self.0.peers.subscribe()
    }

    /// Has a command agreed upon and applied, if this node leads. Never passed on to another.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; after `ttl` it is [`ProposeError::Unknown`].
    pub(crate) async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let core = self.0.core().ok_or(ProposeError::NotLeader(None))?;
        let written = timeout(self.0.setup.ttl, core.client_write(Proposal(command))).await;
        match written {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ProposeError::Unknown("no majority has answered in time".to_owned())),
        }
    }

    /// Asks a majority, after this call, whether this node still leads, and waits until its table
    /// holds all that was agreed upon before this call (ReadIndex of the Raft thesis, section 6.4).
    /// Writes nothing to any disk. Returns that table.
    pub(crate) async fn confirm(&self) -> Result<Arc<Table>, ConfirmError> {
        let limit = Timers::of(self.0.setup.ttl).confirm;
        let core = self.0.core().ok_or(ConfirmError::NotLeader(None))?;
        let fresh = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(limit);
        let confirmed = core.get_read_linearizer(fresh).await.map_err(ConfirmError::from)?;
        match confirmed.try_await_ready(&core, Some(limit)).await {
            Ok(Ok(_)) => Ok(self.0.table()),
            Ok(Err(_)) => Err(ConfirmError::NoQuorum("the table is behind".to_owned())),
            Err(fatal) => Err(ConfirmError::NoQuorum(fatal.to_string())),
        }
    }

    /// Makes another voter the leader, and waits until this node sees that it is.
    ///
    /// # Errors
    ///
    /// When this node does not lead, `to` has no vote, or it does not lead within half a `ttl`; then
    /// another election follows.
    pub(crate) async fn transfer_leadership(&self, to: &NodeId) -> Result<(), ProposeError> {
        let core = self.0.core().ok_or(ProposeError::NotLeader(None))?;
        let leadership = self.leadership().borrow().clone();
        if leadership.leader.as_ref() != Some(&self.0.setup.own) {
            return Err(ProposeError::NotLeader(leadership.leader));
        }
        let voter = self.0.members.borrow().get(to).filter(|listed| listed.voter).cloned();
        let Some(Listed { member, .. }) = voter else {
            return Err(ProposeError::Unknown(format!("{to} has no vote")));
        };
        let failed = |error: &dyn fmt::Display| ProposeError::Unknown(error.to_string());
        let id = RaftId::of(&member.name, member.generation);
        core.trigger().transfer_leader(id).await.map_err(|error| failed(&error))?;
        let mut leadership = self.leadership();
        let gone = leadership.wait_for(|seen| seen.leader.as_ref() == Some(to));
        let passed = matches!(timeout(self.0.setup.ttl / 2, gone).await, Ok(Ok(_)));
        if !passed {
            tokio::spawn(fall_silent(core, self.leadership(), self.0.setup.own.clone()));
            return Err(failed(&format_args!("{to} has not taken over in time")));
        }
        Ok(())
    }

    /// As the leader: makes that other voter the leader which has answered lately and has the most
    /// complete log. One that does not answer is never asked: see [`Raft::transfer_leadership`].
    ///
    /// # Errors
    ///
    /// When this node does not lead, is about to change the members, or no other voter can lead.
    pub(crate) async fn pass_leadership_on(&self) -> Result<(), ProposeError> {
        let core = self.0.core().ok_or(ProposeError::NotLeader(None))?;
        if self.0.changing.try_lock().is_err() {
            return Err(ProposeError::Unknown("the members are being changed".to_owned()));
        }
        let lately = Timers::of(self.0.setup.ttl).heartbeat * 3;
        match run::most_level(&core, lately) {
            Some(next) => self.transfer_leadership(&next).await,
            None => Err(ProposeError::Unknown("no other voter answers".to_owned())),
        }
    }

    /// The life of `dead` that may have led in `term` or before is over: if it is still held for the
    /// leader, another is elected at once.
    pub(crate) async fn succeed(&self, dead: &NodeId, term: Term) {
        succession::succeed(&self.0, dead, term).await;
    }

    /// Changes who votes, one change at a time, and waits until it is done. A node that is added or
    /// comes back with an empty disk gets its vote once its log is level; if that takes too long,
    /// the same call goes on from there. Before another set of nodes votes and holds data, `gate` is
    /// asked.
    ///
    /// # Errors
    ///
    /// When this node does not lead, or it cannot be done, and why.
    pub(crate) async fn change_members<'a>(
        &'a self,
        change: MemberChange,
        gate: Gate<'a>,
    ) -> Result<(), ChangeError> {
        members::change(&self.0, change, gate).await
    }

    /// Whether this node was in contact with a majority within that time: as leader, with all of
    /// them; else, with the leader.
    pub fn in_contact(&self, within: Duration) -> bool {
        let Some(core) = self.0.core() else { return false };
        match self.leadership().borrow().leader.as_ref() == Some(&self.0.setup.own) {
            true => run::quorum_answers(&core, within),
            false => self.0.has_heard(within),
        }
    }

    /// Whether this disk has a vote, as far as this node knows: it was admitted, and does not only
    /// learn yet.
    pub fn votes(&self) -> bool {
        let (core, own) = (self.0.core(), self.0.raft_id());
        core.is_some_and(|core| core.voter_ids().any(|id| Some(id) == own))
    }

    /// Answers a question of another node, `from` as its certificate says.
    pub(crate) async fn answer(&self, from: &NodeId, message: Message) -> Reply {
        service::answer(&self.0, from, message).await
    }

    /// Stops taking part. The store can be opened again once every clone of this is gone.
    pub(crate) async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let mut core = self.0.core.subscribe();
        // An error means that it has ended.
        let _ = core.wait_for(Option::is_none).await;
    }
}

/// openraft's leader proposes nothing any more once it has begun to pass that on. If nobody has taken
/// it, this one has to be given up: the others elect a leader when they hear nothing from it.
async fn fall_silent(core: Openraft, mut leadership: watch::Receiver<Leadership>, own: NodeId) {
    core.runtime_config().heartbeat(false);
    // An error means that it has ended.
    let _ = leadership.wait_for(|seen| seen.leader.as_ref() != Some(&own)).await.map(drop);
    core.runtime_config().heartbeat(true);
}

impl Members {
    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Listed> {
        self.0.values()
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&Listed> {
        self.0.get(node)
    }

    /// Whether a node is one of them.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }

    /// Those that vote and hold data, by name.
    pub(crate) fn data_nodes(&self) -> Vec<NodeId> {
        self.voters().filter(|member| !member.witness).map(|member| member.name.clone()).collect()
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.0.values().filter(|listed| listed.voter).map(|listed| &listed.member)
    }
}

impl From<RaftError<Types, ClientWriteError<Types>>> for ProposeError {
    fn from(error: RaftError<Types, ClientWriteError<Types>>) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                Self::NotLeader(to.leader_node.map(|member| member.name))
            }
            other => Self::Unknown(other.to_string()),
        }
    }
}

impl From<RaftError<Types, LinearizableReadError<Types>>> for ConfirmError {
    fn from(error: RaftError<Types, LinearizableReadError<Types>>) -> Self {
        match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => {
                Self::NotLeader(to.leader_node.map(|member| member.name))
            }
            other => Self::NoQuorum(other.to_string()),
        }
    }
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "{leader} leads, not this node"),
            Self::NotLeader(None) => f.write_str("this node does not lead"),
            Self::Unknown(why) => write!(f, "it is not known what became of it: {why}"),
        }
    }
}

impl fmt::Display for ConfirmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "{leader} leads, not this node"),
            Self::NotLeader(None) => f.write_str("this node does not lead"),
            Self::NoQuorum(why) => write!(f, "no majority: {why}"),
        }
    }
}

impl std::error::Error for ProposeError {}
impl std::error::Error for ConfirmError {}
