//! The admin port: health checks, status, metrics, events and a page for people; and what operators
//! ask for.
//!
//! It knows the node only through a [`Status`](crate::status::Status) made anew for each request,
//! counts and events that others write, the view of the cluster, and the [`Control`] that does what is
//! asked for. It runs on the control thread: nothing here may block, and every number of connections,
//! streams and bytes is bounded.

mod body;
pub(crate) mod change;
mod checks;
pub(crate) mod client;
pub(crate) mod conversation;
mod feed;
mod forward;
mod host;
pub(crate) mod on_primary;
mod page;
mod reply;
mod routes;
mod server;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod token;

use std::sync::Arc;
use std::time::Duration;

pub use host::Hosts;
pub use server::{AdminLimits, serve};

use tokio::sync::watch;

use crate::cluster::ClusterView;
use crate::control::Control;
use crate::shutdown::Urgency;
use crate::status::StatusSource;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use token::Token;

/// What the admin port shows and guards.
pub struct Admin {
    /// Makes the status shown.
    pub status: StatusSource,
    /// Who is primary, and whether this node may take writes.
    pub view: watch::Receiver<ClusterView>,
    /// Does what operators ask for.
    pub control: Arc<dyn Control>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What happened.
    pub events: Arc<Events>,
    /// For anything that changes state.
    pub token: Token,
    /// The names that this port answers to.
    pub hosts: Hosts,
    /// `proxy.max_lag`: a replica further behind is unhealthy.
    pub max_lag: Duration,
    /// Whether the node has been told to stop.
    pub stopping: watch::Receiver<Urgency>,
}
