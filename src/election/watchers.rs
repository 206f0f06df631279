//! What ends a tenure from outside the election: an application that is down, an engine that has
//! ceased to be the primary's.

use std::time::Duration;

use tokio::sync::watch;

use super::Election;
use super::clock::until;
use super::context::ElectionContext;
use super::tenure::{Own, come};
use crate::peer::gossip::Peers;
use crate::process::health::Report;

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
