//! What nodes say to each other about the election, and how: one request, one answer, by JSON.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::raft;
use super::table::{Applied, Command, Holder, Life, Session, Term};
use crate::cluster::{Epoch, NodeId};
use crate::control::MemberChange;
use crate::engine::BoxFuture;
use crate::txid::{EpochTxid, Position};

/// A question from one node to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Raft(raft::Message),
    /// To the Raft leader: the holder is alive.
    Renew {
        epoch: Epoch,
        session: Session,
    },
    /// To the Raft leader: have this agreed upon.
    Propose(Command),
    /// From the Raft leader to everybody: the lease is vacant, and `epoch` will be granted next.
    #[serde(rename = "prepare")]
    Promise {
        /// The epoch that will be granted.
        epoch: Epoch,
    },
    /// From the Raft leader to the one that was chosen, so that it need not wait until Raft tells it.
    Granted(Holder),
    /// From the holder to its chosen successor: everything is fenced and `at` is the last state.
    TakeOver {
        /// The epoch that ends.
        epoch: Epoch,
        /// What the holder's copy holds.
        at: Position,
    },
    /// From the successor to the holder: end your claim of `epoch` now, and say so.
    Yield {
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// Are you fit to be primary?
    Fitness,
    /// To the Raft leader: change who votes.
    Members(MemberChange),
    /// From the Raft leader to the holder: from now on a majority of these has to hold a write, too;
    /// say when it holds everything. `None`: the membership is what it is.
    Electorate(Option<Vec<NodeId>>),
    /// To the holder: hand the lease over to this node.
    Promote(NodeId),
    /// The asker's process has died, and nothing of what it had started is left: neither a claim of that
    /// life, nor a leadership of Raft up to that term.
    Ended {
        life: Life,
        /// The last that it has seen.
        term: Term,
    },
    /// To the Raft leader: the lease is vacant; give it to this node although it may lack data that
    /// others have.
    Force(NodeId),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Raft`].
    Raft(raft::Reply),
    /// The lease was renewed.
    Renewed,
    /// The lease is not that session's any more, for good.
    #[serde(rename = "gone")]
    LeaseLost,
    /// The command was agreed upon, and this became of it.
    Proposed(Applied),
    /// To [`Request::Promise`] and [`Request::Fitness`].
    Fitness(Fitness),
    Done,
    /// This node does not lead Raft, or does not hold the lease; that one may.
    #[serde(rename = "elsewhere")]
    NotLeader(Option<NodeId>),
    /// It cannot be done, and why.
    Refused(String),
}

/// What a node has to offer as primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "FitnessOnWire")]
pub struct Fitness {
    /// What its copy holds.
    pub(crate) held: Position,
    /// Nothing was ever written to its copy.
    pub(crate) empty: bool,
    /// It may become primary at all: it holds data and is a candidate.
    pub(crate) candidate: bool,
    /// Why it cannot become primary at this moment; `None`: it can.
    pub(crate) unfit: Option<String>,
    /// Its application answers: preferred, and no condition, since an application that writes at its
    /// start answers nowhere before there is a primary. An older node says it by `unfit`.
    #[serde(default = "yes")]
    pub(crate) app_up: bool,
    /// See [`crate::engine::Engine::lacks_litefs_id`]. Older nodes do not say.
    #[serde(default)]
    pub(crate) lacks_litefs_id: bool,
    /// It knows of several databases, and until then there was one. See [`crate::engine::Held`].
    #[serde(default)]
    pub(crate) sole_until: Option<EpochTxid>,
    /// Its life, for the lease.
    pub(crate) session: Session,
}

/// With two fields that nobody reads, and without which an older node refuses the message.
#[derive(Serialize)]
struct FitnessOnWire {
    held: Position,
    empty: bool,
    candidate: bool,
    unfit: Option<String>,
    app_up: bool,
    lacks_litefs_id: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sole_until: Option<EpochTxid>,
    session: Session,
    hostname: &'static str,
    advertise: &'static str,
}

impl From<Fitness> for FitnessOnWire {
    fn from(fitness: Fitness) -> Self {
        let Fitness { held, empty, candidate, unfit, .. } = fitness;
        let Fitness { app_up, lacks_litefs_id, sole_until, session, .. } = fitness;
        Self {
            held,
            empty,
            candidate,
            unfit,
            app_up,
            lacks_litefs_id,
            sole_until,
            session,
            hostname: "",
            advertise: "",
        }
    }
}

fn yes() -> bool {
    true
}

impl Fitness {
    /// Whoever has this, as the holder of `epoch`.
    pub(crate) fn holder(&self, node: NodeId, epoch: Epoch) -> Holder {
        Holder { node, session: self.session.clone(), epoch }
    }
}

/// Why there is no answer. Whether the other side got the question is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// There is no connection to that node.
    Unreachable(String),
    /// It is there, and takes this node for no member.
    NotAMember(String),
    /// None came in time, or the connection broke before it did.
    Lost(String),
}

/// Carries requests to other nodes. The real one runs over the peer port; `tests/sim` has another.
pub trait Transport: Send + Sync + 'static {
    /// Asks `to`, and waits for the answer for at most `limit`.
    fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Response, CallError>>;
}

/// Answers the questions of other nodes.
pub trait Service: Send + Sync + 'static {
    /// `from` is who asks, as its certificate says.
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Response>;
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::NotAMember(why) => write!(f, "not reachable: {why}"),
            Self::Lost(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl std::error::Error for CallError {}
