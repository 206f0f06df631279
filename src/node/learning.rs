//! Keeps what this node knows of routes that write: on a replica what the primary tells, on the primary
//! what is not too old. Whoever becomes primary goes on from what it was told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::ClusterView;
use crate::peer::gossip::{Peers, Routes};
use crate::proxy::learned::LearnedRoutes;

/// Between two looks for what is too old.
const LOOK: Duration = Duration::from_secs(60);

/// Never returns as long as there is somebody to hear of.
pub(super) async fn keep(
    learned: Arc<LearnedRoutes>,
    mut view: watch::Receiver<ClusterView>,
    mut heard: watch::Receiver<Peers>,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut adopted = None;
    loop {
        tokio::select! {
            _ = look.tick() => if view.borrow().takes_writes() { learned.expire() },
            changed = heard.changed() => if changed.is_err() { return },
            changed = view.changed() => if changed.is_err() { return },
        }
        let told = told(&view.borrow(), &heard.borrow_and_update());
        // What was adopted already may be older than what was found out here since.
        if let Some(told) = told.filter(|told| adopted.as_ref() != Some(told)) {
            learned.adopt(&told.0);
            adopted = Some(told);
        }
    }
}

/// What another node tells as the primary.
fn told(view: &ClusterView, heard: &Peers) -> Option<Routes> {
    let primary = view.primary.as_ref().filter(|primary| primary.node != view.node)?;
    let report = &heard.get(&primary.node)?.report;
    report.learned.clone().filter(|_| report.epoch == primary.epoch)
}
