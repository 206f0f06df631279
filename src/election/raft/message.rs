//! What Raft's nodes say to each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Member;
use super::identity::DiskId;
use super::types::{
    AppendReply, AppendRequest, LogId, RaftId, SnapshotMeta, SnapshotReply, TransferReply,
    TransferRequest, Vote, VoteReply, VoteRequest,
};

/// A question of Raft's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    pub(super) sender: Sender,
    pub(super) body: Body,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply(pub(super) Result<Answered, RaftRefusal>);

/// Who speaks; its name comes with the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sender {
    /// The cluster it is of, once it knows.
    pub(crate) cluster: Option<String>,
    pub(crate) generation: u64,
    pub(crate) disk: DiskId,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    Hello(Hello),
    /// openraft's own, for one disk only: whoever has taken its name must not answer for it.
    Raft(RaftId, Box<Rpc>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rpc {
    Append(AppendRequest),
    Vote(VoteRequest),
    PreVote(VoteRequest),
    Snapshot { vote: Vote, meta: SnapshotMeta, table: String },
    Transfer(TransferRequest),
}

/// The answer, and who gave it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) sender: Sender,
    pub(crate) body: AnswerBody,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerBody {
    Hello(Greeting),
    Append(AppendReply),
    Vote(VoteReply),
    Snapshot(SnapshotReply),
    Transfer(TransferReply),
}

/// Whoever is new, or was restarted, asks everybody what they know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Remember my disk under this generation, if you know no other.
    pub(crate) register: Option<u64>,
}

/// What the one who was asked knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// There is a cluster: somebody was elected here once. If not, `members` are what it was
    /// configured with.
    pub(crate) begun: bool,
    /// Who votes, and who is to.
    pub(crate) members: Vec<Member>,
    /// The entry that says so.
    pub(crate) as_of: Option<LogId>,
    /// The disk that it knows under the asker's name and the generation that the asker has now.
    pub(crate) known: Option<DiskId>,
    pub(crate) generation: u64,
}

/// Why a question was not considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RaftRefusal {
    /// The asker is of another cluster than this one.
    OtherCluster(String),
    /// The asker's disk was replaced, or removed from the cluster: this is the newest generation.
    Outdated(u64),
    /// Under the asker's name another disk is known.
    OtherDisk,
    /// The question is for another disk than the one here.
    NotMe,
    /// This node does not take part yet, or just now.
    NotReady,
}

impl fmt::Display for RaftRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster(name) => write!(
                f,
                "it belongs to cluster {name}: one of the two has the data_dir of another cluster"
            ),
            Self::Outdated(_) => f.write_str("this node's disk was replaced or removed"),
            Self::OtherDisk => f.write_str(
                "it knows another disk under this node's name: either this node has lost its \
                 data_dir or has another node's, or two nodes have one name",
            ),
            Self::NotMe => f.write_str("its disk is another one now"),
            Self::NotReady => f.write_str("it does not take part in elections yet"),
        }
    }
}
