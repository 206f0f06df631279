//! The user's programs that run when this node's part changes: `app.on_promote`, `app.on_demote`,
//! `app.on_quorum_lost`.
//!
//! Each gets `LITEPILOT_NODE`, this node; `LITEPILOT_EPOCH`, the epoch that begins, ends, or was known
//! last; and `LITEPILOT_PRIMARY`, who is primary as far as this node knows, empty if nobody is. Each is
//! killed when it takes longer than `app.hook_timeout`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::{ClusterView, Epoch, NodeId};
use crate::config::{Config, Election};
use crate::engine::BoxFuture;
use crate::process::app;
use crate::process::guard::{Guard, SharedDeadline};
use crate::process::hook;
use crate::process::spawn::Launch;
use crate::telemetry::events::Events;

/// All of them. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Hooks {
    node: NodeId,
    view: watch::Receiver<ClusterView>,
    on_promote: Arc<Hook>,
    on_demote: Arc<Later>,
    on_quorum_lost: Arc<Later>,
}

struct Hook {
    sort: Sort,
    launch: Launch,
    limit: Duration,
    events: Arc<Events>,
}

/// What is said of a hook.
struct Sort {
    name: &'static str,
    key: &'static str,
    /// The kind of its events.
    kind: &'static str,
    /// What waits for it, if anything does: then it is said that it runs.
    waits: Option<&'static str>,
    /// What follows when it has run, and when it has failed.
    success: &'static str,
    failure: &'static str,
}

const ON_PROMOTE: Sort = Sort {
    name: "on_promote",
    key: "app.on_promote",
    kind: "on-promote",
    waits: Some("writes wait for it"),
    success: "; this node takes writes",
    failure: "this node takes no writes; fix it and restart",
};
const ON_PROMOTE_IF_ELECTED: Sort = Sort {
    failure: "this node takes no writes and lets another one be primary; fix it",
    ..ON_PROMOTE
};
const ON_DEMOTE: Sort = Sort {
    name: "on_demote",
    key: "app.on_demote",
    kind: "on-demote",
    waits: None,
    success: "",
    failure: "this node is a replica all the same",
};
const ON_QUORUM_LOST: Sort = Sort {
    name: "on_quorum_lost",
    key: "app.on_quorum_lost",
    kind: "on-quorum-lost",
    waits: None,
    success: "",
    failure: "reads go on all the same",
};

/// One that nobody waits for. It runs once at a time; of several occasions that come meanwhile only the
/// last one counts.
struct Later {
    hook: Hook,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    next: Option<Occasion>,
    runs: bool,
}

/// What a hook is told by its environment, beside this node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Occasion {
    epoch: Epoch,
    primary: Option<NodeId>,
}

impl Hooks {
    /// As configured. `guard` is the application's: what runs before writes are taken may write to the
    /// database.
    pub(crate) fn new(
        config: &Config,
        guard: Option<Guard>,
        events: &Arc<Events>,
        view: watch::Receiver<ClusterView>,
    ) -> Self {
        let app = &config.app;
        let hook = |sort: Sort, command: &[String], guard| Hook {
            launch: Launch {
                name: sort.name.into(),
                key: sort.key,
                command: command.to_vec(),
                user: app.user.clone(),
                env: vec![("LITEPILOT_NODE".to_owned(), config.node.to_string())],
                log: app::log.into(),
                guard,
            },
            sort,
            limit: app.hook_timeout,
            events: events.clone(),
        };
        let later = |hook| Arc::new(Later { hook, state: watch::Sender::default() });
        // The others run when a claim has ended or is about to, and must not die with it.
        let shared_deadline = SharedDeadline::default();
        let for_life = guard.clone().map(|guard| Guard { shared_deadline, ..guard });
        let elected = config.cluster.election == Election::Raft;
        let on_promote = if elected { ON_PROMOTE_IF_ELECTED } else { ON_PROMOTE };
        Self {
            node: config.node.clone(),
            view,
            on_promote: Arc::new(hook(on_promote, app.on_promote.command(), guard)),
            on_demote: later(hook(ON_DEMOTE, &app.on_demote, for_life.clone())),
            on_quorum_lost: later(hook(ON_QUORUM_LOST, &app.on_quorum_lost, for_life)),
        }
    }

    /// Runs `on_promote`; ready with whether this node may take writes. Dropped, it is killed.
    pub(crate) fn promoted(&self, epoch: Epoch) -> BoxFuture<'static, bool> {
        let (hook, primary) = (self.on_promote.clone(), Some(self.node.clone()));
        Box::pin(async move { hook.run(&Occasion { epoch, primary }).await })
    }

    /// This node is no longer primary. Has `on_demote` run soon; nobody need wait for it.
    pub(crate) fn demoted(&self, epoch: Epoch) {
        let others = |node: &NodeId| *node != self.node;
        let primary = self.view.borrow().primary.as_ref().map(|p| p.node.clone()).filter(others);
        self.on_demote.is_due(Occasion { epoch, primary });
    }

    /// Runs what is due, and looks out for a quorum that is lost. Never ends.
    pub(crate) async fn run(self) {
        tokio::join!(self.on_demote.run(), self.on_quorum_lost.run(), self.watch_quorum());
    }

    /// Ready once nothing is due any more.
    pub(crate) async fn settled(&self) {
        self.on_demote.settled().await;
        self.on_quorum_lost.settled().await;
    }

    async fn watch_quorum(&self) {
        let mut views = self.view.clone();
        let (mut had, mut epoch) = (false, Epoch(0));
        loop {
            let view = views.borrow_and_update().clone();
            epoch = epoch.max(view.epoch());
            if had && !view.quorum {
                let primary = view.primary.map(|primary| primary.node);
                self.on_quorum_lost.is_due(Occasion { epoch, primary });
            }
            had = view.quorum;
            if views.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Hook {
    /// Runs it to its end; whether that was good. One that is not configured is.
    async fn run(&self, occasion: &Occasion) -> bool {
        if self.launch.command.is_empty() {
            return true;
        }
        let mut launch = self.launch.clone();
        let primary = occasion.primary.as_ref().map_or("", NodeId::as_str);
        launch.env.push(("LITEPILOT_EPOCH".to_owned(), occasion.epoch.to_string()));
        launch.env.push(("LITEPILOT_PRIMARY".to_owned(), primary.to_owned()));
        let Sort { key, kind, waits, success, failure, .. } = self.sort;
        if let Some(waits) = waits {
            self.events.record(kind, format!("{key} runs; {waits}"));
        }
        let ran = hook::run(&launch, self.limit).await;
        let text = match &ran {
            Ok(()) => format!("{key} has run{success}"),
            Err(why) => format!("{key}: {why}; {failure}"),
        };
        self.events.record(kind, text);
        ran.is_ok()
    }
}

impl Later {
    fn is_due(&self, occasion: Occasion) {
        if !self.hook.launch.command.is_empty() {
            self.state.send_modify(|state| state.next = Some(occasion));
        }
    }

    /// Runs it whenever it is due.
    async fn run(&self) {
        let mut states = self.state.subscribe();
        // The sender is ours, so there is always one.
        while states.wait_for(|state| state.next.is_some()).await.is_ok() {
            let mut occasion = None;
            self.state.send_modify(|state| {
                occasion = state.next.take();
                state.runs = true;
            });
            if let Some(occasion) = occasion {
                self.hook.run(&occasion).await;
            }
            self.state.send_modify(|state| state.runs = false);
        }
    }

    async fn settled(&self) {
        let settled = |state: &State| state.next.is_none() && !state.runs;
        let _ = self.state.subscribe().wait_for(settled).await;
    }
}

#[cfg(test)]
mod tests;
