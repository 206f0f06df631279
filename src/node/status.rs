//! The node's status, made of what its parts publish.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::programs::{self, Programs};
use crate::backup::progress::Progress;
use crate::cluster::{ClusterView, NodeId, Role};
use crate::config::{Config, RunOn};
use crate::engine::Engine;
use crate::peer::gossip::{Peers, Report};
use crate::process::child::ChildState;
use crate::process::health::AppHealth;
use crate::proxy::learned::LearnedRoutes;
use crate::proxy::misclassified_reads::MisclassifiedReads;
use crate::status::{
    AppState, AppStatus, Member, PrimaryStatus, RaftStatus, ServiceStatus, Status, StatusSource,
    VERSION, Warning,
};
use crate::telemetry::warnings::Warnings;
use crate::txid::EpochTxid;

/// Every member, and what it is until it says so itself.
pub(crate) type Roster = Arc<dyn Fn() -> Vec<(NodeId, Role)> + Send + Sync>;

/// What is to be said of the application, each if it is; the first counts.
pub(crate) type Notes = [watch::Receiver<Option<String>>; 2];

/// How Raft stands.
pub(crate) type RaftSource = Arc<dyn Fn() -> RaftStatus + Send + Sync>;

/// What the status is made of.
pub(crate) struct StatusInputs {
    pub(crate) node: NodeId,
    pub(crate) view: watch::Receiver<ClusterView>,
    /// What the others say of themselves.
    pub(crate) heard: Option<watch::Receiver<Peers>>,
    pub(crate) engine: Arc<dyn Engine>,
    /// Whether the application answers.
    pub(crate) health: AppHealth,
    /// The application's process, if it is ours, and the services'.
    pub(crate) programs: Programs,
    /// Where the application runs.
    pub(crate) run_on: RunOn,
    pub(crate) notes: Notes,
    /// Reads that seem to have written.
    pub(crate) suspects: Arc<MisclassifiedReads>,
    /// Routes that were found to write.
    pub(crate) learned: Arc<LearnedRoutes>,
    /// What is wrong now.
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) backup: Option<Arc<Progress>>,
}

/// The members that a configuration names; a node without peers is alone.
pub(crate) fn configured_roster(config: &Config) -> Roster {
    let nodes: Vec<_> = match config.cluster.peers.is_empty() {
        true => vec![(config.node.clone(), Role::Replica)],
        false => config.cluster.peers.iter().map(|(n, _)| (n.clone(), Role::Replica)).collect(),
    };
    Arc::new(move || nodes.clone())
}

impl StatusInputs {
    /// Makes a status each time it is asked. `roster`: every member, this node included; `raft`: who
    /// leads Raft, if there is an election.
    pub(crate) fn source(self, roster: Roster, raft: Option<RaftSource>) -> StatusSource {
        Arc::new(move || self.status(&roster(), raft.as_ref().map(|raft| raft())))
    }

    fn status(&self, roster: &[(NodeId, Role)], raft: Option<RaftStatus>) -> Status {
        let view = self.view.borrow().clone();
        let level = self.level(&view);
        let own = self.engine.position().get();
        let lag_ms = lag(own, level, self.engine.lag().map(millis));
        Status {
            node: self.node.clone(),
            role: view.role,
            writable: view.takes_writes(),
            primary: view.primary.as_ref().map(PrimaryStatus::from),
            no_primary: view.no_primary.as_ref().map(|why| why.to_string()),
            quorum: view.quorum,
            position: own,
            lag_ms,
            litefs: self.engine.state().into(),
            app: self.app(&view),
            services: self.services(),
            nodes: self.nodes(roster, &view, level, lag_ms),
            raft,
            suspected_writes: self.suspects.list(),
            learned_writes: self.learned.list(),
            warnings: self.warnings.list().into_iter().map(Warning::from).collect(),
            backup: self.backup.as_ref().map(|backup| backup.status(own.txid)),
            version: VERSION.to_owned(),
        }
    }

    fn app(&self, view: &ClusterView) -> AppStatus {
        let child = self.programs.app().map(|state| *state.borrow());
        let rests = self.run_on == RunOn::Primary && view.role == Role::Replica;
        AppStatus {
            state: if rests { AppState::Standby } else { self.health.is_up().into() },
            pid: child.and_then(|c| c.pid),
            restarts: child.map_or(0, |c| c.restarts),
            note: self.notes.iter().find_map(|note| note.borrow().clone()),
        }
    }

    fn services(&self) -> Vec<ServiceStatus> {
        let status = |(name, child): (&str, watch::Receiver<ChildState>)| {
            let child = *child.borrow();
            ServiceStatus {
                name: name.to_owned(),
                state: programs::word(child.state).to_owned(),
                pid: child.pid,
                restarts: child.restarts,
            }
        };
        self.programs.services().map(status).collect()
    }

    fn heard(&self) -> Peers {
        self.heard.as_ref().map(|heard| heard.borrow().clone()).unwrap_or_default()
    }

    /// What the primary holds, while it is heard.
    fn level(&self, view: &ClusterView) -> Option<EpochTxid> {
        let primary = view.primary.as_ref()?;
        if primary.node == self.node {
            return Some(self.engine.position().get());
        }
        let heard = self.heard();
        let heard = heard.get(&primary.node).filter(|heard| heard.reachable)?;
        Some(heard.report.position).filter(|position| position.epoch == primary.epoch)
    }

    fn nodes(
        &self,
        roster: &[(NodeId, Role)],
        view: &ClusterView,
        level: Option<EpochTxid>,
        lag_ms: Option<u64>,
    ) -> Vec<Member> {
        let heard = self.heard();
        let is_primary =
            |node: &NodeId| view.primary.as_ref().is_some_and(|primary| primary.node == *node);
        let member = |(node, role): &(NodeId, Role)| {
            if *node == self.node {
                return Member {
                    node: node.clone(),
                    role: view.role,
                    reachable: true,
                    position: Some(self.engine.position().get()),
                    lag_ms,
                };
            }
            let report: Option<&Report> = heard.get(node).map(|h| &h.report);
            let reachable = heard.get(node).is_some_and(|h| h.reachable);
            let role = report.map_or(*role, |r| r.role);
            let position = report.filter(|_| role != Role::Witness).map(|r| r.position);
            Member {
                node: node.clone(),
                // Who that is this node knows best: what others said of themselves may be outdated.
                role: match role {
                    _ if is_primary(node) => Role::Primary,
                    Role::Primary => Role::Replica,
                    other => other,
                },
                reachable,
                position,
                // How far behind one is that is not heard, nobody knows.
                lag_ms: position
                    .filter(|_| reachable)
                    .and_then(|held| lag(held, level, report.and_then(|r| r.lag_ms))),
            }
        };
        roster.iter().map(member).collect()
    }
}

/// What the engine says is for how long a copy may be behind; one that holds everything is not.
fn lag(held: EpochTxid, level: Option<EpochTxid>, said: Option<u64>) -> Option<u64> {
    match level {
        Some(level) if held >= level => Some(0),
        _ => said,
    }
}

fn millis(lag: Duration) -> u64 {
    u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)
}
