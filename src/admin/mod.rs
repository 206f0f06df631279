//! The admin port: health checks, status, metrics, events and a page for people.
//!
//! It knows the node only through a [`Status`](crate::status::Status) made anew for each request,
//! and counts and events that others write. It runs on the control thread: nothing here may block,
//! and every number of connections, streams and bytes is bounded.

mod checks;
mod host;
mod page;
mod reply;
mod routes;
mod server;
mod stream;
#[cfg(test)]
mod tests;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

pub use host::Hosts;
pub use server::{Limits, serve};

use crate::status::StatusSource;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use token::Token;

/// What the admin port shows and guards.
pub struct Admin {
    /// Makes the status shown.
    pub status: StatusSource,
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
}
