//! Who leads after a leader that is known to have died, without waiting until its silence shows it.
//!
//! Every voter that hears of it drops what openraft calls the leader's lease, as if that leader had
//! passed its leadership on. The first of them by name stands for election at once, each next one a
//! little later if nobody has: two at once would split the votes. This is about time only. Whoever is
//! told wrongly costs the cluster an election; a term has one leader all the same.

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use super::shared::RaftNode;
use super::timers::Timers;
use super::types::{Openraft, RaftId, TransferRequest};
use crate::cluster::NodeId;
use crate::election::table::Term;

/// The life of `dead` that may have led in `term` or before is over.
pub(crate) async fn succeed(shared: &RaftNode, dead: &NodeId, term: Term) {
    let (Some(core), Some(own)) = (shared.core(), shared.raft_id()) else { return };
    let seen = shared.leadership.borrow().clone();
    let successors = successors(shared, dead);
    let Some(place) = successors.iter().position(|id| *id == own) else { return };
    if seen.leader.as_ref() != Some(dead) || seen.term > term {
        return;
    }
    shared.forget_leader();
    if place > 0 {
        // Only the lease goes.
        pass_to(&core, successors[0]).await;
        let turn = Timers::of(shared.setup.ttl).heartbeat / 2 * place as u32;
        let mut leadership = shared.leadership.subscribe();
        if timeout(turn, leadership.wait_for(|now| *now != seen)).await.is_ok() {
            return;
        }
    }
    pass_to(&core, own).await;
}

/// The other voters, in the order in which they stand for election.
fn successors(shared: &RaftNode, dead: &NodeId) -> Vec<RaftId> {
    let members = shared.members.borrow();
    let others = members.voters().filter(|member| member.name != *dead);
    others.map(|member| RaftId::of(&member.name, member.generation)).collect()
}

/// As if the leader had said so.
async fn pass_to(core: &Openraft, next: RaftId) {
    let vote = core.server_metrics().borrow_watched().vote;
    // An error means that openraft has ended, or that somebody else stands already.
    let _ = core.handle_transfer_leader(TransferRequest::new(vote, next, None)).await;
}
