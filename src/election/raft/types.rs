//! The types that openraft is used with.

use std::fmt;
use std::hash::Hasher;

use openraft::impls::leader_id_std;
use serde::{Deserialize, Serialize};

use super::Member;
use super::runtime::Runtime;
use crate::cluster::NodeId;
use crate::election::table::{Applied, Command, Term};

/// What an entry of the log asks of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Proposal(pub(crate) Command);

openraft::declare_raft_types!(
    /// openraft's configuration by types. One leader per term, as in the paper: a term then names
    /// its leader.
    pub(crate) Types:
        D = Proposal,
        R = Applied,
        NodeId = RaftId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, RaftId>,
        AsyncRuntime = Runtime,
);

pub(crate) type Openraft = openraft::Raft<Types, super::machine::Machine>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Membership = openraft::Membership<RaftId, Member>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Vec<u8>>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<Types>;
pub(crate) type AppendReply = openraft::raft::AppendEntriesResponse<Types>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<Types>;
pub(crate) type VoteReply = openraft::raft::VoteResponse<Types>;
pub(crate) type SnapshotReply = openraft::raft::SnapshotResponse<Types>;
pub(crate) type TransferRequest = openraft::raft::TransferLeaderRequest<Types>;
pub(crate) type TransferReply = openraft::raft::TransferLeaderResponse<Types>;

/// Which node openraft means: one name with one disk. A disk that is lost takes its identity with it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct RaftId(u64);

impl RaftId {
    /// The same on every node and in every version: it is kept on disks.
    pub(crate) fn of(name: &NodeId, generation: u64) -> Self {
        let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
        fnv.write(name.as_str().as_bytes());
        // No name contains a zero byte.
        fnv.write(&[0]);
        fnv.write(&generation.to_le_bytes());
        Self(fnv.finish())
    }
}

impl From<u64> for RaftId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// FNV-1a, 64 bits: stable, unlike the standard library's hasher.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The term of the leader that made an entry.
pub(crate) fn term_of(log_id: &LogId) -> Term {
    Term(log_id.leader_id.term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_everywhere_and_another_for_each_disk() {
        let node: NodeId = "node-1".parse().unwrap();
        assert_eq!(RaftId::of(&node, 0).to_string(), "fc33475129406b79");
        assert_ne!(RaftId::of(&node, 0), RaftId::of(&node, 1));
        assert_ne!(RaftId::of(&node, 0), RaftId::of(&"node-2".parse().unwrap(), 0));
    }
}
