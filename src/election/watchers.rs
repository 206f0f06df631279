//! What fails a primary, as far as the election can see it by itself: an application that is down, an
//! engine that has ceased to be the primary's.

use std::time::Duration;

use tokio::sync::watch;

use super::Election;
use super::clock::until;
use super::failure::{Failure, Relief, hand_over_on, is_primary, until_primary};
use super::tenure::come;
use crate::peer::gossip::Peers;
use crate::process::child::{ChildState, Phase};
use crate::process::health::{AppHealth, Report};

/// A handoff takes about as long.
const BACK_SOON: Duration = Duration::from_millis(150);

/// Hands over when this node is the primary, its application has been down for `down_after`, and
/// another's answers. One that was down already when the tenure began has as long as it could hold up
/// a choice.
pub async fn watch_app(election: Election, health: watch::Receiver<Report>, down_after: Duration) {
    hand_over_on(election.clone(), AppDown { election, health, down_after }).await;
}

struct AppDown {
    election: Election,
    health: watch::Receiver<Report>,
    down_after: Duration,
}

impl Failure for AppDown {
    const EVENT: (&'static str, &'static str) =
        ("app-down", "this primary's application is down: another node has taken over");
    const RELIEF: Relief = Relief::OtherApp;

    async fn lasts(&mut self) {
        loop {
            come(&mut self.health, |report| !report.up).await;
            let outage = self.health.borrow().down_since;
            let relief = relief(&self.election, self.down_after);
            tokio::select! {
                biased;
                () = come(&mut self.health, |now| now.up || now.down_since != outage) => {}
                () = relief => return,
            }
        }
    }

    async fn may_last(&mut self) {}
}

/// Ready once an application that is down now has been so for too long, on a primary, and another's
/// answers.
async fn relief(election: &Election, down_after: Duration) {
    let context = election.context();
    let limit = match is_primary(context, &election.own().borrow()) {
        true => down_after,
        false => context.times.hold_up.min(down_after),
    };
    until_primary(election).await;
    until(&*context.clock, context.clock.now().after(limit)).await;
    come(&mut context.peers.clone(), answers_elsewhere).await;
}

fn answers_elsewhere(peers: &Peers) -> bool {
    peers.values().any(|heard| heard.reachable && heard.report.app_up)
}

/// Hands over when this node's application has ended by itself and is not back in a moment, and
/// another's answers: clients need not wait until it has started again.
pub(crate) async fn watch_child(
    election: Election,
    child: watch::Receiver<ChildState>,
    health: AppHealth,
) {
    hand_over_on(election.clone(), AppEnded { election, child, health }).await;
}

struct AppEnded {
    election: Election,
    child: watch::Receiver<ChildState>,
    health: AppHealth,
}

impl Failure for AppEnded {
    const EVENT: (&'static str, &'static str) =
        ("app-down", "this primary's application has ended: another node has taken over");
    const RELIEF: Relief = Relief::OtherApp;

    async fn lasts(&mut self) {
        loop {
            come(&mut self.child, |child| child.state == Phase::Backoff).await;
            let back = async {
                come(&mut self.child.clone(), |child| child.state == Phase::Running).await;
                self.health.recovered().await;
            };
            tokio::select! {
                biased;
                () = back => {}
                () = self.election.context().clock.sleep(BACK_SOON) => return,
            }
        }
    }

    async fn may_last(&mut self) {
        come(&mut self.child, |child| child.state == Phase::Running).await;
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
