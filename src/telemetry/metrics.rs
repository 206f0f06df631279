//! Counters of the data plane, one set per worker so that nothing is shared on a request's path,
//! and the Prometheus text made of their sums.
//!
//! What a node *is* (role, lag, position) is not counted here: those gauges are read from its
//! [`Status`] at each scrape, so that `/metrics` and `/status` cannot disagree.

mod family;
mod histogram;
mod labels;
mod node;
pub(crate) mod traffic;
mod worker;

use std::sync::Arc;

use prometheus::TextEncoder;

pub use labels::Route;
pub(crate) use labels::{ReadWait, Replay};
pub(crate) use node::{CertificateUse, NodeMetrics};
pub(crate) use worker::{Held, WorkerMetrics};

use crate::status::Status;
use crate::telemetry::log_throttle::may_say;

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything that is counted in this process.
pub struct Metrics {
    workers: Vec<Arc<WorkerMetrics>>,
    node: NodeMetrics,
}

impl Metrics {
    /// Counters for that number of data-plane workers; one at least.
    pub fn new(workers: usize) -> Arc<Self> {
        let workers = (0..workers.max(1)).map(|_| Arc::new(WorkerMetrics::new())).collect();
        Arc::new(Self { workers, node: NodeMetrics::default() })
    }

    /// The counters of worker `i`, from 0. More workers than were announced share some.
    pub fn worker(&self, i: usize) -> Arc<WorkerMetrics> {
        self.workers[i % self.workers.len()].clone()
    }

    /// What is counted once per node, since it is rare.
    pub(crate) fn node(&self) -> &NodeMetrics {
        &self.node
    }

    /// How many requests were sent again to the primary.
    pub(crate) fn replays(&self) -> u64 {
        worker::replays(&self.workers)
    }

    /// All of it in Prometheus' text format, with the gauges that follow from `status`.
    pub fn render(&self, status: &Status) -> String {
        let mut families = node::gauges(status);
        families.extend(self.node.families());
        families.extend(worker::families(&self.workers));
        // The encoder refuses a family without samples, such as requests before the first one.
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = String::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text)
            && let Some(held_back) = may_say("metrics")
        {
            tracing::error!(%error, held_back, "metrics are incomplete");
        }
        text
    }
}

#[cfg(test)]
mod tests;
