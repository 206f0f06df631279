//! The answering end: what others ask, and who is answered.

use std::sync::Arc;

use openraft::errors::{Fatal, RaftError};

use super::identity::Fit;
use super::message::{
    AnswerBody, Answered, Body, Greeting, Hello, Message, RaftRefusal, Reply, Rpc, Sender,
};
use super::shared::RaftNode;
use super::types::{AppendReply, Openraft, Snapshot};
use crate::cluster::NodeId;

pub(crate) async fn answer(shared: &Arc<RaftNode>, from: &NodeId, message: Message) -> Reply {
    let answered = match message.body {
        Body::Hello(hello) => greet(shared, from, &message.sender, &hello).await,
        Body::Raft(to, rpc) => match shared.core() {
            Some(_) if shared.raft_id() != Some(to) => Err(RaftRefusal::NotMe),
            Some(core) => match shared.check(from, &message.sender).await {
                Ok(()) => run(shared, &core, *rpc).await,
                Err(refusal) => Err(refusal),
            },
            None => Err(RaftRefusal::NotReady),
        },
    };
    Reply(answered.and_then(|body| {
        let sender = shared.sender().ok_or(RaftRefusal::NotReady)?;
        Ok(Answered { sender, body })
    }))
}

async fn run(shared: &RaftNode, core: &Openraft, rpc: Rpc) -> Result<AnswerBody, RaftRefusal> {
    match rpc {
        Rpc::Append(request) => {
            let reply = core.append_entries(request).await.map_err(stopped)?;
            if !matches!(reply, AppendReply::HigherVote(_)) {
                shared.hear();
            }
            Ok(AnswerBody::Append(reply))
        }
        Rpc::Vote(request) => core.vote(request).await.map(AnswerBody::Vote).map_err(stopped),
        Rpc::PreVote(request) => {
            core.pre_vote(request).await.map(AnswerBody::Vote).map_err(stopped)
        }
        Rpc::Snapshot { vote, meta, table } => {
            let snapshot = Snapshot { meta, snapshot: table.into_bytes() };
            let reply = core.install_full_snapshot(vote, snapshot).await.map_err(ended)?;
            if reply.vote == vote {
                shared.hear();
            }
            Ok(AnswerBody::Snapshot(reply))
        }
        Rpc::Transfer(request) => {
            core.handle_transfer_leader(request).await.map(AnswerBody::Transfer).map_err(ended)
        }
    }
}

/// openraft has ended, for instance because the disk is full; `run` says so.
fn stopped(_: RaftError<super::types::Types>) -> RaftRefusal {
    RaftRefusal::NotReady
}

fn ended(_: Fatal<super::types::Types>) -> RaftRefusal {
    RaftRefusal::NotReady
}

async fn greet(
    shared: &RaftNode,
    from: &NodeId,
    sender: &Sender,
    hello: &Hello,
) -> Result<AnswerBody, RaftRefusal> {
    shared.same_cluster(sender)?;
    let generation = shared.generation(from);
    if hello.register == Some(generation) && shared.members.borrow().get(from).is_some() {
        let sender = Sender { generation, ..sender.clone() };
        match shared.remember(from, &sender).await {
            Ok(Fit::Known | Fit::New) => {}
            Ok(Fit::Other | Fit::Outdated) => {
                shared.say(from, "it comes with another disk than before; it is not let in");
            }
            Err(_) => return Err(RaftRefusal::NotReady),
        }
    }
    let known = shared.store.memory().seen.disk(from, generation).cloned();
    let begun = begun(shared);
    let (members, as_of) = match (begun, shared.core()) {
        (true, Some(core)) => {
            use openraft::async_runtime::watch::WatchReceiver;
            let membership = core.server_metrics().borrow_watched().membership_config.clone();
            let members = membership.nodes().map(|(_, member)| member.clone()).collect();
            (members, *membership.log_id())
        }
        (true, None) => return Err(RaftRefusal::NotReady),
        (false, _) => (shared.setup.seeds.clone(), None),
    };
    Ok(AnswerBody::Hello(Greeting { begun, members, as_of, known, generation }))
}

/// Whether this node has ever seen that somebody stood for election: until then it holds nothing but
/// what it was configured with.
fn begun(shared: &RaftNode) -> bool {
    let memory = shared.store.memory();
    let admitted = memory.identity.as_ref().is_some_and(|identity| identity.admitted.is_some());
    let founder = memory.vote.is_none()
        && memory.log.keys().all(|index| *index == 0)
        && !memory.log.is_empty();
    admitted && !founder
}
