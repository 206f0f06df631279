//! An admin port that shows and does what a test says, and the program that asks it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litepilot::admin::{Admin, AdminLimits, Hosts, serve};
use litepilot::cluster::{ClusterView, Epoch, NodeId};
use litepilot::control::{Control, ControlError, MemberChange, MemberStatus, OnceKey, Promoted};
use litepilot::engine::BoxFuture;
use litepilot::shutdown::Urgency;
use litepilot::status::{PrimaryStatus, Status, StatusSource};
use litepilot::telemetry::events::Events;
use litepilot::telemetry::metrics::Metrics;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;

const TOKEN: &str = "0123456789abcdef";

/// The port. Its control is that of a cluster with two members, of which `node-2` cannot be primary.
pub struct Node {
    pub address: SocketAddr,
    pub status: Arc<Mutex<Status>>,
    pub events: Arc<Events>,
    view: watch::Sender<ClusterView>,
    dir: TempDir,
}

impl Node {
    pub async fn start() -> Self {
        let (node, listener) = Self::bound().await;
        let shown = node.status.clone();
        node.serve(listener, Arc::new(move || shown.lock().unwrap().clone()));
        node
    }

    /// A node that does not serve yet.
    pub async fn bound() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(Mutex::new(status()));
        let dir = tempfile::tempdir().unwrap();
        write_private(&dir.path().join("token"), TOKEN);
        let view = ClusterView::single("node-1".parse().unwrap(), Epoch(3));
        let (events, view) = (Arc::default(), watch::Sender::new(view));
        (Self { address, status, events, view, dir }, listener)
    }

    pub fn serve(&self, listener: TcpListener, status: StatusSource) {
        let admin = Admin {
            status,
            view: self.view.subscribe(),
            control: Arc::new(Pair),
            metrics: Metrics::new(1),
            events: self.events.clone(),
            token: TOKEN.parse().unwrap(),
            hosts: Hosts::new(&[]),
            max_lag: Duration::from_secs(10),
            stopping: watch::channel(Urgency::None).1,
        };
        tokio::spawn(serve(listener, admin, AdminLimits::default(), std::future::pending()));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A file that holds the token.
    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Runs a command of the program that asks this node.
    pub async fn asked(&self, args: &[&str]) -> Output {
        let (url, token_file) = (self.url(), self.token_file());
        let node = ["--admin", &url, "--token-file", token_file.to_str().unwrap()];
        run(&[args, &node].concat()).await
    }
}

pub fn status() -> Status {
    let position = serde_json::json!({"epoch": 3, "txid": "000000000000002a"});
    serde_json::from_value(serde_json::json!({
        "node": "node-1",
        "role": "replica",
        "writable": false,
        "primary": null,
        "quorum": true,
        "position": position,
        "lag_ms": 12,
        "litefs": {"engine": "embedded", "state": "running", "pid": null, "restarts": 0},
        "app": {"state": "up", "pid": 4711, "restarts": 0},
        "nodes": [
            {"node": "node-1", "role": "replica", "reachable": true, "position": position, "lag_ms": 12},
            {"node": "node-2", "role": "primary", "reachable": false, "position": null, "lag_ms": null},
        ],
        "version": "0.1.0",
    }))
    .unwrap()
}

pub fn a_primary() -> Option<PrimaryStatus> {
    serde_json::from_value(serde_json::json!(
        {"node": "node-2", "epoch": 3, "since": "2026-11-20T11:31:32.5Z"}
    ))
    .unwrap()
}

/// Readable by its owner alone, as the program wants it.
pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Steers two nodes.
struct Pair;

impl Control for Pair {
    fn promote(
        &self,
        node: Option<NodeId>,
        force: bool,
    ) -> BoxFuture<'_, Result<Promoted, ControlError>> {
        let here: NodeId = "node-1".parse().unwrap();
        let node = node.unwrap_or_else(|| here.clone());
        let promoted = match node.as_str() {
            "node-1" => Ok(Promoted { node, epoch: Epoch(4) }),
            "node-2" if force => Ok(Promoted { node, epoch: Epoch(5) }),
            "node-2" => Err(ControlError::NotFit { node, why: "its application is down".into() }),
            _ => Err(ControlError::UnknownNode(node)),
        };
        Box::pin(async { promoted })
    }

    fn members(&self) -> Result<Vec<MemberStatus>, ControlError> {
        let member = |node: &str, witness| MemberStatus {
            node: node.parse().unwrap(),
            address: "127.0.0.1:4321".parse().unwrap(),
            witness,
            voter: true,
            generation: 0,
        };
        Ok(vec![member("node-1", false), member("node-2", true)])
    }

    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<(), ControlError>> {
        let refused = match change {
            MemberChange::Add { address, .. } if address.port == 4324 => None,
            MemberChange::Replace { node, generation: Some(0) } if node.as_str() == "node-2" => {
                None
            }
            change => Some(ControlError::Refused(format!("not {change:?}"))),
        };
        Box::pin(async { refused.map_or(Ok(()), Err) })
    }

    fn was_done(&self, _key: OnceKey) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async { Ok(false) })
    }

    fn remember(&self, _key: OnceKey, _epoch: Epoch) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Err(ControlError::NoQuorum) })
    }
}

pub fn litepilot(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litepilot"));
    command.args(args).kill_on_drop(true);
    command
}

pub async fn run(args: &[&str]) -> Output {
    litepilot(args).output().await.unwrap()
}

pub fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
