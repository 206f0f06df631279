//! What a node says of itself and of the cluster: the one snapshot behind `/status`, the health
//! checks, the gauges and `litepilot status`.
//!
//! Plain data. The node makes it, everybody else reads it, so that no two answers can disagree.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::{Epoch, NodeId, Primary, Role};
use crate::engine::EngineState;
use crate::telemetry::clock::rfc3339;
use crate::txid::EpochTxid;

/// Makes a snapshot. Called for each request to the admin port: it must be cheap and not block.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A node at one moment, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// It may take writes now: it is the primary and its claim is valid.
    pub writable: bool,
    /// Who takes writes; `None` while this node hears of nobody.
    pub primary: Option<PrimaryStatus>,
    /// Why nobody takes writes, and what to do; `None` while somebody does, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_primary: Option<String>,
    /// A majority of the voters is in contact.
    pub quorum: bool,
    /// How far this node's copy is.
    pub position: EpochTxid,
    /// How far this copy is behind the primary's, in milliseconds; 0 on the primary, `None` while
    /// it cannot be known.
    pub lag_ms: Option<u64>,
    /// The engine that keeps the database, LiteFS or not.
    pub litefs: EngineStatus,
    /// The application.
    pub app: AppStatus,
    /// What runs beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceStatus>,
    /// Every member of the cluster, this node included.
    pub nodes: Vec<Member>,
    /// Who leads Raft, which the application never notices; `None` without an election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<RaftStatus>,
    /// Requests that its rules call reads and that seem to have written here.
    #[serde(default)]
    pub suspected_writes: Vec<SuspectedWrite>,
    /// Routes that were found to write although no rule says so; replicas send them to the primary.
    #[serde(default)]
    pub learned_writes: Vec<LearnedWrite>,
    /// What is wrong with this node now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The continuous backup, if one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// The version of Litepilot on this node.
    pub version: String,
}

/// The continuous backup, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// Where it is kept.
    pub(crate) place: String,
    /// How old the oldest transaction is that is not kept yet; `None` on a node that is not the primary.
    pub(crate) lag_ms: Option<u64>,
    /// How many are not kept yet; `None` while that is not known.
    pub(crate) lag_transactions: Option<u64>,
    /// When something was kept last (RFC 3339, UTC), by this node since it became the primary.
    pub(crate) last: Option<String>,
    /// Why nothing is kept just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Something that is wrong now and needs an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// In one word, as the event that told it.
    pub kind: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl From<(&str, String)> for Warning {
    fn from((kind, text): (&str, String)) -> Self {
        Self { kind: kind.to_owned(), text }
    }
}

/// Requests that seem to have written although a rule calls them reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectedWrite {
    /// Method and path; `*` stands for what differs.
    pub request: String,
    /// The rule that called the last one a read, as `file:line`.
    pub(crate) rule: String,
    /// How many there were since the start.
    pub count: u64,
    /// How many of these were refused here, on a replica, and sent to the primary.
    #[serde(default)]
    pub refused: u64,
    /// When the last one was (RFC 3339, UTC).
    pub(crate) last: String,
    /// An item of `rules:` that calls them writes.
    pub mend: String,
}

/// A route that was found to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedWrite {
    /// Method and path; `*` stands for what differs.
    pub request: String,
    /// How many were seen to write by this node.
    pub count: u64,
    /// When it wrote last, as far as this node knows (RFC 3339, UTC).
    pub(crate) last: String,
    /// An item of `rules:` that says so.
    pub rule: String,
}

/// The primary, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryStatus {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    /// When this node first heard of that epoch (RFC 3339, UTC).
    pub(crate) since: String,
}

/// How Raft stands, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftStatus {
    /// The leader; `None` while this node knows of none.
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: u64,
    /// This node was removed from the cluster, or its disk was replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
}

/// The engine, in a form that can be read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// `litefs`, `external` or `embedded`.
    pub(crate) engine: String,
    /// `starting`, `running`, `waiting` (no database yet), `failed: …` or `not replicated: …`.
    pub(crate) state: String,
    /// The process, if the engine is one of ours.
    pub(crate) pid: Option<u32>,
    /// How often it was restarted.
    pub(crate) restarts: u64,
}

/// The application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Whether it answers.
    pub state: AppState,
    /// Its process, if we started it.
    pub pid: Option<u32>,
    /// How often we restarted it.
    pub restarts: u64,
    /// What it waits for, or what keeps it from running, and what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A program that runs beside the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// `running`, `starting`, `backoff` (it ended, and is started again), `failed` (it cannot be started),
    /// `resting` (it runs on the primary only), `stopped`.
    pub state: String,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// How often it was restarted.
    pub(crate) restarts: u64,
}

/// Whether the application answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppState {
    /// It answered the last check.
    Up,
    Down,
    /// It runs on the primary only, which this node is not.
    Standby,
}

/// One member of the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: NodeId,
    pub(crate) role: Role,
    /// This node hears from it; always true of itself.
    pub(crate) reachable: bool,
    /// How far its copy was when last heard of; `None` if never, and of witnesses.
    pub(crate) position: Option<EpochTxid>,
    /// How far that is behind the primary's, in milliseconds, if that can be known.
    pub(crate) lag_ms: Option<u64>,
}

impl From<&Primary> for PrimaryStatus {
    fn from(primary: &Primary) -> Self {
        Self { node: primary.node.clone(), epoch: primary.epoch, since: rfc3339(primary.since) }
    }
}

impl From<EngineState> for EngineStatus {
    fn from(state: EngineState) -> Self {
        Self {
            engine: state.engine.to_owned(),
            state: state.state,
            pid: state.pid,
            restarts: state.restarts,
        }
    }
}

impl From<bool> for AppState {
    fn from(up: bool) -> Self {
        if up { Self::Up } else { Self::Down }
    }
}

impl Status {
    /// How far behind this copy is, if that can be known.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.lag_ms.map(Duration::from_millis)
    }

    /// The engine works, with or without a database so far.
    pub(crate) fn engine_works(&self) -> bool {
        let state = &self.litefs.state;
        !state.starts_with("failed") && state != "starting"
    }
}

/// The state of a node on its own, for tests here and in the modules that read it.
#[cfg(test)]
pub(crate) fn example() -> Status {
    let node: NodeId = "node-1".parse().unwrap();
    let position = EpochTxid { epoch: Epoch(3), txid: crate::txid::Txid(0x2a) };
    let primary = Primary { node: node.clone(), epoch: Epoch(3), since: std::time::UNIX_EPOCH };
    Status {
        node: node.clone(),
        role: Role::Primary,
        writable: true,
        primary: Some(PrimaryStatus::from(&primary)),
        no_primary: None,
        quorum: true,
        position,
        lag_ms: Some(0),
        litefs: EngineStatus {
            engine: "embedded".into(),
            state: "running".into(),
            pid: None,
            restarts: 0,
        },
        app: AppStatus { state: AppState::Up, pid: Some(4711), restarts: 1, note: None },
        services: Vec::new(),
        nodes: vec![Member {
            node,
            role: Role::Primary,
            reachable: true,
            position: Some(position),
            lag_ms: Some(0),
        }],
        raft: None,
        suspected_writes: Vec::new(),
        learned_writes: Vec::new(),
        warnings: Vec::new(),
        backup: None,
        version: VERSION.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_fields_that_users_were_promised() {
        let json = serde_json::to_value(example()).unwrap();
        let expected = serde_json::json!({
            "node": "node-1",
            "role": "primary",
            "writable": true,
            "primary": {"node": "node-1", "epoch": 3, "since": "1970-01-01T00:00:00Z"},
            "quorum": true,
            "position": {"epoch": 3, "txid": "000000000000002a"},
            "lag_ms": 0,
            "litefs": {"engine": "embedded", "state": "running", "pid": null, "restarts": 0},
            "app": {"state": "up", "pid": 4711, "restarts": 1},
            "nodes": [{
                "node": "node-1",
                "role": "primary",
                "reachable": true,
                "position": {"epoch": 3, "txid": "000000000000002a"},
                "lag_ms": 0,
            }],
            "suspected_writes": [],
            "learned_writes": [],
            "version": VERSION,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn reads_back_what_it_wrote_and_what_a_later_version_may_add() {
        let mut json = serde_json::to_value(example()).unwrap();
        json["later"] = true.into();
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), example());
    }
}
