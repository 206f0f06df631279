//! What the parts of a node work with, and what the election asks of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::disk::DiskState;
use super::hooks::Hooks;
use super::programs::Programs;
use crate::acks::Acks;
use crate::claim::BootTime;
use crate::cluster::{ClusterView, Epoch};
use crate::election::context::{NodeCallbacks, Observation};
use crate::engine::{BoxFuture, Engine};
use crate::process::guard::{Deadline, Guard, SharedDeadline};
use crate::process::health::AppHealth;
use crate::proxy::learned::LearnedRoutes;
use crate::proxy::writes::Writes;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::warnings::Warnings;
use crate::txid::EpochTxid;

/// What the parts of a node work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeContext {
    pub(crate) engine: Arc<dyn Engine>,
    /// What the workers act on.
    pub(crate) view: watch::Receiver<ClusterView>,
    /// Whether the application answers.
    pub(crate) health: AppHealth,
    /// As the primary: how far the database was when the application was first found up.
    pub(crate) app_wrote: Arc<watch::Sender<Option<EpochTxid>>>,
    /// `on_promote` and the like.
    pub(crate) hooks: Hooks,
    /// The application and its services.
    pub(crate) programs: Programs,
    /// Kills what this node starts when it cannot.
    pub(crate) guard: Option<Guard>,
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
        // One that rests here is started by the promotion.
        self.health.is_up() || self.programs.app_rests()
    }

    fn promoted(&self, epoch: Epoch) -> BoxFuture<'static, bool> {
        let (hook, programs) = (self.hooks.promoted(epoch), self.programs.clone());
        Box::pin(async move {
            let may_write = hook.await;
            if may_write {
                programs.promoted().await;
            }
            may_write
        })
    }

    fn demoted(&self, epoch: Epoch) {
        self.hooks.demoted(epoch);
    }

    fn wind_down(&self, limit: Duration) -> BoxFuture<'static, ()> {
        let programs = self.programs.clone();
        Box::pin(async move { programs.wind_down(limit).await })
    }

    fn wind_up(&self) {
        self.programs.wind_up();
    }

    fn writes_done(&self) -> BoxFuture<'static, ()> {
        let (writes, mut view) = (self.writes.clone(), self.view.clone());
        let programs = self.programs.clone();
        Box::pin(async move {
            // Before the workers know that they may take no more, none under way means nothing.
            if view.wait_for(|view| !view.writable).await.is_ok() {
                writes.none_under_way().await;
                // What still runs of them could write past the requests.
                programs.primary_rests().await;
            }
        })
    }

    fn deadline(&self, deadline: Option<BootTime>) -> bool {
        let of_primary = self.programs.set_deadline(deadline);
        self.deadline.set(deadline.map_or(Deadline::None, Deadline::At)) && of_primary
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
