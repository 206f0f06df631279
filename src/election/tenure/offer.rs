//! What this node has to offer as primary, and what the others have.

use std::cmp::Reverse;

use tokio::task::JoinSet;

use super::super::rpc::{Fitness, Request, Response};
use super::Tenure;
use crate::cluster::{Epoch, NodeId};
use crate::engine::Held;

impl Tenure {
    /// `epoch` is going to be granted: ends what this node has of earlier ones, stops following whoever
    /// was primary, and says what this node has to offer.
    pub(crate) async fn promise(&self, epoch: Epoch) -> Response {
        self.end_before(epoch);
        if self.context.witness {
            return Response::Refused("a witness holds no data".to_owned());
        }
        // What a disk held that was lost it may have acknowledged: its successor speaks for it only
        // once the cluster has seen to that.
        if !self.context.raft.votes() {
            return Response::Refused("this disk has no vote".to_owned());
        }
        match self.context.engine.promise(epoch).await {
            Ok(held) => Response::Fitness(self.offer(held)),
            Err(why) => Response::Refused(why.to_string()),
        }
    }

    /// Whether this node could be primary, without letting go of anything.
    pub(crate) async fn fitness(&self) -> Response {
        if self.context.witness {
            return Response::Refused("a witness holds no data".to_owned());
        }
        match self.context.engine.held().await {
            Ok(held) => Response::Fitness(self.offer(held)),
            Err(why) => Response::Refused(why.to_string()),
        }
    }

    fn offer(&self, held: Held) -> Fitness {
        let now = self.context.clock.now();
        let failed = self.unfit_until.lock().clone();
        let failed = failed.filter(|(until, _)| now < *until).map(|(_, why)| why);
        Fitness {
            held: held.position,
            empty: held.empty,
            sole_until: held.sole_until,
            candidate: self.context.candidate,
            unfit: self.context.callbacks.unfit().or(failed),
            app_up: self.context.callbacks.app_up(),
            lacks_litefs_id: self.context.engine.lacks_litefs_id(),
            session: self.session(),
        }
    }

    /// The other nodes that could be primary now: those whose application answers before the others,
    /// of these the ones with the most first.
    pub(crate) async fn others_by_fitness(&self) -> Vec<(NodeId, Fitness)> {
        let nodes = self.context.raft.members().borrow().data_nodes();
        let mut asking = JoinSet::new();
        for node in nodes.into_iter().filter(|node| *node != self.context.own) {
            let asked = self.context.transport.call(
                node.clone(),
                Request::Fitness,
                self.context.times.renew,
            );
            asking.spawn(async move { (node, asked.await) });
        }
        let mut fit = Vec::new();
        for (node, answer) in asking.join_all().await {
            if let Ok(Response::Fitness(fitness)) = answer
                && fitness.is_fit()
            {
                fit.push((node, fitness));
            }
        }
        fit.sort_by_key(|(_, fitness)| Reverse((fitness.app_up, fitness.held.at)));
        fit
    }
}
