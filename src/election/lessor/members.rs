//! Changes who votes: a majority of the new ones has to hold what one of the old has acknowledged.

use std::time::Duration;

use super::super::majority::{self, EVERYTHING};
use super::super::raft::ChangeError;
use super::super::rpc::{Fitness, Request, Response};
use super::Lessor;
use crate::cluster::NodeId;
use crate::control::MemberChange;
use crate::engine::BoxFuture;

impl Lessor {
    /// What a majority of the old members has acknowledged a majority of the new ones has to hold,
    /// before only these count: the holder is asked to see to it.
    pub(super) async fn change_members(&self, change: MemberChange) -> Response {
        let holder = self.context.raft.table().borrow().primary().map(|holder| holder.node.clone());
        let Some(holder) = holder else {
            let why = "there is no primary; members are changed while there is one";
            return Response::Refused(why.to_owned());
        };
        let newcomer = match &change {
            MemberChange::Remove { node } | MemberChange::Replace { node, .. }
                if *node == holder =>
            {
                return majority::stays(node);
            }
            MemberChange::Add { node, .. } | MemberChange::Replace { node, .. } => {
                Some(node.clone())
            }
            MemberChange::Remove { .. } => None,
        };
        let ask = |next| self.ask_holder(holder.clone(), next);
        let pass = async |next| {
            if let Some(newcomer) = &newcomer {
                self.until_level(newcomer, &holder).await?;
            }
            ask(Some(next)).await
        };
        let gate = |next| -> BoxFuture<'_, Result<(), String>> { Box::pin(pass(next)) };
        let changed = self.context.raft.change_members(change, &gate).await;
        if let Err(why) = ask(None).await {
            tracing::warn!(%holder, %why, "the primary does not know yet who counts");
        }
        match changed {
            Ok(()) => Response::Done,
            Err(ChangeError::NotLeader(leader)) => Response::NotLeader(leader),
            Err(ChangeError::Refused(why)) => Response::Refused(why),
        }
    }

    /// A vote is for a node whose engine works and whose copy is complete: it is counted on.
    async fn until_level(&self, newcomer: &NodeId, holder: &NodeId) -> Result<(), String> {
        let limit = self.context.clock.now().after(EVERYTHING);
        let goal = self.fitness_of(holder).await.map(|fitness| fitness.held.at);
        let goal = goal.map_err(|why| format!("the primary does not say what it holds: {why}"))?;
        loop {
            let why = match self.fitness_of(newcomer).await {
                Ok(Fitness { unfit: Some(why), .. }) | Err(why) => why,
                Ok(fitness) if fitness.held.at >= goal => return Ok(()),
                Ok(fitness) => {
                    format!("its copy is at {}, the primary's at {goal}", fitness.held.at)
                }
            };
            if self.context.clock.now() >= limit {
                return Err(format!(
                    "{newcomer} does not vote yet: {why}; fix that, then give the same command again"
                ));
            }
            self.context.pause().await;
        }
    }

    async fn fitness_of(&self, node: &NodeId) -> Result<Fitness, String> {
        let limit = self.context.times.renew;
        match self.context.transport.call(node.clone(), Request::Fitness, limit).await {
            Ok(Response::Fitness(fitness)) => Ok(fitness),
            Ok(Response::Refused(why)) => Err(why),
            Ok(_) => Err("its answer makes no sense".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }

    async fn ask_holder(&self, holder: NodeId, next: Option<Vec<NodeId>>) -> Result<(), String> {
        // The holder itself gives up after EVERYTHING, and says why: that answer should arrive.
        let limit = EVERYTHING + Duration::from_secs(1);
        match self.context.transport.call(holder, Request::Electorate(next), limit).await {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Refused(why)) => Err(why),
            Ok(_) => Err("the primary's answer makes no sense".to_owned()),
            Err(why) => Err(format!("the primary did not answer: {why}")),
        }
    }
}
