//! What every part of the election works with, and what it asks of the node around it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::Clock;
use super::raft::Raft;
use super::rpc::{CallError, Request, Response, Transport};
use super::table::{Applied, Command, Life};
use super::times::Times;
use crate::acks::Acks;
use crate::claim::BootTime;
use crate::cluster::{Epoch, NodeId};
use crate::engine::{BoxFuture, Engine};
use crate::peer::gossip::Peers;

/// What every part of the election works with.
pub struct ElectionContext {
    /// This node.
    pub own: NodeId,
    /// This run of its process.
    pub life: Life,
    /// It may become primary.
    pub candidate: bool,
    /// It holds no data.
    pub witness: bool,
    /// Clients are promised majorities by default (`cluster.ack`). Of a primary of an older version, which
    /// does not have that agreed upon, the same is assumed.
    pub promises: bool,
    /// The lease in time.
    pub times: Times,
    /// Replicates the table.
    pub raft: Raft,
    /// To the other nodes. [`super::Election::new`] has it answer calls to this node as well.
    pub transport: Arc<dyn Transport>,
    /// This node's.
    pub clock: Arc<dyn Clock>,
    /// Keeps the database.
    pub engine: Arc<dyn Engine>,
    /// What replicas hold.
    pub acks: Arc<Acks>,
    /// What the other nodes say of themselves.
    pub peers: watch::Receiver<Peers>,
    /// The node around the election.
    pub callbacks: Arc<dyn NodeCallbacks>,
}

/// By this the election calls the node that it runs on.
pub trait NodeCallbacks: Send + Sync + 'static {
    /// Why this node cannot become primary now, as far as the election cannot know: its engine does not
    /// work, the node stops.
    fn unfit(&self) -> Option<String>;

    /// Whether the application answers: of nodes that hold the same, such a one becomes primary.
    fn app_up(&self) -> bool;

    /// Runs `on_promote`. Whether this node may take writes now.
    fn promoted(&self, epoch: Epoch) -> BoxFuture<'static, bool>;

    /// This node has ceased to be primary.
    fn demoted(&self, epoch: Epoch);

    /// Ends the primary's services, within `limit`: a handoff comes, and requests go on until then.
    fn wind_down(&self, limit: Duration) -> BoxFuture<'static, ()>;

    /// The handoff has not come about, and this node still takes writes.
    fn wind_up(&self);

    /// Ready once no write is under way here. New ones are held meanwhile.
    fn writes_done(&self) -> BoxFuture<'static, ()>;

    /// What runs under the guard is killed at `deadline`, unless another one is given before. Whether
    /// the guard knows: without one that does a tenure must not begin.
    fn deadline(&self, deadline: Option<BootTime>) -> bool;

    /// Something happened that is counted.
    fn observe(&self, observation: Observation);

    /// Something happened that operators want to know.
    fn event(&self, kind: &'static str, text: String);
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Another node, or another epoch, takes writes; after nobody did for `failover`.
    NewPrimary {
        failover: Option<Duration>,
    },
    QuorumLost,
    /// Two nodes claim the same epoch.
    SplitBrain,
}

impl ElectionContext {
    pub(crate) async fn pause(&self) {
        self.clock.sleep(self.times.pause).await;
    }

    /// Between two leaders there is none for a moment: waits for the next one, as long as a majority
    /// that is there may need.
    pub(crate) async fn until_somebody_leads(&self) {
        let mut leadership = self.raft.leadership();
        tokio::select! {
            _ = leadership.wait_for(|now| now.leader.is_some()) => {}
            () = self.clock.sleep(self.times.ttl) => {}
        }
    }

    /// Asks whoever leads Raft, once.
    pub(crate) async fn ask_leader(
        &self,
        request: Request,
        limit: Duration,
    ) -> Result<Response, CallError> {
        let leader = self.raft.leadership().borrow().leader.clone();
        match leader {
            None => Err(CallError::Unreachable("nobody leads Raft".to_owned())),
            Some(leader) => self.transport.call(leader, request, limit).await,
        }
    }

    /// Has `command` agreed upon, however often the leader changes meanwhile.
    ///
    /// # Errors
    ///
    /// Why it was not within `limit`; it still may be.
    pub(crate) async fn propose(
        &self,
        command: Command,
        limit: Duration,
    ) -> Result<Applied, String> {
        let end = self.clock.now().after(limit);
        loop {
            let request = Request::Propose(command.clone());
            let why = match self.ask_leader(request, self.times.ttl / 2).await {
                Ok(Response::Proposed(applied)) => return Ok(applied),
                Ok(Response::Refused(why)) => return Err(why),
                Ok(_) => "the leader has just changed".to_owned(),
                Err(why) => why.to_string(),
            };
            if self.clock.now() >= end {
                return Err(why);
            }
            self.pause().await;
        }
    }
}
