//! A running node, and how it stops.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::hooks::Hooks;
use super::membership::Participation;
use super::programs::Programs;
use crate::config::Config;
use crate::engine::Engine;
use crate::process::service_manager;
use crate::proxy::DataPlane;
use crate::shutdown::{Deadline, Urgency};

pub(super) struct Running {
    pub(super) config: Config,
    /// All but a witness have it.
    pub(super) data: Option<DataSide>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) participation: Participation,
    pub(super) hooks: Hooks,
    /// Health checks and the like.
    pub(super) tasks: JoinSet<()>,
    pub(super) draining: watch::Sender<bool>,
    pub(super) admin: JoinHandle<()>,
    pub(super) admin_stop: watch::Sender<bool>,
    pub(super) stopping: watch::Receiver<Urgency>,
}

/// What serves requests: not on a witness.
pub(super) struct DataSide {
    pub(super) data_plane: DataPlane,
    pub(super) programs: Programs,
}

impl Running {
    /// Runs until told to stop, then stops the parts in order.
    pub(super) async fn run(mut self) {
        let _ = self.stopping.wait_for(|urgency| *urgency != Urgency::None).await;
        service_manager::tell("STOPPING=1");
        let limit = self.config.shutdown_delay + self.config.shutdown_timeout;
        let deadline = Deadline::new(limit, self.stopping.clone());
        if let Participation::Elected(part) = &self.participation {
            // While requests are still taken: nobody is to notice.
            deadline.phase("hand off", part.resign(self.config.shutdown_timeout / 3)).await;
        }
        if !self.config.shutdown_delay.is_zero() {
            // The health checks say it: whoever goes by them sends nobody here any more.
            deadline.phase("delay", sleep(self.config.shutdown_delay)).await;
        }
        // The port closes first, so that clients go elsewhere while those under way are finished.
        self.draining.send_replace(true);
        if let Some(data) = self.data.take() {
            data.stop(&deadline).await;
        }
        if let Participation::Elected(part) = &self.participation {
            // Nobody writes here any more: others need not wait until the lease expires.
            deadline.phase("lease", part.abdicate()).await;
        }
        // `on_demote`, if this node was the primary.
        deadline.phase("hooks", self.hooks.settled()).await;
        self.participation.stop().await;
        self.tasks.shutdown().await;
        // After the application, which has the database open until it ends. Whatever the deadline: it
        // takes a few seconds at most, and a mount that is left behind is in the way of the next start.
        self.engine.stop().await;
        // Last, so that the stopping can be watched.
        self.admin_stop.send_replace(true);
        let _ = self.admin.await;
        tracing::info!("stopped");
    }
}

impl DataSide {
    /// Ends requests, then the application.
    async fn stop(self, deadline: &Deadline) {
        deadline.phase("drain", self.data_plane.drained()).await;
        let left = self.data_plane.connections();
        if left > 0 {
            tracing::warn!("{left} client connections are cut: they did not end in time");
        }
        self.data_plane.stop();
        self.programs.stop(deadline).await;
    }
}
