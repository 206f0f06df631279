//! Changes of the membership, made by the leader, one at a time.
//!
//! Each step leaves a cluster that works. If the leader is lost between two of them, the same change
//! asked for again goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use super::run;
use super::shared::RaftNode;
use super::timers::Timers;
use super::types::{Openraft, RaftId, StoredMembership};
use super::{Listed, Member, ProposeError, Raft};
use crate::cluster::NodeId;
use crate::config::HostPort;
use crate::control::MemberChange;
use crate::election::table::Command;
use crate::engine::BoxFuture;

/// For a node that was added to be level.
const LEVEL_WITHIN: Duration = Duration::from_secs(20);
/// For each step of a change to be agreed upon.
const STEP: Duration = Duration::from_secs(10);

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChangeError {
    /// This node does not lead, that one may.
    NotLeader(Option<NodeId>),
    /// It cannot be done, or not yet, and what to do.
    Refused(String),
}

/// Asked before a change takes effect, with the names of those who vote and hold data then: whoever
/// waits for acknowledgements has to be told, and to have enough of them.
pub(crate) type Gate<'a> =
    &'a (dyn Fn(Vec<NodeId>) -> BoxFuture<'a, Result<(), String>> + Send + Sync);

pub(crate) async fn change<'a>(
    shared: &'a Arc<RaftNode>,
    change: MemberChange,
    gate: Gate<'a>,
) -> Result<(), ChangeError> {
    let Some(core) = shared.core() else { return Err(ChangeError::NotLeader(None)) };
    let leadership = shared.leadership.borrow().clone();
    if !leadership.ours {
        return Err(ChangeError::NotLeader(leadership.leader));
    }
    let Ok(_one_at_a_time) = shared.changing.try_lock() else {
        return Err(refused("another change of the members is under way: wait for its end"));
    };
    let changer = Changer { shared, core, gate };
    match change {
        MemberChange::Add { node, address } => changer.add(node, &address).await,
        MemberChange::Remove { node } => changer.remove(node).await,
        MemberChange::Replace { node, generation } => changer.replace(node, generation).await,
    }
}

struct Changer<'a> {
    shared: &'a Arc<RaftNode>,
    core: Openraft,
    gate: Gate<'a>,
}

impl Changer<'_> {
    async fn add(&self, name: NodeId, address: &HostPort) -> Result<(), ChangeError> {
        let address = address.to_string();
        let generation = self.shared.table().generation(&name);
        let known = self.shared.members.borrow().get(&name).cloned();
        let Some(Listed { member, voter, .. }) = known else {
            return self.admit(Member { name, generation, address, witness: false }).await;
        };
        if member.address != address {
            let is = if voter { "is a member already" } else { "is being added" };
            let known = member.address;
            return Err(refused(format!(
                "{name} {is}, at {known}: remove it first to add it elsewhere"
            )));
        }
        // One that votes and answers was asked for before: that is only finished.
        if voter && !self.shared.has_its_disk(&name, member.generation).await {
            return Err(refused(format!(
                "{name} is a member already: start it, or if its disk is lost let it come back with \
                 `litepilot members replace {name}`"
            )));
        }
        self.admit(Member { generation, ..member }).await
    }

    async fn remove(&self, name: NodeId) -> Result<(), ChangeError> {
        self.not_of_this_node(&name).await?;
        let ids = self.ids(&name);
        let voters: BTreeSet<_> = self.membership().voter_ids().collect();
        let generation = self.shared.generation(&name);
        if ids.is_empty() && self.shared.store.memory().seen.disk(&name, generation).is_none() {
            return Err(refused(format!("{name} is no member")));
        }
        let left = &voters - &ids;
        if left.is_empty() {
            return Err(refused(format!("{name} is the last member that votes")));
        }
        if left != voters {
            self.pass(&left).await?;
            self.step(ChangeMembers::ReplaceAllVoters(left)).await?;
        } else if !ids.is_empty() {
            self.step(ChangeMembers::RemoveNodes(ids)).await?;
        }
        self.outdate(name, generation).await
    }

    /// The disk of the generation `lost` counts no more; `None`: the newest.
    async fn replace(&self, name: NodeId, lost: Option<u64>) -> Result<(), ChangeError> {
        self.not_of_this_node(&name).await?;
        let known = self.shared.members.borrow().get(&name).cloned();
        let Some(Listed { member, .. }) = known else {
            return Err(refused(format!("{name} is no member: add it instead")));
        };
        let newest = member.generation;
        let mut generation = self.shared.table().generation(&name).max(newest);
        let votes = self.membership().voter_ids().any(|id| id == RaftId::of(&name, newest));
        // Else its place is free, or taken by another disk already: that is only finished.
        if votes && generation == newest && lost.is_none_or(|lost| lost >= newest) {
            if self.shared.has_its_disk(&name, newest).await {
                return Err(refused(format!(
                    "{name} answers with the disk that votes: if that is to count no more, stop it first"
                )));
            }
            self.outdate(name, newest).await?;
            generation += 1;
        }
        self.admit(Member { generation, ..member }).await
    }

    /// Makes `member` a voter, in the place of its former disks, once its log is level.
    async fn admit(&self, member: Member) -> Result<(), ChangeError> {
        let name = member.name.clone();
        let id = RaftId::of(&name, member.generation);
        let taken = self.membership().get_node(&id).is_some_and(|known| known.name != name);
        if taken {
            return Err(refused(format!("{name} cannot be told from another node: rename it")));
        }
        if self.membership().get_node(&id).is_none() {
            self.step(ChangeMembers::AddNodes(BTreeMap::from([(id, member)]))).await?;
        }
        if timeout(LEVEL_WITHIN, self.level(id)).await.is_err() {
            return Err(refused(format!(
                "{name} has not caught up within {} s and does not vote yet: see that it runs, \
                 with an empty data_dir and this cluster's configuration, and is reachable; then \
                 give the same command again",
                LEVEL_WITHIN.as_secs()
            )));
        }
        let mut voters: BTreeSet<_> = self.membership().voter_ids().collect();
        voters = &voters - &self.ids(&name);
        voters.insert(id);
        self.pass(&voters).await?;
        self.step(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Asks the gate, unless the disks that hold data stay the same.
    async fn pass(&self, voters: &BTreeSet<RaftId>) -> Result<(), ChangeError> {
        let membership = self.membership();
        let data = |ids: &BTreeSet<RaftId>| -> BTreeMap<RaftId, NodeId> {
            let members = ids.iter().filter_map(|id| Some((*id, membership.get_node(id)?)));
            let data = members.filter(|(_, member)| !member.witness);
            data.map(|(id, member)| (id, member.name.clone())).collect()
        };
        let then = data(voters);
        if data(&membership.voter_ids().collect()) == then {
            return Ok(());
        }
        (self.gate)(then.into_values().collect()).await.map_err(refused)
    }

    /// Waits until a node's log holds all that ours does now.
    async fn level(&self, id: RaftId) {
        let mut metrics = self.core.data_metrics();
        let goal = metrics.borrow_watched().last_log.map(|last| last.index);
        let is_level = |metrics: &openraft::metrics::RaftDataMetrics<_>| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied());
            matched.flatten().map(|matched| matched.index) >= goal
        };
        while !is_level(&metrics.borrow_watched()) {
            // If openraft has ended, or this node leads no more, the next step says so.
            if metrics.changed().await.is_err() || metrics.borrow_watched().replication.is_none() {
                return;
            }
        }
    }

    /// A leader does not decide on its own disk: another one has to lead first.
    async fn not_of_this_node(&self, name: &NodeId) -> Result<(), ChangeError> {
        if *name != self.shared.setup.own {
            return Ok(());
        }
        let lately = Timers::of(self.shared.setup.ttl).heartbeat * 3;
        let Some(next) = run::most_level(&self.core, lately) else {
            return Err(refused(format!("{name} is the only node that could lead")));
        };
        match Raft(self.shared.clone()).transfer_leadership(&next).await {
            Ok(()) => Err(ChangeError::NotLeader(Some(next))),
            Err(error) => {
                Err(refused(format!("{name} leads now, and cannot pass that on: {error}")))
            }
        }
    }

    async fn outdate(&self, node: NodeId, generation: u64) -> Result<(), ChangeError> {
        let raft = Raft(self.shared.clone());
        raft.propose(Command::Outdate { node, generation }).await?;
        Ok(())
    }

    async fn step(&self, change: ChangeMembers<RaftId, Member>) -> Result<(), ChangeError> {
        // What is not named in a change stays, but former voters go.
        let retain = false;
        match timeout(STEP, self.core.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ProposeError::from(error).into()),
            Err(_) => Err(refused("no majority has agreed in time: it may still happen")),
        }
    }

    fn membership(&self) -> StoredMembership {
        StoredMembership::clone(&self.core.server_metrics().borrow_watched().membership_config)
    }

    /// All disks of a name that are members.
    fn ids(&self, name: &NodeId) -> BTreeSet<RaftId> {
        let membership = self.membership();
        membership.nodes().filter(|(_, node)| node.name == *name).map(|(id, _)| *id).collect()
    }
}

fn refused(why: impl Into<String>) -> ChangeError {
    ChangeError::Refused(why.into())
}

impl From<ProposeError> for ChangeError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader(leader) => Self::NotLeader(leader),
            ProposeError::Unknown(why) => Self::Refused(why),
        }
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(Some(leader)) => write!(f, "{leader} leads, not this node"),
            Self::NotLeader(None) => f.write_str("this node does not lead"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ChangeError {}
