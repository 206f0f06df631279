//! What the parts of a node work with, and what the election asks of it.

use std::sync::Arc;

use tokio::sync::watch;

use super::disk::DiskState;
use super::hooks::Hooks;
use crate::acks::Acks;
use crate::claim::BootTime;
use crate::cluster::{ClusterView, Epoch};
use crate::election::context::{NodeCallbacks, Observation};
use crate::engine::{BoxFuture, Engine};
use crate::process::guard::{Deadline, SharedDeadline};
use crate::process::health::AppHealth;
use crate::proxy::learned::LearnedRoutes;
use crate::proxy::writes::Writes;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::warnings::Warnings;

/// What the parts of a node work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeContext {
    pub(crate) engine: Arc<dyn Engine>,
    /// What the workers act on.
    pub(crate) view: watch::Receiver<ClusterView>,
    /// Whether the application answers.
    pub(crate) health: AppHealth,
    /// `on_promote` and the like.
    pub(crate) hooks: Hooks,
    pub(crate) writes: Arc<Writes>,
    /// Routes that were found to write.
    pub(crate) learned: Arc<LearnedRoutes>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
    /// What is wrong now.
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) disk: DiskState,
    /// When the guard kills what this node has started.
    pub(crate) deadline: SharedDeadline,
    /// Set once the node begins to stop.
    pub(crate) draining: watch::Receiver<bool>,
}

impl NodeCallbacks for NodeContext {
    fn unfit(&self) -> Option<String> {
        if *self.draining.borrow() {
            return Some("it is stopping".to_owned());
        }
        self.engine.unfit().or_else(|| self.disk.unfit())
    }

    fn app_up(&self) -> bool {
        self.health.is_up()
    }

    fn promoted(&self, epoch: Epoch) -> BoxFuture<'static, bool> {
        self.hooks.promoted(epoch)
    }

    fn demoted(&self, epoch: Epoch) {
        self.hooks.demoted(epoch);
    }

    fn writes_done(&self) -> BoxFuture<'static, ()> {
        let (writes, mut view) = (self.writes.clone(), self.view.clone());
        Box::pin(async move {
            // Before the workers know that they may take no more, none under way means nothing.
            if view.wait_for(|view| !view.writable).await.is_ok() {
                writes.none_under_way().await;
            }
        })
    }

    fn deadline(&self, deadline: Option<BootTime>) -> bool {
        self.deadline.set(deadline.map_or(Deadline::None, Deadline::At))
    }

    fn observe(&self, observation: Observation) {
        let metrics = self.metrics.node();
        match observation {
            Observation::NewPrimary { failover } => {
                metrics.elections.inc();
                if let Some(took) = failover {
                    metrics.failover(took);
                }
            }
            Observation::QuorumLost => metrics.quorum_losses.inc(),
            Observation::SplitBrain => metrics.split_brain.inc(),
        }
    }

    fn event(&self, kind: &'static str, text: String) {
        self.events.record(kind, text);
    }
}
