//! How openraft reaches other nodes: over whatever [`Transport`](crate::election::rpc::Transport)
//! the node has.

use std::future::Future;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use super::Member;
use super::message::{AnswerBody, Body, Rpc};
use super::shared::{RaftNode, Unanswered};
use super::timers::Timers;
use super::types::{
    AppendReply, AppendRequest, RaftId, Snapshot, SnapshotReply, TransferReply, TransferRequest,
    Types, Vote, VoteReply, VoteRequest,
};
use crate::cluster::NodeId;
use crate::election::rpc::CallError;

/// Makes a [`RaftClient`] to each node.
pub(crate) struct Network(pub(crate) Arc<RaftNode>);

/// To one node, or rather: to one disk of it.
pub(crate) struct RaftClient {
    shared: Arc<RaftNode>,
    node: NodeId,
    id: RaftId,
    timers: Timers,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = RaftClient;

    async fn new_client(&mut self, id: RaftId, member: &Member) -> RaftClient {
        let timers = Timers::of(self.0.setup.ttl);
        RaftClient { shared: self.0.clone(), node: member.name.clone(), id, timers }
    }
}

type RpcResult<T> = Result<T, RPCError<Types>>;

impl RaftClient {
    async fn ask(&self, rpc: Rpc, limit: Duration) -> RpcResult<AnswerBody> {
        let body = Body::Raft(self.id, Box::new(rpc));
        self.shared.ask(&self.node, body, limit).await.map_err(|error| match error {
            // openraft tries again at once, a few times.
            Unanswered::Call(CallError::Lost(why)) => NetworkError::from_string(why).into(),
            // It waits first.
            Unanswered::Call(CallError::Unreachable(why) | CallError::NotAMember(why)) => {
                Unreachable::from_string(why).into()
            }
            Unanswered::Refused(refusal) => Unreachable::from_string(refusal).into(),
        })
    }
}

fn strange<T>() -> RpcResult<T> {
    Err(Unreachable::from_string("it answers another question").into())
}

impl RaftNetworkV2<Types> for RaftClient {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> RpcResult<AppendReply> {
        // Entries are answered once they are on the other disk, which may be slow.
        let limit = if rpc.entries.is_empty() { option.hard_ttl() } else { self.timers.append };
        match self.ask(Rpc::Append(rpc), limit).await? {
            AnswerBody::Append(reply) => Ok(reply),
            _ => strange(),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> RpcResult<VoteReply> {
        match self.ask(Rpc::Vote(rpc), option.hard_ttl()).await? {
            AnswerBody::Vote(reply) => Ok(reply),
            _ => strange(),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> RpcResult<VoteReply> {
        match self.ask(Rpc::PreVote(rpc), option.hard_ttl()).await? {
            AnswerBody::Vote(reply) => Ok(reply),
            _ => strange(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotReply, StreamingError<Types>> {
        // One message: a table is small, and a limit of time ends it as well as a cancellation.
        let table =
            String::from_utf8(snapshot.snapshot).map_err(|error| Unreachable::new(&error))?;
        let rpc = Rpc::Snapshot { vote, meta: snapshot.meta, table };
        match self.ask(rpc, self.timers.snapshot).await? {
            AnswerBody::Snapshot(reply) => Ok(reply),
            _ => Ok(strange()?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> RpcResult<TransferReply> {
        match self.ask(Rpc::Transfer(request), option.hard_ttl()).await? {
            AnswerBody::Transfer(reply) => Ok(reply),
            _ => strange(),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(iter::repeat(self.timers.heartbeat)))
    }
}
