//! What ends a tenure from outside the election: an application that is down, an engine that has
//! ceased to be the primary's.

use std::time::Duration;

use tokio::sync::watch;

use super::Election;
use super::clock::until;
use super::context::ElectionContext;
use super::tenure::{Own, come};
use crate::peer::gossip::Peers;
use crate::process::child::{ChildState, Phase};
use crate::process::health::{AppHealth, Report};

/// A handoff takes about as long.
const BACK_SOON: Duration = Duration::from_millis(150);

/// Hands over when this node is the primary, its application has been down for `down_after`, and
/// another's answers. One that was down already when the tenure began has as long as it could hold up
/// a choice.
pub async fn watch_app(
    election: Election,
    mut health: watch::Receiver<Report>,
    down_after: Duration,
) {
    let context = election.context().clone();
    let (mut own, mut peers) = (election.own(), context.peers.clone());
    loop {
        come(&mut health, |report| !report.up).await;
        let outage = health.borrow().down_since;
        let limit = match is_primary(&context, &own.borrow()) {
            true => down_after,
            false => context.times.hold_up.min(down_after),
        };
        let relief = async {
            come(&mut own, |own| is_primary(&context, own)).await;
            until(&*context.clock, context.clock.now().after(limit)).await;
            come(&mut peers, answers_elsewhere).await;
        };
        tokio::select! {
            biased;
            () = come(&mut health, |report| report.up || report.down_since != outage) => continue,
            () = relief => {}
        }
        if !is_primary(&context, &own.borrow()) {
            continue;
        }
        let text = "this primary's application is down: another node takes over";
        context.callbacks.event("app-down", text.to_owned());
        if let Err(why) = election.pass_to_app().await {
            tracing::warn!(%why, "cannot hand over; trying again");
        }
    }
}

fn is_primary(context: &ElectionContext, own: &Own) -> bool {
    own.open && own.claim.is_valid_at(context.clock.now())
}

fn answers_elsewhere(peers: &Peers) -> bool {
    peers.values().any(|heard| heard.reachable && heard.report.app_up)
}

/// Hands over when this node's application has ended by itself and is not back in a moment, and
/// another's answers: clients need not wait until it has started again.
pub(crate) async fn watch_child(
    election: Election,
    mut child: watch::Receiver<ChildState>,
    health: AppHealth,
) {
    let context = election.context().clone();
    let own = election.own();
    loop {
        come(&mut child, |child| child.state == Phase::Backoff).await;
        let back = async {
            come(&mut child.clone(), |child| child.state == Phase::Running).await;
            health.recovered().await;
        };
        tokio::select! {
            biased;
            () = back => continue,
            () = context.clock.sleep(BACK_SOON) => {}
        }
        if is_primary(&context, &own.borrow()) {
            match election.pass_to_app().await {
                Ok(()) => {
                    let text =
                        "this primary's application has ended: another node takes over meanwhile";
                    context.callbacks.event("app-down", text.to_owned());
                }
                Err(why) => {
                    tracing::info!(%why, "nobody takes over from an application that has ended")
                }
            }
        }
        come(&mut child, |child| child.state == Phase::Running).await;
    }
}

/// Ends this node's tenure when its engine has ceased to be the primary's.
pub async fn watch_engine(election: Election) {
    let engine = election.context().engine.clone();
    let mut own = election.own();
    loop {
        let epoch = engine.lost().await;
        election.engine_lost(epoch);
        // That epoch is over for good, but the engine says so until it is a replica's.
        come(&mut own, |own| own.epoch > epoch).await;
    }
}
