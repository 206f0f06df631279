//! The end of a response: it is counted, logged, and its connection is idle again.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::access::Logged;
use super::client::Client;
use super::exchange::Exchange;
use crate::config::Access;
use crate::rules::Class;
use crate::telemetry::metrics::{Replay, Route, WorkerMetrics};

/// Lives as long as a response is on its way.
pub(crate) struct Finish {
    client: Rc<Client>,
    metrics: Arc<WorkerMetrics>,
    class: Class,
    route: Route,
    replay: Option<Replay>,
    status: StatusCode,
    started: Instant,
    held: bool,
    access_log: Access,
    logged: Option<Box<Logged>>,
}

impl Finish {
    /// For the answer to `exchange`.
    pub(crate) fn new(exchange: &mut Exchange, status: StatusCode) -> Self {
        Self {
            client: exchange.client.clone(),
            metrics: exchange.worker.metrics.clone(),
            class: exchange.class(),
            route: exchange.progress.route,
            replay: exchange.progress.replay.as_ref().map(|replay| replay.reason),
            status,
            started: exchange.facts.started,
            held: exchange.progress.held,
            access_log: exchange.worker.shared.access_log,
            logged: exchange.logged.take(),
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let now = Instant::now();
        self.client.idle(now);
        let took = now.duration_since(self.started);
        self.metrics.request(self.class, self.route, self.status, took);
        if self.held {
            self.metrics.held_request(took);
        }
        if let Some(logged) = &self.logged
            && self.access_log.has(self.class)
        {
            logged.write(self.class, self.route, self.replay, self.status, took);
        }
    }
}
