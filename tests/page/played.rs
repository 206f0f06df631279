//! A real admin port of a node whose cluster the test plays.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use litepilot::admin::{Admin, AdminLimits, Hosts, serve};
use litepilot::cluster::{ClusterView, Epoch, NodeId};
use litepilot::control::{Control, ControlError, MemberChange, MemberStatus, OnceKey, Promoted};
use litepilot::engine::BoxFuture;
use litepilot::shutdown::Urgency;
use litepilot::status::Status;
use litepilot::telemetry::events::Events;
use litepilot::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::harness::until;

pub const TOKEN: &str = "0123456789abcdef";

/// The node. Dropping it ends it at once.
pub struct Played {
    pub address: SocketAddr,
    pub events: Arc<Events>,
    pub metrics: Arc<Metrics>,
    pub steered: Arc<Steered>,
    runtime: Option<Runtime>,
}

/// Makes whoever is asked for the primary, but for the last node, which lags.
pub struct Steered {
    status: Mutex<Value>,
    asked: Mutex<Vec<String>>,
}

impl Played {
    /// So many nodes; the first one, which is ours, is primary.
    pub fn of(nodes: usize) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), nodes, AdminLimits::default())
    }

    /// Likewise, at an address of one that is gone, or with other limits.
    pub fn at(address: SocketAddr, nodes: usize, limits: AdminLimits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // The one that was there before ends in its own time.
        let mut bound = None;
        until("the port is free", || {
            bound = runtime.block_on(TcpListener::bind(address)).ok();
            bound.is_some()
        });
        let listener = bound.unwrap();
        let address = listener.local_addr().unwrap();
        let steered =
            Arc::new(Steered { status: Mutex::new(status(nodes)), asked: Mutex::default() });
        let (events, metrics) = (Arc::<Events>::default(), Metrics::new(1));
        let (shown, view) =
            (steered.clone(), watch::channel(ClusterView::single(name(1), Epoch(1))));
        let admin = Admin {
            status: Arc::new(move || shown.status()),
            view: view.1,
            control: steered.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
            token: TOKEN.parse().unwrap(),
            hosts: Hosts::new(&[]),
            max_lag: std::time::Duration::from_secs(10),
            stopping: watch::channel(Urgency::None).1,
        };
        runtime.spawn(async move {
            let _view = view.0;
            serve(listener, admin, limits, std::future::pending()).await;
        });
        Self { address, events, metrics, steered, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // Without waiting for streams that have no end.
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Steered {
    /// Changes what the node says from now on.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        change(&mut self.status.lock().unwrap());
    }

    /// Whom it was asked to promote.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn status(&self) -> Status {
        serde_json::from_value(self.status.lock().unwrap().clone()).unwrap()
    }
}

impl Control for Steered {
    fn promote(
        &self,
        node: Option<NodeId>,
        _: bool,
    ) -> BoxFuture<'_, Result<Promoted, ControlError>> {
        Box::pin(async move {
            let node = node.unwrap();
            self.asked.lock().unwrap().push(node.to_string());
            let last = self.status().nodes.last().unwrap().node.clone();
            if node == last {
                let why = "its copy is too far behind".to_owned();
                return Err(ControlError::NotFit { node, why });
            }
            self.change(|status| {
                status["primary"] =
                    json!({"node": node, "epoch": 2, "since": "2026-11-20T12:00:00Z"});
            });
            Ok(Promoted { node, epoch: Epoch(2) })
        })
    }

    fn members(&self) -> Result<Vec<MemberStatus>, ControlError> {
        Ok(Vec::new())
    }

    fn change_members(&self, _: MemberChange) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Err(ControlError::NoQuorum) })
    }

    fn was_done(&self, _: OnceKey) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async { Ok(false) })
    }

    fn remember(&self, _: OnceKey, _: Epoch) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Err(ControlError::NoQuorum) })
    }
}

fn name(number: usize) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

fn status(nodes: usize) -> Value {
    let position = json!({"epoch": 1, "txid": "00000000000000ff"});
    let member = |i: usize| {
        let role = if i == 1 { "primary" } else { "replica" };
        json!({"node": name(i), "role": role, "reachable": true, "position": position, "lag_ms": 3 * (i - 1)})
    };
    json!({
        "node": "node-1", "role": "primary", "writable": true, "quorum": true,
        "primary": {"node": "node-1", "epoch": 1, "since": "2026-11-20T11:00:00Z"},
        "position": position, "lag_ms": 0,
        "litefs": {"engine": "litefs", "state": "running", "pid": 41, "restarts": 0},
        "app": {"state": "up", "pid": 42, "restarts": 0},
        "nodes": (1..=nodes).map(member).collect::<Vec<_>>(),
        "raft": {"leader": "node-1", "term": 3},
        "suspected_writes": [], "version": "0.1.0",
    })
}
